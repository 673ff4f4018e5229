"""What lies at an output's path: whether batchmax wrote it, for which job, and what came out.

Knows finished outputs, files and folders; neither writes nor removes anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.file_names import is_of_macos
from batchmax.sink import SUMMARY_KEY

SUCCESS = "_SUCCESS"

JOB_KEY = "batchmax"
"""The metadata of a file that say which job made it."""

MANIFEST_KEYS = {"n_rows", "status_counts", "version"}
"""What every manifest says, whatever else: JSON without them is somebody else's."""


def is_ours(path: Path, *, is_file: bool) -> bool:
    """Return whether batchmax wrote the file, or the folder and every file in it, as their footers say."""
    if is_file:
        return _is_our_file(path)
    if not path.is_dir() or not (path / SUCCESS).is_file():
        return False
    parts = [part for part in files_in(path) if part.name != SUCCESS]
    return bool(parts) and all(map(_is_our_file, parts))


def is_manifest(path: Path) -> bool:
    """Return whether a file is a manifest that batchmax wrote."""
    return read_manifest(path) is not None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return a manifest; None if it is not one that batchmax wrote."""
    try:
        return manifest_in(path.read_bytes()) if path.is_file() else None
    except OSError:
        return None


def manifest_in(data: bytes) -> dict[str, Any] | None:
    """Return the manifest that some bytes are; None if they are not one that batchmax wrote."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.keys() >= MANIFEST_KEYS else None


def job_of(path: Path, *, is_file: bool) -> dict[str, Any] | None:
    """Return which job made a finished output, None if it was not batchmax."""
    parts = [path] if is_file else sorted(part for part in files_in(path) if part.suffix == ".parquet")
    return _json_of(parts[0], JOB_KEY) if parts and is_ours(path, is_file=is_file) else None


def summary_of(path: Path, manifest: Path | None) -> dict[str, Any] | None:
    """Return the summary of a finished output: from a folder's manifest, or from the file itself."""
    return _json_of(path, SUMMARY_KEY) if manifest is None else read_manifest(manifest)


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what two jobs do not have in common, the one asked for first."""
    for key in dict.fromkeys((*here, *there)):
        one, other = here.get(key), there.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other)
        elif one != other and key == "inputs":
            yield "the inputs are others, or have changed"
        elif one != other:
            yield f"{key} is {json.dumps(one, ensure_ascii=False)}, was {json.dumps(other, ensure_ascii=False)}"


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and the folders in it, but those that macOS puts there."""
    return [path for path in folder.rglob("*") if not path.is_dir() and not is_of_macos(path.name)]


def _is_our_file(path: Path) -> bool:
    try:
        return path.is_file() and JOB_KEY.encode() in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _json_of(path: Path, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads((pq.read_metadata(path).metadata or {})[key.encode()])
    except (OSError, pa.ArrowException, KeyError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def newest(paths: list[str]) -> int:
    """Return when the last of some files was changed, in nanoseconds; 0 for none."""
    return max((os.stat(path).st_mtime_ns for path in paths), default=0)  # noqa: PTH116 - a URI one day

"""Inspects finished outputs: whether batchmax wrote them, for which job, and with which summary.

Knows files and folders; neither writes nor removes anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.parquet_file import read_footer
from batchmax.storage.file_names import is_of_macos
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.manifest import JOB_KEY, MANIFEST, PART, find_manifest, old_manifest_of, read_old_manifest

SUCCESS = "_SUCCESS"


def is_ours(path: Path, *, is_file: bool) -> bool:
    """Return whether batchmax wrote the file, or the folder and every file in it, according to their footers."""
    if is_file:
        return _is_our_file(path)
    if not path.is_dir() or not (path / SUCCESS).is_file():
        return False
    parts = [part for part in files_in(path) if part.name != SUCCESS]
    return bool(parts) and all(map(_is_our_file, parts))


def job_of(path: Path, *, is_file: bool) -> dict[str, Any] | None:
    """Return the job that made a finished output; None if batchmax didn't write it."""
    parts = [path] if is_file else sorted(part for part in files_in(path) if part.suffix == ".parquet")
    return _json_of(parts[0], JOB_KEY) if parts and is_ours(path, is_file=is_file) else None


def summary_of(path: Path, *, is_file: bool) -> Mapping[str, Any] | None:
    """Return the summary of a finished output, from the file or from the folder's manifest."""
    if is_file:
        return _json_of(path, SUMMARY_KEY)
    found = find_manifest(path)
    return read_old_manifest(old_manifest_of(path)) if found is None else found[1].summary


def is_output_folder(path: Path) -> bool:
    """Return whether a folder is a finished output that contains no other files, according to their names."""
    if not (path / SUCCESS).is_file():
        return False
    if find_manifest(path) is None and read_old_manifest(old_manifest_of(path)) is None:
        return False
    return all(part.name in {SUCCESS, MANIFEST} or PART.fullmatch(part.name) for part in files_in(path))


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    """Yield descriptions of the differences of two jobs; ``here`` is the requested one."""
    for key in dict.fromkeys((*here, *there)):
        one, other = here.get(key), there.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other)
        elif one != other and key == "inputs":
            yield "the inputs are others, or have changed"
        elif one != other:
            yield f"{key} is {json.dumps(one, ensure_ascii=False)}, was {json.dumps(other, ensure_ascii=False)}"


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, except those that macOS adds."""
    return [path for path in folder.rglob("*") if not path.is_dir() and not is_of_macos(path.name)]


def _is_our_file(path: Path) -> bool:
    try:
        return path.is_file() and JOB_KEY.encode() in (read_footer(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _json_of(path: Path, key: str) -> dict[str, Any] | None:
    try:
        return json_object(parse_json((read_footer(path).metadata or {})[key.encode()]), {})
    except (OSError, pa.ArrowException, KeyError, JsonError):
        return None

"""The manifest of an output folder: ``_batchmax.parquet``, a Parquet file without rows, whose metadata list the parts.

It has the columns of the parts, so that every reader of the folder accepts it. It is in the folder of the first part,
so that folders named ``key=value`` are still a partitioned table. In an object store, where a folder can't be replaced
in one step, the names of parts have the id of the run that wrote them, and the manifest determines which parts belong
to the output: :func:`without_other_runs`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import DataError
from batchmax.runtime.text import quantity
from batchmax.storage.file_names import composed
from batchmax.storage.json_fields import JsonError, json_object, parse_json

MANIFEST = "_batchmax.parquet"
MANIFEST_KEY = "batchmax.manifest"
"""The metadata key of the manifest, as JSON."""

JOB_KEY = "batchmax"
"""The metadata key of the job that wrote an output file."""

PART = re.compile(r"part-([0-9]{5,})(?:-([0-9a-f]{8}))?\.parquet")
"""The name of a part: its number in its folder and, in an object store, the id of its run."""

OLD_SUFFIX = ".batchmax.json"
"""Suffix of the manifests of earlier versions, which are next to the folder."""

OLD_KEYS = {"n_rows", "status_counts", "version"}
"""Members that every manifest of an earlier version has."""

FIELDS = {"parts": dict, "run": str, "generation": int, "summary": dict}


@dataclass(frozen=True)
class Manifest:
    """The contents of a finished output folder.

    Attributes
    ----------
    parts
        The paths of the parts in the folder, in the order of their rows, and their sizes in bytes.
    summary
        The summary of the job, without times and paths.
    run
        The id in the names of the parts; empty for a folder of a file system.
    generation
        The number of outputs published at this URI, including this one; always 1 in a file system.
    job
        The job that wrote the output, if the manifest was read from a file.
    """

    parts: Mapping[str, int]
    summary: Mapping[str, Any]
    run: str = ""
    generation: int = 1
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path of the manifest in the folder."""
        folder, slash, _ = next(iter(self.parts), "").rpartition("/")
        return f"{folder}{slash}{MANIFEST}"

    def to_json(self) -> str:
        """Return the manifest as JSON."""
        values = {"run": self.run, "generation": self.generation, "summary": self.summary, "parts": self.parts}
        return json.dumps(values, allow_nan=False, ensure_ascii=False)


def manifest_of_metadata(metadata: Mapping[bytes, bytes] | None) -> Manifest:
    """Return the manifest in the metadata of a Parquet file.

    Raises
    ------
    JsonError
        There is no valid manifest.
    """
    texts = {key: (metadata or {}).get(key.encode(), b"") for key in (MANIFEST_KEY, JOB_KEY)}
    values = json_object(parse_json(texts[MANIFEST_KEY]), FIELDS)
    job = json_object(parse_json(texts[JOB_KEY]), {})
    parts = values["parts"]
    if not all(type(size) is int for size in parts.values()):
        raise JsonError("parts has another type")
    return Manifest(parts, values["summary"], values["run"], values["generation"], job)


def read_manifest(file: str | Path | bytes) -> Manifest | None:
    """Return the manifest in a Parquet file, given by its path or its bytes; None if there is none."""
    try:
        # Not opened by its path: pyarrow would take a colon in it for the end of a URI scheme.
        with pa.BufferReader(file) if isinstance(file, bytes) else pa.OSFile(str(file)) as source:
            return manifest_of_metadata(pq.read_metadata(source).metadata)
    except (OSError, pa.ArrowException, JsonError):
        return None


def find_manifest(folder: Path) -> tuple[Path, Manifest] | None:
    """Return the manifest in an output folder and its path; None if there is none."""
    paths = [folder / MANIFEST]
    if not paths[0].is_file():
        paths = sorted(folder.rglob(MANIFEST)) if folder.is_dir() else []
    for path in paths:
        found = read_manifest(path)
        if found is not None and folder / found.path == path:
            return path, found
    return None


def old_manifest_of(folder: Path) -> Path:
    """Return where earlier versions put the manifest of a folder."""
    return folder.with_name(f"{folder.name}{OLD_SUFFIX}")


def read_old_manifest(file: Path | bytes) -> dict[str, Any] | None:
    """Return the manifest of an earlier version, given by its path or its bytes; None if it isn't one."""
    try:
        data = file if isinstance(file, bytes) else file.read_bytes() if file.is_file() else b""
        return json_object(parse_json(data), dict.fromkeys(OLD_KEYS, object))
    except (OSError, JsonError):
        return None


def run_part(name: str, run: str) -> str:
    """Return the name of a part in an object store, which has the id of the run."""
    return f"{name.removesuffix('.parquet')}-{run}.parquet"


def run_of(path: str) -> str | None:
    """Return the id of the run that wrote a part; None if the path has none or isn't that of a part."""
    match = PART.fullmatch(path.rpartition("/")[2])
    return match[2] if match else None


def without_other_runs(names: Sequence[str], read: Callable[[str], Manifest | None], *, whole: bool) -> list[str]:
    """Return the names of files, without manifests and without parts of runs that aren't published.

    Parameters
    ----------
    names
        The paths or URIs of all files below a folder, including hidden ones.
    read
        Reads a manifest; returns None if a file isn't one.
    whole
        Whether every part that a manifest lists must be among the names.

    Raises
    ------
    DataError
        A part that a manifest lists is missing, or there are parts of a run that isn't published: with ``whole``, parts
        without a manifest; otherwise, parts of several runs in one folder.
    """
    published: dict[str, Manifest] = {}
    for name in names:
        if name.rpartition("/")[2] == MANIFEST and (found := read(name)) is not None and name.endswith(found.path):
            root = name.removesuffix(found.path)
            if root not in published or found.generation > published[root].generation:
                published[root] = found
    # The file system may encode accents in another way than the manifest.
    there = set(map(composed, names)) if published else set()
    listed: set[str] = set()
    for root, manifest in published.items():
        parts = [composed(f"{root}{part}") for part in manifest.parts]
        listed.update(parts)
        if whole and (missing := [part for part in parts if part not in there]):
            what = quantity(len(missing), "part that the manifest lists is", "parts that the manifest lists are")
            raise DataError(
                f"{what} missing; this is the first",
                where=missing[0],
                remedy="write the output again, or name the files that exist",
            )
    kept = [name for name in names if composed(name) in listed or not _is_unpublished(name, published)]
    _refuse_unpublished([name for name in kept if composed(name) not in listed], whole=whole)
    return [name for name in kept if name.rpartition("/")[2] != MANIFEST]


def _is_unpublished(name: str, published: Mapping[str, Manifest]) -> bool:
    return run_of(name) is not None and any(map(name.startswith, published))


def _refuse_unpublished(names: Iterable[str], *, whole: bool) -> None:
    runs: dict[str, str] = {}
    for name in names:
        run = run_of(name)
        folder = name.rpartition("/")[0]
        if run is not None and whole:
            what = "the folder has parts of an output that isn't published, and no manifest"
            raise DataError(
                what, where=folder, remedy="wait for the run or resume it, or name the files: a quoted glob"
            )
        if run is not None and runs.setdefault(folder, run) != run:
            what = "the folder has parts of several runs, and no manifest lists those that belong together"
            raise DataError(what, where=folder, remedy="name the whole output folder, or the files with a quoted glob")

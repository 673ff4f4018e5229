"""Open a scored output: find its files, and check that they're complete and agree with each other.

A folder has a manifest; every file has metadata and a summary of its job in its footer. Doesn't check columns.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchmax.errors import DataError
from batchmax.outputs import DECISION_OUTPUTS
from batchmax.runtime.text import quantity
from batchmax.sinks.commit.existing_output import SUCCESS, files_in
from batchmax.sinks.commit.stored_folder import stored_folder
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.parquet_file import InputFile, open_file
from batchmax.storage.file_names import composed, name_order
from batchmax.storage.input_files import find_files
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.manifest import (
    JOB_KEY,
    MANIFEST,
    PART,
    Manifest,
    find_manifest,
    old_manifest_of,
    read_old_manifest,
)
from batchmax.storage.object_store import store_of
from batchmax.storage.paths import is_uri, local_path
from batchmax.verification.computed_columns import computed_columns
from batchmax.verification.output_metadata import OutputMetadata, output_error, parse_metadata

Summary = Mapping[str, Any]
"""The summary of a job, as JSON values."""


@dataclass(frozen=True, eq=False)
class ScoredOutput:
    """A scored output: one file, or the parts of a folder in order.

    Attributes
    ----------
    columns
        The column names of each output.
    summary
        The summary of the job: from the manifest of a folder, or the footer of a file; None if there is none.
    """

    path: str
    files: list[InputFile]
    is_folder: bool
    schema: pa.Schema
    metadata: OutputMetadata
    columns: dict[str, tuple[str, ...]]
    summary: Summary | None

    @property
    def n_rows(self) -> int:
        """The number of rows in all files, from their footers."""
        return sum(file.metadata.num_rows for file in self.files)

    @property
    def checked_columns(self) -> dict[str, tuple[str, ...]]:
        """The columns whose values are checked: those of decisions aren't."""
        return {name: columns for name, columns in self.columns.items() if name not in DECISION_OUTPUTS}

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return sum(file.size for file in self.files)


def open_scored_output(path: str, storage: Sequence[str] = ()) -> ScoredOutput:
    """Open a file or folder that ``score`` wrote, and check that its files agree.

    Parameters
    ----------
    path
        A file, a folder, a URI, or a glob over the files of one output.
    storage
        Storage options for URIs.

    Raises
    ------
    DataError
        The path doesn't exist, ``score`` didn't write it, or it is incomplete.
    UsageError
        The path is a stream.
    """
    path = local_path(path)
    manifest, parts = _find_parts(path, storage)
    is_folder = manifest is not None
    files = [open_file(name, storage) for name in parts]
    first, schema, text = files[0], files[0].schema, _metadata_text(files[0])
    metadata = parse_metadata(first.path, text)
    drops = metadata.options.on_bad_row == "drop"
    for file, size in zip(files, parts.values(), strict=True):
        if _metadata_text(file) != text or not file.schema.equals(schema):
            raise output_error(f"the metadata or the columns differ from those of {first.path}", file.path)
        if size is not None and file.size != size:
            raise output_error(
                f"the file has {quantity(file.size, 'byte')}, but the manifest lists {size:,}", file.path
            )
        _check_rows(file.path, file.metadata.num_rows, _summary(file), "the summary in the footer", drops=drops)
    summary = manifest if is_folder or len(files) > 1 else _summary(first)
    columns = computed_columns(first.path, schema, metadata)
    output = ScoredOutput(path, files, is_folder, schema, metadata, columns, summary)
    _check_rows(path, output.n_rows, manifest, "the manifest", drops=drops)
    return output


def _check_rows(path: str, rows: int, summary: Summary | None, source: str, *, drops: bool) -> None:
    """Compare a number of rows with the one in a summary; ``drops`` says whether bad rows were dropped."""
    if summary is None:
        return
    read, bad = summary.get("n_rows"), summary.get("bad_rows")
    if not isinstance(read, int) or not isinstance(bad, int):
        raise output_error(f"{source} has no number of rows", path)
    expected = read - bad if drops else read
    if expected != rows:
        raise output_error(f"the output has {quantity(rows, 'row')}, but {source} lists {expected:,}", path)


def _find_parts(path: str, storage: Sequence[str]) -> tuple[Summary | None, dict[str, int | None]]:
    """Return the summary in a folder's manifest, the paths of the files, and their sizes if the manifest has them."""
    if is_uri(path):
        store = store_of(path, storage)
        stored = None if store.info() is not None and not path.endswith("/") else stored_folder(store)
        if stored is not None and stored.is_finished:
            # Objects of uncommitted runs aren't part of the output.
            others = set(stored.stale() if stored.manifest is not None else ())
            files = {composed(name): f"{store.uri}/{name}" for name in stored.objects if name not in others}
            return _parts_of_folder(store.uri, files, stored.manifest, stored.old, "")
    elif (folder := Path(path)).is_dir():
        found = find_manifest(folder)
        files = {composed(str(one.relative_to(folder))): str(one) for one in files_in(folder)}
        old = read_old_manifest(old_manifest_of(folder)) if found is None else None
        command = f"; see: ls {shlex.quote(str(folder))}"
        return _parts_of_folder(str(folder), files, None if found is None else found[1], old, command)
    return None, dict.fromkeys(find_files([path], storage))


def _parts_of_folder(
    folder: str, files: Mapping[str, str], manifest: Manifest | None, old: Summary | None, command: str
) -> tuple[Summary, dict[str, int | None]]:
    """Return the summary of a folder, and its parts with their sizes; raise if one is missing or another file is there.

    ``files`` has the paths of all files by their names in the folder; ``old`` is the manifest of an earlier version.
    """
    if manifest is None and old is None:
        what = f"the folder has no manifest {MANIFEST} of batchmax"
        raise DataError(what, where=folder, remedy=f"name a folder that score wrote, or one of the files{command}")
    if SUCCESS not in files:
        raise _incomplete(folder, SUCCESS)
    if manifest is None:
        parts = _numbered_parts(path for name, path in files.items() if name != SUCCESS)
        if not parts:
            raise _incomplete(folder, "part-00000.parquet")
        return dict(old or {}), dict.fromkeys(parts)
    sizes = {composed(name): size for name, size in manifest.parts.items()}
    if missing := [name for name in sizes if name not in files]:
        raise _incomplete(folder, missing[0])
    if foreign := sorted(files.keys() - sizes.keys() - {composed(manifest.path), SUCCESS}):
        raise _foreign(files[foreign[0]])
    return dict(manifest.summary), {files[name]: size for name, size in sizes.items()}


def _numbered_parts(paths: Iterable[str]) -> list[str]:
    """Return parts in order; raise if one is missing, or if a file isn't a part.

    In a folder that mirrors the input's folders, each subfolder numbers its parts from 0.
    """
    split = [path.rpartition("/") for path in paths]
    split.sort(key=lambda one: (name_order(f"{one[0]}/"), f"{one[2]:>40}"))
    numbers: Counter[str] = Counter()
    for folder, _, name in split:
        match = PART.fullmatch(name)
        if match is None:
            raise _foreign(f"{folder}/{name}")
        if int(match[1]) != numbers[folder]:
            raise _incomplete(folder, f"part-{numbers[folder]:05d}.parquet")
        numbers[folder] += 1
    return ["".join(one) for one in split]


def _incomplete(folder: str, missing: str) -> DataError:
    return output_error(f"the output is incomplete: {missing} is missing", folder)


def _foreign(path: str) -> DataError:
    return DataError("the file is not part of the output", where=path, remedy="move it to another folder")


def _metadata_text(file: InputFile) -> bytes:
    text = (file.metadata.metadata or {}).get(JOB_KEY.encode())
    if text is None:
        raise DataError(
            "the file is not an output of score: its footer has no metadata 'batchmax'",
            where=file.path,
            remedy=f"to see what it contains: batchmax inspect {shlex.quote(file.path)}",
        )
    return bytes(text)


def _summary(file: InputFile) -> Summary | None:
    text = (file.metadata.metadata or {}).get(SUMMARY_KEY.encode())
    if text is None:
        return None
    try:
        return json_object(parse_json(text), {})
    except JsonError as error:
        raise output_error("the summary in the footer is invalid", file.path) from error

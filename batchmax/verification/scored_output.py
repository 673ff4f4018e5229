"""Open a scored output: find its files, and check that they're complete and agree with each other.

A folder has a manifest; every file has metadata and a summary of its job in its footer. Doesn't check columns.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchmax.errors import DataError
from batchmax.runtime.text import quantity
from batchmax.sinks.commit.existing_output import SUCCESS, files_in
from batchmax.sinks.commit.stored_folder import StoredFolder, stored_folder
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.parquet_file import InputFile, arrow_schema, open_file
from batchmax.storage.file_names import composed, name_order
from batchmax.storage.input_files import find_files
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.manifest import JOB_KEY, MANIFEST, PART, find_manifest, old_manifest_of, read_old_manifest
from batchmax.storage.object_store import store_of
from batchmax.storage.paths import is_uri, local_path
from batchmax.verification.computed_columns import computed_columns
from batchmax.verification.output_metadata import SCORE_AGAIN, OutputMetadata, parse_metadata

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
    first, schema = files[0], arrow_schema(files[0])
    texts = [_metadata_text(file) for file in files]
    metadata = parse_metadata(first.path, texts[0])
    for file, text in zip(files, texts, strict=True):
        if text != texts[0] or not arrow_schema(file).equals(schema):
            what = f"the metadata or the columns differ from those of {first.path}"
            raise DataError(what, where=file.path, remedy=SCORE_AGAIN)
    for file, size in zip(files, parts.values(), strict=True):
        if size is not None and file.size != size:
            what = f"the file has {quantity(file.size, 'byte')}, but the manifest lists {size:,}"
            raise DataError(what, where=file.path, remedy=SCORE_AGAIN)
    summaries = [_summary(file) for file in files]
    drops = metadata.options.on_bad_row == "drop"
    for file, summary in zip(files, summaries, strict=True):
        _check_rows(file.path, file.metadata.num_rows, summary, "the summary in the footer", drops=drops)
    summary = manifest if is_folder or len(files) > 1 else summaries[0]
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
        raise DataError(f"{source} has no number of rows", where=path, remedy=SCORE_AGAIN)
    expected = read - bad if drops else read
    if expected != rows:
        raise DataError(
            f"the output has {quantity(rows, 'row')}, but {source} lists {expected:,}", where=path, remedy=SCORE_AGAIN
        )


def _find_parts(path: str, storage: Sequence[str]) -> tuple[Summary | None, dict[str, int | None]]:
    """Return the summary in a folder's manifest, the paths of the files, and their sizes if the manifest has them."""
    if is_uri(path):
        store = store_of(path, storage)
        folder = None if store.info() is not None and not path.endswith("/") else stored_folder(store)
        if folder is not None and folder.is_finished:
            return _stored_folder(store.uri, folder)
    elif Path(path).is_dir():
        return _folder(Path(path))
    return None, dict.fromkeys(find_files([path], storage))


def _stored_folder(uri: str, folder: StoredFolder) -> tuple[Summary, dict[str, int | None]]:
    """Return the same for a folder in an object store, without the objects of uncommitted runs."""
    if SUCCESS not in folder.objects:
        raise _incomplete(uri, SUCCESS)
    if folder.manifest is None:
        if folder.old is None:
            raise _no_manifest(uri, "")
        parts = sorted(name for name in folder.objects if PART.fullmatch(name.rpartition("/")[2]))
        return folder.old, {f"{uri}/{name}": None for name in parts}
    missing = next((name for name in folder.manifest.parts if name not in folder.objects), None)
    if missing is not None:
        raise _incomplete(uri, missing)
    # A folder that was copied here has parts without a run id.
    if foreign := [name for name in folder.foreign() if name not in folder.manifest.parts]:
        raise _foreign(f"{uri}/{foreign[0]}")
    return dict(folder.manifest.summary), {f"{uri}/{name}": size for name, size in folder.manifest.parts.items()}


def _folder(folder: Path) -> tuple[Summary, dict[str, int | None]]:
    """Return the summary in a folder's manifest, the paths of its parts, and their sizes if the manifest has them."""
    found = find_manifest(folder)
    if found is None:
        summary = read_old_manifest(old_manifest_of(folder))
        if summary is None:
            raise _no_manifest(str(folder), f": ls {shlex.quote(str(folder))}")
        return summary, dict.fromkeys(_parts(folder))
    path, manifest = found
    if not (folder / SUCCESS).exists():
        raise _incomplete(str(folder), SUCCESS)
    others = {composed(str(one.relative_to(folder))): one for one in files_in(folder)}
    parts: dict[str, int | None] = {}
    for name, size in manifest.parts.items():
        part = others.pop(composed(name), None)
        if part is None:
            raise _incomplete(str(folder), name)
        parts[str(part)] = size
    if foreign := sorted(others.keys() - {composed(str(path.relative_to(folder))), SUCCESS}):
        raise _foreign(str(folder / foreign[0]))
    return dict(manifest.summary), parts


def _parts(folder: Path) -> list[str]:
    """Return the parts of a folder; raise if a part is missing or another file is there.

    In a folder that mirrors the input's folders, each subfolder numbers its parts from 0.
    """
    if not (folder / SUCCESS).exists():
        raise _incomplete(str(folder), SUCCESS)
    found = [path for path in files_in(folder) if path != folder / SUCCESS]
    found.sort(key=lambda path: (name_order(f"{path.parent}/"), f"{path.name:>40}"))
    numbers: Counter[Path] = Counter()
    for path in found:
        match = PART.fullmatch(path.name)
        if match is None:
            raise _foreign(str(path))
        if int(match[1]) != numbers[path.parent]:
            raise _incomplete(str(path.parent), f"part-{numbers[path.parent]:05d}.parquet")
        numbers[path.parent] += 1
    if not found:
        raise _incomplete(str(folder), "part-00000.parquet")
    return [str(path) for path in found]


def _incomplete(folder: str, missing: str) -> DataError:
    return DataError(f"the output is incomplete: {missing} is missing", where=folder, remedy=SCORE_AGAIN)


def _foreign(path: str) -> DataError:
    return DataError("the file is not part of the output", where=path, remedy="move it to another folder")


def _no_manifest(folder: str, command: str) -> DataError:
    what = f"the folder has no manifest {MANIFEST} of batchmax"
    return DataError(what, where=folder, remedy=f"name a folder that score wrote, or one of the files{command}")


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
        raise DataError("the summary in the footer is invalid", where=file.path, remedy=SCORE_AGAIN) from error

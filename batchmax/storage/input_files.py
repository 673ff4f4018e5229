"""Finds the files that inputs name: paths, folders, globs and URIs. Opens no files but manifests."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmax.errors import DataError, InputTypeError, UsageError
from batchmax.storage.file_names import name_order
from batchmax.storage.globs import files_below, glob_regex, matching_files
from batchmax.storage.hive import folder_of
from batchmax.storage.manifest import read_manifest, without_other_runs
from batchmax.storage.object_store import store_of
from batchmax.storage.paths import file_identity, is_uri, local_path, refuse_other_encodings, refuse_stream
from batchmax.storage.table_search import TableSearch

MAX_LISTED = 5
"""Maximum number of files that a warning names."""


@dataclass(frozen=True)
class Inputs:
    """The files that inputs name.

    Attributes
    ----------
    files
        The paths of the files, in reading order.
    folders
        For each file, its ``key=value`` folders below the given folder.
    warnings
        Warnings for the user: files that were named more than once.
    """

    files: list[str]
    folders: list[str]
    warnings: list[str]


def paths_of(src: Any) -> list[str]:
    """Return the paths of an input, which is one path or an iterable of paths.

    Raises
    ------
    InputTypeError
        The input has another type.
    """
    if isinstance(src, str | os.PathLike):
        return [os.fspath(src)]
    if not isinstance(src, Iterable) or isinstance(src, bytes | Mapping) or hasattr(src, "__array__"):
        raise _wrong_input(type(src).__name__, src)
    paths = list(src)
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise _wrong_input(f"{type(src).__name__} of {type(path).__name__}", path)
    return [os.fspath(path) for path in paths]


def find_files(inputs: Iterable[str | os.PathLike[str]], storage: Sequence[str] = ()) -> list[str]:
    """Return the files that paths, folders and globs name; see :func:`find_inputs`."""
    return find_inputs(inputs, storage).files


def find_inputs(inputs: Iterable[str | os.PathLike[str]], storage: Sequence[str] = ()) -> Inputs:
    """Return the files that paths, folders and globs name; those of a folder or glob are in bytewise order of paths.

    Folders are searched recursively, also through symbolic links. Names that begin with ``_`` or ``.`` are skipped in
    folders and when a wildcard matches them. Each file is read once: two paths are the same file if they have the same
    device and inode (as hard links have), or the same URI.

    Raises
    ------
    DataError
        A path doesn't exist, a folder has no Parquet files or can't be listed, or a name isn't UTF-8.
    UsageError
        No input is given, an input is a stream, or an input is in a table of Delta Lake, Iceberg or similar.
    """
    found: list[tuple[str, str]] = []
    tables = TableSearch()
    for given in inputs:
        text = local_path(os.fspath(given))
        refuse_stream(text)
        if is_uri(text):
            found += _stored_files(text, storage, tables)
            continue
        files = _local_files(text)
        for file, _ in files:
            refuse_other_encodings(file)
        tables.refuse_local(text, [file for file, _ in files])
        found += files
    if not found:
        raise UsageError("no input is given", remedy="name a file, a folder or a quoted glob")
    return _each_once(found)


def _wrong_input(kind: str, given: Any) -> InputTypeError:
    """Return the error for an input of another type, which says how to make a table of it."""
    remedy = "make a table of it: pyarrow.table({'logits': list(array), 'label': labels})"
    if isinstance(given, Mapping):
        remedy = "make a table of it: pyarrow.table(columns)"
    if hasattr(given, "collect"):
        remedy = "make a table of it: frame.collect()"
    accepted = "paths, or tables and readers with __arrow_c_stream__ (pyarrow, pandas, Polars, DuckDB)"
    return InputTypeError(f"inputs of type {kind} are not supported", remedy=f"give {accepted}; {remedy}")


def _local_files(text: str) -> list[tuple[str, str]]:
    """Return the files of a path or a glob, with their ``key=value`` folders."""
    path = Path(text)
    if path.is_dir():
        files = files_below(text)
        if not files:
            raise DataError("the folder has no Parquet files", where=text, remedy=f"see: ls -a {shlex.quote(text)}")
        return [(file, folder_of(file, text)) for file in files]
    if os.path.lexists(text):
        return [(text, "")]
    what = "no such file or folder"
    if glob.has_magic(text):
        matching = matching_files(text)
        if matching:
            return matching
        what = "no files match this pattern"
    remedy = f"see: ls {shlex.quote(str(_nearest_folder(path)))}"
    raise DataError(what, where=text, remedy=remedy)


def _stored_files(uri: str, storage: Sequence[str], tables: TableSearch) -> list[tuple[str, str]]:
    """Return the objects at or below a URI, or that match it, with their ``key=value`` folders."""
    store = store_of(uri, storage)
    magic = [uri.index(sign) for sign in "*?[" if sign in uri]
    if not magic:
        if not uri.endswith("/") and store.info() is not None:
            tables.refuse_stored(uri, store, [uri])
            return [(uri, "")]
        root, pattern = store.uri, None
    else:
        root, pattern = uri[: min(magic)].rpartition("/")[0], glob_regex(uri)
    sizes = {one.uri: one.size for one in store.at(root).list_below()}

    def published(names: Sequence[str], *, whole: bool) -> list[str]:
        return without_other_runs(names, lambda name: read_manifest(store.at(name).read(0, sizes[name])), whole=whole)

    if pattern is None:
        names = published(list(sizes), whole=True)
    else:
        matches = {name: match for name in sizes if (match := pattern.fullmatch(name))}
        in_folders = [name for name, match in matches.items() if match["below"]]
        named = matches.keys() - in_folders
        names = [name for name in published(list(sizes), whole=False) if name in named]
        names = sorted([*names, *published(in_folders, whole=True)], key=name_order)
    files = [name for name in names if not any(part.startswith(("_", ".")) for part in name[len(root) :].split("/"))]
    if not files:
        what = "no files match this pattern" if pattern else "no such object or folder"
        raise DataError(what, where=uri, remedy="check the URI")
    tables.refuse_stored(uri, store, files, root, sizes)
    return [(name, folder_of(name, root)) for name in files]


def _each_once(found: Sequence[tuple[str, str]]) -> Inputs:
    """Return the files without those that were named before, by the same path or another."""
    first: dict[object, str] = {}
    kept: list[tuple[str, str]] = []
    again: dict[str, None] = {}
    for path, folder in found:
        number = path if is_uri(path) else file_identity(Path(path)) or path
        if number not in first:
            first[number] = path
            kept.append((path, folder))
        else:
            again[path if first[number] == path else f"{path} (the same file as {first[number]})"] = None
    warnings = []
    if again:
        more = f" and {len(again) - MAX_LISTED:,} more" if len(again) > MAX_LISTED else ""
        warnings.append(
            f"inputs that are named more than once are read once: {', '.join(list(again)[:MAX_LISTED])}{more}"
        )
    return Inputs([path for path, _ in kept], [folder for _, folder in kept], warnings)


def _nearest_folder(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.is_dir()), Path())

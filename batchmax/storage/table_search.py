"""Checks whether inputs are in a table of Delta Lake, Iceberg or similar, from the folders around them.

Each folder is checked once. In an object store, folders below an input are known from its listing; those around it, at
most one per level of its path, are requested.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from batchmax.storage.object_store import Store
from batchmax.storage.table_formats import FORMATS, TableFormat, format_of, format_of_file, refuse_table

MARKERS = tuple(one.marker for one in FORMATS)

REQUESTED_MARKERS = ("_delta_log", "metadata", ".hoodie")
"""The markers that are requested from a store, with two requests each; others are only found in listings."""

REQUESTS = 8
"""Folders of a store that are checked in parallel."""

WITHOUT_FOLDERS = ("http://", "https://")
"""These servers may answer any request with a page, so an answer doesn't show that a folder exists."""


class TableSearch:
    """Refuses inputs in tables, by a UsageError that names the table, its format, and how to export its rows."""

    def __init__(self) -> None:
        self._formats: dict[str, TableFormat | None] = {}

    def refuse_local(self, given: str, files: Sequence[str]) -> None:
        """Refuse files that are in a table: in any folder around them, or around the targets of links."""
        links = [file for file in files if os.path.islink(file)]  # noqa: PTH114 - fast, for many files
        paths = [*files, *map(os.path.realpath, links)]
        for path in paths:
            _refuse_file(path, given)
        folders = dict.fromkeys(os.path.dirname(path) or "." for path in paths)  # noqa: PTH120 - as above
        # With links as they are, and resolved.
        around = [path for one in folders for path in (os.path.abspath(one), os.path.realpath(one))]  # noqa: PTH100
        for folder in dict.fromkeys(around):
            for one in (Path(folder), *Path(folder).parents):
                self._refuse(str(one), given, _local_markers, _local_names)

    def refuse_stored(
        self, given: str, store: Store, files: Sequence[str], root: str = "", listed: Iterable[str] = ()
    ) -> None:
        """Refuse objects that are in a table; ``listed`` are the URIs of all objects below ``root``."""
        if store.root in WITHOUT_FOLDERS:
            return
        known: dict[str, set[str]] = {}
        for uri in listed:
            folder, _, entry = uri.rpartition("/")
            while len(folder) >= len(root) and entry not in known.setdefault(folder, set()):
                known[folder].add(entry)
                folder, _, entry = folder.rpartition("/")

        for file in files:
            _refuse_file(file, given)
        folders: dict[str, None] = {}
        for file in files:
            one = file.rpartition("/")[0]
            while len(one) > len(store.root) and one not in folders:
                folders[one] = None
                one = one.rpartition("/")[0]
        unknown = [one for one in folders if one not in known and one not in self._formats]
        with ThreadPoolExecutor(REQUESTS, "markers") as pool:
            requested = dict(zip(unknown, pool.map(lambda one: _stored_markers(store.at(one)), unknown), strict=True))

        def names(folder: str) -> Iterable[str]:
            return known[folder] if folder in known else _stored_names(store.at(folder))

        for folder in folders:
            self._refuse(folder, given, lambda one: known[one] if one in known else requested.get(one, ()), names)

    def _refuse(
        self, folder: str, given: str, markers: Callable[[str], Iterable[str]], names: Callable[[str], Iterable[str]]
    ) -> None:
        if folder not in self._formats:
            self._formats[folder] = format_of(markers(folder), lambda marker: names(f"{folder.rstrip('/')}/{marker}"))
        found = self._formats[folder]
        if found is not None:
            refuse_table(found, folder, given)


def _refuse_file(path: str, given: str) -> None:
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    found = format_of_file(name)
    if found is not None:
        refuse_table(found, folder or ".", given)


def _local_markers(folder: str) -> Iterable[str]:
    return [marker for marker in MARKERS if os.path.isdir(os.path.join(folder, marker))]  # noqa: PTH112, PTH118


def _local_names(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names
    except OSError:
        return ()


def _stored_markers(folder: Store) -> Iterable[str]:
    # Not tried again: a user who may read an object may not be allowed to list the folders around it.
    try:
        infos = _markers_at(folder)
    except (OSError, pa.ArrowException):
        return ()
    return [marker for marker, info in zip(REQUESTED_MARKERS, infos, strict=True) if info.type == fs.FileType.Directory]


def _markers_at(folder: Store) -> Sequence[fs.FileInfo]:
    paths = [f"{folder.path}/{marker}" for marker in REQUESTED_MARKERS]
    found: Sequence[fs.FileInfo] = folder.system.get_file_info(paths)
    return found


def _stored_names(folder: Store) -> Iterable[str]:
    try:
        infos = folder.system.get_file_info(fs.FileSelector(folder.path, allow_not_found=True))
    except (OSError, pa.ArrowException):
        return ()
    return [info.base_name for info in infos]

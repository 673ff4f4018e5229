"""Paths: finds the files that inputs name, and checks the paths of outputs.

Only this module knows how input files are selected. It opens no files but manifests.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import heapq
import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from batchmax.errors import DataError, InputTypeError, OutputError, UsageError
from batchmax.storage.file_names import composed, name_order
from batchmax.storage.hive import folder_of
from batchmax.storage.manifest import MANIFEST, OLD_SUFFIX, read_manifest, without_other_runs
from batchmax.storage.object_store import store_of
from batchmax.storage.table_search import TableSearch
from batchmax.storage.uris import is_uri, local_path

FILE_ENDINGS = (".parquet", ".pq", ".parq")
"""Suffixes of the path of a single output file; any other path is a folder."""


OTHER_FORMATS = frozenset(
    (
        *("csv", "tsv", "txt", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "html", "htm", "md", "pdf"),
        *("arrow", "arrows", "ipc", "feather", "orc", "avro", "xls", "xlsx", "ods", "npy", "npz", "pt", "pth", "pkl"),
        *("pickle", "joblib", "h5", "hdf5", "hdf", "nc", "mat", "safetensors", "tfrecord", "msgpack", "bson", "db"),
        *("sqlite", "sqlite3", "duckdb", "zarr", "lance", "delta", "iceberg", "gz", "bz2", "xz", "zst", "lz4"),
        *("snappy", "zip", "7z", "tar", "tgz", "bin", "dat", "log"),
    )
)
"""Suffixes of files in other formats. An output of such a name would be a folder, which users don't expect."""

STREAM = "-"
"""The path that means stdin or stdout."""

MOST_NAMED = 5
"""Maximum number of files that a warning names."""


def refuse_stream(path: str) -> None:
    """Refuse ``-`` where a stream isn't possible, and names that aren't UTF-8.

    Raises
    ------
    UsageError
        The path is ``-``; the message says what to give instead.
    DataError
        The name isn't UTF-8.
    """
    _refuse_other_encodings(path)
    if path == STREAM:
        what = "a stream can only be all of the input, or all of the output, of score"
        raise UsageError(what, where=path, remedy="name a path; a file of this name is ./-")


def _refuse_other_encodings(path: str) -> None:
    """Refuse a name that isn't UTF-8, because neither JSON nor outputs could record it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(
            "the name is not valid UTF-8",
            where=os.fsencode(path).decode("utf-8", "backslashreplace"),
            remedy="rename it, or make a link to it under another name",
        ) from None


def refuse_streams_and_stores(path: str) -> None:
    """Refuse a path that isn't in a file system: ``-`` and URIs.

    Raises
    ------
    UsageError
        The message says what to give instead.
    """
    refuse_stream(path)
    if is_uri(path):
        raise UsageError("this has to be on this machine", where=path, remedy="name a path of a file system")


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


def refuse_file_as_folder(path: Path) -> None:
    """Refuse an output whose parent folder can't be created because one of its parents is a file.

    Raises
    ------
    OutputError
        It names the file.
    """
    for parent in path.parents:
        if parent.is_dir():
            return
        if os.path.lexists(parent):
            what = f"{parent} is not a folder, so nothing can be written below it"
            raise OutputError(what, where=str(path), remedy="name another output: -o")


def make_parents(path: Path) -> list[Path]:
    """Create the missing parent folders of an output, and return those that were created, innermost first."""
    missing = list(itertools.takewhile(lambda parent: not parent.is_dir(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders in this order, if they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


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


def _wrong_input(kind: str, given: Any) -> InputTypeError:
    """Return the error for an input of another type, which says how to make a table of it."""
    remedy = "make a table of it: pyarrow.table({'logits': list(array), 'label': labels})"
    if isinstance(given, Mapping):
        remedy = "make a table of it: pyarrow.table(columns)"
    if hasattr(given, "collect"):
        remedy = "make a table of it: frame.collect()"
    accepted = "paths, or tables and readers with __arrow_c_stream__ (pyarrow, pandas, Polars, DuckDB)"
    return InputTypeError(f"an input of type {kind} is not accepted", remedy=f"give {accepted}; {remedy}")


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
            _refuse_other_encodings(file)
        tables.refuse_local(text, [file for file, _ in files])
        found += files
    if not found:
        raise UsageError("no input is given", remedy="name a file, a folder or a quoted glob")
    return _each_once(found)


def _local_files(text: str) -> list[tuple[str, str]]:
    """Return the files of a path or a glob, with their ``key=value`` folders."""
    path = Path(text)
    if path.is_dir():
        files = _files_below(text)
        if not files:
            raise DataError("the folder holds no Parquet files", where=text, remedy=f"look: ls -a {shlex.quote(text)}")
        return [(file, folder_of(file, text)) for file in files]
    if os.path.lexists(text):
        return [(text, "")]
    what = "no such file or folder"
    if glob.has_magic(text):
        matching = _matching_files(text)
        if matching:
            return matching
        what = "nothing matches this pattern"
    remedy = f"look: ls {shlex.quote(str(_nearest_folder(path)))}"
    raise DataError(what, where=text, remedy=remedy)


def _each_once(found: Sequence[tuple[str, str]]) -> Inputs:
    """Return the files without those that were named before, by the same path or another."""
    first: dict[object, str] = {}
    kept: list[tuple[str, str]] = []
    again: dict[str, None] = {}
    for path, folder in found:
        number = path if is_uri(path) else _file_number(Path(path)) or path
        if number not in first:
            first[number] = path
            kept.append((path, folder))
        else:
            again[path if first[number] == path else f"{path} (the same file as {first[number]})"] = None
    warnings = []
    if again:
        more = f" and {len(again) - MOST_NAMED:,} more" if len(again) > MOST_NAMED else ""
        warnings.append(f"named more than once, and read once: {', '.join(list(again)[:MOST_NAMED])}{more}")
    return Inputs([path for path, _ in kept], [folder for _, folder in kept], warnings)


def is_file_path(out: str) -> bool:
    """Return whether an output path is that of a file, as opposed to a folder."""
    return out.lower().endswith(FILE_ENDINGS)


def refuse_other_formats(out: str) -> None:
    """Refuse an output with the suffix of a file in another format.

    Other names, such as ``run.2`` or ``out.v2``, are those of folders. With a slash at its end, any name is a folder.

    Raises
    ------
    UsageError
        The message says which formats can be written.
    """
    name = out.rpartition("/")[2]
    _refuse_other_encodings(out)
    stem, _, ending = name.rpartition(".")
    if not stem or is_file_path(out):
        return
    is_misspelled = bool(difflib.get_close_matches(ending.lower(), ["parquet"], cutoff=0.75))
    if ending.lower() in OTHER_FORMATS or is_misspelled:
        raise UsageError(
            f"outputs are Parquet files or Arrow streams, and no file ending in .{ending} can be written",
            where=out,
            remedy=f"name a file: {stem}.parquet; or a folder: {name}/; or write an Arrow stream to stdout: -",
        )


def refuse_uris_as_output(inputs: Sequence[str], out: str) -> None:
    """Refuse an output at a URI that is one of the inputs, or a folder that contains one.

    Raises
    ------
    OutputError
        It names the input.
    """
    for text in inputs:
        if text == out or text.startswith(f"{out.rstrip('/')}/"):
            raise OutputError(f"the output is also an input ({text})", where=out, remedy="name another output: -o")


def refuse_inputs_as_output(inputs: Sequence[str], *outputs: Path) -> None:
    """Refuse an output that is one of the inputs, under any name or link, or a folder that contains one.

    Raises
    ------
    OutputError
        It names the input.
    """
    numbers = cache(_file_number)  # many inputs are in the same folders
    there = [(out, number) for out in outputs if (number := numbers(out)) is not None]
    for text in inputs if there else ():
        if is_uri(text):
            continue
        path = Path(text).resolve()
        around = {numbers(one) for one in (path, *path.parents)}
        for out, number in there:
            if number in around:
                raise OutputError(
                    f"the output is also an input ({text})", where=str(out), remedy="name another output: -o"
                )


def _file_number(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file or folder; None if nothing is there."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _stored_files(uri: str, storage: Sequence[str], tables: TableSearch) -> list[tuple[str, str]]:
    """Return the objects at or below a URI, or that match it, with their ``key=value`` folders."""
    store = store_of(uri, storage)
    magic = [uri.index(sign) for sign in "*?[" if sign in uri]
    if not magic:
        if not uri.endswith("/") and store.found() is not None:
            tables.refuse_stored(uri, store, [uri])
            return [(uri, "")]
        root, pattern = store.uri, None
    else:
        root, pattern = uri[: min(magic)].rpartition("/")[0], re.compile(_of_glob(uri), re.DOTALL)
    below = store.at(root).below()
    sizes = {one.uri: one.size for one in below}
    names = without_other_runs(
        list(sizes), lambda name: read_manifest(store.at(name).read(0, sizes[name])), whole=pattern is None
    )
    files = [
        name
        for name in names
        if not any(part.startswith(("_", ".")) for part in name[len(root) :].split("/"))
        and (pattern is None or pattern.fullmatch(name))
    ]
    if not files:
        what = "nothing matches this pattern" if pattern else "there is no such object, and nothing below it"
        raise DataError(what, where=uri, remedy="look at what is there")
    tables.refuse_stored(uri, store, files, root, sizes)
    return [(name, folder_of(name, root)) for name in files]


def _of_glob(pattern: str) -> str:
    """Return the regular expression for a glob of URIs: ``**`` matches slashes, ``*`` and ``?`` don't."""
    words = re.split(r"(\*\*/?|\*|\?|\[[^]]*\])", pattern)
    known = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(word)
        or (
            f"[{'^' if word[1:2] == '!' else ''}{word[1:-1].removeprefix('!')}]" if word[:1] == "[" else re.escape(word)
        )
        for word in words
    )


def _matching_files(pattern: str) -> list[tuple[str, str]]:
    """Return the files that match a glob, each once, with their folders. ``**`` matches a folder and all below it.

    Accents match however the pattern and the names encode them.
    """
    first_sign = min(pattern.index(sign) for sign in "*?[" if sign in pattern)
    root = pattern[: pattern.rfind("/", 0, first_sign) + 1]
    files: dict[str, str] = {}
    for spelled in dict.fromkeys([root, composed(root), composed(root, "NFD")]):
        for match in _matches(spelled, pattern[len(root) :].split("/")):
            for file in _files_below(match) if os.path.isdir(match) else [match]:  # noqa: PTH112 - keeps the spelling
                name = file if root else file.removeprefix("./")
                files.setdefault(name, folder_of(name, spelled.rstrip("/")))
    # Of several spellings of one file, the first is kept; different files are all kept.
    by_name: dict[str, list[str]] = {}
    for file in sorted(files, key=name_order):
        alike = by_name.setdefault(composed(file), [])
        if not any(os.path.samefile(file, other) for other in alike):  # noqa: PTH121 - as above
            alike.append(file)
    return [(file, files[file]) for alike in by_name.values() for file in alike]


def _matches(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths in a folder that match the parts of a glob; a path may be yielded several times."""
    path = folder or "."
    if not os.path.isdir(path):  # noqa: PTH112 - keeps the spelling of the path
        return
    if not any(parts):  # after the last part, or after a slash at the end
        yield path
        return
    part, *others = parts
    if part == "**" and any(others):
        for below, _ in _tree(path):
            yield from _matches(f"{below.rstrip('/')}/", others)
    elif part == "**":
        yield path
    elif not glob.has_magic(part):
        names = [part] if part.isascii() else [name for name in _names(path) if composed(name) == composed(part)]
        for name in names:
            yield from _at(f"{folder}{name}", others)
    else:
        for name in _names(path):
            is_hidden = name.startswith(("_", ".")) and name[0] != part[0]
            if not is_hidden and fnmatchcase(composed(name), composed(part)):
                yield from _at(f"{folder}{name}", others)


def _at(path: str, others: Sequence[str]) -> Iterator[str]:
    """Yield a path that matches all parts of a glob so far, or the paths below it that match the other parts."""
    if others:
        yield from _matches(f"{path}/", others)
    elif os.path.lexists(path):
        yield path


def _names(folder: str) -> list[str]:
    """Return the names in a folder."""
    with _listing(folder):
        return sorted(os.listdir(folder), key=name_order)  # noqa: PTH208 - keeps the spelling of the path


def _files_below(folder: str) -> list[str]:
    files = [file for _, files in _tree(folder) for file in files]
    return sorted(without_other_runs(files, read_manifest, whole=True), key=name_order)


def _tree(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and all folders below it, each once, with the paths of its files. Symbolic links are followed.

    Hidden files are skipped, except manifests of outputs, and so are manifests of earlier versions next to their
    folders.
    """
    # Each folder is reached through as few links as possible, so that no path exceeds the system's limit of links.
    waiting = [(0, name_order(folder), folder)]
    entered = set[tuple[int, int]]()
    while waiting:
        n_links, _, path = heapq.heappop(waiting)
        number = _file_number(Path(path))
        if number in entered:
            continue
        if number is not None:
            entered.add(number)
        files, old_manifests = [], set()
        with _listing(path), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(("_", ".")) and entry.name != MANIFEST:
                    continue
                if entry.is_dir():
                    heapq.heappush(waiting, (n_links + entry.is_symlink(), name_order(entry.path), entry.path))
                    old_manifests.add(f"{entry.path}{OLD_SUFFIX}")
                else:
                    files.append(entry.path)
        yield path, [file for file in files if file not in old_manifests]


@contextlib.contextmanager
def _listing(folder: str) -> Iterator[None]:
    """Refuse a folder that can't be listed, so that its rows aren't missing unnoticed."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or folder)
        remedy = f"look: ls -la {shlex.quote(where)}"
        raise DataError(f"the folder cannot be listed: {error.strerror}", where=where, remedy=remedy) from error


def _nearest_folder(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.is_dir()), Path())

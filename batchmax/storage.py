"""Paths: which files an input names, where an output is built before it is published.

The only module that knows how names of files are chosen and that looks into folders. It never opens a file's content.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from batchmax import system_calls
from batchmax.errors import DataError, OutputError, UsageError
from batchmax.file_names import composed, name_order
from batchmax.partitions import folder_of
from batchmax.stores import is_uri, store_of

FILE_ENDINGS = (".parquet", ".pq", ".parq")
"""What the path of a single output file ends in; any other path is a folder."""


FILE = "file://"
STREAM = "-"
"""Stands for stdin or stdout."""


def refuse_stream(path: str) -> None:
    """Refuse ``-`` where a stream cannot be.

    Raises
    ------
    UsageError
        Saying what to give instead.
    """
    if path == STREAM:
        what = "a stream can only be all of the input, or all of the output, of score"
        raise UsageError(what, where=path, remedy="name a path; a file of this name is ./-")


def local_path(path: str) -> str:
    """Return the path of a ``file://`` URI; any other as it is."""
    return unquote(path[len(FILE) :]) if path.startswith(f"{FILE}/") else path


def refuse_streams_and_stores(path: str) -> None:
    """Refuse what is no path of a file system: ``-``, where a stream cannot be, and URIs.

    Raises
    ------
    UsageError
        Saying what to give instead.
    """
    refuse_stream(path)
    if is_uri(path):
        raise UsageError("this has to be on this machine", where=path, remedy="name a path of a file system")


def find_files(inputs: Iterable[str | os.PathLike[str]], storage: Sequence[str] = ()) -> list[str]:
    """Return the files that paths, folders and globs name; see :func:`find_inputs`."""
    return [path for path, _ in find_inputs(inputs, storage)]


def find_inputs(inputs: Iterable[str | os.PathLike[str]], storage: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return the files that paths, folders and globs name, each folder and glob in bytewise order of paths.

    Each comes with the folders named ``key=value`` that it is in, below the one that was given.

    Folders are entered; what begins with ``_`` or ``.`` in them is skipped, as it is where a wildcard matches it.
    A file that a glob matches in several ways counts once.

    Raises
    ------
    DataError
        Nothing is there, a folder without files, or one that cannot be listed.
    UsageError
        No input is given, or one that is no path but a stream or a URI.
    """
    found: list[tuple[str, str]] = []
    for given in inputs:
        text = local_path(os.fspath(given))
        refuse_stream(text)
        if is_uri(text):
            found += _stored_files(text, storage)
            continue
        path = Path(text)
        if path.is_dir():
            files = _files_below(text)
            if not files:
                raise DataError(
                    "the folder holds no Parquet files", where=text, remedy=f"look: ls -a {shlex.quote(text)}"
                )
            found += [(file, folder_of(file, text)) for file in files]
        elif path.exists():
            found.append((text, ""))
        elif glob.has_magic(text):
            matching = _matching_files(text)
            if not matching:
                remedy = f"look: ls {shlex.quote(str(_nearest_folder(path)))}"
                raise DataError("nothing matches this pattern", where=text, remedy=remedy)
            found += matching
        else:
            remedy = f"look: ls {shlex.quote(str(_nearest_folder(path)))}"
            raise DataError("no such file or folder", where=text, remedy=remedy)
    if not found:
        raise UsageError("no input is given", remedy="name a file, a folder or a quoted glob")
    return found


def is_file_path(out: str) -> bool:
    """Return whether an output path means one file rather than a folder."""
    return out.lower().endswith(FILE_ENDINGS)


def hidden_sibling(path: Path) -> Path:
    """Return a name beside a path that nothing has and that readers of folders skip."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def open_exclusively(path: Path) -> int:
    """Create a file for writing and return its descriptor; what is there already, or a link, is never opened."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_again(path: Path) -> int:
    """Open a file to write on, and return its descriptor; a link is never followed."""
    return os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        system_calls.sync(descriptor)
    finally:
        os.close(descriptor)


def refuse_inputs_as_output(inputs: Sequence[str], *outputs: Path) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link, or a folder around one.

    Raises
    ------
    OutputError
        Naming the input.
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


def _stored_files(uri: str, storage: Sequence[str]) -> list[tuple[str, str]]:
    """Return what lies at a URI or below it, or matches it, with the folders named ``key=value``."""
    store = store_of(uri, storage)
    magic = [uri.index(sign) for sign in "*?[" if sign in uri]
    if not magic:
        if not uri.endswith("/") and store.found() is not None:
            return [(uri, "")]
        root, pattern = store.uri, None
    else:
        root, pattern = uri[: min(magic)].rpartition("/")[0], re.compile(_of_glob(uri), re.DOTALL)
    names = [one.uri for one in store.at(root).below()]
    files = [
        name
        for name in names
        if not any(part.startswith(("_", ".")) for part in name[len(root) :].split("/"))
        and (pattern is None or pattern.fullmatch(name))
    ]
    if not files:
        what = "nothing matches this pattern" if pattern else "there is no such object, and nothing below it"
        raise DataError(what, where=uri, remedy="look at what is there")
    return [(name, folder_of(name, root)) for name in files]


def _of_glob(pattern: str) -> str:
    """Return a glob over whole URIs as a regular expression: ``**`` crosses slashes, ``*`` and ``?`` do not."""
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
    """Return the files that a glob means, each once, with their folders: ``**`` matches a folder and what is in it.

    Accents match however the pattern and the names encode them.
    """
    files: dict[str, str] = {}
    for spelled in dict.fromkeys([pattern, composed(pattern), composed(pattern, "NFD")]):
        root = spelled[: min(spelled.index(sign) for sign in "*?[" if sign in spelled)].rpartition("/")[0]
        for file in _matches(spelled):
            files.setdefault(file, folder_of(file, root))
    # Of the spellings of one file, one is kept; where both are files, both are.
    by_name: dict[str, list[str]] = {}
    for file in sorted(files, key=name_order):
        alike = by_name.setdefault(composed(file), [])
        if not any(os.path.samefile(file, other) for other in alike):  # noqa: PTH121 - paths as they are spelled
            alike.append(file)
    return [(file, files[file]) for alike in by_name.values() for file in alike]


def _matches(pattern: str) -> Iterator[str]:
    """Yield the files that a glob matches, or that are in a folder it matches; some may come several times."""
    spelled = [part for part in Path(pattern).parts if part.startswith("_")]
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - absolute patterns too
        hidden = [part for part in Path(match).parts if part.startswith("_")]
        if all(any(fnmatchcase(part, wanted) for wanted in spelled) for part in hidden):
            yield from _files_below(match) if os.path.isdir(match) else [match]  # noqa: PTH112 - spelled as matched


def _files_below(folder: str) -> list[str]:
    def stop(error: OSError) -> None:
        where = str(error.filename or folder)
        remedy = f"look: ls -la {shlex.quote(where)}"
        raise DataError(f"the folder cannot be listed: {error.strerror}", where=where, remedy=remedy) from error

    files = []
    for root, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        files += [os.path.join(root, name) for name in names if not name.startswith(("_", "."))]  # noqa: PTH118
    return sorted(files, key=name_order)


def _nearest_folder(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.is_dir()), Path())

"""Paths: which files an input names, where an output is built before it is published.

The only module that knows how names of files are chosen and that looks into folders. It never opens a file's content.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import shlex
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from batchmax.errors import DataError, OutputError, UsageError
from batchmax.partitions import folder_of

FILE_ENDINGS = (".parquet", ".pq", ".parq")
"""What the path of a single output file ends in; any other path is a folder."""


STREAM = "-"
"""Stands for stdin or stdout."""

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def refuse_streams_and_stores(path: str) -> None:
    """Refuse what is no path of a file system: ``-``, where a stream cannot be, and URIs.

    Raises
    ------
    UsageError
        Saying what to give instead.
    """
    if path == STREAM:
        what = "a stream can only be all of the input, or all of the output, of score"
        raise UsageError(what, where=path, remedy="name a path; a file of this name is ./-")
    if URI.match(path):
        raise UsageError(
            "object stores and other URIs are not supported yet", where=path, remedy="name a path on this machine"
        )


def find_files(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the files that paths, folders and globs name; see :func:`find_inputs`."""
    return [path for path, _ in find_inputs(inputs)]


def find_inputs(inputs: Iterable[str | os.PathLike[str]]) -> list[tuple[str, str]]:
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
        text = os.fspath(given)
        refuse_streams_and_stores(text)
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
            files = _matching_files(text)
            if not files:
                remedy = f"look: ls {shlex.quote(str(_nearest_folder(path)))}"
                raise DataError("nothing matches this pattern", where=text, remedy=remedy)
            root = text[: min(text.index(sign) for sign in "*?[" if sign in text)].rpartition("/")[0]
            found += [(file, folder_of(file, root)) for file in files]
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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_inputs_as_output(inputs: Sequence[str], *outputs: Path) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link, or a folder around one.

    Raises
    ------
    OutputError
        Naming the input.
    """
    for out in outputs:
        resolved = out.resolve()
        for text in inputs:
            path = Path(text)
            same = path.resolve() == resolved or (out.exists() and path.exists() and path.samefile(out))
            if same or resolved in path.resolve().parents:
                raise OutputError(
                    f"the output is also an input ({text})", where=str(out), remedy="name another output: -o"
                )


def _matching_files(pattern: str) -> list[str]:
    """Return the files that a glob means, each once: ``**`` matches a folder and what is in it."""
    spelled = [part for part in Path(pattern).parts if part.startswith("_")]
    files: set[str] = set()
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - absolute patterns too
        hidden = [part for part in Path(match).parts if part.startswith("_")]
        if all(any(fnmatchcase(part, wanted) for wanted in spelled) for part in hidden):
            files.update(_files_below(match) if os.path.isdir(match) else [match])  # noqa: PTH112 - spelled as matched
    return sorted(files, key=os.fsencode)


def _files_below(folder: str) -> list[str]:
    def stop(error: OSError) -> None:
        where = str(error.filename or folder)
        remedy = f"look: ls -la {shlex.quote(where)}"
        raise DataError(f"the folder cannot be listed: {error.strerror}", where=where, remedy=remedy) from error

    files = []
    for root, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        files += [os.path.join(root, name) for name in names if not name.startswith(("_", "."))]  # noqa: PTH118
    return sorted(files, key=os.fsencode)


def _nearest_folder(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.is_dir()), Path())

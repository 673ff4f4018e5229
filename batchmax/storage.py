"""Paths: which files an input names, where an output is built before it is published.

The only module that knows how names of files are chosen and that looks into folders. It never opens a file's content.
"""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchmax.errors import DataError, OutputError, UsageError

FILE_ENDINGS = (".parquet", ".pq", ".parq")
"""What the path of a single output file ends in; any other path is a folder."""


def find_files(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the files that paths, folders and globs name, each folder and glob in bytewise order of paths.

    Folders are entered; what begins with ``_`` or ``.`` in them is skipped.

    Raises
    ------
    DataError
        Nothing is there, or a folder without files.
    """
    found: list[str] = []
    for given in inputs:
        text = os.fspath(given)
        path = Path(text)
        if path.is_dir():
            files = _files_below(path)
            if not files:
                raise DataError("the folder holds no Parquet files", where=text, remedy=f"look: ls -a {text}")
            found += files
        elif path.exists():
            found.append(text)
        elif glob.has_magic(text):
            files = []
            for match in sorted(glob.glob(text, recursive=True), key=os.fsencode):  # noqa: PTH207 - absolute patterns too
                files += _files_below(Path(match)) if Path(match).is_dir() else [match]
            if not files:
                raise DataError("nothing matches this pattern", where=text, remedy=f"look: ls {path.parent}")
            found += files
        else:
            near = _nearest_folder(path)
            raise DataError("no such file or folder", where=text, remedy=f"look: ls {near}")
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


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_inputs_as_output(inputs: Sequence[str], *outputs: Path) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link, or that lies around or inside of them.

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


def _files_below(folder: Path) -> list[str]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        files += [os.path.join(root, name) for name in names if not name.startswith(("_", "."))]  # noqa: PTH118
    return sorted(files, key=os.fsencode)


def _nearest_folder(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.is_dir()), Path())

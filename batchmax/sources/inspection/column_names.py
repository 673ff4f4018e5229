"""Names of the columns of the first file of an input, for completion in shells.

Must be fast, so it neither searches a folder completely nor imports kernels. Doesn't know what columns are used for.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.columns.arrow import column_types
from batchmax.storage.paths import is_uri, local_path

MAX_FOLDERS = 8
"""Levels of folders to search for the first file."""


def column_names(given: str) -> list[str]:
    """Return the names of the columns of the first file of a path, folder or glob, and the ``key=value`` folders' keys.

    Fields of structs have dotted names. The result is empty if there is no file, and for URIs and streams.

    Raises
    ------
    OSError, pyarrow.ArrowException
        The file can't be read.
    """
    text = local_path(given)
    if is_uri(text):
        return []
    text = str(Path(text).expanduser())  # the shell hasn't expanded words that are being completed
    if glob.has_magic(text) and not os.path.lexists(text):
        text = min(glob.iglob(text), default=text)  # noqa: PTH207  pathlib refuses absolute patterns
    file, keys = _first_file(Path(text)), []
    if file is None:
        return []
    for folder in file.relative_to(text).parts[:-1]:
        key, equals, _ = folder.partition("=")
        keys += [key] if equals else []
    with pa.OSFile(str(file)) as stream:
        schema = pq.read_schema(stream)
    return list(dict.fromkeys([*column_types(schema), *keys]))


def _first_file(path: Path) -> Path | None:
    """Return a file, or the first file in a folder that isn't hidden; None if there is no regular file."""
    for _ in range(MAX_FOLDERS):
        if not path.is_dir():
            return path if path.is_file() else None  # a pipe would block
        shown = [one for one in path.iterdir() if not one.name.startswith(("_", "."))]
        if not shown:
            return None
        path = min(shown)
    return None

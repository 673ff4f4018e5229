"""Paths as users give them: paths of a file system, URIs, and ``-`` for a stream. Opens and lists nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from batchmax.errors import DataError, UsageError

STREAM = "-"
"""The path that means stdin or stdout."""

FILE = "file://"
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(path: str) -> bool:
    """Return whether a path is a URI."""
    return URI.match(path) is not None


def local_path(path: str) -> str:
    """Return the path in a ``file://`` URI; any other path unchanged."""
    return unquote(path[len(FILE) :]) if path.startswith(f"{FILE}/") else path


def refuse_stream(path: str) -> None:
    """Refuse ``-`` where a stream isn't possible, and names that aren't UTF-8.

    Raises
    ------
    UsageError
        The path is ``-``; the message says what to give instead.
    DataError
        The name isn't UTF-8.
    """
    refuse_other_encodings(path)
    if path == STREAM:
        what = "a stream can only be the only input of a command that reads rows once, or the output of score"
        raise UsageError(what, where=path, remedy="name a path; for a file named -, write ./-")


def refuse_other_encodings(path: str) -> None:
    """Refuse a name that isn't UTF-8, because neither JSON nor outputs could record it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(
            "the name is not valid UTF-8",
            where=os.fsencode(path).decode("utf-8", "backslashreplace"),
            remedy="rename it, or link to it under another name",
        ) from None


def require_local(path: str) -> None:
    """Refuse a path that isn't local: ``-`` and URIs.

    Raises
    ------
    UsageError
        The message says what to give instead.
    """
    refuse_stream(path)
    if is_uri(path):
        raise UsageError("must be a local path", where=path, remedy="name a path of a file system")


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file or folder; None if nothing is there."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino

"""Distinguishes URIs from paths of a file system."""

from __future__ import annotations

import re
from urllib.parse import unquote

FILE = "file://"
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(path: str) -> bool:
    """Return whether a path is a URI."""
    return URI.match(path) is not None


def local_path(path: str) -> str:
    """Return the path in a ``file://`` URI; any other path unchanged."""
    return unquote(path[len(FILE) :]) if path.startswith(f"{FILE}/") else path

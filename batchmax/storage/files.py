"""Creates files, opens them again, and makes them durable. Never follows symbolic links."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from batchmax.storage import system_calls


def hidden_sibling(path: Path) -> Path:
    """Return a hidden path next to a path. Nothing exists there, and readers of folders skip it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def open_exclusively(path: Path) -> int:
    """Create a file for writing and return its descriptor; fail if anything exists there, including a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_again(path: Path) -> int:
    """Open an existing file for writing and return its descriptor; fail for a link."""
    return os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))


def sync_tree(path: Path) -> None:
    """Make a file durable, or a folder with everything in it; do nothing if it doesn't exist."""
    for found in [*path.rglob("*"), path]:
        if found.exists():
            sync_path(found)


def sync_path(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        system_calls.sync(descriptor)
    finally:
        os.close(descriptor)

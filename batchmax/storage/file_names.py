"""File names that operating systems treat differently.

macOS compares names without regard to case and to how accents are encoded, and some of its file systems return accents
as separate characters (NFD) where a name was written with composed ones (NFC). It also puts its own files among those
of the user. With the functions here, results that depend on names are the same on every system. Whether two existing
paths are the same file is determined with ``os.stat``, not by their names.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Literal


def composed(name: str, form: Literal["NFC", "NFD"] = "NFC") -> str:
    """Return a name or a path with composed accents (NFC), or with separate ones (NFD)."""
    return unicodedata.normalize(form, name)


def folded(name: str) -> str:
    """Return a key that is equal for names that some file system treats as the same."""
    return composed(composed(name).casefold())


def name_order(name: str) -> tuple[bytes, bytes]:
    """Return the sort key of a name or a path: bytewise, regardless of how its accents are encoded."""
    return os.fsencode(composed(name)), os.fsencode(name)


def is_of_macos(name: str) -> bool:
    """Return whether a file of this name contains data of macOS itself.

    These are ``.DS_Store``, and ``._NAME``, which has the attributes of NAME on file systems without attributes.
    """
    return name == ".DS_Store" or name.startswith("._")

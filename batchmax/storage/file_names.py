"""Names of files where systems differ in what they make of them.

macOS compares names without regard to case and to how accents are encoded, and some of its file systems return accents
as separate characters (NFD) where a name was written with composed ones (NFC). It also keeps files of its own among
those of the user. With the functions here, what depends on names is the same on every system. Whether two existing
paths are one file is a question for ``os.stat``, not for their names.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Literal


def composed(name: str, form: Literal["NFC", "NFD"] = "NFC") -> str:
    """Return a name or a path with composed accents (NFC), or with separate ones (NFD)."""
    return unicodedata.normalize(form, name)


def folded(name: str) -> str:
    """Return what is equal for names that some file system takes for one name."""
    return composed(composed(name).casefold())


def name_order(name: str) -> tuple[bytes, bytes]:
    """Return the sort key of a name or a path: bytewise, however its accents are encoded."""
    return os.fsencode(composed(name)), os.fsencode(name)


def is_of_macos(name: str) -> bool:
    """Return whether macOS keeps data of its own in a file of this name.

    Those are ``.DS_Store``, and ``._NAME`` with the attributes of NAME where a file system has none.
    """
    return name == ".DS_Store" or name.startswith("._")

"""Text for messages, terminals and shells: lists of names, similar names, escapes, quotes and sizes."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

MAX_LISTED = 10
"""Maximum number of names that a message lists."""

_BINARY_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def listed(names: Iterable[str]) -> str:
    """Return the names, quoted and separated by commas; of many, the first ones and the number of the others."""
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - MAX_LISTED} more" if len(quoted) > MAX_LISTED else ""
    return ", ".join(quoted[:MAX_LISTED]) + more if quoted else "none"


def quantity(count: float, one: str, many: str | None = None) -> str:
    """Return a number with the singular or the plural of a noun, such as "1 class", "2 classes" or "1,000 rows".

    ``many`` is the plural, if it has other words than the singular with an "s" or "es": ``"row is", "rows are"``.
    """
    plural = many or f"{one}{'es' if one.endswith('s') else 's'}"
    return f"{count:,} {one if count == 1 else plural}"


def close_match(name: str, names: Iterable[str]) -> str:
    """Return a hint with the most similar name, or an empty string."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def printable(text: object) -> str:
    """Return the text on one line, with escapes for characters that are invisible or control the terminal.

    Names of files and columns may contain sequences that clear the screen, move the cursor or change the reading
    direction. None of these characters is ``str.isprintable``.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(text))


def shell_word(text: str) -> str:
    """Return the text as one word that can be pasted into a shell."""
    word = printable(text)
    if word == text:
        return shlex.quote(text)
    quoted = word.replace("'", "\\'")
    return f"$'{quoted}'"


def size(n_bytes: float) -> str:
    """Return a number of bytes with a binary unit."""
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    value, power = float(n_bytes) / 1024, 0
    while value >= 1023.5 and power < len(_BINARY_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.3g} {_BINARY_UNITS[power]}" if value < 999.5 else f"{value:.0f} {_BINARY_UNITS[power]}"

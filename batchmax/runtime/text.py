"""Text for terminals and shells: escapes unprintable characters and quotes words."""

from __future__ import annotations

import shlex


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

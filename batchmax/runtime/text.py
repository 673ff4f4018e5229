"""Text for terminals and shells: unprintable characters are escaped, words are quoted."""

from __future__ import annotations

import shlex


def printable(text: object) -> str:
    """Return the text on one line, with what a terminal would obey or hide written as escapes.

    A file or a column may be called anything, also a sequence that clears the screen, moves the cursor or
    turns the reading direction; none of these is ``str.isprintable``.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(text))


def shell_word(text: str) -> str:
    """Return the text as one word of a command that can be pasted into a shell."""
    word = printable(text)
    if word == text:
        return shlex.quote(text)
    quoted = word.replace("'", "\\'")
    return f"$'{quoted}'"

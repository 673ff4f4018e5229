"""Lines on stderr: errors, warnings and notes, each on one line; in a terminal with a coloured label, wrapped at words.

Knows terminals, not what the texts say.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from batchmax.runtime.text import printable

COLORS = {"error": "red", "warning": "yellow"}
"""The colours of labels."""

INDENT = "  "
"""Before the second and later lines of a text."""


def say(text: str, *, label: str = "", console: Any = None) -> None:
    """Print one message to stderr, above the progress bar of a console of rich if there is one."""
    start = f"batchmax: {label}: " if label else "batchmax: "
    line = printable(start + text)
    if console is None and not _is_terminal():
        click.echo(line, err=True)
        return
    shown = wrapped(line, _width())
    if console is not None:
        from rich.text import Text

        styled = Text(shown)
        if label in COLORS:
            styled.stylize(f"bold {COLORS[label]}", len("batchmax: "), len(start) - 1)
        console.print(styled, soft_wrap=True)
        return
    if label in COLORS and _has_colors():
        shown = f"batchmax: {click.style(f'{label}:', fg=COLORS[label], bold=True)} {shown.removeprefix(start)}"
    click.echo(shown, err=True, color=_has_colors())


def wrapped(line: str, width: int) -> str:
    """Return a text on lines of at most so many columns, broken at spaces only; a longer word has a line of its own."""
    from rich.cells import cell_len

    lines, used = [""], 0
    for number, word in enumerate(line.split(" ")):
        size = cell_len(word)
        if number and used + 1 + size > width and lines[-1].strip():
            lines.append(INDENT + word)
            used = len(INDENT) + size
        else:
            lines[-1] += f" {word}" if number else word
            used += size + (number > 0)
    return "\n".join(lines)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def _has_colors() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80

"""Print errors, warnings and notes to stderr: one line each, or on a terminal wrapped, with a colored label.

Knows terminals; doesn't know the messages.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from batchmax.runtime.text import printable

COLORS = {"error": "red", "warning": "yellow"}
"""Colors of labels."""

INDENT = "  "
"""Indent of continuation lines."""


def print_message(text: str, *, label: str = "", console: Any = None) -> None:
    """Print one message to stderr, above the progress bar if ``console`` is the bar's rich console."""
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
    if label in COLORS and has_colors():
        # What follows the label may be a space or a line break.
        shown = f"batchmax: {click.style(f'{label}:', fg=COLORS[label], bold=True)}{shown[len(start) - 1 :]}"
    click.echo(shown, err=True, color=has_colors())


def wrapped(line: str, width: int) -> str:
    """Return text wrapped at spaces to at most ``width`` columns; a longer word gets its own line."""
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
    except ValueError:  # stderr is closed
        return False


def has_colors() -> bool:
    """Return whether terminals may be sent colors and bold text: not with ``NO_COLOR``, nor in a dumb terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80

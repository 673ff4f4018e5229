"""Prints tables on stdout, to a terminal or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchmax.cli.messages import has_colors
from batchmax.cli.render.summaries import GAP

PIPED_WIDTH = 160
"""Width of a table if stdout isn't a terminal."""


@dataclass(frozen=True)
class Column:
    """A table column as text; ``room`` is its width if that isn't the width of the text, in terminal columns."""

    heading: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "right"
    room: int | None = None

    @property
    def width(self) -> int:
        """The width of the text in terminal columns."""
        return max(map(cell_len, (*self.heading.split("\n"), *self.cells)), default=0)


class StdoutConsole(Console):
    """A console that prints text unchanged, and raises for a closed pipe, which ``main`` handles; rich would exit."""

    def on_broken_pipe(self) -> None:
        """Raise the error."""
        raise BrokenPipeError

    def print_line(self, text: str, style: str = "") -> None:
        """Print a text, wrapped at the width of the console."""
        self.print(Text(text, style=style))

    def print_columns(
        self,
        columns: Sequence[Column],
        *,
        gap: int = GAP,
        bold: int | None = None,
        has_header: bool = True,
        no_wrap: bool = False,
        overflow: Literal["fold", "ellipsis"] = "ellipsis",
    ) -> None:
        """Print columns side by side; the line with number ``bold`` is in bold type."""
        # The box style itself adds one space between columns.
        table = Table(
            box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap - 1, 0, 0), show_header=has_header
        )
        for one in columns:
            table.add_column(Text(one.heading), justify=one.justify, width=one.room, no_wrap=no_wrap, overflow=overflow)
        for number_of_line, line in enumerate(zip(*(column.cells for column in columns), strict=True)):
            table.add_row(*map(Text, line), style="bold" if number_of_line == bold else None)
        self.print(table)


def console() -> StdoutConsole:
    """Return a console on stdout that prints text unchanged: no markup, emoji or highlighting, colors if allowed."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    system: Literal["auto"] | None = "auto" if has_colors() else None
    return StdoutConsole(file=sys.stdout, width=width, color_system=system, markup=False, emoji=False, highlight=False)

"""Print summaries and plans as tables on stdout, to a terminal or a pipe.

Knows the names of a summary's metrics, not how they are computed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchmax.cli.messages import has_colors
from batchmax.cli.render.formatting import duration, number, size
from batchmax.runtime.text import printable

GAP = 2
"""Spaces between two columns of a table."""

MOST_LINES = 20
"""Items to print of a list; the JSON contains all."""

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


def show_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print one name and value per line, without wrapping, because some values are commands to copy."""
    listed = list(pairs)
    width = max((cell_len(name) for name, _ in listed), default=0)
    for name, value in listed:
        lines = iter(value.split("\n"))
        styled = click.style(name, bold=True) if has_colors() else name
        click.echo(f"{styled}{'':{width - cell_len(name) + GAP}}{next(lines)}")
        for line in lines:
            click.echo(f"{'':{width + GAP}}{line}")


def show_summary(summary: Any, out: str, *, scored: bool = True) -> None:
    """Print the summary of a job: a :class:`batchmax.scoring.summary.ScoreSummary`."""
    pairs = [("rows", number(summary.n_rows)), ("classes", number(summary.n_classes))]
    if scored:
        pairs += [
            ("mean loss", number(summary.mean_loss)),
            ("accuracy", number(summary.accuracy)),
            ("perplexity", number(summary.perplexity)),
        ]
        if summary.n_tokens is not None:
            pairs[1:1] = [("tokens with a loss", number(summary.n_tokens))]
            bits = [("bits per token", summary.bits_per_token), ("bits per byte", summary.bits_per_byte)]
            pairs += [(name, number(value)) for name, value in bits if value is not None]
    pairs.append(("flagged rows", flagged(summary.status_counts or {})))
    if summary.infinite_losses:
        pairs.append(("infinite losses", number(summary.infinite_losses)))
    pairs.append(("time", _time(summary)))
    pairs.append(("output", printable(summary.held or out)))
    pairs += [("note", printable(note)) for note in summary.notes]
    show_pairs(pairs)


def flagged(status_counts: Mapping[str, int]) -> str:
    """Return the number of rows with each status that isn't ``ok``."""
    counts = [f"{number(count)} {name}" for name, count in status_counts.items() if name != "ok" and count]
    return ", ".join(counts) or "none"


def show_report(result: Any) -> None:
    """Print the main metrics of a report and its path: a :class:`batchmax.reports.report.Report`."""
    pairs = [("rows", number(result.n_rows)), ("classes", number(result.n_classes))]
    if result.accuracy is not None or result.mean_loss is not None:
        pairs += [("accuracy", number(result.accuracy)), ("mean loss", number(result.mean_loss))]
    if result.row is not None:
        pairs.append(("row drawn", f"{printable(result.row['file'])}: row {number(result.row['row'])}"))
    output = f"{printable(result.out)}  ({size(result.bytes_written)})"
    pairs += [("time", duration(result.seconds)), ("output", output)]
    pairs += [("note", printable(note)) for note in result.notes]
    show_pairs(pairs)


def _time(summary: Any) -> str:
    if not summary.seconds:
        return duration(summary.seconds)
    rate = f"{number(round(summary.n_rows / summary.seconds))} rows/s"
    read = f"{size((summary.bytes_read or 0) / summary.seconds)}/s read"
    return f"{duration(summary.seconds)}  ({rate}, {read})"


def show_plan(plan: Mapping[str, Any]) -> None:
    """Print what a job would do; the plan of its parts is only in the JSON."""
    shown = {name: value for name, value in plan.items() if value != [] and name != "plan"}
    show_pairs(
        (name.removeprefix("n_").replace("_", " "), "\n".join(_lines(name, value))) for name, value in shown.items()
    )


def show_warmup(result: Mapping[str, Any]) -> None:
    """Print how long it took to compile the kernels, and where they are: the result of ``warmup``."""
    show_pairs([("time", duration(result["seconds"])), ("cache", printable(result["cache"]))])


def show_worst_file(result: Any, out: str) -> None:
    """Print what was written to the file of the worst rows: the table of ``worst_rows``."""
    largest = result["loss"][0].as_py() if result.num_rows else None
    show_pairs([("rows", number(result.num_rows)), ("largest loss", number(largest)), ("output", printable(out))])


def _lines(name: str, value: Any) -> list[str]:
    """Return a value of a plan as lines, one per item of a list or mapping."""
    if isinstance(value, Mapping):
        lines = [f"{printable(key)}: {_line(key, item)}" for key, item in value.items()]
    elif isinstance(value, list | tuple):
        lines = [_line(name, item) for item in value]
    else:
        return [_line(name, value)]
    more = [f"and {len(lines) - MOST_LINES:,} more"] if len(lines) > MOST_LINES else []
    return [*lines[:MOST_LINES], *more] or ["none"]


def _line(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(key)}: {_line(key, item)}" for key, item in value.items())
    is_size = "bytes" in name or "memory" in name
    return size(value) if is_size and isinstance(value, int) else number(value)

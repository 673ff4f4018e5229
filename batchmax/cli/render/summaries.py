"""Prints summaries and plans on stdout, as names and values.

Knows the names of a summary's metrics, not how they are computed. Imports nothing that is slow to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.cells import cell_len

from batchmax.cli.messages import has_colors
from batchmax.cli.render.formatting import duration, number, size
from batchmax.runtime.text import printable

GAP = 2
"""Spaces between a name and its value, or two columns of a table."""

MOST_LINES = 20
"""Items to print of a list; the JSON contains all."""


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

"""Print the rows with the largest loss: one line per row, with as many copied columns as fit.

Knows the columns of the table that :func:`batchmax.evaluation.worst_rows.worst_rows` returns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, NO_CLASS, number, shortened
from batchmax.cli.render.summaries import GAP
from batchmax.cli.render.tables import Column
from batchmax.columns.plain_values import PlainColumn, plain_columns
from batchmax.evaluation.worst_rows import figures_of
from batchmax.runtime.text import printable

HEADINGS = {"label": "label", "pred": "pred", "p_label": "p(label)", "p_pred": "p(pred)", "loss": "loss"}

LONGEST = 60
"""Most characters to show of a text."""

NARROWEST = 8
"""Smallest width to which the last column is truncated."""


def show(result: Any) -> None:
    """Print the rows, the largest loss first: the table of ``worst_rows``."""
    console = tables.console()
    if not result.num_rows:
        console.print("no row has a loss")
        return
    own = list(plain_columns(result))
    files = own[0].values
    common = os.path.commonpath(files) if len({os.path.isabs(file) for file in files}) == 1 else ""  # noqa: PTH117
    if common:
        console.print_line(printable(common), "bold")
    n_places = 2 if own[2].name == "token" else 1
    first = len(own) - len(figures_of([one.name for one in own]))
    places, copied, figures = own[1 : 1 + n_places], own[1 + n_places : first], own[first:]
    columns = list(map(_column, (*places, *figures, *copied)))
    if len(set(files)) > 1:
        names = [os.path.relpath(file, common or ".") for file in files]
        columns.insert(0, Column("file", [shortened(name, LONGEST) for name in names], "left"))
    shown = max(fitting(columns, console.width), 1)
    # If there isn't enough room, only the last column is truncated. All widths are set, because rich would shrink every
    # column.
    left, fixed = console.width, list[Column]()
    for column in columns[:shown]:
        fixed.append(replace(column, room=max(min(column.width, left), 1)))
        left -= column.width + GAP
    console.print_columns(fixed, no_wrap=True)
    if shown < len(columns):
        left_out = ", ".join(column.heading for column in columns[shown:])
        console.print_line(f"not shown for lack of space: {left_out}; to choose columns: --columns", "dim")


def fitting(columns: Sequence[Column], room: int) -> int:
    """Return how many columns fit in ``room``; the last one may be truncated if it's text."""
    used = 0
    for count, column in enumerate(columns):
        width = column.width
        if used + (width if column.justify == "right" else min(width, NARROWEST)) > room:
            return count
        used += width + GAP
    return len(columns)


def _column(one: PlainColumn) -> Column:
    heading = HEADINGS.get(one.name, printable(one.name))
    cell = _classes if one.name in HEADINGS else _cell
    return Column(heading, list(map(cell, one.values)), "right" if one.is_number else "left")


def _classes(value: Any) -> str:
    return _cell(", ".join(map(str, value)) or NO_CLASS if isinstance(value, list) else value)


def _cell(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool | float):
        return number(value)
    return shortened(value, LONGEST)

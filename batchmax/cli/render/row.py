"""Print the computation for one row as a table: one line per class, and for several β columns side by side.

Columns that don't fit the terminal are left out, the probabilities last. :mod:`batchmax.cli.render.rows` provides the
row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, number
from batchmax.cli.render.rows import Row, Scores, Vector
from batchmax.runtime.text import printable

TOP = 10
"""Number of classes shown by default."""

PROBABILITY_DIGITS = 9
"""Enough digits to distinguish any two float32 numbers."""

FULL = ("e^(βz)", "βz − max", "softmax", "bar", "log-softmax", "argmax")
NO_BAR = ("e^(βz)", "βz − max", "softmax", "log-softmax", "argmax")
CHOICES = (
    (FULL, 2),
    (FULL, 1),
    (NO_BAR, 2),
    (NO_BAR, 1),
    (("e^(βz)", "softmax", "bar", "log-softmax"), 2),
    (("softmax", "bar"), 2),
    (("softmax",), 2),
)
"""The columns for each β and the spaces between columns, from the widest table to the narrowest."""

BAR_WIDTHS = (24, 16, 8)
LONGEST_NAME = 24


@dataclass(frozen=True)
class Column:
    """A table column as text."""

    heading: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        """The width in terminal columns."""
        return max(map(cell_len, (*self.heading.split("\n"), *self.cells)), default=0)


def show(row: Row, *, everything: bool) -> None:
    """Print a row: a table of its classes, then the values for the whole row."""
    console = tables.console()
    if row.origin:
        console.print(Text(row.origin, style="bold"))
    if row.logits is not None:
        shown = classes_shown(row.logits, row.label, everything=everything)
        columns, gap = fitting(row, row.logits, shown, console.width)
        table = tables.new_table(gap)
        for column in columns:
            table.add_column(Text(column.heading), justify=column.justify, no_wrap=True)
        for position, index in enumerate(shown):
            cells = (Text(column.cells[position]) for column in columns)
            table.add_row(*cells, style="bold" if index == row.label else None)
        console.print(table)
        left_out = len(row.logits) - len(shown)
        if left_out:
            console.print(Text(f"and {left_out:,} more class{'es' * (left_out > 1)}: --all", style="dim"))
        console.print()
    summary = tables.new_table()
    for column in whole_row(row):
        summary.add_column(Text(column.heading), justify=column.justify)
    for line in zip(*(column.cells for column in whole_row(row)), strict=True):
        summary.add_row(*map(Text, line))
    summary.show_header = False
    console.print(summary)
    if row.trouble:
        console.print(Text(f"bad row: {printable(row.trouble)}", style="bold"))


def classes_shown(logits: Vector, label: int | None, *, everything: bool) -> list[int]:
    """Return the classes to show: all in order, or those with the largest logits, and the label's."""
    if everything or len(logits) <= TOP:
        return list(range(len(logits)))
    # A stable sort keeps the lower index first among ties; NaN comes last.
    shown = [int(index) for index in np.argsort(-logits, kind="stable")[:TOP]]
    return shown if label is None or label in shown else [*shown, label]


def power(exponent: float, dtype: np.dtype[Any]) -> str:
    """Return e to the exponent as a number, or as a power if it overflows or underflows the type of the logits."""
    with np.errstate(over="ignore", under="ignore"):
        value = float(np.exp(dtype.type(exponent)))
    if np.isfinite(exponent) and (value == 0 or np.isinf(value)):
        return f"e^{number(exponent)}"
    return number(value)


def bar(share: float, width: int) -> str:
    """Return a bar that fills ``share`` of the width, to an eighth of a character."""
    if not np.isfinite(share):
        return ""
    eighths = round(share * width * 8)
    tip: str = ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return "█" * (eighths // 8) + tip


def fitting(row: Row, logits: Vector, shown: Sequence[int], room: int) -> tuple[list[Column], int]:
    """Return the columns of the widest table that fits in ``room``, and the spaces between them."""
    columns: list[Column] = []
    gap = 2
    for (names, gap), bar_width in product(CHOICES, BAR_WIDTHS):
        columns = [
            Column("class", [_class_text(row, index) for index in shown], "left" if row.classes else "right"),
            Column("z", [number(float(logits[index])) for index in shown]),
        ]
        for scores in row.scores:
            of_beta = _columns(scores, logits, shown, bar_width)
            if len(row.scores) > 1:
                heading = f"β = {number(scores.beta)}\nsoftmax"
                of_beta["softmax"] = replace(of_beta["softmax"], heading=heading)
            columns += [of_beta[name] for name in names]
        if row.label is not None:
            columns.append(Column("label", ["1" if index == row.label else "0" for index in shown]))
        if sum(column.width + gap for column in columns) - gap <= room:
            break
    return columns, gap


def _columns(scores: Scores, logits: Vector, shown: Sequence[int], bar_width: int) -> dict[str, Column]:
    scaled = scores.beta * logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        shifted = scores.beta * (logits.astype(np.float64) - np.max(logits))
    powers = [power(scaled[index], logits.dtype) for index in shown]
    columns = {
        "e^(βz)": Column("e^(βz)", powers),
        "βz − max": Column("βz − max", [number(float(shifted[index])) for index in shown]),
    }
    probs, log_probs = scores.probs, scores.log_probs
    if probs is None or log_probs is None:
        absent = [ABSENT] * len(shown)
        return columns | {
            "softmax": Column("softmax", absent),
            "bar": Column("", [""] * len(shown), "left"),
            "log-softmax": Column("log-softmax", absent),
            "argmax": Column("argmax", absent),
        }
    largest = int(np.argmax(logits))
    bars = [bar(float(probs[index]), bar_width).ljust(bar_width) for index in shown]
    return columns | {
        "softmax": Column("softmax", [f"{float(probs[index]):.{PROBABILITY_DIGITS}g}" for index in shown]),
        "bar": Column("", bars, "left"),
        "log-softmax": Column("log-softmax", [number(float(log_probs[index])) for index in shown]),
        "argmax": Column("argmax", ["1" if index == largest else "0" for index in shown]),
    }


def whole_row(row: Row) -> list[Column]:
    """Return the values for the whole row: names, then a column for each β."""
    names = ["β", "max z", "Σ e^(βz − max)", "log Σ e^(βz)", "loss", "status"]
    columns = [Column("", names, "left")]
    for scores in row.scores:
        largest = total = ABSENT
        if row.logits is not None:
            with np.errstate(invalid="ignore"):
                exact = row.logits.astype(np.float64)
                largest = number(float(exact.max()))
                total = number(float(np.exp(scores.beta * (exact - exact.max())).sum()))
        cells = [number(scores.beta), largest, total, number(scores.logsumexp), _loss(row, scores), scores.status]
        columns.append(Column("", cells))
    return columns


def _loss(row: Row, scores: Scores) -> str:
    if scores.loss is None or row.label is None:
        return number(scores.loss)
    return f"{scores.loss:.{PROBABILITY_DIGITS}g}"


def _class_text(row: Row, index: int) -> str:
    name = printable(row.class_name(index))
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 1]}…"
    return f"{index} {name}".rstrip()


def show_alternatives(row: Row, record: dict[str, Any]) -> None:
    """Print a row's probabilities under every activation side by side, and its losses."""
    console = tables.console()
    if row.origin:
        console.print(Text(row.origin, style="bold"))
    logits, activations = np.asarray(record["logits"]), record["activations"]
    table = tables.new_table()
    for place, heading in enumerate(("class", "z", *activations)):
        table.add_column(heading, justify="right" if place else "left")
    for index in classes_shown(logits, row.label, everything=False):
        name = printable(row.class_name(index)) or str(index)
        probs = (one["probs"] for one in activations.values())
        cells = [number(None if one is None else one[index]) for one in probs]
        table.add_row(name, number(float(logits[index])), *cells, style="bold" if index == row.label else None)
    console.print(table)
    if row.label is None:
        return
    console.print()
    table = tables.new_table()
    kinds = dict.fromkeys(kind for one in activations.values() for kind in one["losses"])
    for place, heading in enumerate(("loss", *activations)):
        table.add_column(heading, justify="right" if place else "left")
    for kind in kinds:
        table.add_row(kind, *(number(one["losses"].get(kind)) for one in activations.values()))
    console.print(table)

"""Print the computation for one row as a table: one line per class, and for several β columns side by side.

Columns that don't fit the terminal are left out, the probabilities last. :mod:`batchmax.jobs.row_trace` computes the
row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, number, shortened
from batchmax.cli.render.tables import Column
from batchmax.jobs.row_trace import RowTrace, Steps
from batchmax.runtime.text import printable, quantity

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

INDEPENDENT = (
    (("e^(βz)", "βz", "sigmoid", "bar", "loss"), 2),
    (("βz", "sigmoid", "bar", "loss"), 2),
    (("βz", "sigmoid", "loss"), 2),
    (("sigmoid", "loss"), 1),
)
"""The same if classes are independent."""

BAR_WIDTHS = (24, 16, 8)
LONGEST_NAME = 24


def show(row: RowTrace, *, everything: bool) -> None:
    """Print a row: a table of its classes, then the values for the whole row."""
    console = tables.console()
    if row.origin:
        console.print_line(row.origin, "bold")
    if row.logits is not None:
        shown = classes_shown(row, everything=everything)
        columns, gap = fitting(row, shown, console.width)
        console.print_columns(columns, gap=gap, bold=_position(row.label, shown), no_wrap=True)
        left_out = len(row.logits) - len(shown)
        if left_out:
            console.print_line(f"and {quantity(left_out, 'more class')}; for all: --all", "dim")
        console.print()
    console.print_columns(whole_row(row), has_header=False)
    if row.trouble:
        console.print_line(f"bad row: {printable(row.trouble)}", "bold")


def classes_shown(row: RowTrace, *, everything: bool) -> list[int]:
    """Return the classes to show: all in order, or those with the largest logits, and the label's."""
    if everything or len(row.order) <= TOP:
        return list(range(len(row.order)))
    shown = list(row.order[:TOP])
    right = [row.label] if row.label is not None else []
    right += [index for index, target in enumerate(row.targets or ()) if target]
    return [*shown, *(index for index in right if index not in shown)]


def power(exponent: float, value: float) -> str:
    """Return e to the exponent, which is ``value``, as a number, or as a power if it overflows or underflows."""
    is_lost = math.isfinite(exponent) and (value == 0 or math.isinf(value))
    return f"e^{number(exponent)}" if is_lost else number(value)


def bar(share: float, width: int) -> str:
    """Return a bar that fills ``share`` of the width, to an eighth of a character."""
    if not math.isfinite(share):
        return ""
    eighths = round(share * width * 8)
    tip: str = ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return "█" * (eighths // 8) + tip


def fitting(row: RowTrace, shown: Sequence[int], room: int) -> tuple[list[Column], int]:
    """Return the columns of the widest table that fits in ``room``, and the spaces between them."""
    columns: list[Column] = []
    gap = 2
    for (names, gap), bar_width in product(INDEPENDENT if row.is_independent else CHOICES, BAR_WIDTHS):
        columns = [
            Column("class", [_class_text(row, index) for index in shown], "left" if row.classes else "right"),
            Column("z", _numbers(row.logits, shown)),
        ]
        for steps in row.steps:
            of_beta = _columns(row, steps, shown, bar_width)
            columns += [of_beta[name] for name in names if name in of_beta]
        if row.targets is not None:
            columns.append(Column("label", [_target(row.targets[index]) for index in shown]))
        if row.label is not None:
            columns.append(Column("label", ["1" if index == row.label else "0" for index in shown]))
        if sum(column.width + gap for column in columns) - gap <= room:
            break
    return columns, gap


def _columns(row: RowTrace, steps: Steps, shown: Sequence[int], bar_width: int) -> dict[str, Column]:
    powers = [ABSENT] * len(shown)
    if steps.scaled is not None and steps.powers is not None:
        powers = [power(float(steps.scaled[index]), float(steps.powers[index])) for index in shown]
    probs, bars, largest = [ABSENT] * len(shown), [""] * len(shown), [ABSENT] * len(shown)
    if steps.probs is not None:
        shares = [float(steps.probs[index]) for index in shown]
        probs = [f"{share:.{PROBABILITY_DIGITS}g}" for share in shares]
        bars = [bar(share, bar_width).ljust(bar_width) for share in shares]
        largest = ["1" if index == row.order[0] else "0" for index in shown]
    prefix = f"β = {number(steps.beta)}\n" if len(row.steps) > 1 else ""
    if row.is_independent:
        found = {
            "e^(βz)": Column("e^(βz)", powers),
            "βz": Column("βz", _numbers(steps.scaled, shown)),
            "sigmoid": Column(f"{prefix}sigmoid", probs),
            "bar": Column("", bars, "left"),
        }
        if steps.losses is not None:
            losses = [steps.losses[index] for index in shown]
            found["loss"] = Column("loss", [ABSENT if one is None else number(one) for one in losses])
        return found
    return {
        "e^(βz)": Column("e^(βz)", powers),
        "βz − max": Column("βz − max", _numbers(steps.shifted, shown)),
        "softmax": Column(f"{prefix}softmax", probs),
        "bar": Column("", bars, "left"),
        "log-softmax": Column("log-softmax", _numbers(steps.log_probs, shown)),
        "argmax": Column("argmax", largest),
    }


def _numbers(values: Any, shown: Sequence[int]) -> list[str]:
    return [ABSENT if values is None else number(float(values[index])) for index in shown]


def whole_row(row: RowTrace) -> list[Column]:
    """Return the values for the whole row: names, then a column for each β."""
    names = ["β", "max z", "Σ e^(βz − max)", "log Σ e^(βz)", "loss", "status"]
    if row.is_independent:
        names = [name for name in names if name in {"β", "loss", "status"}]
    columns = [Column("", names, "left")]
    for steps in row.steps:
        if row.is_independent:
            columns.append(Column("", [number(steps.beta), _loss(row, steps), steps.status]))
            continue
        sums = [number(row.largest), number(steps.total), number(steps.logsumexp)]
        columns.append(Column("", [number(steps.beta), *sums, _loss(row, steps), steps.status]))
    return columns


def _loss(row: RowTrace, steps: Steps) -> str:
    if steps.loss is None or (row.label is None and row.targets is None):
        return number(steps.loss)
    return f"{steps.loss:.{PROBABILITY_DIGITS}g}"


def _target(target: float | None) -> str:
    return ABSENT if target is None else number(target)


def _class_text(row: RowTrace, index: int) -> str:
    return f"{index} {shortened(row.class_name(index), LONGEST_NAME)}".rstrip()


def show_alternatives(row: RowTrace, record: dict[str, Any], *, everything: bool) -> None:
    """Print a row's probabilities under every activation side by side, and its losses."""
    console = tables.console()
    if row.origin:
        console.print_line(row.origin, "bold")
    activations = record["activations"]
    shown = classes_shown(row, everything=everything)
    columns = [
        Column("class", [printable(row.class_name(index)) or str(index) for index in shown], "left"),
        Column("z", _numbers(record["logits"], shown)),
        *(Column(name, _numbers(one["probs"], shown)) for name, one in activations.items()),
    ]
    console.print_columns(columns, bold=_position(row.label, shown))
    if row.label is None:
        return
    console.print()
    kinds = list(dict.fromkeys(kind for one in activations.values() for kind in one["losses"]))
    losses = (Column(name, [number(one["losses"].get(kind)) for kind in kinds]) for name, one in activations.items())
    console.print_columns([Column("loss", kinds, "left"), *losses])


def _position(label: int | None, shown: Sequence[int]) -> int | None:
    return None if label is None or label not in shown else shown.index(label)

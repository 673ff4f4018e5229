"""Ranked bar charts: classes by mean loss, confused pairs by count, groups by their share of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchmax.reports.html.charts import MOST_BARS, Bar, Chart, bars_chart
from batchmax.reports.html.formatting import LONGEST, label, number, printable, rows, share, unit
from batchmax.reports.html.page_model import TextTable
from batchmax.runtime.text import quantity

MOST_LISTED = 50
"""Most rows of a table of classes, pairs or groups; ``evaluate`` returns all."""


def class_chart(per_class: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Chart | None:
    """Draw the mean loss of classes, the largest first."""
    known = [(names[place], one) for place, one in enumerate(per_class) if one["mean_loss"] is not None]
    if not known:
        return None
    ranked = sorted(known, key=lambda one: -one[1]["mean_loss"])
    bars = [
        Bar(
            name,
            one["mean_loss"],
            number(one["mean_loss"], 3),
            f"{label(name, 22)}: mean loss {number(one['mean_loss'])}, {rows(one['support'])}\n"
            f"precision {share(one['precision'])}, recall {share(one['recall'])}",
        )
        for name, one in ranked[:MOST_BARS]
    ]
    table = [
        (
            printable(name),
            number(one["mean_loss"]),
            number(one["support"]),
            number(one["predicted"]),
            share(one["precision"]),
            share(one["recall"]),
            share(one["f1"]),
        )
        for name, one in ranked[:MOST_LISTED]
    ]
    caption = f"Mean loss of the {unit()}s of each class."
    if len(known) > MOST_BARS:
        caption = f"Mean loss of the {unit()}s of each class: the {MOST_BARS} largest of {number(len(known))}."
    heading = ("class", "mean loss", f"{unit()}s", "predicted", "precision", "recall", "F1")
    return bars_chart("classes", "Loss by class", caption, bars, "mean loss, nats", heading, table)


def pairs_of(confusion: Sequence[Sequence[float]]) -> list[tuple[int, int, float]]:
    """Return the non-zero off-diagonal cells of a confusion matrix."""
    return [
        (row, column, count)
        for row, counts in enumerate(confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]


def pair_chart(
    pairs: Sequence[tuple[int, int, float]], per_class: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Chart | None:
    """Draw the most frequently confused pairs of classes."""
    if not pairs:
        return None
    ranked = sorted(pairs, key=lambda one: (-one[2], one[0], one[1]))
    bars, table = [], []
    for true, pred, count in ranked[:MOST_LISTED]:
        support = per_class[true]["support"]
        part = share(count / support if support else None)
        hover = f"{label(names[true], 17)} predicted as {label(names[pred], 17)}"
        hover += f"\n{rows(count)}, {part} of the class"
        short = f"{label(names[true], 6)} → {label(names[pred], 6)}"
        bars.append(Bar(short, count, number(count), hover, "wrong"))
        table.append((printable(names[true]), printable(names[pred]), number(count), part))
    caption = f"Label → prediction: the most frequent of {quantity(len(pairs), 'confused pair')}."
    heading = ("true", "predicted", f"{unit()}s", "of the class")
    return bars_chart("confusion", "Confusion", caption, bars[:MOST_BARS], f"{unit()}s", heading, table)


def slice_section(
    place: int, column: str, found: Sequence[Mapping[str, Any]], mean_loss: float | None
) -> dict[str, Any]:
    """Return the section about the groups of a column, ordered by the loss that they add above the mean."""
    name = f"By {printable(column, 60)}"
    if not found:
        return {
            "name": name,
            "text": "There are too many groups to list; batchmax evaluate --by writes them to a file.",
            "chart": None,
            "table": None,
        }
    known = [one for one in found if one["mean_loss"] is not None]
    base = mean_loss or 0.0
    ranked = sorted(known, key=lambda one: -_count(one) * (one["mean_loss"] - base))
    ranked += [one for one in found if one["mean_loss"] is None]
    table = [
        (
            _value(one["value"], LONGEST),
            number(_count(one)),
            number(one["mean_loss"]),
            share(one["accuracy"], 2),
            number(one["perplexity"]),
            number(one["brier"]),
        )
        for one in ranked[:MOST_LISTED]
    ]
    heading = ("value", f"{unit()}s", "mean loss", "accuracy", "perplexity", "Brier")
    one = unit()
    text = f"Ordered by the loss that they add above the mean over all {one}s."
    if len(found) > MOST_LISTED:
        text += f" The first {MOST_LISTED} of {number(len(found))} groups."
    bars = [
        Bar(
            _value(one["value"], 40),
            one["mean_loss"],
            number(one["mean_loss"], 3),
            f"{label(_value(one['value'], 40), 22)}: {rows(_count(one))}\n"
            f"mean loss {number(one['mean_loss'])}, accuracy {share(one['accuracy'])}",
        )
        for one in ranked[:MOST_BARS]
        if one["mean_loss"] is not None
    ]
    chart = None
    if bars:
        chart = bars_chart(
            f"slices-{place}",
            "Loss by group",
            f"Mean loss of the {unit()}s of each group.",
            bars,
            "mean loss, nats",
            (),
            [],
        )
    return {
        "name": name,
        "text": text,
        "chart": chart,
        "table": TextTable(name, heading, table, frozenset(range(1, 6))),
    }


def _count(group: Mapping[str, Any]) -> int:
    """Return the number of rows, or of tokens, that a group's metrics are over."""
    count: int = group.get("n_tokens", group["n_rows"])
    return count


def _value(value: Any, longest: int) -> str:
    return "null" if value is None else printable(value, longest)

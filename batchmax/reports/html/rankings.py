"""Ranked bar charts: classes by mean loss, confused pairs by count, groups by their share of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchmax.reports.html.charts import MOST_BARS, Bar, Chart, bars_svg, confused
from batchmax.reports.html.formatting import LONGEST, label, number, printable, rows, share, unit
from batchmax.reports.html.page_model import TextTable, tabulated

MOST_LISTED = 50
"""Most rows of a table of classes, pairs or groups; ``evaluate`` returns all."""

LOSS = "mean loss, nats"
Groups = Sequence[Mapping[str, Any]]
"""Metrics of the rows of each class, or of each value of a column."""


def class_chart(per_class: Groups) -> Chart | None:
    """Draw the mean loss of classes, the largest first."""
    known = [one for one in per_class if one["mean_loss"] is not None]
    if not known:
        return None
    ranked = sorted(known, key=lambda one: -one["mean_loss"])
    bars = [
        _loss_bar(
            one["class"],
            one,
            f"mean loss {number(one['mean_loss'])}, {rows(one['support'])}\n"
            f"precision {share(one['precision'])}, recall {share(one['recall'])}",
        )
        for one in ranked[:MOST_BARS]
    ]
    table = tabulated(
        ranked[:MOST_LISTED],
        {
            "class": lambda one: printable(one["class"]),
            "mean loss": lambda one: number(one["mean_loss"]),
            f"{unit()}s": lambda one: number(one["support"]),
            "predicted": lambda one: number(one["predicted"]),
            "precision": lambda one: share(one["precision"]),
            "recall": lambda one: share(one["recall"]),
            "F1": lambda one: share(one["f1"]),
        },
    )
    limit = f": the {MOST_BARS} largest of {number(len(known))}" if len(known) > MOST_BARS else ""
    caption = f"Mean loss of the {unit()}s of each class{limit}."
    return Chart("classes", "Loss by class", caption, bars_svg("Loss by class", LOSS, bars), *table)


def pairs_of(confusion: Sequence[Sequence[float]]) -> list[tuple[int, int, float]]:
    """Return the non-zero off-diagonal cells of a confusion matrix."""
    return [
        (row, column, count)
        for row, counts in enumerate(confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]


def pair_chart(pairs: Sequence[tuple[int, int, float]], per_class: Groups) -> Chart | None:
    """Draw the most frequently confused pairs of classes."""
    if not pairs:
        return None
    ranked = sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))
    bars, table = [], []
    for true, pred, count in ranked[:MOST_LISTED]:
        support, true_name, pred_name = per_class[true]["support"], per_class[true]["class"], per_class[pred]["class"]
        part = count / support if support else None
        short = f"{label(true_name, 6)} → {label(pred_name, 6)}"
        bars.append(Bar(short, count, number(count), confused(true_name, pred_name, count, part), "wrong"))
        table.append((printable(true_name), printable(pred_name), number(count), share(part)))
    caption = f"Label → prediction: the most frequent of {number(len(pairs))} confused pairs."
    svg = bars_svg("Confusion", f"{unit()}s", bars[:MOST_BARS])
    heading = ("true", "predicted", f"{unit()}s", "of the class")
    return Chart("confusion", "Confusion", caption, svg, heading, table, n_names=2)


def slice_section(place: int, column: str, groups: Groups, mean_loss: float | None) -> tuple[TextTable, Chart | None]:
    """Return the table and the chart of the groups of a column, ordered by the loss that they add above the mean."""
    name = f"By {printable(column, 60)}"
    if not groups:
        text = "There are too many groups to list; batchmax evaluate --by writes them to a file."
        return TextTable(name, (), (), text=text), None
    base = mean_loss or 0.0
    known = [one for one in groups if one["mean_loss"] is not None]
    ranked = sorted(known, key=lambda one: -_count(one) * (one["mean_loss"] - base))
    ranked += [one for one in groups if one["mean_loss"] is None]
    heading, lines = tabulated(
        ranked[:MOST_LISTED],
        {
            "value": lambda one: _value(one, LONGEST),
            f"{unit()}s": lambda one: number(_count(one)),
            "mean loss": lambda one: number(one["mean_loss"]),
            "accuracy": lambda one: share(one["accuracy"], 2),
            "perplexity": lambda one: number(one["perplexity"]),
            "Brier": lambda one: number(one["brier"]),
        },
    )
    text = f"Ordered by the loss that they add above the mean over all {unit()}s."
    if len(groups) > MOST_LISTED:
        text += f" The first {MOST_LISTED} of {number(len(groups))} groups."
    table = TextTable(name, heading, lines, frozenset(range(1, 6)), text)
    bars = [
        _loss_bar(
            _value(one, 40),
            one,
            f"{rows(_count(one))}\nmean loss {number(one['mean_loss'])}, accuracy {share(one['accuracy'])}",
        )
        for one in ranked[:MOST_BARS]
        if one["mean_loss"] is not None
    ]
    if not bars:
        return table, None
    svg = bars_svg("Loss by group", LOSS, bars)
    return table, Chart(f"slices-{place}", "Loss by group", f"Mean loss of the {unit()}s of each group.", svg)


def _loss_bar(name: object, group: Mapping[str, Any], hover: str) -> Bar:
    mean_loss = group["mean_loss"]
    return Bar(str(name), mean_loss, number(mean_loss, 3), f"{label(name, 22)}: {hover}")


def _count(group: Mapping[str, Any]) -> int:
    """Return the number of rows, or of tokens, that a group's metrics are over."""
    count: int = group.get("n_tokens", group["n_rows"])
    return count


def _value(group: Mapping[str, Any], longest: int) -> str:
    return "null" if group["value"] is None else printable(group["value"], longest)

"""Charts about all rows: loss, reliability, confidence, confusion, bars by class. Numbers in, SVG and tables out.

Each is a :class:`Chart`: a drawing, a description for screen readers, and the numbers as a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from batchmax.reports.html.formatting import label, number, printable, rows, share, short_count, unit
from batchmax.reports.html.page_model import TextTable
from batchmax.reports.html.svg import INKS, Canvas
from batchmax.runtime.text import quantity

WIDTH = 400
LONGEST_LABEL = 14
"""Most characters of a name next to a bar."""

MOST_BARS = 15
MOST_CELLS = 20
"""Most classes for a confusion matrix that is drawn cell by cell."""

MOST_NUMBERED = 12
"""Most classes for a confusion matrix with numbers in its cells."""

MOST_LOSS_BARS = 21

Bins = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Chart:
    """A chart and its text: ``svg`` is the drawing, ``caption`` explains it, ``table`` has its numbers."""

    key: str
    title: str
    caption: str
    svg: Markup
    heading: Sequence[str]
    table: Sequence[Sequence[str]]

    def as_table(self) -> TextTable:
        """Return the numbers as a table, right-aligned."""
        first = 2 if tuple(self.heading[:2]) == ("true", "predicted") else 1
        return TextTable(f"{self.title}: data", self.heading, self.table, frozenset(range(first, len(self.heading))))


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: its name, its length, the text at its end, and the text shown on hover."""

    name: str
    value: float
    shown: str
    hover: str
    ink: str = "bar"


def loss_chart(edges: Sequence[float], counts: Sequence[float], infinite: int) -> Chart | None:
    """Draw the histogram of losses next to the curve −log p, with a common loss axis; None without finite losses."""
    bins = _merged(edges, counts)
    total = sum(counts) + infinite
    if not bins:
        return None
    canvas = Canvas(WIDTH, 300)
    last = bins[-1][1] if bins[-1][1] is not None else bins[-1][0] + max(bins[-1][0] / max(len(bins) - 1, 1), 1.0)
    curve, bars = canvas.axes(40, 38, 246, 2), canvas.axes(184, 38, 40, 2)
    p = np.linspace(math.exp(-last), 1, 400)
    curve.plot(p, -np.log(p), color=INKS["line"], linewidth=2, clip_on=False)
    curve.set_xlim(0, 1)
    curve.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    curve.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    curve.set_xlabel("p of the label")
    curve.set_ylabel("loss −log p, nats")
    curve.yaxis.set_major_locator(MaxNLocator(6, integer=last > 5))
    _log_counts(bars, [count for _, _, count in bins], "x")
    bars.set_xlabel(f"{unit()}s")
    for axes in (curve, bars):
        axes.set_ylim(0, last)
        axes.grid(visible=True, axis="y", clip_on=False)
    bars.tick_params(labelleft=False)
    bars.yaxis.set_major_locator(curve.yaxis.get_major_locator())
    for low, high, count in bins:
        top = last if high is None else high
        if count:
            bars.barh((low + top) / 2, count, (top - low) * 0.86, left=0.5, color=INKS["bar"], clip_on=False)
            canvas.text(
                bars, count + 0.5, (low + top) / 2, f"\u2009{short_count(_three_digits(count))}", "start", "muted"
            )
        hover = f"loss {_range(low, high)}: {rows(count)}, {share(count / total)}"
        canvas.mark(curve, -0.08, 3.0, low, top, f"{hover}\np of the label {_p_range(low, high)}")
    largest = max(bins, key=lambda one: one[2])
    words = f"Histogram of the loss of {rows(total)}. Most {unit()}s, {number(largest[2])}, have a loss of "
    words += f"{_range(largest[0], largest[1])} nats."
    one = unit()
    caption = f"Left: the loss of a {one} whose label has the probability p. Right: the number of {one}s by their loss."
    if infinite:
        caption += f" Not shown: {rows(infinite)} with p = 0 and an infinite loss."
    table = [(_range(low, high), _p_range(low, high), number(count), share(count / total)) for low, high, count in bins]
    if infinite:
        table.append(("∞", "0", number(infinite), share(infinite / total)))
    return Chart("loss", "Loss", caption, canvas.svg(words), ("loss", "p of the label", f"{one}s", "share"), table)


def reliability_chart(bins: Bins, ece: float | None) -> Chart | None:
    """Draw accuracy and mean confidence per confidence bin, above the number of rows; None without rows."""
    filled = [one for one in bins if one["n_rows"]]
    if not filled:
        return None
    canvas = Canvas(WIDTH, 310)
    upper, lower = canvas.axes(62, 124, 10, 4), canvas.axes(62, 38, 10, 206)
    upper.plot([0, 1], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (4, 4)), clip_on=False)
    for one in filled:
        low, high, accuracy, confidence = one["low"], one["high"], one["accuracy"], one["confidence"]
        middle, width = (low + high) / 2, (high - low) * 0.88
        upper.bar(middle, accuracy, width, color=INKS["bar"], clip_on=False)
        ends = [middle - width / 2, middle + width / 2]
        upper.plot(ends, [confidence] * 2, color=INKS["wrong"], linewidth=3, solid_capstyle="butt", clip_on=False)
        lower.bar(middle, one["n_rows"], width, bottom=0.5, color=INKS["bar"], clip_on=False)
    for one in bins:
        canvas.mark(upper, one["low"], one["high"], -0.47, 1, _bin_words(one))
    for axes in (upper, lower):
        axes.set_xlim(0, 1)
        axes.grid(visible=True, axis="y", clip_on=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    upper.set_ylim(0, 1)
    upper.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    upper.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("accuracy")
    _log_counts(lower, [one["n_rows"] for one in filled], "y")
    lower.set_xlabel(f"confidence: the largest probability of a {unit()}")
    lower.set_ylabel(f"{unit()}s")
    worst = max(filled, key=lambda one: abs(one["accuracy"] - one["confidence"]))
    words = f"Reliability diagram of {quantity(len(bins), 'bin')}. Expected calibration error {number(ece)}. "
    words += "The largest gap: " + _bin_words(worst).replace("\n", ", ")
    caption = (
        f"Bars: the accuracy of the {unit()}s in each confidence bin. Marks: their mean confidence. Where both are "
        f"equal, the model is calibrated. Below: the number of {unit()}s in each bin."
    )
    table = [
        (
            _range(one["low"], one["high"]),
            number(one["n_rows"]),
            number(one["confidence"]),
            number(one["accuracy"]),
            number(None if not one["n_rows"] else one["accuracy"] - one["confidence"], 2),
        )
        for one in bins
    ]
    heading = ("confidence", f"{unit()}s", "mean confidence", "accuracy", "gap")
    return Chart("reliability", "Reliability", caption, canvas.svg(words), heading, table)


def confidence_chart(edges: Sequence[float], groups: Mapping[str, Sequence[float]]) -> Chart | None:
    """Draw the confidence histograms of groups of rows, such as right and wrong ones, each with its own scale."""
    if not any(sum(counts) for counts in groups.values()):
        return None
    step = 124
    canvas = Canvas(WIDTH, 30 + step * len(groups))
    middles, widths = (np.array(edges[:-1]) + np.array(edges[1:])) / 2, np.diff(edges) * 0.88
    parts = []
    for place, (name, counts) in enumerate(groups.items()):
        is_last = place == len(groups) - 1
        axes = canvas.axes(46, 38 + step * (len(groups) - 1 - place), 10, 18 + step * place)
        ink = name if name in {"right", "wrong"} else "bar"
        axes.bar(middles, counts, widths, color=INKS[ink], clip_on=False)
        axes.set_xlim(float(edges[0]), float(edges[-1]))
        axes.set_ylim(0, max(*counts, 1))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(visible=True, axis="y", clip_on=False)
        axes.tick_params(labelbottom=is_last)
        if is_last:
            axes.set_xlabel(f"confidence: the largest probability of a {unit()}")
        canvas.text(axes, float(edges[0]), max(*counts, 1) * 1.09, f"{name}: {rows(sum(counts))}", "start")
        parts.append(f"{rows(sum(counts))} {name}")
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            canvas.mark(axes, low, high, 0, max(*counts, 1), f"confidence {_range(low, high)}\n{name}: {rows(count)}")
    words = f"Histograms of the confidence: {', '.join(parts)}."
    caption = f"Each histogram has its own scale. Wrong {unit()}s at the right have a high confidence."
    if set(groups) != {"right", "wrong"}:
        caption = "The largest probability of each row. Labels are needed to tell whether it is calibrated."
    table = [
        (_range(low, high), *(number(counts[bin_]) for counts in groups.values()))
        for bin_, (low, high) in enumerate(pairwise(edges))
    ]
    return Chart("confidence", "Confidence", caption, canvas.svg(words), ("confidence", *groups), table)


def confusion_chart(confusion: Sequence[Sequence[float]], names: Sequence[str]) -> Chart:
    """Draw a confusion matrix cell by cell."""
    k = len(names)
    cell = 284 / k
    canvas = Canvas(WIDTH, 370)
    axes = canvas.axes(108, 80, 8, 6)
    axes.set_xlim(0, k)
    axes.set_ylim(k, 0)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("predicted", labelpad=62)
    for row, counts in enumerate(confusion):
        total = sum(counts)
        canvas.text(axes, -0.15, row + 0.5, label(names[row], LONGEST_LABEL))
        canvas.text(axes, row + 0.7, k + 8 / cell, label(names[row], 9), ink="muted", turn=-45)
        for column, count in enumerate(counts):
            part = count / total if total else 0.0
            if count:
                ink = INKS["right" if row == column else "wrong"]
                shade = 0.08 + 0.55 * math.sqrt(part)
                axes.add_patch(
                    Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, color=ink, alpha=shade, lw=0, clip_on=False)
                )
            if k <= MOST_NUMBERED and count:
                canvas.text(axes, column + 0.5, row + 0.5, short_count(_three_digits(count)), "middle")
            hover = f"{label(names[row], 17)} predicted as {label(names[column], 17)}\n"
            canvas.mark(axes, column, column + 1, row, row + 1, f"{hover}{rows(count)}, {share(part)} of the class")
    wrong = sum(map(sum, confusion)) - sum(confusion[one][one] for one in range(k))
    words = f"Confusion matrix of {k} classes; {rows(wrong)} are off the diagonal."
    caption = "Rows are labels, columns are predictions; shades are shares of the row."
    table = [
        (printable(names[row], LONGEST_LABEL), *(number(count) for count in counts))
        for row, counts in enumerate(confusion)
    ]
    heading = ("true \\ predicted", *(printable(name, LONGEST_LABEL) for name in names))
    return Chart("confusion", "Confusion", caption, canvas.svg(words), heading, table)


def bars_chart(
    key: str,
    title: str,
    caption: str,
    bars: Sequence[Bar],
    quantity: str,
    heading: Sequence[str],
    table: Sequence[Sequence[str]],
) -> Chart:
    """Draw horizontal bars, the first at the top."""
    canvas = Canvas(WIDTH, 40 + 21 * len(bars))
    axes = canvas.axes(108, 36, 52, 2)
    draw_bars(canvas, axes, bars)
    axes.set_xlabel(quantity)
    for place, bar in enumerate(bars):
        canvas.text(axes, 0, place, f"{label(bar.name, LONGEST_LABEL)}\u2002")
        canvas.mark(axes, -_reach(bars) * 0.45, _reach(bars) * 1.2, place - 0.5, place + 0.5, bar.hover)
    first = ", ".join(f"{printable(bar.name, 24)} {bar.shown}" for bar in bars[:3])
    return Chart(key, title, caption, canvas.svg(f"{title}, {quantity}. The first are: {first}."), heading, table)


def draw_bars(canvas: Canvas, axes: Axes, bars: Sequence[Bar]) -> None:
    """Draw bars into axes, with their values at the ends."""
    values = [bar.value for bar in bars]
    axes.set_ylim(len(bars) - 0.5, -0.5)
    low, high = min(0.0, *values), max(0.0, *values)
    axes.set_xlim(low, high if high > low else 1.0)
    axes.yaxis.set_major_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.grid(visible=True, axis="x", clip_on=False)
    for place, bar in enumerate(bars):
        axes.barh(place, bar.value, 0.76, color=INKS[bar.ink], clip_on=False)
        canvas.text(axes, max(bar.value, 0.0), place, f"\u2009{bar.shown}", "start", "muted")


def _reach(bars: Sequence[Bar]) -> float:
    return max((bar.value for bar in bars), default=0.0) or 1.0


def _merged(edges: Sequence[float], counts: Sequence[float]) -> list[tuple[float, float | None, float]]:
    """Return low, high and count of the bins up to the last non-empty one, merging neighbors if there are many."""
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return []
    uppers: list[float | None] = [*edges[1:], *[None] * (len(counts) + 1 - len(edges))]
    uppers = [None if high is None or math.isinf(high) else high for high in uppers]
    end = filled[-1] + 1
    step = math.ceil(end / MOST_LOSS_BARS)
    end = min(len(counts), math.ceil(end / step) * step)
    return [
        (float(edges[place]), uppers[min(place + step, end) - 1], sum(counts[place : min(place + step, end)]))
        for place in range(0, end, step)
    ]


def _log_counts(axes: Axes, counts: Sequence[float], along: str) -> None:
    """Make an axis of row counts logarithmic, so that a count of 1 is visible next to a million; bars start at 0.5."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    (axes.set_xscale if along == "x" else axes.set_yscale)("log")
    (axes.set_xlim if along == "x" else axes.set_ylim)(0.5, max(*counts, 9) + 0.5)
    axis.set_major_locator(LogLocator(10, numticks=4))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def _bin_words(one: Mapping[str, Any]) -> str:
    hover = f"confidence {_range(one['low'], one['high'])}: {rows(one['n_rows'])}"
    if not one["n_rows"]:
        return hover
    return f"{hover}\naccuracy {share(one['accuracy'])}, mean confidence {share(one['confidence'])}"


def _range(low: float, high: float | None) -> str:
    return f"{number(low, 3)} or more" if high is None else f"{number(low, 3)} – {number(high, 3)}"


def _p_range(low: float, high: float | None) -> str:
    return f"{number(0.0 if high is None else math.exp(-high), 3)} – {number(math.exp(-low), 3)}"


def _three_digits(count: float) -> float:
    return float(f"{count:.3g}")

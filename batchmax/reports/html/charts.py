"""Charts about all rows: loss, reliability, confidence, confusion, bars by class. Numbers in, SVG and tables out.

Each is a :class:`Chart`: a drawing, a description for screen readers, and the numbers as a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from batchmax.reports.html.formatting import label, number, printable, rows, share, short_count, unit
from batchmax.reports.html.page_model import TextTable, tabulated
from batchmax.reports.html.svg import INKS, Canvas, Margins
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
HALVES = (0, 0.5, 1)
"""Ticks of an axis of probabilities."""

Bins = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Chart:
    """A chart and its text: ``svg`` is the drawing, ``caption`` explains it, ``table`` has its numbers.

    All columns of the table are numbers, except the first ``n_names`` ones.
    """

    key: str
    title: str
    caption: str
    svg: Markup
    heading: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()
    n_names: int = 1

    def as_table(self) -> TextTable:
        """Return the numbers as a table, right-aligned."""
        numbers = frozenset(range(self.n_names, len(self.heading)))
        return TextTable(f"{self.title}: data", self.heading, self.table, numbers)


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: its name, its length, the text at its end, and the text shown on hover."""

    name: str
    value: float
    shown: str
    hover: str
    ink: str = "bar"


def loss_chart(losses: Mapping[str, Sequence[float]], infinite: int) -> Chart | None:
    """Draw the histogram of losses next to the curve −log p, with a common loss axis; None without finite losses.

    The last of the ``edges`` is the lower one of the last bin, whose count includes the infinite losses.
    """
    if not losses:
        return None
    edges, counts = losses["edges"], losses["counts"]
    bins = _merged(edges, [*counts[:-1], counts[-1] - infinite])
    total = sum(counts)
    if not bins:
        return None
    canvas = Canvas(WIDTH, 300)
    low, high, _ = bins[-1]
    last = low + max(low / max(len(bins) - 1, 1), 1.0) if high is None else high
    curve = canvas.axes((40, 38, 246, 2), xlim=(0, 1), ylim=(0, last), xticks=HALVES, xlabel="p of the label")
    curve.set_ylabel("loss −log p, nats")
    curve.yaxis.set_major_formatter(ScalarFormatter())
    p = np.linspace(math.exp(-last), 1, 400)
    curve.plot(p, -np.log(p), color=INKS["line"], linewidth=2)
    bars = canvas.axes((184, 38, 40, 2), ylim=(0, last), xlabel=f"{unit()}s")
    bars.tick_params(labelleft=False)
    _log_counts(bars, [count for _, _, count in bins], "x")
    for axes in (curve, bars):
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=last > 5))
    for low, high, count in bins:
        top = last if high is None else high
        if count:
            bars.barh((low + top) / 2, count, (top - low) * 0.86, left=0.5, color=INKS["bar"])
            canvas.text(bars, count + 0.5, (low + top) / 2, f"\u2009{short_count(count)}", "start", "muted")
        hover = f"loss {_range(low, high)}: {rows(count)}, {share(count / total)}"
        canvas.mark(curve, -0.08, 3.0, low, top, f"{hover}\np of the label {_p_range(low, high)}")
    one = unit()
    low, high, count = max(bins, key=lambda bin_: bin_[2])
    words = f"Histogram of the loss of {rows(total)}. Most {one}s, {number(count)}, have a loss of "
    words += f"{_range(low, high)} nats."
    caption = f"Left: the loss of a {one} whose label has the probability p. Right: the number of {one}s by their loss."
    table = [(_range(low, high), _p_range(low, high), number(count), share(count / total)) for low, high, count in bins]
    if infinite:
        caption += f" Not shown: {rows(infinite)} with p = 0 and an infinite loss."
        table.append(("∞", "0", number(infinite), share(infinite / total)))
    return Chart("loss", "Loss", caption, canvas.svg(words), ("loss", "p of the label", f"{one}s", "share"), table)


def reliability_chart(bins: Bins, ece: float | None, positive: str | None = None) -> Chart | None:
    """Draw accuracy and mean confidence per confidence bin, above the number of rows; None without rows.

    With the name of a positive class, they are its share of the rows and its mean probability.
    """
    observed, confidence_name, axis = "accuracy", "confidence", _confidence_of_rows()
    if positive is not None:
        observed, confidence_name, axis = f"share of {positive}", "probability", f"probability of {positive}"
    filled = [one for one in bins if one["n_rows"]]
    if not filled:
        return None
    canvas = Canvas(WIDTH, 310)
    upper = canvas.axes((62, 124, 10, 4), xlim=(0, 1), ylim=(0, 1), yticks=HALVES, ylabel=observed)
    upper.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    upper.tick_params(labelbottom=False)
    lower = canvas.axes((62, 38, 10, 206), xlim=(0, 1), xlabel=axis, ylabel=f"{unit()}s")
    _log_counts(lower, [one["n_rows"] for one in filled], "y")
    upper.plot([0, 1], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (4, 4)))
    for one in filled:
        middle, width = (one["low"] + one["high"]) / 2, (one["high"] - one["low"]) * 0.88
        ends, confidence = [middle - width / 2, middle + width / 2], one["confidence"]
        upper.bar(middle, one["accuracy"], width, color=INKS["bar"])
        upper.plot(ends, [confidence] * 2, color=INKS["wrong"], linewidth=3, solid_capstyle="butt")
        lower.bar(middle, one["n_rows"], width, bottom=0.5, color=INKS["bar"])
    for one in bins:
        canvas.mark(upper, one["low"], one["high"], -0.47, 1, _bin_words(one, confidence_name, observed))
    worst = max(filled, key=lambda one: abs(one["accuracy"] - one["confidence"]))
    words = f"Reliability diagram of {quantity(len(bins), 'bin')}. Expected calibration error {number(ece)}. "
    words += "The largest gap: " + _bin_words(worst, confidence_name, observed).replace("\n", ", ")
    caption = (
        f"Bars: the {observed} of the {unit()}s in each {confidence_name} bin. Marks: their mean {confidence_name}. "
        f"Where both are equal, the model is calibrated. Below: the number of {unit()}s in each bin."
    )
    table = tabulated(
        bins,
        {
            confidence_name: lambda one: _range(one["low"], one["high"]),
            f"{unit()}s": lambda one: number(one["n_rows"]),
            f"mean {confidence_name}": lambda one: number(one["confidence"]),
            observed: lambda one: number(one["accuracy"]),
            "gap": lambda one: number(one["accuracy"] - one["confidence"] if one["n_rows"] else None, 2),
        },
    )
    return Chart("reliability", "Reliability", caption, canvas.svg(words), *table)


def confidence_chart(histograms: Mapping[str, Sequence[float]]) -> Chart | None:
    """Draw the confidence histograms of groups of rows, such as right and wrong ones, each with its own scale.

    ``histograms`` has the counts of each group, and the ``edges`` of the bins.
    """
    groups = {name: counts for name, counts in histograms.items() if name != "edges"}
    if not any(map(sum, groups.values())):
        return None
    edges, step = histograms["edges"], 124
    canvas = Canvas(WIDTH, 30 + step * len(groups))
    middles, widths = (np.array(edges[:-1]) + np.array(edges[1:])) / 2, np.diff(edges) * 0.88
    for place, (name, counts) in enumerate(groups.items()):
        below, top = len(groups) - 1 - place, max(*counts, 1)
        axes = canvas.axes((46, 38 + step * below, 10, 18 + step * place), xlim=(edges[0], edges[-1]), ylim=(0, top))
        axes.bar(middles, counts, widths, color=INKS[name if name in {"right", "wrong"} else "bar"])
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: short_count(value))
        axes.tick_params(labelbottom=not below)
        axes.set_xlabel("" if below else _confidence_of_rows())
        canvas.text(axes, edges[0], top * 1.09, f"{name}: {rows(sum(counts))}", "start")
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            canvas.mark(axes, low, high, 0, top, f"confidence {_range(low, high)}\n{name}: {rows(count)}")
    parts = ", ".join(f"{rows(sum(counts))} {name}" for name, counts in groups.items())
    caption = f"Each histogram has its own scale. Wrong {unit()}s at the right have a high confidence."
    if set(groups) != {"right", "wrong"}:
        caption = "The largest probability of each row. Labels are needed to tell whether it is calibrated."
    lines = zip(pairwise(edges), *groups.values(), strict=True)
    table = [(_range(low, high), *map(number, counts)) for (low, high), *counts in lines]
    svg = canvas.svg(f"Histograms of the confidence: {parts}.")
    return Chart("confidence", "Confidence", caption, svg, ("confidence", *groups), table)


def confused(true: object, pred: object, count: float, part: float | None) -> str:
    """Return the text about the rows of a class that are predicted as a class: their number, and share of the class."""
    return f"{label(true, 17)} predicted as {label(pred, 17)}\n{rows(count)}, {share(part)} of the class"


def confusion_chart(confusion: Sequence[Sequence[float]], names: Sequence[object]) -> Chart:
    """Draw a confusion matrix cell by cell."""
    k = len(names)
    cell = 284 / k
    canvas = Canvas(WIDTH, 370)
    axes = canvas.axes((108, 80, 8, 6), xlim=(0, k), ylim=(k, 0), xticks=[], yticks=[])
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
                axes.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, color=ink, alpha=shade, lw=0))
            if k <= MOST_NUMBERED and count:
                canvas.text(axes, column + 0.5, row + 0.5, short_count(count), "middle")
            canvas.mark(axes, column, column + 1, row, row + 1, confused(names[row], names[column], count, part))
    wrong = sum(map(sum, confusion)) - sum(confusion[one][one] for one in range(k))
    words = f"Confusion matrix of {k} classes; {rows(wrong)} are off the diagonal."
    caption = "Rows are labels, columns are predictions; shades are shares of the row."
    shown = [printable(name, LONGEST_LABEL) for name in names]
    table = [(name, *map(number, counts)) for name, counts in zip(shown, confusion, strict=True)]
    return Chart("confusion", "Confusion", caption, canvas.svg(words), ("true \\ predicted", *shown), table)


def bars_svg(title: str, quantity: str, bars: Sequence[Bar]) -> Markup:
    """Draw horizontal bars with their names, the first at the top; return the SVG."""
    canvas = Canvas(WIDTH, 40 + 21 * len(bars))
    axes = draw_bars(canvas, (108, 36, 52, 2), bars, xlabel=quantity)
    _, longest = axes.get_xlim()
    for place, bar in enumerate(bars):
        canvas.text(axes, 0, place, f"{label(bar.name, LONGEST_LABEL)}\u2002")
        canvas.mark(axes, -longest * 0.45, longest * 1.2, place - 0.5, place + 0.5, bar.hover)
    first = ", ".join(f"{printable(bar.name, 24)} {bar.shown}" for bar in bars[:3])
    return canvas.svg(f"{title}, {quantity}. The first are: {first}.")


def draw_bars(canvas: Canvas, margins: Margins, bars: Sequence[Bar], **settings: Any) -> Axes:
    """Draw horizontal bars into new axes, with their values at the ends."""
    low, high = min(0.0, *(bar.value for bar in bars)), max(0.0, *(bar.value for bar in bars))
    settings = {"xlim": (low, high if high > low else 1.0), "ylim": (len(bars) - 0.5, -0.5), "yticks": []} | settings
    axes = canvas.axes(margins, grid="x", **settings)
    if "xticks" not in settings:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    for place, bar in enumerate(bars):
        axes.barh(place, bar.value, 0.76, color=INKS[bar.ink])
        canvas.text(axes, max(bar.value, 0.0), place, f"\u2009{bar.shown}", "start", "muted")
    return axes


def _merged(edges: Sequence[float], counts: Sequence[float]) -> list[tuple[float, float | None, float]]:
    """Return low, high and count of the bins up to the last non-empty one, merging neighbors if there are many."""
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return []
    step = math.ceil((filled[-1] + 1) / MOST_LOSS_BARS)
    uppers = [*edges[1:], None]
    return [
        (edges[first], uppers[min(first + step, len(counts)) - 1], sum(counts[first : first + step]))
        for first in range(0, filled[-1] + 1, step)
    ]


def _log_counts(axes: Axes, counts: Sequence[float], along: Literal["x", "y"]) -> None:
    """Make an axis of row counts logarithmic, so that a count of 1 is visible next to a million; bars start at 0.5."""
    axes.set(**{f"{along}scale": "log", f"{along}lim": (0.5, max(*counts, 9) + 0.5)})
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(10, numticks=4))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: short_count(value))


def _confidence_of_rows() -> str:
    return f"confidence: the largest probability of a {unit()}"


def _bin_words(one: Mapping[str, Any], confidence: str, observed: str) -> str:
    hover = f"{confidence} {_range(one['low'], one['high'])}: {rows(one['n_rows'])}"
    if not one["n_rows"]:
        return hover
    return f"{hover}\n{observed} {share(one['accuracy'])}, mean {confidence} {share(one['confidence'])}"


def _range(low: float, high: float | None) -> str:
    return f"{number(low, 3)} or more" if high is None else f"{number(low, 3)} – {number(high, 3)}"


def _p_range(low: float, high: float | None) -> str:
    return f"{number(0.0 if high is None else math.exp(-high), 3)} – {number(math.exp(-low), 3)}"

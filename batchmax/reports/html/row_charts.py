"""Charts about one row: its logits and probabilities, the effect of β, and for sequences the losses of the tokens."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator

from batchmax.reports.html.charts import HALVES, LONGEST_LABEL, WIDTH, Bar, Chart, draw_bars
from batchmax.reports.html.formatting import label, number, printable
from batchmax.reports.html.page_model import RowFacts, Vector, tabulated
from batchmax.reports.html.svg import INKS, Canvas
from batchmax.runtime.text import quantity

MOST_TOKENS = 256
"""Most bars of a strip; if there are more tokens, several share a bar."""

MOST_LINES = 4
LINES = ("one", "two", "three", "four")
PREDICTED = 0
"""Index of the predicted class among the shown ones, which are in the order of their logits."""


def row_charts(row: RowFacts) -> list[Chart]:
    """Draw all charts of a row."""
    charts = [row_chart(row), beta_chart(row)]
    return charts if row.strip is None else [strip_chart(row.strip, row.place["token"]), *charts]


def strip_chart(losses: Vector, token: int) -> Chart:
    """Draw the losses of a sequence's tokens in order; if there are many, each bar is the largest of several."""
    n = len(losses)
    step = -(-n // MOST_TOKENS)
    starts = range(0, n, step)
    largest = [_largest(losses[at : at + step]) for at in starts]
    finite = [value for value in largest if value is not None and math.isfinite(value)]
    top = max(finite, default=1.0) or 1.0
    width = 0.9 if len(largest) < MOST_TOKENS // 2 else 1.0
    canvas = Canvas(WIDTH, 190)
    axes = canvas.axes((46, 38, 14, 6), xlim=(-0.5, len(largest) - 0.5), ylim=(0, top), xlabel="token")
    axes.set_ylabel("loss, nats")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{round(value) * step:,}")
    table = []
    for place, (start, value) in enumerate(zip(starts, largest, strict=True)):
        end = min(start + step, n)
        where = f"token {start:,}" if step == 1 else f"tokens {start:,} to {end - 1:,}"
        shown = "no loss" if value is None else f"loss {number(value)}"
        ink = INKS["wrong" if start <= token < end else "bar"]
        axes.bar(place, 0.0 if value is None else min(value, top), width, color=ink)
        canvas.mark(axes, place - 0.5, place + 0.5, 0, top, f"{where}: {shown}")
        table.append((where, "" if value is None else number(value)))
    caption = f"The losses of the row's {quantity(n, 'token')}, in order."
    caption += f" Each bar is the largest of {step:,} tokens." if step > 1 else ""
    caption += " The token with the largest loss, which is shown, is red."
    words = f"The losses of {quantity(n, 'token')}; the largest is {number(top)}."
    return Chart("strip", "Losses of the tokens", caption, canvas.svg(words), ("token", "loss"), table)


def _largest(losses: Vector) -> float | None:
    known = losses[~np.isnan(losses)]
    return float(known.max()) if len(known) else None


def row_chart(row: RowFacts) -> Chart:
    """Draw the logits next to the probabilities, one class per line."""
    order = range(len(row.names))
    canvas = Canvas(WIDTH, 42 + 21 * len(row.names))
    finite = np.where(np.isfinite(row.logits), row.logits, 0.0)
    logit_bars, prob_bars = (
        [Bar(row.names[at], lengths[at], number(values[at], 3), _hover(row, at), _ink(row, at)) for at in order]
        for lengths, values in ((finite, row.logits), (row.p, row.p))
    )
    logits = draw_bars(canvas, (104, 38, 178, 2), logit_bars, xlabel=row.quantity)
    draw_bars(canvas, (284, 38, 52, 2), prob_bars, xlabel="probability", xlim=(0, 1), xticks=HALVES)
    low, high = logits.get_xlim()
    for place, bar in enumerate(logit_bars):
        ink = "ink" if bar.ink == "bar" else bar.ink
        canvas.text(logits, low, place, f"{label(bar.name, LONGEST_LABEL)}\u2002", ink=ink)
        canvas.mark(logits, low - (high - low) * 0.8, low + (high - low) * 2.4, place - 0.5, place + 0.5, bar.hover)
    words = f"The {row.quantities} of a row next to its probabilities. Largest: {logit_bars[0].hover}."
    caption = f"{row.quantities.capitalize()}, and the probabilities that softmax computes from them."
    caption += " The label is blue." if row.label is not None else ""
    caption += " The predicted class is red." if row.label not in {None, PREDICTED} else ""
    if len(row.names) < row.n_classes:
        caption += f" Of {row.n_classes:,} classes, those with the largest {row.quantities} are shown"
        caption += ", and the label." if row.label is not None else "."
    table = tabulated(
        order,
        {
            "class": lambda at: printable(row.names[at]),
            row.quantity: lambda at: number(row.logits[at], 6),
            "probability": lambda at: number(row.p[at], 6),
            "−log p": lambda at: number(-math.log(row.p[at]) if row.p[at] else math.inf, 6),
            "": lambda at: "label" if at == row.label else "",
        },
    )
    return Chart("row", "From logits to probabilities", caption, canvas.svg(words), *table)


def beta_chart(row: RowFacts) -> Chart:
    """Draw the probabilities of the row's first classes over β."""
    shown = _lines(row)
    canvas = Canvas(WIDTH, 250 + 16 * len(shown))
    first, used, last = row.betas[0], row.betas[row.used], row.betas[-1]
    axes = canvas.axes((46, 38, 14, 4 + 16 * len(shown)), xscale="log", xlim=(first, last), ylim=(0, 1), yticks=HALVES)
    axes.set(xlabel="β = 1/T, the factor on the logits", ylabel="probability")
    axes.xaxis.set_major_locator(FixedLocator(sorted([first, used / 4, used, used * 4, last])))
    axes.xaxis.set_major_formatter(lambda value, _: number(value, 3))
    axes.plot([used, used], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (3, 3)))
    for place, (line, at) in enumerate(zip(LINES, shown, strict=False)):
        axes.plot(row.betas, row.probs[:, at], color=INKS[line], linewidth=2)
        height = 1 + 16 / (250 - 42) * (len(shown) - place - 0.4)
        name = label(row.names[at], 40) + (" (label)" if at == row.label else "")
        canvas.text(axes, first, height, f"━ {name}", "start", line)
    # The product of two betas may overflow.
    borders = [first, *(np.sqrt(row.betas[:-1]) * np.sqrt(row.betas[1:])), last]
    for (left, right), beta, probs, loss in zip(pairwise(borders), row.betas, row.probs, row.losses, strict=True):
        largest = ", ".join(f"{label(row.names[at], 12)} {number(probs[at], 2)}" for at in shown[:3])
        with_loss = "" if math.isnan(loss) else f", loss {number(loss)}"
        canvas.mark(axes, left, right, 0, 1, f"β = {number(beta, 3)}{with_loss}\n{largest}")
    words = f"Probabilities of {len(shown)} classes for β from {number(first, 3)} to {number(last, 3)}."
    caption = (
        "A small β (a high temperature) makes the probabilities equal; a large β leaves only the largest logit. The "
        "dashed line is the β of this report. β doesn't change the order of the classes."
    )
    table = [
        (number(beta), *map(number, probs[shown]), number(loss))
        for beta, probs, loss in zip(row.betas, row.probs, row.losses, strict=True)
    ]
    heading = ("β", *(printable(row.names[at], LONGEST_LABEL) for at in shown), "loss")
    return Chart("beta", "Probabilities by β", caption, canvas.svg(words), heading, table)


def _lines(row: RowFacts) -> list[int]:
    """Return the classes to draw lines of: the first ones, including the label."""
    first = list(range(min(MOST_LINES, len(row.names))))
    if row.label is not None and row.label not in first:
        first[-1] = row.label
    return first


def _ink(row: RowFacts, place: int) -> str:
    if place == row.label:
        return "right"
    return "wrong" if place == PREDICTED and row.label is not None else "bar"


def _hover(row: RowFacts, place: int) -> str:
    name = label(row.names[place], 22) + (" (label)" if place == row.label else "")
    return f"{name}: {row.quantity} {number(row.logits[place])}\np = {number(row.p[place])}"

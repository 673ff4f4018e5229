"""Charts about one row: its logits and probabilities, the effect of β, and for sequences the losses of the tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from batchmax.reports.html.charts import LONGEST_LABEL, WIDTH, Bar, Chart, draw_bars
from batchmax.reports.html.formatting import label, number, printable
from batchmax.reports.html.page_model import RowFacts, Vector
from batchmax.reports.html.svg import INKS, Canvas
from batchmax.runtime.text import quantity

MOST_TOKENS = 256
"""Most bars of a strip; if there are more tokens, several share a bar."""

MOST_LINES = 4
LINES = ("one", "two", "three", "four")


def row_charts(row: RowFacts) -> list[Chart]:
    """Draw all charts of a row."""
    charts = [row_chart(row), beta_chart(row)]
    return charts if row.strip is None or row.token is None else [strip_chart(row.strip, row.token), *charts]


def strip_chart(losses: Vector, token: int) -> Chart:
    """Draw the losses of a sequence's tokens in order; if there are many, each bar is the largest of several."""
    n = len(losses)
    step = -(-n // MOST_TOKENS)
    starts = range(0, n, step)
    largest = [_largest(losses[at : at + step]) for at in starts]
    finite = [value for value in largest if value is not None and math.isfinite(value)]
    top = max(finite, default=1.0) or 1.0
    canvas = Canvas(WIDTH, 190)
    axes = canvas.axes(46, 38, 14, 6)
    axes.set_xlim(-0.5, len(largest) - 0.5)
    axes.set_ylim(0, top)
    axes.grid(visible=True, axis="y", clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value) * step:,}"))
    axes.set_ylabel("loss, nats")
    axes.set_xlabel("token")
    table = []
    for place, (start, value) in enumerate(zip(starts, largest, strict=True)):
        end = min(start + step, n)
        where = f"token {start:,}" if step == 1 else f"tokens {start:,} to {end - 1:,}"
        shown = "no loss" if value is None else f"loss {number(value)}"
        height = 0.0 if value is None else min(value, top)
        ink = "wrong" if start <= token < end else "bar"
        axes.bar(place, height, 0.9 if len(largest) < MOST_TOKENS // 2 else 1.0, color=INKS[ink], clip_on=False)
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
    logits, probs = canvas.axes(104, 38, 178, 2), canvas.axes(284, 38, 52, 2)
    finite = np.where(np.isfinite(row.logits), row.logits, 0.0)
    inks = [_ink(row, place) for place in order]
    hover = [_hover(row, place) for place in order]
    draw_bars(
        canvas,
        logits,
        [Bar("", float(finite[at]), number(float(row.logits[at]), 3), hover[at], inks[at]) for at in order],
    )
    draw_bars(
        canvas, probs, [Bar("", float(row.p[at]), number(float(row.p[at]), 3), hover[at], inks[at]) for at in order]
    )
    probs.set_xlim(0, 1)
    probs.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    logits.set_xlabel(row.quantity)
    probs.set_xlabel("probability")
    low, high = logits.get_xlim()
    for place in order:
        ink = "ink" if inks[place] == "bar" else inks[place]
        canvas.text(logits, low, place, f"{label(row.names[place], LONGEST_LABEL)}\u2002", ink=ink)
        canvas.mark(logits, low - (high - low) * 0.8, low + (high - low) * 2.4, place - 0.5, place + 0.5, hover[place])
    words = f"The {row.quantities} of a row next to its probabilities. Largest: {hover[0]}."
    caption = f"{row.quantities.capitalize()}, and the probabilities that softmax computes from them."
    caption += " The label is blue." if row.label is not None else ""
    caption += " The predicted class is red." if row.label not in {None, row.pred} else ""
    if len(row.names) < row.n_classes:
        caption += f" Of {row.n_classes:,} classes, those with the largest {row.quantities} are shown"
        caption += ", and the label." if row.label is not None else "."
    table = [
        (
            printable(row.names[at]),
            number(float(row.logits[at]), 6),
            number(float(row.p[at]), 6),
            number(-math.log(row.p[at]) if row.p[at] else math.inf, 6),
            "label" if at == row.label else "",
        )
        for at in order
    ]
    heading = ("class", row.quantity, "probability", "−log p", "")
    return Chart("row", "From logits to probabilities", caption, canvas.svg(words), heading, table)


def beta_chart(row: RowFacts) -> Chart:
    """Draw the probabilities of the row's first classes over β."""
    shown = _lines(row)
    canvas = Canvas(WIDTH, 250 + 16 * len(shown))
    axes = canvas.axes(46, 38, 14, 4 + 16 * len(shown))
    axes.set_xscale("log")
    axes.set_xlim(float(row.betas[0]), float(row.betas[-1]))
    axes.set_ylim(0, 1)
    axes.grid(visible=True, axis="y", clip_on=False)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("probability")
    used = float(row.betas[row.used])
    ticks = [float(row.betas[0]), used, float(row.betas[-1])]
    ticks += [used / 4, used * 4]
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(float(value), 3)))
    axes.set_xlabel("β = 1/T, the factor on the logits")
    axes.plot([used, used], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (3, 3)), clip_on=False)
    for place, (line, at) in enumerate(zip(LINES, shown, strict=False)):
        axes.plot(row.betas, row.probs[:, at], color=INKS[line], linewidth=2, clip_on=False)
        height = 1 + 16 / (250 - 42) * (len(shown) - place - 0.4)
        name = label(row.names[at], 40) + (" (label)" if at == row.label else "")
        canvas.text(axes, float(row.betas[0]), height, f"━ {name}", "start", line)
    borders = np.sqrt(row.betas[:-1]) * np.sqrt(row.betas[1:])  # the product of two betas may overflow
    for place, beta in enumerate(row.betas):
        left = row.betas[0] if place == 0 else borders[place - 1]
        right = row.betas[-1] if place == len(row.betas) - 1 else borders[place]
        best = [f"{label(row.names[at], 12)} {number(float(row.probs[place, at]), 2)}" for at in shown[:3]]
        loss = "" if math.isnan(row.losses[place]) else f", loss {number(float(row.losses[place]))}"
        canvas.mark(axes, left, right, 0, 1, f"β = {number(float(beta), 3)}{loss}\n{', '.join(best)}")
    words = f"Probabilities of {len(shown)} classes for β from {number(float(row.betas[0]), 3)} to "
    words += f"{number(float(row.betas[-1]), 3)}."
    caption = (
        "A small β (a high temperature) makes the probabilities equal; a large β leaves only the largest logit. The "
        "dashed line is the β of this report. β doesn't change the order of the classes."
    )
    table = [
        (
            number(float(row.betas[place]), 4),
            *(number(float(row.probs[place, at]), 4) for at in shown),
            number(float(row.losses[place])),
        )
        for place in range(len(row.betas))
    ]
    heading = ("β", *(printable(row.names[at], LONGEST_LABEL) for at in shown), "loss")
    return Chart("beta", "Probabilities by β", caption, canvas.svg(words), heading, table)


def _lines(row: RowFacts) -> Sequence[int]:
    """Return the classes to draw lines of: the first ones, including the label."""
    first = list(range(min(MOST_LINES, len(row.names))))
    if row.label is not None and row.label not in first:
        first[-1] = row.label
    return first


def _ink(row: RowFacts, place: int) -> str:
    if place == row.label:
        return "right"
    return "wrong" if place == row.pred and row.label is not None else "bar"


def _hover(row: RowFacts, place: int) -> str:
    name = label(row.names[place], 22) + (" (label)" if place == row.label else "")
    return f"{name}: {row.quantity} {number(float(row.logits[place]))}\np = {number(float(row.p[place]))}"

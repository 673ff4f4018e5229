"""Print one sequence: its tokens as a table, below a strip of their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import number
from batchmax.jobs.sequence_trace import SequenceTrace
from batchmax.runtime.text import printable, quantity

TOP = 10
"""Number of tokens shown by default: those with the largest loss."""

LEVELS = "▁▂▃▄▅▆▇█"
GAP = "·"
"""Symbol for tokens without a loss."""

HEADINGS = {"ranks": "rank", "losses": "loss", "preds": "pred", "confidences": "p(pred)"}


def show(sequence: SequenceTrace, *, everything: bool) -> None:
    """Print a sequence: all of its tokens, or those with the largest loss."""
    values = sequence.values
    console = tables.console()
    console.print(Text(f"{printable(sequence.file)}: row {sequence.row:,}", style="bold"))
    statuses = values["statuses"]
    if statuses is None:
        console.print("the logits are null")
        return
    losses = values.get("losses")
    names = ["preds", "confidences", *(("ranks", "losses") if losses is not None else ())]
    shown = list(range(len(statuses)))
    if losses is not None and not everything:
        shown = sequence.largest_losses(TOP)
    elif not everything:
        shown = shown[:TOP]
    if losses is not None and losses:
        console.print(Text(strip(losses, console.width)))
    columns = [
        tables.Column("token", [f"{token:,}" for token in shown]),
        *(tables.Column(HEADINGS[name], [number(values[name][token]) for token in shown]) for name in names),
        tables.Column("status", [statuses[token] for token in shown], "left"),
    ]
    tables.print_columns(console, columns, no_wrap=True)
    if len(shown) < len(statuses):
        console.print(
            Text(
                f"and {quantity(len(statuses) - len(shown), 'more token')}; for all: --all; for one: --token N",
                style="dim",
            )
        )
    figures = [("tokens", number(len(statuses)))]
    if losses is not None:
        figures += [
            ("with a loss", number(values["n_tokens"])),
            ("mean loss", number(values["mean_loss"])),
            ("perplexity", number(values["perplexity"])),
        ]
    tables.show_pairs([*figures, ("status", values["status"])])


def strip(losses: Sequence[float | None], width: int) -> str:
    """Return losses as a line of block characters; if there are more than ``width``, each is the largest of several."""
    step = -(-len(losses) // max(width, 1))
    largest = []
    for start in range(0, len(losses), step):
        known = [loss for loss in losses[start : start + step] if loss is not None]
        largest.append(max(known, default=None))
    top = max((value for value in largest if value is not None and math.isfinite(value)), default=0.0) or 1.0
    last = len(LEVELS) - 1
    return "".join(
        GAP
        if value is None
        else LEVELS[min(last, int(value / top * last + 0.5))]
        if math.isfinite(value)
        else LEVELS[-1]
        for value in largest
    )

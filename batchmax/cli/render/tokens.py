"""Print one sequence: its tokens as a table, below a strip of their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchmax.cli.render import summaries, tables
from batchmax.cli.render.formatting import number
from batchmax.jobs.sequence_trace import SequenceTrace
from batchmax.runtime.text import printable, quantity

TOP = 10
"""Number of tokens shown by default: those with the largest loss."""

LEVELS = "▁▂▃▄▅▆▇█"
GAP = "·"
"""Symbol for tokens without a loss."""

HEADINGS = {"preds": "pred", "confidences": "p(pred)", "ranks": "rank", "losses": "loss"}
"""The headings of the columns of values, if the sequence has them."""


def show(sequence: SequenceTrace, *, everything: bool) -> None:
    """Print a sequence: all of its tokens, or those with the largest loss."""
    values = sequence.values
    console = tables.console()
    console.print_line(f"{printable(sequence.file)}: row {sequence.row:,}", "bold")
    statuses, losses = values["statuses"], values.get("losses")
    if statuses is None:
        console.print("the logits are null")
        return
    shown = list(range(len(statuses)))
    if not everything:
        shown = shown[:TOP] if losses is None else sequence.largest_losses(TOP)
    if losses:
        console.print_line(strip(losses, console.width))
    columns = [
        tables.Column("token", [f"{token:,}" for token in shown]),
        *(
            tables.Column(heading, [number(values[name][token]) for token in shown])
            for name, heading in HEADINGS.items()
            if name in values
        ),
        tables.Column("status", [statuses[token] for token in shown], "left"),
    ]
    console.print_columns(columns, no_wrap=True)
    more = len(statuses) - len(shown)
    if more:
        console.print_line(f"and {quantity(more, 'more token')}; for all: --all; for one: --token N", "dim")
    figures = [("tokens", number(len(statuses)))]
    if losses is not None:
        figures += [
            ("with a loss", number(values["n_tokens"])),
            ("mean loss", number(values["mean_loss"])),
            ("perplexity", number(values["perplexity"])),
        ]
    summaries.show_pairs([*figures, ("status", values["status"])])


def strip(losses: Sequence[float | None], width: int) -> str:
    """Return losses as a line of block characters; if there are more than ``width``, each is the largest of several."""
    step = -(-len(losses) // max(width, 1))
    pieces = (losses[start : start + step] for start in range(0, len(losses), step))
    largest = [max((loss for loss in piece if loss is not None), default=None) for piece in pieces]
    top = max((value for value in largest if value is not None and math.isfinite(value)), default=0.0) or 1.0
    last = len(LEVELS) - 1
    shares = (None if value is None else min(value / top, 1.0) for value in largest)
    return "".join(GAP if share is None else LEVELS[int(share * last + 0.5)] for share in shares)

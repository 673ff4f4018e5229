"""Print one sequence: its tokens as a table, below a strip of their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, number
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
    found = sequence.values
    console = tables.console()
    console.print(Text(f"{printable(sequence.file)}: row {sequence.row:,}", style="bold"))
    statuses = found["statuses"]
    if statuses is None:
        console.print("the logits are null")
        return
    losses = found.get("losses")
    names = ["preds", "confidences", *(("ranks", "losses") if losses is not None else ())]
    shown = list(range(len(statuses)))
    if losses is not None and not everything:
        shown = sequence.largest_losses(TOP)
    elif not everything:
        shown = shown[:TOP]
    if losses is not None and losses:
        console.print(Text(strip(losses, console.width)))
    table = tables.new_table()
    for heading in ("token", *(HEADINGS[name] for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for token in shown:
        cells = [ABSENT if found[name][token] is None else number(found[name][token]) for name in names]
        table.add_row(f"{token:,}", *cells, statuses[token])
    console.print(table)
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
            ("with a loss", number(found["n_tokens"])),
            ("mean loss", number(found["mean_loss"])),
            ("perplexity", number(found["perplexity"])),
        ]
    tables.show_pairs([*figures, ("status", found["status"])])


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

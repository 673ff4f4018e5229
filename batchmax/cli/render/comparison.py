"""Print a comparison: the metrics of both inputs and their changes, then the rows with the largest change.

Knows the names of the metrics, not how they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, duration, number
from batchmax.evaluation.comparison.result import Comparison
from batchmax.runtime.text import printable, quantity

LONGEST = 40
"""Most characters to show of a name."""


def show(found: Comparison) -> None:
    """Print the comparison."""
    tables.show_pairs(
        [
            ("A", _files(found.files_a)),
            ("B", _files(found.files_b)),
            ("rows", _rows(found)),
            *_losses(found),
            *_flips(found),
            ("agreement", ABSENT if found.agreement is None else f"{100 * found.agreement:.6g} % of predictions"),
            ("mean KL(A‖B)", _divergence(found)),
            ("time", duration(found.seconds)),
        ]
    )
    if found.moved:
        _show_moved(found)


def _files(files: Sequence[str]) -> str:
    if not files:
        return "a stream"
    return printable(files[0]) + (f" and {number(len(files) - 1)} more" if len(files) > 1 else "")


def _rows(found: Comparison) -> str:
    pairs = ("pair", None) if found.tokens_only_a is None else ("pair of sequences", "pairs of sequences")
    parts = [quantity(found.n_rows, *pairs) + (f" by {printable(found.key)}" if found.key is not None else "")]
    for count, what in (
        (found.only_a, "only in A"),
        (found.only_b, "only in B"),
        (found.bad_rows, "left out because a row is bad" if found.tokens_only_a is None else "with a bad token"),
    ):
        if count:
            parts.append(f"{number(count)} {what}")
    parts += [
        f"{quantity(count, 'token')} only in {name}"
        for count, name in ((found.tokens_only_a, "A"), (found.tokens_only_b, "B"))
        if count
    ]
    if found.tokens_only_a is not None and found.mean_loss_a is not None:
        parts.append(f"{quantity(found.n_judged, 'token')} with a loss")
    elif found.mean_loss_a is not None and found.n_judged < found.n_rows - found.bad_rows:
        parts.append(f"{number(found.n_judged)} with a label")
    return ", ".join(parts)


def _losses(found: Comparison) -> list[tuple[str, str]]:
    if found.infinite_losses_a is None:
        return [("losses", "none, because there are no labels")]
    pairs = [("mean loss", _change(found.mean_loss_a, found.mean_loss_b, found.mean_loss_change))]
    if found.mean_loss_change_low is not None:
        low, high = _signed(found.mean_loss_change_low), _signed(found.mean_loss_change_high)
        pairs.append(
            ("  change", f"95 % interval {low} to {high}  (normal approximation, {number(found.n_judged)} pairs)")
        )
    if found.infinite_losses_a or found.infinite_losses_b:
        counts = f"{number(found.infinite_losses_a)} in A, {number(found.infinite_losses_b)} in B"
        pairs.append(("infinite losses", counts))
    return pairs


def _flips(found: Comparison) -> list[tuple[str, str]]:
    if found.accuracy_a is None or found.accuracy_b is None:
        return []
    flips = f"{number(found.right_to_wrong)} right → wrong, {number(found.wrong_to_right)} wrong → right"
    return [
        ("accuracy", _change(found.accuracy_a, found.accuracy_b, found.accuracy_b - found.accuracy_a)),
        ("flips", flips),
        ("  McNemar", f"p = {found.mcnemar_p:.3g} ({found.mcnemar_method})"),
    ]


def _divergence(found: Comparison) -> str:
    text = ABSENT if found.mean_kl is None else f"{number(found.mean_kl)} nats"
    if not found.infinite_kl:
        return text
    infinite = f"infinite for {number(found.infinite_kl)}, where B masks a class and A doesn't"
    return f"{text} over the pairs where it is finite; {infinite}"


def _change(a: float | None, b: float | None, change: float | None) -> str:
    text = f"{number(a)} → {number(b)}"
    return text if change is None else f"{text}  ({_signed(change)})"


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.4g}" if value else "0"


def _show_moved(found: Comparison) -> None:
    rows = found.moved
    console = tables.console()
    measure = "change of the loss" if found.moved_by == "loss" else "KL(A‖B)"
    console.print(Text(f"\nlargest changes, by {measure}", style="bold"))
    table = tables.new_table()
    names = _shown(found)
    for name in names:
        is_text = any(isinstance(row[name], str) for row in rows)
        table.add_column(Text(name.replace("_", " ")), justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in names))
    console.print(table)


def _shown(found: Comparison) -> list[str]:
    """Return the names of the columns to show, without empty ones."""
    rows = found.moved
    names = ["file", "row"] if len(found.files_a) > 1 else ["row"]
    names += ["token"] if "token" in rows[0] else []
    if found.key is not None:
        names += ["file_b", "row_b", "key"] if len(found.files_b) > 1 else ["row_b", "key"]
    names += ["label"] if any(row["label"] is not None for row in rows) else []
    names += ["pred_a", "pred_b"]
    return [*names, "loss_a", "loss_b", "kl"] if found.moved_by == "loss" else [*names, "kl"]


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return str(value)  # no separators: row numbers and indices are typed again
    text = number(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

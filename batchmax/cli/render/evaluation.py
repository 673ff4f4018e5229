"""Print evaluations and calibrations as tables on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from batchmax.cli.render.formatting import duration, number
from batchmax.cli.render.tables import console, flagged, new_table, show_pairs
from batchmax.runtime.text import printable, quantity, shell_word

MOST_ROWS = 20
"""Classes and groups to print; the JSON contains all."""
CLASS_COLUMNS = ("class", "support", "precision", "recall", "f1", "mean_loss")
GROUP_COLUMNS = ("value", "n_rows", "n_tokens", "accuracy", "mean_loss", "bits_per_byte", "brier", "ece")
"""The third and the sixth exist only for sequences."""


def show_evaluation(found: Any) -> None:
    """Print an evaluation: a :class:`batchmax.evaluation.evaluate.Evaluation`."""
    tokens = [] if found.n_tokens is None else [("tokens with a loss", number(found.n_tokens))]
    bits = [("bits per token", found.bits_per_token), ("bits per byte", found.bits_per_byte)]
    tops = [(f"top-{k} accuracy", number(value)) for k, value in found.top_k_accuracy.items()]
    show_pairs(
        [
            ("rows", number(found.n_rows)),
            *tokens,
            ("flagged rows", flagged(found.status_counts)),
            ("classes", number(found.n_classes)),
            ("accuracy", number(found.accuracy)),
            *tops,
            ("mean loss", number(found.mean_loss)),
            ("perplexity", number(found.perplexity)),
            *((name, number(value)) for name, value in bits if value is not None),
            ("log likelihood", number(found.log_likelihood)),
            ("Brier score", number(found.brier)),
            ("ECE", f"{number(found.ece)}  (over {quantity(len(found.bins), 'bin')})"),
            ("MCE", number(found.mce)),
            ("RMSCE", number(found.rmsce)),
            ("time", duration(found.seconds)),
        ]
    )
    rows = found.per_class
    if rows:
        few = len(rows) <= MOST_ROWS
        shown = rows if few else sorted(rows, key=lambda one: (one["f1"] is None, one["f1"] or 0.0))[:MOST_ROWS]
        _show("" if few else f"{MOST_ROWS} classes with the lowest F1, of {len(rows):,}", CLASS_COLUMNS, shown)
    for column, groups in found.slices.items():
        more = f", {MOST_ROWS} largest groups of {len(groups):,}" if len(groups) > MOST_ROWS else ""
        names = [name for name in GROUP_COLUMNS if not groups or name in groups[0]]
        _show(f"by {printable(column)}{more}", names, groups[:MOST_ROWS])


def show_calibration(found: Any, out: str) -> None:
    """Print a calibration: a :class:`batchmax.evaluation.calibrate.Calibration`."""

    def change(before: float | None, after: float | None) -> str:
        return f"{number(before)} → {number(after)}"

    measured = quantity(found.n_holdout, f"held-out {found.unit}") if found.n_holdout else f"the fitted {found.unit}s"
    fitted = number(found.n_fit) if found.unit == "row" else quantity(found.n_fit, found.unit)
    what = [("temperature", number(found.temperature))]
    if found.scale is not None:
        ends = (min(found.scale), max(found.scale), min(found.bias), max(found.bias))
        what = [
            ("scales", f"{number(ends[0])} to {number(ends[1])}"),
            ("biases", f"{number(ends[2])} to {number(ends[3])}"),
        ]
    show_pairs(
        [
            *what,
            ("NLL", f"{change(found.nll_before, found.nll_after)}  ({measured})"),
            ("ECE", change(found.ece_before, found.ece_after)),
            ("rows", f"{number(found.n_rows)}, fitted to {fitted}"),
            ("time", duration(found.seconds)),
            ("next", f"batchmax score INPUT -o scored.parquet --calibration {shell_word(out)}"),
        ]
    )


def _show(title: str, names: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    click.echo()
    if title:
        click.echo(title)
    table = new_table()
    for place, name in enumerate(names):
        table.add_column(name.removeprefix("n_").replace("_", " "), justify="right" if place else "left")
    for row in rows:
        first, *rest = (row[name] for name in names)
        table.add_row("null" if first is None else printable(first), *map(number, rest))
    console().print(table)

"""What was found out about a model, as tables on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from batchmax.cli.tables import console, new_table, show_pairs
from batchmax.cli.text import duration, number, printable

MOST_ROWS = 20
"""Classes and groups that are printed; JSON has them all."""


def show_evaluation(found: Any) -> None:
    """Print an evaluation: a :class:`batchmax.evaluation.Evaluation`."""
    odd = {name: count for name, count in found.status_counts.items() if name != "ok"}
    tops = [(f"top-{k} accuracy", number(value)) for k, value in found.top_k_accuracy.items()]
    show_pairs(
        [
            ("rows", number(found.n_rows)),
            ("odd rows", ", ".join(f"{number(count)} {name}" for name, count in odd.items()) or "none"),
            ("classes", number(found.n_classes)),
            ("accuracy", number(found.accuracy)),
            *tops,
            ("mean loss", number(found.mean_loss)),
            ("perplexity", number(found.perplexity)),
            ("log likelihood", number(found.log_likelihood)),
            ("Brier score", number(found.brier)),
            ("ECE", f"{number(found.ece)}  (over {len(found.bins)} bins)"),
            ("MCE", number(found.mce)),
            ("RMSCE", number(found.rmsce)),
            ("time", duration(found.seconds)),
        ]
    )
    rows = found.per_class
    if rows:
        few = len(rows) <= MOST_ROWS
        shown = rows if few else sorted(rows, key=lambda one: (one["f1"] is None, one["f1"] or 0.0))[:MOST_ROWS]
        names = ("class", "support", "precision", "recall", "f1", "mean_loss")
        _show("" if few else f"the {MOST_ROWS} classes of lowest F1, of {len(rows):,}", names, shown)
    for column, groups in found.slices.items():
        names = ("value", "n_rows", "accuracy", "mean_loss", "perplexity", "brier")
        more = f", the {MOST_ROWS} largest of {len(groups):,}" if len(groups) > MOST_ROWS else ""
        _show(f"by {printable(column)}{more}", names, groups[:MOST_ROWS])


def _show(title: str, names: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    click.echo()
    if title:
        click.echo(title)
    table = new_table()
    for place, name in enumerate(names):
        table.add_column(name.replace("n_rows", "rows").replace("_", " "), justify="right" if place else "left")
    for row in rows:
        first, *rest = (row[name] for name in names)
        table.add_row("null" if first is None else printable(first), *map(number, rest))
    console().print(table)

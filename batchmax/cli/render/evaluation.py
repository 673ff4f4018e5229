"""Print evaluations and calibrations as tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from batchmax.cli.render.formatting import change_of, duration, number
from batchmax.cli.render.summaries import flagged, show_pairs
from batchmax.cli.render.tables import Column, console
from batchmax.runtime.text import printable, quantity, shell_word

MOST_ROWS = 20
"""Classes and groups to print; the JSON contains all."""
CLASS_COLUMNS = ("class", "support", "precision", "recall", "f1", "mean_loss")
LABEL_COLUMNS = ("class", "support", "precision", "recall", "f1", "auroc", "average_precision", "mean_loss")
"""Of multi-label rows."""
GROUP_COLUMNS = (
    *("value", "n_rows", "n_tokens", "accuracy", "subset_accuracy", "hamming_loss", "micro_f1"),
    *("mean_loss", "bits_per_byte", "brier", "ece"),
)
"""Only those that the groups have are printed."""


def show_evaluation(result: Any) -> None:
    """Print an evaluation: a :class:`batchmax.evaluation.result.Evaluation`."""
    tokens = [] if result.n_tokens is None else [("tokens with a loss", number(result.n_tokens))]
    bits = [(f"bits per {unit}", f"bits_per_{unit}") for unit in ("token", "byte")]
    clusters = [] if result.n_clusters is None else [("clusters", number(result.n_clusters))]
    of = partial(_with_interval, result)
    tops = [(f"top-{k} accuracy", of(value, "top_k_accuracy", k)) for k, value in result.top_k_accuracy.items()]
    show_pairs(
        [
            ("rows", number(result.n_rows)),
            *tokens,
            *clusters,
            ("flagged rows", flagged(result.status_counts)),
            ("classes", number(result.n_classes)),
            *([] if result.positive is None else [("positive class", printable(result.positive))]),
            *(_of_labels(result) if result.task == "multilabel" else [("accuracy", of(result.accuracy, "accuracy"))]),
            *tops,
            *([] if result.accuracy is None else _of_classes(result)),
            *_areas(result),
            ("mean loss", of(result.mean_loss, "mean_loss")),
            ("perplexity", of(result.perplexity, "perplexity")),
            *((text, of(value, name)) for text, name in bits if (value := getattr(result, name)) is not None),
            ("log likelihood", number(result.log_likelihood)),
            ("Brier score", of(result.brier, "brier")),
            ("ECE", f"{of(result.ece, 'ece')}  (over {quantity(len(result.bins), 'bin')})"),
            ("MCE", number(result.mce)),
            ("RMSCE", number(result.rmsce)),
            *(
                [("confidence level", f"{result.confidence_level:.6g}  (of the intervals in brackets)")]
                if result.intervals
                else []
            ),
            ("time", duration(result.seconds)),
        ]
    )
    rows = result.per_class
    if rows:
        few = len(rows) <= MOST_ROWS
        shown = rows if few else sorted(rows, key=lambda one: (one["f1"] is None, one["f1"] or 0.0))[:MOST_ROWS]
        columns = CLASS_COLUMNS if result.task != "multilabel" else [name for name in LABEL_COLUMNS if name in rows[0]]
        _show("" if few else f"{MOST_ROWS} classes with the lowest F1, of {len(rows):,}", columns, shown)
    for column, groups in result.slices.items():
        more = f", {MOST_ROWS} largest groups of {len(groups):,}" if len(groups) > MOST_ROWS else ""
        names = [name for name in GROUP_COLUMNS if not groups or name in groups[0]]
        _show(f"by {printable(column)}{more}", names, groups[:MOST_ROWS])


def _of_classes(result: Any) -> list[tuple[str, str]]:
    """Return the metrics of predicted classes."""
    names = {"balanced accuracy": "balanced_accuracy", "MCC": "mcc"}
    if result.task == "binary":
        names = {name: name for name in ("prevalence", "precision", "recall", "specificity")} | {"F1": "f1"} | names
    found = [(text, _with_interval(result, getattr(result, name), name)) for text, name in names.items()]
    if result.task != "binary":
        found.append(("macro F1", _with_interval(result, result.macro["f1"], "macro", "f1")))
    return found


def _of_labels(result: Any) -> list[tuple[str, str]]:
    """Return the metrics of the labels of multi-label rows."""
    names = {
        "subset accuracy": ("subset_accuracy",),
        "Hamming loss": ("hamming_loss",),
        "macro F1": ("macro", "f1"),
        "micro F1": ("micro", "f1"),
        "LRAP": ("label_ranking_average_precision",),
        "mean label loss": ("mean_label_loss",),
    }
    shown = []
    for text, (first, *more) in names.items():
        value = getattr(result, first)
        for name in more:
            value = value.get(name)
        shown.append((text, _with_interval(result, value, first, *more)))
    return shown


def _with_interval(result: Any, value: float | None, *names: str) -> str:
    """Return a metric with its confidence interval, if it has one."""
    interval = result.interval(*names)
    if value is None or interval is None:
        return number(value)
    return f"{number(value)}  [{interval['lower']:.4g}, {interval['upper']:.4g}]"


def _areas(result: Any) -> list[tuple[str, str]]:
    """Return the areas under curves, with their bounds."""
    if result.curves["method"] == "none":
        return []
    names = {"auroc": "AUROC", "average_precision": "average precision", "partial_auroc": "partial AUROC"}
    values = [(name, text, getattr(result, name)) for name, text in names.items()]
    if result.task != "binary":
        short = {"auroc": "macro AUROC", "average_precision": "macro AP"}
        values = [(f"macro.{name}", text, result.macro.get(name)) for name, text in short.items()]
    shown = []
    for name, text, value in values:
        bounds = result.bounds.get(name)
        more = "" if bounds is None else f"  ({number(bounds['lower'])} to {number(bounds['upper'])})"
        if value is not None or "partial" not in name:
            shown.append((text, f"{_with_interval(result, value, *name.split('.'))}{more}"))
    return shown


def show_calibration(result: Any, out: str) -> None:
    """Print a calibration: a :class:`batchmax.evaluation.calibrate.Calibration`."""
    measured = (
        quantity(result.n_holdout, f"held-out {result.unit}") if result.n_holdout else f"the fitted {result.unit}s"
    )
    fitted = number(result.n_fit) if result.unit == "row" else quantity(result.n_fit, result.unit)
    what = [("temperature", number(result.temperature))]
    if result.scale is not None:
        what = [
            (name, f"{number(min(values))} to {number(max(values))}")
            for name, values in (("scales", result.scale), ("biases", result.bias))
        ]
    show_pairs(
        [
            *what,
            ("NLL", f"{change_of(result.nll_before, result.nll_after)}  ({measured})"),
            ("ECE", change_of(result.ece_before, result.ece_after)),
            ("rows", f"{number(result.n_rows)}, fitted to {fitted}"),
            ("time", duration(result.seconds)),
            ("next", f"batchmax score INPUT -o scored.parquet --calibration {shell_word(out)}"),
        ]
    )


def _show(title: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    click.echo()
    if title:
        click.echo(title)
    first, *metrics = names
    columns = [Column(first, ["null" if row[first] is None else printable(row[first]) for row in rows], "left")]
    columns += [
        Column(name.removeprefix("n_").replace("_", " "), [_cell(row, name) for row in rows]) for name in metrics
    ]
    console().print_columns(columns)


def _cell(row: dict[str, Any], name: str) -> str:
    """Return a metric of a class or group; the accuracy of a group with its interval."""
    interval = row.get("intervals", {}).get(name) if name == "accuracy" else None
    return number(row[name]) + ("" if interval is None else f"  [{interval['lower']:.4g}, {interval['upper']:.4g}]")

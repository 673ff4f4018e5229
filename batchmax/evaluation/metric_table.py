"""The metrics of an evaluation as rows of a table.

Without grouping columns, the columns are ``scope`` (``all``, ``class`` or ``bin``), ``name`` (the class, or the bin's
borders; null for ``all``), ``figure`` and ``value``; bounds of intervals are figures such as ``accuracy.lower``. With
one grouping column, there is one row per group, in order of first occurrence: the grouping column with its type, then
``n_rows``, ``mean_loss``, ``perplexity``, ``accuracy``, ``brier`` and ``ece``, or for multi-label rows instead of
``accuracy`` the metrics of labels; for sequences also ``n_tokens``, the
number of tokens with a loss, and ``bits_per_byte`` if bytes are known. With several grouping columns, the table is as
without, and their names are additional scopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from batchmax.evaluation.class_metrics import AREAS, OF_ALL, OF_POSITIVE
from batchmax.evaluation.multi_label_metrics import AVERAGES, OF_EACH, OF_ROWS

SCHEMA = pa.schema({"scope": pa.string(), "name": pa.string(), "figure": pa.string(), "value": pa.float64()})
HEADLINE = (
    "n_rows",
    "n_classes",
    "mean_loss",
    "log_likelihood",
    "accuracy",
    "perplexity",
    *OF_POSITIVE,
    *AREAS,
    "partial_auroc",
    *OF_ALL,
    "brier",
    "ece",
    "mce",
    "rmsce",
    "bad_rows",
    "infinite_losses",
)


BOUNDS = ("lower", "upper")


def metric_rows(result: dict[str, Any]) -> pa.RecordBatch:
    """Return the metrics of an evaluation, as in its JSON, one per row."""
    columns = [
        pa.array(column, field.type) for column, field in zip(zip(*_rows(result), strict=True), SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _rows(result: dict[str, Any]) -> Iterator[tuple[str, str | None, str, float | None]]:
    for figure in HEADLINE:
        yield "all", None, figure, result[figure]
    if result["task"] == "multilabel":
        for figure in (*OF_ROWS, "mean_label_loss"):
            yield "all", None, figure, result[figure]
    if result.get("n_tokens") is not None:
        for figure in ("n_tokens", "bits_per_token", "bits_per_byte"):
            yield "all", None, figure, result[figure]
    for average in AVERAGES:
        for figure, value in result[average].items():
            yield "all", None, f"{average}_{figure}", value
    for k, value in result["top_k_accuracy"].items():
        yield "all", None, f"top_{k}_accuracy", value
    for name, interval in result["intervals"].items():
        for figure, found in _intervals(name, interval):
            yield from (("all", None, f"{figure}.{bound}", found[bound]) for bound in BOUNDS)
    for one in result["per_class"]:
        for figure in ("n_rows", "support", "predicted", *OF_EACH, *AREAS, "mean_loss"):
            if figure in one:
                yield "class", str(one["class"]), figure, one[figure]
        for figure, found in one.get("intervals", {}).items():
            if found is not None:
                yield from (("class", str(one["class"]), f"{figure}.{bound}", found[bound]) for bound in BOUNDS)
    for one in result["bins"]:
        for figure in ("n_rows", "confidence", "accuracy"):
            yield "bin", f"{one['low']:g}-{one['high']:g}", figure, one[figure]
    for column, groups in result["slices"].items():
        for one in groups:
            name = None if one["value"] is None else str(one["value"])
            for figure in list(one)[1:]:
                if figure != "intervals":
                    yield column, name, figure, one[figure]
            for figure, found in one.get("intervals", {}).items():
                if found is not None:
                    yield from ((column, name, f"{figure}.{bound}", found[bound]) for bound in BOUNDS)


def _intervals(name: str, found: dict[str, Any] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the intervals of a metric, or of its averages or values of k, with the names of their rows."""
    if found is None:
        return
    if "method" in found:
        yield name, found
        return
    for key, one in found.items():
        yield from _intervals(f"top_{key}_accuracy" if name == "top_k_accuracy" else f"{name}_{key}", one)

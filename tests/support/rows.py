"""Rows of logits for tests of scoring and of jobs, with their expected results.

Nothing here imports batchmax: expected values are exact (``tests.support.oracle``) or plain definitions in wide floats.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support import oracle

NAN, INF = float("nan"), float("inf")

LOGITS_BY_STATUS = {
    "ok": [0.0, 0.5, -INF],
    "null_logits": None,
    "bad_length": [1.0, 2.0],
    "nan_logit": [NAN, 1.0, INF],
    "inf_logit": [1.0, INF, -INF],
    "all_masked": [-INF, -INF, -INF],
    "masked_label": [-INF, 0.5, 2.0],
}
"""Logits of three classes, by the status they get with label 0. The first row sets the number of classes."""

LABELS_BY_STATUS = {"bad_label": 3, "ignored": -100, "unlabelled": None, "ok": 0}
"""Labels, by the status they give a row with ordinary logits."""

PRECEDENCE = (
    "null_logits",
    "bad_length",
    "nan_logit",
    "inf_logit",
    "all_masked",
    "bad_label",
    "ignored",
    "unlabelled",
    "masked_label",
    "ok",
)
BAD = PRECEDENCE[:6]
WITHOUT_PROBS = PRECEDENCE[:5]
WITHOUT_LOSS = PRECEDENCE[:8]


def rows_of_every_status() -> tuple[list[Any], list[Any], list[str]]:
    """Return logits, labels and statuses of every combination of ``LOGITS_BY_STATUS`` and ``LABELS_BY_STATUS``."""
    pairs = list(itertools.product(LOGITS_BY_STATUS, LABELS_BY_STATUS))
    statuses = [min(pair, key=PRECEDENCE.index) for pair in pairs]
    return [LOGITS_BY_STATUS[a] for a, _ in pairs], [LABELS_BY_STATUS[b] for _, b in pairs], statuses


def lists(matrix: Any, kind: Any = None) -> pa.Array:
    """Return a matrix as a list column of its own dtype, or of the given list type."""
    matrix = np.asarray(matrix)
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * np.int32(matrix.shape[1]))
    array = pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel()))
    return array if kind is None else array.cast(kind)


def some_logits(n_rows: int, n_classes: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return rows with spreads from 0.01 to 40; every third row has ties, every fourth has masked classes."""
    rng = np.random.default_rng([seed, n_classes])
    logits = rng.standard_normal((n_rows, n_classes)) * rng.choice([0.01, 1.0, 5.0, 40.0], (n_rows, 1))
    logits[::3] = np.rint(logits[::3])
    masked = rng.random(logits.shape) < 0.2
    masked[:, 0] = False
    masked[np.arange(n_rows) % 4 != 0] = False
    logits[masked] = -np.inf
    return logits.astype(dtype)


def table_of(n_rows: int = 40, n_classes: int = 4, seed: int = 0, **more: Any) -> pa.Table:
    """Return rows with an id, logits of ``some_logits`` and labels, and more columns."""
    logits = some_logits(n_rows, n_classes, seed=seed)
    labels = pa.array(np.arange(n_rows) % n_classes)
    return pa.table({"id": pa.array(np.arange(n_rows)), "logits": lists(logits), "label": labels, **more})


def table_of_every_status() -> tuple[pa.Table, list[str]]:
    """Return the rows of ``rows_of_every_status`` with an id, and their statuses."""
    logits, labels, statuses = rows_of_every_status()
    columns = {"id": list(range(len(labels))), "logits": pa.array(logits, pa.list_(pa.float32()))}
    return pa.table({**columns, "label": pa.array(labels, pa.int64())}), statuses


def columns_of(batch: pa.RecordBatch | pa.Table, name: str) -> np.ndarray[Any, Any]:
    """Return a column without nulls as an array: (n,), or (n, K) for lists."""
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    assert column.null_count == 0
    if hasattr(column, "flatten") and pa.types.is_nested(column.type):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def expected(logits: Any, labels: Any, temperature: float = 1.0, top_k: int = 1) -> dict[str, Any]:
    """Return every output of labeled rows that aren't bad, exact or in wide floats."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    n, k = logits.shape
    rows = np.arange(n)
    probs = oracle.softmax(logits, temperature)
    log_probs = oracle.log_softmax(logits, temperature)
    ranked = np.argsort(-logits.astype(np.longdouble), axis=1, kind="stable")
    pred = ranked[:, 0]
    picked = logits[rows, labels][:, None]
    before = np.arange(k)[None, :] < labels[:, None]
    one_hot = np.zeros((n, k), np.longdouble)
    one_hot[rows, labels] = 1
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(probs == 0, 0, -probs * log_probs)
    runner_up = probs[rows, ranked[:, 1]] if k > 1 else np.zeros(n, np.longdouble)
    beta = np.longdouble(1.0 / temperature)
    return {
        "probs": probs,
        "log_probs": log_probs,
        "loss": -log_probs[rows, labels],
        "pred": pred,
        "confidence": probs[rows, pred],
        "margin": probs[rows, pred] - runner_up,
        "entropy": surprise.sum(axis=1),
        "logsumexp": beta * logits[rows, pred].astype(np.longdouble) - log_probs[rows, pred],
        "rank": 1 + (logits > picked).sum(axis=1) + ((logits == picked) & before).sum(axis=1),
        "correct": pred == labels,
        "el2n": np.sqrt(((probs - one_hot) ** 2).sum(axis=1)),
        "status": np.where(np.isneginf(picked[:, 0]), "masked_label", "ok"),
        "top_k_classes": ranked[:, :top_k],
        "top_k_probs": np.take_along_axis(probs, ranked[:, :top_k], axis=1),
    }


def sequences(lengths: Any, n_classes: int, seed: int = 0) -> pa.Table:
    """Return a table of sequences with an id, logits and labels, of the given lengths.

    The length None is a null row. Every fifth label of a sequence is null.
    """
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for length in lengths:
        n = length or 0
        rows.append(None if length is None else random.standard_normal((n, n_classes)).astype(np.float32).tolist())
        labels.append([None if token % 5 == 4 else int(random.integers(0, n_classes)) for token in range(n)])
    return pa.table(
        {
            "id": range(len(lengths)),
            "logits": pa.array(rows, pa.list_(pa.list_(pa.float32()))),
            "labels": pa.array(labels, pa.list_(pa.int32())),
        }
    )

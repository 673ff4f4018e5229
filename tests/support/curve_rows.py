"""Rows for tests of curves, and their exact log-odds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def binary(n, seed=0, dtype=np.float32, ties=None):
    """Return logits, one per row, and labels that they predict; ``ties`` is the number of decimals."""
    random = np.random.default_rng(seed)
    z = random.normal(size=n) * 2 - 1
    labels = (random.random(n) < 1 / (1 + np.exp(-z))).astype(np.int64)
    return (z if ties is None else z.round(ties)).astype(dtype), labels


def several(n, k, seed=0, dtype=np.float32, ties=None):
    """Return logits of k classes and labels."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(n, k)) * 2
    labels = np.where(random.random(n) < 0.5, z.argmax(1), random.integers(0, k, n))
    return (z if ties is None else z.round(ties)).astype(dtype), labels


def table(logits, labels, weights=None):
    """Return a table: a column of numbers, or of lists."""
    kind = pa.from_numpy_dtype(logits.dtype)
    rows = pa.array(logits, kind) if logits.ndim == 1 else pa.array(list(logits), pa.list_(kind))
    columns = {"logit" if logits.ndim == 1 else "logits": rows, "label": pa.array(labels, pa.int64())}
    return pa.table(columns if weights is None else columns | {"w": weights})


def exact_log_odds(z):
    """Return the log-odds of each class of rows of logits, (n, K), from float128 arithmetic, rounded to float64."""
    wide = z.astype(np.longdouble)
    found = np.empty(z.shape)
    for k in range(z.shape[1]):
        others = np.delete(wide, k, axis=1)
        largest = others.max(axis=1, keepdims=True)
        found[:, k] = wide[:, k] - (largest[:, 0] + np.log(np.exp(others - largest).sum(axis=1)))
    return found

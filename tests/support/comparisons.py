"""Rows to compare, and the results of comparing them, computed with NumPy, SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.requirements import optional, package

stats = optional("scipy.stats")
log_softmax = package("scipy.special").log_softmax
rel_entr = package("scipy.special").rel_entr
softmax = package("scipy.special").softmax
accuracy_score = package("sklearn.metrics").accuracy_score
log_loss = package("sklearn.metrics").log_loss
K = 6


def logits_of(n, seed=0, k=K, dtype=np.float32):
    return (3 * np.random.default_rng([seed, n]).standard_normal((n, k))).astype(dtype)


def rows_of(n, seed=0, **columns):
    """Return n rows: ascending ids with gaps, logits, and labels that don't depend on seed or logits."""
    labels = np.random.default_rng(99).integers(0, K, n)
    return pa.table({"id": np.arange(n) * 3 + 7, "logits": list(logits_of(n, seed)), "label": labels, **columns})


def write(table, path, rows=None):
    pq.write_table(table, path, row_group_size=rows or 1 << 20)
    return str(path)


def expected(a, b):
    """Return the results for two tables of paired rows, and the absolute change of each row's loss.

    They are computed with NumPy, SciPy and scikit-learn.
    """
    za, zb = (np.array(table["logits"].to_pylist(), np.float64) for table in (a, b))
    y = a["label"].to_numpy()
    rows = np.arange(len(y))
    loss_a, loss_b = (-log_softmax(z, axis=1)[rows, y] for z in (za, zb))
    test = stats.ttest_rel(loss_b, loss_a)
    half = stats.t.ppf(0.975, len(y) - 1) * abs((loss_b - loss_a).mean() / test.statistic)
    right_a, right_b = za.argmax(1) == y, zb.argmax(1) == y
    flips = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    names = list(range(za.shape[1]))
    return {
        "n_rows": len(y),
        "n_judged": len(y),
        "mean_loss_a": log_loss(y, softmax(za, axis=1), labels=names),
        "mean_loss_b": log_loss(y, softmax(zb, axis=1), labels=names),
        "mean_loss_change": (loss_b - loss_a).mean(),
        "mean_loss_change_low": (loss_b - loss_a).mean() - half,
        "mean_loss_change_high": (loss_b - loss_a).mean() + half,
        "accuracy_a": accuracy_score(y, za.argmax(1)),
        "accuracy_b": accuracy_score(y, zb.argmax(1)),
        "right_to_wrong": flips[0],
        "wrong_to_right": flips[1],
        "mcnemar_p": stats.binomtest(flips[0], sum(flips)).pvalue,
        "agreement": (za.argmax(1) == zb.argmax(1)).mean(),
        "mean_kl": rel_entr(softmax(za, axis=1), softmax(zb, axis=1)).sum(1).mean(),
    }, np.abs(loss_b - loss_a)


def assert_close(found, figures):
    for name, value in figures.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1e-12), name

"""``evaluate`` of multi-label rows: the loss of rows, and Brier score and calibration over the classes of all rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.errors import GateError, UsageError

K, N, BINS = 4, 2000, 15
RANDOM = np.random.default_rng(3)
Z = RANDOM.standard_normal((N, K)) * 3
Y = (1 / (1 + np.exp(-Z)) > RANDOM.random((N, K))).astype(float)
P = 1 / (1 + np.exp(-Z))
LOSSES = np.logaddexp(0, np.where(Y == 1, -Z, Z))


def table(targets=Y, **more):
    labels = [None if np.isnan(row).all() else [None if np.isnan(one) else bool(one) for one in row] for row in targets]
    return pa.table({"logits": list(Z), "labels": pa.array(labels, pa.list_(pa.bool_())), **more})


def calibration_error(probs, targets, weights):
    """Return the expected calibration error of single probabilities, by its definition."""
    at = np.minimum((probs * BINS).astype(int), BINS - 1)
    gaps = [abs((weights * (probs - targets))[at == one].sum()) for one in range(BINS)]
    return sum(gaps) / weights.sum()


def test_metrics_are_over_the_classes_of_all_rows():
    """The mean loss is that of rows; Brier score and calibration error are over all classes."""
    found = batchmax.evaluate(table())
    assert found.mean_loss == pytest.approx(LOSSES.sum(1).mean())
    assert found.log_likelihood == pytest.approx(-LOSSES.sum())
    assert found.brier == pytest.approx(((P - Y) ** 2).mean())
    assert found.ece == pytest.approx(calibration_error(P.ravel(), Y.ravel(), np.ones(N * K)))
    assert sum(one["n_rows"] for one in found.bins) == N * K
    assert (found.accuracy, found.confusion, found.top_k_accuracy) == (None, None, {})
    assert any("multi-label" in note for note in found.notes)
    assert found.warnings == []


def test_missing_labels_and_weights():
    """Classes without a label count nowhere, and weights are those of rows."""
    targets, weights = Y.copy(), RANDOM.random(N)
    targets[RANDOM.random((N, K)) < 0.3] = np.nan
    targets[5] = np.nan
    found = batchmax.evaluate(table(targets, w=weights), sample_weight="w")
    there = ~np.isnan(targets)
    rows = there.any(axis=1)
    shares = np.broadcast_to(weights[:, None], there.shape)[there]
    assert found.status_counts == {"ok": int(rows.sum()), "unlabelled": int((~rows).sum())}
    losses = np.where(there, LOSSES, 0).sum(axis=1)
    assert found.mean_loss == pytest.approx((weights * losses)[rows].sum() / weights[rows].sum())
    assert found.brier == pytest.approx((shares * ((P - Y) ** 2)[there]).sum() / shares.sum())
    assert found.ece == pytest.approx(calibration_error(P[there], Y[there], shares))


def test_class_labels_with_sigmoid():
    """With sigmoid, a class index is the only label of its row; the mean loss is that of ``score``."""
    labels = RANDOM.integers(0, K, N)
    rows, one_hot = pa.table({"logits": list(Z), "label": labels}), np.eye(K)[labels]
    found = batchmax.evaluate(rows, activation="sigmoid")
    assert found.mean_loss == pytest.approx(np.logaddexp(0, np.where(one_hot == 1, -Z, Z)).sum(1).mean())
    assert found.brier == pytest.approx(((P - one_hot) ** 2).mean())


def test_gates_and_refusals(tmp_path):
    """Gates compare the metrics that exist; the others fail them. Top-k accuracy is refused."""
    batchmax.evaluate(table(), fail_if="mean_loss > 99 or brier > 0.5 or ece > 0.5")
    for name in ("accuracy", "ece"):
        with pytest.raises(GateError, match=name):
            batchmax.evaluate(table(), fail_if=f"{name} > {0.5 if name == 'accuracy' else 1e-9}")
    with pytest.raises(UsageError, match="multi-label rows don't support this"):
        batchmax.evaluate(table(), top_k=2)
    batchmax.evaluate(table(), out=str(tmp_path / "metrics.parquet"))
    with pytest.raises(UsageError, match="--pos-weight"):
        batchmax.evaluate(table(), pos_weight=[1.0] * K)


def test_no_rows():
    """Without rows, metrics have no value."""
    found = batchmax.evaluate(table().slice(0, 0), n_classes=K)
    assert (found.n_rows, found.mean_loss, found.brier, found.ece) == (0, None, None, None)

"""Ranks, top k, moments and metrics of rows agree with plain float64, for numbers of classes around those of blocks."""

from __future__ import annotations

import numpy as np
import pytest

from batchmax.functional.losses import softmax_rows
from batchmax.kernels.moments import row_moments
from batchmax.kernels.ranking import order_rows
from batchmax.kernels.row_metrics import metric_rows
from batchmax.kernels.top_k import top_k_rows

CLASSES = [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64, 65, 80, 127, 128, 129, 200, 1000]
N_ROWS = 150
BETA = 0.8
BAD_LABEL = -1

pytestmark = [
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
    pytest.mark.parametrize("k", CLASSES),
]


def rows_of(k, dtype):
    """Return logits with ties, masked classes, huge and bad rows; labels; and which rows have probabilities."""
    rng = np.random.default_rng(k)
    z = rng.normal(scale=3, size=(N_ROWS, k)).astype(dtype)
    z[1::8] = np.round(z[1::8])
    z[2::8] *= dtype(1e6)
    z[3::8, : k // 2] = -np.inf
    z[4::8, k // 2] += 60
    z[30] = 0
    z[31] = np.nan
    z[32] = -np.inf
    z[33, -1] = np.inf
    labels = np.where(rng.random(N_ROWS) < 0.5, z.argmax(axis=1), rng.integers(0, k, N_ROWS))
    labels[40] = BAD_LABEL
    return z, labels, np.setdiff1d(np.arange(N_ROWS), [31, 32, 33])


def probabilities(z):
    """Return the softmax of rows in extended precision."""
    x = BETA * z.astype(np.longdouble)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def classes_by_logit(z):
    """Return the classes of each row, the largest logit first, ties by index."""
    return np.argsort(-z, axis=1, kind="stable")


def test_ranks(k, dtype):
    """Predictions, margins and ranks are exact, with ties to the lower index, also if only predictions are computed."""
    z, labels, good = rows_of(k, dtype)
    rows = softmax_rows(z, BETA)
    pred, rank, margin = np.empty(N_ROWS, np.int32), np.empty(N_ROWS, np.int32), np.empty(N_ROWS)
    order_rows(z, labels, BETA, rows.maxima, rows.rests, pred, margin, rank)
    order = classes_by_logit(z[good])
    assert pred[good].tolist() == order[:, 0].tolist()
    ranks = (order == labels[good, None]).argmax(axis=1) + 1
    assert rank[good].tolist() == np.where(labels[good] == BAD_LABEL, 0, ranks).tolist()
    p = np.take_along_axis(probabilities(z[good]), order, axis=1)
    exact = (p[:, 0] - p[:, 1] if k > 1 else p[:, 0]).astype(np.float64)
    np.testing.assert_allclose(margin[good], exact, rtol=1e-6 if dtype == np.float32 else 1e-13, atol=1e-15)
    bad = np.setdiff1d(np.arange(N_ROWS), good)
    assert (set(pred[bad]), set(rank[bad]), np.isnan(margin[bad]).all()) == ({-1}, {0}, True)
    alone, none, no_labels = np.empty_like(pred), np.empty(0), np.empty(0, np.int64)
    order_rows(z, no_labels, BETA, rows.maxima, rows.rests, alone, none, np.empty(0, np.int32))
    assert alone.tolist() == pred.tolist()


@pytest.mark.parametrize("top", [1, 2, 5, 20])
def test_top_classes(k, dtype, top):
    """The top classes are sorted by logit, with ties to the lower index, and have the probabilities of softmax."""
    z, _, good = rows_of(k, dtype)
    top = min(top, k)
    rows = softmax_rows(z, BETA)
    classes, probs = np.empty((N_ROWS, top), np.int32), np.empty((N_ROWS, top))
    top_k_rows(z, BETA, rows.maxima, rows.rests, classes, probs)
    order = classes_by_logit(z[good])[:, :top]
    assert classes[good].tolist() == order.tolist()
    exact = np.take_along_axis(probabilities(z[good]), order, axis=1).astype(np.float64)
    np.testing.assert_allclose(probs[good], exact, rtol=2e-7 if dtype == np.float32 else 1e-14, atol=1e-290)
    bad = np.setdiff1d(np.arange(N_ROWS), good)
    assert set(classes[bad].ravel()) == {-1}
    assert np.isnan(probs[bad]).all()


def test_moments_and_metrics(k, dtype):
    """Entropy, EL2N and the Brier score are accurate for certain predictions too; metrics rank as order_rows does."""
    z, labels, good = rows_of(k, dtype)
    rows = softmax_rows(z, BETA, labels=labels)
    entropy, el2n, brier = np.empty(N_ROWS), np.empty(N_ROWS), np.empty(N_ROWS)
    row_moments(z, labels, BETA, rows.maxima, rows.rests, entropy, el2n)
    pred, rank, wanted = (np.empty(N_ROWS, np.int32) for _ in range(3))
    metric_rows(z, labels, BETA, rows.maxima, rows.rests, rows.nll, pred, rank, brier)
    rtol = 1e-6 if dtype == np.float32 else 1e-13
    p = probabilities(z[good])
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, -p * np.log(p), 0)
    # Without cancellation: the largest probability is 1 minus the sum of the others.
    rest = np.sort(p, axis=1)[:, :-1].sum(axis=1)
    top = p.argmax(axis=1)
    terms[np.arange(len(p)), top] = -(1 - rest) * np.log1p(-rest)
    np.testing.assert_allclose(entropy[good], terms.sum(axis=1).astype(np.float64), rtol=rtol, atol=1e-290)
    labelled = labels[good] != BAD_LABEL
    others = p.copy()
    others[np.arange(len(p)), labels[good]] = 0
    score = ((others**2).sum(axis=1) + others.sum(axis=1) ** 2).astype(np.float64)
    np.testing.assert_allclose(el2n[good][labelled], np.sqrt(score[labelled]), rtol=rtol, atol=1e-290)
    np.testing.assert_allclose(brier[good][labelled], score[labelled], rtol=2 * rtol, atol=1e-290)
    missing = np.append(np.setdiff1d(np.arange(N_ROWS), good), 40)
    assert np.isnan(np.stack([el2n, brier])[:, missing]).all()
    order_rows(z, labels, BETA, rows.maxima, rows.rests, wanted, np.empty(0), best_ranks := np.empty_like(rank))
    assert (pred.tolist(), rank.tolist()) == (wanted.tolist(), best_ranks.tolist())

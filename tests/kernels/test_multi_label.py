"""The losses of multi-label rows against exact arithmetic and PyTorch.

PyTorch's float64 isn't an oracle for small losses: at a logit of -40 whose class isn't a label, it returns 0.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchmax.activations import LOSSES
from batchmax.kernels.multi_label import multi_label_losses, sigmoid_rows
from batchmax.verification.exact import SigmoidRow, loss_ulps, total, ulps
from tests.support.requirements import optional

mpmath = optional("mpmath")
torch = optional("torch")

BCE, MSE = LOSSES["binary_cross_entropy"].number, LOSSES["mse"].number


def losses(z, targets, beta=1.0, loss=BCE, weights=None, pos_weights=None):
    """Return the losses of classes, their sums, and the numbers of labels."""
    z = np.ascontiguousarray(z, np.float64)
    targets = np.ascontiguousarray(targets)
    n, k = z.shape
    indices, matrix = (targets, np.empty((0, k))) if targets.ndim == 1 else (np.empty(0, np.int64), targets)
    entries, sums, counts = np.empty((n, k)), np.empty(n), np.empty(n, np.int64)
    given = [np.ones(k) if one is None else np.asarray(one, np.float64) for one in (weights, pos_weights)]
    multi_label_losses(z, indices, matrix, beta, loss, *given, entries, sums, counts)
    alone, again = np.empty(n), np.empty(n, np.int64)
    multi_label_losses(z, indices, matrix, beta, loss, *given, np.empty((0, k)), alone, again)
    np.testing.assert_array_equal(alone, sums)
    np.testing.assert_array_equal(again, counts)
    return entries, sums, counts


def sigmoid(z, beta=1.0):
    z = np.ascontiguousarray(z, np.float64)
    probs, defined = np.empty(z.shape), np.empty(len(z), np.bool_)
    sigmoid_rows(z, beta, probs, defined)
    return probs, defined


def exact_loss(z, y, beta, weight, pos_weight):
    """Return weight * (pos_weight * y * s(-x) + (1 - y) * s(x)) to 60 digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(beta) * mpmath.mpf(z)

        def s(x):
            return max(x, mpmath.mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))

        on, off = mpmath.mpf(pos_weight) * mpmath.mpf(y) * s(-x), (1 - mpmath.mpf(y)) * s(x)
        return mpmath.mpf(weight) * (on + off)


SCALES = {"tiny": 1e-9, "small": 1e-3, "usual": 1.0, "wide": 30.0, "extreme": 250.0}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("beta", [1.0, 0.37, 1 / 3])
@pytest.mark.parametrize("kind", ["labels", "weights", "targets"])
def test_losses_are_within_3_ulp(scale, beta, kind):
    """The loss of each class, and their sum, are within 3 ULP of the exact ones; both oracles agree."""
    random = np.random.default_rng([list(SCALES).index(scale), ord(kind[0])])
    z = random.standard_normal((40, 9)) * SCALES[scale]
    z[0, :4] = -40, 40, -700, 745
    targets = (random.random(z.shape) < 0.5).astype(np.float64)
    weights = pos_weights = np.ones(9)
    if kind != "labels":
        weights, pos_weights = random.uniform(0.1, 3, (2, 9))
    if kind == "targets":
        targets = random.random(z.shape)
    entries, sums, _ = losses(z, targets, beta, weights=weights, pos_weights=pos_weights)
    for i in range(len(z)):
        of_row = [exact_loss(z[i, j], targets[i, j], beta, weights[j], pos_weights[j]) for j in range(9)]
        decimals = SigmoidRow(z[i].tolist(), beta).losses(targets[i].tolist(), weights.tolist(), pos_weights.tolist())
        for j, (one, exact) in enumerate(zip(of_row, decimals, strict=True)):
            with mpmath.workdps(60):
                assert abs(mpmath.mpf(str(exact)) / one - 1) < 1e-28
            assert loss_ulps(entries[i, j], exact, np.dtype("f8"), 9) <= 3
        assert loss_ulps(sums[i], total(decimals), np.dtype("f8"), 9) <= 3


@pytest.mark.parametrize("k", [1, 3, 63, 64, 65, 300, 3000])
def test_sums_of_many_classes(k):
    """The sum over any number of classes is within 3 ULP, and doesn't depend on the other rows."""
    random = np.random.default_rng(k)
    z = random.standard_normal((5, k)) * 12
    targets = (random.random(z.shape) < 0.1).astype(np.float64)
    entries, sums, counts = losses(z, targets)
    np.testing.assert_array_equal(counts, targets.sum(1))
    for row in range(5):
        assert abs(sums[row] - math.fsum(entries[row])) <= np.spacing(sums[row])
    np.testing.assert_array_equal(losses(z[3:4], targets[3:4])[1], sums[3:4])


def test_pytorch_agrees_on_moderate_logits():
    """Losses and mean are those of BCEWithLogitsLoss with the same weights; squared errors those of mse_loss."""
    random = np.random.default_rng(7)
    z, targets = random.standard_normal((200, 11)) * 4, (random.random((200, 11)) < 0.4).astype(float)
    weights, pos_weights = random.uniform(0.1, 3, (2, 11))
    entries, sums, _ = losses(z, targets, weights=weights, pos_weights=pos_weights)
    given = [torch.from_numpy(one) for one in (z, targets)]
    want = torch.nn.BCEWithLogitsLoss(
        weight=torch.from_numpy(weights), pos_weight=torch.from_numpy(pos_weights), reduction="none"
    )(*given).numpy()
    np.testing.assert_allclose(entries, want, rtol=1e-9)
    np.testing.assert_allclose(sums, want.sum(1), rtol=1e-12)
    errors = torch.nn.functional.mse_loss(torch.sigmoid(given[0]), given[1], reduction="none").numpy()
    np.testing.assert_allclose(losses(z, targets, loss=MSE)[0], errors, rtol=1e-9)
    np.testing.assert_allclose(sigmoid(z)[0], torch.sigmoid(given[0]).numpy(), rtol=1e-12)


def test_extreme_logits():
    """Infinite logits are probabilities of 0 and 1, with a loss of 0 or infinity; a weight of 0 makes any loss 0."""
    z = np.array([[np.inf, -np.inf, np.inf, -np.inf, -40.0, 1e308, -1e308]])
    targets = np.array([[1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]])
    entries, sums, _ = losses(z, targets)
    np.testing.assert_array_equal(entries[0, [0, 1, 2, 3, 5, 6]], [0, 0, np.inf, np.inf, 0, 0])
    assert entries[0, 4] == pytest.approx(math.exp(-40), rel=1e-15)
    assert sums[0] == np.inf
    np.testing.assert_array_equal(losses(z, targets, beta=10.0)[0][0, [2, 3, 5, 6]], [np.inf, np.inf, 0, 0])
    assert losses(z, targets, weights=[1, 1, 0, 0, 1, 1, 1])[1][0] == entries[0, 4]
    probs, defined = sigmoid(z)
    np.testing.assert_array_equal(probs[0, [0, 1, 2, 3]], [1, 0, 1, 0])
    assert ulps(probs[0, 4], SigmoidRow([-40.0], 1.0).probs[0], np.dtype("f8")) <= 3
    assert defined.all()
    np.testing.assert_array_equal(losses(z, targets, loss=MSE)[0][0, :4], [0, 0, 1, 1])


def test_missing_targets_and_nan():
    """A class without a target has no loss and adds none; a row with a NaN has NaN."""
    z = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    targets = np.array([[1.0, np.nan, 0.0], [1.0, 1.0, 0.0]])
    for loss in (BCE, MSE):
        entries, sums, counts = losses(z, targets, loss=loss)
        assert np.isnan(entries[0]).tolist() == [False, True, False]
        assert sums[0] == pytest.approx(entries[0, 0] + entries[0, 2])
        assert np.isnan(sums).tolist() == [False, True]
    np.testing.assert_array_equal(counts, [1, 2])
    probs, defined = sigmoid(z)
    assert (np.isnan(probs).all(axis=1).tolist(), defined.tolist()) == ([False, True], [True, False])


def test_class_indices_are_one_target():
    """An index is the only class with target 1; one out of range stands for none."""
    z = np.random.default_rng(1).standard_normal((4, 3))
    targets = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]], float)
    for one, other in zip(losses(z, np.array([1, -1, 3, 2])), losses(z, targets), strict=True):
        np.testing.assert_array_equal(one, other)

"""Tests the exact arithmetic and the ULP errors of verification against mpmath and the wide-float oracle."""

from __future__ import annotations

from decimal import Decimal, Inexact, localcontext

import numpy as np
import pytest

from batchmax.verification.exact import ExactRow, loss_ulps, ulps
from tests.support import oracle
from tests.support.exact_rows import SCALES, exact_row
from tests.support.requirements import optional

mpmath = optional("mpmath")

ROWS = [scale for scale in SCALES if scale.__name__ != "equal"]


def close(got, exact, digits=28):
    """Return whether a decimal number equals an mpmath number to ``digits`` digits."""
    if mpmath.isinf(exact):
        return got.is_infinite() and (got > 0) == (exact > 0)
    value = mpmath.mpf(str(got))
    # Values below the range of every float type count as zero.
    return abs(value - exact) <= max(abs(exact) * mpmath.mpf(10) ** -digits, mpmath.mpf(10) ** -5000)


@pytest.mark.parametrize("scale", ROWS, ids=lambda scale: scale.__name__)
@pytest.mark.parametrize("temperature", [1e-3, 0.7, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_are_those_of_50_digits(scale, temperature, dtype):
    """Probabilities and log-probabilities agree with mpmath to 28 digits."""
    logits = scale(np.random.default_rng(3), (2, 13), dtype)
    for row in logits.tolist():
        ours = ExactRow(row, 1.0 / temperature)
        with mpmath.workdps(60):
            probs, log_probs = exact_row(row, temperature)
            assert all(map(close, ours.probs, probs))
            assert all(map(close, ours.log_probs, log_probs))


def one_hot(label, n_classes):
    """Return the distribution with all of its mass at one class."""
    return np.eye(n_classes)[label].tolist()


def test_a_loss_near_zero_keeps_its_digits():
    """A loss of 1e-261, for a label that leads by 600, is right to 28 digits."""
    row = ExactRow([600.0, 0.0, -1.0], 1.0)
    with mpmath.workdps(60):
        exact = mpmath.log1p(mpmath.exp(-600) + mpmath.exp(-601))
        assert close(row.loss(one_hot(0, 3)), exact)


@pytest.mark.parametrize("soft", [False, True], ids=["index", "distribution"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_losses_are_the_oracles(soft, weighted, smoothing):
    """Losses with weights, smoothing and soft targets equal those of the wide-float oracle."""
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((7, 6)) * 4
    logits[1, 2] = -np.inf
    labels = rng.dirichlet(np.ones(6), 7) if soft else rng.integers(0, 6, 7)
    weights = rng.uniform(0, 2, 6) if weighted else None
    wanted = oracle.cross_entropy(logits, labels, temperature=0.8, class_weights=weights, label_smoothing=smoothing)
    targets = labels.tolist() if soft else one_hot(labels, 6)
    for row, target, exact in zip(logits, targets, wanted, strict=True):
        got = ExactRow(row.tolist(), 1 / 0.8).loss(target, None if weights is None else weights.tolist(), smoothing)
        assert float(got) == pytest.approx(float(exact), rel=1e-15)


def test_a_share_of_zero_takes_nothing():
    """A class with logit -inf adds nothing to the loss if its target is 0, and makes it infinite otherwise."""
    row = ExactRow([-np.inf, 0.0], 1.0)
    assert row.loss([0.0, 1.0]) == 0
    assert row.loss([0.5, 0.5]) == Decimal("Infinity")
    assert row.loss([1.0, 0.0], [0.0, 1.0]) == 0
    assert row.probs == [0, 1]


def test_beta_is_taken_as_it_is():
    """Beta is used as the exact float64: 0.1 means 0.1000000000000000055."""
    got = ExactRow([0.0, 1e3], 0.1).probs[0]
    with mpmath.workdps(60):
        near = 1 / (1 + mpmath.exp(mpmath.mpf(0.1) * 1000))
        round_tenth = 1 / (1 + mpmath.exp(mpmath.mpf(1) / 10 * 1000))
        assert close(got, near)
        assert not close(got, round_tenth, 16)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ulps_are_counted_as_the_accuracy_tests_do(dtype):
    """ULP errors equal the oracle's for numbers of all magnitudes, powers of two and subnormals."""
    rng = np.random.default_rng(4)
    info = np.finfo(dtype)
    lowest = int(np.log2(float(info.smallest_subnormal)))
    exact = [*(2.0 ** rng.uniform(lowest - 1, 3, 200)), 1.0, 0.5, float(info.tiny), float(info.smallest_subnormal), 0.0]
    for value in exact:
        for got in (dtype(value), np.nextafter(dtype(value), dtype(9)), dtype(value * 1.01)):
            wanted = float(oracle.ulp_error(got, value, dtype))
            assert ulps(float(got), Decimal(value), np.dtype(dtype)) == pytest.approx(wanted, rel=1e-12)


def test_the_callers_decimal_context_does_not_matter():
    """Results don't depend on the precision and traps of the caller's decimal context."""
    row = [0.1, 0.2, -3.0]
    wanted = ExactRow(row, 0.3).probs, ExactRow(row, 0.3).loss(one_hot(1, 3), None, 0.1)
    with localcontext(prec=4, traps=[Inexact]):
        assert (ExactRow(row, 0.3).probs, ExactRow(row, 0.3).loss(one_hot(1, 3), None, 0.1)) == wanted
        assert loss_ulps(float(wanted[1]), wanted[1], np.dtype(np.float64), 3) <= 0.5


def test_infinities_and_nan_are_right_only_where_they_belong():
    """NaN is always wrong; an infinity is right only if the exact value is infinite or too large for the type."""
    f32 = np.dtype(np.float32)
    assert ulps(np.nan, Decimal(1), f32) == np.inf
    assert ulps(np.inf, Decimal("Infinity"), f32) == 0
    assert ulps(-np.inf, Decimal("Infinity"), f32) == np.inf
    assert ulps(3.0, Decimal("Infinity"), f32) == np.inf
    assert ulps(-np.inf, Decimal(-(10**400)), f32) == 0
    assert ulps(np.inf, Decimal(10**30), f32) == np.inf


def test_a_loss_is_no_better_than_its_smallest_terms():
    """The error of a loss below K times the smallest normal float64 is measured in the ULP at that value."""
    tiny = float(np.finfo(np.float64).tiny)
    assert loss_ulps(4 * tiny, Decimal(4 * tiny), np.dtype(np.float64), 4) == 0
    off = float(np.nextafter(3 * tiny, 1))
    assert loss_ulps(off, Decimal(3 * tiny), np.dtype(np.float64), 4) == 0.5
    assert loss_ulps(off, Decimal(3 * tiny), np.dtype(np.float64), 1) == 1

"""Correct results lie within the error intervals, and results that are off by more than rounding don't."""

from __future__ import annotations

import numpy as np
import pytest

import batchmax
from batchmax.verification.error_intervals import (
    Accuracy,
    ProbabilityIntervals,
    log_sum_bound,
    outside,
    sum_bound,
    sum_deviations,
)
from tests.support import oracle

DTYPES = [np.float16, np.float32, np.float64]


def scored(dtype, n_classes, spread, n=300):
    """Return logits, and their probabilities and log-probabilities rounded to a type."""
    rng = np.random.default_rng([n_classes, int(spread)])
    logits = rng.standard_normal((n, n_classes)).astype(np.float64 if dtype == np.float64 else np.float32)
    logits *= logits.dtype.type(spread)
    with np.errstate(over="ignore"):
        written = [batchmax.softmax(logits).astype(dtype), batchmax.log_softmax(logits).astype(dtype)]
    return logits, *(values.astype(np.float64) for values in written)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [1, 2, 10, 1000])
@pytest.mark.parametrize("spread", [0.1, 5, 300])
def test_sums_and_intervals_hold_for_what_is_right(dtype, n_classes, spread):
    """Correct rows sum to 1 within the bound, and the exact values lie in the intervals."""
    logits, probs, log_probs = scored(dtype, n_classes, spread)
    assert sum_deviations(probs, sum_bound(dtype, n_classes)).max() <= sum_bound(dtype, n_classes)
    assert sum_deviations(np.exp(log_probs), log_sum_bound(dtype, n_classes)).max() <= log_sum_bound(dtype, n_classes)
    exact = oracle.softmax(logits)
    neg_log_probs = -oracle.log_softmax(logits)
    for intervals in (ProbabilityIntervals(probs, dtype), ProbabilityIntervals(log_probs, dtype, logs=True)):
        for values, (low, high) in ((exact, intervals.probs), (neg_log_probs, intervals.neg_log_probs)):
            assert (low <= values).all()
            assert (values <= high).all()
        labels = logits.argmin(axis=1)
        low, high = intervals.label_losses(labels)
        rows = np.arange(len(labels))
        assert ((low <= neg_log_probs[rows, labels]) & (neg_log_probs[rows, labels] <= high)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_changed_probability_is_more_than_rounding(dtype):
    """The sum bound is a few epsilons: a probability that is off by 16 epsilons exceeds it."""
    _, probs, _ = scored(dtype, 10, 2)
    probs[7, 3] += 16 * float(np.finfo(dtype).eps)
    deviations = sum_deviations(probs, sum_bound(dtype, 10))
    assert np.flatnonzero(deviations > sum_bound(dtype, 10)).tolist() == [7]


def test_a_sum_beyond_the_bound_is_summed_exactly():
    """A sum beyond the bound is recomputed exactly, so float64 rounding doesn't count as an error."""
    row = np.full((1, 3 * 10**5), 1 / (3 * 10**5))
    assert sum_deviations(row, 0.0)[0] == pytest.approx(abs(float(np.longdouble(row[0, 0]) * row.size - 1)), rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_zero_says_that_a_loss_is_large(dtype):
    """A probability of 0 stands for everything that rounds to it: the loss may be infinite, but not small."""
    low, high = ProbabilityIntervals(np.array([[0.0, 1.0]]), dtype).label_losses(np.array([0]))
    info = np.finfo(dtype)
    # float64 subnormals have no guaranteed accuracy.
    smallest = float(info.tiny if dtype == np.float64 else info.smallest_subnormal)
    assert high[0] == np.inf
    assert -np.log(3 * smallest) - 1 < low[0] < -np.log(smallest) + 1


def test_outside_knows_nan_and_both_sides():
    """NaN is outside every interval; a value 2 epsilons beyond a limit isn't, one 4 epsilons beyond is."""
    one = np.array([1.0])
    accuracy = Accuracy.of(np.float32)
    eps = float(np.finfo(np.float32).eps)
    assert outside(np.array([np.nan]), one - 1, one, accuracy).all()
    for value, wrong in ((1 + 2 * eps, False), (1 - 2 * eps, False), (1 + 4 * eps, True), (1 - 4 * eps, True)):
        assert outside(np.array([value]), one, one, accuracy)[0] == wrong

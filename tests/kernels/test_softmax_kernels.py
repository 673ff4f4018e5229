"""Tests the softmax kernels against the wide-float oracle: ends of rows and blocks, and rows with special values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from batchmax.functional.losses import softmax_rows
from batchmax.statuses import Status
from tests.support import oracle

DTYPES = [np.float32, np.float64]
LIMIT = 3.0


def check(logits, labels, temperature=1.0):
    """Check that probabilities and losses are within 3 ULP of the exact ones."""
    probs = np.empty_like(logits)
    rows = softmax_rows(logits, 1 / temperature, labels=labels, probs=probs)
    exact = oracle.softmax(logits, temperature)
    losses = -oracle.log_softmax(logits, temperature)[np.arange(len(logits)), labels]
    least = logits.shape[1] * float(np.finfo(np.float64).tiny)
    unit_at = np.maximum(np.abs(losses), least)
    assert oracle.ulp_error(probs, exact, logits.dtype).max() <= LIMIT
    assert oracle.ulp_error(rows.nll.astype(logits.dtype), losses, logits.dtype, unit_at=unit_at).max() <= LIMIT
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_classes(dtype):
    """Results are right for 1 to 300 classes, and nothing is written outside of the output matrix."""
    rng = np.random.default_rng(3)
    for n_classes in range(1, 301):
        logits = (rng.standard_normal((19, n_classes)) * rng.choice([0.1, 3.0, 30.0], (19, 1))).astype(dtype)
        labels = rng.integers(0, n_classes, 19)
        memory = np.full(20 * n_classes + 64, 7, dtype)
        probs = memory[32 : 32 + 19 * n_classes].reshape(19, n_classes)
        rows = softmax_rows(logits, 1.0, labels=labels, probs=probs)
        assert oracle.ulp_error(probs, oracle.softmax(logits), dtype).max() <= LIMIT, n_classes
        assert (memory[:32] == 7).all(), n_classes
        assert (memory[32 + 19 * n_classes :] == 7).all(), n_classes
        costs = -oracle.log_softmax(logits)
        losses = rows.nll.astype(dtype)
        assert oracle.ulp_error(losses, costs[np.arange(19), labels], dtype).max() <= LIMIT, n_classes
        # The largest logit may be in any vector lane.
        assert_array_equal(rows.hits, logits.argmax(axis=1) == labels)
        assert_array_equal(rows.maxima, logits.max(axis=1))
        without = softmax_rows(logits, 1.0, labels=labels)
        assert_array_equal(without.nll, rows.nll)
        assert_array_equal(without.rests, rows.rests)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [1, 5, 10, 16, 17, 32, 33, 100, 300, 5000])
def test_a_row_does_not_know_its_neighbors(n_classes, dtype):
    """A row's results are bit-identical alone, at any position, and next to rows with NaN, infinite or huge logits."""
    rng = np.random.default_rng(n_classes)
    logits = (5 * rng.standard_normal((90, n_classes))).astype(dtype)
    odd = {2: np.nan, 17: np.inf, 33: -np.inf, 40: 1e30, 41: -1e30, 55: 3e5}
    for row, value in odd.items():
        logits[row, -1] = value
    logits[60] = -np.inf
    labels = rng.integers(0, n_classes, 90)
    probs = np.empty_like(logits)
    rows = softmax_rows(logits, 1.0, labels=labels, probs=probs)
    order = rng.permutation(90)
    shuffled = np.empty_like(logits)
    others = softmax_rows(logits[order], 1.0, labels=labels[order], probs=shuffled)
    assert_array_equal(shuffled, probs[order])
    assert_array_equal(others.nll, rows.nll[order])
    assert_array_equal(others.status, rows.status[order])
    for row in range(90):
        alone = np.empty_like(logits[:1])
        one = softmax_rows(logits[row : row + 1], 1.0, labels=labels[row : row + 1], probs=alone)
        assert_array_equal(alone[0], probs[row])
        for name in ("maxima", "rests", "nll", "hits", "status"):
            assert_array_equal(getattr(one, name)[0], getattr(rows, name)[row])
    assert rows.status[2] == Status.NAN_LOGIT
    assert rows.status[17] == Status.INF_LOGIT
    assert rows.status[60] == Status.ALL_MASKED


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 10, 40, 100])
def test_maxima_of_every_size(n_classes, dtype):
    """Results are within 3 ULP for maxima of magnitude 2^-10 to 2^27 times log 2, either sign, several temperatures."""
    rng = np.random.default_rng(4)
    for power in range(-10, 28):
        size = 2.0**power * np.log(2) * rng.uniform(0.999, 1.001, (12, 1)) * rng.choice([-1, 1], (12, 1))
        for temperature in (1.0, 0.7, 1 / 3):
            logits = (size * temperature - rng.exponential(6.0, (12, n_classes)) * temperature).astype(dtype)
            check(logits, rng.integers(0, n_classes, 12), temperature)


@pytest.mark.parametrize("power", [-110, -101, -100, -99, -60, 0, 60, 99, 100, 101, 110])
def test_temperatures_at_the_ends_of_float32(power):
    """Results are within 3 ULP if logits and temperature are both tiny or both huge."""
    rng = np.random.default_rng(5)
    for n_classes in (3, 50):
        logits = np.ldexp(4 * rng.standard_normal((9, n_classes)), power).astype(np.float32)
        logits[:, 1] = -np.inf
        check(logits, np.zeros(9, np.int64), 2.0**power)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 9, 16, 17, 31, 64, 100, 1000])
def test_a_maximum_far_above_the_others(n_classes, dtype):
    """The small loss of a label that leads by 1 to 130 is within 3 ULP at any position in the row."""
    rng = np.random.default_rng(6)
    for lead in np.linspace(1, 130, 44):
        logits = rng.uniform(-1, 1, (8, n_classes)).astype(dtype)
        labels = rng.integers(0, n_classes, 8)
        logits[np.arange(8), labels] = lead
        check(logits, labels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 33, 100])
def test_of_equal_logits_the_first_is_predicted(n_classes, dtype):
    """Among equal largest logits the lowest class is predicted, for any magnitude of logits."""
    rng = np.random.default_rng(7)
    for size in (0.0, 0.3, 1.7, -5.1, 1234.567, 1e6):
        for ties in {2, 3, n_classes} - {n_classes + 1}:
            logits = np.full((n_classes, n_classes), size - 40, dtype)
            tied = np.sort(rng.permutation(n_classes)[:ties])
            logits[:, tied] = size
            rows = check(logits, np.arange(n_classes))
            assert_array_equal(rows.hits, np.arange(n_classes) == tied[0])

"""Tests properties that hold for any logits: invariances, bounds, and independence from other rows."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import batchmax
from tests.support import oracle

LIMIT = 3.0

dtypes = st.sampled_from([np.float32, np.float64])
sizes = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 100, 127, 128, 129, 300]))
seeds = st.integers(0, 2**32 - 1)
spreads = st.sampled_from([1e-3, 1.0, 10.0, 100.0])


def random_logits(seed: int, n_rows: int, n_classes: int, dtype: Any, spread: float = 3.0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return (spread * rng.standard_normal((n_rows, n_classes))).astype(dtype)


def everything(logits: NDArray[Any], labels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return all row-by-row results of the API, one array per result."""
    targets = np.zeros(logits.shape, logits.dtype)
    targets[np.arange(len(labels)), labels] = 0.75
    targets += 0.25 / logits.shape[1]
    options: dict[str, Any] = {
        "class_weights": np.linspace(0.5, 2, logits.shape[1]).astype(logits.dtype),
        "label_smoothing": 0.1,
        "temperature": 0.7,
    }
    return [
        *batchmax.softmax_cross_entropy(logits, labels),
        *batchmax.softmax_cross_entropy(logits, targets, **options),
        batchmax.softmax(logits, temperature=1.9),
        batchmax.log_softmax(logits),
        batchmax.logsumexp(logits),
        batchmax.cross_entropy(logits, labels),
        batchmax.cross_entropy(logits, labels, **options),
    ]


@given(seed=seeds, n_classes=sizes, dtype=dtypes, shift=st.integers(-(2**21), 2**21))
def test_shift_invariance(seed: int, n_classes: int, dtype: Any, shift: int) -> None:
    """Adding an exact constant to all logits of a row changes probabilities and losses by at most 3 ULP."""
    # All are multiples of 2**-10 below 2**12, so every sum is exact in float32.
    steps = np.random.default_rng(seed).integers(-(2**14), 2**14, (4, n_classes))
    labels = np.arange(4) % n_classes
    plain, shifted = ((steps + c).astype(dtype) * dtype(2.0**-10) for c in (0, shift))
    for a, b in zip(
        batchmax.softmax_cross_entropy(plain, labels),
        batchmax.softmax_cross_entropy(shifted, labels),
        strict=True,
    ):
        assert oracle.ulp_error(a, b, dtype).max() <= LIMIT


@given(seed=seeds, n_classes=sizes, dtype=dtypes, spread=spreads)
def test_permutation_equivariance(seed: int, n_classes: int, dtype: Any, spread: float) -> None:
    """Permuting the classes permutes the probabilities and keeps the losses, to 3 ULP."""
    logits = random_logits(seed, 4, n_classes, dtype, spread)
    order = np.random.default_rng(seed + 1).permutation(n_classes)
    labels = np.arange(4) % n_classes
    probs, losses = batchmax.softmax_cross_entropy(logits, labels)
    moved_probs, moved_losses = batchmax.softmax_cross_entropy(logits[:, order], np.argsort(order)[labels])
    assert oracle.ulp_error(moved_probs, probs[:, order], dtype).max() <= LIMIT
    assert oracle.ulp_error(moved_losses, losses, dtype).max() <= LIMIT


@given(seed=seeds, n_classes=sizes, dtype=dtypes, spread=spreads)
def test_probabilities_sum_to_one(seed: int, n_classes: int, dtype: Any, spread: float) -> None:
    """Probabilities are in [0, 1], and their sum differs from 1 by at most three times the dtype's epsilon.

    No log-probability is above 0.
    """
    logits = random_logits(seed, 5, n_classes, dtype, spread)
    probs = batchmax.softmax(logits)
    assert probs.min() >= 0
    assert probs.max() <= 1
    for row in probs:
        assert abs(math.fsum(row.tolist()) - 1) <= LIMIT * float(np.finfo(dtype).eps)
    assert batchmax.log_softmax(logits).max() <= 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [32_000, 131_072])
def test_many_probabilities_sum_to_one(n_classes: int, dtype: Any) -> None:
    """For a vocabulary's number of classes, the sum differs from 1 by at most three times the dtype's epsilon."""
    probs = batchmax.softmax(random_logits(1, 2, n_classes, dtype))
    for row in probs:
        assert abs(math.fsum(row.tolist()) - 1) <= LIMIT * float(np.finfo(dtype).eps)


@given(seed=seeds, n_classes=sizes, dtype=dtypes, spread=spreads, smoothing=st.sampled_from([0.0, 0.1, 1.0]))
def test_losses_are_not_negative(seed: int, n_classes: int, dtype: Any, spread: float, smoothing: float) -> None:
    """Losses of labels and distributions, smoothed or not, are at least 0 and never -0."""
    logits = random_logits(seed, 5, n_classes, dtype, spread)
    labels = np.random.default_rng(seed).integers(0, n_classes, 5)
    distribution = np.random.default_rng(seed).dirichlet(np.ones(n_classes), 5)
    for y in (labels, distribution, logits.argmax(axis=1)):
        losses = batchmax.cross_entropy(logits, y, label_smoothing=smoothing)
        assert np.all(losses >= 0)
        assert not np.signbit(losses).any()


@given(seed=seeds, n_classes=sizes, dtype=dtypes, spread=spreads)
def test_results_are_consistent(seed: int, n_classes: int, dtype: Any, spread: float) -> None:
    """The largest logit has the largest probability, and exp(-loss) is the probability of the label."""
    logits = random_logits(seed, 5, n_classes, dtype, spread)
    labels = np.random.default_rng(seed).integers(0, n_classes, 5)
    probs, losses = batchmax.softmax_cross_entropy(logits, labels)
    rows = np.arange(5)
    assert np.array_equal(probs[rows, logits.argmax(axis=1)], probs.max(axis=1))
    expected = np.exp(-losses.astype(np.float64))
    tolerance = 8 * float(np.finfo(dtype).eps) * (1 + losses)
    assert np.all(np.abs(probs[rows, labels] - expected) <= tolerance * expected + float(np.finfo(dtype).tiny))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 65, 100, 1000])
def test_a_row_is_the_same_wherever_it_lies(n_classes: int, dtype: Any) -> None:
    """The same row gives the same bits alone, last, or anywhere in a batch of any size."""
    logits = random_logits(n_classes, 200, n_classes, dtype)
    # Rows that take other code paths must not affect ordinary rows, and vice versa.
    logits[5::17] *= 1000
    logits[7::23, 0] = -np.inf
    logits[11::29, -1] = np.nan
    logits[13::31, 0] = np.inf
    labels = np.arange(200) % n_classes
    whole = everything(logits, labels)
    for n_rows in (*range(1, 40), 63, 64, 65, 127, 128, 129, 199):
        for start in {0, 200 - n_rows, (n_rows * 7) % (201 - n_rows)}:
            rows = slice(start, start + n_rows)
            part = everything(logits[rows], labels[rows])
            for all_rows, some in zip(whole, part, strict=True):
                assert all_rows[rows].tobytes() == some.tobytes(), (n_rows, start)


@given(seed=seeds, n_rows=st.integers(1, 200), n_classes=sizes, dtype=dtypes, data=st.data())
@example(seed=0, n_rows=200, n_classes=32, dtype=np.float32, data=None)
@example(seed=0, n_rows=200, n_classes=33, dtype=np.float32, data=None)
def test_the_order_of_rows_does_not_matter(seed: int, n_rows: int, n_classes: int, dtype: Any, data: Any) -> None:
    """Any selection of rows, in any order and with repetitions, gives the bits of the whole batch."""
    logits = random_logits(seed, n_rows, n_classes, dtype)
    labels = np.arange(n_rows) % n_classes
    chosen = np.arange(n_rows)[::-1]
    if data is not None:
        chosen = np.array(data.draw(st.lists(st.integers(0, n_rows - 1), min_size=1, max_size=60)))
    for whole, some in zip(everything(logits, labels), everything(logits[chosen], labels[chosen]), strict=True):
        assert whole[chosen].tobytes() == some.tobytes()


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU; test_threads covers it in subprocesses")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_rows", "n_classes"), [(1, 5), (2, 100_000), (7, 33), (199, 32), (200, 3), (50, 1000), (5000, 10)]
)
def test_thread_count_changes_no_bit(n_rows: int, n_classes: int, dtype: Any) -> None:
    """Results have the same bytes with one thread, two, or all."""
    logits = random_logits(2, n_rows, n_classes, dtype)
    labels = np.arange(n_rows) % n_classes
    before = numba.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(n_threads)
            results.append([result.tobytes() for result in everything(logits, labels)])
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@given(seed=seeds, n_rows=st.integers(1, 70), n_classes=sizes, dtype=dtypes, spread=spreads)
def test_one_pass_gives_what_two_give(seed: int, n_rows: int, n_classes: int, dtype: Any, spread: float) -> None:
    """``softmax_cross_entropy`` gives the bits of ``softmax`` and of ``cross_entropy``."""
    logits = random_logits(seed, n_rows, n_classes, dtype, spread)
    labels = np.random.default_rng(seed).integers(0, n_classes, n_rows)
    probs, losses = batchmax.softmax_cross_entropy(logits, labels)
    assert probs.tobytes() == batchmax.softmax(logits).tobytes()
    assert losses.tobytes() == batchmax.cross_entropy(logits, labels).tobytes()


@given(
    rows=st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    ),
    temperature=st.floats(1e-6, 1e6),
)
@example(rows=[[3.4028234663852886e38, -3.4028234663852886e38, 1e-45]], temperature=1.0)
def test_any_finite_floats_are_within_3_ulp(rows: list[list[float]], temperature: float) -> None:
    """For arbitrary finite floats, float32 and float64 results are within 3 ULP of exact ones."""
    labels = np.arange(len(rows)) % 3
    for dtype in (np.float32, np.float64):
        logits = np.array(rows, dtype)
        probs, losses = batchmax.softmax_cross_entropy(logits, labels, temperature=temperature)
        assert oracle.ulp_error(probs, oracle.softmax(logits, temperature), dtype).max() <= LIMIT
        exact = oracle.cross_entropy(logits, labels, temperature=temperature)
        assert oracle.ulp_error(losses, exact, dtype).max() <= LIMIT

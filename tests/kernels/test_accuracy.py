"""Probabilities, log-probabilities, log-sum-exps and losses are within 3 ULP of the exact value.

The oracle is ``oracle.py``, which is tested here against 50-digit arithmetic. Run with ``-s`` to print the largest
error for each number of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import batchmax
from tests.support import oracle
from tests.support.exact_rows import SCALES, dominant, equal, exact_row, normal, offset, wide
from tests.support.requirements import optional

mpmath = optional("mpmath")

LIMIT = 3.0
DTYPES = [np.float32, np.float64]
CLASSES = [1, 2, 3, 10, 31, 32, 33, 64, 100, 1000, 32_000, 131_072, 1_000_000]
TEMPERATURES = [1e-20, 1e-3, 0.1, 0.7, 1.0, 3.7, 50.0, 1e6, 1e30]
LARGE = 10_000
"""From this number of classes on, tests use a single row, and vary scale and temperature separately."""

Matrix = NDArray[Any]


def largest_errors(logits: Matrix, temperature: float) -> dict[str, float]:
    """Return the largest error in ULP of each result that the API computes from these rows."""
    dtype = logits.dtype
    n_rows, n_classes = logits.shape
    labels = (np.arange(n_rows) * 7919) % n_classes
    probs, losses = batchmax.softmax_cross_entropy(logits, labels, temperature=temperature)
    best = np.where(np.isnan(logits).any(axis=1), 0, logits.argmax(axis=1))
    exact_probs = oracle.softmax(logits, temperature)
    costs = -oracle.log_softmax(logits, temperature)
    rows = np.arange(n_rows)
    compared = {
        "probs": (probs, exact_probs),
        "softmax": (batchmax.softmax(logits, temperature=temperature), exact_probs),
        "log_probs": (batchmax.log_softmax(logits, temperature=temperature), -costs),
        "losses": (losses, costs[rows, labels]),
        "loss of the largest": (
            batchmax.cross_entropy(logits, best, temperature=temperature),
            costs[rows, best],
        ),
    }
    for got, _ in compared.values():
        assert got.dtype == dtype
    # A loss near 0 is a sum of exponentials, and can't be more accurate than they are if they are float64 subnormals.
    least = n_classes * float(np.finfo(np.float64).tiny)
    errors = {}
    for name, (got, exact) in compared.items():
        unit_at = exact if exact is exact_probs else np.maximum(np.abs(exact), least)
        errors[name] = float(oracle.ulp_error(got, exact, dtype, unit_at=unit_at).max())
    return errors


def check(found: dict[str, float], what: str) -> None:
    wrong = {name: error for name, error in found.items() if not error <= LIMIT}
    assert not wrong, f"{what}: {wrong}"


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.__name__)
@pytest.mark.parametrize("temperature", [1e-3, 0.7, 1.0, 3.7, 1e6])
def test_the_oracle_is_exact(scale: Any, temperature: float) -> None:
    """The extended-precision oracle agrees with 50-digit arithmetic to 2**-61 (1/256 of a float64 ULP)."""
    rng = np.random.default_rng(5)
    logits = scale(rng, (3, 17), np.float64)
    probs = oracle.softmax(logits, temperature)
    log_probs = oracle.log_softmax(logits, temperature)
    smallest = mpmath.mpf(10) ** -4900
    with mpmath.workdps(50):
        for row, z in enumerate(logits.tolist()):
            for got, exact in zip((probs[row], log_probs[row]), exact_row(z, temperature), strict=True):
                for g, x in zip(got, exact, strict=True):
                    if not mpmath.isfinite(x):
                        assert g == x
                        continue
                    fraction, exponent = np.frexp(g)
                    value = mpmath.ldexp(mpmath.mpf(int(np.ldexp(fraction, 64))), int(exponent) - 64)
                    assert abs(value - x) <= max(abs(x) * mpmath.mpf(2) ** -61, smallest)


def test_ulp_error_counts_units_in_the_last_place() -> None:
    """One step to the adjacent number is an error of 1 ULP, also for subnormal numbers and at zero."""
    for dtype in DTYPES:
        for x in (1.0, 1.5, 0.3, 7e-20):
            value = dtype(x)
            assert oracle.ulp_error(np.nextafter(value, dtype(2)), value, dtype) == 1
    assert oracle.ulp_error(np.float32(3e-45), np.float32(1.4e-45), np.float32) == 1
    assert oracle.ulp_error(np.float32(1.4e-45), 0, np.float32) == 1
    assert oracle.ulp_error(0, np.longdouble(1e-46), np.float32) < 0.1
    assert oracle.ulp_error(np.inf, 1e60, np.float32) == 0
    assert oracle.ulp_error(np.inf, 1e30, np.float32) == np.inf
    assert oracle.ulp_error(np.nan, 1, np.float32) == np.inf
    assert oracle.ulp_error(1, np.nan, np.float32) == np.inf
    assert oracle.ulp_error(np.nan, np.nan, np.float32) == 0
    assert oracle.ulp_error(-np.inf, np.inf, np.float64) == np.inf


@pytest.mark.sweep(keep=lambda n_classes: n_classes < 1_000_000)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_within_3_ulp(n_classes: int, dtype: Any) -> None:
    """Probabilities, log-probabilities and losses are within 3 ULP at any scale and temperature."""
    rng = np.random.default_rng(n_classes)
    n_rows = 1 if n_classes >= LARGE else 17
    grid = [
        (scale, temperature)
        for scale in SCALES
        for temperature in TEMPERATURES
        if n_classes < LARGE or temperature == 1 or (scale is normal and temperature in TEMPERATURES[::2])
    ]
    largest: dict[str, float] = {}
    for scale, temperature in grid:
        found = largest_errors(scale(rng, (n_rows, n_classes), dtype), temperature)
        check(found, f"{scale.__name__}, {n_classes:,} classes, temperature {temperature:g}")
        largest = {name: max(error, largest.get(name, 0.0)) for name, error in found.items()}
    listed = ", ".join(f"{name} {error:.2f}" for name, error in largest.items())
    print(f"\n{np.dtype(dtype).name} {n_classes:>9,} classes: {listed}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 5, 32, 33, 50, 257])
def test_many_random_rows_are_within_3_ulp(n_classes: int, dtype: Any) -> None:
    """Thousands of random rows of every spread are within 3 ULP: no argument makes the exponential inaccurate."""
    rng = np.random.default_rng(11)
    n_rows = 60_000 // n_classes
    logits = (rng.standard_normal((n_rows, n_classes)) * 10.0 ** rng.uniform(-3, 2.5, (n_rows, 1))).astype(dtype)
    for temperature in (1.0, 0.37):
        check(largest_errors(logits, temperature), f"temperature {temperature:g}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 32, 33, 500])
@pytest.mark.parametrize("exponent", [0, -1])
def test_the_largest_numbers_of_the_type(n_classes: int, dtype: Any, exponent: int) -> None:
    """Logits at both ends of the type's range are within 3 ULP, even if their difference overflows the type.

    With a temperature as large as the logits, the result is an ordinary number although ``z - max`` overflows.
    """
    end = np.finfo(dtype).max
    rng = np.random.default_rng(3)
    logits = rng.choice(np.array([-end, end, 0, end / 2, -end / 3], dtype), (9, n_classes))
    for temperature in (1.0, 50.0, 1e30, float(end) * 10.0**exponent / 2):
        check(largest_errors(logits, temperature), f"temperature {temperature:g}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_logits(dtype: Any) -> None:
    """Subnormal logits aren't treated as 0: with a temperature as small as they are, results are within 3 ULP."""
    step = float(np.finfo(dtype).smallest_subnormal)
    logits = (np.arange(24).reshape(4, 6) * step).astype(dtype)
    temperature = 1e-44 if dtype == np.float32 else 1e-300
    check(largest_errors(logits, temperature), f"temperature {temperature:g}")


def test_float32_subnormal_probabilities_are_kept() -> None:
    """A float32 probability of 1e-40 isn't flushed to 0."""
    logits = np.array([[0, np.log(1e-40)]], np.float32)
    assert batchmax.softmax(logits)[0, 1] == pytest.approx(1e-40, rel=1e-4)


def test_a_million_equal_terms() -> None:
    """A million equal float64 logits give probabilities of 1e-6 and a loss of log(1e6), within 3 ULP."""
    logits = np.full((1, 10**6), 0.1)
    probs, losses = batchmax.softmax_cross_entropy(logits, np.array([123]))
    assert oracle.ulp_error(probs, np.longdouble(1) / 10**6, np.float64).max() <= LIMIT
    assert oracle.ulp_error(losses, np.log(np.longdouble(10**6)), np.float64).max() <= LIMIT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 32, 33, 1000])
def test_a_loss_near_zero_keeps_its_digits(n_classes: int, dtype: Any) -> None:
    """If the label's logit leads by 10 to 80, the loss of 1e-4 to 1e-35 is within 3 ULP."""
    for lead in (10, 20, 40, 60, 80):
        logits = np.zeros((1, n_classes), dtype)
        logits[0, -1] = lead
        losses = batchmax.cross_entropy(logits, np.array([n_classes - 1]))
        exact = np.log1p((n_classes - 1) * np.exp(np.longdouble(-lead)))
        assert oracle.ulp_error(losses, exact, dtype).max() <= LIMIT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [1, 2, 3, 32, 33, 1000, 131_072])
def test_logsumexp(n_classes: int, dtype: Any) -> None:
    """Logsumexp is within 3 ULP; where the sum cancels, ULPs are those of the largest logit."""
    rng = np.random.default_rng(8)
    for scale in SCALES:
        logits = scale(rng, (1 if n_classes >= LARGE else 17, n_classes), dtype)
        exact = oracle.logsumexp(logits)
        unit_at = np.maximum(np.abs(exact), np.abs(logits.max(axis=1)))
        error = oracle.ulp_error(batchmax.logsumexp(logits), exact, dtype, unit_at=unit_at).max()
        assert error <= LIMIT, (scale.__name__, error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [1, 2, 10, 32, 33, 1000])
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "distributions"])
def test_weighted_and_smoothed_losses(n_classes: int, dtype: Any, soft: bool) -> None:
    """Losses with class weights, label smoothing and soft targets are within 3 ULP."""
    rng = np.random.default_rng(21)
    n_rows = 25
    labels: Matrix = rng.integers(0, n_classes, n_rows)
    if soft:
        labels = rng.dirichlet(np.ones(n_classes), n_rows).astype(dtype)
    weights = rng.uniform(0.1, 3, n_classes).astype(dtype)
    for scale in (normal, wide, equal, dominant, offset):
        logits = scale(rng, (n_rows, n_classes), dtype)
        for smoothing in (0.0, 0.1, 1.0):
            for class_weights in (None, weights):
                options: dict[str, Any] = {
                    "class_weights": class_weights,
                    "label_smoothing": smoothing,
                    "temperature": 1.3,
                }
                exact = oracle.cross_entropy(logits, labels, **options)
                got = batchmax.cross_entropy(logits, labels, **options)
                both = batchmax.softmax_cross_entropy(logits, labels, **options)[1]
                for losses in (got, both):
                    error = oracle.ulp_error(losses, exact, dtype).max()
                    assert error <= LIMIT, (scale.__name__, smoothing, class_weights is not None, error)

"""Tests the scalar functions that kernels use instead of the C library's against mpmath: about 1 ULP of error."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from batchmax.kernels import elementwise, exp
from tests.support.requirements import package

mpmath = package("mpmath")

LARGEST = np.finfo(np.float64).max
SMALLEST = np.finfo(np.float64).smallest_subnormal


@numba.njit
def compute(exps, expm1s, logs, log1ps):
    """Return the values of exp, expm1, log and log1p at their arguments."""
    return (
        np.array([exp.exp(x) for x in exps]),
        np.array([exp.expm1(x) for x in expm1s]),
        np.array([exp.log(x) for x in logs]),
        np.array([exp.log1p(x) for x in log1ps]),
    )


@pytest.fixture(scope="module")
def values():
    """Return the arguments and results of each function, by name."""
    rng = np.random.default_rng(1)
    sizes = np.ldexp(rng.uniform(1, 2, 4000), rng.integers(-1074, 1023, 4000))
    near_one = 1 + np.concatenate([np.ldexp(rng.uniform(-1, 1, 500), rng.integers(-52, -1, 500)), [0.0]])
    exps = np.concatenate([rng.uniform(-750, 715, 4000), rng.uniform(-1, 1, 2000), [0.0, -0.0, 1e300, -1e300]])
    expm1s = -np.concatenate([rng.uniform(0, 3, 4000), rng.uniform(0, 800, 500), sizes, [0.0, 1e300]])
    logs = np.concatenate([sizes, near_one, rng.uniform(0, 3, 2000), [SMALLEST, LARGEST]])
    log1ps = np.concatenate([sizes[sizes < 2.0**1000], rng.uniform(0, 3, 2000), [0.0]])
    arguments = {"exp": exps, "expm1": expm1s, "log": logs, "log1p": log1ps}
    return {name: (x, y) for (name, x), y in zip(arguments.items(), compute(*arguments.values()), strict=True)}


@pytest.mark.parametrize(("name", "limit"), [("exp", 0.8), ("expm1", 1.2), ("log", 1.2), ("log1p", 1.2)])
def test_error(values, name, limit):
    """The error against 40-digit arithmetic is below the limit, in ULP of the result; overflow gives infinity."""
    arguments, results = values[name]
    with mpmath.workdps(40):
        for x, y in zip(arguments.tolist(), results.tolist(), strict=True):
            exact = getattr(mpmath, name)(mpmath.mpf(x))
            if abs(exact) > LARGEST:
                assert y == np.inf
                continue
            unit = mpmath.mpf(np.spacing(abs(float(exact))))
            assert abs(mpmath.mpf(y) - exact) <= limit * unit, (x, y)


def test_log_of_float32():
    """log_single rounds to within 0.6 ULP of the exact logarithm, and its special values are those of log."""
    rng = np.random.default_rng(3)
    near_one = 1 + np.ldexp(rng.uniform(-1, 1, 3000), rng.integers(-24, -1, 3000))
    normal = np.ldexp(rng.uniform(1, 2, 3000), rng.integers(-149, 127, 3000))
    x = np.concatenate([near_one, normal, rng.uniform(0, 1, 6000), [1.0, 2.0**-149, 2.0**-126]]).astype(np.float32)
    found, want = np.empty((1, len(x)), np.float32), np.log(x.astype(np.float64))
    elementwise.log_matrix(x[None], found)
    assert found[0, x == 1].tolist() == [0.0] * int((x == 1).sum())
    unit = np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)
    assert (np.abs(found[0] - want) / unit).max() < 0.6
    special = np.array([[0.0, -0.0, np.inf, -1.0, -np.inf, np.nan]], np.float32)
    found = np.empty_like(special)
    elementwise.log_matrix(special, found)
    assert found[0, :3].tolist() == [-np.inf, -np.inf, np.inf]
    assert np.isnan(found[0, 3:]).all()


def test_special_values():
    """Results for infinities, zeros, NaN and values outside the domain are those of the C library."""
    nan, inf = np.nan, np.inf
    exps, expm1s, logs, log1ps = compute(
        np.array([inf, -inf, nan]), np.array([-inf, -0.0, nan]), np.array([inf, 0.0, -0.0, -1.0, -inf, nan]),
        np.array([0.0, nan]),
    )  # fmt: skip
    np.testing.assert_array_equal(exps, [inf, 0.0, nan])
    np.testing.assert_array_equal(expm1s, [-1.0, 0.0, nan])
    np.testing.assert_array_equal(logs, [inf, -inf, -inf, nan, nan, nan])
    np.testing.assert_array_equal(log1ps, [0.0, nan])

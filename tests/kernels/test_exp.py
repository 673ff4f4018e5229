"""Tests the scalar functions that kernels use instead of the C library's against mpmath: about 1 ULP of error."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from batchmax.kernels import exp
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

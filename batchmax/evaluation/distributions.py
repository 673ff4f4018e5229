"""Student's t, chi-square, F and binomial distributions, without SciPy, which isn't a dependency.

Tails have a relative error below 1e-10. Continued fractions are evaluated by Lentz's method (Press et al., "Numerical
Recipes", 3rd edition, sections 5.2, 6.2 and 6.4).

See Also
--------
scipy.stats.t, scipy.stats.chi2, scipy.stats.f
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import count
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TINY = 1e-300
SMALLEST_STEP = 1e-16
MOST_TERMS = 100_000


def normal_quantile(p: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(p)


@cache
def t_quantile(p: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution, for p from 1/2 to below 1, by bisection of its upper tail."""
    low, high = 0.0, 1.0
    while t_tail(high, degrees) > 1.0 - p:
        low, high = high, 2.0 * high
    while True:
        middle = 0.5 * (low + high)
        if middle in {low, high}:
            return middle
        if t_tail(middle, degrees) > 1.0 - p:
            low = middle
        else:
            high = middle


def t_tail(t: float, degrees: float) -> float:
    """Return the probability of values above t, for t of at least 0."""
    return 0.5 * incomplete_beta(degrees / (degrees + t * t), 0.5 * degrees, 0.5)


def chi_square_tail(x: float, degrees: float) -> float:
    """Return the probability of values above x of the chi-square distribution; ``degrees`` may be fractional."""
    if x <= 0.0 or degrees <= 0.0:
        return 1.0
    if math.isinf(x):
        return 0.0
    a, x = 0.5 * degrees, 0.5 * x
    factor = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        for n in range(1, MOST_TERMS):
            term *= x / (a + n)
            total += term
            if term < total * SMALLEST_STEP:
                break
        return 1.0 - factor * total
    terms = ((n * (a - n), x + 2.0 * n + 1.0 - a) for n in count(1))
    return factor / _fraction(x + 1.0 - a, terms)


def f_tail(x: float, degrees: float, other: float) -> float:
    """Return the probability of values above x of the F distribution; both degrees of freedom may be fractional."""
    if x <= 0.0:
        return 1.0
    if math.isinf(x):
        return 0.0
    return incomplete_beta(other / (other + degrees * x), 0.5 * other, 0.5 * degrees)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function for x from 0 to 1."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    of_gamma = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    factor = math.exp(of_gamma + a * math.log(x) + b * math.log1p(-x)) / a
    return factor / _fraction(1.0, ((term, 1.0) for term in _beta_terms(x, a, b)))


def _beta_terms(x: float, a: float, b: float) -> Iterator[float]:
    for m in count():
        if m:
            yield m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))


def _fraction(first: float, terms: Iterator[tuple[float, float]]) -> float:
    """Return b0 + a1 / (b1 + a2 / (b2 + ...)) for b0 and the pairs (a, b)."""
    value = c = first or TINY
    d = 0.0
    for (a, b), _ in zip(terms, range(MOST_TERMS), strict=False):
        d = 1.0 / (b + a * d or TINY)
        c = b + a / c or TINY
        value *= c * d
        if abs(c * d - 1.0) < SMALLEST_STEP * 10:
            break
    return value


def log_binomial_tails(hits: Array, trials: Array, share: float) -> Array:
    """Return the logarithms of the probabilities of at least ``hits`` of ``trials``, each with probability ``share``.

    Parameters
    ----------
    hits, trials : (n,) float64
        Integers, from 0 to 2**53, with ``hits`` up to ``trials``.
    share
        Between 0 and 1.

    See Also
    --------
    scipy.stats.binom.logsf
    """
    found = np.zeros(len(hits))
    some = np.flatnonzero(hits > 0)
    a, b = hits[some], trials[some] - hits[some] + 1.0
    # The continued fraction converges fast on one side of the mean; on the other, it gives the other tail.
    is_other = share > (a + 1.0) / (a + b + 2.0)
    x, y = np.where(is_other, 1.0 - share, share), np.where(is_other, b, a)
    z = np.where(is_other, a, b)
    logs = [
        math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q) + p * math.log(one) + q * math.log1p(-one) - math.log(p)
        for one, p, q in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)
    ]
    tails = [log - math.log(value) for log, value in zip(logs, _beta_fractions(x, y, z).tolist(), strict=True)]
    found[some] = [
        math.log1p(-math.exp(tail)) if other and tail < 0.0 else -math.inf if other else min(tail, 0.0)
        for tail, other in zip(tails, is_other.tolist(), strict=True)
    ]
    return found


def _beta_fractions(x: Array, a: Array, b: Array) -> Array:
    """Return the continued fractions of incomplete beta functions."""
    values, c, d = np.ones(len(x)), np.ones(len(x)), np.zeros(len(x))
    left = np.arange(len(x))
    for n in range(1, MOST_TERMS):
        if not len(left):
            break
        m, p, q, one = n // 2, a[left], b[left], x[left]
        if n % 2:
            term = -(p + m) * (p + q + m) * one / ((p + 2 * m) * (p + 2 * m + 1))
        else:
            term = m * (q - m) * one / ((p + 2 * m - 1) * (p + 2 * m))
        d[left] = 1.0 / _nonzero(1.0 + term * d[left])
        c[left] = _nonzero(1.0 + term / c[left])
        steps = c[left] * d[left]
        values[left] *= steps
        left = left[np.abs(steps - 1.0) >= SMALLEST_STEP * 10]
    return values


def _nonzero(values: Array) -> Array:
    return np.where(values == 0.0, TINY, values)

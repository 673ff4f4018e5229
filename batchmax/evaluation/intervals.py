"""Confidence intervals from counts, or from estimates that leave out one group each. Knows numbers, not metrics.

See Also
--------
Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, 209-212; Brown, Cai and
DasGupta 2001, "Interval estimation for a binomial proportion", Statistical Science 16, 101-133.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.distributions import chi_square_tail, f_tail, normal_quantile
from batchmax.kernels.elementwise import exp_values

Array = NDArray[Any]

Scale = Literal["plain", "unit", "signed", "positive"]
"""Where the interval is symmetric: the metric itself, its logit if it is in [0, 1], its atanh if it is in [-1, 1], its
log if it is above 0."""

WILSON, JACKKNIFE = "wilson", "jackknife"

FEWEST_GROUPS = 10
"""Fewest groups from which a variance is estimated."""
LEAST_VARIANCE = 1.0
"""Neighboring bins are joined for the test of calibration until the expected variance of their hits is this large."""


def wilson(hits: Array, n: Array, level: float) -> tuple[Array, Array]:
    """Return the bounds of proportions; NaN where n is 0.

    Examples
    --------
    >>> wilson(np.array([9.0]), np.array([10.0]), 0.95)
    (array([0.5958...]), array([0.9821...]))
    """
    z = normal_quantile(0.5 + 0.5 * level)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / n
        middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
        half = z * np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / (1.0 + z * z / n)
    # Rounding must not exclude the proportion itself.
    lower = np.where(hits <= 0, np.where(n > 0, 0.0, np.nan), np.maximum(middle - half, 0.0))
    return lower, np.where((hits >= n) & (n > 0), 1.0, np.minimum(middle + half, 1.0))


def standard_errors(left_out: Array) -> Array:
    """Return the standard errors of m estimates, from those that leave out one of g groups each, (g, m)."""
    g = len(left_out)
    with np.errstate(invalid="ignore", over="ignore"):
        distances = left_out - left_out.mean(axis=0)
        errors: Array = np.sqrt((g - 1) / g * (distances * distances).sum(axis=0))
    return errors


def effective_degrees(left_out: Array) -> float:
    """Return the degrees of freedom of the variance of an estimate, from those without each group, (g,).

    That is g - 1, or less if few groups have most of the variance, by the method of Satterthwaite (1946, Biometrics
    Bulletin 2, 110-114): twice the squared variance divided by the variance of the variance.
    """
    g = len(left_out)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = (left_out - left_out.mean()) ** 2
        spread = (squares * squares).sum() / squares.sum() ** 2 - 1.0 / g
    return min(g - 1.0, max(1.0, 2.0 / spread)) if spread > 0.0 else g - 1.0


def _exp(values: Array) -> Array:
    """Return exponentials with the same bits on every CPU."""
    flat, found = np.ascontiguousarray(values, np.float64).ravel(), np.empty(np.size(values))
    exp_values(flat, found)
    return found.reshape(np.shape(values))


def jackknife_bounds(values: Array, errors: Array, t: float | Array, scale: Scale) -> tuple[Array, Array]:
    """Return the bounds of m estimates with these standard errors, and this quantile of Student's t distribution.

    The standard error on a scale is that of the estimate times the derivative of the scale. Bounds are NaN where the
    estimate is at the end of the range of a scale.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        match scale:
            case "plain":
                return values - t * errors, values + t * errors
            case "positive":
                factors = _exp(t * errors / values)
                return np.where(values > 0, values / factors, np.nan), np.where(values > 0, values * factors, np.nan)
            case "unit":
                odds, factors = values / (1.0 - values), _exp(t * errors / (values * (1.0 - values)))
                lower, upper = odds / (odds + factors), odds / (odds + 1.0 / factors)
            case "signed":
                # The hyperbolic tangent of a sum, of which one part is the inverse one of the estimate.
                power = _exp(-2.0 * t * errors / (1.0 - values * values))
                half = (1.0 - power) / (1.0 + power)
                lower, upper = (values - half) / (1.0 - values * half), (values + half) / (1.0 + values * half)
    ends = 0.0 if scale == "unit" else -1.0
    inside = (values > ends) & (values < 1.0)
    return np.where(inside, lower, np.nan), np.where(inside, upper, np.nan)


def gap_errors(bins: Array) -> Array:
    """Return the standard errors of the gaps of bins, from their sums in each group, (g, b, 4).

    The variance of a gap is that of the sum of y - p over groups. A bin has no variance if its rows are in one group,
    so the variance that p itself implies is added with the weight of one group.
    """
    total = bins.sum(axis=0)
    weight, variance = total[:, 0], total[:, 3]
    sums = bins[..., 2] - bins[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = sums.sum(axis=0) / weight
        used = np.count_nonzero(bins[..., 0], axis=0)
        squares = ((sums - bins[..., 0] * np.where(weight > 0, gaps, 0.0)) ** 2).sum(axis=0)
        return np.where(weight > 0, np.sqrt(squares + variance / used) / weight, 0.0)


def absolute_bias(gaps: Array, errors: Array) -> Array:
    """Return E|N(d, s)| - |d| of gaps d with standard errors s."""
    sizes = np.abs(gaps)
    biases = np.zeros(len(gaps))
    for at in np.flatnonzero(errors > 0):
        ratio = sizes[at] / errors[at]
        density = math.exp(-0.5 * ratio * ratio) / math.sqrt(2.0 * math.pi)
        biases[at] = 2.0 * errors[at] * (density - ratio * 0.5 * math.erfc(ratio / math.sqrt(2.0)))
    return biases


def calibration_test(bins: Array, *, independent: bool) -> float | None:
    """Return the p-value of the hypothesis that probabilities are calibrated, from sums of bins in groups, (g, b, 4).

    The statistic is the sum of (sum of y - p)² / (sum of p (1 - p)) over bins, which has a chi-square distribution if
    rows are independent. Otherwise its distribution is approximated by its first two moments, from the covariance of
    the groups (Rao and Scott 1981, JASA 76, 221-230).
    """
    joined = _joined(bins)
    variance = joined[..., 3].sum(axis=0)
    differences = joined[..., 2] - joined[..., 1]
    total = differences.sum(axis=0)
    if not len(variance):
        return None
    if (variance[-1] <= 0.0) or not np.isfinite(variance).all():
        return None if total[-1] == 0.0 else 0.0
    statistic = float((total * total / variance).sum())
    if independent:
        return chi_square_tail(statistic, len(variance))
    scaled = differences / np.sqrt(variance)
    g = len(scaled)
    covariance = g / (g - 1) * scaled.T @ scaled
    trace, squares = float(np.trace(covariance)), float((covariance * covariance).sum())
    if trace <= 0.0:
        return None
    degrees = trace * trace / squares
    return f_tail(statistic / trace, degrees, degrees * (g - 1))


def _joined(bins: Array) -> Array:
    """Join neighboring bins until the variance of each is at least ``LEAST_VARIANCE``."""
    variance = bins[..., 3].sum(axis=0)
    starts, at = [0], 0.0
    for place, one in enumerate(variance):
        if at >= LEAST_VARIANCE and variance[place:].sum() >= LEAST_VARIANCE:
            starts.append(place)
            at = 0.0
        at += one
    return np.add.reduceat(bins, starts, axis=1) if bins.shape[1] else bins

"""Statistics of pairs: the mean difference with its standard error, and McNemar's test of flips.

Sums are compensated, so they don't depend on how the pairs are split into batches. Doesn't know what is measured.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.compensated_sums import sum_counted

MOST_EXACT = 10_000
"""Most flips for the exact (binomial) McNemar test; above, the approximation agrees to more digits than are needed."""


class Differences:
    """Accumulates the differences of pairs: their mean and its standard error."""

    def __init__(self) -> None:
        self._n = 0
        self._origin = 0.0
        self._sums = np.zeros(3)
        self._squares = np.zeros(3)

    def add(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> None:
        """Add pairs, (n,) each, all finite."""
        if not len(before):
            return
        differences = after - before
        if not self._n:
            self._origin = float(differences[0])
        # Shifting by one of the values avoids cancellation in the variance, which is a difference of squares.
        differences -= self._origin
        counted = np.ones(len(differences), np.bool_)
        sum_counted(differences, counted, self._sums)
        sum_counted(differences * differences, counted, self._squares)
        self._n += len(differences)

    def mean_and_error(self) -> tuple[float, float]:
        """Return the mean of after - before, and its standard error s / sqrt(n), s the standard deviation.

        The mean is NaN without pairs, and the error with fewer than two.

        See Also
        --------
        scipy.stats.ttest_rel : the test of this mean with Student's t distribution of n - 1 degrees of freedom.
        """
        if not self._n:
            return math.nan, math.nan
        total, squares = float(self._sums[0] + self._sums[1]), float(self._squares[0] + self._squares[1])
        shifted = total / self._n
        mean = self._origin + shifted
        if self._n == 1:
            return mean, math.nan
        variance = max(0.0, squares - total * shifted) / (self._n - 1)
        return mean, math.sqrt(variance / self._n)


def mcnemar(one_way: int, other_way: int) -> tuple[float, str]:
    """Return the two-sided p-value of the hypothesis that flips both ways are equally likely, and the method.

    ``exact``: twice the smaller tail of the binomial distribution of ``one_way`` out of all flips with p = 1/2, at
    most 1. ``asymptotic``, above ``MOST_EXACT`` flips: chi-square with one degree of freedom of
    (abs(one_way - other_way) - 1)² / (one_way + other_way).

    References
    ----------
    McNemar 1947, Psychometrika 12, 153-157; Edwards 1948, Psychometrika 13, 185-187 (the correction by 1).

    See Also
    --------
    scipy.stats.binomtest, scipy.stats.chi2

    Examples
    --------
    >>> mcnemar(1, 5)
    (0.21875, 'exact')
    """
    flips = one_way + other_way
    if flips > MOST_EXACT:
        distance = max(0, abs(one_way - other_way) - 1)
        return math.erfc(math.sqrt(distance * distance / flips / 2)), "asymptotic"
    ways = term = 1
    for successes in range(min(one_way, other_way)):
        term = term * (flips - successes) // (successes + 1)
        ways += term
    # Dividing the exact integers rounds only once.
    return min(1.0, 2 * ways / (1 << flips)), "exact"

"""Error bounds of the numbers of a scored row, derived from the written numbers alone.

A written probability is within a few units in the last place (ULP) of the exact one. From this follow a bound of the
distance of a row's sum from 1, and an interval that contains the exact loss. All intervals hold for any logits, so a
value outside its interval is wrong. Works on arrays; doesn't know columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[Array, Array]
"""Lower and upper bounds of values, one pair of arrays."""

UNITS = {"float16": 1.0, "float32": 3.0, "float64": 3.0}
"""The guaranteed accuracy in ULP. float16 is rounded from float32, so its error is slightly over half a unit."""

ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Relative rounding error of a few float64 operations in this module."""

TINY = float(np.finfo(np.float64).tiny)
"""Below this value float64 and its exponentials lose precision."""

PEAK = 1 / math.e
"""The p at which -p log p is largest."""


@dataclass(frozen=True)
class Accuracy:
    """Error bounds of numbers of a type, relative and absolute, and the type's largest finite number."""

    relative: float
    absolute: float
    largest: float

    @classmethod
    def of(cls, dtype: Any, units: float | None = None) -> Self:
        """Return the error bound of a type for ``units`` ULP, by default for the guaranteed ones (``UNITS``)."""
        info = np.finfo(dtype)
        units = UNITS[info.dtype.name] if units is None else units
        # One unit is at most eps times the number, and at least the smallest subnormal. For float64, subnormal
        # numbers have no guaranteed accuracy.
        least = float(info.tiny) if info.dtype == np.float64 else units * float(info.smallest_subnormal)
        return cls(units * float(info.eps), least, float(info.max))

    def around(self, values: Array) -> Interval:
        """Return the interval of the exact value of each non-negative written value."""
        with np.errstate(over="ignore", invalid="ignore"):
            low = values * ((1 - ROUNDING) / (1 + self.relative)) - self.absolute
            high = values * ((1 + ROUNDING) / (1 - self.relative)) + self.absolute
        # Values above the largest finite number were written as infinity.
        low[values == np.inf] = self.largest * (1 - 2 * self.relative)
        return np.maximum(low, 0.0, out=low), high


EXACT_NUMBERS = Accuracy(0.0, 0.0, math.inf)
"""The accuracy of whole numbers."""


def sum_bound(dtype: Any, n_classes: int) -> float:
    """Return the largest possible distance from 1 of the sum of a row's probabilities.

    The relative errors add up to the same relative error of 1; each probability adds its absolute error.
    """
    accuracy = Accuracy.of(dtype)
    return accuracy.relative + n_classes * accuracy.absolute


def log_sum_bound(dtype: Any, n_classes: int) -> float:
    """Return the largest possible distance from 1 of the sum of the exponentials of a row's log-probabilities.

    An error of d in log p is an error of d p in the sum. As d is proportional to log p, the sum of the errors is
    proportional to the entropy, the sum of -p log p, which is at most log K.
    """
    accuracy = Accuracy.of(dtype)
    return accuracy.relative * math.log(n_classes) + accuracy.absolute + ROUNDING


def sum_deviations(terms: Array, bound: float) -> Array:
    """Return the distance of each row's sum from 1, (n,); sums beyond the bound are recomputed exactly."""
    found: Array = np.abs(terms.sum(axis=1, dtype=np.longdouble) - 1).astype(np.float64)
    for row in np.flatnonzero(~(found <= bound)):
        if np.isfinite(terms[row]).all():
            found[row] = abs(math.fsum([*terms[row].tolist(), -1.0]))
    return found


def value_ranges(n_classes: int) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest value of each output with one number per row."""
    return {
        "loss": (0.0, math.inf),
        "pred": (0, n_classes - 1),
        "sample": (0, n_classes - 1),
        "confidence": (1 / n_classes, 1.0),
        "margin": (0.0, 1.0),
        "entropy": (0.0, math.log(n_classes)),
        "logsumexp": (-math.inf, math.inf),
        "rank": (1, n_classes),
        "el2n": (0.0, math.sqrt(2)),
    }


class ProbabilityIntervals:
    """Intervals of exact values that follow from written probabilities or log-probabilities. Computed on demand.

    Parameters
    ----------
    values : (n, K) float64
        The written values.
    dtype
        The type that they were written in.
    logs
        Whether they are log-probabilities.
    of_second
        Whether they are (n, 1), those of the second of two classes.
    """

    def __init__(self, values: Array, dtype: Any, *, logs: bool = False, of_second: bool = False) -> None:
        self._values = values
        self._dtype = dtype
        self._logs = logs
        self._of_second = of_second

    @cached_property
    def probs(self) -> Interval:
        """The interval of each probability."""
        low, high = self._written_probs
        if not self._of_second:
            return low, high
        others = np.maximum(1 - high - ROUNDING, 0.0), np.minimum(1 - low + ROUNDING, 1.0)
        return np.hstack([others[0], low]), np.hstack([others[1], high])

    @property
    def _written_probs(self) -> Interval:
        if self._logs:
            least, most = self._written_logs
            low, high = np.exp(-most) * (1 - ROUNDING) - TINY, np.exp(-least) * (1 + ROUNDING) + TINY
            return np.maximum(low, 0.0), np.minimum(high, 1.0)
        low, high = Accuracy.of(self._dtype).around(self._values)
        return low, np.minimum(high, 1.0)

    @property
    def _written_logs(self) -> Interval:
        return Accuracy.of(self._dtype).around(-self._values)

    @cached_property
    def neg_log_probs(self) -> Interval:
        """The interval of each negative log-probability."""
        if self._logs and not self._of_second:
            return self._written_logs
        low, high = self.probs
        with np.errstate(divide="ignore"):
            least, most = -np.log(high), -np.log(low)
        return np.maximum(least * (1 - ROUNDING) - ROUNDING, 0.0), most * (1 + ROUNDING) + ROUNDING

    def rows(self, kept: NDArray[np.bool_]) -> ProbabilityIntervals:
        """Return the same object for some of the rows."""
        return self if kept.all() else self._of(self._values[kept])

    def _of(self, values: Array) -> ProbabilityIntervals:
        return ProbabilityIntervals(values, self._dtype, logs=self._logs, of_second=self._of_second)

    def losses(self, shares: Array) -> Interval:
        """Return the interval of each row's loss, given the (n, K) weight of each class in it."""
        error = _sum_error(shares)
        least, most = self.neg_log_probs
        return _dot(shares, least) * (1 - error), _dot(shares, most) * (1 + error)

    def label_losses(self, labels: NDArray[np.int64]) -> Interval:
        """Return the interval of each row's plain loss (no weights, no smoothing), given (n,) class indices."""
        picked, at = self, labels[:, None]
        if not self._of_second:
            picked, at = self._of(np.take_along_axis(self._values, at, axis=1)), np.zeros_like(at)
        least, most = (np.take_along_axis(side, at, axis=1)[:, 0] for side in picked.neg_log_probs)
        return least, most

    def class_losses(self, on: Array, off: Array) -> Interval:
        """Return the interval of each class's binary cross-entropy, (n, K).

        ``on`` and ``off`` are the weights of -log p and of -log(1 - p), (n, K).
        """
        low, high = self.probs
        least, most = self.neg_log_probs
        with np.errstate(divide="ignore"):
            least_off, most_off = -np.log1p(-low), -np.log1p(-high)
        least_off, most_off = least_off * (1 - ROUNDING), most_off * (1 + ROUNDING)
        return _products(on, least) + _products(off, least_off), _products(on, most) + _products(off, most_off)

    def entropy(self) -> Interval:
        """Return the interval of each row's entropy."""
        low, high = self.probs
        at_low, at_high = _entropy_terms(low), _entropy_terms(high)
        most = np.where((low < PEAK) & (high > PEAK), PEAK, np.maximum(at_low, at_high))
        error = _sum_error(low)
        return np.minimum(at_low, at_high).sum(axis=1) * (1 - error), most.sum(axis=1) * (1 + error)

    def el2n(self, labels: NDArray[np.int64]) -> Interval:
        """Return the interval of each row's Euclidean distance to its one-hot label."""
        rows = np.arange(len(labels))
        found = []
        for side, other in (self.probs, self.probs[::-1]):
            squares = side * side
            squares[rows, labels] = (1 - other[rows, labels]) ** 2
            found.append(np.sqrt(squares.sum(axis=1)))
        error = _sum_error(self._values)
        return found[0] * (1 - error), found[1] * (1 + error)

    def ranks(self, labels: NDArray[np.int64]) -> Interval:
        """Return the interval of the rank of each row's label."""
        low, high = self.probs
        rows = np.arange(len(labels))
        least = (low > high[rows, labels][:, None]).sum(axis=1) + 1
        return least, (high >= low[rows, labels][:, None]).sum(axis=1)

    def confidence(self) -> Interval:
        """Return the interval of each row's largest probability."""
        low, high = self.probs
        return low.max(axis=1), high.max(axis=1)

    def margin(self) -> Interval:
        """Return the interval of each row's margin: the largest probability minus the second largest."""
        lowest, highest = (np.partition(side, -2, axis=1)[:, -2:] for side in self.probs)
        return np.maximum(lowest[:, 1] - highest[:, 0], 0.0), highest[:, 1] - lowest[:, 0]


def sum_of(values: Array, accuracy: Accuracy) -> Interval:
    """Return the interval of the sum of each row's exact values, given the written ones, (n, K); NaN adds nothing."""
    error = _sum_error(values)
    low, high = accuracy.around(np.where(np.isnan(values), 0.0, values))
    return low.sum(axis=1) * (1 - error), high.sum(axis=1) * (1 + error)


def outside(values: Array, low: Array, high: Array, accuracy: Accuracy) -> NDArray[np.bool_]:
    """Return which written values are wrong, given the intervals of the exact ones."""
    least, most = accuracy.around(values)
    return ~((least <= high) & (most >= low))


def _sum_error(terms: Array) -> float:
    """Return the relative rounding error of a sum over a row."""
    return ROUNDING * (4 + math.log2(terms.shape[1] + 1))


def _dot(weights: Array, values: Array) -> Array:
    total: Array = _products(weights, values).sum(axis=1)
    return total


def _products(weights: Array, values: Array) -> Array:
    """Return the products; 0 times infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(weights == 0, 0.0, weights * values)


def _entropy_terms(probs: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(probs == 0, 0.0, -probs * np.log(probs))

"""How far rounding may take numbers that belong together: what is written of a row, judged by itself.

A written probability lies within so many units in the last place (ULP) of the exact one. From that alone follows how
far the sum of a row may be from 1, and between which two numbers a loss must lie. Everything here is an interval that
holds whatever the logits were, so that what lies outside of it is wrong. Arrays in, arrays out; knows no columns.
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
"""The two numbers between which a value lies, for every value."""

UNITS = {"float16": 1.0, "float32": 3.0, "float64": 3.0}
"""The ULP that a number may be off: what is promised; float16 is float32 rounded, half a unit and a little."""

WORK = 8 * float(np.finfo(np.float64).eps)
"""What a few operations in float64 may lose here, relative to their results."""

TINY = float(np.finfo(np.float64).tiny)
"""Below, float64 loses digits, and so do exponentials."""

PEAK = 1 / math.e
"""Where -p log p is largest."""


@dataclass(frozen=True)
class Accuracy:
    """How far from its exact value a written number may be: relative to it, and at least."""

    relative: float
    absolute: float
    largest: float

    @classmethod
    def of(cls, dtype: Any, units: float | None = None) -> Self:
        """Return what holds of a type, for the ULP that are promised or for others."""
        info = np.finfo(dtype)
        units = UNITS[info.dtype.name] if units is None else units
        # One unit is at most eps times the number, and nowhere smaller than the smallest subnormal. In float64, nothing
        # is promised of subnormal numbers.
        least = float(info.tiny) if info.dtype == np.float64 else units * float(info.smallest_subnormal)
        return cls(units * float(info.eps), least, float(info.max))

    def around(self, values: Array) -> Interval:
        """Return between which two numbers the exact values of non-negative ones lie."""
        with np.errstate(over="ignore", invalid="ignore"):
            low = values * ((1 - WORK) / (1 + self.relative)) - self.absolute
            high = values * ((1 + WORK) / (1 - self.relative)) + self.absolute
        # What was too large for the type became infinite.
        low[values == np.inf] = self.largest * (1 - 2 * self.relative)
        return np.maximum(low, 0.0, out=low), high


def sum_bound(dtype: Any, n_classes: int) -> float:
    """Return how far the sum of a row's probabilities may be from 1.

    Each is off by a share of itself, and together that is the same share of 1; a subnormal one is off by units.
    """
    accuracy = Accuracy.of(dtype)
    return accuracy.relative + n_classes * accuracy.absolute


def log_sum_bound(dtype: Any, n_classes: int) -> float:
    """Return how far the sum of the exponentials of a row's log-probabilities may be from 1.

    An error of d in log p is one of d p in the sum, d is a share of log p, and the sum of -p log p, the entropy, is
    log K at most.
    """
    accuracy = Accuracy.of(dtype)
    return accuracy.relative * math.log(n_classes) + accuracy.absolute + WORK


def off_one(terms: Array, bound: float) -> Array:
    """Return how far the sum of each row is from 1, (n,); sums beyond the bound are exact."""
    found: Array = np.abs(terms.sum(axis=1, dtype=np.longdouble) - 1).astype(np.float64)
    for row in np.flatnonzero(~(found <= bound)):
        if np.isfinite(terms[row]).all():
            found[row] = abs(math.fsum([*terms[row].tolist(), -1.0]))
    return found


class Evidence:
    """What written probabilities, or their logarithms, say of the exact ones; worked out when it is asked for.

    Parameters
    ----------
    values : (n, K) float64
        As they are written.
    dtype
        The type they are written in.
    logs
        Whether they are log-probabilities.
    """

    def __init__(self, values: Array, dtype: Any, *, logs: bool = False) -> None:
        self._values = values
        self._dtype = dtype
        self._logs = logs

    @cached_property
    def probs(self) -> Interval:
        """Between which numbers the probabilities lie."""
        if self._logs:
            least, most = self.costs
            low, high = np.exp(-most) * (1 - WORK) - TINY, np.exp(-least) * (1 + WORK) + TINY
            return np.maximum(low, 0.0), np.minimum(high, 1.0)
        low, high = Accuracy.of(self._dtype).around(self._values)
        return low, np.minimum(high, 1.0)

    @cached_property
    def costs(self) -> Interval:
        """Between which numbers minus their logarithms lie."""
        if self._logs:
            return Accuracy.of(self._dtype).around(-self._values)
        low, high = self.probs
        with np.errstate(divide="ignore"):
            least, most = -np.log(high), -np.log(low)
        return np.maximum(least * (1 - WORK) - WORK, 0.0), most * (1 + WORK) + WORK

    def rows(self, kept: NDArray[np.bool_]) -> Evidence:
        """Return what is known of some rows."""
        return self if kept.all() else Evidence(self._values[kept], self._dtype, logs=self._logs)

    def losses(self, shares: Array) -> Interval:
        """Return between which numbers the losses lie, given the (n, K) share of each class in them."""
        lost = _lost(shares)
        least, most = self.costs
        return _dot(shares, least) * (1 - lost), _dot(shares, most) * (1 + lost)

    def label_losses(self, labels: NDArray[np.int64]) -> Interval:
        """Return between which numbers the plain losses of (n,) class indices lie."""
        picked = np.take_along_axis(self._values, labels[:, None], axis=1)
        least, most = Evidence(picked, self._dtype, logs=self._logs).costs
        return least[:, 0], most[:, 0]

    def entropy(self) -> Interval:
        """Return between which numbers the entropies lie."""
        low, high = self.probs
        at_low, at_high = _surprise(low), _surprise(high)
        most = np.where((low < PEAK) & (high > PEAK), PEAK, np.maximum(at_low, at_high))
        lost = _lost(low)
        return np.minimum(at_low, at_high).sum(axis=1) * (1 - lost), most.sum(axis=1) * (1 + lost)

    def distance(self, labels: NDArray[np.int64]) -> Interval:
        """Return between which numbers the Euclidean distances to the one-hot labels lie."""
        rows = np.arange(len(labels))
        found = []
        for side, other in (self.probs, self.probs[::-1]):
            squares = side * side
            squares[rows, labels] = (1 - other[rows, labels]) ** 2
            found.append(np.sqrt(squares.sum(axis=1)))
        lost = _lost(self._values)
        return found[0] * (1 - lost), found[1] * (1 + lost)

    def leads(self) -> Interval:
        """Return between which numbers the lead of the most probable class over the second lies."""
        if self._values.shape[1] == 1:
            return self.probs[0][:, 0], self.probs[1][:, 0]
        lowest, highest = (np.partition(side, -2, axis=1)[:, -2:] for side in self.probs)
        return np.maximum(lowest[:, 1] - highest[:, 0], 0.0), highest[:, 1] - lowest[:, 0]


def outside(values: Array, low: Array, high: Array, accuracy: Accuracy) -> NDArray[np.bool_]:
    """Return which written values cannot be right, if the exact ones lie between two numbers."""
    least, most = accuracy.around(values)
    return ~((least <= high) & (most >= low))


def _lost(terms: Array) -> float:
    """Return what a sum over a row may lose to rounding, relative to it."""
    return WORK * (4 + math.log2(terms.shape[1] + 1))


def _dot(shares: Array, costs: Array) -> Array:
    with np.errstate(invalid="ignore"):
        total: Array = np.where(shares == 0, 0.0, shares * costs).sum(axis=1)
    return total


def _surprise(probs: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(probs == 0, 0.0, -probs * np.log(probs))

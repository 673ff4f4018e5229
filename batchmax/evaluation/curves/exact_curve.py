"""The exact curve of a class: the keys of positives and of negatives, sorted, and areas from their exact counts."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from batchmax.kernels.curves import PAIRS, SUMS, curve_sums, index_of_weight, split_keys, thin_curve
from batchmax.kernels.sorting import sort_keys
from batchmax.runtime.spilled_array import SharedMemory, SpilledArray

Array = NDArray[Any]

RANGES = 64
"""Ranges of scores that are summed in parallel, fixed so that sums don't depend on threads."""
MOST_POINTS = 4000
TOLERANCE = 0.001
"""Largest error of linear interpolation between the points of a curve."""
ROUNDING = 1e-14
"""Variances below this share of the squared mean are rounding errors."""


@dataclass(frozen=True)
class Areas:
    """The areas under the curves of a class; None where a curve isn't defined.

    Attributes
    ----------
    positives, negatives
        The weights of the rows.
    auroc, average_precision, other_average_precision, partial_auroc
        The metrics; ``other_average_precision`` is that of the other rows, if small scores come first.
    bounds
        For binned scores, by metric: the bounds of the exact value.
    placement_variances
        For exact scores without weights: the variances of the placements of the positives, and of the others. The
        placement of a positive is the share of the others below it, that of another row the share of the positives
        above it; ties count half.
    """

    positives: float
    negatives: float
    auroc: float | None
    average_precision: float | None
    other_average_precision: float | None
    partial_auroc: float | None
    bounds: dict[str, tuple[float, float]] | None = None
    placement_variances: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a curve, in descending order of scores: a row is positive if its score is at least ``scores``."""

    scores: Array
    true_positives: Array
    false_positives: Array


class ExactCurve:
    """Collects the scores of a class.

    Parameters
    ----------
    dtype
        The type of the scores.
    is_weighted
        Whether rows have weights.
    memory
        The memory for keys; they move to temporary files if they don't fit.
    """

    def __init__(self, dtype: DTypeLike, memory: SharedMemory, *, is_weighted: bool) -> None:
        self._key_type = np.dtype(np.uint32 if np.dtype(dtype) == np.float32 else np.uint64)
        self._keys = [SpilledArray(self._key_type, memory) for _ in range(2)]
        self._weights = [SpilledArray(np.float64, memory) for _ in range(2 if is_weighted else 0)]

    def add(self, scores: Array, labels: Array, counted: Array, positive: int, weights: Array) -> None:
        """Add the counted rows of a batch; those with the label ``positive`` are positives.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        room = len(scores) + 1
        keys = [one.room(room) for one in self._keys]
        copies = [one.room(room) for one in self._weights] or [np.zeros(0)] * 2
        bits = scores.view(self._key_type)
        found = split_keys(bits, labels, counted, positive, weights, keys[0], copies[0], keys[1], copies[1])
        del keys, copies
        for which, count in enumerate(found):
            for arrays in (self._keys, self._weights):
                if arrays:
                    arrays[which].advance(count)

    def sort(self) -> None:
        """Sort the scores; no more can be added."""
        for which in range(2):
            sort_keys(self._keys[which].values(), self._weights[which].values() if self._weights else np.zeros(0))

    def close(self) -> None:
        """Free the memory and the files."""
        for one in (*self._keys, *self._weights):
            one.close()

    def areas(self, max_fpr: float | None) -> Areas:
        """Return the areas; those of the scores that were sorted."""
        keys, others, key_weights, other_weights = self._sorted()
        positives, negatives = _weight(keys, key_weights), _weight(others, other_weights)
        pairs, ap, other_ap, squares, other_squares = _sums(keys, others, key_weights, other_weights)
        is_defined = positives > 0 and negatives > 0
        auroc = pairs / (positives * negatives) if is_defined else None
        return Areas(
            positives,
            negatives,
            auroc,
            ap / positives if positives else None,
            other_ap / negatives if negatives else None,
            auroc if max_fpr == 1.0 or not is_defined else None if max_fpr is None else self._partial(max_fpr),
            placement_variances=None
            if auroc is None or self._weights
            else (
                _variance(auroc, positives, negatives, squares),
                _variance(auroc, negatives, positives, other_squares),
            ),
        )

    def points(self) -> Points:
        """Return at most 4,000 points of the curves; see :func:`batchmax.kernels.curves.thin_curve`.

        If more points were needed for an error of 0.001, the error is doubled until they suffice.
        """
        keys, others, key_weights, other_weights = self._sorted()
        totals = _weight(keys, key_weights), _weight(others, other_weights)
        thresholds, counts = np.empty(MOST_POINTS - 1, self._key_type), np.empty((MOST_POINTS - 1, 2))
        tolerance, n = TOLERANCE, MOST_POINTS
        while n > len(thresholds):
            n = thin_curve(keys, others, key_weights, other_weights, *totals, tolerance, thresholds, counts)
            tolerance *= 2.0
        return Points(_scores_of(thresholds[:n]), counts[:n, 0].copy(), counts[:n, 1].copy())

    def _sorted(self) -> tuple[Array, Array, Array, Array]:
        keys, others = (one.values() for one in self._keys)
        if not self._weights:
            return keys, others, np.zeros(0), np.zeros(0)
        return keys, others, self._weights[0].values(), self._weights[1].values()

    def _partial(self, max_fpr: float) -> float:
        """Return the standardized area up to a false positive rate below 1 (McClish 1989), as scikit-learn does."""
        keys, others, key_weights, other_weights = self._sorted()
        positives, negatives = _weight(keys, key_weights), _weight(others, other_weights)
        limit = max_fpr * negatives
        if len(other_weights):
            at = index_of_weight(other_weights, limit)
        else:
            at = max(len(others) - 1 - math.floor(limit), 0)
        # The scores above the one at which the rate exceeds the limit, and those equal to it.
        score = others[at]
        first, last = (np.searchsorted(keys, score, side) for side in ("left", "right"))
        other_first, other_last = (np.searchsorted(others, score, side) for side in ("left", "right"))
        above = _sums(keys[last:], others[other_last:], key_weights[last:], other_weights[other_last:])[PAIRS]
        tp = _weight(keys[last:], key_weights[last:])
        fp = _weight(others[other_last:], other_weights[other_last:])
        more_tp = _weight(keys[first:last], key_weights[first:last])
        more_fp = _weight(others[other_first:other_last], other_weights[other_first:other_last])
        rest = limit - fp
        area = (above + rest * (tp + 0.5 * more_tp * rest / more_fp)) / (positives * negatives)
        return standardized(area, max_fpr)


def standardized(area: float, max_fpr: float) -> float:
    """Return an area under the ROC up to a false positive rate, scaled so that chance is 0.5 and the best is 1."""
    least = 0.5 * max_fpr * max_fpr
    return 0.5 * (1.0 + (area - least) / (max_fpr - least))


def _variance(auroc: float, n: float, others: float, sum_of_squares: float) -> float:
    """Return the variance of n placements, from the sum of squares of the numbers of rows on the wrong side."""
    missed = 1.0 - auroc
    variance = sum_of_squares / n / (others * others) - missed * missed
    return variance if variance > ROUNDING * missed * missed else 0.0


def _weight(keys: Array, weights: Array) -> float:
    return float(weights.sum()) if len(weights) else float(len(keys))


def _sums(keys: Array, others: Array, key_weights: Array, other_weights: Array) -> list[float]:
    """Return the sums of :func:`batchmax.kernels.curves.curve_sums` over all scores."""
    longer = keys if len(keys) >= len(others) else others
    if not len(longer):
        return [0.0] * SUMS
    cuts = longer[np.arange(1, RANGES) * len(longer) // RANGES]
    ends, other_ends = (
        np.concatenate([[0], np.searchsorted(one, cuts, "left"), [len(one)]]).astype(np.int64) for one in (keys, others)
    )
    above = np.zeros((RANGES + 1, 2))
    for which, (one, weights, limits) in enumerate(((keys, key_weights, ends), (others, other_weights, other_ends))):
        of_ranges = [_weight(one[a:b], weights[a:b]) for a, b in itertools.pairwise(limits)]
        for r in range(RANGES):
            above[r, which] = math.fsum(of_ranges[r:])
    sums, losts = np.empty((RANGES, SUMS)), np.empty((RANGES, SUMS))
    curve_sums(keys, others, key_weights, other_weights, ends, other_ends, above, sums, losts)
    return [math.fsum([*sums[:, at], *losts[:, at]]) for at in range(SUMS)]


def _scores_of(keys: Array) -> Array:
    """Return the scores of keys."""
    bits = keys.dtype.itemsize * 8
    top = keys.dtype.type(1 << (bits - 1))
    return np.where(keys & top, keys ^ top, ~keys).view(np.float32 if bits == 32 else np.float64)

"""The curve of a class from a histogram of its scores: approximate areas, and bounds that contain the exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.errors import UsageError
from batchmax.evaluation.curves.exact_curve import Areas, standardized
from batchmax.kernels.curves import EXPONENTS, count_bins
from batchmax.kernels.elementwise import log1p_values

Array = NDArray[Any]

BINS = 1 << 22
"""Bins of all classes together: two float64 each, 64 MiB."""
SLACK = 1e-12
"""More than what rounding changes in a bound."""


def digits_of(n_classes: int) -> int:
    """Return how many binary digits of a score its bin depends on, after the first.

    Raises
    ------
    UsageError
        There are too many classes.
    """
    bins = BINS // n_classes
    if bins < 2 * EXPONENTS:
        what = f"{n_classes:,} classes are too many for binned curves"
        raise UsageError(what, where="--curves", remedy="use --curves none")
    return (bins // (2 * EXPONENTS)).bit_length() - 1


class BinnedCurve:
    """Counts the scores of a class in bins, of ascending scores.

    Parameters
    ----------
    digits
        See :func:`digits_of`.
    """

    def __init__(self, digits: int) -> None:
        self._digits = digits
        self._counts = np.zeros((2, 2 * EXPONENTS << digits))

    def add(self, scores: Array, labels: Array, counted: Array, positive: int, weights: Array) -> None:
        """Add the counted rows of a batch; those with the label ``positive`` are positives."""
        count_bins(scores, labels, counted, positive, weights, self._digits, self._counts)

    @classmethod
    def joined(cls, curves: Sequence[BinnedCurve]) -> BinnedCurve:
        """Return the curve of the rows of several classes together."""
        found = cls(curves[0]._digits)  # noqa: SLF001 - of the same class
        for one in curves:
            found._counts += one._counts  # noqa: SLF001
        return found

    def areas(self, max_fpr: float | None) -> Areas:
        """Return the areas, the scores of a bin taken as equal, and bounds of the exact ones."""
        # In descending order of scores.
        used = np.flatnonzero(self._counts.any(axis=0))[::-1]
        p, n = self._counts[:, used]
        positives, negatives = float(p.sum()), float(n.sum())
        tp, fp = np.cumsum(p), np.cumsum(n)
        bounds: dict[str, tuple[float, float]] = {}
        auroc = partial = ap = other_ap = None
        if positives > 0 and negatives > 0:
            below = negatives - fp
            low, high = (float((p * one).sum()) / (positives * negatives) for one in (below, below + n))
            auroc, bounds["auroc"] = 0.5 * (low + high), _widened(low, high)
        if positives > 0:
            ap = float((p * tp)[p > 0] @ (1.0 / (tp + fp)[p > 0])) / positives
            bounds["average_precision"] = _precision_bounds(p, tp, fp, fp - n, positives)
        if negatives > 0:
            tn, fn = negatives - fp + n, positives - tp + p
            other_ap = float((n * tn)[n > 0] @ (1.0 / (tn + fn)[n > 0])) / negatives
        if max_fpr is not None and auroc is not None:
            width = np.clip(max_fpr * negatives - (fp - n), 0.0, n)
            share = np.divide(width, n, out=np.zeros(len(n)), where=n > 0)
            areas = (width * one for one in (tp - p, tp, tp - p + 0.5 * p * share))
            low, high, middle = (float(one.sum()) / (positives * negatives) for one in areas)
            if max_fpr < 1.0:
                low, high, middle = (standardized(one, max_fpr) for one in (low, high, middle))
            partial, bounds["partial_auroc"] = middle, _widened(low, high)
        return Areas(positives, negatives, auroc, ap, other_ap, partial, bounds)


def _precision_bounds(p: Array, tp: Array, fp: Array, fp_before: Array, positives: float) -> tuple[float, float]:
    """Return bounds of the average precision.

    The precision at a positive is smallest if all negatives of its bin come first, and then its positives one by one;
    for the smallest steps, their sum is an integral. It is largest if all positives come first, with equal scores.
    """
    used = p > 0
    p, tp, fp, fp_before = p[used], tp[used], fp[used], fp_before[used]
    start = tp - p + fp
    logs = np.empty(len(p))
    log1p_values(np.divide(p, start, out=np.zeros(len(p)), where=start > 0), logs)
    lost = np.where(fp > 0, fp * logs, 0.0)
    low = float((p - lost).sum()) / positives
    high = float((p * (tp / (tp + fp_before))).sum()) / positives
    return _widened(low, high)


def _widened(low: float, high: float) -> tuple[float, float]:
    return max(0.0, low - SLACK), min(1.0, high + SLACK)

"""Confidence intervals of areas under curves: DeLong's for AUROC, and jackknife intervals for everything else.

The standard errors of the jackknife come from bins of scores, the estimates don't. A bin is a range of log-odds, so an
area from bins differs from the exact one if many rows share a bin; there is no interval if the difference isn't small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import AREAS
from batchmax.evaluation.curves.exact_curve import Areas
from batchmax.evaluation.distributions import normal_quantile, t_quantile
from batchmax.evaluation.intervals import FEWEST_GROUPS, JACKKNIFE, WILSON, jackknife_bounds, standard_errors, wilson
from batchmax.evaluation.jackknife import MOST_BYTES
from batchmax.evaluation.metric_intervals import Interval, MetricIntervals, listed
from batchmax.evaluation.metrics import RowMetrics
from batchmax.kernels.jackknife_sums import GROUPS
from batchmax.kernels.score_bins import AREAS as N_AREAS
from batchmax.kernels.score_bins import (
    AUROC,
    OTHER_PRECISION,
    OTHERS,
    POSITIVES,
    PRECISION,
    areas_without_groups,
    count_group_bins,
)

Array = NDArray[Any]

DELONG = "delong"
MOST_BINS, FEWEST_BINS = 4096, 64
FEW_ROWS, SMOOTHING = 50, 0.5
"""With fewer rows of a class than this, so much of a row is added to each."""
LARGEST_DIFFERENCE = 0.05
"""Largest difference between an area from bins and the exact one, in log-odds, for a standard error from bins."""


def bins_of(n_curves: int, most_bytes: int = MOST_BYTES) -> int:
    """Return the number of bins per curve, a power of 2; 0 if the memory isn't enough for a useful number."""
    fits = most_bytes // (8 * GROUPS * 2 * max(1, n_curves))
    return 0 if fits < FEWEST_BINS else min(MOST_BINS, 1 << (fits.bit_length() - 1))


class ScoreGroupSums:
    """Counts the scores of each group in bins; see :class:`batchmax.evaluation.jackknife.GroupSums`.

    Parameters
    ----------
    classes
        The classes that have curves.
    are_odds
        As for :func:`batchmax.kernels.score_bins.count_group_bins`.
    """

    def __init__(self, classes: list[int], *, are_odds: bool) -> None:
        self._classes, self._are_odds = classes, are_odds
        self._n_bins = bins_of(len(classes))
        self._counts = [np.zeros((GROUPS, 2, self._n_bins)) for _ in classes]
        self._scores: Array = np.empty((len(classes), 0))
        self._places: Array | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The counts of each class, (256, 2, b) float64."""
        return tuple(self._counts)

    def prepare(self, some: RowMetrics, scores: Array) -> None:
        """Set the scores of the rows that are added next: (n_classes, n) of all rows, or of the counted ones."""
        self._scores, self._places = scores, None
        if scores.shape[1] != len(some.counted):
            self._places = np.concatenate([[0], np.cumsum(some.counted)])

    def add(self, some: RowMetrics, rows: slice, groups: Array) -> None:
        """Add some of the rows."""
        labels, weights, counted = some.labels[rows], some.weights[rows], some.counted[rows]
        within = rows
        if self._places is not None:
            within = slice(self._places[rows.start], self._places[rows.stop])
            labels, weights, groups = labels[counted], weights[counted] if len(weights) else weights, groups[counted]
            counted = counted[counted]
        for number, scores, counts in zip(self._classes, self._scores, self._counts, strict=True):
            count_group_bins(scores[within], self._are_odds, labels, counted, number, weights, groups, counts)


def binned_areas(counts: Array, used: Array) -> tuple[Array, Array]:
    """Return the areas under a curve from the counts of groups, (256, 2, b): of all, (1, 5), and without each group.

    The latter are of the groups with these numbers, (g, 5); see
    :func:`batchmax.kernels.score_bins.areas_without_groups`.
    """
    total = counts.sum(axis=0)
    bins = np.flatnonzero(total.any(axis=0))
    total, groups = np.ascontiguousarray(total[:, bins]), np.ascontiguousarray(counts[..., bins][used])
    whole, left_out = np.empty((1, N_AREAS)), np.empty((len(groups), N_AREAS))
    areas_without_groups(total, np.zeros((1, *total.shape)), whole)
    areas_without_groups(total, groups, left_out)
    return whole, left_out


@dataclass
class AreaIntervals:
    """The intervals: of all rows by metric, nested like the metrics, and of each class."""

    of_all: dict[str, Any] = field(default_factory=dict)
    of_classes: list[dict[str, Interval | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def area_intervals(
    areas: list[Areas],
    averages: dict[str, dict[str, float | None]],
    sums: ScoreGroupSums | None,
    computed: MetricIntervals,
) -> AreaIntervals:
    """Return the intervals of areas.

    Parameters
    ----------
    areas
        The areas of each class that has a curve: of the positive class of two, or of all.
    averages
        ``auroc`` and ``average_precision`` of ``macro`` and ``weighted``.
    sums
        The scores of groups; None if there were too many classes.
    computed
        The intervals of other metrics, whose groups are the same.
    """
    found = AreaIntervals()
    curves = [_Curve(one, None if sums is None else sums.arrays[at], computed) for at, one in enumerate(areas)]
    found.of_classes = [{"auroc": one.auroc(), "average_precision": one.average_precision()} for one in curves]
    if computed.positive is not None:
        found.of_all = dict(found.of_classes[0])
        both = [{"auroc": found.of_all["auroc"], "average_precision": curves[0].other_average_precision()}]
        found.of_classes = both + found.of_classes if computed.positive == 1 else found.of_classes + both
    if any(one.is_coarse for one in curves):
        found.notes.append(
            "some areas under curves have no interval: their scores are so far from 0, or so close together, that bins "
            "of scores don't distinguish them"
        )
    if sums is None:
        found.notes.append(
            f"average precision and averages over {len(areas):,} curves have no intervals, which would need too much "
            "memory"
        )
    if sums is None or not computed.is_possible:
        return found
    for average, values in averages.items():
        intervals = {name: _of_average(name, average, values[name], curves, computed) for name in AREAS}
        if computed.positive is not None:
            intervals["auroc"] = found.of_all["auroc"]
        found.of_all[average] = intervals
    return found


class _Curve:
    """The areas of a class, and those without each group."""

    def __init__(self, areas: Areas, counts: Array | None, computed: MetricIntervals) -> None:
        self.areas, self._computed = areas, computed
        self.left_out: Array | None = None
        self.is_coarse = False
        if counts is None or not computed.is_possible:
            return
        self.binned, self.left_out = binned_areas(counts, computed.used)
        self.used = [int(np.count_nonzero(counts[:, which].any(axis=1))) for which in range(2)]

    def auroc(self) -> Interval | None:
        """Return the interval of the AUROC."""
        areas, computed = self.areas, self._computed
        if areas.auroc is None:
            return None
        smaller = min(areas.positives, areas.negatives)
        if not computed.independent or areas.placement_variances is None:
            return self._jackknifed(areas.auroc, AUROC, min(self.used) if self.left_out is not None else 0)
        if areas.auroc in {0.0, 1.0}:
            return _wilson_at_end(areas.auroc, smaller, computed.level)
        return delong(areas.auroc, (areas.positives, areas.negatives), areas.placement_variances, computed.level)

    def average_precision(self) -> Interval | None:
        """Return the interval of the average precision."""
        return self._precision(self.areas.average_precision, PRECISION, self.areas.positives, 0)

    def other_average_precision(self) -> Interval | None:
        """Return that of the other rows, if small scores come first."""
        return self._precision(self.areas.other_average_precision, OTHER_PRECISION, self.areas.negatives, 1)

    def _precision(self, value: float | None, which: int, n: float, of: int) -> Interval | None:
        if value is None:
            return None
        if self._computed.independent and value == 1.0:
            return _wilson_at_end(value, n, self._computed.level)
        return self._jackknifed(value, which, self.used[of] if self.left_out is not None else 0)

    def _jackknifed(self, value: float, which: int, used: int) -> Interval | None:
        """Return the jackknife interval; ``used`` is the number of groups that have rows of the class it is about."""
        if self.left_out is None or used < FEWEST_GROUPS:
            return None
        if value in {0.0, 1.0}:
            # There is no variation. Every group has several clusters if there are more clusters than groups.
            n = used * (self._computed.n_units / len(self.left_out) if self._computed.has_clusters else 1.0)
            return _wilson_at_end(value, n, self._computed.level)
        if not is_near(float(self.binned[0, which]), value):
            self.is_coarse = True
            return None
        sizes, level = (self.areas.positives, self.areas.negatives), self._computed.level
        # Of rows with weights, the sizes aren't numbers of rows.
        if which == AUROC and self.areas.placement_variances is not None and 1.0 < min(sizes) < FEW_ROWS:
            error = float(standard_errors(self.left_out[:, which : which + 1])[0])
            center, more = _with_more_rows(value, sizes, SMOOTHING)
            t = t_quantile(0.5 + 0.5 * level, len(self.left_out) - 1)
            return _around(center, error * error + more, t, value, JACKKNIFE) if error > 0.0 else None
        return self._computed.jackknifed(np.array([value]), self.left_out[:, which], "unit")


def delong(auroc: float, sizes: tuple[float, float], variances: tuple[float, float], level: float) -> Interval | None:
    """Return the interval of the AUROC of independent rows (DeLong et al. 1988, Biometrics 44, 837-845).

    If there are few rows of a class, half a row of each class is added, in the middle of the other class. Otherwise,
    the variance of few rows that are all placed well is too small: of 15 positives, 90 % of intervals would contain the
    actual AUROC instead of 95 %.

    Parameters
    ----------
    sizes, variances
        The number of rows, and the variance of their placements, of each of the two classes.
    """
    if min(sizes) < 2 or not any(variances):
        return None
    more = SMOOTHING if min(sizes) < FEW_ROWS else 0.0
    center, squared_error = _with_more_rows(auroc, sizes, more)
    for n, variance in zip(sizes, variances, strict=True):
        squared_error += n * variance / ((n + more) * (n + more - 1.0))
    quantile = normal_quantile(0.5 + 0.5 * level)
    return _around(center, squared_error, quantile, auroc, DELONG)


def _with_more_rows(auroc: float, sizes: tuple[float, float], more: float) -> tuple[float, float]:
    """Return the AUROC with ``more`` rows of each class in the middle of the other, and what they add to its variance.

    The AUROC is that of the smaller class, whose placements change most.
    """
    center = (auroc * min(sizes) + 0.5 * more) / (min(sizes) + more)
    squares = ((n * (auroc - center) ** 2 + more * (0.5 - center) ** 2, n + more) for n in sizes)
    return center, sum(square / (n * (n - 1.0)) for square, n in squares)


def _around(center: float, squared_error: float, quantile: float, value: float, method: str) -> Interval | None:
    """Return the interval around a center, extended to the value itself."""
    bounds = jackknife_bounds(np.array([center]), np.array([math.sqrt(squared_error)]), quantile, "unit")
    interval = listed(*bounds, method)[0]
    if interval is not None:
        interval |= {"lower": min(interval["lower"], value), "upper": max(interval["upper"], value)}
    return interval


def _of_average(
    name: str, average: str, value: float | None, curves: list[_Curve], computed: MetricIntervals
) -> Interval | None:
    """Return the jackknife interval of an average over classes."""
    which = AUROC if name == "auroc" else PRECISION
    left_out = np.stack([one.left_out for one in curves if one.left_out is not None])
    binned = np.stack([one.binned for one in curves])
    if computed.positive is not None:
        # The other class has the same curve, read from its other end.
        left_out, binned = _with_other(left_out), _with_other(binned)
    left_values, values = (averaged(array, which, average) for array in (left_out, binned))
    if value is None or not is_near(float(values[0]), value):
        return None
    return computed.jackknifed(np.array([value]), left_values, "unit")


def _with_other(areas: Array) -> Array:
    """Return the areas of two classes, (2, g, 5), from those of the positive class, (1, g, 5)."""
    other = areas[..., [AUROC, OTHER_PRECISION, PRECISION, OTHERS, POSITIVES]]
    return np.concatenate([areas, other])


def averaged(areas: Array, which: int, average: str) -> Array:
    """Return an average over the classes for which an area is defined, (g,), of (n_classes, g, 5)."""
    values = areas[..., which]
    is_defined = np.isfinite(values)
    weights = np.where(is_defined, 1.0 if average == "macro" else areas[..., POSITIVES], 0.0)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (np.where(is_defined, values, 0.0) * weights).sum(axis=0) / total
    return found


def _wilson_at_end(value: float, n: float, level: float) -> Interval | None:
    """Return Wilson's interval of n rows or clusters that are all right, or all wrong."""
    return listed(*wilson(np.array([value * n]), np.array([n]), level), WILSON)[0]


def is_near(binned: float, exact: float) -> bool:
    """Return whether an area from bins is near enough to the exact one."""
    if not (0.0 < binned < 1.0 and 0.0 < exact < 1.0):
        return False
    return abs(math.log(binned / (1.0 - binned)) - math.log(exact / (1.0 - exact))) <= LARGEST_DIFFERENCE

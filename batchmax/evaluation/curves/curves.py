"""The curves of an evaluation: collects the scores of all rows, and adds the areas under the curves to the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.evaluation.class_metrics import AREAS
from batchmax.evaluation.curves.area_intervals import ScoreGroupSums, area_intervals, bins_of
from batchmax.evaluation.curves.binned_curve import BinnedCurve, digits_of
from batchmax.evaluation.curves.class_scores import ClassScores
from batchmax.evaluation.curves.exact_curve import Areas, ExactCurve, Points
from batchmax.evaluation.metric_intervals import MetricIntervals
from batchmax.evaluation.metrics import RowMetrics
from batchmax.evaluation.result import Evaluation
from batchmax.jobs.row_batch import RowBatch
from batchmax.jobs.threads import use_threads
from batchmax.options.parsing import refuse_if
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.runtime.spilled_array import SharedMemory, SpilledArray

Array = NDArray[Any]

CurveMethod = Literal["exact", "binned", "none"]

MOST_CLASSES = 100
"""Largest number of classes whose curves are computed by default."""
MEMORY_SHARE, MEMORY_SHARE_WITH_GROUPS = 1 / 2, 1 / 6
"""Shares of the memory that the program leaves, which keys may take."""


class Curves:
    """Collects the scores of the rows of an evaluation, batch by batch.

    Parameters
    ----------
    job
        How rows are read.
    positive
        The positive class of two, or None.
    method
        ``exact``, ``binned`` or ``none``; None for ``exact`` with up to 100 classes, and ``none`` with more.
    max_fpr
        The false positive rate up to which a partial area is computed, or None.
    is_weighted
        Whether rows have weights.
    keeps_points
        Whether :meth:`points` will be called.
    share
        The share of the memory that the program leaves, which keys may take.

    Attributes
    ----------
    method
        The method that is used; ``none`` if labels are distributions.
    notes
        Notes for the result.

    Raises
    ------
    UsageError
        An option is invalid, or doesn't go with the rows.
    """

    def __init__(
        self,
        job: Job,
        positive: int | None,
        method: CurveMethod | None,
        max_fpr: float | None,
        *,
        is_weighted: bool,
        keeps_points: bool = False,
        share: float = MEMORY_SHARE,
    ) -> None:
        self.notes: list[str] = []
        self.method = chosen_method(job, method, self.notes, keeps_points=keeps_points)
        _check(job, positive, self.method, max_fpr)
        self._job, self._positive, self._max_fpr = job, positive, max_fpr
        self._scores = ClassScores(job, positive)
        self._classes = self._scores.classes if self.method != "none" else ()
        self._keeps_points = keeps_points
        self._points: list[tuple[int, Points, Areas]] = []
        self._found: list[Areas] = []
        memory = int(share * max(0, job.options.memory_limit - PROGRAM_BYTES))
        self._is_weighted = is_weighted
        self._one: ExactCurve | None = None
        self._many: list[BinnedCurve] = []
        self._rows: _StoredScores | None = None
        self._memory = SharedMemory(memory)
        if self.method == "binned":
            self._many = [BinnedCurve(digits_of(len(self._classes))) for _ in self._classes]
        elif len(self._classes) == 1:
            self._one = self._exact()
        elif self._classes:
            # The scores of several classes are stored first, and then sorted class by class.
            self._memory = SharedMemory(memory // 2)
            self._rows = _StoredScores(SharedMemory(memory // 2), is_weighted=is_weighted)

    def _exact(self) -> ExactCurve:
        return ExactCurve(self._scores.dtype, self._memory, is_weighted=self._is_weighted)

    def scores(self, batch: RowBatch, some: RowMetrics) -> Array | None:
        """Return the scores of the rows of a batch, as :meth:`ClassScores.of` does; None without curves."""
        if self.method == "none":
            return None
        with use_threads(self._job.options):
            return self._scores.of(batch, some.counted)

    def group_sums(self) -> ScoreGroupSums | None:
        """Return an object that counts scores in groups, for intervals; None if there are too many curves."""
        if not self._classes or not bins_of(len(self._classes)):
            return None
        return ScoreGroupSums(list(self._classes), are_odds=self._scores.holds != "logits")

    def add(self, scores: Array | None, some: RowMetrics) -> None:
        """Add the rows of a batch that have a loss, whose scores are those of :meth:`scores`.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        if scores is None:
            return
        labels, weights, used = some.labels, some.weights, some.counted
        if self._positive is None and not used.all():
            labels, weights, used = labels[used], weights[used] if len(weights) else weights, used[used]
        if self._rows is not None:
            self._rows.add(scores, labels, weights)
        elif self._one is not None:
            self._one.add(scores[0], labels, used, self._classes[0], weights)
        for number, curve, of_class in zip(self._classes, self._many, scores, strict=False):
            curve.add(self._scores.evenly_spread(of_class), labels, used, number, weights)

    def complete(self, result: Evaluation) -> None:
        """Add the metrics to the result, and free the scores.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        result.curves = {"method": self.method}
        result.notes += self.notes
        if self.method == "none":
            return
        with use_threads(self._job.options):
            self._found = areas = list(self._areas())
        binary = areas[0] if self._positive is not None else None
        if binary is not None:
            result.auroc, result.average_precision = binary.auroc, binary.average_precision
            result.partial_auroc = binary.partial_auroc
            result.undefined += _undefined(binary, None, with_partial=self._max_fpr is not None)
            other = Areas(binary.negatives, binary.positives, binary.auroc, binary.other_average_precision, None, None)
            areas = [other, binary] if self._positive == 1 else [binary, other]
        result.bounds = self._bounds(areas, binary)
        for one, metrics in zip(areas, result.per_class, strict=True):
            metrics |= {"auroc": one.auroc, "average_precision": one.average_precision}
            result.undefined += _undefined(one, metrics["class"], with_partial=False)
        for name in AREAS:
            for average in ("macro", "weighted"):
                getattr(result, average)[name] = _average([getattr(one, name) for one in areas], areas, average)

    def add_intervals(self, result: Evaluation, sums: ScoreGroupSums | None, computed: MetricIntervals) -> None:
        """Add the intervals of the areas, after :meth:`complete`."""
        if not self._found:
            return
        averages = {average: getattr(result, average) for average in ("macro", "weighted")}
        with use_threads(self._job.options):
            found = area_intervals(self._found, averages, sums, computed)
        for name, interval in found.of_all.items():
            if name in averages:
                result.intervals.setdefault(name, {}).update(interval)
            else:
                result.intervals[name] = interval
        for one, intervals in zip(result.per_class, found.of_classes, strict=True):
            one["intervals"].update(intervals)
        result.notes += found.notes

    def points(self) -> Iterator[tuple[int, Points, Areas, Array, Array]]:
        """Yield the points of each class with its number and areas, and the logits and thresholds of the points."""
        for number, points, areas in self._points:
            yield number, points, areas, *self._scores.logits_and_thresholds(points.scores)

    def _areas(self) -> Iterator[Areas]:
        """Yield the areas of each class, and free its scores."""
        for curve in self._many:
            yield curve.areas(self._max_fpr)
        for number, exact in self._exact_curves():
            exact.sort()
            areas = exact.areas(self._max_fpr)
            if self._keeps_points:
                self._points.append((number, exact.points(), areas))
            exact.close()
            yield areas
        if self._rows is not None:
            self._rows.close()

    def _exact_curves(self) -> Iterator[tuple[int, ExactCurve]]:
        if self._one is not None:
            yield self._classes[0], self._one
        if self._rows is None:
            return
        for number in self._classes:
            exact = self._exact()
            for scores, labels, weights in self._rows.of_class(number):
                exact.add(scores, labels, np.ones(len(labels), np.bool_), number, weights)
            yield number, exact

    def _bounds(self, areas: list[Areas], binary: Areas | None) -> dict[str, dict[str, float]]:
        if binary is not None:
            found = binary.bounds or {}
        else:
            found = {}
            for name in AREAS:
                bounds = [one.bounds[name] for one in areas if one.bounds and name in one.bounds]
                if bounds:
                    found[f"macro.{name}"] = (
                        sum(low for low, _ in bounds) / len(bounds),
                        sum(high for _, high in bounds) / len(bounds),
                    )
        return {name: {"lower": low, "upper": high} for name, (low, high) in found.items()}


class _StoredScores:
    """The scores of several classes: those of a batch after those of the batch before, class by class."""

    def __init__(self, memory: SharedMemory, *, is_weighted: bool) -> None:
        self._sizes: list[int] = []
        self._scores, self._labels = SpilledArray(np.float64, memory), SpilledArray(np.int64, memory)
        self._weights = SpilledArray(np.float64, memory)
        self._is_weighted = is_weighted

    def add(self, scores: Array, labels: Array, weights: Array) -> None:
        self._sizes.append(len(labels))
        self._scores.append(np.ascontiguousarray(scores).reshape(-1))
        self._labels.append(labels)
        self._weights.append(weights)

    def of_class(self, at: int) -> Iterator[tuple[Array, Array, Array]]:
        """Yield the scores of a class, the labels and the weights of each batch."""
        scores, labels, weights = self._scores.values(), self._labels.values(), self._weights.values()
        n_classes = len(scores) // max(1, len(labels))
        row = 0
        for size in self._sizes:
            first = row * n_classes + at * size
            some = slice(row, row + size)
            yield scores[first : first + size], labels[some], weights[some] if self._is_weighted else weights
            row += size

    def close(self) -> None:
        for one in (self._scores, self._labels, self._weights):
            one.close()


def chosen_method(job: Job, method: CurveMethod | None, notes: list[str], *, keeps_points: bool) -> CurveMethod:
    """Return the method to use; add a note if there are too many classes for the default.

    Raises
    ------
    UsageError
        There is no such method, or it doesn't go with the labels or with writing points.
    """
    if method not in {None, "exact", "binned", "none"}:
        raise UsageError(f"unknown method {method!r}", where="--curves", remedy="choose exact, binned or none")
    found = method or "exact"
    has_labels = _has_labels(job)
    if not has_labels:
        what = "labels are distributions, which have no class"
        refuse_if(method in {"exact", "binned"}, "--curves", what, "leave it out")
        found = "none"
    elif method is None and job.n_classes > MOST_CLASSES:
        notes.append(
            f"no AUROC and average precision: there are more than {MOST_CLASSES} classes; to compute them: "
            "--curves exact"
        )
        found = "none"
    if keeps_points and found != "exact":
        what = "curves are not exact" if has_labels else "labels are distributions"
        raise UsageError(what, where="--curves-out", remedy=_remedy(job))
    return found


def _has_labels(job: Job) -> bool:
    """Return whether rows have a class, or are multi-label."""
    is_independent = not ACTIVATIONS[job.options.activation_name].is_distribution
    return job.label is not None and (job.label.has_class or is_independent)


def _remedy(job: Job) -> str:
    return "leave it out, or use --curves exact" if _has_labels(job) else "leave it out"


def _check(job: Job, positive: int | None, method: CurveMethod, max_fpr: float | None) -> None:
    if max_fpr is not None and not 0.0 < max_fpr <= 1.0:
        raise UsageError(f"{max_fpr:g} is out of range", where="--max-fpr", remedy="give a rate above 0, up to 1")
    if max_fpr is not None and positive is None:
        raise UsageError(
            f"there are {job.n_classes:,} classes, and a partial AUROC needs a positive one",
            where="--max-fpr",
            remedy="leave it out",
        )
    if max_fpr is not None and method == "none":
        raise UsageError("no curves are computed", where="--max-fpr", remedy=_remedy(job))


def _undefined(areas: Areas, name: str | int | None, *, with_partial: bool) -> list[dict[str, Any]]:
    metrics = (*AREAS, *(("partial_auroc",) if with_partial else ()))
    return [{"metric": metric, "class": name} for metric in metrics if getattr(areas, metric) is None]


def _average(values: list[float | None], areas: list[Areas], average: str) -> float | None:
    """Return the mean over the classes for which a metric is defined."""
    weights = [1.0 if average == "macro" else one.positives for one in areas]
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None

"""The curves of multi-label rows: of each class over the rows in which it has a label, and of all of them together.

Rows are ordered by the logit of the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_types, is_list, plain_type
from batchmax.columns.job import Job
from batchmax.evaluation.class_metrics import AREAS, AVERAGES
from batchmax.evaluation.curves.binned_curve import BinnedCurve, digits_of
from batchmax.evaluation.curves.curves import MEMORY_SHARE, CurveMethod, chosen_method
from batchmax.evaluation.curves.exact_curve import Areas, ExactCurve, Points
from batchmax.evaluation.multi_label import EntryMetrics
from batchmax.evaluation.result import Evaluation
from batchmax.functional.log_odds import probabilities
from batchmax.jobs.threads import use_threads
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.runtime.spilled_array import SharedMemory, SpilledArray

Array = NDArray[Any]

NEGATIVE, POSITIVE, MISSING = 0, 1, 2


class LabelCurves:
    """Collects the logits of rows, batch by batch.

    Parameters
    ----------
    job
        How rows are read.
    schema
        The schema of the input.
    method, is_weighted, keeps_points, share
        As for :class:`batchmax.evaluation.curves.curves.Curves`.

    Raises
    ------
    UsageError
        An option is invalid, or doesn't go with the rows.
    """

    def __init__(
        self,
        job: Job,
        schema: pa.Schema,
        method: CurveMethod | None,
        *,
        is_weighted: bool,
        keeps_points: bool = False,
        share: float = MEMORY_SHARE,
    ) -> None:
        self.notes: list[str] = []
        self.method = chosen_method(job, method, self.notes, keeps_points=keeps_points)
        self._job, self._keeps_points = job, keeps_points
        self._dtype = stored_dtype(job, schema)
        self._points: list[tuple[int, Points, Areas]] = []
        self._binned = [
            BinnedCurve(digits_of(job.n_classes)) for _ in range(job.n_classes if self.method == "binned" else 0)
        ]
        self._rows: LabelScores | None = None
        if self.method == "exact":
            half = int(share * max(0, job.options.memory_limit - PROGRAM_BYTES)) // 2
            memory = SharedMemory(half), SharedMemory(half)
            self._rows = LabelScores(self._dtype, job.n_classes, *memory, is_weighted=is_weighted)

    def add(self, some: EntryMetrics) -> None:
        """Add the rows that have a loss.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        if self.method == "none":
            return
        used = some.counted
        logits = np.ascontiguousarray((some.logits if used.all() else some.logits[used]).T, self._dtype)
        labels = label_matrix(some, used)
        weights = some.weights[used] if len(some.weights) else some.weights
        if self._rows is not None:
            self._rows.add(logits, labels, weights)
        for curve, scores, of_class in zip(self._binned, logits, labels, strict=False):
            curve.add(scores, of_class.astype(np.int64), of_class != MISSING, POSITIVE, weights)

    def complete(self, result: Evaluation) -> None:
        """Add the metrics to the result, and free the logits.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        result.curves = {"method": self.method}
        result.notes += self.notes
        if self.method == "none" or not result.per_class:
            return
        with use_threads(self._job.options):
            areas, together = list(self._areas()), self._together()
        self.close()
        for name in AREAS:
            for one, metrics in zip(areas, result.per_class, strict=True):
                metrics[name] = getattr(one, name)
                if metrics[name] is None:
                    result.undefined.append({"metric": name, "class": metrics["class"]})
            for average, value in average_areas(areas, together, name).items():
                getattr(result, average)[name] = value
                some = [together] if average == "micro" else areas
                _add_bounds(result, f"{average}.{name}", some, _weights(some, average), name)
        for average in AVERAGES:
            lacking = [name for name in AREAS if getattr(result, average)[name] is None]
            result.undefined += [{"metric": f"{average}.{name}", "class": None} for name in lacking]

    def points(self) -> Iterator[tuple[int, Points, Areas, Array, Array]]:
        """Yield the points of each class with its number and areas, and the log-odds and thresholds of the points."""
        for number, points, areas in self._points:
            logits = points.scores.astype(np.float64) * self._job.options.beta
            yield number, points, areas, logits, probabilities(logits)

    def close(self) -> None:
        """Free the logits."""
        if self._rows is not None:
            self._rows.close()

    def _areas(self) -> Iterator[Areas]:
        """Yield the areas of each class."""
        for curve in self._binned:
            yield curve.areas(None)
        if self._rows is None:
            return
        for number in range(self._job.n_classes):
            exact = self._rows.sorted([number])
            areas = exact.areas(None)
            if self._keeps_points:
                self._points.append((number, exact.points(), areas))
            exact.close()
            yield areas

    def _together(self) -> Areas:
        """Return the areas of all classes together."""
        if self._rows is None:
            return BinnedCurve.joined(self._binned).areas(None)
        exact = self._rows.sorted(range(self._job.n_classes))
        areas = exact.areas(None)
        exact.close()
        return areas


class LabelScores:
    """The logits and labels of all classes: those of a batch after those of the batch before, class by class.

    Parameters
    ----------
    dtype
        The type of the logits.
    n_classes
        The number of classes.
    memory, memory_of_curve
        The memory for logits and labels, and for those that are sorted at a time.
    is_weighted
        Whether rows have weights.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        n_classes: int,
        memory: SharedMemory,
        memory_of_curve: SharedMemory,
        *,
        is_weighted: bool = False,
    ) -> None:
        self._sizes: list[int] = []
        self._dtype, self._n_classes = dtype, n_classes
        self._memory_of_curve, self._is_weighted = memory_of_curve, is_weighted
        self._scores, self._labels = SpilledArray(dtype, memory), SpilledArray(np.uint8, memory)
        self._weights = SpilledArray(np.float64, memory)

    def add(self, scores: Array, labels: Array, weights: Array) -> None:
        """Add rows: logits and labels, (K, n) each, the labels as of :func:`label_matrix`.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        self._sizes.append(scores.shape[1])
        self._scores.append(scores.reshape(-1))
        self._labels.append(labels.reshape(-1))
        self._weights.append(weights)

    def sorted(self, numbers: Iterable[int]) -> ExactCurve:
        """Return the curve of one class, or of several together, sorted; the caller closes it.

        Raises
        ------
        OutputError
            There is no space for a temporary file.
        """
        exact = ExactCurve(self._dtype, self._memory_of_curve, is_weighted=self._is_weighted)
        for number in numbers:
            for scores, labels, weights in self._of_class(number):
                exact.add(scores, labels.astype(np.int64), labels != MISSING, POSITIVE, weights)
        exact.sort()
        return exact

    def _of_class(self, at: int) -> Iterator[tuple[Array, Array, Array]]:
        """Yield the logits of a class, its labels, and the weights of each batch."""
        scores, labels, weights = self._scores.values(), self._labels.values(), self._weights.values()
        row = 0
        for size in self._sizes:
            first = row * self._n_classes + at * size
            some = slice(first, first + size)
            yield scores[some], labels[some], weights[row : row + size] if len(weights) else weights
            row += size

    def close(self) -> None:
        """Free the memory and the files."""
        for one in (self._scores, self._labels, self._weights):
            one.close()


def label_matrix(some: EntryMetrics, used: Array) -> Array:
    """Return whether each class of the used rows is a label, (K, n) uint8: NEGATIVE, POSITIVE or MISSING."""
    if len(some.labels):
        is_label: Array = some.labels[used] == np.arange(some.logits.shape[1])[:, np.newaxis]
        return is_label.astype(np.uint8)
    targets = (some.targets if used.all() else some.targets[used]).T
    found: Array = np.where(np.isnan(targets), np.uint8(MISSING), (targets > 0).astype(np.uint8))
    return found


def stored_dtype(job: Job, schema: pa.Schema) -> np.dtype[Any]:
    """Return float32 if the input has float32 logits, which are ordered as they are, otherwise float64."""
    types = column_types(schema)
    kinds = [plain_type(types[name]) if name in types else pa.float64() for name in job.logits.names]
    kinds = [plain_type(kind.value_type) if is_list(kind) else kind for kind in kinds]
    narrow = job.options.scale is None and all(pa.types.is_float32(kind) for kind in kinds)
    return np.dtype(np.float32 if narrow else np.float64)


def average_areas(areas: list[Areas], together: Areas, name: str) -> dict[str, float | None]:
    """Return the averages of an area: over the areas of classes, and ``micro`` that of all classes together."""
    values = [getattr(one, name) for one in areas]
    return {
        average: getattr(together, name) if average == "micro" else _mean(values, _weights(areas, average))
        for average in AVERAGES
    }


def _weights(areas: list[Areas], average: str) -> list[float]:
    return [one.positives if average == "weighted" else 1.0 for one in areas]


def _mean(values: list[float | None], weights: list[float]) -> float | None:
    """Return the weighted mean of the values that are defined."""
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def _add_bounds(result: Evaluation, name: str, areas: list[Areas], weights: list[float], metric: str) -> None:
    for side, bound in enumerate(("lower", "upper")):
        values = [one.bounds[metric][side] if one.bounds and metric in one.bounds else None for one in areas]
        if (value := _mean(values, weights)) is not None:
            result.bounds.setdefault(name, {})[bound] = value

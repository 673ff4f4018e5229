"""Check what must hold of the computed columns of a scored row for any logits: ranges, sums, agreement of columns.

The written probabilities bound every other output (``error_intervals``). The checks record the largest distance of a
sum from 1 and count what a summary reports. Reads batches of an output; doesn't know its files or inputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.labels import LabelColumn, Labels
from batchmax.outputs import OUTPUTS
from batchmax.statuses import Status
from batchmax.verification.column_reader import RowReader, RowValues, fail_at_first
from batchmax.verification.error_intervals import (
    Accuracy,
    Interval,
    ProbabilityIntervals,
    log_sum_bound,
    outside,
    sum_bound,
    sum_deviations,
)
from batchmax.verification.scored_output import ScoredOutput

Array = NDArray[Any]

ROUGH_UNITS = 32.0
"""Tolerance in ULP of outputs without a tighter guarantee: margin, entropy, el2n."""


class RowChecks:
    """Checks of one output, one batch at a time.

    Attributes
    ----------
    deviations
        For ``probs`` and ``log_probs``: the largest distance of a row's sum from 1.
    compared
        For each output, the columns that it was compared with.
    counts
        Counts of the rows, to compare with the summary.
    """

    def __init__(self, output: ScoredOutput) -> None:
        options = output.metadata.options
        self.deviations: dict[str, float] = {}
        self.compared: dict[str, set[str]] = {name: set() for name in output.columns}
        self.counts = RowCounts()
        self._reader = RowReader(output)
        self._metadata = output.metadata
        self._activation = ACTIVATIONS[options.activation]
        self._smoothing = options.label_smoothing
        self._weights = None if options.class_weights is None else np.asarray(options.class_weights, np.float64)
        self._exact = Accuracy.of(self._metadata.loss_dtype)
        self._rough = Accuracy.of(self._metadata.loss_dtype, ROUGH_UNITS)

    @property
    def notes(self) -> list[str]:
        """What can't be checked, and why."""
        return [self._reader.label_note] if self._reader.label_note else []

    def use_label(self, label: LabelColumn | None) -> None:
        """Use the label column as the inputs define it."""
        self._reader.use_label(label)

    def bound(self, name: str) -> float:
        """Return the largest allowed distance from 1 of the sums of ``probs`` or ``log_probs``."""
        of = sum_bound if name == "probs" else log_sum_bound
        return of(self._metadata.dtype, self._metadata.n_classes)

    def add(self, batch: pa.RecordBatch) -> None:
        """Check the rows of a batch.

        Raises
        ------
        WrongRowError
            The first row that fails the first failed check.
        """
        rows = self._reader.read(batch)
        intervals = self._intervals(rows)
        self._check_ranges(rows)
        if intervals is not None:
            numbers = np.flatnonzero(rows.has_probs)
            self._check_by_probs(rows.values, numbers, intervals)
            if rows.labels is not None:
                kept = rows.has_loss[numbers]
                self._check_by_labels(rows.values, numbers[kept], intervals.rows(kept), rows.labels)
        self.counts.add(rows, self._weights)

    def _intervals(self, found: RowValues) -> ProbabilityIntervals | None:
        """Check the matrices of probabilities, and return the bounds of the exact ones that follow from them."""
        intervals: ProbabilityIntervals | None = None
        rows = np.flatnonzero(found.has_probs)
        for name in ("log_probs", "probs"):
            if name not in found.values:
                continue
            matrix = found.values[name][rows]
            self._check_matrix(name, matrix, rows)
            others, intervals = intervals, ProbabilityIntervals(matrix, self._metadata.dtype, logs=name == "log_probs")
            if others is not None:
                self.compared["probs"].add("log_probs")
                disjoint = (intervals.probs[0] > others.probs[1]) | (intervals.probs[1] < others.probs[0])
                fail_at_first(
                    disjoint.any(axis=1),
                    lambda row, a=disjoint: f"probs and log_probs differ at class {int(np.argmax(a[row]))}",
                    rows,
                )
        return intervals

    def _check_matrix(self, name: str, matrix: Array, rows: Array) -> None:
        """Check the range and the sum of each row of ``probs`` or ``log_probs``."""
        low, high = (0.0, 1.0) if name == "probs" else (-math.inf, 0.0)
        wrong = ~((matrix >= low) & (matrix <= high))
        fail_at_first(wrong.any(axis=1), lambda row: _out_of_range(name, matrix[row], wrong[row]), rows)
        if not self._activation.is_distribution:
            return
        bound = self.bound(name)
        deviations = sum_deviations(matrix if name == "probs" else np.exp(matrix), bound)
        total = "sum" if name == "probs" else "sum of exponentials"
        fail_at_first(
            ~(deviations <= bound),
            lambda row: (
                f"the {total} of {name} differs from 1 by {deviations[row]:.3g}; rounding allows at most {bound:.3g}"
            ),
            rows,
        )
        self.deviations[name] = max(self.deviations.get(name, 0.0), float(deviations.max(initial=0.0)))

    def _check_ranges(self, found: RowValues) -> None:
        """Check the range of each output with one number per row."""
        k, values = self._metadata.n_classes, found.values
        ranges = {
            "loss": (0.0, math.inf),
            "pred": (0, k - 1),
            "sample": (0, k - 1),
            "confidence": (1 / k, 1.0),
            "margin": (0.0, 1.0),
            "entropy": (0.0, math.log(k)),
            "logsumexp": (-math.inf, math.inf),
            "rank": (1, k),
            "el2n": (0.0, math.sqrt(2)),
        }
        slack = 1 + self._rough.relative
        for name in ranges.keys() & values.keys():
            low, high = ranges[name]
            given = values[name]
            inside = (given >= low / slack) & (given <= high * slack + self._rough.absolute)
            present = found.has_loss if OUTPUTS[name].needs_label else found.has_probs
            fail_at_first(
                present & ~inside,
                lambda row, n=name, g=given, lo=low, hi=high: f"{n} is {g[row]:g}, not between {lo:g} and {hi:g}",
            )
        if "rank" in values and "correct" in values:
            self.compared["correct"].add("rank")
            correct, rank = values["correct"], values["rank"]
            fail_at_first(
                found.has_loss & (correct != (rank == 1)),
                lambda row: f"correct is {bool(correct[row])}, but rank is {rank[row]}",
            )

    def _check_by_probs(self, values: dict[str, Array], rows: Array, intervals: ProbabilityIntervals) -> None:
        """Check the outputs that follow from the probabilities alone."""
        if "confidence" in values:
            low, high = intervals.probs
            self._check_interval("confidence", values, (low.max(axis=1), high.max(axis=1)), self._exact, rows)
        if "margin" in values:
            self._check_interval("margin", values, intervals.margin(), self._rough, rows)
        if "entropy" in values:
            self._check_interval("entropy", values, intervals.entropy(), self._rough, rows)
        if "pred" in values:
            low, high = intervals.probs
            pred = values["pred"][rows].astype(np.int64)
            self.compared["pred"].add("probs")
            fail_at_first(
                high[np.arange(len(rows)), pred] < low.max(axis=1),
                lambda row: f"pred is class {pred[row]}, which is not the most probable class",
                rows,
            )
        if "top_k_classes" in values:
            self._check_top_k(
                values["top_k_classes"][rows].astype(np.int64), values["top_k_probs"][rows], rows, intervals
            )

    def _check_top_k(self, classes: Array, probs: Array, rows: Array, intervals: ProbabilityIntervals) -> None:
        self.compared["top_k_classes"].add("probs")
        self.compared["top_k_probs"].add("probs")
        in_range = ((classes >= 0) & (classes < self._metadata.n_classes)).all(axis=1)
        fail_at_first(~in_range, lambda _: "top_k_classes has a number that is not a class", rows)
        low, high = (np.take_along_axis(side, classes, axis=1) for side in intervals.probs)
        wrong = outside(probs, low, high, Accuracy.of(self._metadata.dtype)).any(axis=1)
        fail_at_first(wrong, lambda _: "top_k_probs are not the probabilities of top_k_classes", rows)
        ordered = np.sort(classes, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        above = (intervals.probs[0] > high.min(axis=1)[:, None]).sum(axis=1)
        fail_at_first(
            twice | (above >= classes.shape[1]), lambda _: "top_k_classes are not the most probable classes", rows
        )

    def _check_by_labels(
        self, values: dict[str, Array], rows: Array, intervals: ProbabilityIntervals, labels: Labels
    ) -> None:
        """Check the outputs that follow from probabilities and labels; all rows have both."""
        if "loss" in values and self._metadata.options.loss_name == "cross_entropy":
            if labels.indices is not None and self._weights is None and not self._smoothing:
                interval = intervals.label_losses(labels.indices[rows])
            else:
                interval = intervals.losses(self._shares(labels, rows))
            if labels.targets is not None:
                # Distributions are read in the type of the logits, which may be narrower than their own type.
                eps = float(np.finfo(np.float32).eps)
                interval = interval[0] * (1 - eps), interval[1] * (1 + eps)
            self._check_interval("loss", values, interval, self._exact, rows)
        if labels.indices is None:
            return
        indices, at = labels.indices[rows], np.arange(len(rows))
        if "el2n" in values:
            self._check_interval("el2n", values, intervals.el2n(indices), self._rough, rows)
        if "rank" in values:
            low, high = intervals.probs
            least = (low > high[at, indices][:, None]).sum(axis=1) + 1
            most = (high >= low[at, indices][:, None]).sum(axis=1)
            rank = values["rank"][rows]
            self.compared["rank"].add("probs")
            fail_at_first(
                (rank < least) | (rank > most),
                lambda row: f"rank is {rank[row]}, but the probabilities give {_range(least[row], most[row])}",
                rows,
            )
        if "correct" in values and "pred" in values:
            self.compared["correct"].add("pred")
            fail_at_first(
                values["correct"][rows] != (values["pred"][rows] == indices),
                lambda row: f"correct is {bool(values['correct'][rows[row]])}, which contradicts pred and the label",
                rows,
            )

    def _shares(self, labels: Labels, rows: Array) -> Array:
        """Return the weight of each class in the loss of some rows, (n, K)."""
        k = self._metadata.n_classes
        if labels.targets is not None:
            targets = labels.targets[rows]
        else:
            targets = np.zeros((len(rows), k))
            targets[np.arange(len(rows)), np.asarray(labels.indices)[rows]] = 1.0
        shares = targets * (1 - self._smoothing) + self._smoothing / k
        return np.asarray(shares if self._weights is None else shares * self._weights)

    def _check_interval(
        self, name: str, values: dict[str, Array], interval: Interval, accuracy: Accuracy, rows: Array
    ) -> None:
        """Check that an output lies in the interval that follows from the probabilities."""
        self.compared[name].add("probs")
        (low, high), given = interval, values[name][rows]
        fail_at_first(
            outside(given, low, high, accuracy),
            lambda row: f"{name} is {given[row]:.9g}, but the probabilities give {_range(low[row], high[row])}",
            rows,
        )


class RowCounts:
    """RowCounts over all rows of an output, to compare with its summary."""

    def __init__(self) -> None:
        self.rows = self.without_loss = self.losses = self.infinite_losses = self.hits = 0
        self.statuses = np.zeros(len(Status), np.int64)
        self.loss_sum = self.weight_sum = 0.0

    def add(self, found: RowValues, weights: Array | None) -> None:
        """Count the rows of a batch."""
        self.rows += len(found.has_probs)
        self.without_loss += int(np.count_nonzero(~found.has_loss))
        if found.status is not None:
            self.statuses += np.bincount(found.status, minlength=len(Status))
        if "correct" in found.values:
            self.hits += int(np.count_nonzero(found.values["correct"][found.has_loss]))
        if "loss" not in found.values:
            return
        losses = found.values["loss"][found.has_loss]
        finite = np.isfinite(losses)
        self.losses += len(losses)
        self.infinite_losses += int(np.count_nonzero(~finite))
        # Each batch is summed exactly, so rounding errors grow only with the number of batches.
        self.loss_sum += math.fsum(losses[finite].tolist())
        if weights is None:
            self.weight_sum += len(losses)
        elif found.labels is not None and found.labels.indices is not None:
            self.weight_sum += math.fsum(weights[found.labels.indices[found.has_loss]].tolist())


def _out_of_range(name: str, row: Array, wrong: Array) -> str:
    at = int(np.argmax(wrong))
    return f"{name} is {row[at]:g} at class {at}, not {'between 0 and 1' if name == 'probs' else 'at most 0'}"


def _range(low: Any, high: Any) -> str:
    first, second = f"{low:.9g}", f"{high:.9g}"
    return first if first == second else f"{first} to {second}"

"""Check what must hold of the computed columns of a scored row for any logits: ranges, sums, agreement of columns.

The written probabilities bound every other output (``error_intervals``). The checks record the largest distance of a
sum from 1 and count what a summary reports. Reads batches of an output; doesn't know its files or inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.outputs import OUTPUTS, ROUGH_ULPS
from batchmax.statuses import Status
from batchmax.verification.column_reader import RowReader, RowValues, WrongRowError
from batchmax.verification.error_intervals import (
    EXACT_NUMBERS,
    Accuracy,
    Interval,
    ProbabilityIntervals,
    log_sum_bound,
    outside,
    sum_bound,
    sum_deviations,
    sum_of,
    value_ranges,
)
from batchmax.verification.scored_output import ScoredOutput
from batchmax.verification.token_view import TokenView

Array = NDArray[Any]

SUM_ERROR = 1e-12
"""Relative rounding error of the sum of the losses of a row's classes."""


class RowChecks:
    """Checks of one output, one batch at a time.

    Attributes
    ----------
    tokens
        The output's tokens if its rows are sequences; then the tokens are checked as rows.
    reader
        Reads the computed columns of rows or tokens.
    sums
        For ``probs`` and ``log_probs``: the largest distance of a row's sum from 1 (``off``) and its limit (``bound``).
    compared
        For each output, the columns that it was compared with.
    counts
        Counts of the rows, to compare with the summary.
    """

    def __init__(self, output: ScoredOutput) -> None:
        self.tokens = TokenView(output) if output.metadata.nested else None
        viewed = output if self.tokens is None else self.tokens.output
        options, metadata = viewed.metadata.options, viewed.metadata
        self.reader = RowReader(viewed)
        self.sums: dict[str, dict[str, float]] = {}
        self.compared: dict[str, set[str]] = {name: set() for name in viewed.checked_columns}
        self.counts = RowCounts()
        self._metadata = metadata
        self._activation = ACTIVATIONS[options.activation_name]
        self._smoothing = options.label_smoothing
        self._weights = None if options.class_weights is None else np.asarray(options.class_weights, np.float64)
        self._pos_weights = None if options.pos_weight is None else np.asarray(options.pos_weight, np.float64)
        self._label_weights = self._weights
        if self._weights is None and self._pos_weights is not None and self._activation.is_distribution:
            self._label_weights = np.array([1.0, *self._pos_weights])

    def add(self, batch: pa.RecordBatch) -> None:
        """Check the rows of a batch.

        Raises
        ------
        WrongRowError
            The first row that fails the first failed check.
        """
        if self.tokens is None:
            self._check(batch)
            return
        tokens, statuses = self.tokens.flatten(batch), self.tokens.row_statuses(batch)
        if statuses is not None:
            self.counts.sequences += np.bincount(statuses, minlength=len(Status))
        try:
            self._check(tokens)
        except WrongRowError as error:
            raise WrongRowError(error.what, self.tokens.row_of(batch, error.row)) from error

    def _check(self, batch: pa.RecordBatch) -> None:
        """Check a batch of rows, or of tokens."""
        rows = self.reader.read(batch)
        scored = rows.where(rows.has_probs)
        intervals = self._intervals(scored)
        self._check_ranges(rows)
        if intervals is not None:
            self._check_by_probs(scored, intervals)
            self._check_by_labels(scored.where(scored.has_loss), intervals.rows(scored.has_loss))
        # The mean loss of independent classes isn't divided by their weights.
        self.counts.add(rows, self._weights if self._activation.is_distribution else None)

    def _intervals(self, rows: RowValues) -> ProbabilityIntervals | None:
        """Check the matrices of probabilities, and return the bounds of the exact ones that follow from them."""
        intervals: ProbabilityIntervals | None = None
        for name in ("log_probs", "probs"):
            if name not in rows.values:
                continue
            matrix = rows.values[name]
            self._check_matrix(name, matrix, rows)
            others, how = intervals, {"logs": name == "log_probs", "of_second": self._metadata.layout == "single"}
            intervals = ProbabilityIntervals(matrix, self._metadata.dtype, **how)
            if others is not None:
                self.compared["probs"].add("log_probs")
                disjoint = (intervals.probs[0] > others.probs[1]) | (intervals.probs[1] < others.probs[0])
                rows.fail_at_first(
                    disjoint.any(axis=1),
                    lambda row, a=disjoint: f"probs and log_probs differ at class {int(np.argmax(a[row]))}",
                )
        return intervals

    def _check_matrix(self, name: str, matrix: Array, rows: RowValues) -> None:
        """Check the range and the sum of each row of ``probs`` or ``log_probs``."""
        is_probs = name == "probs"
        wrong = ~((matrix >= 0) & (matrix <= 1)) if is_probs else ~(matrix <= 0)
        limits = "between 0 and 1" if is_probs else "at most 0"

        def out_of_range(row: int) -> str:
            at = int(np.argmax(wrong[row]))
            return f"{name} is {matrix[row, at]:g} at class {at}, not {limits}"

        rows.fail_at_first(wrong.any(axis=1), out_of_range)
        if not self._activation.is_distribution or self._metadata.layout == "single":
            return
        dtype, n_classes = self._metadata.dtype, self._metadata.n_classes
        bound = sum_bound(dtype, n_classes) if is_probs else log_sum_bound(dtype, n_classes)
        deviations = sum_deviations(matrix if is_probs else np.exp(matrix), bound)
        what = f"the {'sum' if is_probs else 'sum of exponentials'} of {name} differs from 1 by"
        rows.fail_at_first(
            ~(deviations <= bound), lambda row: f"{what} {deviations[row]:.3g}; rounding allows at most {bound:.3g}"
        )
        off = max(self.sums.get(name, {}).get("off", 0.0), float(deviations.max(initial=0.0)))
        self.sums[name] = {"off": off, "bound": bound}

    def _check_ranges(self, rows: RowValues) -> None:
        """Check the range of each output with one number per row."""
        values = rows.values
        rough = Accuracy.of(self._metadata.loss_dtype, ROUGH_ULPS)
        slack = 1 + rough.relative
        for name, (low, high) in value_ranges(self._metadata.n_classes).items():
            if name in values:
                given = values[name]
                inside = (given >= low / slack) & (given <= high * slack + rough.absolute)
                rows.fail_at_first(
                    rows.present(name) & ~inside,
                    lambda row, n=name, g=given, lo=low, hi=high: f"{n} is {g[row]:g}, not between {lo:g} and {hi:g}",
                )
        if "losses" in values:
            losses = values["losses"]
            wrong = rows.has_loss & (losses < 0).any(axis=1)
            rows.fail_at_first(wrong, lambda row: f"losses is {np.nanmin(losses[row]):g}, not at least 0")
            if "loss" in values:
                self.compared["loss"].add("losses")
                accuracy = Accuracy.of(self._metadata.loss_dtype)
                least, most = sum_of(losses, accuracy)
                rows.fail_at_first(
                    rows.has_loss & outside(values["loss"], least, most, accuracy),
                    lambda row: f"loss is {values['loss'][row]:.9g}, but losses sum to {_range(least[row], most[row])}",
                )
        if "rank" in values and "correct" in values:
            self.compared["correct"].add("rank")
            correct, rank = values["correct"], values["rank"]
            rows.fail_at_first(
                rows.has_loss & (correct != (rank == 1)),
                lambda row: f"correct is {bool(correct[row])}, but rank is {rank[row]}",
            )

    def _check_by_probs(self, rows: RowValues, intervals: ProbabilityIntervals) -> None:
        """Check the outputs that follow from the probabilities alone."""
        for name, output in OUTPUTS.items():
            if output.kind == "float" and not output.needs_label and hasattr(intervals, name):
                self._check_interval(name, rows, getattr(intervals, name))
        if "pred" in rows.values:
            low, high = intervals.probs
            pred = rows.values["pred"].astype(np.int64)
            self.compared["pred"].add("probs")
            rows.fail_at_first(
                high[np.arange(len(pred)), pred] < low.max(axis=1),
                lambda row: f"pred is class {pred[row]}, which is not the most probable class",
            )
        if "preds" in rows.values:
            low, high = intervals.probs
            preds = rows.values["preds"]
            self.compared["preds"].add("probs")
            wrong = np.where(preds, high < 0.5, low > 0.5)
            rows.fail_at_first(
                wrong.any(axis=1),
                lambda row: f"preds are not the classes above 0.5: class {int(np.argmax(wrong[row]))} differs",
            )
        if "top_k_classes" in rows.values:
            self._check_top_k(rows, rows.values["top_k_classes"].astype(np.int64), intervals)

    def _check_top_k(self, rows: RowValues, classes: Array, intervals: ProbabilityIntervals) -> None:
        self.compared["top_k_classes"].add("probs")
        self.compared["top_k_probs"].add("probs")
        in_range = ((classes >= 0) & (classes < self._metadata.n_classes)).all(axis=1)
        rows.fail_at_first(~in_range, lambda _: "top_k_classes has a number that is not a class")
        low, high = (np.take_along_axis(side, classes, axis=1) for side in intervals.probs)
        wrong = outside(rows.values["top_k_probs"], low, high, Accuracy.of(self._metadata.dtype)).any(axis=1)
        rows.fail_at_first(wrong, lambda _: "top_k_probs are not the probabilities of top_k_classes")
        ordered = np.sort(classes, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        above = (intervals.probs[0] > high.min(axis=1)[:, None]).sum(axis=1)
        wrong = twice | (above >= classes.shape[1])
        rows.fail_at_first(wrong, lambda _: "top_k_classes are not the most probable classes")

    def _check_by_labels(self, rows: RowValues, intervals: ProbabilityIntervals) -> None:
        """Check the outputs that follow from probabilities and labels; all rows have both."""
        labels, values = rows.labels, rows.values
        is_known = labels is not None or rows.targets is not None
        if is_known and self._metadata.options.loss_name == "cross_entropy":
            self._check_interval("loss", rows, lambda: self._losses(rows, intervals))
        if is_known and self._metadata.options.loss_name == "binary_cross_entropy":
            self._check_class_losses(rows, intervals)
        if labels is None:
            return
        self._check_interval("el2n", rows, lambda: intervals.el2n(labels))
        self._check_interval("rank", rows, lambda: intervals.ranks(labels))
        if "correct" in values and "pred" in values:
            self.compared["correct"].add("pred")
            rows.fail_at_first(
                values["correct"] != (values["pred"] == labels),
                lambda row: f"correct is {bool(values['correct'][row])}, which contradicts pred and the label",
            )

    def _check_class_losses(self, rows: RowValues, intervals: ProbabilityIntervals) -> None:
        """Check the losses of independent classes, and their sums."""
        targets, ones = rows.targets, np.ones(self._metadata.n_classes)
        if targets is None:
            targets = (np.arange(self._metadata.n_classes) == np.asarray(rows.labels)[:, None]).astype(np.float64)
        missing = np.isnan(targets)
        weights = ones if self._weights is None else self._weights
        pos_weights = ones if self._pos_weights is None else self._pos_weights
        on = np.where(missing, 0.0, weights * pos_weights * targets)
        low, high = intervals.class_losses(on, np.where(missing, 0.0, weights * (1 - targets)))
        if "losses" in rows.values:
            self.compared["losses"].add("probs")
            losses = rows.values["losses"]
            accuracy = Accuracy.of(self._metadata.loss_dtype)
            wrong = ~missing & outside(np.where(missing, 0.0, losses), low, high, accuracy)
            rows.fail_at_first(wrong.any(axis=1), lambda row: _differing("losses", losses, low, high, wrong, row))
        least, most = low.sum(axis=1) * (1 - SUM_ERROR), high.sum(axis=1) * (1 + SUM_ERROR)
        self._check_interval("loss", rows, lambda: (least, most))

    def _losses(self, rows: RowValues, intervals: ProbabilityIntervals) -> Interval:
        """Return the intervals of the losses."""
        k = self._metadata.n_classes
        if rows.labels is not None:
            if self._label_weights is None and not self._smoothing:
                return intervals.label_losses(rows.labels)
            targets, eps = np.arange(k) == rows.labels[:, None], 0.0
        else:
            # Distributions are read in the type of the logits, which may be narrower than their own type.
            targets, eps = np.asarray(rows.targets), float(np.finfo(np.float32).eps)
        shares = targets * (1 - self._smoothing) + self._smoothing / k
        low, high = intervals.losses(shares if self._label_weights is None else shares * self._label_weights)
        return low * (1 - eps), high * (1 + eps)

    def _check_interval(self, name: str, rows: RowValues, interval: Callable[[], Interval]) -> None:
        """Check that an output, if there is one of this name, lies in the interval that the probabilities give."""
        if name not in rows.values:
            return
        self.compared[name].add("probs")
        (low, high), given = interval(), rows.values[name]
        is_float = OUTPUTS[name].kind == "float"
        accuracy = Accuracy.of(self._metadata.loss_dtype, OUTPUTS[name].ulps) if is_float else EXACT_NUMBERS
        rows.fail_at_first(
            outside(given, low, high, accuracy),
            lambda row: f"{name} is {given[row]:.9g}, but the probabilities give {_range(low[row], high[row])}",
        )


class RowCounts:
    """Counts over all rows of an output, to compare with its summary."""

    def __init__(self) -> None:
        self.rows = self.without_loss = self.losses = self.infinite_losses = self.hits = 0
        self.statuses, self.sequences = np.zeros((2, len(Status)), np.int64)
        self.loss_sum = self.weight_sum = 0.0

    def add(self, rows: RowValues, weights: Array | None) -> None:
        """Count the rows of a batch."""
        self.rows += len(rows.has_probs)
        self.without_loss += int(np.count_nonzero(~rows.has_loss))
        if rows.status is not None:
            self.statuses += np.bincount(rows.status, minlength=len(Status))
        if "correct" in rows.values:
            self.hits += int(np.count_nonzero(rows.values["correct"][rows.has_loss]))
        if "loss" not in rows.values:
            return
        losses = rows.values["loss"][rows.has_loss]
        finite = np.isfinite(losses)
        self.losses += len(losses)
        self.infinite_losses += int(np.count_nonzero(~finite))
        # Each batch is summed exactly, so rounding errors grow only with the number of batches.
        self.loss_sum += math.fsum(losses[finite].tolist())
        if weights is None:
            self.weight_sum += len(losses)
        elif rows.labels is not None:
            self.weight_sum += math.fsum(weights[rows.labels[rows.has_loss]].tolist())


def _differing(name: str, values: Array, low: Array, high: Array, wrong: Array, row: int) -> str:
    at = int(np.argmax(wrong[row]))
    given = f"{name} is {values[row, at]:.9g} at class {at}"
    return f"{given}, but the probabilities give {_range(low[row, at], high[row, at])}"


def _range(low: Any, high: Any) -> str:
    first, second = f"{low:.9g}", f"{high:.9g}"
    return first if first == second else f"{first} to {second}"

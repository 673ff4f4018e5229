"""The rows that a calibration is fitted to and measured with: which are held out, and repeated passes over them.

The first pass reads the input; the rows are kept in memory for the next passes if they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.scored_input import written_by_score
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.calibration_losses import CalibrationLoss, SigmoidLoss, SoftmaxLoss
from batchmax.evaluation.row_stream import open_rows, refuse_bytes, refuse_single_pass, row_batches
from batchmax.jobs.pipeline import report_source
from batchmax.kernels.compensated_sums import sum_counted
from batchmax.kernels.sampling import split_mix
from batchmax.options.input_options import InputOptions
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.scoring.tally import Tally
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_WITHOUT_LOSS, STATUS_NAMES, Status

Array = NDArray[Any]

SHARE = 4
"""Rows are kept in memory if they take at most 1/SHARE of the memory limit."""


@dataclass(frozen=True)
class Scaling:
    """A calibration of logits z: beta * z, or beta * (scale * z + bias)."""

    beta: float = 1.0
    scale: Array | None = None
    bias: Array | None = None

    def scaled(self, matrix: Array) -> Array:
        """Return scale * z + bias."""
        if self.scale is None or self.bias is None:
            return matrix
        scaled = np.ascontiguousarray(matrix * self.scale + self.bias)
        scaled.flags.writeable = False
        return scaled


class CalibrationBatch(NamedTuple):
    """Logits and labels of some rows, and which of them are held out and fitted to."""

    matrix: Array
    labels: Array
    held_out: Array
    fitted: Array


class CalibrationRows:
    """The rows of an input with a label and a finite loss, for repeated passes.

    Parameters
    ----------
    src, options
        What to read, and how.
    holdout, seed
        The share of rows to hold out, and the random seed that selects them.
    progress
        Progress callbacks.

    Attributes
    ----------
    source
        The opened input.
    loss
        The loss to minimize.
    tally
        Counts of all rows, complete after the first pass.
    n_fit, n_holdout, infinite_losses
        Numbers of rows, complete after the first pass; see :class:`batchmax.evaluation.calibrate.Calibration`.
    warnings
        Warnings about the first rows.

    Raises
    ------
    UsageError
        Invalid option or column, or no labels that are classes.
    """

    def __init__(self, src: Any, options: InputOptions, holdout: float, seed: int, progress: Progress) -> None:
        refuse_single_pass(src, "calibration needs several passes")
        if not 0.0 <= holdout < 1.0:
            raise UsageError(f"{holdout:g} is out of range", where="--holdout", remedy="give a share from 0 to below 1")
        if options.label == "none":
            raise UsageError("calibration needs labels", where="--label", remedy="name their column")
        if options.beta != 1.0:
            raise UsageError("the temperature is fitted", where="--temperature", remedy="leave it out")
        refuse_bytes(options)
        self.source = open_rows(src, options, ("loss",), {})
        job = self.source.job
        written = written_by_score(self.source.schema)
        is_distribution = ACTIVATIONS[job.options.activation_name].is_distribution
        self.loss: CalibrationLoss = SoftmaxLoss() if is_distribution else SigmoidLoss()
        if written is not None and not written.activation.is_log_linear and job.options.input != "logits":
            raise UsageError(
                f"{written.activation.name} probabilities, which score computed, can't be calibrated",
                where=", ".join(file.path for file in self.source.files),
                remedy="give a file of logits",
            )
        if job.label is None or (is_distribution and not job.label.has_class):
            what = "there is no label column" if job.label is None else "labels that are distributions have no class"
            raise UsageError(what, where="--label", remedy="name a column of classes: --label NAME")
        report_source(self.source, progress)
        self.warnings: list[str] = []
        self.n_fit = self.n_holdout = self.infinite_losses = 0
        self._src, self._options, self._progress = src, options, progress
        self._holdout, self._seed = holdout, seed
        self.tally = Tally()
        self._is_first_pass = True
        # None once the rows take more than their share of memory.
        self._kept: list[CalibrationBatch] | None = []
        self._bytes_left = options.memory_limit // SHARE

    def errors(self, bins: int, scaling: Scaling) -> tuple[float | None, float | None]:
        """Return the mean loss and the calibration error of the held-out rows, or of all rows if none are held out."""
        sums = self.loss.sums(self.source.job, bins)
        for batch in self._batches():
            counted = batch.held_out if self._holdout else batch.fitted
            self.loss.add(sums, scaling.scaled(batch.matrix), batch.labels, scaling.beta, counted)
        return self.loss.errors(sums)

    def mean(self, of: Callable[[Array, Array], Array]) -> float:
        """Return the mean of a function over the rows to fit to."""
        sums = np.zeros(3)
        for batch in self._batches():
            sum_counted(of(batch.matrix, batch.labels), batch.fitted, sums)
        return float(sums[0] + sums[1]) / self.n_fit

    def fitted(self) -> Iterator[tuple[Array, Array]]:
        """Yield the logits and labels of the rows to fit to."""
        for batch in self._batches():
            yield batch.matrix[batch.fitted], batch.labels[batch.fitted]

    def nothing_to_fit(self) -> DataError:
        """Return the error for input without rows to fit to."""
        where = ", ".join(file.path for file in self.source.files)
        remedy = "give more rows, or --holdout 0" if self.n_holdout else "give rows with a label and logits"
        counts = [*zip(STATUS_NAMES, self.tally.statuses.tolist(), strict=True), ("held out", self.n_holdout)]
        listed = ", ".join(f"{count:,} {name}" for name, count in counts if count) or "the input is empty"
        unit = "row" if self.source.job.nesting is None else "token"
        return DataError(f"there are no {unit}s to fit to ({listed})", where=where, remedy=remedy)

    def _batches(self) -> Iterator[CalibrationBatch]:
        if not self._is_first_pass and self._kept is not None:
            yield from self._kept
            return
        source = self.source if self._is_first_pass else open_rows(self._src, self._options, ("loss",), {})
        tally = self.tally = Tally()
        sequences = SequenceTally(shift=source.job.options.shift)
        self.n_fit = self.n_holdout = self.infinite_losses = 0
        self.warnings = []
        for rows in row_batches(source, self._progress, self.warnings):
            chunk, status, first = rows.chunk, rows.scores.status, tally.rows
            numbers = first + np.arange(len(status))
            tally.add(status)
            if isinstance(chunk, TokenChunk):
                numbers = first + chunk.tokens.places()[0]
                tally.add_sequences(sequences.add(chunk.tokens, status).first(chunk.rows_done).status)
            good = (status == Status.OK) & np.isfinite(rows.scores.rows.nll)
            self.infinite_losses += int(np.count_nonzero((status > LAST_WITHOUT_LOSS) & ~good))
            held_out = good & is_held_out(numbers, self._seed, self._holdout)
            labels = self.loss.labels(rows.labels, source.job.n_classes)
            batch = CalibrationBatch(rows.matrix, labels, held_out, good & ~held_out)
            self.n_fit += int(batch.fitted.sum())
            self.n_holdout += int(held_out.sum())
            self._bytes_left -= sum(array.nbytes for array in batch)
            if self._bytes_left < 0:
                self._kept = None
            if self._kept is not None:
                batch = CalibrationBatch(*(array.copy() for array in batch))
                self._kept.append(batch)
            yield batch
        self._is_first_pass = False


def is_held_out(numbers: Array, seed: int, share: float) -> Array:
    """Return which rows are held out: row r is if output r of SplitMix64, scaled to [0, 1), is below the share.

    SplitMix64 (Steele et al. 2014) is seeded with its own output 0 for ``seed``. Used directly, neighboring seeds would
    select shifted rows.
    """
    # Not the compiled function, which is for numbers; this one is the same for arrays.
    output = split_mix.py_func
    bits = output(output(np.array([seed % 2**64], np.uint64), np.uint64(0)), numbers.astype(np.uint64))
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share)

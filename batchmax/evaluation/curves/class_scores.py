"""The scores that order the rows of a class: its log-odds against all other classes, or what a file stores.

Logits z of two classes are ordered by z1 - z0, computed in float64: it is exact unless the exponents of two float32
logits differ by more than 29, and is rounded once otherwise. So rows are never in the wrong order; those whose exact
differences round to the same float64 are tied. One logit per row is its own log-odds, exactly. Log-odds of more classes
have an error of about one ULP of float64. Stored probabilities are ordered as they are.

Probabilities aren't computed: they tie at 1 from a logit of 17 (float32) or 37 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.matrices import read_matrix
from batchmax.functional.log_odds import (
    difference,
    log_odds_of_logarithms,
    log_odds_of_probabilities,
    probabilities,
)
from batchmax.jobs.row_batch import RowBatch
from batchmax.kernels.curves import log_odds
from batchmax.scoring.decisions import are_stored

Array = NDArray[Any]


class ClassScores:
    """Returns the scores of batches.

    Parameters
    ----------
    job
        How rows are read.
    positive
        The positive class of two; None for a score for each class.

    Attributes
    ----------
    dtype
        The type of the scores: float32 if there is one float32 logit per row, otherwise float64.
    classes
        The classes that have scores.
    holds
        What a score is: ``logits`` (log-odds), ``probs`` or ``log_probs``.
    """

    def __init__(self, job: Job, positive: int | None) -> None:
        options = job.options
        self._job, self._positive = job, positive
        is_stored = are_stored(job, positive)
        self.holds = options.input if is_stored else "logits"
        # The file has only the probability of the other class, which 1 - p would round: the score is its negative.
        self._is_reversed = is_stored and positive == 0 and job.logits.is_one_logit
        is_float32 = job.logits.is_one_logit and job.logits.dtype == np.float32 and not is_stored
        is_float32 = is_float32 and options.scale is None
        self.dtype = np.dtype(np.float32 if is_float32 else np.float64)
        self.classes: Sequence[int] = range(job.n_classes) if positive is None else (positive,)

    def of(self, batch: RowBatch, counted: Array) -> Array:
        """Return the scores of each class, (n_classes, n).

        With a positive class, they are of all rows, and NaN is possible for those that aren't counted, (n,) bool. With
        more classes, they are only of the counted rows.
        """
        if self._positive is not None:
            if self.holds != "logits":
                scores = self._stored_of_positive(batch, self._positive)
            else:
                scores = difference(batch.matrix, self._positive, self.dtype)
            return scores[np.newaxis]
        matrix = batch.matrix if self.holds == "logits" else self._stored(batch)
        matrix = np.ascontiguousarray(matrix if counted.all() else matrix[counted], np.float64)
        if self.holds != "logits":
            return np.ascontiguousarray(matrix.T)
        out = np.empty((matrix.shape[1], len(matrix)))
        log_odds(matrix, self._job.options.beta, out)
        return out

    def logits_and_thresholds(self, scores: Array) -> tuple[Array, Array]:
        """Return the log-odds and the probability of scores."""
        if self._is_reversed:
            logits, probs = self._of_stored(-scores)
            return -logits, 1.0 - probs
        if self.holds != "logits":
            return self._of_stored(scores)
        logits = scores.astype(np.float64)
        # Log-odds of more than two classes include beta.
        logits = logits if self._positive is None else logits * self._job.options.beta
        return logits, probabilities(logits)

    def evenly_spread(self, scores: Array) -> Array:
        """Return numbers in the same order that are spread like odds, for bins whose width grows with them."""
        if self._is_reversed:
            return -self._odds(-scores)
        return scores if self.holds == "logits" else self._odds(scores)

    def _of_stored(self, scores: Array) -> tuple[Array, Array]:
        if self.holds == "probs":
            return log_odds_of_probabilities(scores), scores
        return log_odds_of_logarithms(scores)

    def _odds(self, scores: Array) -> Array:
        """Return p / (1 - p) of probabilities above 1/2, and -(1 - p) / p of others; similar numbers of logarithms."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.holds == "probs":
                return np.where(scores <= 0.5, (scores - 1.0) / scores, scores / (1.0 - scores))
            return np.where(scores <= -1.0, scores, -1.0 / scores)

    def _stored(self, batch: RowBatch) -> Array:
        """Return the numbers that the file has, (n, n_classes)."""
        if self.holds == "log_probs":
            return batch.matrix
        # The batch has their logarithms, some of which are equal although the probabilities aren't.
        chunk, job = batch.chunk, self._job
        return read_matrix(chunk.batch, job.logits, job.n_classes)[0] if chunk.logits is None else chunk.logits

    def _stored_of_positive(self, batch: RowBatch, positive: int) -> Array:
        stored = self._stored(batch)
        if self._is_reversed:
            return -stored[:, -1].astype(np.float64)
        return np.ascontiguousarray(stored[:, positive], np.float64)

"""Collectors of single rows and of pairs of confused classes for a report, which metrics alone don't contain.

They receive the rows batch by batch, and keep one row and counts of bounded size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.sequences import Tokens
from batchmax.evaluation.metrics import CONFIDENCE_BINS
from batchmax.evaluation.result import Evaluation
from batchmax.jobs.row_batch import RowBatch
from batchmax.scoring.score_rows import carried_columns
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.scoring.tally import Tally, named_counts
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, Status

MOST_PAIRS = 1 << 18
"""Largest number of pairs of classes to count; above it, the rarest pairs are dropped."""


@dataclass(frozen=True, eq=False)
class SelectedRow:
    """One row: its origin, logits, label and status, and its carried columns with one value each.

    For sequences, one token: its position in the row, and the losses of all tokens of the row in pieces, NaN for no
    loss.
    """

    file: str
    row: int
    number: int
    logits: NDArray[np.floating]
    label: int | None
    status: Status
    columns: Sequence[tuple[pa.Field, pa.Array]]
    token: int | None
    pieces: Sequence[NDArray[np.float64]]

    @property
    def place(self) -> dict[str, Any]:
        """The file, the row, and for sequences the token."""
        return {"file": self.file, "row": self.row} | ({} if self.token is None else {"token": self.token})

    @property
    def has_probs(self) -> bool:
        """Whether there are probabilities to draw."""
        return self.status > LAST_WITHOUT_PROBS

    @property
    def losses(self) -> NDArray[np.float64] | None:
        """The losses of all tokens of the row; None if rows aren't sequences."""
        return None if self.token is None else np.concatenate(self.pieces)


class RowSelector:
    """Keeps one of the rows that it receives.

    Parameters
    ----------
    job
        The job that reads the rows.
    number
        The row's number, from 0 over all rows. None keeps the row with the largest loss, or without labels the one with
        the lowest confidence; the first of several. For sequences, the token with the largest loss, likewise.
    """

    def __init__(self, job: Job, number: int | None) -> None:
        self.selected: SelectedRow | None = None
        self.rows = 0
        self._job = job
        self._number = number
        self._largest = -np.inf
        self._last: list[NDArray[np.float64]] = []

    def add(self, batch: RowBatch) -> None:
        """Receive some rows."""
        n = len(batch.matrix)
        if n and isinstance(batch.chunk, TokenChunk):
            self._add_tokens(batch, batch.chunk.tokens)
        elif n and self._number is None:
            at = self._most_interesting(self._interest(batch))
            if at is not None:
                self._select(batch, at)
        elif self._number is not None and self.rows <= self._number < self.rows + n:
            self._select(batch, self._number - self.rows)
        self.rows += batch.chunk.rows_done

    def _add_tokens(self, batch: RowBatch, tokens: Tokens) -> None:
        row, place = tokens.places()
        losses = batch.scores.losses if batch.scores.losses is not None else np.full(len(row), np.nan)
        losses = np.where(batch.scores.status > LAST_WITHOUT_LOSS, losses, np.nan)
        interest = self._interest(batch)
        if self._number is not None:
            # If no token of the row has a loss, keep one without.
            interest = np.maximum(interest, np.finfo(np.float64).min)
            interest = np.where(self.rows + row == self._number, interest, -np.inf)
        ends = np.cumsum(tokens.lengths)

        def piece(at: int) -> NDArray[np.float64]:
            return losses[ends[at] - tokens.lengths[at] : ends[at]]

        # The list of a row that continues grows with each chunk; it may be the list of the selected row.
        first = self._last if tokens.continues else []
        first.append(piece(0))
        last = first if tokens.n_rows == 1 else [piece(-1)]
        at = self._most_interesting(interest)
        if at is not None:
            mine = int(row[at])
            pieces = {0: first, tokens.n_rows - 1: last}.get(mine, [piece(mine)])
            self._select(batch, at, int(place[at]), pieces)
        self._last = last

    def _most_interesting(self, interest: NDArray[np.float64]) -> int | None:
        """Return the index of the largest value; None if it isn't larger than those before."""
        at = int(np.argmax(interest))
        if interest[at] <= self._largest:
            return None
        self._largest = float(interest[at])
        return at

    def _interest(self, batch: RowBatch) -> NDArray[np.float64]:
        losses, status = batch.scores.losses, batch.scores.status
        if losses is None:
            return np.where(status > LAST_WITHOUT_PROBS, -batch.scores.values["confidence"], -np.inf)
        return np.where(status > LAST_WITHOUT_LOSS, losses, -np.inf)

    def _select(
        self, batch: RowBatch, at: int, token: int | None = None, pieces: Sequence[NDArray[np.float64]] = ()
    ) -> None:
        indices, status = batch.labels.indices, Status(int(batch.scores.status[at]))
        label = None
        if indices is not None and status >= Status.MASKED_LABEL:
            label = int(indices[at])
        chunk, unit = batch.chunk, np.array([at])
        carried = carried_columns(chunk.take(unit, self._job.carried.names), self._job)
        row = int(chunk.rows_of(unit)[0])
        number = self.rows + row - chunk.origin.first_row
        logits = batch.matrix[at].copy()
        self.selected = SelectedRow(chunk.origin.file, row, number, logits, label, status, carried, token, pieces)


class ConfusedPairs:
    """Counts of confused pairs of classes, for more classes than a confusion matrix can hold.

    Counts are exact for up to :data:`MOST_PAIRS` pairs. Above, the pairs with the smallest counts so far are dropped
    after each chunk, and ``is_exact`` is False.
    """

    def __init__(self, n_classes: int) -> None:
        self.is_exact = True
        self._k = n_classes
        self._counts = Counter[int]()

    def add(self, batch: RowBatch) -> None:
        """Count the confused pairs of some rows."""
        labels, pred = batch.labels.indices, batch.scores.values["pred"]
        if labels is None:
            return
        wrong = (batch.scores.status >= Status.MASKED_LABEL) & (labels != pred)
        codes, counts = np.unique(labels[wrong] * self._k + pred[wrong], return_counts=True)
        self._counts.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        if len(self._counts) > MOST_PAIRS:
            self.is_exact = False
            ranked = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
            self._counts = Counter(dict(ranked[: MOST_PAIRS // 2]))

    @property
    def pairs(self) -> list[tuple[int, int, float]]:
        """The pairs: label, prediction, number of rows."""
        return [(*divmod(code, self._k), count) for code, count in self._counts.items()]


class UnlabeledMetrics:
    """The metrics that need no labels: the rows and tokens of each status, and a histogram of the confidence."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._counts = np.zeros(CONFIDENCE_BINS, np.int64)
        self._tally = Tally()
        self._sequences = SequenceTally(shift=job.options.shift)

    def add(self, batch: RowBatch) -> None:
        """Count some rows."""
        status = batch.scores.status
        self._tally.add(status)
        if isinstance(batch.chunk, TokenChunk):
            tokens = batch.chunk.tokens
            self._tally.add_sequences(self._sequences.add(tokens, status).first(tokens.n_ended).status)
        confidence = batch.scores.values["confidence"][status > LAST_WITHOUT_PROBS]
        bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
        self._counts += np.bincount(bins, minlength=CONFIDENCE_BINS)

    def result(self, warnings: list[str]) -> Evaluation:
        """Return the metrics with these warnings; metrics that need labels are missing."""
        tally, edges = self._tally, [at / CONFIDENCE_BINS for at in range(CONFIDENCE_BINS + 1)]
        return Evaluation(
            n_rows=tally.rows,
            n_classes=self._job.n_classes,
            confidences={"edges": edges, "all": [*self._counts.tolist()]},
            bad_rows=tally.bad_rows,
            status_counts=named_counts(tally.row_statuses),
            token_status_counts=None if self._job.nesting is None else named_counts(tally.statuses),
            warnings=warnings,
        )

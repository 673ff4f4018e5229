"""Collectors of single rows and of pairs of confused classes for a report, which metrics alone don't contain.

They receive the rows batch by batch, and keep one row and counts of bounded size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.sequences import Tokens
from batchmax.jobs.row_batch import RowBatch
from batchmax.scoring.score_rows import carried_columns
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.scoring.tally import Tally
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, Status

CONFIDENCE_BINS = 20
MOST_PAIRS = 1 << 18
"""Largest number of pairs of classes to count; above it, the rarest pairs are dropped."""


@dataclass(frozen=True, eq=False)
class SelectedRow:
    """One row: its origin, logits, label and status, and its carried columns as a batch of one row.

    For sequences, one token: its position in the row, and the losses of all tokens of the row, NaN for no loss.
    """

    file: str
    row: int
    number: int
    logits: NDArray[np.floating]
    label: int | None
    status: Status
    columns: pa.RecordBatch
    token: int | None = None
    losses: NDArray[np.float64] | None = None


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
        self._open: list[NDArray[np.float64]] = []
        self._continues = False

    def add(self, batch: RowBatch) -> None:
        """Receive some rows."""
        n = len(batch.matrix)
        if isinstance(batch.chunk, TokenChunk):
            self._add_tokens(batch, batch.chunk.tokens)
        elif self._number is not None:
            if self.rows <= self._number < self.rows + n:
                self._select(batch, self._number - self.rows)
        elif n:
            interest = self._interest(batch)
            at = int(np.argmax(interest))
            if interest[at] > self._largest:
                self._largest = float(interest[at])
                self._select(batch, at)
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
        before, self._open = self._open, []
        kept, self._continues = self._continues and tokens.continues, False
        if kept and self.selected is not None and self.selected.losses is not None:
            self.selected = replace(self.selected, losses=np.concatenate([self.selected.losses, losses[: ends[0]]]))
            self._continues = tokens.n_rows == 1 and not tokens.ends
        at = int(np.argmax(interest)) if len(interest) else 0
        if len(interest) and interest[at] > self._largest:
            self._largest = float(interest[at])
            self._select(batch, at)
            mine = int(row[at])
            whole = [
                *(before if mine == 0 and tokens.continues else []),
                losses[ends[mine] - tokens.lengths[mine] : ends[mine]],
            ]
            if self.selected is not None:
                self.selected = replace(self.selected, token=int(place[at]), losses=np.concatenate(whole))
            self._continues = mine == tokens.n_rows - 1 and not tokens.ends
        if not tokens.ends:
            last = losses[ends[-1] - tokens.lengths[-1] :]
            self._open = [*(before if tokens.n_rows == 1 else []), last]

    def _interest(self, batch: RowBatch) -> NDArray[np.float64]:
        losses, status = batch.scores.losses, batch.scores.status
        if losses is None:
            return np.where(status > LAST_WITHOUT_PROBS, -batch.scores.values["confidence"], -np.inf)
        return np.where(status > LAST_WITHOUT_LOSS, losses, -np.inf)

    def _select(self, batch: RowBatch, at: int) -> None:
        indices, status = batch.labels.indices, Status(int(batch.scores.status[at]))
        label = None
        if indices is not None and status >= Status.MASKED_LABEL:
            label = int(indices[at])
        chunk, unit = batch.chunk, np.array([at])
        carried = carried_columns(chunk.take(unit, self._job.carried.names), self._job)
        columns = pa.RecordBatch.from_arrays(
            [array for _, array in carried], schema=pa.schema([field for field, _ in carried])
        )
        row = int(chunk.rows_of(unit)[0])
        number = self.rows + row - chunk.origin.first_row
        self.selected = SelectedRow(chunk.origin.file, row, number, batch.matrix[at].copy(), label, status, columns)


class ConfusedPairs:
    """Counts of confused pairs of classes, for more classes than a confusion matrix can hold.

    Counts are exact for up to :data:`MOST_PAIRS` pairs. Above, the pairs with the smallest counts so far are dropped
    after each chunk, and ``is_exact`` is False.
    """

    def __init__(self, n_classes: int) -> None:
        self.is_exact = True
        self._k = n_classes
        self._codes = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)

    def add(self, batch: RowBatch) -> None:
        """Count the confused pairs of some rows."""
        labels, pred = batch.labels.indices, batch.scores.values["pred"]
        if labels is None:
            return
        wrong = (batch.scores.status >= Status.MASKED_LABEL) & (labels != pred)
        codes, counts = np.unique(labels[wrong] * self._k + pred[wrong], return_counts=True)
        both = np.concatenate([self._codes, codes])
        self._codes, places = np.unique(both, return_inverse=True)
        self._counts = np.bincount(places, np.concatenate([self._counts, counts]), minlength=len(self._codes)).astype(
            np.int64
        )
        if len(self._codes) > MOST_PAIRS:
            self.is_exact = False
            kept = np.sort(np.argsort(-self._counts, kind="stable")[: MOST_PAIRS // 2])
            self._codes, self._counts = self._codes[kept], self._counts[kept]

    @property
    def pairs(self) -> list[tuple[int, int, float]]:
        """The pairs: label, prediction, number of rows."""
        return [
            (int(code // self._k), int(code % self._k), int(count))
            for code, count in zip(self._codes, self._counts, strict=True)
        ]


class ConfidenceHistogram:
    """A histogram of the confidence, and the number of rows and tokens with each status. Needs no labels."""

    def __init__(self, job: Job) -> None:
        self.counts = np.zeros(CONFIDENCE_BINS, np.int64)
        self.tally = Tally()
        self._sequences = SequenceTally(shift=job.options.shift)

    def add(self, batch: RowBatch) -> None:
        """Count some rows."""
        status = batch.scores.status
        self.tally.add(status)
        if isinstance(batch.chunk, TokenChunk):
            tokens = batch.chunk.tokens
            self.tally.add_sequences(self._sequences.add(tokens, status).first(tokens.n_ended).status)
        confidence = batch.scores.values["confidence"][status > LAST_WITHOUT_PROBS]
        bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
        self.counts += np.bincount(bins, minlength=CONFIDENCE_BINS)

    @property
    def edges(self) -> list[float]:
        """The borders of the bins."""
        return [at / CONFIDENCE_BINS for at in range(CONFIDENCE_BINS + 1)]

"""The stage of ``score``: computes the output columns of each chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchmax.jobs.bad_row_policy import BadRowHandler
from batchmax.jobs.row_batch import score_chunk
from batchmax.jobs.stage import Result, Stage
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import input_warnings, score_table
from batchmax.scoring.sequence_assembler import SequenceRows
from batchmax.scoring.sequence_totals import text_bytes
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import Source
from batchmax.sources.parts import Part
from batchmax.sources.token_chunks import TokenChunk
from batchmax.storage.paths import STREAM


class ScoreStage(Stage):
    """Scores chunks and counts their rows. ``out`` is a path, or ``-`` if the results don't go to a file."""

    command = "score"

    def __init__(self, source: Source, progress: Progress, out: str = STREAM) -> None:
        super().__init__(source, progress, out)
        self._bad_rows = BadRowHandler(source.job, source.schema)
        self._first_row = 0
        self._is_checked = False
        self._sequences = None
        if source.job.nesting is not None:
            self._sequences = SequenceRows(source.job, streams=out != STREAM)

    def compute(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Score a chunk, handle its bad rows, and count its rows; of sequences, those that end with it."""
        job = self._source.job
        batch = score_chunk(chunk, job, buffers, self._first_row + self.tally.rows)
        scores = batch.scores
        if not self._is_checked and len(batch.matrix):
            self._is_checked = True
            for text in input_warnings(batch.matrix, job):
                self.warn(text)
        self._bad_rows.refuse(chunk, scores.status)
        self.tally.add(scores.status, scores.losses, scores.nll, scores.hits, scores.weights)
        self.tally.one_label += scores.n_with_one_label
        if self._sequences is None or not isinstance(chunk, TokenChunk):
            result = Result(score_table(chunk.batch, scores, job, buffers.take))
            return self._bad_rows.apply(chunk, result, scores.status)
        completed = self._sequences.add(chunk.tokens, scores)
        totals = completed.totals
        self.tally.add_sequences(totals.status)
        if job.options.bytes is not None and scores.nll is not None:
            _, plain, _ = totals.sums
            self.tally.add_text(text_bytes(chunk, job.options.bytes, totals), plain, totals.is_scored)
        return self._bad_rows.apply(chunk, Result(completed.batch, completed=completed), totals.status)

    def begin(self, part: Part) -> None:
        """Start counting the rows of a part. Only the first rows of the job are checked for suspicious values."""
        super().begin(part)
        self._first_row, self._is_checked = part.start, part.number > 0

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a state."""
        super().restore(state)
        self._is_checked = self.tally.rows > 0

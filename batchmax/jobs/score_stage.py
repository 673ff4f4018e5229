"""The computation of a scoring job on a chunk, and its counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchmax.columns.matrices import SparseVectorError
from batchmax.errors import DataError
from batchmax.jobs.bad_row_policy import BadRows
from batchmax.jobs.pipeline import Result
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import doubts_about, read_rows, score_rows, score_table
from batchmax.scoring.sequence_assembler import SequenceRows
from batchmax.scoring.sequence_totals import text_bytes
from batchmax.scoring.tally import Tally
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_file import pyarrow_only
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import Part
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.sources.token_chunks import TokenChunk


class ScoreWork:
    """Scores chunks and counts their rows."""

    def __init__(self, source: ParquetSource | StreamSource, progress: Progress, *, to_file: bool = False) -> None:
        self.tally = Tally()
        self.warnings: list[str] = []
        self._job = source.job
        self._bad_rows = BadRows(source, source.job)
        self._progress = progress
        self._looked = False
        self._start = 0
        self._ended = Tally()
        self._rows = None
        if source.job.nesting is not None:
            # pyarrow can't write columns in pieces.
            self._rows = SequenceRows(source.job, streams=to_file and not pyarrow_only())

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Score a chunk, handle its bad rows, and count its rows; of sequences, those that end with it."""
        job = self._job
        try:
            matrix, labels, known = read_rows(chunk.batch, job, buffers.take, chunk.logits, chunk.known)
        except SparseVectorError as error:
            raise DataError(error.what, where=chunk.place(error.row), remedy=error.remedy) from error
        if not self._looked and len(matrix):
            self._looked = True
            for doubt in doubts_about(matrix, job):
                self.warn(doubt)
        numbers = self._start + self.tally.rows
        tokens = chunk.tokens if isinstance(chunk, TokenChunk) else None
        scores = score_rows(matrix, labels, known, job, buffers.take, numbers, tokens)
        self._bad_rows.refuse(chunk, scores.status)
        self.tally.add(scores.status, scores.losses, scores.nll, scores.hits, scores.weights)
        if self._rows is not None and isinstance(chunk, TokenChunk):
            ended = self._rows.add(chunk.tokens, scores)
            totals = ended.totals
            self.tally.add_sequences(totals.status)
            if job.options.bytes is not None and scores.nll is not None:
                _, plain, _ = totals.sums
                self.tally.add_text(text_bytes(chunk, job.options.bytes, totals), plain, totals.is_scored)
            return self._bad_rows.settle_rows(chunk, ended)
        return self._bad_rows.settle(chunk, score_table(chunk.batch, scores, job, buffers.take), scores.status)

    def begin(self, part: Part) -> None:
        """Start counting the rows of a part. Only the first rows of the job are checked for suspicious values."""
        self._ended = Tally.merged([self._ended, self.tally])
        self.tally, self.warnings = Tally(), []
        self._start, self._looked = part.start, part.number > 0

    @property
    def rows(self) -> int:
        """The number of rows that this process has counted."""
        return self._ended.rows + self.tally.rows

    def known(self) -> dict[str, int]:
        """Return the counts that can only grow, over all rows that this process has counted."""
        return {
            "bad_rows": self._ended.bad_rows + self.tally.bad_rows,
            "infinite_losses": self._ended.infinite_losses + self.tally.infinite_losses,
        }

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Set the counts to the sum over all parts, added in their order."""
        self.warnings = []

        def tallies() -> Iterator[Tally]:
            for state in states:
                self.warnings += state["warnings"]
                yield Tally.restored(state["tally"])

        self.tally = Tally.merged(tallies())

    def state(self) -> dict[str, Any]:
        """Return the counts so far, or of the current part, as JSON values."""
        return {"tally": self.tally.state(), "warnings": list(self.warnings)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a state."""
        self.tally = Tally.restored(state["tally"])
        self.warnings = list(state["warnings"])
        self._looked = self.tally.rows > 0

    def late_warnings(self) -> list[str]:
        """Return the warnings that are known only at the end."""
        if not self.tally.infinite_losses:
            return []
        units = "rows" if self._job.nesting is None else "tokens"
        rows = f"{self.tally.infinite_losses:,} {units} have an infinite loss"
        lacks = "logit -inf" if self._job.options.activation == "softmax" else "probability 0"
        return [f"{rows}: a class that counts in it has {lacks}; so there is no mean loss"]

    def warn(self, text: str) -> None:
        """Report a warning, and add it to the summary."""
        self.warnings.append(text)
        self._progress.warn(text)

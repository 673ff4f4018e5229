"""An Arrow stream as a source: a table, a data frame, the result of a query, a reader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batchmax.arrow import schema_without_views, without_views
from batchmax.chunks import Chunk, Origin, Part, Ways, plan_cut, regroup
from batchmax.columns import find_logits
from batchmax.copying import Reading
from batchmax.job import plan_scoring
from batchmax.matrices import first_row_length
from batchmax.options import ScoreOptions
from batchmax.parquet_files import InputFile
from batchmax.partitions import Partitions
from batchmax.sequence_source import TokenCut, after, from_columns, regrouped


class StreamSource:
    """An Arrow stream: a table, a data frame, a query's result, a reader."""

    files: list[InputFile]
    folders: Sequence[str] = ()
    warnings: Sequence[str] = ()
    unified: Sequence[dict[str, Any]] = ()
    partitions = Partitions()

    def __init__(self, stream: Any, options: ScoreOptions) -> None:
        # Through the C interface an error would come as a text.
        is_reader = isinstance(stream, pa.RecordBatchReader)
        self._reader = stream if is_reader else pa.RecordBatchReader.from_stream(stream)
        self.files = []
        self.schema = schema_without_views(self._reader.schema)
        self.n_rows: int | None = getattr(stream, "num_rows", None)
        self.size: int | None = None
        self.ways = Ways()
        self._options = options
        self._read: list[pa.RecordBatch] = []
        column = find_logits(self.schema, options)
        length = column.n_classes
        while length is None and (batch := next(self._reader, None)) is not None:
            self._read.append(batch)
            length = first_row_length(batch, column)
        self.job = plan_scoring(self.schema, options, length)

    def group_rows(self) -> list[list[int]]:
        """Return that a stream is one file of one row group, whose length nobody knows."""
        return [[0]]

    @property
    def row_bytes(self) -> int:
        """The bytes of the logits of one row, or of one token of it."""
        return self.job.row_bytes

    def chunks(self, parts: Iterable[Part], how: Reading, skip: int = 0) -> Iterator[Chunk]:
        """Read the rows in order. A stream is one part, gives all of its columns, and cannot begin later."""
        del parts, how, skip
        if self.job.nesting is not None:
            return self._sequences()
        cut = plan_cut(self.job)
        return regroup(self._batches(), cut.group, cut.piece)

    def memory_needed(self) -> int:
        """Return about how many bytes of memory a job on this stream takes besides what the program itself does."""
        if self.job.nesting is not None:
            return TokenCut.of(self.job).memory(self.job, 0)
        return plan_cut(self.job).memory(self.n_rows)

    def _sequences(self) -> Iterator[Chunk]:
        cut = TokenCut.of(self.job)
        batches = map(without_views, itertools.chain(self._read, self._reader))
        position = 0, 0
        for chunk in regrouped(from_columns(batches, self.job, cut, position), cut, whole=False):
            yield replace(chunk, origin=Origin("the stream", position[0], None))
            position = after(position, chunk)

    def _batches(self) -> Iterator[Chunk]:
        first_row = 0
        for batch in itertools.chain(self._read, self._reader):
            yield Chunk(without_views(batch), Origin("the stream", first_row, None))
            first_row += batch.num_rows

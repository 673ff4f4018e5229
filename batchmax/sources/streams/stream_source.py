"""Reads an Arrow stream as a source: a table, a data frame, a query result, a record batch reader."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import plan_scoring
from batchmax.columns.label_lists import FORMAT_ROWS, first_rows_of
from batchmax.columns.matrices import first_row_length
from batchmax.errors import DataError
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.arrow_errors import PARSING, is_damage
from batchmax.sources.chunks import Chunk, ReadStatistics, RowChunk, placed, plan_chunk_sizes, regroup
from batchmax.sources.parquet_file import InputFile
from batchmax.sources.parts import Part
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.sequence_source import TokenSizes, from_columns, regrouped
from batchmax.sources.streams.arrow_batches import check_batch, check_schema, decoded_batches, decoded_schema
from batchmax.storage.hive import Partitions

MAX_DECODED_SHARE = 8
"""Divisor of the memory limit: the share that the decoded values of views and runs may take at a time."""


class StreamSource:
    """An Arrow stream: a table, a data frame, a query result, a record batch reader.

    Parameters
    ----------
    stream
        A reader of record batches, or an object with ``__arrow_c_stream__``.
    options
        How it is read.
    name
        Name of the stream in errors.
    writes
        Whether the job has output columns; see :func:`batchmax.columns.job.plan_scoring`.

    Raises
    ------
    DataError
        The stream can't be read, or its first batches are invalid.
    UsageError
        A column or an option is invalid.
    """

    files: list[InputFile]
    folders: Sequence[str] = ()
    warnings: Sequence[str] = ()
    unified: Sequence[dict[str, Any]] = ()
    partitions = Partitions()

    def __init__(self, stream: Any, options: ScoreOptions, name: str = "the stream", *, writes: bool = True) -> None:
        reader = _opened(stream, name)
        check_schema(reader.schema, name)
        self._batches = decoded_batches(_checked(reader, name), options.memory_limit // MAX_DECODED_SHARE)
        self.files = []
        self.schema = decoded_schema(reader.schema)
        self.n_rows: int | None = getattr(stream, "num_rows", None)
        self.size: int | None = None
        self.read_statistics = ReadStatistics()
        self._options = options
        read: list[pa.RecordBatch] = []
        column = find_logits(self.schema, options)
        length = column.n_classes
        while length is None and (batch := next(self._batches, None)) is not None:
            read.append(batch)
            length = first_row_length(batch, column)
        self.job = plan_scoring(self.schema, options, length, writes=writes)
        if self.job.is_undecided:
            # The choice must not depend on how the stream is cut into batches.
            while sum(one.num_rows for one in read) < FORMAT_ROWS and (batch := next(self._batches, None)) is not None:
                read.append(batch)
            self.job = self.job.with_label_format(first_rows_of(read, self.job.label_columns))
        self._batches = itertools.chain(read, self._batches)

    @property
    def readers(self) -> int:
        """The number of threads that read: a stream is read in order."""
        return 1

    def group_rows(self) -> list[list[int]]:
        """Return one file with one row group of unknown length."""
        return [[0]]

    @property
    def row_bytes(self) -> int:
        """The bytes of the logits of one row; of one token if rows are sequences."""
        return self.job.row_bytes

    def chunks(self, parts: Iterable[Part], plan: ReadPlan, skip: int = 0) -> Generator[Chunk, None, None]:
        """Yield the rows in order. The arguments are ignored: a stream is one part, read from its start as a whole."""
        del parts, plan, skip
        if self.job.nesting is not None:
            tokens = regrouped(from_columns(self._batches, self.job), TokenSizes.of(self.job), whole=False)
            return placed(tokens, "the stream")
        sizes = plan_chunk_sizes(self.job)
        return placed(regroup(map(RowChunk, self._batches), sizes.group_rows, sizes.chunk_rows), "the stream")

    def memory_needed(self, rows: int | None = None) -> int:
        """Return the approximate memory in bytes of a job on this stream, without the memory of the program itself.

        ``rows`` is the maximum number of rows in a row group.
        """
        if self.job.nesting is not None:
            return TokenSizes.of(self.job).memory(self.job)
        return plan_chunk_sizes(self.job).memory(self.n_rows if rows is None else min(rows, self.n_rows or rows))


def _opened(stream: Any, name: str) -> pa.RecordBatchReader:
    """Return a reader of a stream.

    Raises
    ------
    DataError
        The stream can't be read, for example because DuckDB has another open result on the same connection.
    """
    # Through the C interface, an exception would lose its type and become text.
    if isinstance(stream, pa.RecordBatchReader):
        return stream
    duckdb = sys.modules.get("duckdb")
    errors = () if duckdb is None else (duckdb.Error,)
    try:
        with _reading(name):
            return pa.RecordBatchReader.from_stream(stream)
    except errors as error:
        raise DataError(
            f"cannot be read: {' '.join(str(error).split())}",
            where=name,
            remedy="if its connection has another open result, make a table first: relation.to_arrow_table()",
        ) from error


def _checked(reader: pa.RecordBatchReader, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream, each after it was checked.

    Raises
    ------
    DataError
        A batch is invalid; the error names the batch, counted from 0, and the column.
    """
    for number in itertools.count():
        where = f"{name}: batch {number:,}"
        with _reading(where):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        check_batch(batch, where)
        yield batch


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn Arrow's errors about an invalid stream into errors that name it."""
    try:
        yield
    except PARSING as error:
        if not is_damage(error):
            raise
        what = f"cannot be read: {' '.join(str(error).split())}"
        raise DataError(what, where=where, remedy="check the program that wrote the stream") from error

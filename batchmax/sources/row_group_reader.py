"""Reads one row group of a file in chunks: logits as a matrix if the pages allow it, otherwise through pyarrow.

Carried columns are copied undecoded where possible. Doesn't know which row groups are read, nor how rows are scored.
"""

from __future__ import annotations

import contextlib
import copy
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.columns.job import Job
from batchmax.columns.matrices import with_first_class
from batchmax.errors import BatchmaxError
from batchmax.parquet import CopiedColumns, FooterError, MatrixReader, PageError, SequenceReader, ThriftError
from batchmax.parquet.reading.raw_pages import pooled_matrix
from batchmax.parquet.writing.column_chunk import METADATA, N_VALUES
from batchmax.sources.chunks import (
    MAX_CHUNK_BYTES,
    Chunk,
    ChunkSizes,
    ReadStatistics,
    RowChunk,
    placed,
    plan_chunk_sizes,
    regroup,
    skipped,
)
from batchmax.sources.decode_budget import DecodeBudget
from batchmax.sources.parquet_file import InputFile, OpenFile, pyarrow_only
from batchmax.sources.passthrough import ReadPlan, copy_columns
from batchmax.sources.read_errors import read_errors
from batchmax.sources.sequence_source import TokenSizes, from_columns, from_matrices, regrouped, rows_at_once

MATRIX_LAYOUTS = ("list", "large_list", "fixed", "tensor")
"""Layouts of logits that can be read as a matrix."""

SAMPLE_ROWS = 1024
"""Rows of the sample from which the size of carried columns in memory is estimated."""

SAMPLE_BYTES = 64 << 20
"""Maximum bytes of that sample; it has fewer rows if they are larger."""


class GroupReader:
    """Reads row groups of a job's files.

    Parameters
    ----------
    job
        What is computed.
    folder_columns
        Names of columns that aren't stored in the files.
    read_statistics
        Read statistics, updated while reading.
    """

    def __init__(self, job: Job, folder_columns: Collection[str], read_statistics: ReadStatistics) -> None:
        self.job = job
        self.read_statistics = read_statistics
        self._folder_columns = folder_columns
        self._limit = job.options.memory_limit
        self._carried_bytes: dict[str, int] = {}

    def with_statistics(self, read_statistics: ReadStatistics) -> GroupReader:
        """Return a reader of the same files that updates other statistics."""
        reader = copy.copy(self)
        reader.read_statistics = read_statistics
        return reader

    def chunks(self, opened: OpenFile, group: int, row: int, plan: ReadPlan) -> Iterator[Chunk]:
        """Yield the chunks of a row group; ``row`` is the number of its first row in the file."""
        file, kept_rows, copies = opened.file, None, plan.copy_plan
        with read_errors(file.path):
            file.footer.row_group(group).check_ranges()
            opened.need(group, plan.columns if copies is None else [*(plan.columns or ()), *copies.names])
            metadata = opened.parquet.metadata.row_group(group)
            rows, token_sizes = metadata.num_rows, TokenSizes.of(self.job)
            if self.job.nesting is None:
                sizes = self._chunk_sizes(file, metadata)
                whole = rows <= sizes.group_rows
                at_once, kept_rows = sizes.chunk_rows, sizes.group_rows
            else:
                tokens = self.n_values(file, group) // self.job.n_logits
                whole = tokens <= token_sizes.group_tokens and rows <= token_sizes.group_rows
                at_once = rows_at_once(max(1, self._carried_row_bytes(file) + 8 * tokens // max(rows, 1)))
            copied = None
            if copies is not None:
                copied = copy_columns(opened, group, copies, self.read_statistics, self._limit // 4, whole=whole)
            # Copied columns aren't decoded, except in the first row group: there, decoding detects a footer that is
            # wrong about a whole column.
            rest = plan if group == 0 else self._without_copied(plan, copied)
            counted = () if copied is None else copied.chunks.keys()
            chunks: Iterator[Any] = self._unplaced_chunks(opened, group, at_once, rest, kept_rows, counted)
            if self.job.nesting is None:
                chunks = regroup(chunks, sizes.group_rows, sizes.chunk_rows)
            else:
                chunks = regrouped(chunks, token_sizes, whole=whole)
            yield from placed(chunks, file.path, row, group, copied, rows)

    def memory(self, file: InputFile, rows: int | None = None) -> int:
        """Return the approximate memory in bytes that any row group of a file takes, with at most ``rows`` rows.

        That of sequences doesn't depend on the number of rows.
        """
        if self.job.nesting is not None:
            return TokenSizes.of(self.job).memory(self.job, self._carried_row_bytes(file), self._n_tokens(file))
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        return max((self._chunk_sizes(file, group).memory(rows) for group in groups), default=0)

    def reader_memory(self, file: InputFile) -> int:
        """Return the approximate memory in bytes of another thread that reads a file's row groups, unless sequences."""
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        return max((self._chunk_sizes(file, group).reader_memory for group in groups), default=0)

    def n_values(self, file: InputFile, group: int) -> int:
        """Return the number of values, nulls and empty lists in the logits of a row group; 0 if unknown."""
        column = file.footer.column(self.job.logits.names[0])
        if column is None:
            return 0
        try:
            chunk = file.footer.row_group(group).chunk(column.first_leaf)
        except (FooterError, ThriftError):
            return 0
        return int(chunk[METADATA].value[N_VALUES].value) if METADATA in chunk else 0

    def _n_tokens(self, file: InputFile) -> int | None:
        """Return an upper bound of the tokens plus rows of a file; None if the footer doesn't say."""
        counts = [self.n_values(file, group) for group in range(file.metadata.num_row_groups)]
        if not all(counts):
            return None
        return int(file.metadata.num_rows) + sum(counts) // self.job.n_logits

    def _without_copied(self, plan: ReadPlan, copied: CopiedColumns | None) -> ReadPlan:
        """Return how to read a row group whose columns in ``copied`` need no decoding."""
        if plan.columns is None or copied is None or plan.copy_plan is None or not plan.copy_plan.skips_decoding:
            return plan
        needed = self.job.columns_computed_on
        return replace(plan, columns=[name for name in plan.columns if name not in copied.chunks or name in needed])

    def _unplaced_chunks(
        self,
        opened: OpenFile,
        group: int,
        at_once: int,
        plan: ReadPlan,
        kept_rows: int | None,
        counted: Collection[str],
    ) -> Iterator[Chunk]:
        """Yield the chunks of a row group, with logits as matrices as far as the pages allow it."""
        job, file, position = self.job, opened.file, (0, 0)
        n_rows = opened.parquet.metadata.row_group(group).num_rows
        reader = self._matrix_reader(opened, group, plan)
        if reader is not None:
            others = [name for name in plan.columns or () if name not in job.logits.names]
            batches = self._column_batches(opened, group, others, at_once, plan, kept_rows, counted)
            chunks: Iterator[Chunk]
            if isinstance(reader, SequenceReader):
                chunks = from_matrices(reader, batches, job, n_rows)
            else:
                chunks = _with_matrices(reader, batches, job)
            try:
                for chunk in chunks:
                    yield chunk
                    position = chunk.after(position)
                reader.check_end()
            except PageError as error:
                self.read_statistics.reasons[str(error)] += 1
            else:
                self.read_statistics.as_matrices += 1
                return
        self.read_statistics.by_pyarrow += 1
        if job.nesting is not None:
            row_bytes = max(1, self.n_values(file, group) // max(n_rows, 1) * job.logits.dtype.itemsize)
            at_once = max(1, min(at_once, MAX_CHUNK_BYTES // row_bytes))
        batches = self._column_batches(opened, group, plan.columns, at_once, plan, kept_rows, counted)
        # Rows before the page that isn't a matrix are read again, but not yielded again.
        if job.nesting is not None:
            yield from from_columns(batches, job, position)
        else:
            yield from skipped([(0, map(RowChunk, batches))], position[0])

    def _matrix_reader(self, opened: OpenFile, group: int, plan: ReadPlan) -> MatrixReader | SequenceReader | None:
        """Return a reader of the logits of a row group as a matrix; None if pyarrow must read the column."""
        job, footer, name = self.job, opened.file.footer, self.job.logits.names[0]
        carried = plan.columns is None or name.split(".")[0] in job.carried.names
        if carried or pyarrow_only() or job.logits.layout not in MATRIX_LAYOUTS:
            return None
        leaves = [number for number, leaf in enumerate(footer.leaves) if f"{leaf.name}.".startswith(f"{name}.")]
        column = footer.column(name)
        if len(leaves) != 1 or (job.nesting is not None and column is None):
            return None
        try:
            row_group = footer.row_group(group)
            chunk = row_group.chunk(leaves[0])
            more = row_group.n_rows, job.n_logits, plan.workers, self._limit // (8 * plan.readers)
            reader: MatrixReader | SequenceReader
            if job.nesting is None or column is None:
                reader = MatrixReader(opened.descriptor, chunk, footer.leaves[leaves[0]], *more)
            else:
                reader = SequenceReader(opened.descriptor, chunk, column, *more)
        except (PageError, FooterError, ThriftError) as error:
            self.read_statistics.reasons[str(error)] += 1
            return None
        if reader.dtype == job.logits.dtype or (job.nesting is None and reader.dtype == np.float32):
            return reader
        return None

    def _column_batches(
        self,
        opened: OpenFile,
        group: int,
        names: Sequence[str] | None,
        rows: int,
        plan: ReadPlan,
        kept_rows: int | None,
        counted: Collection[str],
    ) -> Iterator[pa.RecordBatch]:
        """Yield columns of a row group, read by pyarrow, in batches of up to ``rows`` rows.

        ``counted`` has the columns whose pages were compared with the footer when they were copied.
        """
        use_threads = names is None or len(names) > 1  # a single column is decoded faster in this thread
        int96 = opened.file.read_as_stored(plan.int96)
        with self._column_errors():
            budget = DecodeBudget(opened, group, names, self._limit, kept_rows, counted, plan.readers)
            for batch in budget.batches(rows, int96=int96, use_threads=use_threads):
                yield opened.file.conform(batch, names)

    @contextlib.contextmanager
    def _column_errors(self) -> Iterator[None]:
        """Add to the error about a column how to leave it out, if the job only copies it."""
        try:
            yield
        except BatchmaxError as error:
            if self.job.can_exclude(error.column):
                error.remedy += f", or leave the column out: --exclude {shlex.quote(error.column)}"
            raise

    def _chunk_sizes(self, file: InputFile, metadata: pq.RowGroupMetaData) -> ChunkSizes:
        stored = metadata.total_byte_size // max(metadata.num_rows, 1)
        return plan_chunk_sizes(self.job, metadata.num_rows, max(stored, self._carried_row_bytes(file)))

    def _carried_row_bytes(self, file: InputFile) -> int:
        """Return the estimated bytes per row of the carried columns of variable width in memory.

        Measured on the first rows of the file and doubled: the footer has only the encoded size, where repeated text is
        stored once.
        """
        if file.path not in self._carried_bytes:
            stored = [field for field in self.job.carried if field.name not in self._folder_columns]
            variable = [field.name for field in stored if not _has_fixed_width(field.type)]
            n_bytes = 0
            if variable:
                batch = self.first_rows(file, variable)
                n_bytes = 0 if batch is None else 2 * batch.nbytes // max(batch.num_rows, 1)
            self._carried_bytes[file.path] = n_bytes
        return self._carried_bytes[file.path]

    def first_rows(self, file: InputFile, names: Sequence[str]) -> pa.RecordBatch | None:
        """Return some columns of the first rows of a file, fewer rows if these are large; None without rows."""
        return next(self.row_batches(file, names), None)

    def row_batches(self, file: InputFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of all rows of a file, in batches of up to 1,024 rows, fewer if these are large."""
        int96 = file.read_as_stored(file.int96_columns)
        with read_errors(file.path), self._column_errors(), file.opened() as opened:
            for group in range(opened.parquet.num_row_groups):
                opened.need(group, names, ahead=False)
                rows = min(SAMPLE_ROWS, opened.parquet.metadata.row_group(group).num_rows)
                while rows > 1:
                    if DecodeBudget(opened, group, names, self._limit).needed(rows) <= SAMPLE_BYTES:
                        break
                    rows //= 4
                budget = DecodeBudget(opened, group, names, self._limit)
                for batch in budget.batches(max(rows, 1), int96=int96):
                    yield file.conform(batch, names)


def _with_matrices(reader: MatrixReader, batches: Iterator[pa.RecordBatch], job: Job) -> Iterator[RowChunk]:
    """Yield the rows of batches, with their logits as matrices."""
    for batch in batches:
        logits = pooled_matrix(batch.num_rows, job.n_logits, reader.dtype)
        reader.read_into(logits)
        if logits.dtype != job.logits.dtype:
            wider = pooled_matrix(batch.num_rows, job.n_logits, job.logits.dtype)
            np.copyto(wider, logits)
            logits = wider
        if job.logits.is_one_logit:
            logits = with_first_class(logits, job.logits)
        logits.flags.writeable = False
        yield RowChunk(batch, logits=logits)


def _has_fixed_width(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return _has_fixed_width(kind.value_type)
    return bool(pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind))

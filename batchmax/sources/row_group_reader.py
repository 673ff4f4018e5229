"""Reads one row group of a file in chunks: logits as a matrix if the pages allow it, otherwise through pyarrow.

Carried columns are copied undecoded where possible. Doesn't know which row groups are read, nor how rows are scored.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.parquet import CopiedColumns, FooterError, MatrixReader, PageError, SequenceReader, ThriftError
from batchmax.parquet.writing.column_chunk import METADATA, N_VALUES
from batchmax.sources.chunks import (
    MOST_CHUNK_BYTES,
    Chunk,
    ChunkSizes,
    Origin,
    ReadStatistics,
    RowChunk,
    plan_chunk_sizes,
    regroup,
)
from batchmax.sources.decode_budget import DecodeBudget
from batchmax.sources.parquet_file import InputFile, OpenFile, pyarrow_only
from batchmax.sources.passthrough import ChunkCopier, ReadPlan
from batchmax.sources.read_errors import read_errors, wrong_row_count
from batchmax.sources.sequence_source import ROWS_AT_ONCE, TokenSizes, from_columns, from_matrices, regrouped
from batchmax.sources.token_chunks import TokenChunk

MATRIX_LAYOUTS = ("list", "large_list", "fixed", "tensor")
"""Layouts of logits that can be read as a matrix."""

ROWS_JUDGED = 1024
"""Rows of the sample from which the size of carried columns in memory is estimated."""

BYTES_JUDGED = 64 << 20
"""Maximum bytes of that sample; it has fewer rows if they are larger."""

NOWHERE = Origin("", 0, None)
"""Placeholder for the origin of rows while it is unknown."""


class GroupReader:
    """Reads row groups of a job's files.

    Parameters
    ----------
    job
        What is computed.
    own
        Names of columns that aren't stored in the files.
    ways
        Read statistics, updated while reading.
    """

    def __init__(self, job: Job, own: Collection[str], ways: ReadStatistics) -> None:
        self.job = job
        self.ways = ways
        self._own = own
        self._limit = job.options.memory_limit
        self._unpacked: dict[str, int] = {}

    def chunks(
        self, file: InputFile, opened: OpenFile, copier: ChunkCopier | None, group: int, row: int, how: ReadPlan
    ) -> Iterator[Chunk]:
        """Yield the chunks of a row group; ``row`` is the number of its first row in the file."""
        if file.footer is not None:
            file.footer.row_group(group).check_ranges()
        read = self._group_chunks if self.job.nesting is None else self._sequence_chunks
        return read(file, opened, copier, group, row, how)

    def memory(self, file: InputFile) -> int:
        """Return the approximate memory in bytes that any row group of a file takes."""
        if self.job.nesting is not None:
            return TokenSizes.of(self.job).memory(self.job, self._unpacked_bytes(file), self._n_tokens(file))
        groups = range(file.metadata.num_row_groups)
        return max((self._chunk_sizes(file, file.metadata.row_group(group)).memory() for group in groups), default=0)

    def _group_chunks(
        self,
        file: InputFile,
        opened: OpenFile,
        copier: ChunkCopier | None,
        group: int,
        row: int,
        how: ReadPlan,
    ) -> Iterator[RowChunk]:
        """Yield the chunks of a row group of rows; ``row`` is the number of its first row in the file."""
        parquet = opened.parquet
        with read_errors(file.path):
            opened.need(group, how.columns if copier is None else [*(how.columns or ()), *how.copied_names])
            metadata = parquet.metadata.row_group(group)
            sizes = self._chunk_sizes(file, metadata)
            left = metadata.num_rows
            copied = copier.copy(group, left, whole=sizes.group_rows >= left) if copier is not None else None
            # Copied columns aren't decoded, except in the first row group: there, decoding detects a footer that is
            # wrong about a whole column.
            still = how if group == 0 else self._still_read(how, copied)
            batches = self._batches(file, parquet, opened.descriptor, group, sizes, still)
            origin = Origin(file.path, row, group)
            chunks = (replace(chunk, origin=origin, copied=copied) for chunk in batches)
            for chunk in regroup(chunks, sizes.group_rows, sizes.chunk_rows):
                left -= chunk.batch.num_rows
                yield replace(chunk, origin=replace(chunk.origin, first_row=row))
                row += chunk.batch.num_rows
            if left:
                rows = metadata.num_rows
                raise wrong_row_count(file.path, group, rows - left, rows)

    def _sequence_chunks(
        self, file: InputFile, opened: OpenFile, copier: ChunkCopier | None, group: int, row: int, how: ReadPlan
    ) -> Iterator[TokenChunk]:
        """Yield the chunks of a row group of sequences; ``row`` is the number of its first row in the file."""
        with read_errors(file.path):
            opened.need(group, how.columns if copier is None else [*(how.columns or ()), *how.copied_names])
            rows, sizes = opened.parquet.metadata.row_group(group).num_rows, TokenSizes.of(self.job)
            tokens = self.n_values(file, group) // self.job.n_classes
            whole = tokens <= sizes.group_tokens and rows <= sizes.group_rows
            copied = copier.copy(group, rows, whole=whole) if copier is not None else None
            still = how if group == 0 else self._still_read(how, copied)
            row_bytes = max(1, self._unpacked_bytes(file) + 8 * tokens // max(rows, 1))
            at_once = max(1, min(ROWS_AT_ONCE, MOST_CHUNK_BYTES // row_bytes))
            position = 0, 0
            for chunk in regrouped(self._token_chunks(file, opened, group, rows, at_once, still), sizes, whole=whole):
                origin = Origin(file.path, row + position[0], group)
                yield replace(chunk, origin=origin, copied=copied)
                position = chunk.after(position)
            if position != (rows, 0):
                raise wrong_row_count(file.path, group, position[0], rows)

    def _token_chunks(
        self, file: InputFile, opened: OpenFile, group: int, rows: int, at_once: int, how: ReadPlan
    ) -> Iterator[TokenChunk]:
        """Yield the chunks of a row group of sequences, with logits as matrices as far as the pages allow it."""
        job, sizes, position = self.job, TokenSizes.of(self.job), (0, 0)
        int96 = file.read_as_stored(how.int96)
        reader = self._matrix_reader(file, opened.descriptor, group, how)
        if isinstance(reader, SequenceReader):
            others = [name for name in how.columns or () if name not in job.logits.names]
            allowance = self._allowance(file, opened.descriptor, group, others)
            batches = self._conformed(file, allowance.batches(opened.parquet, at_once, others, int96), others)
            try:
                for chunk in from_matrices(reader, batches, job, rows, sizes):
                    yield chunk
                    position = chunk.after(position)
                reader.check_end()
            except PageError as error:
                self.ways.refused(str(error))
            else:
                self.ways.fast += 1
                return
        self.ways.slow += 1
        row_bytes = max(1, self.n_values(file, group) // max(rows, 1) * job.logits.dtype.itemsize)
        at_once = max(1, min(at_once, MOST_CHUNK_BYTES // row_bytes))
        allowance = self._allowance(file, opened.descriptor, group, how.columns)
        batches = self._conformed(file, allowance.batches(opened.parquet, at_once, how.columns, int96), how.columns)
        yield from from_columns(batches, job, sizes, position)

    def n_values(self, file: InputFile, group: int) -> int:
        """Return the number of values, nulls and empty lists in the logits of a row group; 0 if unknown."""
        column = None if file.footer is None else file.footer.column(self.job.logits.names[0])
        if file.footer is None or column is None:
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
        return int(file.metadata.num_rows) + sum(counts) // self.job.n_classes

    def _still_read(self, how: ReadPlan, copied: CopiedColumns | None) -> ReadPlan:
        """Return how to read a row group whose columns in ``copied`` need no decoding."""
        if how.columns is None or copied is None or how.copying is None or not how.copying.instead:
            return how
        label, text = self.job.label, self.job.options.bytes
        needed = {*self.job.logits.names, *([label.name] if label else []), *([text] if text is not None else [])}
        # A column that contains logits or labels is always read whole.
        needed |= {name.split(".")[0] for name in needed}
        return replace(how, columns=[name for name in how.columns if name not in copied.chunks or name in needed])

    def _batches(
        self, file: InputFile, parquet: pq.ParquetFile, descriptor: int, group: int, sizes: ChunkSizes, how: ReadPlan
    ) -> Iterator[RowChunk]:
        """Yield the batches of a row group as chunks, with logits as matrices if the pages allow it."""
        done, int96 = 0, file.read_as_stored(how.int96)
        reader = self._matrix_reader(file, descriptor, group, how)
        if isinstance(reader, MatrixReader):
            others = [name for name in how.columns or () if name not in self.job.logits.names]
            # Passing a single column to another thread takes longer than decoding it.
            try:
                allowance = self._allowance(file, descriptor, group, others, sizes.group_rows)
                for batch in allowance.batches(parquet, sizes.chunk_rows, others, int96, use_threads=len(others) > 1):
                    logits = _matrix(batch.num_rows, self.job.n_classes, reader.dtype)
                    reader.read_into(logits)
                    if logits.dtype != self.job.logits.dtype:
                        wider = _matrix(batch.num_rows, self.job.n_classes, self.job.logits.dtype)
                        np.copyto(wider, logits)
                        logits = wider
                    logits.flags.writeable = False
                    yield RowChunk(file.conform(batch, others), NOWHERE, logits=logits)
                    done += 1
                reader.check_end()
            except PageError as error:
                self.ways.refused(str(error))
            else:
                self.ways.fast += 1
                return
        self.ways.slow += 1
        # Batches before the one that isn't a matrix are read again, but not yielded again.
        allowance = self._allowance(file, descriptor, group, how.columns, sizes.group_rows)
        for batch in itertools.islice(allowance.batches(parquet, sizes.chunk_rows, how.columns, int96), done, None):
            yield RowChunk(file.conform(batch, how.columns), NOWHERE)

    def _matrix_reader(
        self, file: InputFile, descriptor: int, group: int, how: ReadPlan
    ) -> MatrixReader | SequenceReader | None:
        """Return a reader of the logits of a row group as a matrix; None if pyarrow must read the column."""
        job = self.job
        carried = how.columns is None or job.logits.names[0].split(".")[0] in job.carried.names
        if file.footer is None or carried or pyarrow_only() or job.logits.layout not in MATRIX_LAYOUTS:
            return None
        name = job.logits.names[0]
        found = [
            (number, leaf)
            for number, leaf in enumerate(file.footer.leaves)
            if leaf.name == name or leaf.name.startswith(f"{name}.")
        ]
        if len(found) != 1:
            return None
        number, leaf = found[0]
        try:
            row_group = file.footer.row_group(group)
            chunk = row_group.chunk(number)
            most = self._limit // 8
            shape = row_group.n_rows, job.n_classes
            reader: MatrixReader | SequenceReader
            if job.nesting is None:
                reader = MatrixReader(descriptor, chunk, leaf, *shape, how.workers, most)
            else:
                column = file.footer.column(name)
                if column is None:
                    return None
                reader = SequenceReader(descriptor, chunk, column, *shape, how.workers, most)
        except (PageError, FooterError, ThriftError) as error:
            self.ways.refused(str(error))
            return None
        if reader.dtype == job.logits.dtype or (job.nesting is None and reader.dtype == np.float32):
            return reader
        return None

    def _allowance(
        self, file: InputFile, descriptor: int, group: int, names: Sequence[str] | None, kept_rows: int | None = None
    ) -> DecodeBudget:
        return DecodeBudget(file, descriptor, group, file.schema, names, self._limit, kept_rows)

    def _conformed(
        self, file: InputFile, batches: Iterator[pa.RecordBatch], names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        return (file.conform(batch, names) for batch in batches)

    def _chunk_sizes(self, file: InputFile, metadata: pq.RowGroupMetaData) -> ChunkSizes:
        stored = metadata.total_byte_size // max(metadata.num_rows, 1)
        return plan_chunk_sizes(self.job, metadata.num_rows, max(stored, self._unpacked_bytes(file)))

    def _unpacked_bytes(self, file: InputFile) -> int:
        """Return the estimated bytes per row of the carried columns of variable width in memory.

        Measured on the first rows of the file and doubled: the footer has only the encoded size, where repeated text is
        stored once.
        """
        if file.path not in self._unpacked:
            stored = [field for field in self.job.carried if field.name not in self._own]
            variable = [field.name for field in stored if not _has_fixed_width(field.type)]
            n_bytes = 0
            if variable:
                with read_errors(file.path), file.opened() as opened:
                    batch = self._first_rows(file, opened, variable)
                    n_bytes = 0 if batch is None else 2 * batch.nbytes // max(batch.num_rows, 1)
            self._unpacked[file.path] = n_bytes
        return self._unpacked[file.path]

    def _first_rows(self, file: InputFile, opened: OpenFile, names: Sequence[str]) -> pa.RecordBatch | None:
        """Return some columns of the first rows of a file: fewer rows if these are large."""
        parquet, descriptor = opened.parquet, opened.descriptor
        for group in range(parquet.num_row_groups):
            opened.need(group, names, ahead=False)
            rows = min(ROWS_JUDGED, parquet.metadata.row_group(group).num_rows)
            while rows > 1 and self._allowance(file, descriptor, group, names).needed(rows) > BYTES_JUDGED:
                rows //= 4
            allowance = self._allowance(file, descriptor, group, names)
            batch = next(allowance.batches(parquet, max(rows, 1), names, file.read_as_stored(file.int96_columns)), None)
            if batch is not None:
                return file.conform(batch, names)
        return None


def _has_fixed_width(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return _has_fixed_width(kind.value_type)
    return bool(pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind))


def _matrix(rows: int, n_classes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    # Arrow's pool reuses memory. NumPy would allocate new memory, which is slow on first access.
    buffer = pa.allocate_buffer(rows * n_classes * dtype.itemsize)
    return np.frombuffer(buffer, dtype).reshape(rows, n_classes)

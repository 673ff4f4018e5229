"""Inputs as batches of bounded bytes: Parquet files, or anything that gives an Arrow stream.

A :class:`Chunk` knows where its rows came from, and whether a row group of the output ends with it. Whoever reads files
another way gives chunks too; nothing after this module knows how a file is read.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchmax.agreement import check_agreement, with_nulls
from batchmax.allowance import Allowance
from batchmax.arrow import without_views
from batchmax.chunks import (
    MOST_CHUNK_BYTES,
    MOST_ROW_GROUP_ROWS,
    Chunk,
    Cut,
    Origin,
    Part,
    Ways,
    plan_cut,
    regroup,
    skipped,
)
from batchmax.columns import LogitsColumn, find_logits
from batchmax.copying import Copier, Reading
from batchmax.errors import DataError, UsageError
from batchmax.ipc import IncomingStream
from batchmax.job import plan_scoring
from batchmax.matrices import SparseVectorError, first_row_length
from batchmax.options import ScoreOptions
from batchmax.parquet import (
    CopiedColumns,
    FooterError,
    MatrixReader,
    NotAMatrix,
    SequenceReader,
    ThriftError,
    first_inner_length,
)
from batchmax.parquet.encoded import METADATA, N_VALUES
from batchmax.parquet_files import InputFile, OpenFile, about, arrow_schema, open_file, pyarrow_only, reading
from batchmax.partitions import Partitions, are_mirrored, partitions_of
from batchmax.sequence_source import (
    ROWS_AT_ONCE,
    TokenCut,
    after,
    from_columns,
    from_matrices,
    regrouped,
    sequence_runs,
)
from batchmax.storage import STREAM, find_inputs
from batchmax.stream_source import StreamSource

MATRIX_LAYOUTS = ("list", "large_list", "fixed", "tensor")
"""Layouts whose column may be read as a matrix."""

ROWS_JUDGED = 1024
"""Rows by which the size of text in memory is judged."""

BYTES_JUDGED = 64 << 20
"""Bytes that these may have; otherwise fewer rows are judged."""

NOWHERE = Origin("", 0, None)
"""Stands for the origin of rows until it is known."""


def open_source(src: Any, options: ScoreOptions, *, mirrors: bool = False) -> ParquetSource | StreamSource:
    """Open paths (one, or several), ``-`` for an Arrow IPC stream on stdin, or an object with ``__arrow_c_stream__``.

    ``mirrors`` is as for :class:`ParquetSource`.

    Raises
    ------
    DataError
        Nothing is there, or it is no Parquet file, or files do not agree.
    UsageError
        Columns that cannot be what they are asked to be.
    """
    if hasattr(src, "__arrow_c_stream__"):
        return StreamSource(src, options)
    if isinstance(src, str | os.PathLike):
        src = [src]
    if not isinstance(src, Iterable):
        raise UsageError(
            f"{type(src).__name__} is no input",
            remedy="give paths, or an object with __arrow_c_stream__ such as a table",
        )
    paths = list(src)
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"{type(path).__name__} is no path", remedy="give paths as text, or a table")
    if paths == [STREAM]:
        incoming = IncomingStream(sys.stdin.buffer, STREAM)
        return StreamSource(pa.RecordBatchReader.from_batches(incoming.schema, incoming), options)
    return ParquetSource([os.fspath(path) for path in paths], options, mirrors=mirrors)


class ParquetSource:
    """Parquet files, one after another, as if they were one.

    Parameters
    ----------
    inputs
        Files, folders, globs.
    options
        How they are read.
    mirrors
        Whether folders named ``key=value`` become folders of the output, where they can, and not columns.
    among
        The columns and the number of classes of the files among which these are; None if they are all there are.

    Attributes
    ----------
    folders
        For each file the folder that the output has too; empty if it has none.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        options: ScoreOptions,
        *,
        mirrors: bool = False,
        among: tuple[pa.Schema, int] | None = None,
    ) -> None:
        found = find_inputs(inputs, options.storage_options)
        self.files = [open_file(path, options.storage_options) for path, _ in found]
        self.n_rows = sum(file.metadata.num_rows for file in self.files)
        self.size = sum(file.size for file in self.files)
        self.ways = Ways()
        self._unpacked: dict[str, int] = {}
        self._options = options
        folders = [folder for _, folder in found]
        self.folders = folders if mirrors and are_mirrored(folders) else []
        self._partitions = Partitions()
        if among is not None:
            self.schema = among[0]
            self.job = plan_scoring(self.schema, options, among[1])
            return
        self.schema = with_nulls(arrow_schema(self.files[0]), [arrow_schema(file) for file in self.files[1:]])
        if not self.folders:
            self._partitions = partitions_of(folders, self.schema.names)
            for field in self._partitions.fields:
                self.schema = self.schema.append(field)
        with about(self.files[0].path):
            column = find_logits(self.schema, options)
            length = None
            if column.n_classes is None:
                lengths = (self._first_length(file, column) for file in self.files)
                length = next((found for found in lengths if found), None)
            self.job = plan_scoring(self.schema, options, length)
        own = self._partitions.names
        check_agreement(self.files, self.schema, self.job, options, own, self._first_length)

    def row(self, number: int) -> tuple[str, pa.RecordBatch]:
        """Return the file and the batch of one row, counted from 0 over all files."""
        left = number
        for index, file in enumerate(self.files):
            if 0 <= left < file.metadata.num_rows:
                return file.path, self._partitions.added(self._one_row(file, left), index, None)
            left -= file.metadata.num_rows
        raise UsageError(
            f"row {number:,} is not one of the {self.n_rows:,} rows", where="--row", remedy="rows count from 0"
        )

    def group_rows(self) -> list[list[int]]:
        """Return the number of rows of each row group of each file."""
        return [
            [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            for file in self.files
        ]

    @property
    def row_bytes(self) -> int:
        """The bytes of the logits of one row, of sequences on average."""
        if self.job.nesting is None:
            return self.job.row_bytes
        groups = ((file, group) for file in self.files for group in range(file.metadata.num_row_groups))
        numbers = sum(self._n_values(file, group) for file, group in groups)
        return max(1, math.ceil(numbers * self.job.logits.dtype.itemsize / max(self.n_rows, 1)))

    def chunks(self, parts: Iterable[Part], how: Reading, skip: int = 0) -> Iterator[Chunk]:
        """Read the rows of some parts in order, in chunks that the inputs and options decide, never the machine.

        The first ``skip`` rows are left out, which must end where a row group of the output does.
        """
        runs = (run for part in parts for run in self._part_runs(part, how))
        if self.job.nesting is not None:
            return sequence_runs(runs, skip, self.job)
        chunks = skipped(runs, skip)
        wanted = self._options.row_group_size
        if wanted is None:
            return chunks
        wanted = min(wanted, MOST_ROW_GROUP_ROWS)
        return regroup(chunks, wanted, wanted)

    def memory_needed(self) -> int:
        """Return about how many bytes of memory a job on these files takes besides what the program itself does."""
        if self.job.nesting is not None:
            return TokenCut.of(self.job).memory(self.job, max(map(self._unpacked_bytes, self.files), default=0))
        cuts = (
            self._cut(file, file.metadata.row_group(group))
            for file in self.files
            for group in range(file.metadata.num_row_groups)
        )
        return max((cut.memory() for cut in cuts), default=0)

    def _part_runs(self, part: Part, how: Reading) -> Iterator[tuple[int, Iterator[Chunk]]]:
        """Yield the rows of each row group of a part, and the chunks that they are read in if they are."""
        file = self.files[part.file]
        with reading(file.path), file.opened() as opened:
            parquet, descriptor = opened.parquet, opened.descriptor
            copier = None
            if how.copying is not None and file.footer is not None:
                copier = Copier(descriptor, file.footer, how.copying, self.ways, self._options.memory_limit // 4)
            row = part.first_row
            for group in range(part.first_group, part.end_group):
                rows = parquet.metadata.row_group(group).num_rows
                read = self._group_chunks if self.job.nesting is None else self._sequence_chunks
                chunks = read(file, opened, copier, group, row, self._stored(how))
                yield rows, (self._with_partitions(chunk, part.file, how) for chunk in chunks)
                row += rows
            opened.check_unchanged()

    def _stored(self, how: Reading) -> Reading:
        """Return how to read what is in files."""
        names = self._partitions.names
        if how.columns is None or not names:
            return how
        return replace(how, columns=[name for name in how.columns if name not in names])

    def _with_partitions(self, chunk: Chunk, file: int, how: Reading) -> Chunk:
        if not self._partitions.fields:
            return chunk
        return replace(chunk, batch=self._partitions.added(chunk.batch, file, how.columns))

    def _group_chunks(
        self,
        file: InputFile,
        opened: OpenFile,
        copier: Copier | None,
        group: int,
        row: int,
        how: Reading,
    ) -> Iterator[Chunk]:
        """Read a row group, whose first row is this one of the file."""
        parquet = opened.parquet
        with reading(file.path):
            opened.need(group, how.columns if copier is None else [*(how.columns or ()), *how.copied_names])
            metadata = parquet.metadata.row_group(group)
            cut = self._cut(file, metadata)
            left = metadata.num_rows
            copied = copier.copy(group, left, whole=cut.group >= left) if copier is not None else None
            # What is copied is not decoded; the first row group is all the same, so that a footer which is wrong
            # about a whole column does not go unnoticed.
            still = how if group == 0 else self._still_read(how, copied)
            batches = self._batches(file, parquet, opened.descriptor, group, cut, still)
            origin = Origin(file.path, row, group)
            chunks = (replace(chunk, origin=origin, copied=copied) for chunk in batches)
            for chunk in regroup(chunks, cut.group, cut.piece):
                left -= chunk.batch.num_rows
                yield replace(chunk, origin=replace(chunk.origin, first_row=row))
                row += chunk.batch.num_rows
            if left:
                rows = metadata.num_rows
                raise DataError(
                    f"row group {group} holds {rows - left:,} rows, not {rows:,} as the footer says",
                    where=file.path,
                    remedy="the file is damaged: make it again",
                )

    def _sequence_chunks(
        self, file: InputFile, opened: OpenFile, copier: Copier | None, group: int, row: int, how: Reading
    ) -> Iterator[Chunk]:
        """Read a row group of sequences, whose first row is this one of the file."""
        with reading(file.path):
            opened.need(group, how.columns if copier is None else [*(how.columns or ()), *how.copied_names])
            rows, cut = opened.parquet.metadata.row_group(group).num_rows, TokenCut.of(self.job)
            tokens = self._n_values(file, group) // self.job.n_classes
            whole = tokens <= cut.group and rows <= cut.group_rows
            copied = copier.copy(group, rows, whole=whole) if copier is not None else None
            still = how if group == 0 else self._still_read(how, copied)
            row_bytes = max(1, self._unpacked_bytes(file) + 8 * tokens // max(rows, 1))
            at_once = max(1, min(ROWS_AT_ONCE, MOST_CHUNK_BYTES // row_bytes))
            position = 0, 0
            for chunk in regrouped(self._token_chunks(file, opened, group, rows, at_once, still), cut, whole=whole):
                origin = Origin(file.path, row + position[0], group)
                yield replace(chunk, origin=origin, copied=copied)
                position = after(position, chunk)
            if position != (rows, 0):
                raise DataError(
                    f"row group {group} holds {position[0]:,} rows, not {rows:,} as the footer says",
                    where=file.path,
                    remedy="the file is damaged: make it again",
                )

    def _token_chunks(
        self, file: InputFile, opened: OpenFile, group: int, rows: int, at_once: int, how: Reading
    ) -> Iterator[Chunk]:
        """Read a row group of sequences, the logits as matrices as far as the pages show them to be such."""
        job, cut, position = self.job, TokenCut.of(self.job), (0, 0)
        reader = self._matrix_reader(file, opened.descriptor, group, how)
        if isinstance(reader, SequenceReader):
            others = [name for name in how.columns or () if name not in job.logits.names]
            allowance = self._allowance(file, opened.descriptor, group, others)
            batches = map(without_views, allowance.batches(opened.parquet, at_once, others))
            try:
                for chunk in from_matrices(reader, batches, job, rows, cut):
                    yield chunk
                    position = after(position, chunk)
            except NotAMatrix as error:
                self.ways.refused(str(error))
            else:
                self.ways.fast += 1
                return
        self.ways.slow += 1
        row_bytes = max(1, self._n_values(file, group) // max(rows, 1) * job.logits.dtype.itemsize)
        at_once = max(1, min(at_once, MOST_CHUNK_BYTES // row_bytes))
        allowance = self._allowance(file, opened.descriptor, group, how.columns)
        batches = map(without_views, allowance.batches(opened.parquet, at_once, how.columns))
        yield from from_columns(batches, job, cut, position)

    def _n_values(self, file: InputFile, group: int) -> int:
        """Return how many numbers, nulls and empty lists the logits of a row group have, as the footer says."""
        column = None if file.footer is None else file.footer.column(self.job.logits.names[0])
        if file.footer is None or column is None:
            return 0
        try:
            return int(file.footer.row_group(group).chunk(column.first_leaf)[METADATA].value[N_VALUES].value)
        except (FooterError, ThriftError, KeyError, TypeError, AttributeError):
            return 0

    def _still_read(self, how: Reading, copied: CopiedColumns | None) -> Reading:
        """Return how to read a row group of which some columns are copied."""
        if how.columns is None or copied is None or how.copying is None or not how.copying.instead:
            return how
        needed = {*self.job.logits.names, *([self.job.label.name] if self.job.label else [])}
        # A column with logits or labels somewhere in it is read whole, as it always is.
        needed |= {name.split(".")[0] for name in needed}
        return replace(how, columns=[name for name in how.columns if name not in copied.chunks or name in needed])

    def _batches(
        self, file: InputFile, parquet: pq.ParquetFile, descriptor: int, group: int, cut: Cut, how: Reading
    ) -> Iterator[Chunk]:
        """Read a row group, the logits as a matrix if they are one as far as the pages show it."""
        done = 0
        reader = self._matrix_reader(file, descriptor, group, how)
        if isinstance(reader, MatrixReader):
            others = [name for name in how.columns or () if name not in self.job.logits.names]
            # Handing one column to another thread takes longer than decoding it.
            try:
                allowance = self._allowance(file, descriptor, group, others, cut.group)
                for batch in allowance.batches(parquet, cut.piece, others, use_threads=len(others) > 1):
                    logits = _matrix(batch.num_rows, self.job.n_classes, reader.dtype)
                    reader.read_into(logits)
                    logits.flags.writeable = False
                    yield Chunk(without_views(batch), NOWHERE, logits=logits)
                    done += 1
            except NotAMatrix as error:
                self.ways.refused(str(error))
            else:
                self.ways.fast += 1
                return
        self.ways.slow += 1
        # Batches before the one that could not be read as a matrix are read again, but not given again.
        allowance = self._allowance(file, descriptor, group, how.columns, cut.group)
        for batch in itertools.islice(allowance.batches(parquet, cut.piece, how.columns), done, None):
            yield Chunk(without_views(batch), NOWHERE)

    def _matrix_reader(
        self, file: InputFile, descriptor: int, group: int, how: Reading
    ) -> MatrixReader | SequenceReader | None:
        """Return a reader of the logits of a row group as a matrix, or None if they must be read as a column."""
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
            most = self._options.memory_limit // 8
            shape = row_group.n_rows, job.n_classes
            reader: MatrixReader | SequenceReader
            if job.nesting is None:
                reader = MatrixReader(descriptor, chunk, leaf, *shape, how.workers, most)
            else:
                column = file.footer.column(name)
                if column is None:
                    return None
                reader = SequenceReader(descriptor, chunk, column, *shape, how.workers, most)
        except (NotAMatrix, FooterError, ThriftError) as error:
            self.ways.refused(str(error))
            return None
        return reader if reader.dtype == job.logits.dtype else None

    def _allowance(
        self, file: InputFile, descriptor: int, group: int, names: Sequence[str] | None, kept_rows: int | None = None
    ) -> Allowance:
        return Allowance(file, descriptor, group, self.schema, names, self._options.memory_limit, kept_rows)

    def _cut(self, file: InputFile, metadata: pq.RowGroupMetaData) -> Cut:
        stored = metadata.total_byte_size // max(metadata.num_rows, 1)
        return plan_cut(self.job, metadata.num_rows, max(stored, self._unpacked_bytes(file)))

    def _unpacked_bytes(self, file: InputFile) -> int:
        """Return what the carried columns take in memory per row, judged by the first rows of a file.

        The footer knows how large they are as they are stored, and text that repeats is stored once.
        """
        if file.path not in self._unpacked:
            stored = [field for field in self.job.carried if field.name not in self._partitions.names]
            variable = [field.name for field in stored if not _has_fixed_width(field.type)]
            n_bytes = 0
            if variable:
                with reading(file.path), file.opened() as opened:
                    batch = self._first_rows(file, opened, variable)
                    n_bytes = 0 if batch is None else 2 * batch.nbytes // max(batch.num_rows, 1)
            self._unpacked[file.path] = n_bytes
        return self._unpacked[file.path]

    def _first_rows(self, file: InputFile, opened: OpenFile, names: Sequence[str]) -> pa.RecordBatch | None:
        """Return some columns of the first rows: fewer where these are large."""
        parquet, descriptor = opened.parquet, opened.descriptor
        for group in range(parquet.num_row_groups):
            opened.need(group, names, ahead=False)
            rows = min(ROWS_JUDGED, parquet.metadata.row_group(group).num_rows)
            while rows > 1 and self._allowance(file, descriptor, group, names).needed(rows) > BYTES_JUDGED:
                rows //= 4
            allowance = self._allowance(file, descriptor, group, names)
            batch = next(allowance.batches(parquet, max(rows, 1), names), None)
            if batch is not None:
                return batch
        return None

    def _first_length(self, file: InputFile, column: LogitsColumn) -> int | None:
        with reading(file.path), file.opened() as opened:
            parquet, descriptor = opened.parquet, opened.descriptor
            first_row = 0
            if column.nested and not pyarrow_only():
                found = self._first_inner_length(file, opened, column)
                if found is not None:
                    return found
            at_once = 1 if column.nested else 64

            def batches(group: int) -> Iterator[pa.RecordBatch]:
                opened.need(group, column.names, ahead=False)
                allowance = self._allowance(file, descriptor, group, column.names)
                return allowance.batches(parquet, at_once, list(column.names), use_threads=False)

            for batch in itertools.chain.from_iterable(map(batches, range(parquet.num_row_groups))):
                try:
                    length = first_row_length(batch, column)
                except SparseVectorError as error:
                    where = f"{file.path}: row {first_row + error.row:,}"
                    raise DataError(error.what, where=where, remedy=error.remedy) from error
                if length:
                    return length
                first_row += batch.num_rows
        return None

    def _first_inner_length(self, file: InputFile, opened: OpenFile, column: LogitsColumn) -> int | None:
        """Return the length of the first list of numbers in a column of lists of them, if pages show it."""
        found = None if file.footer is None else file.footer.column(column.names[0])
        if file.footer is None or found is None:
            return None
        most = self._options.memory_limit // 8
        with contextlib.suppress(NotAMatrix, FooterError, ThriftError):
            for group in range(file.footer.n_row_groups):
                opened.need(group, column.names, ahead=False)
                chunk = file.footer.row_group(group).chunk(found.first_leaf)
                length = first_inner_length(opened.descriptor, chunk, found, most)
                if length is not None:
                    return length
        return None

    def _one_row(self, file: InputFile, row: int) -> pa.RecordBatch:
        with reading(file.path), file.opened() as opened:
            parquet, descriptor = opened.parquet, opened.descriptor
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if row >= rows:
                    row -= rows
                    continue
                opened.need(group, ahead=False)
                allowance = self._allowance(file, descriptor, group, None)
                for batch in allowance.batches(parquet, min(rows, 1024), None):
                    if row < batch.num_rows:
                        return batch.slice(row, 1)
                    row -= batch.num_rows
        raise IndexError(row)


def _has_fixed_width(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return _has_fixed_width(kind.value_type)
    return bool(pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind))


def _matrix(rows: int, n_classes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    # Arrow's pool gives memory out again that was used before; NumPy's would be new, and new memory is slow.
    buffer = pa.allocate_buffer(rows * n_classes * dtype.itemsize)
    return np.frombuffer(buffer, dtype).reshape(rows, n_classes)

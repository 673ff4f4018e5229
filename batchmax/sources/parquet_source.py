"""Reads inputs in chunks of bounded size: Parquet files, or anything that exports an Arrow stream.

A :class:`Chunk` knows where its rows came from, and whether a row group of the output ends with it. Other sources yield
chunks too; code after this module doesn't know how the input is read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import pyarrow as pa

from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import plan_scoring
from batchmax.columns.label_lists import first_rows_of
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.columns.matrices import SparseVectorError, first_row_length
from batchmax.errors import DataError, UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.parquet import FooterError, PageError, ThriftError, first_inner_length
from batchmax.parquet.int96 import readable
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.runtime.cores import usable_cores
from batchmax.sources.chunks import MAX_ROW_GROUP_ROWS, Chunk, ReadStatistics, RowChunk, regroup
from batchmax.sources.decode_budget import DecodeBudget
from batchmax.sources.parquet_file import InputFile, OpenFile, open_file, pyarrow_only
from batchmax.sources.part_reader import PartReader
from batchmax.sources.parts import Part
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.read_errors import read_errors, schema_errors
from batchmax.sources.row_group_reader import GroupReader
from batchmax.sources.row_lookup import check_row, rows_by_number
from batchmax.sources.schemas.file_columns import MergedSchema, file_columns_of, merge_schemas
from batchmax.sources.schemas.schema_check import check_agreement, describe_differences, logits_in_file
from batchmax.sources.sequence_source import TokenSizes, regrouped
from batchmax.sources.streams.ipc_reader import read_stdin
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.sources.token_chunks import TokenChunk
from batchmax.storage.hive import Partitions, are_mirrored, keys_of, partitions_of
from batchmax.storage.input_files import Inputs, find_inputs, paths_of
from batchmax.storage.paths import STREAM

CORES_OF_ONE_READER = 4
"""Up to this number of cores, one thread reads: reading takes less CPU time than the rest of a job."""

MAX_READERS = 4
"""More threads than these read faster than the one thread that writes can write."""


def open_source(
    src: Any, options: ScoreOptions, *, mirrors: bool = False, writes: bool = True
) -> ParquetSource | StreamSource:
    """Open paths (one or several), ``-`` for an Arrow IPC stream on stdin, or an object with ``__arrow_c_stream__``.

    ``mirrors`` and ``writes`` are as for :class:`ParquetSource`.

    Raises
    ------
    DataError
        An input doesn't exist or isn't a Parquet file, or the stream can't be read.
    UsageError
        A column or an option is invalid, or the files disagree.
    """
    if hasattr(src, "__arrow_c_stream__"):
        return StreamSource(src, options, writes=writes)
    paths = paths_of(src)
    if paths == [STREAM]:
        return StreamSource(read_stdin(options.memory_limit), options, STREAM, writes=writes)
    return ParquetSource(paths, options, mirrors=mirrors, writes=writes)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a larger set of files: merged columns, logits in a row, and columns from folder names."""

    schema: pa.Schema
    n_logits: int
    partitions: Partitions


class ParquetSource:
    """Parquet files, read one after another as one table.

    Parameters
    ----------
    inputs
        Files, folders, globs.
    options
        How they are read.
    mirrors
        Whether folders named ``key=value`` become folders of the output, if possible, instead of columns.
    writes
        Whether the job has output columns; see :func:`batchmax.columns.job.plan_scoring`.
    dataset
        What is known about the larger set of files that these belong to; None if these are all files.

    Attributes
    ----------
    folders
        For each file, the folder of the output that mirrors the input's. Empty if folders aren't mirrored.
    partitions
        The columns from folder names.
    warnings
        Warnings about the inputs, for the user.
    unified
        The columns that differ between files, serializable as JSON.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        options: ScoreOptions,
        *,
        mirrors: bool = False,
        writes: bool = True,
        dataset: DatasetInfo | None = None,
    ) -> None:
        if dataset is None:
            found = find_inputs(inputs, options.storage_options)
        else:
            found = Inputs(list(inputs), [""] * len(inputs), [])
        self.files = [open_file(path, options.storage_options) for path in found.files]
        self.n_rows = sum(file.metadata.num_rows for file in self.files)
        self.size = sum(file.size for file in self.files)
        self.read_statistics = ReadStatistics()
        self.warnings = found.warnings
        self.unified: list[dict[str, Any]] = []
        self._options = options
        folders = found.folders
        self.folders = folders if mirrors and are_mirrored(folders) else []
        self.partitions = Partitions()
        if dataset is not None:
            self._open_in_dataset(dataset)
            return
        schemas = [file.schema for file in self.files]
        union = merge_schemas(found.files, schemas)
        pairs = zip(self.files, union.files, strict=True)
        self.files = [replace(file, columns=columns) for file, columns in pairs]
        self.schema = union.schema
        if not self.folders:
            self._name_partitions(folders)
        with schema_errors(self.files[0].path):
            column = find_logits(self.schema, options)
            length = None
            if column.n_classes is None:
                lengths = (self._length_in_file(file, column) for file in self.files)
                length = next((found for found in lengths if found), None)
            self.job = plan_scoring(self.schema, options, length, writes=writes)
        folder_columns = self.partitions.names
        check_agreement(self.files, schemas, union, self.job, options, folder_columns, self._first_length)
        self._add_notes(union)
        self._groups = GroupReader(self.job, folder_columns, self.read_statistics)
        if self.job.is_undecided:
            with schema_errors(self.files[0].path):
                self.job = self.job.with_label_format(first_rows_of(self._label_batches()))
            self._groups = GroupReader(self.job, folder_columns, self.read_statistics)

    def _open_in_dataset(self, dataset: DatasetInfo) -> None:
        """Read the files with the columns of the larger set that they belong to."""
        self.schema, self.partitions = dataset.schema, dataset.partitions
        self.job = plan_scoring(dataset.schema, self._options, dataset.n_logits)
        stored = pa.schema([field for field in dataset.schema if field.name not in self.partitions.names])
        self.files = [replace(file, columns=file_columns_of(stored, file.schema)) for file in self.files]
        self._groups = GroupReader(self.job, self.partitions.names, self.read_statistics)

    def _add_notes(self, union: MergedSchema) -> None:
        """Add notes on the number of files and on columns that differ between them."""
        n_files = len(self.files)
        if n_files == 1:
            return
        read = self.schema.names if self._options.rejects is not None else self.job.columns_read
        tops = {name.split(".")[0] for name in read}
        self.unified = union.differences({*read, *tops})
        notes = (f"files: {n_files:,}", *describe_differences(self.unified, n_files))
        self.job = replace(self.job, notes=(*self.job.notes, *notes))

    def _name_partitions(self, folders: Sequence[str]) -> None:
        """Make columns of the folders ``key=value``, except of keys that are columns of the files."""
        for file, folder in zip(self.files, folders, strict=True):
            for key in keys_of(folder):
                if key in file.columns.added:
                    having = next(one.path for one in self.files if key in one.schema.names)
                    raise UsageError(
                        f"{key!r} is a folder name of this file, and a column in {having}",
                        where=file.path,
                        remedy="store the column in all files, or in none",
                    )
        self.partitions = partitions_of(folders, self.schema.names)
        for field in self.partitions.fields:
            self.schema = self.schema.append(field)

    def row(self, number: int) -> tuple[str, pa.RecordBatch]:
        """Return the path of the file and the batch of one row, counted from 0 over all files."""
        check_row(number, self.n_rows)
        found = next(rows_by_number(self.files, [number], self._options.memory_limit))
        index = [file.path for file in self.files].index(found.file)
        file = self.files[index]
        # In a coarser unit where values need it.
        batch = file.with_timestamps(found.batch, file.int96_columns, lambda array, one: readable(array, one.type))
        return found.file, self.partitions.added(batch, index, None)

    def first_rows(self, names: Sequence[str]) -> pa.RecordBatch | None:
        """Return some columns of the first rows, all of one file; None without rows."""
        stored = [name for name in names if name not in self.partitions.names]
        for number, file in enumerate(self.files):
            batch = self._groups.first_rows(file, stored)
            if batch is not None:
                return self.partitions.added(batch, number, names)
        return None

    def _label_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the labels of all rows."""
        names = self.job.label_columns
        stored = [name for name in names if name not in self.partitions.names]
        for number, file in enumerate(self.files):
            for batch in self._groups.row_batches(file, stored):
                yield self.partitions.added(batch, number, names)

    def group_rows(self) -> list[list[int]]:
        """Return the number of rows of each row group of each file."""
        return [
            [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            for file in self.files
        ]

    @property
    def row_bytes(self) -> int:
        """The bytes of the logits of one row; the average if rows are sequences."""
        if self.job.nesting is None:
            return self.job.row_bytes
        groups = ((file, group) for file in self.files for group in range(file.metadata.num_row_groups))
        numbers: int = sum(self._groups.n_values(file, group) for file, group in groups)
        return max(1, -(-numbers * self.job.row_bytes // (self.job.n_logits * max(int(self.n_rows), 1))))

    def chunks(self, parts: Iterable[Part], plan: ReadPlan, skip: int = 0) -> Generator[Chunk, None, None]:
        """Yield the rows of some parts in order, in chunks that depend on the inputs and options, never on the machine.

        The first ``skip`` rows are skipped; they must end where a row group of the output ends. With several readers,
        closing the generator ends their threads.
        """
        chunks = PartReader(self.files, self.partitions, self._groups).chunks(parts, plan, skip)
        wanted = self._options.row_group_size
        if wanted is None:
            return chunks
        if self.job.nesting is not None:
            return regrouped(cast("Iterator[TokenChunk]", chunks), TokenSizes.of(self.job), whole=False)
        wanted = min(wanted, MAX_ROW_GROUP_ROWS)
        return regroup(cast("Iterator[RowChunk]", chunks), wanted, wanted)

    @cached_property
    def readers(self) -> int:
        """The number of threads that read row groups at the same time; the output doesn't depend on it.

        One for sequences, because :class:`PartReader` can't start again in the middle of a sequence, and for objects in
        a store, whose row groups are fetched in order.
        """
        cores = self._options.threads or usable_cores()
        if cores <= CORES_OF_ONE_READER or self.job.nesting is not None or any(file.store for file in self.files):
            return 1
        n_groups = sum(int(file.metadata.num_row_groups) for file in self.files)
        wanted = min(MAX_READERS, cores // 2, n_groups)
        left = self._options.memory_limit - PROGRAM_BYTES - self.memory_needed()
        another = max(1, max(map(self._groups.reader_memory, self.files), default=1))
        return max(1, min(wanted, 1 + left // another))

    def memory_needed(self, rows: int | None = None) -> int:
        """Return the approximate memory in bytes of a job on these files, without the memory of the program itself.

        ``rows`` is the maximum number of rows in a row group, if not as in the files.
        """
        return max((self._groups.memory(file, rows) for file in self.files), default=0)

    @property
    def largest_file(self) -> InputFile:
        """The file that takes the most memory."""
        return max(self.files, key=self._groups.memory)

    def _length_in_file(self, file: InputFile, column: LogitsColumn) -> int | None:
        """Return the number of classes of a file, from its schema or first row; None without rows or logits."""
        found = logits_in_file(file.schema, column, self._options)
        return None if found is None else found.n_classes or self._first_length(file, found)

    def _first_length(self, file: InputFile, column: LogitsColumn) -> int | None:
        with read_errors(file.path), file.opened() as opened:
            first_row = 0
            if (column.nested or column.layout in {"list", "large_list"}) and not pyarrow_only():
                found = self._first_inner_length(file, opened, column)
                if found is not None:
                    return found
            at_once = 1 if column.nested else 64

            def batches(group: int) -> Iterator[pa.RecordBatch]:
                opened.need(group, column.names, ahead=False)
                budget = DecodeBudget(opened, group, column.names, self._options.memory_limit)
                return budget.batches(at_once, use_threads=False)

            for batch in itertools.chain.from_iterable(map(batches, range(opened.parquet.num_row_groups))):
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
        """Return the length of the first innermost list of a column of logits, if the pages show it."""
        found = file.footer.column(column.names[0])
        if found is None:
            return None
        most = self._options.memory_limit // 8
        with contextlib.suppress(PageError, FooterError, ThriftError):
            for group in range(file.footer.n_row_groups):
                opened.need(group, column.names, ahead=False)
                chunk = file.footer.row_group(group).chunk(found.first_leaf)
                length = first_inner_length(opened.descriptor, chunk, found, most)
                if length is not None:
                    return length
        return None


Source = ParquetSource | StreamSource

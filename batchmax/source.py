"""Inputs as batches: Parquet files, or anything that gives an Arrow stream, one row group of the output at a time.

A :class:`Chunk` is a record batch that becomes one row group, and knows where each of its rows came from. Whoever reads
files another way gives chunks too; nothing after this module knows what a file is.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.columns import LogitsColumn, find_logits
from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.job import plan_scoring
from batchmax.labels import LabelColumn
from batchmax.matrices import first_row_length
from batchmax.options import ScoreOptions
from batchmax.storage import find_files

MOST_ROW_GROUP_BYTES = 64 << 20
"""Logits of an output row group, unless its rows are asked for."""

READ_BUFFER = 1 << 20
FOOTER_TAIL = 8


@dataclass(frozen=True)
class Origin:
    """Where a run of rows is from."""

    rows: int
    file: str
    first_row: int
    row_group: int | None


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that become one row group of the output."""

    batch: pa.RecordBatch
    origins: tuple[Origin, ...]

    def locate(self, row: int) -> tuple[str, int, int | None]:
        """Return the file, the row in the file, and the row group of a row of this chunk."""
        for origin in self.origins:
            if row < origin.rows:
                return origin.file, origin.first_row + row, origin.row_group
            row -= origin.rows
        raise IndexError(row)

    def slice(self, rows: int) -> Chunk:
        """Return the first rows of the chunk."""
        return Chunk(self.batch.slice(0, rows), self.origins)


@dataclass(frozen=True)
class InputFile:
    """One Parquet file of an input."""

    path: str
    metadata: pq.FileMetaData
    size: int

    def footer_digest(self) -> str:
        """Return a digest of the footer, which changes whenever the data do."""
        with open(self.path, "rb") as stream:  # noqa: PTH123 - a URI one day
            stream.seek(-FOOTER_TAIL, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(-FOOTER_TAIL - length, os.SEEK_END)
            return hashlib.sha256(stream.read(length)).hexdigest()


class Part(Protocol):
    """Whole row groups of one file: the unit of work."""

    @property
    def file(self) -> int:
        """The number of the file."""

    @property
    def first_group(self) -> int:
        """The first row group."""

    @property
    def end_group(self) -> int:
        """The row group after the last."""

    @property
    def first_row(self) -> int:
        """The row of the file that the part begins with."""


def open_source(src: Any, options: ScoreOptions) -> ParquetSource | StreamSource:
    """Open paths (one, or several), or an object with ``__arrow_c_stream__``.

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
    return ParquetSource([os.fspath(path) for path in src], options)


class ParquetSource:
    """Parquet files, one after another, as if they were one."""

    def __init__(self, inputs: Sequence[str], options: ScoreOptions) -> None:
        self.files = [_open_file(path) for path in find_files(inputs)]
        self.schema = _schema(self.files[0])
        self.n_rows = sum(file.metadata.num_rows for file in self.files)
        self.size = sum(file.size for file in self.files)
        self._options = options
        column = find_logits(self.schema, options)
        length = None
        if column.n_classes is None:
            lengths = (self._first_length(file, column) for file in self.files)
            length = next((found for found in lengths if found), None)
        self.job = plan_scoring(self.schema, options, length)
        self._check_agreement()

    @property
    def logits(self) -> LogitsColumn:
        """The logits column that was chosen."""
        return self.job.logits

    @property
    def label(self) -> LabelColumn | None:
        """The label column that was chosen."""
        return self.job.label

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The class names, where they are known."""
        return self.job.classes

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return self.job.n_classes

    def row(self, number: int) -> tuple[str, pa.RecordBatch]:
        """Return the file and the batch of one row, counted from 0 over all files."""
        left = number
        for file in self.files:
            if 0 <= left < file.metadata.num_rows:
                return file.path, self._one_row(file, left)
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

    def chunks(self, parts: Iterable[Part], columns: Sequence[str] | None) -> Iterator[Chunk]:
        """Read the rows of some parts in order, in chunks that the inputs and options decide, never the machine.

        ``columns`` are the names that are needed, nested ones dotted; None for all.
        """
        wanted = self._options.row_group_size
        chunks = (chunk for part in parts for chunk in self._part_chunks(part, columns))
        yield from chunks if wanted is None else _regroup(chunks, wanted)

    def _part_chunks(self, part: Part, columns: Sequence[str] | None) -> Iterator[Chunk]:
        file = self.files[part.file]
        with _reading(file.path), _parquet_file(file.path, file.metadata) as parquet:
            first_row = part.first_row
            for group in range(part.first_group, part.end_group):
                left = rows = parquet.metadata.row_group(group).num_rows
                for batch in parquet.iter_batches(self._chunk_rows(parquet, group), [group], columns):
                    left -= batch.num_rows
                    origin = Origin(batch.num_rows, file.path, first_row, group)
                    first_row += batch.num_rows
                    yield Chunk(batch, (origin,))
                if left:
                    raise DataError(
                        f"row group {group} holds {rows - left:,} rows, not {rows:,} as the footer says",
                        where=file.path,
                        remedy="the file is damaged: make it again",
                    )

    def _chunk_rows(self, parquet: pq.ParquetFile, group: int) -> int:
        """Return how many rows to read at a time: the whole group, or equal pieces of it that are not too large."""
        metadata = parquet.metadata.row_group(group)
        n_bytes = max(metadata.num_rows * self.job.row_bytes, metadata.total_byte_size // 2)
        pieces = min(max(1, math.ceil(n_bytes / MOST_ROW_GROUP_BYTES)), metadata.num_rows or 1)
        return math.ceil(metadata.num_rows / pieces) or 1

    def _first_length(self, file: InputFile, column: LogitsColumn) -> int | None:
        with _reading(file.path), _parquet_file(file.path, file.metadata) as parquet:
            for batch in parquet.iter_batches(64, columns=list(column.names), use_threads=False):
                length = first_row_length(batch, column)
                if length:
                    return length
        return None

    def _one_row(self, file: InputFile, row: int) -> pa.RecordBatch:
        with _reading(file.path), _parquet_file(file.path, file.metadata) as parquet:
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if row >= rows:
                    row -= rows
                    continue
                for batch in parquet.iter_batches(min(rows, 1024), [group]):
                    if row < batch.num_rows:
                        return batch.slice(row, 1)
                    row -= batch.num_rows
        raise IndexError(row)

    def _check_agreement(self) -> None:
        """Check that the files after the first have its columns, and as many classes."""
        needed = {name.split(".")[0] for name in self.job.columns_read}
        for file in self.files[1:]:
            schema = _schema(file)
            for name in needed:
                here = schema.field(name).type if name in schema.names else None
                there = self.schema.field(name).type if name in self.schema.names else None
                if here == there:
                    continue
                what = f"column {name!r} is {here}" if here is not None else f"there is no column {name!r}"
                raise DataError(
                    f"{what}, but it is {there} in {self.files[0].path}",
                    where=file.path,
                    remedy="score the files one by one, or leave the column out with --exclude",
                )
            column = find_logits(schema, self._options)
            length = column.n_classes or self._first_length(file, column)
            if column.names != self.job.logits.names or length not in {None, self.job.n_classes}:
                count = f"{length:,}" if length else "an unknown number of"
                raise DataError(
                    f"{count} classes, but {self.job.n_classes:,} in {self.files[0].path}",
                    where=file.path,
                    remedy="score the files one by one",
                )


class StreamSource:
    """An Arrow stream: a table, a data frame, a query's result, a reader."""

    files: list[InputFile]

    def __init__(self, stream: Any, options: ScoreOptions) -> None:
        self._reader = pa.RecordBatchReader.from_stream(stream)
        self.files = []
        self.schema = self._reader.schema
        self.n_rows: int | None = getattr(stream, "num_rows", None)
        self.size: int | None = None
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

    def chunks(self, parts: Iterable[Part], columns: Sequence[str] | None) -> Iterator[Chunk]:
        """Read the rows in order. A stream is one part, and gives all of its columns."""
        del parts, columns
        rows = self._options.row_group_size or max(1, MOST_ROW_GROUP_BYTES // self.job.row_bytes)
        yield from _regroup(self._batches(), rows)

    def _batches(self) -> Iterator[Chunk]:
        first_row = 0
        for batch in itertools.chain(self._read, self._reader):
            yield Chunk(batch, (Origin(batch.num_rows, "the stream", first_row, None),))
            first_row += batch.num_rows


def _regroup(chunks: Iterable[Chunk], rows: int) -> Iterator[Chunk]:
    """Cut and join chunks so that each has this many rows, except the last."""
    waiting: list[tuple[pa.RecordBatch, Origin]] = []
    have = 0
    for chunk in chunks:
        done = 0
        for origin in chunk.origins:
            while origin.rows:
                take = min(origin.rows, rows - have)
                waiting.append(
                    (chunk.batch.slice(done, take), Origin(take, origin.file, origin.first_row, origin.row_group))
                )
                origin = Origin(origin.rows - take, origin.file, origin.first_row + take, origin.row_group)  # noqa: PLW2901
                done, have = done + take, have + take
                if have == rows:
                    yield _join(waiting)
                    waiting, have = [], 0
    if waiting:
        yield _join(waiting)


def _join(parts: list[tuple[pa.RecordBatch, Origin]]) -> Chunk:
    batches = [batch for batch, _ in parts]
    batch = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    return Chunk(batch, tuple(origin for _, origin in parts))


def _open_file(path: str) -> InputFile:
    with _reading(path):
        return InputFile(path, pq.read_metadata(path), os.stat(path).st_size)  # noqa: PTH116 - a URI one day


def _schema(file: InputFile) -> pa.Schema:
    with _reading(file.path):
        return file.metadata.schema.to_arrow_schema()


def _parquet_file(path: str, metadata: pq.FileMetaData) -> pq.ParquetFile:
    # A small buffer without read-ahead is what keeps a row group of gigabytes out of memory; a map is never used,
    # because a file cut short under a map is a signal, not an error.
    return pq.ParquetFile(
        path,
        metadata=metadata,
        memory_map=False,
        pre_buffer=False,
        buffer_size=READ_BUFFER,
        page_checksum_verification=True,
    )


class _reading:  # noqa: N801 - reads as a phrase
    """Turn what goes wrong while a file is read into errors that name it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, BatchmaxError | GeneratorExit) or not isinstance(error, Exception):
            return
        if isinstance(error, FileNotFoundError):
            raise DataError("the file is gone", where=self._path, remedy=f"look: ls {self._path}") from error
        if isinstance(error, PermissionError):
            raise DataError("may not be read", where=self._path, remedy=f"look: ls -l {self._path}") from error
        text = " ".join(str(error).split())
        what = (
            "no Parquet file"
            if "magic bytes" in text or "too small" in text.lower() or "file size is" in text
            else f"cannot be read: {text}"
        )
        raise DataError(
            what, where=self._path, remedy=f"look: batchmax inspect {self._path}, or make the file again"
        ) from error

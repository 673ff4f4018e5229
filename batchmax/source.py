"""Inputs as batches of bounded bytes: Parquet files, or anything that gives an Arrow stream.

A :class:`Chunk` knows where its rows came from, and whether a row group of the output ends with it. Whoever reads files
another way gives chunks too; nothing after this module knows how a file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.arrow import schema_without_views, without_views
from batchmax.columns import LogitsColumn, find_logits
from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.job import plan_scoring
from batchmax.labels import LabelColumn
from batchmax.matrices import SparseVectorError, first_row_length
from batchmax.options import ScoreOptions
from batchmax.storage import find_files

MOST_ROW_GROUP_BYTES = 64 << 20
"""Logits of an output row group, unless its rows are asked for."""

MOST_CHUNK_BYTES = 16 << 20
"""Logits that are read, and computed on, at a time."""

READ_BUFFER = 1 << 20
FOOTER_TAIL = 8
MAGIC = b"PAR1"


@dataclass(frozen=True)
class Origin:
    """Where a run of rows is from: its file, and the row of the file that it begins with."""

    file: str
    first_row: int
    row_group: int | None


@dataclass(frozen=True, eq=False)
class Chunk:
    """A batch of rows: where they are from, and whether a row group of the output ends with them."""

    batch: pa.RecordBatch
    origin: Origin
    ends_group: bool = False

    def locate(self, row: int) -> tuple[str, int, int | None]:
        """Return the file, the row in the file, and the row group of a row of this chunk."""
        return self.origin.file, self.origin.first_row + row, self.origin.row_group

    def slice(self, start: int, rows: int, *, ends_group: bool) -> Chunk:
        """Return some rows of the chunk."""
        origin = replace(self.origin, first_row=self.origin.first_row + start)
        return Chunk(self.batch.slice(start, rows), origin, ends_group)


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
    paths = list(src)
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"{type(path).__name__} is no path", remedy="give paths as text, or a table")
    return ParquetSource([os.fspath(path) for path in paths], options)


class ParquetSource:
    """Parquet files, one after another, as if they were one."""

    def __init__(self, inputs: Sequence[str], options: ScoreOptions) -> None:
        self.files = [_open_file(path) for path in find_files(inputs)]
        self.schema = _schema(self.files[0])
        self.n_rows = sum(file.metadata.num_rows for file in self.files)
        self.size = sum(file.size for file in self.files)
        self._options = options
        with _about(self.files[0].path):
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
        chunks = (chunk for part in parts for chunk in self._part_chunks(part, columns))
        wanted = self._options.row_group_size
        return chunks if wanted is None else _regroup(chunks, wanted, wanted)

    def memory_needed(self) -> int:
        """Return about how many bytes of memory a job on these files takes besides what the program itself does."""
        groups = [
            self._pieces(file.metadata.row_group(group))
            for file in self.files
            for group in range(file.metadata.num_row_groups)
        ]
        wanted = self._options.row_group_size
        if wanted is not None:
            groups = [(wanted, min(piece, wanted), n_bytes) for _, piece, n_bytes in groups]
        return max((_memory_of(*group, self.job.result_bytes) for group in groups), default=0)

    def _part_chunks(self, part: Part, columns: Sequence[str] | None) -> Iterator[Chunk]:
        file = self.files[part.file]
        with _reading(file.path), _parquet_file(file.path, file.metadata) as parquet:
            row = part.first_row
            for group in range(part.first_group, part.end_group):
                metadata = parquet.metadata.row_group(group)
                whole, piece, _ = self._pieces(metadata)
                left = metadata.num_rows
                batches = parquet.iter_batches(piece, [group], columns)
                chunks = (Chunk(without_views(batch), Origin(file.path, row, group)) for batch in batches)
                for chunk in _regroup(chunks, whole, piece):
                    left -= chunk.batch.num_rows
                    yield replace(chunk, origin=replace(chunk.origin, first_row=row))
                    row += chunk.batch.num_rows
                if left:
                    raise DataError(
                        f"row group {group} holds {metadata.num_rows - left:,} rows, not {metadata.num_rows:,} as the "
                        "footer says",
                        where=file.path,
                        remedy="the file is damaged: make it again",
                    )

    def _pieces(self, metadata: pq.RowGroupMetaData) -> tuple[int, int, int]:
        """Return the rows of a row group of the output, the rows of a chunk, and the bytes of a row.

        The first is the whole group, or equal pieces of it that are not too large.
        """
        rows = metadata.num_rows or 1
        row_bytes = max(self.job.row_bytes, metadata.total_byte_size // rows // 2, 1)
        group = math.ceil(rows / min(math.ceil(rows * row_bytes / MOST_ROW_GROUP_BYTES), rows))
        piece = math.ceil(group / min(math.ceil(group * row_bytes / MOST_CHUNK_BYTES), group))
        return group, piece, row_bytes

    def _first_length(self, file: InputFile, column: LogitsColumn) -> int | None:
        with _reading(file.path), _parquet_file(file.path, file.metadata) as parquet:
            first_row = 0
            for batch in parquet.iter_batches(64, columns=list(column.names), use_threads=False):
                try:
                    length = first_row_length(batch, column)
                except SparseVectorError as error:
                    where = f"{file.path}: row {first_row + error.row:,}"
                    raise DataError(error.what, where=where, remedy=error.remedy) from error
                if length:
                    return length
                first_row += batch.num_rows
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
        read = self.schema.names if self._options.rejects is not None else self.job.columns_read
        needed = dict.fromkeys(name if name in self.schema.names else name.split(".")[0] for name in read)
        for file in self.files[1:]:
            schema = _schema(file)
            for name in needed:
                if schema.names.count(name) > 1:
                    raise DataError(f"there are two columns {name!r}", where=file.path, remedy="rename one of the two")
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
            with _about(file.path):
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
        self.schema = schema_without_views(self._reader.schema)
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
        return _regroup(self._batches(), rows, max(1, min(rows, MOST_CHUNK_BYTES // self.job.row_bytes)))

    def memory_needed(self) -> int:
        """Return about how many bytes of memory a job on this stream takes besides what the program itself does."""
        rows = self._options.row_group_size or max(1, MOST_ROW_GROUP_BYTES // self.job.row_bytes)
        piece = min(rows, max(1, MOST_CHUNK_BYTES // self.job.row_bytes))
        return _memory_of(rows, piece, self.job.row_bytes, self.job.result_bytes)

    def _batches(self) -> Iterator[Chunk]:
        first_row = 0
        for batch in itertools.chain(self._read, self._reader):
            yield Chunk(without_views(batch), Origin("the stream", first_row, None))
            first_row += batch.num_rows


def _regroup(chunks: Iterable[Chunk], group: int, piece: int) -> Iterator[Chunk]:
    """Cut chunks so that none has more rows than a piece, and that a group ends after so many rows and at the end."""
    have = 0
    last: Chunk | None = None
    for chunk in chunks:
        start = 0
        while start < chunk.batch.num_rows:
            if last is not None:
                yield last
            rows = min(piece, group - have, chunk.batch.num_rows - start)
            have = (have + rows) % group
            last = chunk.slice(start, rows, ends_group=have == 0)
            start += rows
    if last is not None:
        yield replace(last, ends_group=True)


def _memory_of(group: int, piece: int, row_bytes: int, result_bytes: int) -> int:
    # Measured: the results of a row group that is filled and of one that is written, and per chunk what reading,
    # converting and encoding take.
    return 2 * group * result_bytes + piece * (3 * result_bytes + 14 * row_bytes)


def _open_file(path: str) -> InputFile:
    with _reading(path):
        info = os.stat(path)  # noqa: PTH116 - a URI one day
        if not stat.S_ISREG(info.st_mode):
            # Opening a pipe that nobody writes to would wait for ever.
            raise DataError("not a regular file", where=path, remedy="write it into a file first: cat INPUT > FILE")
        return InputFile(path, pq.read_metadata(path), info.st_size)


def _schema(file: InputFile) -> pa.Schema:
    with _reading(file.path):
        return schema_without_views(file.metadata.schema.to_arrow_schema())


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


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    """Name the file in errors about its schema, which know columns and options only."""
    try:
        yield
    except BatchmaxError as error:
        if not error.where.startswith(path):
            error.where = f"{path}: {error.where}" if error.where else path
        error.remedy = error.remedy.replace("batchmax inspect FILE", f"batchmax inspect {shlex.quote(path)}")
        raise


class _reading:  # noqa: N801 - reads as a phrase
    """Turn what goes wrong while a file is read into errors that name it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, BatchmaxError | GeneratorExit) or not isinstance(error, Exception):
            return
        name = shlex.quote(self._path)
        if isinstance(error, FileNotFoundError):
            raise DataError("the file is gone", where=self._path, remedy=f"look: ls -l {name}") from error
        if isinstance(error, PermissionError):
            raise DataError("may not be read", where=self._path, remedy=f"look: ls -l {name}") from error
        text = "".join(char if char.isprintable() else "?" for char in " ".join(str(error).split()))
        what, remedy = f"cannot be read: {text}", f"the file is damaged: make it again; look: batchmax inspect {name}"
        if "magic bytes" in text or "too small" in text.lower() or "file size is" in text:
            what, remedy = _unlike_parquet(self._path)
        raise DataError(what, where=self._path, remedy=remedy) from error


def _unlike_parquet(path: str) -> tuple[str, str]:
    """Return what a file is that does not end as Parquet does, and what to do about it."""
    with open(path, "rb") as stream:  # noqa: PTH123 - a URI one day
        head = stream.read(len(MAGIC))
    if head == MAGIC:
        return "the file is cut short: it begins as Parquet but does not end as such", "copy it, or make it, again"
    what = "no Parquet file" if head else "the file is empty"
    return what, f"look: file {shlex.quote(path)}; among other files, choose with a quoted glob: '*.parquet'"

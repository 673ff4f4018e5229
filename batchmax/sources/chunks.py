"""Chunks of rows: their columns, their origin, and how row groups are divided into them.

How rows are divided into chunks and row groups depends only on the inputs and the options, never on the machine,
because it affects the bytes of the output.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array
from batchmax.columns.job import Job
from batchmax.parquet import CopiedColumns
from batchmax.sources.read_errors import wrong_row_count

MAX_ROW_GROUP_BYTES = 64 << 20
"""Bytes of probabilities in a row group of the output, unless ``--row-group-size`` is given."""

MAX_ROW_GROUP_ROWS = 1 << 26
"""Maximum number of rows that pyarrow encodes as one row group."""

MAX_CHUNK_BYTES = 24 << 20
"""Bytes of logits in a chunk: enough for a common row group of 16 MiB with its other columns."""


@dataclass(frozen=True)
class Origin:
    """The origin of a run of rows: the file, the row of the file that it starts with, and the row group."""

    file: str
    first_row: int
    row_group: int | None

    def after(self, rows: int) -> Origin:
        """Return the origin of the rows after the first ``rows`` rows."""
        return replace(self, first_row=self.first_row + rows)

    def place(self, row: int, token: str = "") -> str:
        """Return the file, row and row group for messages; ``row`` counts from the first row of the run."""
        group = "" if self.row_group is None else f" (row group {self.row_group})"
        return f"{self.file}: row {self.first_row + row:,}{token}{group}"


UNKNOWN_ORIGIN = Origin("", 0, None)
"""The origin of rows that are read but not placed yet; see :func:`placed`."""

Position = tuple[int, int]
"""The number of complete rows before a position, and the number of tokens before it in the next row."""


@dataclass(frozen=True, eq=False)
class Chunk(ABC):
    """Consecutive units of computation: rows (:class:`RowChunk`), or tokens of sequences (``TokenChunk``).

    Attributes
    ----------
    batch
        Columns with one value for each unit.
    origin
        Origin of the first row of the chunk.
    ends_group
        Whether a row group of the output ends with this chunk.
    logits
        Read-only (n_units, n_classes) matrix if the logits were read as one; then they aren't in ``batch``.
    copied
        Column chunks of the input's row group to copy into the output; these columns need not be in ``batch``.
    known
        The status of each unit as far as it is known before scoring, such as a missing label; None if unknown.
    """

    batch: pa.RecordBatch
    origin: Origin = UNKNOWN_ORIGIN
    ends_group: bool = False
    logits: NDArray[Any] | None = None
    copied: CopiedColumns | None = None
    known: NDArray[np.uint8] | None = None

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """The number of rows in this chunk, including rows of which it has only some tokens."""

    @property
    @abstractmethod
    def rows_done(self) -> int:
        """The number of rows that end in this chunk."""

    @abstractmethod
    def rows_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers in the file of units."""

    @abstractmethod
    def place(self, unit: int) -> str:
        """Return the file and row of a unit, for messages."""

    @abstractmethod
    def values(self, name: str) -> pa.Array:
        """Return a column with one value for each unit; a row's value is repeated for each of its tokens."""

    @abstractmethod
    def take(self, units: NDArray[np.int64], names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of some units."""

    @abstractmethod
    def with_columns(self, add: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Self:
        """Return the chunk with added columns, which have one value for each row."""

    @abstractmethod
    def split(self, rows: int) -> tuple[Self, Self]:
        """Split after the first ``rows`` rows, all of which must end in the chunk."""

    @abstractmethod
    def after(self, position: Position) -> Position:
        """Return the position after the chunk, given the position before it."""

    def unit(self, unit: int, job: Job) -> pa.RecordBatch:
        """Return one unit as a batch that includes its logits as a column."""
        batch = self.batch.slice(unit, 1)
        if self.logits is None:
            return batch
        logits = pa.array([self.logits[unit]], pa.list_(pa.from_numpy_dtype(self.logits.dtype)))
        return batch.append_column(job.logits.names[0], logits)

    def _units(self, start: int, count: int, **changes: Any) -> Self:
        """Return ``count`` units from ``start``, with other values for the fields that don't follow from the units."""
        logits, known = (None if one is None else one[start : start + count] for one in (self.logits, self.known))
        return replace(self, batch=self.batch.slice(start, count), logits=logits, known=known, **changes)


@dataclass(frozen=True, eq=False)
class RowChunk(Chunk):
    """Consecutive rows of a file."""

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return int(self.batch.num_rows)

    rows_done = n_rows

    def rows_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers in the file of rows of the chunk."""
        return self.origin.first_row + units

    def place(self, unit: int) -> str:
        """Return the file and row of a row of the chunk, for messages."""
        return self.origin.place(unit)

    def values(self, name: str) -> pa.Array:
        """Return a column."""
        return column_array(self.batch, name)

    def take(self, units: NDArray[np.int64], names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of some rows."""
        return self.batch.select(list(names)).take(pa.array(units))

    def with_columns(self, add: Callable[[pa.RecordBatch], pa.RecordBatch]) -> RowChunk:
        """Return the chunk with columns added."""
        return replace(self, batch=add(self.batch))

    def slice(self, start: int, rows: int, *, ends_group: bool) -> RowChunk:
        """Return ``rows`` rows from row ``start``."""
        return self._units(start, rows, origin=self.origin.after(start), ends_group=ends_group)

    def split(self, rows: int) -> tuple[RowChunk, RowChunk]:
        """Split after the first ``rows`` rows."""
        left = self.batch.num_rows - rows
        return self.slice(0, rows, ends_group=False), self.slice(rows, left, ends_group=self.ends_group)

    def after(self, position: Position) -> Position:
        """Return the position after the chunk, given the position before it."""
        return position[0] + self.n_rows, 0


C = TypeVar("C", bound=Chunk)


@dataclass
class ReadStatistics:
    """Read statistics: how many column chunks were read as matrices, by pyarrow, or copied, and reasons why not.

    ``reasons`` counts the column chunks that couldn't be read as a matrix, or couldn't be copied.
    """

    as_matrices: int = 0
    by_pyarrow: int = 0
    copied: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: ReadStatistics) -> None:
        """Add the counts of other row groups."""
        self.as_matrices += other.as_matrices
        self.by_pyarrow += other.by_pyarrow
        self.copied += other.copied
        self.reasons += other.reasons

    def text(self) -> str:
        """Return the counts as text."""
        why = ", ".join(f"{count:,} because {reason}" for reason, count in self.reasons.most_common(5))
        return (
            f"column chunks of logits read as matrices: {self.as_matrices:,}, by pyarrow: {self.by_pyarrow:,}; "
            f"of other columns copied as they are: {self.copied:,}" + (f" (not {why})" if why else "")
        )


@dataclass(frozen=True)
class ChunkSizes:
    """The numbers of rows of an output row group and of a chunk."""

    job: Job
    group_rows: int
    chunk_rows: int
    stored_bytes: int = 0

    def memory(self, rows: int | None = None) -> int:
        """Return the approximate memory in bytes that ``rows`` rows take; for any number of rows if None."""
        # Measured: results of one row group being filled and one being written; and for each chunk the memory for
        # reading, converting and encoding.
        group, piece = (size if rows is None else min(size, rows) for size in (self.group_rows, self.chunk_rows))
        job = self.job
        carried = self.stored_bytes * (2 * group + 3 * piece)
        return carried + 2 * group * job.result_bytes + piece * (3 * job.result_bytes + 15 * job.row_bytes)

    @property
    def reader_memory(self) -> int:
        """The approximate memory in bytes of another thread that reads: two chunks, and the memory to read them."""
        # Measured: four times the size of a chunk with its other columns.
        return 5 * self.chunk_rows * max(self.stored_bytes, self.job.row_bytes)


def plan_chunk_sizes(job: Job, rows: int | None = None, stored_bytes: int = 0) -> ChunkSizes:
    """Return how to divide an input row group with this many rows, or a stream of unknown length (None).

    ``stored_bytes`` is the uncompressed size of an input row, all columns together. Unless ``--row-group-size`` is
    given, an output row group is as large as the input's, or an equal fraction of it.
    """
    per_row = max(job.row_bytes, job.result_bytes // 2, stored_bytes // 2, 1)
    group = max(1, MAX_ROW_GROUP_BYTES // per_row)
    if job.options.row_group_size is not None:
        group = job.options.row_group_size
    elif rows is not None:
        group = _equal_pieces(max(rows, 1), group)
    group = min(group, MAX_ROW_GROUP_ROWS)
    piece = max(1, MAX_CHUNK_BYTES // max(per_row, job.result_bytes))
    return ChunkSizes(job, group, _equal_pieces(group, piece), max(0, stored_bytes - job.row_bytes))


def regroup(chunks: Iterable[RowChunk], group_rows: int, chunk_rows: int) -> Generator[RowChunk, None, None]:
    """Yield chunks of up to ``chunk_rows`` rows; a row group ends after every ``group_rows`` rows and at the end."""
    have = 0
    last: RowChunk | None = None
    for chunk in chunks:
        start = 0
        while start < chunk.batch.num_rows:
            if last is not None:
                yield last
            rows = min(chunk_rows, group_rows - have, chunk.batch.num_rows - start)
            have = (have + rows) % group_rows
            last = chunk.slice(start, rows, ends_group=have == 0)
            start += rows
    if last is not None:
        yield replace(last, ends_group=True)


def placed(
    chunks: Iterable[C],
    file: str,
    first_row: int = 0,
    group: int | None = None,
    copied: CopiedColumns | None = None,
    rows: int | None = None,
) -> Generator[C, None, None]:
    """Yield consecutive chunks with their origins, starting at a row.

    Raises
    ------
    DataError
        They don't have ``rows`` rows in all.
    """
    position = 0, 0
    for chunk in chunks:
        yield replace(chunk, origin=Origin(file, first_row + position[0], group), copied=copied)
        position = chunk.after(position)
    if rows is not None and group is not None and position != (rows, 0):
        raise wrong_row_count(file, group, position[0], rows)


def limited(chunks: Generator[C, None, None], limit: int | None) -> Generator[C, None, None]:
    """Yield the chunks of the first ``limit`` rows, whole sequences if chunks have tokens; of all rows for None.

    ``chunks`` is closed at the end, or when the caller closes this generator, so that files are closed and threads end.
    """
    with contextlib.closing(chunks):
        if limit is None:
            yield from chunks
            return
        # The limit is checked before the next chunk is read: data after the limit may be large or damaged.
        while limit > 0 and (chunk := next(chunks, None)) is not None:
            yield replace(chunk.split(limit)[0], ends_group=True) if chunk.rows_done >= limit else chunk
            limit -= chunk.rows_done


def skipped(runs: Iterable[tuple[int, Iterator[C]]], skip: int) -> Generator[C, None, None]:
    """Yield the chunks of runs of rows without the first ``skip`` rows; a run that is skipped entirely isn't read."""
    for rows, chunks in runs:
        if skip >= rows > 0:
            skip -= rows
            continue
        for chunk in chunks:
            if skip >= chunk.n_rows > 0:
                skip -= chunk.rows_done
            else:
                yield chunk.split(skip)[1] if skip else chunk
                skip = 0


def _equal_pieces(rows: int, most: int) -> int:
    return math.ceil(rows / math.ceil(rows / most))

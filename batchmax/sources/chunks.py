"""Rows on their way: how many go together, and where they are from.

How rows are cut into chunks and row groups is decided by the inputs and the options alone, never by the machine,
because it shows in the bytes of the output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array
from batchmax.columns.job import Job
from batchmax.parquet import CopiedColumns

MOST_ROW_GROUP_BYTES = 64 << 20
"""Probabilities of a row group of the output, unless its rows are asked for."""

MOST_ROW_GROUP_ROWS = 1 << 26
"""pyarrow encodes no more rows as one row group."""

MOST_CHUNK_BYTES = 24 << 20
"""Logits that are read, and computed on, at a time: a usual row group of 16 MiB, with what is beside them."""


@dataclass(frozen=True)
class Origin:
    """Where a run of rows is from: its file, and the row of the file that it begins with."""

    file: str
    first_row: int
    row_group: int | None

    def place(self, row: int, token: str = "") -> str:
        """Return where a row is, counted from the first of these, in words."""
        group = "" if self.row_group is None else f" (row group {self.row_group})"
        return f"{self.file}: row {self.first_row + row:,}{token}{group}"


@dataclass(frozen=True, eq=False)
class Chunk(ABC):
    """Units of computation in order: rows (:class:`RowChunk`), or the tokens of sequences (``TokenChunk``).

    Attributes
    ----------
    batch
        The columns of the units, one value for each unit.
    origin
        Where the first row of the chunk is from.
    ends_group
        Whether a row group of the output ends with the chunk.
    logits
        A read-only (n_units, n_classes) matrix where the logits were read as one; then they are not in the batch.
    copied
        What the output may have from the input's row group as it is. Columns in it need not be in the batch.
    """

    batch: pa.RecordBatch
    origin: Origin
    ends_group: bool = False
    logits: NDArray[Any] | None = None
    copied: CopiedColumns | None = None

    @property
    @abstractmethod
    def known(self) -> NDArray[np.uint8] | None:
        """The status of each unit as far as it is known from the structure of the input; None for nothing."""

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """How many rows are in this chunk, some of them perhaps in part."""

    @property
    @abstractmethod
    def rows_done(self) -> int:
        """How many rows end in this chunk."""

    @abstractmethod
    def rows_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the file that units belong to."""

    @abstractmethod
    def place(self, unit: int) -> str:
        """Return where a unit is, in words."""

    @abstractmethod
    def values(self, name: str) -> pa.Array:
        """Return a column with one value for each unit, that of its row where the column is one of rows."""

    @abstractmethod
    def take(self, units: NDArray[np.int64], names: Sequence[str]) -> pa.RecordBatch:
        """Return columns that were read for some units."""

    @abstractmethod
    def with_columns(self, add: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Self:
        """Return the chunk with columns added that have one value for each row."""

    @abstractmethod
    def split(self, rows: int) -> tuple[Self, Self]:
        """Return the first rows of the chunk, all of which must end in it, and the rest."""

    def unit(self, unit: int, job: Job) -> pa.RecordBatch:
        """Return one unit as a batch with its logits in a column, however they were read."""
        batch = self.batch.slice(unit, 1)
        if self.logits is None:
            return batch
        logits = pa.array([self.logits[unit]], pa.list_(pa.from_numpy_dtype(self.logits.dtype)))
        return batch.append_column(job.logits.names[0], logits)


@dataclass(frozen=True, eq=False)
class RowChunk(Chunk):
    """Rows that follow one another in a file."""

    @property
    def known(self) -> None:
        """Nothing is known of rows beforehand."""
        return

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return int(self.batch.num_rows)

    @property
    def rows_done(self) -> int:
        """The number of rows."""
        return int(self.batch.num_rows)

    def rows_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the file."""
        return self.origin.first_row + units

    def place(self, unit: int) -> str:
        """Return where a row is, in words."""
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
        """Return some rows that follow one another."""
        origin = replace(self.origin, first_row=self.origin.first_row + start)
        logits = None if self.logits is None else self.logits[start : start + rows]
        return replace(self, batch=self.batch.slice(start, rows), origin=origin, ends_group=ends_group, logits=logits)

    def split(self, rows: int) -> tuple[RowChunk, RowChunk]:
        """Return the first rows, and the rest."""
        left = self.batch.num_rows - rows
        return self.slice(0, rows, ends_group=False), self.slice(rows, left, ends_group=self.ends_group)


C = TypeVar("C", bound=Chunk)


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


@dataclass
class Ways:
    """How column chunks were read: logits as matrices or by pyarrow, carried columns copied or not, and why not."""

    fast: int = 0
    slow: int = 0
    copied: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def refused(self, reason: str) -> None:
        """Count a column chunk that could not be read as a matrix, or not be copied."""
        self.reasons[reason] += 1

    def text(self) -> str:
        """Return the counts in words."""
        why = ", ".join(f"{count:,} because {reason}" for reason, count in self.reasons.most_common(5))
        return (
            f"column chunks of logits read as matrices: {self.fast:,}, by pyarrow: {self.slow:,}; "
            f"of other columns copied as they are: {self.copied:,}" + (f" (not {why})" if why else "")
        )


@dataclass(frozen=True)
class Cut:
    """How many rows make a row group of the output, and how many a chunk."""

    job: Job
    group: int
    piece: int
    stored_bytes: int = 0

    def memory(self, rows: int | None = None) -> int:
        """Return about how many bytes the work on rows cut like this takes; on any number of them for None."""
        # Measured: the results of a row group that is filled and of one that is written, and per chunk what reading,
        # converting and encoding take.
        group, piece = (size if rows is None else min(size, rows) for size in (self.group, self.piece))
        job = self.job
        carried = self.stored_bytes * (2 * group + 3 * piece)
        return carried + 2 * group * job.result_bytes + piece * (3 * job.result_bytes + 15 * job.row_bytes)


def plan_cut(job: Job, rows: int | None = None, stored_bytes: int = 0) -> Cut:
    """Return how to cut a row group of the input of this many rows, or a stream of nobody knows how many.

    ``stored_bytes`` is what a row takes in the input, all columns together. Unless its rows are asked for, a row group
    is as large as the input's, or an equal piece of it.
    """
    per_row = max(job.row_bytes, job.result_bytes // 2, stored_bytes // 2, 1)
    group = max(1, MOST_ROW_GROUP_BYTES // per_row)
    if job.options.row_group_size is not None:
        group = job.options.row_group_size
    elif rows is not None:
        group = _equal_pieces(max(rows, 1), group)
    group = min(group, MOST_ROW_GROUP_ROWS)
    piece = max(1, MOST_CHUNK_BYTES // max(per_row, job.result_bytes))
    return Cut(job, group, _equal_pieces(group, piece), max(0, stored_bytes - job.row_bytes))


def regroup(chunks: Iterable[RowChunk], group: int, piece: int) -> Iterator[RowChunk]:
    """Cut chunks so that none has more rows than a piece, and that a group ends after so many rows and at the end."""
    have = 0
    last: RowChunk | None = None
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


def limited(chunks: Iterator[C], limit: int | None) -> Iterator[C]:
    """Return the chunks of the first ``limit`` rows, whole sequences where chunks are of tokens; of all for None."""
    if limit is None:
        yield from chunks
        return
    # Asked before the next chunk is read: what lies after the limit may be large, or damaged.
    while limit > 0 and (chunk := next(chunks, None)) is not None:
        yield replace(chunk.split(limit)[0], ends_group=True) if chunk.rows_done >= limit else chunk
        limit -= chunk.rows_done


def skipped(runs: Iterable[tuple[int, Iterator[C]]], skip: int) -> Iterator[C]:
    """Return the chunks of runs of rows without the first ``skip`` rows; a run that is left out is not read at all."""
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

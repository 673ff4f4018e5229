"""Rows on their way: how many go together, and where they are from.

How rows are cut into chunks and row groups is decided by the inputs and the options alone, never by the machine,
because it shows in the bytes of the output.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.job import Job
from batchmax.parquet import CopiedColumns
from batchmax.sequences import Tokens

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
class Chunk:
    """A batch of rows: where they are from, and whether a row group of the output ends with them.

    ``logits`` is a read-only (n_rows, n_classes) matrix where the logits were read as one; then they are not in the
    batch. ``copied`` is what the output may have from the input's row group as it is; columns in it need not be in the
    batch either. Of sequences, each row here is a token, ``tokens`` are the rows that these are of, and ``known`` what
    is known of their statuses.
    """

    batch: pa.RecordBatch
    origin: Origin
    ends_group: bool = False
    logits: NDArray[Any] | None = None
    copied: CopiedColumns | None = None
    tokens: Tokens | None = None
    known: NDArray[np.uint8] | None = None

    @property
    def rows_done(self) -> int:
        """How many rows end here."""
        return self.batch.num_rows if self.tokens is None else self.tokens.n_ended

    def locate(self, row: int) -> tuple[str, int, int | None]:
        """Return the file, the row in the file, and the row group of a row of this chunk; for a token its row."""
        if self.tokens is not None:
            row, _ = self.tokens.row_of(row)
        return self.origin.file, self.origin.first_row + row, self.origin.row_group

    def place(self, row: int) -> str:
        """Return where a row of this chunk is, in words."""
        if self.tokens is None:
            return self.origin.place(row)
        row, token = self.tokens.row_of(row)
        return self.origin.place(row, f", token {token:,}")

    def slice(self, start: int, rows: int, *, ends_group: bool) -> Chunk:
        """Return some rows of the chunk."""
        origin = replace(self.origin, first_row=self.origin.first_row + start)
        logits = None if self.logits is None else self.logits[start : start + rows]
        return Chunk(self.batch.slice(start, rows), origin, ends_group, logits, self.copied)

    def split(self, rows: int) -> tuple[Chunk, Chunk]:
        """Return the first rows of the chunk, which all end there, and what follows them."""
        n_rows, tokens = self.batch.num_rows, self.tokens
        if tokens is None:
            return self.slice(0, rows, ends_group=False), self.slice(rows, n_rows - rows, ends_group=self.ends_group)
        at = int(tokens.lengths[:rows].sum())
        head, tail = self.slice(0, at, ends_group=False), self.slice(at, n_rows - at, ends_group=self.ends_group)
        mine, theirs = tokens.split(rows)
        origin = replace(self.origin, first_row=self.origin.first_row + rows)
        known = (None, None) if self.known is None else (self.known[:at], self.known[at:])
        return (
            replace(head, origin=self.origin, tokens=mine, known=known[0]),
            replace(tail, origin=origin, tokens=theirs, known=known[1]),
        )

    def row(self, row: int, job: Job) -> pa.RecordBatch:
        """Return one row, its logits in a column whichever way they were read."""
        batch = self.batch.slice(row, 1)
        if self.logits is None:
            return batch
        logits = pa.array([self.logits[row]], pa.list_(pa.from_numpy_dtype(self.logits.dtype)))
        return batch.append_column(job.logits.names[0], logits)


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


def regroup(chunks: Iterable[Chunk], group: int, piece: int) -> Iterator[Chunk]:
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


def limited(chunks: Iterator[Chunk], limit: int | None) -> Iterator[Chunk]:
    """Return the chunks of the first ``limit`` rows; of all for None."""
    if limit is None:
        yield from chunks
        return
    # Asked before the next chunk is read: what lies after the limit may be large, or damaged.
    while limit > 0 and (chunk := next(chunks, None)) is not None:
        yield replace(chunk.split(limit)[0], ends_group=True) if chunk.rows_done >= limit else chunk
        limit -= chunk.rows_done


def skipped(runs: Iterable[tuple[int, Iterator[Chunk]]], skip: int) -> Iterator[Chunk]:
    """Return the chunks of runs of rows without the first ``skip`` rows; a run that is left out is not read at all."""
    for rows, chunks in runs:
        if skip >= rows > 0:
            skip -= rows
            continue
        for chunk in chunks:
            have = chunk.batch.num_rows
            if skip < have:
                yield chunk if not skip else chunk.slice(skip, have - skip, ends_group=chunk.ends_group)
            skip = max(0, skip - have)


def _equal_pieces(rows: int, most: int) -> int:
    return math.ceil(rows / math.ceil(rows / most))

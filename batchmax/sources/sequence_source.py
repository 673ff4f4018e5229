"""Reads sequences as chunks of tokens. Rows can be cut at any token, so a large row is never in memory as a whole.

A chunk's batch has the columns of its tokens: labels, and logits unless they were read as a matrix. The rows of the
tokens come with it. A row group of the output ends at the end of a row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, plain_array, valid_rows
from batchmax.columns.job import Job
from batchmax.columns.sequences import Tokens, extents, token_labels
from batchmax.errors import DataError
from batchmax.kernels.parquet.nested_levels import CONTINUES, NULL
from batchmax.parquet import SequenceReader
from batchmax.parquet.reading.raw_pages import pooled_matrix
from batchmax.runtime.text import quantity
from batchmax.sources.chunks import MAX_CHUNK_BYTES, MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_ROWS, Position
from batchmax.sources.token_chunks import TokenChunk

ROWS_AT_ONCE = 1 << 12
"""Maximum number of rows whose other columns, without the logits, are read at a time."""


@dataclass(frozen=True)
class TokenSizes:
    """How tokens are divided: the tokens of a chunk, and the minimum tokens or rows after which a row group ends."""

    chunk_tokens: int
    group_tokens: int
    group_rows: int

    @classmethod
    def of(cls, job: Job) -> TokenSizes:
        """Return how to divide the tokens of a job."""
        written = max(job.result_bytes, 1)
        piece = max(1, MAX_CHUNK_BYTES // max(job.row_bytes, job.result_bytes))
        rows = job.options.row_group_size
        most = MAX_ROW_GROUP_BYTES // written if rows is None else np.iinfo(np.int64).max
        return cls(piece, max(1, most), min(rows or MAX_ROW_GROUP_ROWS, MAX_ROW_GROUP_ROWS))

    def memory(self, job: Job, row_bytes: int = 0, tokens: int | None = None) -> int:
        """Return the approximate memory in bytes that processing tokens takes.

        ``row_bytes`` is the size of a row's other columns; ``tokens`` is the maximum number of tokens, None if unknown.
        """
        small = job.result_bytes - len(job.matrices) * job.row_bytes
        group = min(self.group_tokens, MAX_ROW_GROUP_BYTES // max(small, 1))
        piece, rows = self.chunk_tokens, rows_at_once(row_bytes)
        if tokens is not None:
            group, piece, rows = min(group, tokens), min(piece, tokens), min(rows, tokens)
        kept = 4 * group * max(small, 0)
        return piece * (4 * job.result_bytes + 8 * job.row_bytes) + kept + rows * row_bytes


def rows_at_once(row_bytes: int) -> int:
    """Return how many rows are read at a time, given the size of a row in bytes."""
    return max(1, min(ROWS_AT_ONCE, MAX_CHUNK_BYTES // max(row_bytes, 1)))


def from_matrices(
    reader: SequenceReader, batches: Iterator[pa.RecordBatch], job: Job, n_rows: int
) -> Iterator[TokenChunk]:
    """Yield the tokens of a row group, with logits as matrices, and the other columns of their rows.

    Raises
    ------
    PageError
        The logits can't be read as matrices from here on; the chunks yielded so far are right.
    DataError
        The number of rows differs from the row group's, or the levels don't say where rows begin.
    """
    other_columns, chunk_tokens = _RowBuffer(batches), TokenSizes.of(job).chunk_tokens
    done = first = 0
    while done < n_rows:
        logits = pooled_matrix(chunk_tokens, job.n_classes, job.logits.dtype)
        events = reader.read_into(logits)
        continues = reader.continues()
        is_token = events <= CONTINUES
        tokens = int(np.count_nonzero(is_token))
        is_first = events != CONTINUES
        if not len(events):
            raise DataError(f"the logits column ends after {quantity(done, 'row')}")
        if is_first[0] == (first > 0):
            # Inside a row (first > 0), the first token must continue it; otherwise it must begin a row.
            raise DataError("the repetition levels of the logits are inconsistent")
        row = np.cumsum(is_first) - is_first[0]
        lengths = np.bincount(row, weights=is_token, minlength=int(row[-1]) + 1).astype(np.int64)
        missing = np.zeros(len(lengths), np.bool_)
        missing[row[events == NULL]] = True
        ends = not continues
        rows = other_columns.take(len(lengths), keep_last=not ends)
        logits = logits[:tokens]
        logits.flags.writeable = False
        yield _token_chunk(Tokens(rows, lengths, missing, first, ends), job, {}, logits)
        first = 0 if ends else int(lengths[-1]) + (first if len(lengths) == 1 else 0)
        done += len(lengths) - (not ends)


def from_columns(batches: Iterator[pa.RecordBatch], job: Job, position: Position = (0, 0)) -> Iterator[TokenChunk]:
    """Yield batches of rows with their logits as chunks, starting at a position."""
    name, chunk_tokens = job.logits.names[0], TokenSizes.of(job).chunk_tokens
    skip, first = position
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        rows = batch.slice(skip)
        lists = plain_array(column_array(rows, name))
        valid = valid_rows(lists)
        # Without values under null rows, so that the values of consecutive rows are consecutive.
        values = lists.flatten()
        counts = np.where(valid, extents(lists)[1], 0)
        starts = np.cumsum(counts) - counts
        for row, place, lengths in _pieces(counts, chunk_tokens, first):
            end = row + len(lengths)
            inner = values.slice(int(starts[row]) + place, int(lengths.sum()))
            done = int(lengths[-1]) + (place if len(lengths) == 1 else 0)
            tokens = Tokens(rows.slice(row, len(lengths)), lengths, ~valid[row:end], place, done == counts[end - 1])
            yield _token_chunk(tokens, job, {name: inner})
        skip = first = 0


def regrouped(chunks: Iterable[TokenChunk], sizes: TokenSizes, *, whole: bool) -> Generator[TokenChunk, None, None]:
    """Yield chunks cut so that row groups of the output end at the end of a row: when they are full, and at the end.

    With ``whole``, only at the end.
    """
    tokens = rows = 0
    last: TokenChunk | None = None
    for chunk in chunks:
        rest: TokenChunk | None = chunk
        while rest is not None:
            if last is not None:
                yield last
            run = rest.tokens
            tokens_at_end = tokens + np.cumsum(run.lengths)[: run.n_ended]
            row_counts = rows + 1 + np.arange(len(tokens_at_end))
            is_full = (tokens_at_end >= sizes.group_tokens) | (row_counts >= sizes.group_rows)
            full = np.flatnonzero(is_full & (not whole))
            if len(full) and int(full[0]) + 1 < run.n_rows:
                last, rest = rest.split(int(full[0]) + 1)
            else:
                last, rest = rest, None
            tokens, rows = tokens + int(last.tokens.lengths.sum()), rows + last.tokens.n_ended
            last = replace(last, ends_group=bool(len(full)))
            if len(full):
                tokens = rows = 0
    if last is not None:
        yield replace(last, ends_group=True)


class _RowBuffer:
    """The columns other than the logits, read for the rows of each chunk of tokens."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: pa.RecordBatch | None = None

    def take(self, n_rows: int, *, keep_last: bool) -> pa.RecordBatch:
        """Return the next rows; with ``keep_last``, the last one is returned again next time."""
        pieces: list[pa.RecordBatch] = []
        while n_rows:
            batch = self._left if self._left is not None else next(self._batches, None)
            if batch is None:
                raise DataError("the logits column has more rows than the other columns")
            count = min(n_rows, batch.num_rows)
            pieces.append(batch.slice(0, count))
            n_rows -= count
            left = batch.slice(count - (keep_last and n_rows == 0))
            self._left = left if left.num_rows else None
        return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def _token_chunk(
    tokens: Tokens, job: Job, columns: dict[str, pa.Array], logits: NDArray[Any] | None = None
) -> TokenChunk:
    assert job.nesting is not None  # noqa: S101 - only called for sequences
    labels, known = token_labels(tokens, job.nesting) if job.label is not None else (None, None)
    if labels is not None and job.label is not None:
        columns = columns | {job.label.name: labels}
    # A struct array has a length even without columns.
    kind = pa.struct([pa.field(name, array.type) for name, array in columns.items()])
    array = pa.Array.from_buffers(kind, int(tokens.lengths.sum()), [None], children=list(columns.values()))
    batch = pa.RecordBatch.from_struct_array(array)
    return TokenChunk(batch, logits=logits, known=known, tokens=tokens)


def _pieces(counts: NDArray[np.int64], most: int, first: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield for each chunk of tokens its first row, the index of its first token there, and the tokens of each row."""
    row = 0
    n_rows = len(counts)
    while row < n_rows:
        left = counts[row:].copy()
        left[0] -= first
        ends = np.cumsum(left)
        whole = int(np.searchsorted(ends, most, side="right"))
        if whole == 0:
            yield row, first, np.array([most], np.int64)
            first += most
            continue
        yield row, first, left[:whole]
        row, first = row + whole, 0

"""Encodes tokens of sequences as pages of a column of lists of lists; the reverse of :class:`SequenceReader`.

Pages end where tokens end, independently of row boundaries, so that a row of gigabytes is written while it is computed.
The module also encodes the levels of null rows, empty rows and null tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from batchmax.parquet.levels import LONG_ROW, level_runs, packed_levels, run, sized
from batchmax.parquet.writing.column_chunk import EncodedChunk
from batchmax.parquet.writing.list_writer import PAGE_BYTES, ChunkCounts, MatrixFormat, encode_body

NULL_ROW, EMPTY_ROW, NULL_TOKEN, NUMBER = 0, 1, 2, 5
"""Definition levels of a column in which outer lists, inner lists and numbers may all be null."""
ROW_BEGINS, TOKEN_BEGINS, CONTINUES = 0, 1, 2
"""Repetition levels."""
BITS = 2, 3
"""The bits of repetition and of definition levels."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Tokens, and the rows that contain them.

    Attributes
    ----------
    values : (n_tokens_with_numbers, K) float16, float32 or float64
        The tokens that aren't null, C-contiguous.
    repetition, definition : (n_entries,) uint8
        One entry for each token, and for each row without tokens: its first repetition level, and its definition level
        (``NUMBER``, ``NULL_TOKEN``, ``EMPTY_ROW`` or ``NULL_ROW``).
    """

    values: NDArray[Any]
    repetition: NDArray[np.uint8]
    definition: NDArray[np.uint8]

    @classmethod
    def of(
        cls,
        values: NDArray[Any],
        missing: NDArray[np.bool_],
        lengths: NDArray[np.int64],
        missing_rows: NDArray[np.bool_],
        *,
        continues: bool,
    ) -> Self:
        """Return the tokens of some rows.

        Parameters
        ----------
        values
            As for the class.
        missing : (n_tokens,) bool
            The null tokens.
        lengths : (n_rows,)
            The number of tokens of each row in this batch.
        missing_rows : (n_rows,) bool
            The null rows.
        continues
            Whether the first row began in a previous batch.
        """
        entries = np.maximum(lengths, 1)
        if continues and len(lengths) and not lengths[0]:
            entries[0] = 0
        starts = np.cumsum(entries) - entries
        repetition = np.full(int(entries.sum()), TOKEN_BEGINS, np.uint8)
        row_starts = starts[entries > 0] if not continues else starts[1:][entries[1:] > 0]
        repetition[row_starts] = ROW_BEGINS
        definition = np.full(len(repetition), NUMBER, np.uint8)
        without = (lengths == 0) & (entries > 0)
        definition[starts[without]] = np.where(missing_rows[without], NULL_ROW, EMPTY_ROW)
        is_token = definition == NUMBER
        definition[np.flatnonzero(is_token)[missing]] = NULL_TOKEN
        return cls(values, repetition, definition)


class NestedColumn:
    """A column chunk of lists of lists that is written in parts.

    Parameters
    ----------
    form
        The codec, and whether bytes are split.
    dtype, n_classes
        The type of the numbers, and how many a token has.
    """

    def __init__(self, form: MatrixFormat, dtype: np.dtype[Any], n_classes: int) -> None:
        self._form = form
        self._n_classes = n_classes
        self._step = max(1, PAGE_BYTES // (n_classes * dtype.itemsize))
        self._counts = ChunkCounts(form, dtype)

    def pages(self, rows: TokenRows) -> Iterator[Any]:
        """Yield the pieces of the pages of some tokens, in order."""
        at = 0
        for start in range(0, len(rows.repetition), self._step):
            repetition = rows.repetition[start : start + self._step]
            definition = rows.definition[start : start + self._step]
            end = at + int(np.count_nonzero(definition == NUMBER))
            levels = nested_levels(repetition, definition, self._n_classes)
            n_values = len(repetition) + (end - at) * (self._n_classes - 1)
            page = encode_body(rows.values[at:end], levels, n_values, self._form)
            self._counts.add(page)
            yield from page.pieces
            at = end

    def mark(self) -> Any:
        """Return a mark of the current state for :meth:`restore`."""
        return copy.copy(self._counts)

    def restore(self, mark: Any) -> None:
        """Forget the pages after a mark."""
        self._counts = mark

    def chunk(self, pieces: Iterable[Any] = (), at: int | None = None) -> EncodedChunk:
        """Return the column chunk: pieces that are still to be written, or the position of those in the file."""
        return EncodedChunk(pieces, self._counts.metadata(), at)

    @property
    def n_bytes(self) -> int:
        """The size of the pages."""
        return self._counts.compressed


def nested_levels(repetition: NDArray[np.uint8], definition: NDArray[np.uint8], n_classes: int) -> bytes:
    """Return the levels of a page of tokens: repetition levels, then definition levels, each after its length."""
    full = definition == NUMBER
    counts = np.where(full, n_classes, 1)
    if n_classes >= LONG_ROW:
        rest = run(n_classes - 1, CONTINUES)
        whole = [run(1, level) + rest for level in (ROW_BEGINS, TOKEN_BEGINS)]
        alone = [run(1, level) for level in (ROW_BEGINS, TOKEN_BEGINS)]
        levels = b"".join((whole if is_full else alone)[level] for level, is_full in zip(repetition, full, strict=True))
    else:
        flat = np.full(int(counts.sum()), CONTINUES, np.uint8)
        flat[np.cumsum(counts) - counts] = repetition
        levels = packed_levels(flat, BITS[0])
    return sized(levels) + sized(level_runs(definition, counts))

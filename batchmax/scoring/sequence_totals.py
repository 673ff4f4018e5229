"""Aggregates tokens to sequences: statuses, numbers of tokens with a loss, sums, bytes of text.

Chunks of tokens can end inside a sequence, so the totals of an unfinished sequence are kept. Every command that counts
sequences uses this module, so that all count in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, plain_array, valid_rows
from batchmax.columns.sequences import Tokens
from batchmax.errors import DataError
from batchmax.kernels.compensated_sums import sum_lists
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_BAD, LAST_WITHOUT_LOSS, Status

pc = ImportedWhenUsed("pyarrow.compute")

Array = NDArray[Any]

MOST_BYTES = 2**53
"""Maximum bytes of text of a row."""


@dataclass(frozen=True, eq=False)
class SequenceTotals:
    """Totals of n sequences.

    Attributes
    ----------
    status
        Shape (n,), uint8. The status of the worst token if a token is bad, or ``NULL_LOGITS`` for a null row.
        Otherwise, tokens without a label don't count if another token of the sequence has a loss: padding isn't an
        error.
    counts
        Shape (n,), int64: the number of tokens with a loss.
    sums
        Shape (m, n), float64: the sums of m values over the tokens with a loss; inf if one of them is infinite.
    """

    status: NDArray[np.uint8]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def is_bad(self) -> NDArray[np.bool_]:
        """Which sequences are bad."""
        return np.asarray(self.status <= LAST_BAD)

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """Which sequences have a loss: they aren't bad, and at least one token has a loss."""
        return ~self.is_bad & (self.counts > 0)

    def first(self, n: int) -> SequenceTotals:
        """Return the totals of the first n sequences."""
        return SequenceTotals(self.status[:n], self.counts[:n], self.sums[:, :n])


class SequenceTally:
    """Adds up tokens of consecutive chunks.

    Parameters
    ----------
    shift
        Whether labels are shifted, so that the last token of a sequence has none; this doesn't affect its status.
    n_sums
        The number of values per token that are summed.
    """

    def __init__(self, *, shift: bool, n_sums: int = 0) -> None:
        self._shift = shift
        self._n_sums = n_sums
        self._none = Status.OK, Status.OK, 0, np.zeros((n_sums, 3))
        self._open: tuple[Any, Any, Any, Array] = self._none

    def add(self, tokens: Tokens, status: NDArray[np.uint8], values: Sequence[Array] = ()) -> SequenceTotals:
        """Add the tokens of a chunk.

        Parameters
        ----------
        tokens
            The sequences that the tokens are in.
        status
            Shape (n_tokens,).
        values
            The values to sum, shape (n_tokens,) each.

        Returns
        -------
        The totals of all sequences of the chunk; those of the last one aren't final if it continues.
        """
        n, (row, _) = tokens.n_rows, tokens.places()
        counted = status > LAST_WITHOUT_LOSS
        if self._shift:
            status = status.copy()
            ends = np.cumsum(tokens.lengths)[: tokens.n_ended][tokens.lengths[: tokens.n_ended] > 0] - 1
            status[ends[status[ends] == Status.UNLABELLED]] = Status.OK
        worst, worst_labelled = np.full((2, n), Status.OK, np.uint8)
        counts = np.zeros(n, np.int64)
        sums = np.zeros((self._n_sums, n, 3))
        if n:
            worst[0], worst_labelled[0], counts[0], sums[:, 0] = self._open
        np.minimum.at(worst, row, status)
        is_unlabelled = (status == Status.IGNORED) | (status == Status.UNLABELLED)
        np.minimum.at(worst_labelled, row, np.where(is_unlabelled, Status.OK, status).astype(np.uint8))
        np.add.at(counts, row, counted)
        for one, numbers in zip(sums, values, strict=True):
            sum_lists(numbers, counted, tokens.lengths, one)
        worst[tokens.missing] = Status.NULL_LOGITS
        if not tokens.ends:
            self._open = worst[-1], worst_labelled[-1], counts[-1], sums[:, -1].copy()
        elif n:
            self._open = self._none
        whole = np.where((worst <= LAST_BAD) | (counts == 0), worst, worst_labelled)
        return SequenceTotals(whole, counts, np.where(sums[..., 2] > 0, np.inf, sums[..., 0] + sums[..., 1]))


def text_bytes(chunk: TokenChunk, name: str, totals: SequenceTotals) -> NDArray[np.int64]:
    """Return the bytes of text of each sequence that ends in a chunk; 0 for one without a loss.

    Parameters
    ----------
    chunk
        The tokens.
    name
        The column with the text, or with the number of its bytes.
    totals
        The totals of the sequences that end in the chunk.

    Raises
    ------
    DataError
        The number of bytes of a sequence with a loss is null, negative or too large.
    """
    n = len(totals.status)
    column = plain_array(column_array(chunk.tokens.rows, name))[:n]
    counts = column if pa.types.is_integer(column.type) else pc.binary_length(column)
    known = valid_rows(counts)
    numbers = counts.fill_null(0).to_numpy(zero_copy_only=False)
    wrong = totals.is_scored & ~(known & (numbers >= 0) & (numbers <= MOST_BYTES))
    if wrong.any():
        row = int(np.argmax(wrong))
        value = column[row].as_py()
        raise DataError(
            f"column {name!r} is {'null' if value is None else value}, but the row has a loss",
            where=chunk.origin.place(row),
            remedy="give the text or its number of bytes, or leave out --bytes",
        )
    return np.where(totals.is_scored, numbers, 0).astype(np.int64)

"""Pair the tokens of sequences: sequences by position or by key, and tokens by position in paired sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.sequences import Tokens
from batchmax.evaluation.comparison.row_cursor import Order, Side
from batchmax.evaluation.comparison.row_groups import RowGroups
from batchmax.evaluation.comparison.row_pairing import RowPairs
from batchmax.jobs.row_batch import RowBatch
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.sources.parquet_source import Source
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_BAD, Status

Array = NDArray[Any]

TOKEN_BITS = 32
"""Bits of a token's position in a combined number of row and position."""


@dataclass(frozen=True, eq=False)
class SequencePairs:
    """Pairs of sequences, (n,) each: row numbers and numbers of tokens in both inputs.

    ``is_bad`` marks pairs with a bad sequence in either input, ``is_uneven`` pairs with different numbers of tokens,
    neither sequence being null.
    """

    rows: tuple[Array, Array]
    lengths: tuple[Array, Array]
    is_bad: Array
    is_uneven: Array


class TokenPairs(RowPairs):
    """Pairs of tokens of sequences, in the order of a.

    ``sequences`` has the pairs of sequences after the last pair of tokens.
    """

    sequences: SequencePairs | None = None

    def __init__(
        self, a: Source, b: Source, key: str | None, progress: Progress, row_groups: RowGroups | None = None
    ) -> None:
        super().__init__(a, b, key, progress, row_groups)
        self._tallies = tuple(_SequenceStatuses(shift=source.job.options.shift) for source in (a, b))

    def _by_place(self) -> Iterator[tuple[Side, Side]]:
        yield from self._merged(self._order(0, None), self._order(1, None))
        self.sequences = self._paired(None)

    def _by_partner(self, partner: Array) -> Iterator[tuple[Side, Side]]:
        yield from super()._by_partner(partner)
        self.sequences = self._paired(partner)

    def _order(self, side: int, partner: Array | None) -> Order:
        return _by_token(partner, self._tallies[side])

    def _paired(self, partner: Array | None) -> SequencePairs:
        """Return the pairs of sequences, after all tokens were read."""
        (status_a, length_a), (status_b, length_b) = (one.arrays() for one in self._tallies)
        if partner is None:
            self._check_counts(len(status_a), len(status_b))
            partner = np.arange(len(status_a))
        a = np.flatnonzero(partner[: len(status_a)] >= 0)
        b = partner[a]
        self.only_a, self.only_b = len(status_a) - len(a), len(status_b) - len(b)
        status_a, length_a, status_b, length_b = status_a[a], length_a[a], status_b[b], length_b[b]
        is_null = (status_a == Status.NULL_LOGITS) & (length_a == 0)
        is_null |= (status_b == Status.NULL_LOGITS) & (length_b == 0)
        is_bad = (status_a <= LAST_BAD) | (status_b <= LAST_BAD)
        return SequencePairs((a, b), (length_a, length_b), is_bad, (length_a != length_b) & ~is_null)


def _by_token(partner: Array | None, sequences: _SequenceStatuses) -> Order:
    """Return an order by the row number of the partner, or without ``partner`` of the row, and by position in the row.

    The order also adds the tokens that it is given to ``sequences``.
    """

    def order(batch: RowBatch, first: int) -> tuple[Array | None, pa.Array]:
        assert isinstance(batch.chunk, TokenChunk)  # noqa: S101 - rows are sequences
        tokens = batch.chunk.tokens
        sequences.add(tokens, batch.scores.status)
        rows, places = tokens.places()
        numbers = first + rows if partner is None else partner[first + rows]
        chosen = np.flatnonzero(numbers >= 0)
        return chosen, pa.array((numbers[chosen] << TOKEN_BITS) + places[chosen])

    return order


class _SequenceStatuses:
    """Accumulates the statuses and lengths of the sequences of one input."""

    def __init__(self, *, shift: bool) -> None:
        self._tally = SequenceTally(shift=shift)
        self._statuses: list[Array] = [np.zeros(0, np.uint8)]
        self._lengths: list[Array] = [np.zeros(0, np.int64)]
        self._open = 0

    def add(self, tokens: Tokens, status: Array) -> None:
        """Add some tokens."""
        totals = self._tally.add(tokens, status).first(tokens.n_ended)
        lengths = tokens.lengths.copy()
        lengths[0] += self._open
        self._open = 0 if tokens.ends else int(lengths[-1])
        self._statuses.append(totals.status)
        self._lengths.append(lengths[: tokens.n_ended])

    def arrays(self) -> tuple[Array, Array]:
        """Return the status and the number of tokens of each sequence."""
        return np.concatenate(self._statuses), np.concatenate(self._lengths)

"""Chunks of tokens: some consecutive tokens of sequences, and the rows of the file that they are in.

Tokens of one row may be in several chunks. Doesn't know files, nor how tokens are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array
from batchmax.columns.sequences import Tokens
from batchmax.sources.chunks import Chunk, Position
from batchmax.statuses import LAST_BAD


@dataclass(frozen=True, eq=False)
class TokenChunk(Chunk):
    """Consecutive tokens.

    Attributes
    ----------
    tokens
        The row of each token, and the columns of these rows. ``batch`` has the columns with one value for each token:
        labels, and logits unless they were read as a matrix.
    """

    tokens: Tokens = field(kw_only=True)

    @property
    def n_rows(self) -> int:
        """The number of rows that have tokens in this chunk, or are empty or null."""
        return self.tokens.n_rows

    @property
    def rows_done(self) -> int:
        """The number of rows that end in this chunk."""
        return self.tokens.n_ended

    def rows_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers in the file of tokens."""
        return self.origin.first_row + self.tokens.places()[0][units]

    def place(self, unit: int) -> str:
        """Return the file, row and token of a unit, for messages."""
        rows, tokens = self.tokens.places()
        return self.origin.place(rows[unit], f", token {tokens[unit]:,}")

    def values(self, name: str) -> pa.Array:
        """Return a column with one value for each token."""
        if name in self.batch.schema.names:
            return self.batch.column(name)
        return column_array(self.tokens.rows, name).take(pa.array(self.tokens.places()[0]))

    def take(self, units: NDArray[np.int64], names: Sequence[str]) -> pa.RecordBatch:
        """Return columns for some tokens: columns of tokens, and columns of their rows."""
        own, index = self.batch.schema.names, pa.array(units)
        rows = pa.array(self.tokens.places()[0][units])
        columns = [self.batch[name].take(index) if name in own else self.tokens.rows[name].take(rows) for name in names]
        return pa.RecordBatch.from_arrays(columns, names=list(names))

    def with_columns(self, add: Callable[[pa.RecordBatch], pa.RecordBatch]) -> TokenChunk:
        """Return the chunk with columns added to its rows."""
        return replace(self, tokens=replace(self.tokens, rows=add(self.tokens.rows)))

    def split(self, rows: int) -> tuple[TokenChunk, TokenChunk]:
        """Split after the first ``rows`` rows, all of which must end in the chunk."""
        at = int(self.tokens.lengths[:rows].sum())
        head, tail = self.tokens.split(rows)
        left = self.batch.num_rows - at
        return (
            self._units(0, at, tokens=head, ends_group=False),
            self._units(at, left, tokens=tail, origin=self.origin.after(rows)),
        )

    def null_row(self, status: NDArray[np.uint8]) -> int | None:
        """Return the index of the first null row; None if there is none, or if a bad token comes before it.

        ``status`` has the status of each token.
        """
        tokens = self.tokens
        if not tokens.missing.any():
            return None
        row = int(np.argmax(tokens.missing))
        return None if (status[: int(tokens.lengths[:row].sum())] <= LAST_BAD).any() else row

    def after(self, position: Position) -> Position:
        """Return the position after the chunk, given the position before it."""
        tokens = self.tokens
        if tokens.ends:
            return position[0] + tokens.n_rows, 0
        return position[0] + tokens.n_ended, int(tokens.lengths[-1]) + (tokens.first if tokens.n_rows == 1 else 0)

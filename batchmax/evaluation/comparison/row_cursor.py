"""Positions in the rows of an input that is paired with another: the rows in memory, and the values that pair them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax.evaluation.comparison.join_keys import comparable
from batchmax.evaluation.comparison.row_groups import RowGroups
from batchmax.jobs.row_batch import RowBatch
from batchmax.kernels.compiler.dispatch import limit_threads
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]

Order = Callable[[RowBatch, int], tuple[Array | None, pa.Array]]
"""Given a batch and the number of its first row, returns which of them are paired (None for all), and their keys."""


@dataclass(frozen=True, eq=False)
class Side:
    """Some rows or tokens of one input, (n,) or (n, K) each; see :class:`batchmax.jobs.row_batch.RowBatch`.

    ``numbers`` are row numbers over all files, ``places`` positions of tokens in their rows; ``clusters`` and
    ``groups`` are those of :class:`batchmax.evaluation.comparison.row_groups.RowGroups`. Arrays that the input
    doesn't have are None. The arrays may be overwritten when the next rows are read.
    """

    numbers: Array
    places: Array | None
    matrix: Array
    status: Array
    pred: Array | None
    labels: Array | None
    targets: Array | None
    nll: Array | None
    hits: Array | None
    maxima: Array | None
    rests: Array | None
    clusters: Array | None = None
    groups: Array | None = None

    def some(self, rows: slice | Array) -> Side:
        """Return some of the rows: a view for a slice, a copy otherwise."""
        chosen: dict[str, Any] = {name: None if one is None else one[rows] for name, one in vars(self).items()}
        return Side(**chosen)


class RowCursor:
    """A position in the rows of one input; the rest of the current chunk is in memory."""

    def __init__(
        self, rows: Iterator[RowBatch], order: Order | None, threads: int, row_groups: RowGroups | None = None
    ) -> None:
        self._row_groups = row_groups
        self.keys: Any = None
        self.first = self.at = self.left = 0
        self._rows = rows
        self._order = order
        self._threads = threads
        self._end = 0
        self._side: Side | None = None

    def fill(self) -> bool:
        """Read until at least one row to pair is in memory; return False at the end."""
        while not self.left:
            batch, self.first = next(self._rows, None), self._end
            if batch is None:
                # The other input is still being computed, with these threads.
                limit_threads(self._threads)
                return False
            self._end = self.first + batch.chunk.rows_done
            self._side = _side(batch, self.first, self._row_groups)
            if self._order is not None:
                chosen, self.keys = self._order(batch, self.first)
                self._side = self._side if chosen is None else self._side.some(as_slice(chosen))
            self.at, self.left = 0, len(self._side.status)
        return True

    def up_to(self, end: pa.Scalar) -> int:
        """Return how many of the remaining rows have a key of at most ``end``."""
        return pc.sum(pc.less_equal(self.keys[self.at :], end)).as_py() or 0

    def next(self, n: int, chosen: Array | None = None) -> Side:
        """Skip n rows, and return them, or the chosen ones of them."""
        assert self._side is not None  # noqa: S101 - fill() was called before
        rows = slice(self.at, self.at + n) if chosen is None else as_slice(chosen + self.at)
        self.skip(n)
        return self._side.some(rows)

    def skip(self, n: int | None = None) -> int:
        """Skip n rows, or the rest of the chunk, and return how many were skipped."""
        n = self.left if n is None else n
        self.at += n
        self.left -= n
        return n


def _side(batch: RowBatch, first: int, row_groups: RowGroups | None) -> Side:
    """Return a batch as rows of an input; ``first`` is the number of its first row."""
    scores, chunk = batch.scores, batch.chunk
    rows, places = np.arange(len(batch.matrix)), None
    if isinstance(chunk, TokenChunk):
        rows, places = chunk.tokens.places()
    # If classes are independent, there is no softmax.
    maxima, rests = (one if len(one) else None for one in (scores.rows.maxima, scores.rows.rests))
    clusters, groups = (None, None) if row_groups is None else row_groups.of(batch)
    return Side(
        numbers=first + rows,
        places=places,
        matrix=batch.matrix,
        status=scores.status,
        pred=scores.values.get("pred"),
        labels=batch.labels.indices,
        targets=batch.labels.targets,
        nll=scores.nll,
        hits=scores.hits,
        maxima=maxima,
        rests=rests,
        clusters=clusters,
        groups=groups,
    )


def by_key(name: str) -> Order:
    """Return an order by the values of a column."""
    return lambda batch, _: (None, comparable(batch.chunk.values(name)))


def by_number(partner: Array) -> Order:
    """Return an order by the numbers of the rows' partners, without the rows that have none (-1)."""

    def order(batch: RowBatch, first: int) -> tuple[Array | None, pa.Array]:
        numbers = partner[first : first + len(batch.matrix)]
        chosen = np.flatnonzero(numbers >= 0)
        return chosen, pa.array(numbers[chosen])

    return order


def as_slice(rows: Array) -> slice | Array:
    """Return ascending rows as a slice if they are consecutive, which makes a view instead of a copy."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows

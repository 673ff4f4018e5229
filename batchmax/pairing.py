"""Rows of two inputs in pairs, as both are read: the first with the first, or those that have the same key.

The inputs need not be cut alike: what both have in memory at a time is paired. Where keys come in the same order on
both sides, no row is kept; where they do not, one side is read into memory first. What pairs are for, others know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.arrow import column_array, number_values, valid_rows
from batchmax.errors import DataError, UsageError
from batchmax.keys import Keys, comparable, partners, read_keys
from batchmax.loop import PROGRAM_BYTES, Progress
from batchmax.memory import usable_cores
from batchmax.passes import Seen, rows_of
from batchmax.source import ParquetSource
from batchmax.stream_source import StreamSource

Array = NDArray[Any]
Source = ParquetSource | StreamSource

KEY_SHARE = 16
"""The keys of one side may take this part of the memory limit; finding partners takes several times as much."""

SMALL_COLUMNS_BYTES = 64
"""About what a row takes in memory besides its logits."""


@dataclass(frozen=True, eq=False)
class Side:
    """Some rows of one input, (n,) or (n, K) each, numbered over all its files; see :class:`batchmax.passes.Seen`.

    What the input does not have is None. The arrays are overwritten when the next rows come.
    """

    numbers: Array
    matrix: Array
    status: Array
    pred: Array
    labels: Array | None
    targets: Array | None
    nll: Array | None
    hits: Array | None

    def some(self, rows: slice | Array) -> Side:
        """Return some of the rows: a view of a slice, copies of others."""
        chosen: dict[str, Any] = {}
        for name, array in self.arrays().items():
            chosen[name] = None if array is None else array[rows]
        return Side(**chosen)

    def arrays(self) -> dict[str, Any]:
        """Return the arrays by their names."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


class Pairs:
    """Pairs of rows of two inputs, in the order of the first.

    Parameters
    ----------
    a, b
        The inputs, opened with ``pred`` among the outputs and, if there is a key, with it carried.
    key
        The column whose values pair rows; None for their place.
    progress
        Who is told how far a is.

    Attributes
    ----------
    only_a, only_b
        Rows without a partner, known when all pairs were looked at. A null key has none.
    warnings
        What looks wrong about the first rows of each input.
    """

    def __init__(self, a: Source, b: Source, key: str | None, progress: Progress) -> None:
        self.only_a = self.only_b = 0
        self.warnings: tuple[list[str], list[str]] = [], []
        self._sources = (a, b)
        self._key = key
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[Side, Side]]:
        """Yield the pairs, some at a time.

        Raises
        ------
        DataError
            The inputs have not the same number of rows, or a key is there twice.
        UsageError
            Keys or rows that must be kept take more memory than they may.
        """
        if self._key is None:
            return self._by_place()
        keys = [self._keys(source, self._key) for source in self._sources]
        if all(one.rise for one in keys):
            self._progress.detail("the keys rise in both inputs, so no row is kept")
            order = _by_key(self._key)
            return self._merged(order, order)
        return self._by_partner(self._partner(keys))

    def _by_place(self) -> Iterator[tuple[Side, Side]]:
        a, b = self._sources
        if None not in {rows_in(a), rows_in(b)} and rows_in(a) != rows_in(b):
            raise _not_as_many(a, b, f"{rows_in(a):,}", f"{rows_in(b):,}")
        with self._cursor(0) as of_a, self._cursor(1) as of_b:
            while of_a.fill() & of_b.fill():
                n = min(of_a.left, of_b.left)
                yield of_a.next(n), of_b.next(n)
            if of_a.left or of_b.left:
                n = (of_b if of_a.left else of_a).first
                raise _not_as_many(a, b, *((f"more than {n:,}", f"{n:,}")[:: 1 if of_a.left else -1]))

    def _by_partner(self, partner: Array) -> Iterator[tuple[Side, Side]]:
        """Pair rows of a with the rows of b that have these numbers, where it is not -1."""
        wanted = partner[partner >= 0]
        self.only_a += len(partner) - len(wanted)
        if (np.diff(wanted) > 0).all():
            self._progress.detail("the keys are in one order in both inputs, so no row is kept")
            yield from self._merged(_by_number(partner), _by_number(None))
            return
        wanted.sort()
        b = self._kept(wanted)
        with self._cursor(0, _by_number(partner)) as of_a:
            while of_a.fill():
                partners_here = number_values(of_a.keys)[of_a.at :]
                yield of_a.next(of_a.left), b.some(np.searchsorted(wanted, partners_here))

    def _merged(self, order_a: Order, order_b: Order) -> Iterator[tuple[Side, Side]]:
        """Pair rows whose keys rise on both sides."""
        with self._cursor(0, order_a) as a, self._cursor(1, order_b) as b:
            while a.fill() & b.fill():
                # Whatever comes later on either side is beyond the smaller of the two last keys.
                end = a.keys[-1] if pc.less_equal(a.keys[-1], b.keys[-1]).as_py() else b.keys[-1]
                in_a, in_b = a.up_to(end), b.up_to(end)
                found = pc.index_in(a.keys[a.at : a.at + in_a], value_set=b.keys[b.at : b.at + in_b])
                rows_a = np.flatnonzero(valid_rows(found))
                rows_b = number_values(found)[rows_a]
                self.only_a += in_a - len(rows_a)
                self.only_b += in_b - len(rows_b)
                yield a.next(in_a, rows_a), b.next(in_b, rows_b)
            while a.fill():
                self.only_a += a.skip()
            while b.fill():
                self.only_b += b.skip()

    def _kept(self, wanted: Array) -> Side:
        """Read the rows of b with these numbers, which rise, into memory."""
        a, b = self._sources
        needed = PROGRAM_BYTES + max(a.memory_needed(), b.memory_needed())
        needed += len(wanted) * (b.job.row_bytes + SMALL_COLUMNS_BYTES)
        limit = a.job.options.memory_limit
        if needed > limit:
            raise UsageError(
                f"the keys are in another order in the two inputs; to keep {len(wanted):,} rows takes about "
                f"{needed / 2**20:,.0f} MiB, and the job may use {limit / 2**20:,.0f}",
                where="--key",
                remedy=f"sort both by {self._key}, or allow more: --memory-limit {math.ceil(needed / 2**20)}MiB",
            )
        self._progress.detail(f"the keys are in another order in the two inputs, so {len(wanted):,} rows are kept")
        kept: dict[str, Any] = {}
        with self._cursor(1) as of_b:
            while of_b.fill():
                first = of_b.first
                rows = of_b.left
                start, end = np.searchsorted(wanted, [first, first + rows])
                some = of_b.next(rows, wanted[start:end] - first)
                for name, array in some.arrays().items():
                    if name not in kept:
                        kept[name] = None if array is None else np.empty((len(wanted), *array.shape[1:]), array.dtype)
                    if array is not None:
                        kept[name][start:end] = array
                self.only_b += rows - len(some.status)
        return Side(**kept)

    def _keys(self, source: Source, key: str) -> Keys:
        options = source.job.options
        most = options.memory_limit // KEY_SHARE
        return read_keys(source.files, key, options.limit, options.memory_limit, most)

    def _partner(self, keys: list[Keys]) -> Array:
        """Return the number of b's row for each row of a, -1 where there is none."""
        values = []
        for one, source in zip(keys, self._sources, strict=True):
            if one.values is None:
                limit = source.job.options.memory_limit
                raise UsageError(
                    f"the keys of {name_of(source)} do not all rise, and take more than 1/{KEY_SHARE} of the "
                    f"{limit / 2**20:,.0f} MiB that the job may use",
                    where="--key",
                    remedy=f"sort both inputs by {self._key}, or allow more: --memory-limit {2 * limit / 2**20:.0f}MiB",
                )
            values.append(one.values)
        found = partners(values[0], values[1], (name_of(self._sources[0]), name_of(self._sources[1])))
        del values, keys[:]
        pa.default_memory_pool().release_unused()
        return found

    @contextmanager
    def _cursor(self, side: int, order: Order | None = None) -> Iterator[_Cursor]:
        source = self._sources[side]
        seen = rows_of(source, self._progress if side == 0 else None, self.warnings[side])
        with closing(cast("Generator[Seen, None, None]", seen)) as rows:
            yield _Cursor(rows, order, source.job.options.threads or usable_cores())


Order = Callable[[Seen, int], tuple[Array | None, pa.Array]]
"""Of rows of which the first has this number: those that count (None for all), and their keys."""


class _Cursor:
    """A place in the rows of one input; what lies between it and the end of a chunk is in memory."""

    def __init__(self, rows: Iterator[Seen], order: Order | None, threads: int) -> None:
        self.keys: Any = None
        self.first = self.at = self.left = 0
        self._rows = rows
        self._order = order
        self._threads = threads
        self._seen: Seen | None = None
        self._chosen: Array | None = None

    def fill(self) -> bool:
        """Have at least one row that counts, or return that there is none any more."""
        while not self.left:
            if self._seen is not None:
                self.first += len(self._seen.matrix)
            self._seen = next(self._rows, None)
            if self._seen is None:
                # Whoever reads the other input still computes.
                kernels.limit_threads(self._threads)
                return False
            self.at, self.left = 0, len(self._seen.matrix)
            if self._order is not None:
                self._chosen, self.keys = self._order(self._seen, self.first)
                self.left = len(self.keys)
        return True

    def up_to(self, end: pa.Scalar) -> int:
        """Return how many of the rows from here have no larger key than this."""
        return pc.sum(pc.less_equal(self.keys[self.at :], end)).as_py() or 0

    def next(self, n: int, chosen: Array | None = None) -> Side:
        """Go past n rows, and return them or those chosen of them."""
        rows: slice | Array = slice(self.at, self.at + n)
        if chosen is not None or self._chosen is not None:
            rows = np.arange(self.at, self.at + n) if chosen is None else chosen + self.at
            rows = _tight(rows if self._chosen is None else self._chosen[rows])
        self.skip(n)
        return self._side().some(rows)

    def skip(self, n: int | None = None) -> int:
        """Go past n rows, or to the end of the chunk, and return how many these are."""
        n = self.left if n is None else n
        self.at += n
        self.left -= n
        return n

    def _side(self) -> Side:
        seen = self._seen
        assert seen is not None  # noqa: S101 - filled before
        scores = seen.scores
        return Side(
            numbers=np.arange(self.first, self.first + len(seen.matrix)),
            matrix=seen.matrix,
            status=scores.status,
            pred=scores.values["pred"],
            labels=seen.labels.indices,
            targets=seen.labels.targets,
            nll=scores.nll,
            hits=scores.hits,
        )


def name_of(source: Source) -> str:
    """Return what an input is called: its file, or its first one and how many more."""
    if not source.files:
        return "the stream"
    more = len(source.files) - 1
    return source.files[0].path + (f" and {more:,} more" if more else "")


def rows_in(source: Source) -> int | None:
    """Return how many rows of an input are read; None if nobody knows."""
    limit = source.job.options.limit
    return source.n_rows if limit is None or source.n_rows is None else min(limit, source.n_rows)


def _by_key(name: str) -> Order:
    """Return the order of the values of a column."""
    return lambda seen, _: (None, comparable(column_array(seen.chunk.batch, name)))


def _by_number(partner: Array | None) -> Order:
    """Return the order of the numbers of rows, or of their partners' where they have one."""

    def order(seen: Seen, first: int) -> tuple[Array | None, pa.Array]:
        rows = slice(first, first + len(seen.matrix))
        if partner is None:
            return None, pa.array(np.arange(rows.start, rows.stop))
        chosen = np.flatnonzero(partner[rows] >= 0)
        return chosen, pa.array(partner[rows][chosen])

    return order


def _tight(rows: Array) -> slice | Array:
    """Return rows that follow one another as a slice, which is not copied."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _not_as_many(a: Source, b: Source, in_a: str, in_b: str) -> DataError:
    return DataError(
        f"{in_a} rows, but {in_b} in {name_of(b)}",
        where=name_of(a),
        remedy="pair rows by a column that tells them apart: --key COLUMN",
    )

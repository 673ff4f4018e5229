"""Pair the rows of two inputs while both are read: by position, or by key.

The inputs may have different row groups and chunks; the rows that both have in memory are paired. If keys are in the
same order in both inputs, no rows are kept; otherwise the rows of b are read into memory first. Doesn't know what pairs
are used for.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax.columns.arrow import number_values, valid_rows
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.comparison.join_keys import KEY_SHARE, Keys, partners, read_keys
from batchmax.evaluation.comparison.options_of_b import WITH_FORM_FOR_B, named_for_b
from batchmax.evaluation.comparison.row_cursor import Order, RowCursor, Side, by_key, by_number
from batchmax.evaluation.comparison.row_groups import RowGroups
from batchmax.evaluation.row_stream import row_batches, rows_in
from batchmax.jobs.row_batch import RowBatch
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.sources.parquet_source import Source

Array = NDArray[Any]

SMALL_COLUMNS_BYTES = 64
"""Approximate memory of a row apart from its logits."""


class RowPairs:
    """Pairs of rows from two inputs, in the order of a.

    Parameters
    ----------
    a, b
        The inputs, opened with the output ``pred`` and, if there is a key, with the key column carried.
    key
        The column whose values pair rows; None pairs by position.
    progress
        Progress callbacks, called for a.
    row_groups
        The columns of clusters and groups of a, or None.

    Attributes
    ----------
    only_a, only_b
        Number of rows without a partner, complete after the last pair. Rows with a null key have no partner.
    warnings
        Warnings about the first rows of each input.
    """

    def __init__(
        self, a: Source, b: Source, key: str | None, progress: Progress, row_groups: RowGroups | None = None
    ) -> None:
        self._row_groups = row_groups
        self.only_a = self.only_b = 0
        self.warnings: tuple[list[str], list[str]] = [], []
        self._sources = (a, b)
        self._key = key
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[Side, Side]]:
        """Yield batches of pairs.

        Raises
        ------
        DataError
            The inputs have different numbers of rows, or a key occurs twice.
        UsageError
            Keys or rows that must be kept don't fit in the memory limit.
        """
        if self._key is None:
            self._check_counts(*map(rows_in, self._sources))
            return self._by_place()
        keys = [read_keys(source.files, self._key, source.job.options) for source in self._sources]
        if self._sources[0].job.nesting is None and all(one.is_ascending for one in keys):
            self._progress.detail("the keys are ascending in both inputs, so no rows are kept in memory")
            order = by_key(self._key)
            return self._merged(order, order)
        return self._by_partner(self._partner(keys))

    def _by_place(self) -> Iterator[tuple[Side, Side]]:
        a, b = self._sources
        with self._cursor(0) as of_a, self._cursor(1) as of_b:
            while of_a.fill() & of_b.fill():
                n = min(of_a.left, of_b.left)
                yield of_a.next(n), of_b.next(n)
            if of_a.left or of_b.left:
                n = (of_b if of_a.left else of_a).first
                if of_a.left:
                    raise _not_as_many(a, b, f"more than {quantity(n, 'row')}", f"{n:,}")
                raise _not_as_many(a, b, quantity(n, "row"), f"more than {n:,}")

    def _check_counts(self, in_a: int | None, in_b: int | None) -> None:
        if in_a is not None and in_b is not None and in_a != in_b:
            raise _not_as_many(*self._sources, quantity(in_a, "row"), f"{in_b:,}")

    def _by_partner(self, partner: Array) -> Iterator[tuple[Side, Side]]:
        """Yield pairs of rows of a and the rows of b with these numbers, where not -1."""
        wanted = partner[partner >= 0]
        own = np.full(rows_in(self._sources[1]) or 0, -1, np.int64)
        own[wanted] = wanted
        self.only_a, self.only_b = len(partner) - len(wanted), len(own) - len(wanted)
        orders = self._order(0, partner), self._order(1, own)
        if (np.diff(wanted) > 0).all():
            self._progress.detail("the keys are in the same order in both inputs, so no rows are kept in memory")
            yield from self._merged(*orders)
        else:
            yield from self._with_kept(orders[0], *self._keep(orders[1], len(wanted)))

    def _order(self, side: int, partner: Array) -> Order:  # noqa: ARG002 - rows have the same order in both inputs
        """Return an order of the rows of an input by the numbers of their partners, without those that have none."""
        return by_number(partner)

    def _with_kept(self, order_a: Order, keys: Array, b: Side | None) -> Iterator[tuple[Side, Side]]:
        """Yield pairs of rows of a and the rows of b in memory that have the same key; ``keys`` are those of b.

        ``b`` is None if there are no such rows; a is read all the same, because the order counts its sequences.
        """
        with self._cursor(0, order_a) as of_a:
            while of_a.fill():
                if b is None:
                    of_a.skip()
                    continue
                wanted = number_values(of_a.keys)[of_a.at :]
                at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                rows = np.flatnonzero(keys[at] == wanted)
                yield of_a.next(of_a.left, rows), b.some(at[rows])

    def _merged(self, order_a: Order, order_b: Order) -> Iterator[tuple[Side, Side]]:
        """Yield pairs of rows whose keys ascend in both inputs."""
        with self._cursor(0, order_a) as a, self._cursor(1, order_b) as b:
            while a.fill() & b.fill():
                # Later keys of either input are larger than the smaller of the two last keys.
                end = a.keys[-1] if pc.less_equal(a.keys[-1], b.keys[-1]).as_py() else b.keys[-1]
                in_a, in_b = a.up_to(end), b.up_to(end)
                matches = pc.index_in(a.keys[a.at : a.at + in_a], value_set=b.keys[b.at : b.at + in_b])
                rows_a = np.flatnonzero(valid_rows(matches))
                rows_b = number_values(matches)[rows_a]
                self.only_a += in_a - len(rows_a)
                self.only_b += in_b - len(rows_b)
                yield a.next(in_a, rows_a), b.next(in_b, rows_b)
            while a.fill():
                self.only_a += a.skip()
            while b.fill():
                self.only_b += b.skip()

    def _keep(self, order: Order, n_rows: int) -> tuple[Array, Side | None]:
        """Read the rows of b with a partner into memory; return their ascending keys and the rows, None if none.

        ``n_rows`` is their number; of sequences, the tokens are kept.
        """
        a, b = self._sources
        # Of sequences, the number of tokens isn't known, and so neither is the size of their small columns.
        nested = b.job.nesting is not None
        n_bytes = 2 * (b.n_rows or 0) * b.row_bytes if nested else n_rows * (b.job.row_bytes + SMALL_COLUMNS_BYTES)
        needed = PROGRAM_BYTES + max(a.memory_needed(), b.memory_needed()) + n_bytes
        limit = a.job.options.memory_limit
        if needed > limit:
            raise UsageError(
                "the keys are in different orders in the two inputs; "
                f"keeping {quantity(n_rows, 'row')} in memory takes about {needed / 2**20:,.0f} MiB, "
                f"and the limit is {limit / 2**20:,.0f} MiB",
                where="--key",
                remedy=f"sort both by {self._key}, or raise the limit: --memory-limit {math.ceil(needed / 2**20)}MiB",
            )
        self._progress.detail(
            f"the keys are in different orders in the two inputs, so {quantity(n_rows, 'row is', 'rows are')} kept in "
            "memory"
        )
        kept: dict[str, Any] = {}
        keys = np.zeros(0, np.int64)
        with self._cursor(1, order) as of_b:
            while of_b.fill():
                keys = _extended(keys, number_values(of_b.keys)[of_b.at :])
                for name, array in vars(of_b.next(of_b.left)).items():
                    kept[name] = None if array is None else _extended(kept.get(name), array)
        return keys, Side(**kept) if kept else None

    def _partner(self, keys: list[Keys]) -> Array:
        """Return the row of b for each row of a, or -1."""
        values = []
        for one, source in zip(keys, self._sources, strict=True):
            if one.values is None:
                limit = source.job.options.memory_limit
                nested = source.job.nesting is not None
                raise UsageError(
                    f"the keys of {name_of(source)} {'' if nested else 'are not ascending, and '}take more than "
                    f"1/{KEY_SHARE} of the memory limit of {limit / 2**20:,.0f} MiB",
                    where="--key",
                    remedy=("" if nested else f"sort both inputs by {self._key}, or ")
                    + f"raise the limit: --memory-limit {2 * limit / 2**20:.0f}MiB",
                )
            values.append(one.values)
        partner = partners(values[0], values[1], (name_of(self._sources[0]), name_of(self._sources[1])))
        del values, keys[:]
        pa.default_memory_pool().release_unused()
        return partner

    @contextmanager
    def _cursor(self, side: int, order: Order | None = None) -> Iterator[RowCursor]:
        source = self._sources[side]
        progress = self._progress if side == 0 else None
        # Both inputs are read at the same time, each by one thread.
        batches = row_batches(source, progress, self.warnings[side], readers=1)
        with closing(batches if side == 0 else _of_b(batches)) as rows:
            groups = self._row_groups if side == 0 else None
            yield RowCursor(rows, order, source.job.options.threads or usable_cores(), groups)


def _extended(whole: Array | None, array: Array) -> Array:
    """Return an array with another one appended to it in place."""
    if whole is None:
        return array.copy()
    n = len(whole)
    whole.resize((n + len(array), *array.shape[1:]), refcheck=False)
    whole[n:] = array
    return whole


def _of_b(batches: Generator[RowBatch, None, None]) -> Generator[RowBatch, None, None]:
    """Yield the batches of b, and name its options in the remedies of errors about them."""
    with named_for_b(WITH_FORM_FOR_B):
        yield from batches


def name_of(source: Source) -> str:
    """Return the name of an input for messages: its file, or the first file and the number of other files."""
    if not source.files:
        return "the stream"
    more = len(source.files) - 1
    return source.files[0].path + (f" and {more:,} more" if more else "")


def _not_as_many(a: Source, b: Source, in_a: str, in_b: str) -> DataError:
    return DataError(
        f"{in_a}, but {in_b} in {name_of(b)}",
        where=name_of(a),
        remedy="pair rows by a column of unique values: --key COLUMN",
    )

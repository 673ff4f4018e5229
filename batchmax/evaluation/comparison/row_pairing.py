"""Pair the rows of two inputs while both are read: by position, or by key.

The inputs may have different row groups and chunks; the rows that both have in memory are paired. If keys are in the
same order in both inputs, no rows are kept; otherwise the rows of b are read into memory first. In paired sequences,
tokens are paired by position. Doesn't know what pairs are used for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.columns.arrow import number_values, valid_rows
from batchmax.columns.sequences import Tokens
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.comparison.join_keys import Keys, comparable, partners, read_keys
from batchmax.evaluation.row_stream import Seen, rows_of
from batchmax.outputs import LAST_BAD, Status
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]
Source = ParquetSource | StreamSource

KEY_SHARE = 16
"""Keys of one input may take 1/KEY_SHARE of the memory limit; finding partners takes several times as much."""

SMALL_COLUMNS_BYTES = 64
"""Approximate memory of a row apart from its logits."""


TOKEN_BITS = 32
"""Bits of a token's position in a combined number of row and position."""


@dataclass(frozen=True, eq=False)
class Side:
    """Some rows or tokens of one input, (n,) or (n, K) each; see :class:`batchmax.evaluation.row_stream.Seen`.

    ``numbers`` are row numbers over all files, ``places`` positions of tokens in their rows. Arrays that the input
    doesn't have are None. The arrays may be overwritten when the next rows are read.
    """

    numbers: Array
    places: Array | None
    matrix: Array
    status: Array
    pred: Array
    labels: Array | None
    targets: Array | None
    nll: Array | None
    hits: Array | None

    def some(self, rows: slice | Array) -> Side:
        """Return some of the rows: a view for a slice, a copy otherwise."""
        chosen: dict[str, Any] = {}
        for name, array in self.arrays().items():
            chosen[name] = None if array is None else array[rows]
        return Side(**chosen)

    def arrays(self) -> dict[str, Any]:
        """Return the arrays by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, eq=False)
class SequencePairs:
    """Pairs of sequences, (n,) each: row numbers, statuses and numbers of tokens in both inputs.

    ``only_a`` and ``only_b`` are the numbers of sequences without a partner.
    """

    rows: tuple[Array, Array]
    statuses: tuple[Array, Array]
    lengths: tuple[Array, Array]
    only_a: int
    only_b: int

    @property
    def is_bad(self) -> Array:
        """Pairs with a bad sequence in either input."""
        return np.asarray((self.statuses[0] <= LAST_BAD) | (self.statuses[1] <= LAST_BAD))

    @property
    def is_uneven(self) -> Array:
        """Pairs with different numbers of tokens, neither sequence being null."""
        is_null = (self.statuses[0] == Status.NULL_LOGITS) & (self.lengths[0] == 0)
        is_null |= (self.statuses[1] == Status.NULL_LOGITS) & (self.lengths[1] == 0)
        return np.asarray((self.lengths[0] != self.lengths[1]) & ~is_null)


class Pairs:
    """Pairs of rows, or of tokens of sequences, from two inputs, in the order of a.

    Parameters
    ----------
    a, b
        The inputs, opened with the output ``pred`` and, if there is a key, with the key column carried.
    key
        The column whose values pair rows; None pairs by position.
    progress
        Progress callbacks, called for a.

    Attributes
    ----------
    only_a, only_b
        Number of rows without a partner, complete after the last pair. Rows with a null key have no partner.
    warnings
        Warnings about the first rows of each input.
    sequences
        For sequences, their statuses and lengths after the last pair; otherwise None.
    """

    def __init__(self, a: Source, b: Source, key: str | None, progress: Progress) -> None:
        self.only_a = self.only_b = 0
        self.warnings: tuple[list[str], list[str]] = [], []
        self.sequences: SequencePairs | None = None
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
        if self._sources[0].job.nesting is not None:
            return self._tokens()
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
        self._check_counts(rows_in(a), rows_in(b))
        with self._cursor(0) as of_a, self._cursor(1) as of_b:
            while of_a.fill() & of_b.fill():
                n = min(of_a.left, of_b.left)
                yield of_a.next(n), of_b.next(n)
            if of_a.left or of_b.left:
                n = (of_b if of_a.left else of_a).first
                raise _not_as_many(a, b, *((f"more than {n:,}", f"{n:,}")[:: 1 if of_a.left else -1]))

    def _check_counts(self, in_a: int | None, in_b: int | None) -> None:
        if None not in {in_a, in_b} and in_a != in_b:
            raise _not_as_many(*self._sources, f"{in_a:,}", f"{in_b:,}")

    def _tokens(self) -> Iterator[tuple[Side, Side]]:
        """Yield pairs of tokens, by position in paired sequences."""
        partner = None
        if self._key is None:
            self._check_counts(*map(rows_in, self._sources))
        else:
            partner = self._partner([self._keys(source, self._key) for source in self._sources])
        tallies = tuple(_Sequences(shift=source.job.options.shift) for source in self._sources)
        wanted = None if partner is None else np.sort(partner[partner >= 0])
        is_ordered = partner is None or bool((np.diff(partner[partner >= 0]) > 0).all())
        orders = _by_token(partner, tallies[0]), _by_token(_own(wanted, rows_in(self._sources[1])), tallies[1])
        if is_ordered:
            yield from self._merged(*orders)
        else:
            numbers, kept = self._kept_tokens(orders[1], 0 if wanted is None else len(wanted))
            with self._cursor(0, orders[0]) as of_a:
                while of_a.fill():
                    if kept is None:
                        of_a.skip()
                        continue
                    wanted_here = number_values(of_a.keys)[of_a.at :]
                    at = np.minimum(np.searchsorted(numbers, wanted_here), len(numbers) - 1)
                    tokens = np.flatnonzero(numbers[at] == wanted_here)
                    yield of_a.next(of_a.left, tokens), kept.some(at[tokens])
        self.sequences = self._paired(partner, tallies)

    def _paired(self, partner: Array | None, tallies: Sequence[_Sequences]) -> SequencePairs:
        """Return statuses and lengths of paired sequences, after all tokens were read."""
        (status_a, length_a), (status_b, length_b) = (one.arrays() for one in tallies)
        if partner is None:
            self._check_counts(len(status_a), len(status_b))
            partner = np.arange(len(status_a))
        a = np.flatnonzero(partner[: len(status_a)] >= 0)
        b = partner[a]
        self.only_a, self.only_b = len(status_a) - len(a), len(status_b) - len(b)
        return SequencePairs((a, b), (status_a[a], status_b[b]), (length_a[a], length_b[b]), self.only_a, self.only_b)

    def _kept_tokens(self, order: Order, n_rows: int) -> tuple[Array, Side | None]:
        """Read the tokens of b with a partner into memory; return their ascending keys and the tokens, None if none."""
        b = self._sources[1]
        # Twice: the pieces, and their concatenation.
        self._check_kept(n_rows, 2 * (b.n_rows or 0) * b.row_bytes)
        pieces: list[dict[str, Any]] = []
        keys: list[Array] = []
        with self._cursor(1, order) as of_b:
            while of_b.fill():
                keys.append(number_values(of_b.keys)[of_b.at :])
                some = of_b.next(of_b.left)
                pieces.append({name: None if one is None else one.copy() for name, one in some.arrays().items()})
        if not pieces:
            return np.zeros(0, np.int64), None
        whole: dict[str, Any] = {
            name: None if one is None else np.concatenate([piece[name] for piece in pieces])
            for name, one in pieces[0].items()
        }
        return np.concatenate(keys), Side(**whole)

    def _by_partner(self, partner: Array) -> Iterator[tuple[Side, Side]]:
        """Yield pairs of rows of a and the rows of b with these numbers, where not -1."""
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
        """Yield pairs of rows whose keys ascend in both inputs."""
        with self._cursor(0, order_a) as a, self._cursor(1, order_b) as b:
            while a.fill() & b.fill():
                # Later keys of either input are larger than the smaller of the two last keys.
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
        """Read the rows of b with these ascending numbers into memory."""
        b = self._sources[1]
        self._check_kept(len(wanted), len(wanted) * (b.job.row_bytes + SMALL_COLUMNS_BYTES))
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

    def _check_kept(self, n_rows: int, n_bytes: int) -> None:
        """Raise if n_rows rows of b, n_bytes in total, don't fit in memory."""
        a, b = self._sources
        needed = PROGRAM_BYTES + max(a.memory_needed(), b.memory_needed()) + n_bytes
        limit = a.job.options.memory_limit
        if needed > limit:
            raise UsageError(
                f"the keys are in another order in the two inputs; to keep {n_rows:,} rows takes about "
                f"{needed / 2**20:,.0f} MiB, and the job may use {limit / 2**20:,.0f}",
                where="--key",
                remedy=f"sort both by {self._key}, or allow more: --memory-limit {math.ceil(needed / 2**20)}MiB",
            )
        self._progress.detail(f"the keys are in another order in the two inputs, so {n_rows:,} rows are kept")

    def _keys(self, source: Source, key: str) -> Keys:
        options = source.job.options
        most = options.memory_limit // KEY_SHARE
        return read_keys(source.files, key, options.limit, options.memory_limit, most)

    def _partner(self, keys: list[Keys]) -> Array:
        """Return the row of b for each row of a, or -1."""
        values = []
        for one, source in zip(keys, self._sources, strict=True):
            if one.values is None:
                limit = source.job.options.memory_limit
                nested = source.job.nesting is not None
                raise UsageError(
                    f"the keys of {name_of(source)} {'' if nested else 'do not all rise, and '}take more than "
                    f"1/{KEY_SHARE} of the {limit / 2**20:,.0f} MiB that the job may use",
                    where="--key",
                    remedy=("" if nested else f"sort both inputs by {self._key}, or ")
                    + f"allow more: --memory-limit {2 * limit / 2**20:.0f}MiB",
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
"""Given rows and the number of the first, returns which of them are paired (None for all), and their keys."""


class _Cursor:
    """A position in the rows of one input; the rest of the current chunk is in memory."""

    def __init__(self, rows: Iterator[Seen], order: Order | None, threads: int) -> None:
        self.keys: Any = None
        self.first = self.at = self.left = 0
        self._rows = rows
        self._order = order
        self._threads = threads
        self._seen: Seen | None = None
        self._chosen: Array | None = None

    def fill(self) -> bool:
        """Read until at least one row to pair is in memory; return False at the end."""
        while not self.left:
            if self._seen is not None:
                self.first += self._seen.chunk.rows_done
            self._seen = next(self._rows, None)
            if self._seen is None:
                # The other input is still being computed, with these threads.
                kernels.limit_threads(self._threads)
                return False
            self.at, self.left = 0, len(self._seen.matrix)
            if self._order is not None:
                self._chosen, self.keys = self._order(self._seen, self.first)
                self.left = len(self.keys)
        return True

    def up_to(self, end: pa.Scalar) -> int:
        """Return how many of the remaining rows have a key of at most ``end``."""
        return pc.sum(pc.less_equal(self.keys[self.at :], end)).as_py() or 0

    def next(self, n: int, chosen: Array | None = None) -> Side:
        """Skip n rows, and return them, or the chosen ones of them."""
        rows: slice | Array = slice(self.at, self.at + n)
        if chosen is not None or self._chosen is not None:
            rows = np.arange(self.at, self.at + n) if chosen is None else chosen + self.at
            rows = _tight(rows if self._chosen is None else self._chosen[rows])
        self.skip(n)
        return self._side().some(rows)

    def skip(self, n: int | None = None) -> int:
        """Skip n rows, or the rest of the chunk, and return how many were skipped."""
        n = self.left if n is None else n
        self.at += n
        self.left -= n
        return n

    def _side(self) -> Side:
        seen = self._seen
        assert seen is not None  # noqa: S101 - fill() was called before
        scores, chunk = seen.scores, seen.chunk
        rows, places = np.arange(len(seen.matrix)), None
        if isinstance(chunk, TokenChunk):
            rows, places = chunk.tokens.places()
        return Side(
            numbers=self.first + rows,
            places=places,
            matrix=seen.matrix,
            status=scores.status,
            pred=scores.values["pred"],
            labels=seen.labels.indices,
            targets=seen.labels.targets,
            nll=scores.nll,
            hits=scores.hits,
        )


def name_of(source: Source) -> str:
    """Return the name of an input for messages: its file, or the first file and the number of other files."""
    if not source.files:
        return "the stream"
    more = len(source.files) - 1
    return source.files[0].path + (f" and {more:,} more" if more else "")


def rows_in(source: Source) -> int | None:
    """Return how many rows of an input are read; None if unknown."""
    limit = source.job.options.limit
    return source.n_rows if limit is None or source.n_rows is None else min(limit, source.n_rows)


def _by_key(name: str) -> Order:
    """Return an order by the values of a column."""
    return lambda seen, _: (None, comparable(seen.chunk.values(name)))


def _by_number(partner: Array | None) -> Order:
    """Return an order by row numbers, or by the numbers of partners, without the rows that have none."""

    def order(seen: Seen, first: int) -> tuple[Array | None, pa.Array]:
        rows = slice(first, first + len(seen.matrix))
        if partner is None:
            return None, pa.array(np.arange(rows.start, rows.stop))
        chosen = np.flatnonzero(partner[rows] >= 0)
        return chosen, pa.array(partner[rows][chosen])

    return order


def _by_token(partner: Array | None, sequences: _Sequences) -> Order:
    """Return an order by the row number of the partner, or without ``partner`` of the row, and by position in the row.

    The order also adds the tokens that it is given to ``sequences``.
    """

    def order(seen: Seen, first: int) -> tuple[Array | None, pa.Array]:
        assert isinstance(seen.chunk, TokenChunk)  # noqa: S101 - rows are sequences
        tokens = seen.chunk.tokens
        sequences.add(tokens, seen.scores.status)
        rows, places = tokens.places()
        numbers = first + rows if partner is None else partner[first + rows]
        chosen = np.flatnonzero(numbers >= 0)
        return chosen, pa.array((numbers[chosen] << TOKEN_BITS) + places[chosen])

    return order


def _own(wanted: Array | None, n_rows: int | None) -> Array | None:
    """Return the number of each row, -1 for rows without a partner."""
    if wanted is None:
        return None
    own = np.full(n_rows or 0, -1, np.int64)
    own[wanted] = wanted
    return own


class _Sequences:
    """Accumulates the statuses and lengths of the sequences of one input."""

    def __init__(self, *, shift: bool) -> None:
        self._tally = SequenceTally(shift=shift)
        self._statuses: list[Array] = []
        self._lengths: list[Array] = []
        self._open = 0

    def add(self, tokens: Tokens, status: Array) -> None:
        """Add some tokens."""
        ended = self._tally.add(tokens, status).first(tokens.n_ended)
        lengths = tokens.lengths.copy()
        lengths[0] += self._open
        self._open = 0 if tokens.ends else int(lengths[-1])
        self._statuses.append(ended.status)
        self._lengths.append(lengths[: tokens.n_ended])

    def arrays(self) -> tuple[Array, Array]:
        """Return the status and the number of tokens of each sequence."""
        if not self._statuses:
            return np.zeros(0, np.uint8), np.zeros(0, np.int64)
        return np.concatenate(self._statuses), np.concatenate(self._lengths)


def _tight(rows: Array) -> slice | Array:
    """Return consecutive rows as a slice, which makes a view instead of a copy."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _not_as_many(a: Source, b: Source, in_a: str, in_b: str) -> DataError:
    return DataError(
        f"{in_a} rows, but {in_b} in {name_of(b)}",
        where=name_of(a),
        remedy="pair rows by a column that tells them apart: --key COLUMN",
    )

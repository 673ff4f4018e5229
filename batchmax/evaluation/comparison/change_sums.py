"""Accumulate what the changes of metrics need: sums of groups of pairs, for both inputs, and for each value of a column.

Pairs are assigned to groups as rows are in an evaluation, so that a group has the same rows in both inputs. Knows pairs
of rows; doesn't know how changes are computed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, plain_array, plain_type
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.cluster_keys import hash_numbers, hash_values
from batchmax.evaluation.comparison.paired_tests import Differences
from batchmax.evaluation.jackknife import Jackknife, MetricGroupSums
from batchmax.evaluation.metrics import RowMetrics
from batchmax.jobs.row_batch import RowBatch
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]

N_BINS = 15
"""Confidence bins of the calibration error."""
SMALLER = 4
"""The sums of all values of a column may take 1 / SMALLER of the memory limit."""


class RowGroups:
    """The hash of each row's cluster, and the number of each row's value of a column; of tokens, those of their rows.

    Parameters
    ----------
    cluster, by
        The columns, or None.
    """

    def __init__(self, cluster: str | None, by: str | None) -> None:
        self.cluster, self.by = cluster, by
        self._numbers: dict[Any, int] = {}

    @property
    def values(self) -> list[Any]:
        """The values of ``by``, in the order of their numbers."""
        return list(self._numbers)

    def of(self, batch: RowBatch) -> tuple[Array | None, Array | None]:
        """Return the hashes and the numbers of the rows or tokens of a batch, (n,); None without a column."""
        hashes = None if self.cluster is None else hash_values(self._column(batch, self.cluster))
        numbers = None if self.by is None else self._numbered(self._column(batch, self.by))
        if isinstance(batch.chunk, TokenChunk):
            rows = batch.chunk.tokens.places()[0]
            hashes, numbers = (None if one is None else one[rows] for one in (hashes, numbers))
        return hashes, numbers

    def _column(self, batch: RowBatch, name: str) -> pa.Array:
        chunk = batch.chunk
        return column_array(chunk.tokens.rows, name) if isinstance(chunk, TokenChunk) else chunk.values(name)

    def _numbered(self, column: pa.Array) -> Array:
        coded = plain_array(column).dictionary_encode(null_encoding="encode")
        values = coded.dictionary.to_pylist()
        numbers = [self._numbers.setdefault(_readable(value), len(self._numbers)) for value in values]
        return np.array(numbers, np.int64)[coded.indices.to_numpy(zero_copy_only=False)]


def check_by(name: str, kind: pa.DataType) -> None:
    """Check that a column of a type can group rows.

    Raises
    ------
    UsageError
        The type is nested or an interval.
    """
    plain = plain_type(kind)
    if pa.types.is_nested(plain) or pa.types.is_interval(plain):
        raise UsageError(f"column {name!r} has type {kind}", where="--by", remedy="name a column of single values")


class _OfB:
    """Sums of b that are added to together with those of a, whose rows they are given."""

    def __init__(self, sums: MetricGroupSums) -> None:
        self._sums = sums
        self.some: RowMetrics | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        return self._sums.arrays

    def add(self, some: RowMetrics, rows: slice, groups: Array) -> None:  # noqa: ARG002 - those of b are known
        assert self.some is not None  # noqa: S101 - set before rows are added
        self._sums.add(self.some, rows, groups)


class ChangeSums:
    """The sums of some pairs.

    Parameters
    ----------
    n_classes, positive
        As for :class:`batchmax.evaluation.jackknife.MetricGroupSums`.
    has_clusters
        Whether rows of a cluster depend on each other; tokens of a sequence do.

    Attributes
    ----------
    a, b
        The sums of groups of pairs in both inputs.
    jackknife
        Assigns pairs to groups.
    losses, briers
        The differences of losses where both are finite, and of Brier scores; empty with clusters, whose pairs aren't
        independent.
    wrong_to_right, right_to_wrong
        The number of predictions that are correct in b alone, and in a alone.
    """

    def __init__(self, n_classes: int, positive: int | None, *, has_clusters: bool) -> None:
        self.a, self.b = (MetricGroupSums(n_classes, (), N_BINS, positive) for _ in "ab")
        self._of_b = _OfB(self.b)
        self.has_clusters = has_clusters
        self.jackknife = Jackknife([self.a, self._of_b], counts_clusters=has_clusters)
        self.losses, self.briers = Differences(), Differences()
        self.n_pairs = self.wrong_to_right = self.right_to_wrong = 0

    @property
    def n_bytes(self) -> int:
        """The memory of the sums."""
        return sum(array.nbytes for sums in (self.a, self.b) for array in sums.arrays)

    def add(self, a: RowMetrics, b: RowMetrics, hashes: Array) -> None:
        """Add some pairs, which have the same labels and counted rows, and whose clusters have these hashes."""
        self._of_b.some = b
        self.jackknife.add(a, lambda start, stop: hashes[start:stop])
        counted = a.counted
        self.n_pairs += int(np.count_nonzero(counted))
        right_a, right_b = (one.rank == 1 for one in (a, b))
        self.wrong_to_right += int(np.count_nonzero(right_b & ~right_a & counted))
        self.right_to_wrong += int(np.count_nonzero(right_a & ~right_b & counted))
        if not self.has_clusters:
            finite = counted & np.isfinite(a.rows.nll) & np.isfinite(b.rows.nll)
            self.losses.add(a.rows.nll[finite], b.rows.nll[finite])
            self.briers.add(a.brier[counted], b.brier[counted])


class PairSums:
    """The sums of all pairs, and of those of each value of a column.

    Parameters
    ----------
    n_classes, positive, has_clusters
        As for :class:`ChangeSums`.
    groups
        The columns of clusters and groups.
    memory
        Bytes that the job may use.
    """

    def __init__(
        self, n_classes: int, positive: int | None, *, has_clusters: bool, groups: RowGroups, memory: int
    ) -> None:
        self._how: dict[str, Any] = {"n_classes": n_classes, "positive": positive, "has_clusters": has_clusters}
        self.positive, self.groups = positive, groups
        self.all = ChangeSums(**self._how)
        self.of_values: list[ChangeSums] = []
        self._most = max(1, memory // SMALLER // self.all.n_bytes)

    def add(self, a: RowMetrics, b: RowMetrics, numbers: Array, hashes: Array | None, values: Array | None) -> None:
        """Add some pairs: ``numbers`` are row numbers in a, ``hashes`` and ``values`` are those of ``RowGroups``.

        Raises
        ------
        DataError
            There are more values than fit in memory.
        """
        hashes = hash_numbers(numbers) if hashes is None else hashes
        self.all.add(a, b, hashes)
        if values is None:
            return
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.diff(values[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if len(order) else ():
            value = int(values[rows[0]])
            while value >= len(self.of_values):
                if len(self.of_values) == self._most:
                    raise DataError(
                        f"there are more than {self._most:,} groups, which don't fit in memory",
                        where="--by",
                        remedy="name a column with fewer values, or raise the limit: --memory-limit SIZE",
                    )
                self.of_values.append(ChangeSums(**self._how))
            self.of_values[value].add(_some(a, rows), _some(b, rows), hashes[rows])


def _some(one: RowMetrics, rows: Array) -> RowMetrics:
    """Return some of the rows."""
    chosen = {name: None if array is None else array[rows] for name, array in vars(one.rows).items()}
    arrays = (one.labels, one.pred, one.rank, one.brier, one.weights, one.counted)
    return RowMetrics(replace(one.rows, **chosen), *(array[rows] if len(array) else array for array in arrays))


def _readable(value: Any) -> Any:
    """Return a value in a form that JSON can hold; NaN equals itself."""
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)

"""Sums of groups of rows, from which the variance of any metric is estimated: the delete-a-group jackknife.

Rows, or whole clusters of rows, are assigned to 256 groups by hash; up to 256 clusters are a group each. Knows arrays;
doesn't know metrics.

See Also
--------
Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17, 521-526.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.cluster_keys import hash_numbers
from batchmax.evaluation.metrics import NO_POSITIVE, RowMetrics
from batchmax.evaluation.multi_label import EntryMetrics
from batchmax.kernels.jackknife_sums import (
    BIN_SUMS,
    GROUPS,
    SLOTS,
    count_distinct,
    groups_of_hashes,
    number_clusters,
    tally_jackknife,
)
from batchmax.kernels.metric_sums import FIGURES

Array = NDArray[Any]

MOST_BYTES = 64 * 2**20
"""Memory of the sums of all groups; class metrics have no intervals if it isn't enough."""
FIRST_SLOTS, MORE_SLOTS = 2**12, 8
"""First size of the hash table of distinct clusters, and the factor by which it grows."""
PIECE = 2**16
"""Rows that are processed at a time."""

Hashes = Callable[[int, int], Array]
"""A function that returns the hashes of the clusters of rows from a start to a stop, uint64."""


class GroupSums(Protocol):
    """Sums of each group, which more metrics can add to a :class:`Jackknife`."""

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Arrays of shape (256, ...), whose first axis is the group."""

    def add(self, some: Any, rows: slice, groups: Array) -> None:
        """Add some of the rows, ``RowMetrics`` or ``EntryMetrics``; ``groups`` are theirs, (n,) uint8."""


class MetricGroupSums:
    """The sums of each group that the metrics of :class:`batchmax.evaluation.metrics.MetricSums` need.

    Attributes
    ----------
    sums, tops, classes, bins
        Shapes (256, 5), (256, t), (256, K, 4), (256, b, 4) float64, as in
        :func:`batchmax.kernels.jackknife_sums.tally_jackknife`. ``classes`` is empty, (256, 0, 4), if it would take
        more than ``MOST_BYTES``.
    """

    def __init__(self, n_classes: int, top_k: tuple[int, ...], n_bins: int, positive: int | None = None) -> None:
        self.top_k = top_k
        self._top_k = np.array(top_k, np.int64)
        self._positive = NO_POSITIVE if positive is None else positive
        fits = 8 * GROUPS * 4 * n_classes <= MOST_BYTES
        self.sums, self.tops = np.zeros((GROUPS, FIGURES)), np.zeros((GROUPS, len(top_k)))
        self.classes = np.zeros((GROUPS, n_classes if fits else 0, 4))
        self.bins = np.zeros((GROUPS, n_bins, BIN_SUMS))

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays."""
        return self.sums, self.tops, self.classes, self.bins

    def add(self, some: RowMetrics, rows: slice, groups: Array) -> None:
        """Add some of the rows."""
        arrays = (some.rows.nll, some.rows.rests, some.pred, some.rank, some.brier, some.labels, some.weights)
        pieces = (array[rows] for array in (*arrays, some.counted))
        tally_jackknife(*pieces, self._positive, self._top_k, groups, *self.arrays)


class Jackknife:
    """Assigns rows to groups, and adds them to sums.

    Parameters
    ----------
    sums
        The sums to add to.
    counts_clusters
        Whether to count the clusters. If each row is a cluster, that isn't needed.
    """

    def __init__(self, sums: list[GroupSums], *, counts_clusters: bool) -> None:
        self._sums, self._counts = sums, counts_clusters
        self._known, self._is_few = 0, True
        self._slots, self._numbers = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64)
        self._kept, self._depth, self._distinct = 0, 0, np.zeros(0, np.uint64)

    @property
    def n_clusters(self) -> int:
        """The number of clusters that have rows with a loss; estimated above 1,048,576, with an error of 0.1 %."""
        return self._known if self._is_few else self._kept << self._depth

    @property
    def is_estimated(self) -> bool:
        """Whether there are so many clusters that their number is estimated."""
        return self._depth > 0

    def add(self, some: RowMetrics | EntryMetrics, hashes: Hashes) -> None:
        """Add some rows, whose clusters have these hashes."""
        for start in range(0, len(some.counted), PIECE):
            stop = min(start + PIECE, len(some.counted))
            for rows, groups in self._groups(hashes(start, stop), some.counted[start:stop]):
                within = slice(start + rows.start, start + rows.stop)
                for sums in self._sums:
                    sums.add(some, within, groups)

    def _groups(self, hashes: Array, counted: Array) -> Iterator[tuple[slice, Array]]:
        """Yield slices of rows and their groups; the sums are rearranged before the first row of the 257th cluster."""
        stop = 0
        groups = np.zeros(len(hashes), np.uint8)
        if self._is_few:
            self._known, stop = number_clusters(hashes, counted, self._known, self._slots, self._numbers, groups)
            if stop:
                yield slice(0, stop), groups[:stop]
            if stop == len(hashes):
                return
            self._regroup()
        if self._counts:
            self._count(hashes[stop:], counted[stop:])
        groups_of_hashes(hashes[stop:], groups[stop:])
        yield slice(stop, len(hashes)), groups[stop:]

    def _regroup(self) -> None:
        """Move the sums of each of the first 256 clusters to the group of its hash."""
        used = np.flatnonzero(self._slots)
        first = np.empty(GROUPS, np.uint64)
        first[self._numbers[used]] = self._slots[used]
        groups = np.empty(GROUPS, np.uint8)
        groups_of_hashes(first, groups)
        for array in (array for sums in self._sums for array in sums.arrays):
            # A group is a row or a cluster so far, so most of its sums are 0; unused memory isn't written.
            flat = array.reshape(GROUPS, -1)
            places, columns = np.nonzero(flat)
            parts = flat[places, columns]
            flat[places, columns] = 0.0
            np.add.at(flat, (groups[places], columns), parts)
        self._is_few = False
        if self._counts:
            self._distinct = np.zeros(FIRST_SLOTS, np.uint64)
            self._count(first, np.ones(GROUPS, np.bool_))

    def _count(self, hashes: Array, counted: Array) -> None:
        start = 0
        while start < len(hashes):
            rows = slice(start, len(hashes))
            self._kept, self._depth, n = count_distinct(
                hashes[rows], counted[rows], self._kept, self._depth, self._distinct
            )
            start += n
            if start < len(hashes):
                # A table that is no larger than necessary stays in the CPU's cache.
                known = self._distinct[self._distinct != 0]
                self._distinct = np.zeros(MORE_SLOTS * len(self._distinct), np.uint64)
                count_distinct(known, np.ones(len(known), np.bool_), 0, self._depth, self._distinct)


def row_hashes(first_row: int) -> Hashes:
    """Return the hashes of rows that are a cluster each, by their numbers."""
    return lambda start, stop: hash_numbers(np.arange(first_row + start, first_row + stop, dtype=np.int64))

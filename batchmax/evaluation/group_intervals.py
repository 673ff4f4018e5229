"""Intervals of the metrics of groups of rows, by the values of a column.

The rows of each value have the sums of :class:`batchmax.evaluation.jackknife.MetricGroupSums`, so there are intervals
for up to 256 values only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.evaluation.cluster_keys import hash_values
from batchmax.evaluation.jackknife import MOST_BYTES, Hashes, MetricGroupSums
from batchmax.evaluation.metric_intervals import Interval, MetricIntervals
from batchmax.evaluation.metrics import MetricSums, RowMetrics
from batchmax.functional.losses import Rows
from batchmax.kernels.jackknife_sums import BIN_SUMS, GROUPS, SLOTS, number_clusters
from batchmax.kernels.metric_sums import FIGURES, WEIGHT

Array = NDArray[Any]

NAMES = ("accuracy", "mean_loss", "perplexity", "brier", "ece")
"""The metrics of a group that have intervals."""


class SumsByValue:
    """The sums of each group of the jackknife, for the rows of each value of a column.

    Parameters
    ----------
    name
        The column.
    n_bins, positive
        As for :class:`batchmax.evaluation.metrics.MetricSums`.
    hashes_of
        Returns the hashes of the column's values, of the rows or tokens of a chunk.
    """

    def __init__(self, name: str, n_bins: int, positive: int | None, hashes_of: Callable[[Any, str], Hashes]) -> None:
        self.name, self._n_bins, self._positive, self._hashes_of = name, n_bins, positive, hashes_of
        self._sums: list[MetricGroupSums] = []
        self._known, self._slots, self._numbers = 0, np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64)
        self.is_complete = 8 * GROUPS * GROUPS * (FIGURES + BIN_SUMS * n_bins) <= MOST_BYTES
        self._hashes: Hashes | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of all values."""
        return tuple(array for sums in self._sums for array in sums.arrays)

    def prepare(self, chunk: Any) -> None:
        """Set the chunk whose rows are added next."""
        self._hashes = self._hashes_of(chunk, self.name) if self.is_complete else None

    def add(self, some: RowMetrics, rows: slice, groups: Array) -> None:
        """Add some of the rows."""
        if self._hashes is None or not self.is_complete:
            return
        counted, codes = some.counted[rows], np.zeros(len(groups), np.uint8)
        hashes = self._hashes(rows.start, rows.stop)
        self._known, stop = number_clusters(hashes, counted, self._known, self._slots, self._numbers, codes)
        if stop < len(hashes):
            self._sums, self.is_complete = [], False
            return
        # The rows of each value, in their order.
        places = np.flatnonzero(counted)
        places = places[np.argsort(codes[places], kind="stable")]
        ordered, codes, groups = _taken(some, places + rows.start), codes[places], groups[places]
        while len(self._sums) < self._known:
            self._sums.append(MetricGroupSums(0, (), self._n_bins, self._positive))
        ends = np.searchsorted(codes, np.arange(self._known + 1))
        for sums, start, end in zip(self._sums, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if end > start:
                sums.add(ordered, slice(start, end), groups[start:end])

    def intervals(self, values: pa.Array, all_rows: MetricIntervals) -> list[dict[str, Interval | None]]:
        """Return the intervals of each of these values; with the level and the kind of rows of those of all rows."""
        numbers = {int(self._slots[at]): int(self._numbers[at]) for at in np.flatnonzero(self._slots)}
        found = [numbers.get(int(one)) for one in hash_values(values)]
        return [dict.fromkeys(NAMES) if at is None else self._of(self._sums[at], all_rows) for at in found]

    def _of(self, groups: MetricGroupSums, all_rows: MetricIntervals) -> dict[str, Interval | None]:
        counts = MetricSums(0, (), self._n_bins, self._positive)
        counts.sums[:, 0] = groups.sums.sum(axis=0)
        counts.bins = groups.bins.sum(axis=0)[:, :3]
        # Of clusters, at least as many have rows of the value as there are groups with such rows.
        n_groups = int(np.count_nonzero(groups.sums[:, WEIGHT]))
        n_units = n_groups if not all_rows.independent else int(counts.sums[WEIGHT, 0])
        computed = MetricIntervals(
            counts, groups, self._positive, all_rows.level, n_units, all_rows.independent, all_rows.has_clusters
        )
        return dict.fromkeys(NAMES) | computed.of_group()


def _taken(some: RowMetrics, places: Array) -> RowMetrics:
    """Return some rows of row metrics, which are all counted."""
    rows, none = some.rows, np.zeros(0)
    # Labels that are distributions have no class.
    labels, weights = (one[places] if len(one) else one for one in (some.labels, some.weights))
    return RowMetrics(
        Rows(none, rows.rests[places], rows.nll[places], none, none),
        labels,
        some.pred[places],
        some.rank[places],
        some.brier[places],
        weights,
        np.ones(len(places), np.bool_),
    )

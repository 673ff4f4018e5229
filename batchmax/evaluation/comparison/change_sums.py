"""Accumulate what changes of metrics need: sums of groups of pairs, in both inputs and for each value of a column.

Pairs are assigned to groups as rows are in an evaluation, so that a group has the same rows in both inputs. Knows pairs
of rows; doesn't know how changes are computed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.errors import DataError
from batchmax.evaluation.cluster_keys import hash_numbers
from batchmax.evaluation.comparison.paired_tests import Differences
from batchmax.evaluation.comparison.row_cursor import Side
from batchmax.evaluation.comparison.row_groups import RowGroups
from batchmax.evaluation.curves.exact_curve import ExactCurve
from batchmax.evaluation.jackknife import GroupSums, Jackknife, MetricGroupSums
from batchmax.evaluation.metrics import RowMetrics
from batchmax.kernels.jackknife_sums import GROUPS
from batchmax.kernels.score_bins import count_group_bins
from batchmax.runtime.spilled_array import SharedMemory

Array = NDArray[Any]

N_BINS = 15
"""Confidence bins of the calibration error."""
BINS, BINS_OF_GROUP = 4096, 512
"""Bins of scores, of all pairs and of those of a value of a column."""
SMALLER = 4
"""The sums of all values of a column may take 1 / SMALLER of the memory limit."""


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


class ScoreSums:
    """The scores of one input: counts in bins by group, and all of them in an exact curve.

    Parameters
    ----------
    positive
        The positive class of two.
    n_bins
        The number of bins.
    memory
        The memory for scores; they move to temporary files if they don't fit.
    """

    def __init__(self, positive: int, n_bins: int, memory: SharedMemory) -> None:
        self._positive = positive
        self.counts = np.zeros((GROUPS, 2, n_bins))
        self.curve = ExactCurve(np.float64, memory, is_weighted=False)
        self._scores = np.zeros(0)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The counts."""
        return (self.counts,)

    def prepare(self, some: RowMetrics, matrix: Array) -> None:
        """Add the log-odds of rows to the curve, and keep them for the rows that are added to groups next."""
        z, other = matrix[:, self._positive], matrix[:, 1 - self._positive]
        with np.errstate(invalid="ignore", over="ignore"):
            self._scores = np.subtract(z, other, dtype=np.float64)
        self.curve.add(self._scores, some.labels, some.counted, self._positive, np.zeros(0))

    def add(self, some: RowMetrics, rows: slice, groups: Array) -> None:
        """Add some of the rows."""
        labels, counted = some.labels[rows], some.counted[rows]
        count_group_bins(self._scores[rows], False, labels, counted, self._positive, np.zeros(0), groups, self.counts)


class ChangeSums:
    """The sums of some pairs.

    Parameters
    ----------
    n_classes, positive
        As for :class:`batchmax.evaluation.jackknife.MetricGroupSums`.
    score_bins, memory
        As for :class:`ScoreSums`; without bins, no scores are kept.
    has_clusters
        Whether rows of a cluster depend on each other; tokens of a sequence do.

    Attributes
    ----------
    a, b
        The sums of groups of pairs in both inputs.
    scores
        The scores of both inputs, or nothing.
    jackknife
        Assigns pairs to groups.
    losses, briers
        The differences of losses where both are finite, and of Brier scores; empty with clusters, whose pairs aren't
        independent.
    flips : (2, 3) int64
        Of rows of other classes, and of the positive one: the number of pairs, and of predictions that are right in b
        alone, and in a alone.
    """

    def __init__(
        self, n_classes: int, positive: int | None, score_bins: int, memory: SharedMemory, *, has_clusters: bool
    ) -> None:
        self.a, self.b = (MetricGroupSums(n_classes, (), N_BINS, positive) for _ in "ab")
        self._of_b = _OfB(self.b)
        self.has_clusters = has_clusters
        self.scores: list[ScoreSums] = []
        if positive is not None and score_bins:
            self.scores = [ScoreSums(positive, score_bins, memory) for _ in "ab"]
        self.jackknife = Jackknife([self.a, self._of_b, *self.scores], counts_clusters=has_clusters)
        self.losses, self.briers = Differences(), Differences()
        self._positive = -1 if positive is None else positive
        self.flips = np.zeros((2, 3), np.int64)

    @property
    def n_pairs(self) -> int:
        """The number of pairs."""
        return int(self.flips[:, 0].sum())

    @property
    def n_bytes(self) -> int:
        """The memory of the sums."""
        everything: list[GroupSums] = [self.a, self.b, *self.scores]
        return sum(array.nbytes for sums in everything for array in sums.arrays)

    def add(self, a: RowMetrics, b: RowMetrics, matrices: tuple[Array, Array], hashes: Array) -> None:
        """Add some pairs: with the same counted rows, with their logits, and the hashes of their clusters."""
        self._of_b.some = b
        for one, some, matrix in zip(self.scores, (a, b), matrices, strict=False):
            one.prepare(some, matrix)
        self.jackknife.add(a, lambda start, stop: hashes[start:stop])
        counted = a.counted
        right_a, right_b = (one.rank == 1 for one in (a, b))
        is_positive = a.labels == self._positive if len(a.labels) else np.zeros(len(counted), np.bool_)
        for which, rows in enumerate((counted & ~is_positive, counted & is_positive)):
            flipped = rows, right_b & ~right_a & rows, right_a & ~right_b & rows
            self.flips[which] += [np.count_nonzero(one) for one in flipped]
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
    has_classes
        Whether labels are classes, and not distributions.
    groups
        The columns of clusters and groups.
    memory
        Bytes that the job may use.
    """

    def __init__(
        self,
        n_classes: int,
        positive: int | None,
        *,
        has_clusters: bool,
        has_classes: bool,
        groups: RowGroups,
        memory: int,
    ) -> None:
        self._how: dict[str, Any] = {
            "n_classes": n_classes,
            "positive": positive,
            "has_clusters": has_clusters,
            "memory": SharedMemory(memory // SMALLER),
        }
        self.positive, self.groups, self.has_classes = positive, groups, has_classes
        self._score_bins = BINS_OF_GROUP if has_classes else 0
        self.all = ChangeSums(score_bins=BINS if has_classes else 0, **self._how)
        self.of_values: list[ChangeSums] = []
        n_bytes = 0 if groups.by is None else ChangeSums(score_bins=self._score_bins, **self._how).n_bytes
        self._most = max(1, memory // SMALLER // max(1, n_bytes))

    def add(self, a: RowMetrics, b: RowMetrics, of_a: Side, of_b: Side) -> None:
        """Add some pairs: their metrics, and their rows.

        Raises
        ------
        DataError
            There are more values than fit in memory.
        """
        hashes = hash_numbers(of_a.numbers) if of_a.clusters is None else of_a.clusters
        matrices, values = (of_a.matrix, of_b.matrix), of_a.groups
        self.all.add(a, b, matrices, hashes)
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
                self.of_values.append(ChangeSums(score_bins=self._score_bins, **self._how))
            some = (matrices[0][rows], matrices[1][rows]) if self._score_bins else matrices
            self.of_values[value].add(_some(a, rows), _some(b, rows), some, hashes[rows])


def _some(one: RowMetrics, rows: Array) -> RowMetrics:
    """Return some of the rows."""
    chosen: dict[str, Any] = {name: None if array is None else array[rows] for name, array in vars(one.rows).items()}
    arrays = (one.labels, one.pred, one.rank, one.brier, one.weights, one.counted)
    return RowMetrics(replace(one.rows, **chosen), *(array[rows] if len(array) else array for array in arrays))

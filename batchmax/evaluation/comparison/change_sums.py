"""The metrics of pairs with one class per row: sums of groups of pairs in both inputs, and metrics from them.

Pairs are assigned to groups as rows are in an evaluation, so that a group has the same rows in both inputs. Doesn't
know how changes are computed from metrics.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import AREAS, AVERAGES, OF_ALL, OF_CLASS, OF_POSITIVE, class_values
from batchmax.evaluation.comparison.changes import Both, PairedMetrics
from batchmax.evaluation.comparison.pair_sums import N_BINS, ChangedAreas, SumsOfB, bytes_of, changed_areas, count_flips
from batchmax.evaluation.comparison.paired_tests import Differences
from batchmax.evaluation.curves.area_intervals import binned_areas
from batchmax.evaluation.curves.exact_curve import ExactCurve
from batchmax.evaluation.intervals import FEWEST_GROUPS
from batchmax.evaluation.jackknife import Jackknife, MetricGroupSums
from batchmax.evaluation.metric_intervals import BLOCK, without
from batchmax.evaluation.metrics import RowMetrics, calibration_errors, group_metrics
from batchmax.functional.log_odds import difference
from batchmax.kernels.jackknife_sums import GROUPS
from batchmax.kernels.metric_sums import HITS, WEIGHT
from batchmax.kernels.score_bins import count_group_bins
from batchmax.runtime.spilled_array import SharedMemory
from batchmax.scoring.tally import finite

Array = NDArray[Any]

OF_FLIPS = {"accuracy": [0, 1], "specificity": [0], "recall": [1]}
"""Proportions of rows that are the same in both inputs, with the rows of :attr:`ChangeSums.flips` that they are of."""
CHANGED = (
    *("mean_loss", "brier", "accuracy", "ece"),
    *(name for name in OF_POSITIVE if name != "prevalence"),
    *AREAS,
    *OF_ALL,
    *(f"{average}.{name}" for average in AVERAGES for name in OF_CLASS),
)
"""The metrics that may have a change. Prevalence is that of the labels, and the same in both inputs."""
NO_GROUPS = np.zeros(0, np.int64)
BINS, BINS_OF_GROUP = 4096, 512
"""Bins of scores, of all pairs and of those of a value of a column."""


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
        self._scores = difference(matrix, self._positive, np.dtype(np.float64))
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
        self._of_b = SumsOfB(self.b)
        self.has_clusters = has_clusters
        self.scores: list[ScoreSums] = []
        if positive is not None and score_bins:
            self.scores = [ScoreSums(positive, score_bins, memory) for _ in "ab"]
        self.jackknife = Jackknife([self.a, self._of_b, *self.scores], counts_clusters=has_clusters)
        self.losses, self.briers = Differences(), Differences()
        self._at, self._positive = positive, -1 if positive is None else positive
        self.flips = np.zeros((2, 3), np.int64)

    @property
    def n_pairs(self) -> int:
        """The number of pairs."""
        return int(self.flips[:, 0].sum())

    @property
    def n_bytes(self) -> int:
        """The memory of the sums."""
        return bytes_of(self.a, self.b, *self.scores)

    @property
    def of_classes(self) -> list[PairedMetrics]:
        """Classes have no changes of their own."""
        return []

    def values(self) -> dict[str, Both]:
        """Return the metrics of a and b by name."""
        a, b = (self._values(sums, NO_GROUPS) for sums in (self.a, self.b))
        found: dict[str, Both] = {name: (finite(float(a[name][0])), finite(float(b[name][0]))) for name in a}
        return found | {name: exact for name, (exact, _) in self._areas.items()}

    def left_out(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the metrics of a and b without each group."""
        if len(self._used) < FEWEST_GROUPS:
            return {}, {}
        a, b = (self._values(sums, self._used) for sums in (self.a, self.b))
        for name, (_, left_out) in self._areas.items():
            if left_out is not None:
                a[name], b[name] = left_out
        return a, b

    def flips_of(self, name: str) -> tuple[int, int, int] | None:
        """Return the flips of a proportion of independent pairs."""
        if self.has_clusters or name not in OF_FLIPS:
            return None
        n, one_way, other_way = self.flips[OF_FLIPS[name]].sum(axis=0).tolist()
        return n, one_way, other_way

    def differences_of(self, name: str) -> Differences | None:
        """Return the differences of independent pairs."""
        return None if self.has_clusters else {"mean_loss": self.losses, "brier": self.briers}.get(name)

    @cached_property
    def _used(self) -> Array:
        return np.flatnonzero(self.a.sums[:, WEIGHT] > 0)

    def _values(self, sums: MetricGroupSums, used: Array) -> dict[str, Array]:
        """Return metrics of all pairs, (1,), or, if numbers of groups are given, without each of these, (g,)."""
        totals = [array.sum(axis=0) for array in sums.arrays]

        def chosen(which: int, some: Array) -> Array:
            total = totals[which]
            return without(total, sums.arrays[which][some]) if len(used) else total[np.newaxis]

        metrics = group_metrics(chosen(0, used))
        found = {name: metrics[name] for name in ("mean_loss", "accuracy", "brier")}
        if not np.isfinite(totals[0][HITS]) or not totals[3][:, 0].any():
            del found["accuracy"]
            return found
        found["ece"] = calibration_errors(chosen(3, used)[..., :3])["ece"]
        if not len(totals[2]):
            return found
        some = max(1, BLOCK // len(totals[2]))
        blocks = [
            class_values(chosen(2, used[at : at + some]), found["mean_loss"][at : at + some], self._at)
            for at in range(0, max(1, len(used)), some)
        ]
        return found | {
            name: np.concatenate([block[name] for block in blocks]) for name in CHANGED if name in blocks[0]
        }

    @cached_property
    def _areas(self) -> ChangedAreas:
        """The areas of both inputs, and those without each group from bins of scores."""
        if not self.scores:
            return {}
        exact, binned = [], []
        for one in self.scores:
            one.curve.sort()
            exact.append(one.curve.areas(None))
            one.curve.close()
            binned.append(binned_areas(one.counts, self._used))
        return changed_areas(exact, binned)

    def add(self, a: RowMetrics, b: RowMetrics, matrices: tuple[Array, ...], hashes: Array) -> None:
        """Add some pairs: with the same counted rows, with their logits, and the hashes of their clusters."""
        self._of_b.some = b
        for one, some, matrix in zip(self.scores, (a, b), matrices, strict=False):
            one.prepare(some, matrix)
        self.jackknife.add(a, lambda start, stop: hashes[start:stop])
        counted = a.counted
        right_a, right_b = (one.rank == 1 for one in (a, b))
        is_positive = a.labels == self._positive if len(a.labels) else np.zeros(len(counted), np.bool_)
        for which, rows in enumerate((counted & ~is_positive, counted & is_positive)):
            self.flips[which] += count_flips(rows, right_a, right_b)
        if not self.has_clusters:
            finite = counted & np.isfinite(a.rows.nll) & np.isfinite(b.rows.nll)
            self.losses.add(a.rows.nll[finite], b.rows.nll[finite])
            self.briers.add(a.brier[counted], b.brier[counted])

"""The metrics of pairs of multi-label rows: sums of groups of pairs in both inputs, and metrics from them.

The metrics of each input are computed as an evaluation does, so they have the same bits. Doesn't know how changes are
computed from metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import AREAS, OF_CLASS, quotient
from batchmax.evaluation.comparison.changes import Both, PairedMetrics
from batchmax.evaluation.comparison.pair_sums import (
    N_BINS,
    SCORES,
    ChangedAreas,
    SumsOfB,
    bytes_of,
    changed_areas,
    count_flips,
    left_out_of,
)
from batchmax.evaluation.comparison.paired_tests import Differences
from batchmax.evaluation.curves.area_intervals import averaged, binned_areas
from batchmax.evaluation.curves.exact_curve import Areas
from batchmax.evaluation.curves.label_curves import MISSING, POSITIVE, LabelScores, average_areas, label_matrix
from batchmax.evaluation.intervals import FEWEST_GROUPS
from batchmax.evaluation.jackknife import Jackknife
from batchmax.evaluation.label_intervals import LabelGroupSums, values_without
from batchmax.evaluation.metric_intervals import without
from batchmax.evaluation.metrics import calibration_errors
from batchmax.evaluation.multi_label import EntryMetrics, EntrySums
from batchmax.evaluation.multi_label_metrics import (
    AVERAGES,
    OF_EACH,
    OF_ROWS,
    class_fractions,
    label_values,
    sample_areas,
)
from batchmax.kernels.jackknife_sums import GROUPS
from batchmax.kernels.metric_sums import FIGURES, WEIGHT
from batchmax.kernels.multi_label_metrics import CLASS_LOSS, CLASS_ROWS, EXACT, SOFT
from batchmax.kernels.score_bins import count_group_bins
from batchmax.runtime.spilled_array import SharedMemory
from batchmax.scoring.tally import finite

Array = NDArray[Any]

OF_LOSSES = ("mean_loss", "mean_label_loss", "brier", "ece")
"""The metrics that rows have whose targets aren't 0 or 1."""
LABEL_CHANGED = (
    *OF_LOSSES,
    *OF_ROWS,
    *(f"{average}.{name}" for average in AVERAGES for name in (*OF_CLASS, *AREAS)),
)
"""The metrics of all classes that may have a change."""
OF_CLASS_CHANGED = tuple(name for name in OF_EACH if name != "prevalence")
"""The metrics of predictions of each class; prevalence is that of the labels."""
MOST_BYTES_OF_GROUP = 8 * 2**20
"""Memory of the bins of scores of a value of a column, in each input."""
MOST_CLASSES = 1000
"""Most classes that have changes of their own."""


class LabelScoreSums:
    """The logits of one input: counts in bins by class and group, and all of them for exact curves.

    Parameters
    ----------
    dtype
        The type of the logits.
    n_classes, n_bins
        The number of classes, and of bins of scores, which may be 0.
    memory
        The memory for logits; they move to temporary files if they don't fit.
    """

    def __init__(self, dtype: np.dtype[Any], n_classes: int, n_bins: int, memory: SharedMemory) -> None:
        self._dtype, self._n_classes = dtype, n_classes
        self.counts = [np.zeros((GROUPS, 2, n_bins)) for _ in range(n_classes if n_bins else 0)]
        self._stored = LabelScores(dtype, n_classes, memory, memory)
        self._logits: Array = np.zeros((0, 0))
        self._labels: Array = np.zeros((0, 0), np.uint8)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The counts of each class."""
        return tuple(self.counts)

    def prepare(self, some: EntryMetrics, labels: Array) -> None:
        """Store the counted rows, and keep all of them, whose groups are added next; ``labels`` are (K, n)."""
        used = some.counted
        self._logits, self._labels = np.ascontiguousarray(some.logits.T, self._dtype), labels
        chosen = (self._logits, labels) if used.all() else (self._logits[:, used], labels[:, used])
        self._stored.add(np.ascontiguousarray(chosen[0]), np.ascontiguousarray(chosen[1]), np.zeros(0))

    def add(self, some: EntryMetrics, rows: slice, groups: Array) -> None:
        """Add some of the rows."""
        counted = some.counted[rows]
        for logits, labels, counts in zip(self._logits, self._labels, self.counts, strict=False):
            known = counted & (labels[rows] != MISSING)
            is_label = labels[rows].astype(np.int64)
            count_group_bins(logits[rows], False, is_label, known, POSITIVE, np.zeros(0), groups, counts)

    def areas(self) -> tuple[list[Areas], Areas]:
        """Return the exact areas of each class, and of all classes together; no more rows can be added."""
        found = []
        for numbers in (*([at] for at in range(self._n_classes)), range(self._n_classes)):
            curve = self._stored.sorted(numbers)
            found.append(curve.areas(None))
            curve.close()
        self._stored.close()
        return found[:-1], found[-1]


class LabelChangeSums:
    """The sums of some pairs.

    Parameters
    ----------
    n_classes
        The number of classes.
    dtypes
        The types of the logits of a and b; empty for no areas under curves.
    n_bins
        The number of bins of scores; with 0, areas have no intervals.
    memory
        The memory for logits.
    has_clusters
        Whether rows of a cluster depend on each other.

    Attributes
    ----------
    jackknife
        Assigns pairs to groups.
    losses
        The differences of losses where both are finite; empty with clusters.
    """

    def __init__(
        self,
        n_classes: int,
        dtypes: Sequence[np.dtype[Any]],
        n_bins: int,
        memory: SharedMemory,
        *,
        has_clusters: bool,
    ) -> None:
        self._totals = [EntrySums(n_classes, N_BINS) for _ in "ab"]
        self._groups = [LabelGroupSums(n_classes, N_BINS) for _ in "ab"]
        self._of_b = SumsOfB(self._groups[1])
        self._scores = [LabelScoreSums(dtype, n_classes, n_bins, memory) for dtype in dtypes]
        self.jackknife = Jackknife([self._groups[0], self._of_b, *self._scores], counts_clusters=has_clusters)
        self.has_clusters, self.losses = has_clusters, Differences()
        self._flips, self._class_flips = np.zeros(3, np.int64), np.zeros((2, 3, n_classes), np.int64)

    @property
    def n_pairs(self) -> int:
        """The number of pairs."""
        return self._totals[0].n_counted

    @property
    def n_bytes(self) -> int:
        """The memory of the sums."""
        return bytes_of(*self._groups, *self._scores)

    @property
    def of_classes(self) -> list[PairedMetrics]:
        """The metrics of each class; empty without labels, or of too many classes."""
        n = self._totals[0].n_classes
        return [_ClassMetrics(self, at) for at in range(n)] if self._has_labels and n <= MOST_CLASSES else []

    def add(self, a: EntryMetrics, b: EntryMetrics, matrices: tuple[Array, ...], hashes: Array) -> None:
        """Add some pairs: with the same labels and counted rows, and the hashes of their clusters."""
        del matrices
        self._of_b.some = b
        labels = label_matrix(a, np.ones(len(a.counted), np.bool_))
        for totals, some in zip(self._totals, (a, b), strict=True):
            totals.add(some)
        for scores, some in zip(self._scores, (a, b), strict=False):
            scores.prepare(some, labels)
        self.jackknife.add(a, lambda start, stop: hashes[start:stop])
        if self.has_clusters:
            return
        counted = a.counted
        finite_losses = counted & np.isfinite(a.nll) & np.isfinite(b.nll)
        self.losses.add(a.nll[finite_losses], b.nll[finite_losses])
        right_a, right_b = (one.figures[:, EXACT] > 0.0 for one in (a, b))
        self._flips += count_flips(counted, right_a, right_b)
        predicted = [one.logits.T > 0.0 for one in (a, b)]
        for which in range(2):
            right_a, right_b = (one == bool(which) for one in predicted)
            self._class_flips[which] += count_flips((labels == which) & counted, right_a, right_b)

    def values(self) -> dict[str, Both]:
        """Return the metrics of a and b by name."""
        found: dict[str, Both] = {}
        a, b = (self._of_all(sums) for sums in self._totals)
        for name in a:
            found[name] = finite(float(a[name][0])), finite(float(b[name][0]))
        found |= {name: exact for name, (exact, _) in self._average_areas.items()}
        return {name: found[name] for name in self._names if name in found}

    def left_out(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the metrics of a and b without each group."""
        if not self.is_possible:
            return {}, {}
        a, b = (self._all_without(*sums) for sums in zip(self._totals, self._groups, strict=True))
        for name, (_, left_out) in self._average_areas.items():
            if left_out is not None:
                a[name], b[name] = left_out
        return a, b

    def flips_of(self, name: str) -> tuple[int, int, int] | None:
        """Return the flips of a proportion of independent pairs."""
        return None if self.has_clusters or name != "subset_accuracy" else _numbers(self._flips)

    def class_flips_of(self, name: str, at: int) -> tuple[int, int, int] | None:
        """Return the flips of a proportion of the entries of a class."""
        which = {"specificity": 0, "recall": 1}.get(name)
        return None if self.has_clusters or which is None else _numbers(self._class_flips[which, :, at])

    def differences_of(self, name: str) -> Differences | None:
        """Return the differences of independent pairs."""
        return None if self.has_clusters or name != "mean_loss" else self.losses

    @cached_property
    def used(self) -> Array:
        """The numbers of the groups that have pairs."""
        return np.flatnonzero(self._groups[0].sums[:, WEIGHT] > 0)

    @property
    def is_possible(self) -> bool:
        """Whether there are enough groups for a variance."""
        return len(self.used) >= FEWEST_GROUPS

    @property
    def _has_labels(self) -> bool:
        return not self._totals[0].totals[FIGURES + SOFT]

    @property
    def _names(self) -> tuple[str, ...]:
        return LABEL_CHANGED if self._has_labels else OF_LOSSES

    def _of_all(self, counts: EntrySums) -> dict[str, Array]:
        found = label_values(counts.totals[np.newaxis], counts.classes)
        found["ece"] = calibration_errors(counts.bins[..., :3])["ece"]
        return found | self._sample_areas(counts.totals[np.newaxis])

    def _all_without(self, counts: EntrySums, groups: LabelGroupSums) -> dict[str, Array]:
        of_groups = groups.sums[self.used]
        found = values_without(counts.totals, counts.classes[0], of_groups, groups.classes[self.used])
        bins = groups.bins[..., :3]
        found["ece"] = calibration_errors(without(counts.bins[0, :, :3], bins[self.used]))["ece"]
        return found | self._sample_areas(without(counts.totals, of_groups))

    def _sample_areas(self, sums: Array) -> dict[str, Array]:
        found = sample_areas(sums) if self._scores else {}
        return {f"samples.{name}": values for name, values in found.items()}

    @cached_property
    def class_values(self) -> list[dict[str, Array]]:
        """The metrics of each class in a and b: (K,) by name."""
        return [_of_classes(counts.classes[0]) for counts in self._totals]

    @cached_property
    def classes_without(self) -> list[dict[str, Array]]:
        """The metrics of each class in a and b without each group: (g, K) by name; empty if that isn't possible."""
        if not self.is_possible or not self._groups[0].classes.shape[1]:
            return [{}, {}]
        pairs = zip(self._totals, self._groups, strict=True)
        return [_of_classes(without(counts.classes[0], groups.classes[self.used])) for counts, groups in pairs]

    @cached_property
    def exact(self) -> list[tuple[list[Areas], Areas]]:
        """The areas of each class, and of all together, in a and b; empty without curves or labels."""
        return [scores.areas() for scores in self._scores] if self._has_labels else []

    @cached_property
    def binned(self) -> list[list[tuple[Array, Array]]]:
        """The areas of each class from bins of scores in a and b, and without each group; empty if not possible."""
        if not self.exact or not self.is_possible or not self._scores[0].counts:
            return []
        return [[binned_areas(counts, self.used) for counts in one.counts] for one in self._scores]

    @cached_property
    def _average_areas(self) -> ChangedAreas:
        """The averages of areas in a and b, and without each group."""
        found: ChangedAreas = {}
        for name, which in SCORES.items() if self.exact else ():
            a, b = (average_areas(*areas, name) for areas in self.exact)
            for average, value in a.items():
                values = value, b[average]
                binned = [self._averaged(side, average, which) for side in range(len(self.binned))]
                found[f"{average}.{name}"] = values, left_out_of(values, *binned) if binned else None
        return found

    def _averaged(self, side: int, average: str, which: int) -> tuple[Array, Array]:
        """Return an average of areas from bins: of all pairs, (1,), and without each group, (g,)."""
        if average == "micro":
            whole, left = binned_areas(sum(self._scores[side].counts, np.zeros(())), self.used)
            return whole[:, which], left[:, which]
        whole, left = (np.stack(arrays) for arrays in zip(*self.binned[side], strict=True))
        return averaged(whole, which, average), averaged(left, which, average)


class _ClassMetrics:
    """The metrics of a class in both inputs."""

    def __init__(self, sums: LabelChangeSums, at: int) -> None:
        self._sums, self._at = sums, at

    @property
    def n_pairs(self) -> int:
        return self._sums.n_pairs

    def values(self) -> dict[str, Both]:
        a, b = self._sums.class_values
        found: dict[str, Both] = {
            name: (finite(float(a[name][self._at])), finite(float(b[name][self._at]))) for name in a
        }
        return found | {name: exact for name, (exact, _) in self._areas.items()}

    def left_out(self) -> tuple[dict[str, Array], dict[str, Array]]:
        a, b = ({name: values[:, self._at] for name, values in one.items()} for one in self._sums.classes_without)
        for name, (_, left_out) in self._areas.items():
            if left_out is not None:
                a[name], b[name] = left_out
        return a, b

    def flips_of(self, name: str) -> tuple[int, int, int] | None:
        return self._sums.class_flips_of(name, self._at)

    def differences_of(self, name: str) -> Differences | None:
        del name
        return None

    @cached_property
    def _areas(self) -> ChangedAreas:
        if not self._sums.exact:
            return {}
        exact = [areas[self._at] for areas, _ in self._sums.exact]
        return changed_areas(exact, [side[self._at] for side in self._sums.binned])


def _of_classes(classes: Array) -> dict[str, Array]:
    """Return the metrics of classes from their sums, (..., K) of (..., K, OF_CLASS); NaN where undefined."""
    found = {name: quotient(*class_fractions(classes, name)) for name in OF_CLASS_CHANGED}
    return found | {"mean_loss": quotient(classes[..., CLASS_LOSS], classes[..., CLASS_ROWS])}


def _numbers(flips: Array) -> tuple[int, int, int]:
    n, one_way, other_way = flips.tolist()
    return n, one_way, other_way

"""Confidence intervals of the metrics of multi-label rows.

Subset accuracy and metrics of the predictions of one class are proportions of rows. Everything else has jackknife
intervals, also for independent rows: the entries of a row depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.interval_sums import IntervalSums
from batchmax.evaluation.intervals import calibration_test
from batchmax.evaluation.jackknife import MOST_BYTES
from batchmax.evaluation.metric_intervals import (
    BLOCK,
    LOSS_SCALE,
    Interval,
    MetricIntervals,
    exp_of_loss,
    f1_of_jaccard,
    mapped,
    without,
)
from batchmax.evaluation.metrics import MetricSums, calibration_errors
from batchmax.evaluation.multi_label import EntrySums
from batchmax.evaluation.multi_label_metrics import OF_EACH, class_fractions, label_values
from batchmax.kernels.jackknife_sums import GROUPS
from batchmax.kernels.metric_sums import FIGURES, WEIGHT
from batchmax.kernels.multi_label_metrics import CLASS_LOSS, CLASS_ROWS, EXACT, SOFT

Array = NDArray[Any]

SKEWED = ("mean_loss", "mean_label_loss", "brier")


class LabelGroupSums:
    """The sums of each group of rows.

    Attributes
    ----------
    sums, classes, bins
        Shapes (256, SUMS), (256, K, OF_CLASS) and (256, b, 4) float64, as those of
        :class:`batchmax.evaluation.multi_label.EntrySums`.
    top_k
        Empty.
    """

    def __init__(self, n_classes: int, n_bins: int) -> None:
        self._of_groups = EntrySums(n_classes, n_bins, GROUPS, MOST_BYTES)
        # The group is the first axis of the arrays that are rearranged.
        self._parts = np.moveaxis(self._of_groups.parts, 1, 0)
        self.top_k: tuple[int, ...] = ()

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays."""
        return self._of_groups.sums, self._of_groups.classes, self._parts

    @property
    def sums(self) -> Array:
        """The sums, without rounding errors."""
        return np.asarray(self._of_groups.sums.sum(axis=2))

    @property
    def classes(self) -> Array:
        """The sums of classes; (256, 0, OF_CLASS) if they would take too much memory."""
        return self._of_groups.classes

    @property
    def bins(self) -> Array:
        """The sums of bins."""
        return self._of_groups.bins

    def add(self, some: Any, rows: slice, groups: Array) -> None:
        """Add some of the rows, which are a :class:`batchmax.evaluation.multi_label.EntryMetrics`."""
        self._of_groups.add(some, rows, groups.astype(np.int64))


@dataclass(frozen=True, eq=False)
class LabelIntervals(MetricIntervals):
    """Computes the intervals; ``counts`` and ``groups`` are :class:`EntrySums` and :class:`LabelGroupSums`."""

    @cached_property
    def _totals(self) -> tuple[Array, Array, Array, Array]:
        counts: Any = self.counts
        return counts.totals, np.zeros(0), counts.classes[0], counts.bins[0, :, :3]

    @cached_property
    def _has_labels(self) -> bool:
        return not self._totals[0][FIGURES + SOFT]

    @cached_property
    def calibration_p(self) -> float | None:
        """The p-value of the hypothesis that the probabilities are calibrated."""
        return calibration_test(self.groups.bins[self.used], independent=False) if self.is_possible else None

    def of_classes(self) -> list[dict[str, Any]]:
        """Return the intervals of each class."""
        if not self._has_labels:
            return []
        sums, groups = self._totals[2], self.groups.classes
        columns = {name: self._class_ratios(name) for name in OF_EACH}
        columns["mean_loss"] = [None] * len(sums)
        if groups.shape[1]:
            of = (sums[:, CLASS_LOSS], sums[:, CLASS_ROWS], groups[..., CLASS_LOSS], groups[..., CLASS_ROWS])
            columns["mean_loss"] = self._jackknifed_ratios(*of, LOSS_SCALE)
        return [{name: column[at] for name, column in columns.items()} for at in range(len(sums))]

    def _class_ratios(self, name: str) -> list[Interval | None]:
        source = "jaccard" if name == "f1" else name
        of = class_fractions(self._totals[2], source), class_fractions(self.groups.classes, source)
        found = self._ratios(*of[0], *of[1])
        return [mapped(one, f1_of_jaccard) for one in found] if name == "f1" else found

    def _proportions(self) -> dict[str, Interval | None]:
        if not self._has_labels:
            return {}
        sums, groups = self._totals[0], self.groups.sums
        columns = [[one[..., at : at + 1] for at in (FIGURES + EXACT, WEIGHT)] for one in (sums, groups)]
        return {"subset_accuracy": self._ratios(*columns[0], *columns[1])[0]}

    def _losses(self) -> dict[str, Interval | None]:
        """Return the intervals of all other metrics."""
        sums, _, classes, bins = self._totals
        groups, of_classes = self.groups.sums[self.used], self.groups.classes[self.used]
        values = label_values(sums[np.newaxis], classes[np.newaxis, : of_classes.shape[1]])
        left_out = values_without(sums, classes, groups, of_classes)
        found: dict[str, Interval | None] = {}
        for name in (name for name in left_out if name not in {"perplexity", "subset_accuracy"}):
            scale = LOSS_SCALE if name in {"mean_loss", "mean_label_loss"} else "unit"
            is_defined = np.isfinite(values[name]).all()
            skewed = name in SKEWED
            found[name] = self.jackknifed(values[name], left_out[name], scale, is_skewed=skewed) if is_defined else None
        found["perplexity"] = mapped(found["mean_loss"], exp_of_loss)
        ece = calibration_errors(bins[np.newaxis])["ece"]
        eces = calibration_errors(without(bins, self.groups.bins[self.used][..., :3]))["ece"]
        found["ece"] = self._ece(self.jackknifed(ece, eces, "plain"))
        return found

    def _averages(self) -> dict[str, Interval | None]:
        return {}


def values_without(sums: Array, classes: Array, groups: Array, of_classes: Array) -> dict[str, Array]:
    """Return the metrics of :func:`label_values` without each of some groups of rows, (g,).

    Parameters
    ----------
    sums, classes
        The sums of all rows, (SUMS,) and (K, OF_CLASS).
    groups, of_classes
        Those of groups, (g, SUMS) and (g, K, OF_CLASS), or (g, 0, OF_CLASS) without averages over classes.
    """
    known = of_classes.shape[1]
    step = max(1, BLOCK // max(1, known))
    blocks = [
        label_values(without(sums, groups[at : at + step]), without(classes[:known], of_classes[at : at + step]))
        for at in range(0, len(groups), step)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


class LabelIntervalSums(IntervalSums):
    """The sums of groups of multi-label rows; as :class:`IntervalSums`."""

    def __init__(self, counts: EntrySums, *, cluster: str | None, weighted: bool) -> None:
        groups: Any = LabelGroupSums(counts.n_classes, counts.n_bins)
        super().__init__(
            cast("MetricSums", counts), None, cluster=cluster, nested=False, weighted=weighted, groups=groups
        )

    @property
    def _kind(self) -> type[MetricIntervals]:
        return LabelIntervals

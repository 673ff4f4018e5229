"""Confidence intervals of the metrics of an evaluation, from its sums and those of groups of rows.

Proportions of independent rows without weights have Wilson intervals. Everything else has jackknife intervals, whose
groups are :mod:`batchmax.evaluation.jackknife`'s. MCE and RMSCE have none: their bias isn't known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import OF_CLASS, class_values, fractions, nested, quotient
from batchmax.evaluation.distributions import t_quantile
from batchmax.evaluation.intervals import (
    FEWEST_GROUPS,
    JACKKNIFE,
    WILSON,
    Scale,
    absolute_bias,
    calibration_test,
    effective_degrees,
    gap_errors,
    jackknife_bounds,
    standard_errors,
    wilson,
)
from batchmax.evaluation.jackknife import MetricGroupSums
from batchmax.evaluation.metrics import MetricSums, calibration_errors, group_metrics
from batchmax.functional.losses import perplexities
from batchmax.kernels.metric_sums import CLASS_LOSS, HITS, PREDICTED, RIGHT, SUPPORT, WEIGHT

Array = NDArray[Any]
Interval = dict[str, Any]

LOSS_SCALE: Scale = "positive"
SCALES: dict[str, Scale] = {"kappa": "signed", "mcc": "signed"}
"""The scales of averages and agreement that aren't in [0, 1]."""
EQUAL_TO_ACCURACY = ("micro.precision", "micro.recall", "micro.f1", "weighted.recall")
SMOOTH = (
    *("balanced_accuracy", "kappa", "mcc"),
    *(f"macro.{name}" for name in OF_CLASS),
    *("weighted.precision", "weighted.f1", "weighted.jaccard"),
)
"""The metrics of all classes that depend on sums of classes alone."""
SMOOTHING = 0.5
"""Rows that are added of each label and prediction of two classes."""
ROUNDING = 1e-12
"""Relative rounding error of a sum without one of its parts."""
BLOCK = 2**18
"""Number of class sums that are processed at a time."""


@dataclass(frozen=True, eq=False)
class MetricIntervals:
    """Computes the intervals.

    Attributes
    ----------
    counts, groups
        The sums of all rows, and of each group.
    positive
        The positive class of a binary task, or None.
    level
        The confidence level.
    n_units
        The number of independent units: rows or clusters.
    independent
        Whether each row is a unit, and has no weight.
    has_clusters
        Whether units are clusters.
    """

    counts: MetricSums
    groups: MetricGroupSums
    positive: int | None
    level: float
    n_units: int
    independent: bool
    has_clusters: bool = False

    @cached_property
    def used(self) -> Array:
        """The numbers of the groups that have rows."""
        return np.flatnonzero(self.groups.sums[:, WEIGHT] > 0)

    @property
    def is_possible(self) -> bool:
        """Whether there are enough groups for a variance."""
        return len(self.used) >= FEWEST_GROUPS

    @cached_property
    def _totals(self) -> tuple[Array, Array, Array, Array]:
        counts = self.counts
        return counts.sums.sum(axis=1), counts.tops, counts.classes, counts.bins

    def of_all(self) -> dict[str, Any]:
        """Return the intervals by metric; nested as the metrics are, and None for a metric without an interval."""
        found = self._proportions()
        if self.is_possible:
            found |= self._losses() | self._averages()
        return nested(found)

    @cached_property
    def calibration_p(self) -> float | None:
        """The p-value of the hypothesis that the probabilities are calibrated."""
        bins = self.groups.bins[self.used]
        if not self.is_possible or not np.isfinite(bins).all():
            return None
        return calibration_test(bins, independent=self.independent)

    def of_classes(self) -> list[dict[str, Any]]:
        """Return the intervals of each class."""
        sums, groups = self.counts.classes, self.groups.classes
        columns = {name: self._class_ratios(name) for name in OF_CLASS}
        columns["mean_loss"] = [None] * len(sums)
        if groups.shape[1]:
            loss = (sums[:, CLASS_LOSS], sums[:, SUPPORT], groups[..., CLASS_LOSS], groups[..., SUPPORT])
            columns["mean_loss"] = self._jackknifed_ratios(*loss, LOSS_SCALE)
        return [{name: column[at] for name, column in columns.items()} for at in range(len(sums))]

    def of_group(self) -> dict[str, Interval | None]:
        """Return the intervals of the metrics that groups of rows have."""
        sums, groups = self._totals[0], self.groups.sums
        hits, weight = slice(HITS, HITS + 1), slice(WEIGHT, WEIGHT + 1)
        accuracy = self._ratios(sums[hits], sums[weight], groups[:, hits], groups[:, weight])[0]
        return {"accuracy": accuracy} | (self._losses() if self.is_possible else {})

    def _class_ratios(self, name: str) -> list[Interval | None]:
        """Return the intervals of a metric of each class."""
        # The Jaccard index is a proportion: of right predictions, among the rows that have the class or are predicted
        # to have it. F1 is a function of it.
        source = "jaccard" if name == "f1" else name
        part, of = fractions(self.counts.classes, source)
        if self.independent:
            found = listed(*wilson(part, of, self.level), WILSON)
        else:
            found = self._ratios(part, of, *fractions(self.groups.classes, source))
        return [mapped(one, f1_of_jaccard) for one in found] if name == "f1" else found

    def _ratios(self, part: Array, of: Array, parts: Array, ofs: Array) -> list[Interval | None]:
        """Return the intervals of m proportions, (m,), whose numerators and denominators in groups are (256, m)."""
        if self.independent:
            return listed(*wilson(part, of, self.level), WILSON)
        if parts.shape[1] != len(part):
            return [None] * len(part)
        return self._jackknifed_ratios(part, of, parts, ofs, "unit")

    def _jackknifed_ratios(
        self, part: Array, of: Array, parts: Array, ofs: Array, scale: Scale
    ) -> list[Interval | None]:
        """Return the jackknife intervals of m ratios; None for those of fewer than 10 groups."""
        if not self.is_possible:
            return [None] * len(part)
        parts, ofs = parts[self.used], ofs[self.used]
        values, used = quotient(part, of), np.count_nonzero(ofs, axis=0)
        errors = standard_errors(quotient(without(part, parts), without(of, ofs)))
        # Losses are skewed, and a loss of few groups has few degrees of freedom.
        degrees = {int(n): max(1, n - 1) if scale == LOSS_SCALE else self._degrees for n in np.unique(used)}
        t = np.array([self._t(degrees[n]) for n in used.tolist()])
        bounds = jackknife_bounds(values, errors, t, scale)
        found = listed(*bounds, JACKKNIFE)
        for at in np.flatnonzero((values <= 0) | (values >= 1)) if scale == "unit" else ():
            # There is no variation. Every group has several clusters if there are more clusters than groups.
            n = self.n_units * float(used[at]) / len(self.used)
            found[at] = listed(*wilson(np.round(values[at : at + 1]) * n, np.array([n]), self.level), WILSON)[0]
        return [one if enough else None for one, enough in zip(found, used >= FEWEST_GROUPS, strict=True)]

    def _proportions(self) -> dict[str, Interval | None]:
        """Return the intervals of proportions of all rows, of averages that equal them, and of the positive class."""
        sums, tops, classes, _ = self._totals
        groups, of_classes = self.groups.sums, self.groups.classes
        names = ["accuracy", *(f"top_k_accuracy.{k}" for k in self.groups.top_k)]
        parts = np.concatenate([groups[:, HITS : HITS + 1], self.groups.tops], axis=1)
        n, ns = np.full(len(names), sums[WEIGHT]), np.repeat(groups[:, WEIGHT : WEIGHT + 1], len(names), axis=1)
        found = dict(zip(names, self._ratios(np.array([sums[HITS], *tops]), n, parts, ns), strict=True))
        found |= dict.fromkeys(EQUAL_TO_ACCURACY, found["accuracy"])
        found["micro.jaccard"] = mapped(found["accuracy"], lambda share: share / (2.0 - share))
        if (at := self.positive) is not None:
            support, supports = classes[:, SUPPORT], of_classes[..., SUPPORT]
            total, totals = support.sum(keepdims=True), supports.sum(axis=1, keepdims=True)
            found["prevalence"] = self._ratios(support[at : at + 1], total, supports[:, at : at + 1], totals)[0]
            columns = {name: self._class_ratios(name) for name in ("precision", "recall", "f1")}
            found |= {name: column[at] for name, column in columns.items()}
            found["specificity"] = columns["recall"][1 - at]
        return found

    def _losses(self) -> dict[str, Interval | None]:
        """Return the intervals of losses and of calibration."""
        sums, _, _, bins = self._totals
        used = self.used
        values = group_metrics(sums[np.newaxis])
        left_out = group_metrics(without(sums, self.groups.sums[used]))
        loss = self.jackknifed(values["mean_loss"], left_out["mean_loss"], LOSS_SCALE, is_skewed=True)
        # Over several classes, the Brier score is between 0 and 2.
        most = 2.0 if self.positive is None else 1.0
        brier = self.jackknifed(values["brier"] / most, left_out["brier"] / most, "unit", is_skewed=True)
        found = {
            "mean_loss": loss,
            "perplexity": mapped(loss, exp_of_loss),
            "brier": mapped(brier, lambda bound: most * bound),
        }
        if np.isfinite(sums[HITS]):
            ece = calibration_errors(bins[np.newaxis])["ece"]
            eces = calibration_errors(without(bins, self.groups.bins[used][..., :3]))["ece"]
            found["ece"] = self._ece(self.jackknifed(ece, eces, "plain"))
        return found

    def jackknifed(self, value: Array, left_out: Array, scale: Scale, *, is_skewed: bool = False) -> Interval | None:
        """Return the jackknife interval of a metric, (1,), from its values without each group, (g,)."""
        error = standard_errors(left_out[:, np.newaxis])
        if not error[0] > ROUNDING * abs(value[0]):
            return None
        degrees = effective_degrees(left_out) if is_skewed else self._degrees
        t = self._t(degrees)
        return listed(*jackknife_bounds(value, error, t, scale), JACKKNIFE)[0]

    def _t(self, degrees: float) -> float:
        return t_quantile(0.5 + 0.5 * self.level, degrees)

    @property
    def _degrees(self) -> int:
        return len(self.used) - 1

    def _averages(self) -> dict[str, Interval | None]:
        """Return the intervals of averages over classes and of agreement.

        With two classes, half a row of each label and prediction is added: otherwise these metrics had no variance if
        all rows of a class are right or wrong, and too little if there are few. That is Agresti and Coull's idea for
        proportions (1998, The American Statistician 52, 119-126).
        """
        groups, sums = self.groups.classes[self.used], self._totals[0]
        if not groups.shape[1]:
            return {}
        losses = group_metrics(sums[np.newaxis])["mean_loss"]
        left_losses = group_metrics(without(sums, self.groups.sums[self.used]))["mean_loss"]
        totals = self._totals[2]
        values = class_values(totals[np.newaxis], losses, self.positive)
        left_out = self._left_out(totals, groups, left_losses)
        found = {
            "d2_log_loss": self.jackknifed(values["d2_log_loss"], left_out["d2_log_loss"], "plain", is_skewed=True)
        }
        if self.positive is not None:
            more = SMOOTHING * _one_of_each() * float(sums[WEIGHT]) / self.counts.n_counted
            totals = totals + more.sum(axis=0)
            centers = class_values(totals[np.newaxis], losses, self.positive)
            left_out = self._left_out(totals, np.concatenate([groups, more]), left_losses)
        else:
            centers = values
        for name in SMOOTH:
            interval = self.jackknifed(centers[name], left_out[name], SCALES.get(name, "unit"))
            value = float(values[name][0])
            if interval is not None and np.isfinite(value):
                interval |= {"lower": min(interval["lower"], value), "upper": max(interval["upper"], value)}
            found[name] = interval if np.isfinite(value) else None
        return found

    def _left_out(self, totals: Array, groups: Array, losses: Array) -> dict[str, Array]:
        """Return the metrics of all classes without each group; of those beyond ``losses``, D² isn't defined."""
        losses = np.concatenate([losses, np.full(len(groups) - len(losses), np.nan)])
        some = max(1, BLOCK // groups.shape[1])
        blocks = [
            class_values(without(totals, groups[at : at + some]), losses[at : at + some], self.positive)
            for at in range(0, len(groups), some)
        ]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _ece(self, interval: Interval | None) -> Interval | None:
        """Return the interval of ECE without its bias, which is that of absolute values of gaps with errors.

        The lower bound is 0 unless the hypothesis that the probabilities are calibrated is rejected.
        """
        if interval is None:
            return None
        weight, confidence, hits = self._totals[3].T
        gaps = np.where(weight > 0, quotient(hits - confidence, weight), 0.0)
        errors = gap_errors(self.groups.bins[self.used])
        bias = float((weight * absolute_bias(gaps, errors)).sum() / weight.sum())
        # On average, the square of an observed gap is larger than that of the actual gap by the square of the error.
        # The bias at the observed gaps is therefore too small for the lower bound.
        actual = np.sqrt(np.maximum(gaps * gaps - errors * errors, 0.0))
        most_bias = float((weight * absolute_bias(actual, errors)).sum() / weight.sum())
        p = self.calibration_p
        lower = interval["lower"] - most_bias if p is not None and p < 1.0 - self.level else 0.0
        return interval | {"lower": max(lower, 0.0), "upper": min(max(interval["upper"] - bias, 0.0), 1.0)}


def _one_of_each() -> Array:
    """Return the sums of two classes of one row with each label and prediction, (4, 2, 4)."""
    sums = np.zeros((4, 2, 4))
    for at, (label, pred) in enumerate(np.ndindex(2, 2)):
        sums[at, label, SUPPORT] += 1.0
        sums[at, pred, PREDICTED] += 1.0
        sums[at, label, RIGHT] += label == pred
    return sums


def without(total: Array, parts: Array) -> Array:
    """Return a total without each of its parts; 0 where only rounding errors are left."""
    with np.errstate(invalid="ignore"):
        left = total - parts
    return np.where(np.abs(left) <= ROUNDING * np.abs(total), 0.0, left)


def listed(lower: Array, upper: Array, method: str) -> list[Interval | None]:
    """Return intervals as in the JSON; None where a bound isn't finite."""
    is_known = np.isfinite(lower) & np.isfinite(upper)
    return [
        {"lower": low, "upper": high, "method": method} if known else None
        for low, high, known in zip(lower.tolist(), upper.tolist(), is_known.tolist(), strict=True)
    ]


def mapped(interval: Interval | None, change: Callable[[float], float]) -> Interval | None:
    """Return the interval of an increasing function of a metric."""
    if interval is None:
        return None
    lower, upper = (np.array([change(interval[bound])]) for bound in ("lower", "upper"))
    return listed(lower, upper, interval["method"])[0]


def f1_of_jaccard(index: float) -> float:
    """Return F1 as a function of the Jaccard index."""
    return 2.0 * index / (1.0 + index)


def exp_of_loss(value: float) -> float:
    """Return the perplexity of a mean loss."""
    return float(perplexities(np.array([value]))[0])

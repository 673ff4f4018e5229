"""Counts of rows at or above a threshold, and the metrics that follow from them. Knows arrays, not rows of files.

A row is positive if its score is at least the threshold. Thresholds are finite, because files of JSON have no infinity:
a score of +inf counts as the largest float64, and a row with a score of -inf is never positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import ratio

Array = NDArray[Any]

LARGEST = np.finfo(np.float64).max
METRICS = (
    *("n_rows", "coverage", "alert_rate", "accuracy", "balanced_accuracy", "precision", "recall", "fpr"),
    *("f1", "f0.5", "f2", "mcc", "mean_cost"),
)
"""The metrics of a part of the rows, in the order of the JSON."""


class ScoreCounts:
    """The scores of some rows in descending order.

    Parameters
    ----------
    scores : (n,) float64
    positive : (n,) bool
        Whether a row's class is the positive one.
    weights : (n,) float64, or (0,) for weights of 1

    Attributes
    ----------
    n_rows
        The number of rows.
    scores : (n,) float64
        The scores in descending order.
    thresholds : (t,) float64
        The distinct scores that can be thresholds, in descending order.
    tp, fp : (t + 1,) float64
        The weights of positives and of negatives with a score of at least the threshold before; the first is 0, of no
        threshold.
    positives, negatives
        The weights of all positives and negatives.
    """

    def __init__(self, scores: Array, positive: Array, weights: Array) -> None:
        self.n_rows = len(scores)
        order = np.argsort(-scores, kind="stable")
        self.scores = np.minimum(scores[order], LARGEST)
        ordered = positive[order]
        values = weights[order] if len(weights) else np.ones(len(scores))
        above = np.cumsum(np.where(ordered, values, 0.0)), np.cumsum(np.where(ordered, 0.0, values))
        self.positives, self.negatives = (float(one[-1]) if len(one) else 0.0 for one in above)
        is_last = np.append(self.scores[1:] != self.scores[:-1], np.ones(min(1, self.n_rows), np.bool_))
        last = np.flatnonzero(is_last & (self.scores > -np.inf))
        self.thresholds = self.scores[last]
        self.tp, self.fp = (np.concatenate([[0.0], one[last]]) for one in above)

    def at(self, thresholds: Array) -> tuple[Array, Array]:
        """Return the weights of positives and of negatives at or above thresholds, which any rows may have."""
        number = np.searchsorted(-self.thresholds, -thresholds, side="right")
        return self.tp[number], self.fp[number]


def rates(tp: Array, fp: Array, fn: Array, tn: Array) -> dict[str, Array]:
    """Return the metrics of decided rows from their weights; NaN where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        scores = {
            f"f{beta:g}": (1.0 + beta * beta) * tp / ((1.0 + beta * beta) * tp + beta * beta * fn + fp)
            for beta in (1.0, 0.5, 2.0)
        }
        balanced = 0.5 * (recall + specificity)
        # With one class, the metric is the recall of that class, as in scikit-learn.
        balanced = np.where(tp + fn == 0, specificity, np.where(tn + fp == 0, recall, balanced))
        return scores | {
            "accuracy": (tp + tn) / (tp + fp + fn + tn),
            "balanced_accuracy": balanced,
            "precision": tp / (tp + fp),
            "recall": recall,
            "fpr": fp / (fp + tn),
            "mcc": np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(product), np.nan),
        }


def metrics_at(counts: ScoreCounts, high: float | None, low: float | None = None) -> dict[str, Any]:
    """Return the metrics of rows that are positive from a threshold on, and negative below it, or below ``low``.

    ``high`` is None if no row is positive. Metrics of classes are of the rows that are decided.
    """
    tp, fp = _at(counts, high)
    tn, fn = counts.negatives - fp, counts.positives - tp
    if low is not None:
        at_low = _at(counts, low)
        fn, tn = counts.positives - at_low[0], counts.negatives - at_low[1]
    total = counts.positives + counts.negatives
    found = rates(*(np.array([value]) for value in (tp, fp, fn, tn)))
    values = {name: ratio(float(value[0]), 1.0) for name, value in found.items()}
    values |= {"coverage": ratio(tp + fp + fn + tn, total), "alert_rate": ratio(tp + fp, total)}
    return listed(values | {"n_rows": counts.n_rows})


def listed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics in the order of the JSON, with None for those that are missing."""
    return {name: values.get(name) for name in METRICS}


def _at(counts: ScoreCounts, threshold: float | None) -> tuple[float, float]:
    if threshold is None:
        return 0.0, 0.0
    tp, fp = counts.at(np.array([threshold]))
    return float(tp[0]), float(fp[0])


def best_threshold(counts: ScoreCounts, metric: str) -> float | None:
    """Return the threshold with the largest value of a metric; None if no row should be positive.

    Of equal values, the largest threshold is best. Values that aren't defined count as 0.
    """
    values = rates(counts.tp, counts.fp, counts.positives - counts.tp, counts.negatives - counts.fp)[metric]
    at = int(np.argmax(np.where(np.isnan(values), 0.0, values)))
    return None if at == 0 else float(counts.thresholds[at - 1])

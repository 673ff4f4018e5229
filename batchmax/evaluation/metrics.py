"""Accumulate metrics over rows: losses, accuracy, calibration errors, metrics by class and group.

Knows arrays; doesn't know files or Arrow. A missing metric is None, never NaN.

See Also
--------
Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning" (the expected calibration error);
Guo et al. 2017, arXiv 1706.04599 (reliability diagrams); Brier 1950, for several classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.evaluation.class_metrics import ratio, whole
from batchmax.functional.losses import Rows, perplexities
from batchmax.kernels.metric_sums import (
    BRIER,
    FIGURES,
    HITS,
    INFINITE,
    LOSS,
    WEIGHT,
    tally_rows,
)
from batchmax.kernels.row_metrics import metric_rows, soft_metric_rows
from batchmax.runtime.text import quantity
from batchmax.scoring.tally import finite

Array = NDArray[Any]

MOST_CONFUSED = 1000
"""Largest number of classes for which a confusion matrix is counted."""
LOSS_BINS = 101
"""Bins of a tenth of a nat up to 10, and one for all larger losses."""
CONFIDENCE_BINS = 20
MOST_BINS = 1000
NO_POSITIVE = -1
"""In kernels: there are more than two classes, so none is the positive one."""


@dataclass(frozen=True, eq=False)
class RowMetrics:
    """Metrics of some rows, before they are accumulated: arrays of (n_rows,).

    Attributes
    ----------
    rows
        The results of the softmax kernel.
    pred, rank, brier
        The results of the row metrics kernel; the Brier scores of two classes are halved.
    labels
        int64. Not read if labels are distributions, in which case ranks are 0.
    weights
        float64; empty for weights of 1.
    counted
        Whether a row has a label and a loss.
    """

    rows: Rows
    labels: Array
    pred: Array
    rank: Array
    brier: Array
    weights: Array
    counted: Array


def row_metrics(
    matrix: Array, labels: Array | None, targets: Array | None, beta: float, rows: Rows, weights: Array
) -> RowMetrics:
    """Return the metrics of rows that have class labels or, without these, target distributions; all are counted."""
    n = len(matrix)
    pred, rank, brier = np.empty(n, np.int32), np.zeros(n, np.int32), np.empty(n)
    if labels is None:
        labels = np.zeros(0, np.int64)
        soft_metric_rows(matrix, targets, beta, rows.maxima, rows.rests, brier)
    else:
        metric_rows(matrix, labels, beta, rows.maxima, rows.rests, rows.nll, pred, rank, brier)
    if matrix.shape[1] == 2:
        # The squared difference of the probability of one class; that of the other is the same.
        brier *= 0.5
    return RowMetrics(rows, labels, pred, rank, brier, weights, np.ones(n, np.bool_))


class MetricSums:
    """Sums over all rows.

    Parameters
    ----------
    n_classes, top_k, n_bins
        The number of classes, the values of k for top-k accuracy, and the number of bins.
    positive
        The positive class, which the bins are about; None if there are more than two classes.
    """

    def __init__(self, n_classes: int, top_k: tuple[int, ...], n_bins: int, positive: int | None = None) -> None:
        self.n_classes, self.top_k, self.n_bins = n_classes, top_k, n_bins
        self._positive = NO_POSITIVE if positive is None else positive
        self.n_counted = 0
        self.sums, self.tops, self.classes = np.zeros((FIGURES, 2)), np.zeros(len(top_k)), np.zeros((n_classes, 4))
        self.confusion: Array = np.zeros((n_classes, n_classes) if n_classes <= MOST_CONFUSED else (0, 0))
        self.bins = np.zeros((n_bins, 3))
        self.losses: Array = np.zeros(LOSS_BINS, np.int64)
        self.confidences: Array = np.zeros((2, CONFIDENCE_BINS), np.int64)

    @property
    def infinite_losses(self) -> int:
        """The number of rows with a loss of +inf."""
        return int(self.sums[INFINITE, 0])

    def add(self, some: RowMetrics) -> None:
        """Add some rows."""
        self.n_counted += int(np.count_nonzero(some.counted))
        tally_rows(
            some.rows.nll, some.rows.rests, some.pred, some.rank, some.brier, some.labels, some.weights, some.counted,
            self._positive, np.array(self.top_k, np.int64), self.sums, self.tops, self.classes, self.confusion,
            self.bins, self.losses, self.confidences,
        )  # fmt: skip

    def metrics(self) -> dict[str, Any]:
        """Return the headline metrics."""
        sums = self.sums.sum(axis=1)
        weight = sums[WEIGHT]
        metrics = group_metrics(sums[np.newaxis]) | calibration_errors(self.bins[np.newaxis])
        return {name: finite(float(values[0])) for name, values in metrics.items()} | {
            "log_likelihood": None if sums[INFINITE] or not self.n_counted else finite(-sums[LOSS]),
            "top_k_accuracy": {str(k): ratio(top, weight) for k, top in zip(self.top_k, self.tops, strict=True)},
        }

    def reliability(self) -> list[dict[str, Any]]:
        """Return the bins: borders, weight of the rows, mean confidence, and accuracy.

        With a positive class, ``confidence`` is the mean of its probability, and ``accuracy`` its share of the rows.
        """
        return bins_as_dicts(self.bins)

    def confusion_matrix(self) -> list[list[float]] | None:
        """Return the weights of rows by label and predicted class; None if there are too many classes."""
        if not len(self.confusion):
            return None
        whole = bool((self.confusion == np.floor(self.confusion)).all())
        return (self.confusion.astype(np.int64) if whole else self.confusion).tolist()  # type: ignore[no-any-return]


def positive_class(job: Job, name: str | None) -> int | None:
    """Return the index of the positive class: the one of this name or number, by default the second of two.

    None if there are more than two classes, or the activation isn't a distribution.

    Raises
    ------
    UsageError
        There is no such class, or there aren't two classes.
    """
    is_binary = job.n_classes == 2 and ACTIVATIONS[job.options.activation_name].is_distribution
    if name is None:
        return 1 if is_binary else None
    if not is_binary:
        what = f"there are {quantity(job.n_classes, 'class')}, and only one of two classes is the positive one"
        raise UsageError(what, where="--positive", remedy="leave it out")
    names = job.classes or ("0", "1")
    if name not in names:
        raise UsageError(f"{name!r} is not a class", where="--positive", remedy=f"choose {' or '.join(names)}")
    return names.index(name)


def bins_as_dicts(bins: Array) -> list[dict[str, Any]]:
    """Return (b, 3) bins with their borders, weight, mean confidence, and accuracy."""
    return [
        {
            "low": at / len(bins),
            "high": (at + 1) / len(bins),
            "n_rows": whole(weight),
            "confidence": ratio(confidence, weight),
            "accuracy": ratio(hits, weight),
        }
        for at, (weight, confidence, hits) in enumerate(bins.tolist())
    ]


def check_bins(bins: int) -> None:
    """Check the number of bins of the calibration errors.

    Raises
    ------
    UsageError
        It is out of range.
    """
    if not isinstance(bins, int) or not 1 <= bins <= MOST_BINS:
        raise UsageError(f"{bins} is out of range", where="--bins", remedy=f"give a number from 1 to {MOST_BINS}")


def top_k_values(given: int | Iterable[int] | None, n_classes: int) -> tuple[int, ...]:
    """Return the values of k for top-k accuracy; by default 5 if there are more classes.

    Raises
    ------
    UsageError
        One is out of range.
    """
    if given is None:
        return (5,) if n_classes > 5 else ()
    asked = sorted({given} if isinstance(given, int) else set(given))
    if any(k < 1 or k > n_classes for k in asked):
        what = f"{asked} is out of range for {n_classes} classes"
        raise UsageError(what, where="--top-k", remedy=f"give numbers from 1 to {n_classes}")
    return tuple(asked)


def group_metrics(sums: Array) -> dict[str, Array]:
    """Return the metrics of n groups from their sums, (n, 5); NaN or inf where undefined."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        weight = sums[:, WEIGHT]
        mean = np.where(sums[:, INFINITE] > 0, np.nan, sums[:, LOSS] / weight)
        return {
            "mean_loss": mean,
            "perplexity": perplexities(mean),
            "accuracy": sums[:, HITS] / weight,
            "brier": sums[:, BRIER] / weight,
        }


def calibration_errors(bins: Array) -> dict[str, Array]:
    """Return the calibration errors of n groups from their bins, (n, b, 3); NaN for groups without rows."""
    weights, confidences, hits = np.moveaxis(bins, 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.where(weights > 0, np.abs(hits - confidences) / weights, 0.0)
        total = weights.sum(axis=1)
        return {
            "ece": (weights * gaps).sum(axis=1) / total,
            "mce": np.where(total > 0, gaps.max(axis=1), np.nan),
            "rmsce": np.sqrt((weights * gaps * gaps).sum(axis=1) / total),
        }

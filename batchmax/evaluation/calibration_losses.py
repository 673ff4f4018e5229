"""The losses that a calibration minimizes, with their derivatives, and the metrics of calibrated rows.

There is one loss for rows with one label, under softmax, and one for multi-label rows, under sigmoid. Knows arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.label_column import Labels
from batchmax.evaluation.metrics import MetricSums, positive_class, row_metrics
from batchmax.evaluation.multi_label import EntrySums, entry_metrics
from batchmax.functional.losses import softmax_rows
from batchmax.kernels.metric_sums import LOSS, WEIGHT
from batchmax.kernels.moments import row_moments
from batchmax.kernels.multi_label import sigmoid_rows
from batchmax.scoring.multi_label import label_losses
from batchmax.scoring.tally import finite

Array = NDArray[Any]


class CalibrationLoss(ABC):
    """A loss of rows.

    Attributes
    ----------
    PERFECT
        When the best temperature is as small as possible.
    """

    PERFECT = ""

    @abstractmethod
    def labels(self, labels: Labels, n_classes: int) -> Array:
        """Return the labels of rows as an array: the argument ``labels`` of the other methods."""

    @abstractmethod
    def slopes(self, logits: Array, labels: Array, beta: float) -> Array:
        """Return the derivatives of the losses by log beta, (n,)."""

    @abstractmethod
    def gradients(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return the losses of (n, K) float64 logits, (n,), and their derivatives by the logits, (n, K)."""

    @abstractmethod
    def sums(self, job: Job, bins: int) -> Any:
        """Return empty sums of rows."""

    @abstractmethod
    def add(self, sums: Any, logits: Array, labels: Array, beta: float, counted: Array) -> None:
        """Add the counted rows that have a finite loss."""

    @abstractmethod
    def errors(self, sums: Any) -> tuple[float | None, float | None]:
        """Return the mean loss and the expected calibration error."""


class SoftmaxLoss(CalibrationLoss):
    """Cross-entropy of softmax; labels are the indices of classes, (n,)."""

    PERFECT = "every label is the class with the largest logit"

    def labels(self, labels: Labels, n_classes: int) -> Array:  # noqa: ARG002 - as in the base class
        """Return the indices of the classes."""
        assert labels.indices is not None  # noqa: S101 - labels are classes
        return labels.indices

    def slopes(self, logits: Array, labels: Array, beta: float) -> Array:
        """Return the losses minus the entropies, which are the derivatives."""
        rows = softmax_rows(logits, beta, labels=labels)
        entropy = np.empty(len(logits))
        row_moments(logits, labels, beta, rows.maxima, rows.rests, entropy, np.empty(0))
        return np.nan_to_num(rows.nll - entropy)

    def gradients(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return the losses, and the probabilities minus the one-hot labels."""
        probs = np.empty_like(logits)
        rows = softmax_rows(logits, 1.0, labels=labels, probs=probs)
        probs[np.arange(len(labels)), labels] -= 1.0
        return rows.nll, probs

    def sums(self, job: Job, bins: int) -> MetricSums:
        """Return sums of rows with one label."""
        return MetricSums(job.n_classes, (), bins, positive_class(job, None))

    def add(self, sums: MetricSums, logits: Array, labels: Array, beta: float, counted: Array) -> None:
        """Add rows."""
        rows = softmax_rows(logits, beta, labels=labels)
        some = row_metrics(logits, labels, None, beta, rows, np.zeros(0))
        sums.add(replace(some, counted=counted & (rows.nll < np.inf)))

    def errors(self, sums: MetricSums) -> tuple[float | None, float | None]:
        """Return both of the rows' metrics."""
        metrics = sums.metrics()
        return metrics["mean_loss"], metrics["ece"]


class SigmoidLoss(CalibrationLoss):
    """Sum of the binary cross-entropies of classes; labels are targets, (n, K), NaN where one is missing."""

    PERFECT = "the classes of a row with logits above 0 are its labels"

    def labels(self, labels: Labels, n_classes: int) -> Array:
        """Return the targets."""
        if labels.targets is not None:
            return labels.targets
        assert labels.indices is not None  # noqa: S101 - there are labels
        return np.equal(labels.indices[:, np.newaxis], np.arange(n_classes)).astype(np.float64)

    def slopes(self, logits: Array, labels: Array, beta: float) -> Array:
        """Return the sums of beta z (p - y)."""
        z = logits.astype(np.float64, copy=False)
        with np.errstate(invalid="ignore"):
            terms = beta * z * (_probs(z, beta) - labels)
        # A class with an infinite logit has no derivative, one without a target no loss.
        return np.asarray(np.where(np.isfinite(terms), terms, 0.0).sum(axis=1))

    def gradients(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return the losses, and the probabilities minus the targets."""
        return _losses(logits, labels, 1.0)[0], np.nan_to_num(_probs(logits, 1.0) - labels)

    def sums(self, job: Job, bins: int) -> EntrySums:
        """Return sums of multi-label rows."""
        return EntrySums(job.n_classes, bins)

    def add(self, sums: EntrySums, logits: Array, labels: Array, beta: float, counted: Array) -> None:
        """Add rows."""
        z = logits.astype(np.float64, copy=False)
        losses = _losses(z, labels, beta)
        targets = labels.astype(np.float64, copy=False)
        sums.add(entry_metrics(z, None, targets, beta, losses, np.zeros(0), counted & (losses[0] < np.inf)))

    def errors(self, sums: EntrySums) -> tuple[float | None, float | None]:
        """Return both, the calibration error over the classes of all rows."""
        totals = sums.totals
        mean_loss = totals[LOSS] / totals[WEIGHT] if totals[WEIGHT] else np.nan
        return finite(float(mean_loss)), sums.errors()["ece"]


def _probs(z: Array, beta: float) -> Array:
    probs = np.empty_like(z)
    sigmoid_rows(z, beta, probs, np.empty(len(z), np.bool_))
    return probs


def _losses(z: Array, labels: Array, beta: float) -> tuple[Array, Array]:
    """Return the losses of rows, (n,), and of their classes, (n, K)."""
    entries = np.empty(z.shape)
    losses, _ = label_losses(z, None, labels.astype(np.float64, copy=False), beta, entries=entries)
    return losses, entries

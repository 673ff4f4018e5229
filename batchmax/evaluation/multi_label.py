"""Sums over multi-label rows, whose classes are independent. A class without a target in a row isn't counted there.

Knows arrays; doesn't know files or Arrow. A missing metric is None, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.evaluation.metrics import LOSS_BINS, bins_as_dicts, calibration_errors
from batchmax.kernels.metric_sums import INFINITE, LOSS
from batchmax.kernels.multi_label import sigmoid_rows
from batchmax.kernels.multi_label_metrics import (
    BIN_SUMS,
    OF_CLASS,
    OF_ROW,
    SUMS,
    label_rows,
    tally_entries,
    tally_label_rows,
)
from batchmax.options.parsing import flag_of, refuse_if
from batchmax.scoring.tally import finite

Array = NDArray[Any]

TASKS = 16
"""Largest number of ranges of classes that are summed in parallel, fixed so that sums don't depend on threads."""
MOST_BIN_BYTES = 2**25
"""Memory of the bins of all ranges of classes."""
NO_GROUPS = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class EntryMetrics:
    """Metrics of some rows, before they are accumulated.

    Attributes
    ----------
    nll : (n,) float64
        The losses.
    logits, probs, losses : (n, K) float64
        Of each class; losses are NaN where the target is missing.
    labels : (n,) int64, or (0,)
        The only class of each row with target 1; empty if there are targets.
    targets : (n, K) float64, or (0, K)
        NaN where a target is missing.
    figures : (n, OF_ROW) float64
        Results of :func:`batchmax.kernels.multi_label_metrics.label_rows`.
    weights : (n,) float64, or (0,) for weights of 1
    counted : (n,) bool
        Whether a row has a loss.
    """

    nll: Array
    logits: Array
    probs: Array
    losses: Array
    labels: Array
    targets: Array
    figures: Array
    weights: Array
    counted: Array


def entry_metrics(
    logits: Array,
    labels: Array | None,
    targets: Array | None,
    beta: float,
    losses: tuple[Array, Array],
    weights: Array,
    counted: Array,
) -> EntryMetrics:
    """Return the metrics of rows that have targets or one class as the label; ``losses`` are of rows and of entries."""
    probs, figures = np.empty(logits.shape), np.empty((len(logits), OF_ROW))
    sigmoid_rows(logits, beta, probs, np.empty(len(logits), np.bool_))
    labels = np.zeros(0, np.int64) if labels is None else labels
    targets = np.zeros((0, logits.shape[1])) if targets is None else targets
    label_rows(logits, probs, labels, targets, counted, figures)
    return EntryMetrics(losses[0], logits, probs, losses[1], labels, targets, figures, weights, counted)


class EntrySums:
    """Sums over rows, in one or several groups.

    Parameters
    ----------
    n_classes, n_bins
        The number of classes, and of bins of probabilities.
    n_groups
        The number of groups of rows.
    most_bytes
        The memory that sums of classes may take; without them if it isn't enough. None for any.

    Attributes
    ----------
    sums, classes, parts
        Shapes (g, SUMS, 2), (g, K, OF_CLASS) and (t, g, b, BIN_SUMS) float64, as in
        :mod:`batchmax.kernels.multi_label_metrics`.
    losses
        The histogram of losses of all groups; (0,) if there are several.
    n_counted
        The number of rows with a loss.
    """

    def __init__(self, n_classes: int, n_bins: int, n_groups: int = 1, most_bytes: int | None = None) -> None:
        self.n_classes, self.n_bins, self.n_counted = n_classes, n_bins, 0
        fits = most_bytes is None or 8 * n_groups * n_classes * OF_CLASS <= most_bytes
        tasks = max(1, min(TASKS, n_classes, MOST_BIN_BYTES // (8 * n_groups * n_bins * BIN_SUMS)))
        self.sums = np.zeros((n_groups, SUMS, 2))
        self.classes = np.zeros((n_groups, n_classes if fits else 0, OF_CLASS))
        self.parts = np.zeros((tasks, n_groups, n_bins, BIN_SUMS))
        self.losses: Array = np.zeros(LOSS_BINS if n_groups == 1 else 0, np.int64)

    @property
    def infinite_losses(self) -> int:
        """The number of rows with a loss of +inf."""
        return int(self.totals[INFINITE])

    @property
    def totals(self) -> Array:
        """The sums of all groups, (SUMS,)."""
        return np.asarray(self.sums.sum(axis=(0, 2)))

    @property
    def bins(self) -> Array:
        """The bins of each group, (g, b, BIN_SUMS)."""
        return np.asarray(self.parts.sum(axis=0))

    def add(self, some: EntryMetrics, rows: slice = slice(None), groups: Array = NO_GROUPS) -> None:
        """Add some of the rows; ``groups`` are theirs, int64, or empty."""
        labels, targets = some.labels, some.targets
        labels, targets = labels[rows] if len(labels) else labels, targets[rows] if len(targets) else targets
        weights = some.weights[rows] if len(some.weights) else some.weights
        counted = some.counted[rows]
        self.n_counted += int(np.count_nonzero(counted))
        tally_label_rows(some.nll[rows], some.figures[rows], weights, counted, groups, self.sums, self.losses)
        entries = some.logits[rows], some.probs[rows], some.losses[rows], labels, targets
        tally_entries(*entries, weights, counted, groups, self.classes, self.parts)

    def errors(self) -> dict[str, float | None]:
        """Return the log likelihood and the calibration errors."""
        sums, found = self.totals, calibration_errors(self.bins[:1, :, :3])
        return {name: finite(float(values[0])) for name, values in found.items()} | {
            "log_likelihood": None if sums[INFINITE] or not self.n_counted else finite(-float(sums[LOSS])),
        }

    def reliability(self) -> list[dict[str, Any]]:
        """Return the bins of probabilities: borders, weight of the classes of rows, mean probability, mean target."""
        return bins_as_dicts(self.bins[0, :, :3])


def check_independent(job: Job, **given: Any) -> None:
    """Refuse what isn't computed for rows whose classes are independent; ``given`` has options of one class per row.

    Raises
    ------
    UsageError
        Such an option, or rows that are sequences.
    """
    if job.nesting is not None:
        raise UsageError("sequences with sigmoid can't be evaluated", where="--activation", remedy="leave it out")
    for name, value in given.items():
        refuse_if(value is not None, flag_of(name), "metrics of multi-label rows don't support this", "leave it out")

"""Metrics of rows whose classes are independent: the loss of rows, and Brier score and calibration over all classes.

Knows arrays; doesn't know files or Arrow. A class without a target in a row isn't counted there. A missing metric is
None, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.evaluation.metrics import LOSS_BINS, bins_as_dicts, calibration_errors
from batchmax.functional.losses import perplexities
from batchmax.kernels.metric_sums import BRIER, ENTRIES, FIGURES, INFINITE, LOSS, WEIGHT, tally_classes
from batchmax.options.parsing import refuse_if
from batchmax.scoring.tally import finite

Array = NDArray[Any]

MULTI_LABEL_NOTE = "multi-label: the Brier score and calibration errors are over the classes of all rows"


@dataclass(frozen=True, eq=False)
class EntryMetrics:
    """Metrics of some rows, before they are accumulated.

    Attributes
    ----------
    nll : (n,) float64
        The losses.
    probs : (n, K) float64
    labels : (n,) int64, or (0,)
        The only class of each row with target 1; empty if there are targets.
    targets : (n, K) float64, or (0, K)
        NaN where a target is missing.
    weights : (n,) float64, or (0,) for weights of 1
    counted : (n,) bool
        Whether a row has a loss.
    """

    nll: Array
    probs: Array
    labels: Array
    targets: Array
    weights: Array
    counted: Array


class EntrySums:
    """Sums over all rows; ``n_bins`` is the number of bins of probabilities."""

    def __init__(self, n_bins: int) -> None:
        self._sums, self._bins = np.zeros((FIGURES, 2)), np.zeros((n_bins, 3))
        self._n_counted = 0
        self.losses: Array = np.zeros(LOSS_BINS, np.int64)

    @property
    def infinite_losses(self) -> int:
        """The number of rows with a loss of +inf."""
        return int(self._sums[INFINITE, 0])

    def add(self, some: EntryMetrics) -> None:
        """Add some rows."""
        self._n_counted += int(np.count_nonzero(some.counted))
        rows = some.nll, some.probs, some.labels, some.targets, some.weights, some.counted
        tally_classes(*rows, self._sums, self._bins, self.losses)

    def metrics(self) -> dict[str, Any]:
        """Return the headline metrics; those of one class per row are left out."""
        sums = self._sums.sum(axis=1)
        is_infinite = bool(sums[INFINITE])
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, brier = sums[LOSS] / sums[WEIGHT], sums[BRIER] / sums[ENTRIES]
        errors = calibration_errors(self._bins[np.newaxis])
        return {name: finite(float(values[0])) for name, values in errors.items()} | {
            "mean_loss": None if is_infinite else finite(float(mean)),
            "perplexity": None if is_infinite else finite(float(perplexities(np.array([mean]))[0])),
            "log_likelihood": None if is_infinite or not self._n_counted else finite(-float(sums[LOSS])),
            "brier": finite(float(brier)),
        }

    def reliability(self) -> list[dict[str, Any]]:
        """Return the bins of probabilities: borders, weight of the classes of rows, mean probability, mean target."""
        return bins_as_dicts(self._bins)


def check_independent(by: Sequence[str], top_k: int | Iterable[int] | None, cluster: str | None, job: Job) -> None:
    """Refuse what isn't computed for rows whose classes are independent.

    Raises
    ------
    UsageError
        Groups, top-k accuracy, clusters, or rows that are sequences.
    """
    if job.nesting is not None:
        raise UsageError("sequences with sigmoid can't be evaluated", where="--activation", remedy="leave it out")
    for option, given in (("--by", by), ("--top-k", top_k), ("--cluster", cluster)):
        refuse_if(bool(given), option, "metrics of multi-label rows don't support this", "leave it out")

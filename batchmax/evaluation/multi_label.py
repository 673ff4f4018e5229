"""Metrics of rows whose classes are independent: the loss of rows, and Brier score and calibration over all classes.

Knows arrays; doesn't know files or Arrow. A class without a target in a row isn't counted there. A missing metric is
None, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.evaluation.class_metrics import ratio
from batchmax.evaluation.curves.curves import CurveMethod
from batchmax.evaluation.metrics import LOSS_BINS, bins_as_dicts, calibration_errors, group_metrics
from batchmax.kernels.metric_sums import BRIER, ENTRIES, FIGURES, INFINITE, LOSS, tally_classes
from batchmax.options.parsing import flag_of, refuse_if
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
        of_rows = group_metrics(sums[np.newaxis])
        metrics = {name: of_rows[name] for name in ("mean_loss", "perplexity")}
        metrics |= calibration_errors(self._bins[np.newaxis])
        return {name: finite(float(values[0])) for name, values in metrics.items()} | {
            "log_likelihood": None if sums[INFINITE] or not self._n_counted else finite(-float(sums[LOSS])),
            "brier": ratio(sums[BRIER], sums[ENTRIES]),
        }

    def reliability(self) -> list[dict[str, Any]]:
        """Return the bins of probabilities: borders, weight of the classes of rows, mean probability, mean target."""
        return bins_as_dicts(self._bins)


def check_independent(job: Job, *, method: CurveMethod | None, keeps_points: bool, **given: Any) -> None:
    """Refuse what isn't computed for rows whose classes are independent; ``given`` has options of one class per row.

    Raises
    ------
    UsageError
        Groups, curves, clusters, or another such option, or rows that are sequences.
    """
    if job.nesting is not None:
        raise UsageError("sequences with sigmoid can't be evaluated", where="--activation", remedy="leave it out")
    given |= {"curves": None if method == "none" else method, "curves_out": keeps_points or None}
    for name, value in given.items():
        refuse_if(value is not None, flag_of(name), "metrics of multi-label rows don't support this", "leave it out")

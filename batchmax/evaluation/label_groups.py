"""Metrics of groups of multi-label rows, by the values of a column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.evaluation.groups import PIECE, Groups
from batchmax.evaluation.metrics import calibration_errors
from batchmax.evaluation.multi_label import EntryMetrics
from batchmax.evaluation.multi_label_metrics import OF_ROWS, label_values
from batchmax.kernels.multi_label_metrics import BIN_SUMS, OF_CLASS, SUMS, tally_entries, tally_label_rows

Array = NDArray[Any]

NAMES = ("mean_loss", "perplexity", *OF_ROWS, "micro_f1", "samples_f1", "brier", "ece")


class LabelGroups(Groups):
    """Accumulates the groups of one column; as :class:`batchmax.evaluation.groups.Groups`."""

    metric_fields = tuple(pa.field(name, pa.float64()) for name in NAMES)

    @staticmethod
    def _shapes(n_bins: int, n_counts: int) -> Iterable[tuple[int, ...]]:
        """Return the shapes of the number of rows of a group, of its sums, and of its bins."""
        return (1 + n_counts,), (SUMS, 2), (n_bins, BIN_SUMS)

    def add_labels(self, column: pa.Array, some: EntryMetrics) -> None:
        """Add rows, grouped by this column's values."""
        column, none = self._plain(column), np.zeros((len(self._sums), 0, OF_CLASS))
        (bins,) = self._more
        for start in range(0, len(column), PIECE):
            groups = self._codes(column[start : start + PIECE])
            np.add.at(self._sums[:, 0], groups, 1.0)
            rows = slice(start, start + PIECE)
            labels, targets, weights = (one[rows] for one in (some.labels, some.targets, some.weights))
            of_rows = some.nll[rows], some.figures[rows], weights, some.counted[rows], groups
            tally_label_rows(*of_rows, self._counts, np.zeros(0, np.int64))
            entries = some.logits[rows], some.probs[rows], some.losses[rows], labels, targets
            tally_entries(*entries, weights, some.counted[rows], groups, none, bins[np.newaxis])
            self._limit(int(groups[-1]))

    def _counted(self, numbers: Array) -> dict[str, Array]:
        return {"n_rows": self._sums[numbers, 0].astype(np.int64)}

    def _metrics(self, numbers: Array) -> dict[str, Array]:
        (bins,), sums = self._more, self._counts[numbers].sum(axis=2)
        found = label_values(sums, np.zeros((len(sums), 0, OF_CLASS))) | calibration_errors(bins[numbers][..., :3])
        return {name.replace(".", "_"): values for name, values in found.items()}

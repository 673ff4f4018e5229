"""Metrics of pairs of multi-label rows, whose classes are independent; see ``pair_metrics``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.label_column import LABEL_SETS
from batchmax.columns.result_arrays import classes_column
from batchmax.evaluation.comparison.pair_metrics import MOVED, PairMetrics
from batchmax.evaluation.comparison.pair_sums import PairSums
from batchmax.evaluation.comparison.row_cursor import Side
from batchmax.evaluation.label_result import SOFT_TARGETS
from batchmax.evaluation.multi_label import entry_metrics
from batchmax.jobs.stage import ONE_LABEL
from batchmax.kernels.class_divergence import class_divergence_rows
from batchmax.kernels.multi_label_metrics import SOFT
from batchmax.scoring.multi_label import label_losses

Array = NDArray[Any]

CLASSES = pa.list_(pa.int32())
MOVED_SETS = pa.schema(
    [field.with_type(CLASSES) if field.name in {"label", "pred_a", "pred_b"} else field for field in MOVED]
)
"""Columns kept of a row with a large change: the label and the predictions are lists of classes."""
HALF = 0.5


class LabelPairMetrics(PairMetrics):
    """Sums over pairs of multi-label rows. A prediction is the set of classes with a logit above 0."""

    moved_schema = MOVED_SETS

    def __init__(self, a: Job, b: Job, worst: int, changes: PairSums | None = None) -> None:
        super().__init__(a, b, worst, changes)
        self.has_classes = False
        label = next((job.label for job in (a, b) if job.label is not None), None)
        self._has_sets = label is not None and label.kind in LABEL_SETS
        self._n_with_one_label, self._is_soft = 0, False

    def warnings(self) -> list[str]:
        """Return warnings about the labels."""
        found = [SOFT_TARGETS] if self._is_soft else []
        return [*found, ONE_LABEL] if self._has_sets and self._n_with_one_label == self.counted > 0 else found

    def _divergence(self, a: Side, b: Side) -> Array:
        kl = np.empty(len(a.status))
        class_divergence_rows(a.matrix, b.matrix, *self._betas, kl)
        return kl

    def _with_losses(self, a: Side, b: Side, counted: Array) -> tuple[Side, Side, Array, Array]:
        owner = b if a.nll is None else a
        losses = []
        for side, beta in zip((a, b), self._betas, strict=True):
            entries = np.empty(side.matrix.shape)
            loss, counts = label_losses(side.matrix, owner.labels, owner.targets, beta, entries=entries)
            losses.append((loss, entries))
        self._n_with_one_label += int(np.count_nonzero((counts == 1) & counted))
        if self._changes is not None:
            labels, none = (owner.labels, owner.targets), np.zeros(0)
            sides = zip((a, b), self._betas, losses, strict=True)
            of_a, of_b = (entry_metrics(side.matrix, *labels, beta, loss, none, counted) for side, beta, loss in sides)
            self._changes.add(of_a, of_b, (), a)
            self._is_soft |= bool((of_a.figures[counted, SOFT] > 0).any())
        return a, b, losses[0][0], losses[1][0]

    def _same(self, a: Side, b: Side) -> Array:
        return np.asarray(((a.matrix > 0.0) == (b.matrix > 0.0)).all(axis=1))

    def _classes(self, a: Side, b: Side, rows: Array) -> list[Any]:
        owner = b if a.nll is None else a
        is_label = None
        if owner.targets is not None:
            is_label = owner.targets[rows] > HALF
        elif owner.labels is not None:
            is_label = owner.labels[rows][:, np.newaxis] == np.arange(a.matrix.shape[1])
        sets = (is_label, a.matrix[rows] > 0.0, b.matrix[rows] > 0.0)
        return [None if one is None else classes_column(one) for one in sets]

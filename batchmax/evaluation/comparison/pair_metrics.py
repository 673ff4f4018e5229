"""Metrics of pairs of rows: losses, flips, KL divergence, and the rows with the largest change.

Arrays in, sums out. Knows jobs and matrices; doesn't know files or how rows were paired.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.labels import IGNORED_INDEX
from batchmax.evaluation.comparison.pair_sums import PairSums
from batchmax.evaluation.comparison.row_cursor import Side
from batchmax.evaluation.metrics import RowMetrics, row_metrics
from batchmax.evaluation.top_rows import TopRows
from batchmax.functional.losses import Rows, dense_losses, softmax_rows
from batchmax.kernels.compensated_sums import sum_counted
from batchmax.kernels.kl_divergence import divergence_rows
from batchmax.statuses import LAST_BAD, LAST_WITHOUT_LOSS

Array = NDArray[Any]

MOVED = pa.schema(
    {
        "number_a": pa.int64(),
        "number_b": pa.int64(),
        "label": pa.int64(),
        "pred_a": pa.int32(),
        "pred_b": pa.int32(),
        "loss_a": pa.float64(),
        "loss_b": pa.float64(),
        "kl": pa.float64(),
    }
)
"""Columns kept of a row with a large change; row numbers count over all files of an input."""

MOVED_TOKENS = pa.schema([*list(MOVED)[:2], pa.field("token", pa.int64()), *list(MOVED)[2:]])
"""Columns kept of a token with a large change: also the token's position, which is the same in both rows."""


class PairMetrics:
    """Sums over pairs.

    Parameters
    ----------
    a, b
        How the two inputs are read. If one has no labels, the labels of the other are used for both.
    worst
        How many of the rows with the largest change to keep.
    changes
        The sums for changes of metrics to add to, or None.

    Attributes
    ----------
    pairs, bad, counted
        Number of pairs of rows or tokens, of pairs that are bad in either input, and of pairs that have a loss in both.
    agreed
        Number of pairs with the same prediction.
    hits, losses
        For a and b: the number of correct predictions, and the sums of losses as made by ``sum_counted``.
    right_to_wrong, wrong_to_right
        Number of predictions that are correct in a alone, and in b alone.
    divergence
        Sums of the KL divergence KL(a || b).
    different_labels, first_difference
        Number of pairs with different labels; the row numbers of the first such pair, and its position in the rows if
        it is a pair of tokens, otherwise None.
    """

    moved_schema = MOVED

    def __init__(self, a: Job, b: Job, worst: int, changes: PairSums | None = None) -> None:
        self._changes = changes
        labels = [job.label for job in (a, b) if job.label is not None]
        self.pairs = self.bad = self.counted = self.agreed = self.right_to_wrong = self.wrong_to_right = 0
        self.different_labels = 0
        self.first_difference: tuple[int, int, int | None] | None = None
        self.hits = [0, 0]
        self.losses = (np.zeros(3), np.zeros(3))
        self.divergence = np.zeros(3)
        self.has_labels = bool(labels)
        self.of_tokens = a.nesting is not None
        self.has_classes = bool(labels) and labels[0].has_class
        self._betas = a.options.beta, b.options.beta
        self._both_labelled = len(labels) == 2
        self._schema = self.moved_schema if a.nesting is None else MOVED_TOKENS
        self._top = TopRows(worst, self._schema, a.options.memory_limit // 4)

    @property
    def moved(self) -> pa.Table:
        """The rows with the largest change of loss, the largest first; without labels, of KL divergence."""
        return self._top.table

    def warnings(self) -> list[str]:
        """Return warnings about the labels."""
        return []

    def add(self, a: Side, b: Side) -> None:
        """Add some pairs."""
        good = (a.status > LAST_BAD) & (b.status > LAST_BAD)
        self.pairs += len(good)
        self.bad += int(np.count_nonzero(~good))
        kl = self._divergence(a, b)
        sum_counted(kl, good, self.divergence)
        if not self.has_labels:
            self._agree(a, b, good)
            self._keep(a, b, np.where(good, kl, 0.0), None, None, kl)
            return
        counted = (a.status > LAST_WITHOUT_LOSS) & (b.status > LAST_WITHOUT_LOSS)
        self.counted += int(np.count_nonzero(counted))
        if self._both_labelled:
            self._compare_labels(a, b, counted)
        a, b, loss_a, loss_b = self._with_losses(a, b, counted)
        for loss, sums in zip((loss_a, loss_b), self.losses, strict=True):
            sum_counted(loss, counted, sums)
        self._agree(a, b, good)
        with np.errstate(invalid="ignore"):
            change = np.where(loss_a == loss_b, 0.0, np.abs(loss_b - loss_a))
        self._keep(a, b, np.where(counted, change, 0.0), loss_a, loss_b, kl)

    def _with_losses(self, a: Side, b: Side, counted: Array) -> tuple[Side, Side, Array, Array]:
        """Add the hits, and the sums for changes; return the rows with predictions, and the losses of both."""
        loss_a, hits_a = _losses_of(a, b, self._betas[0])
        loss_b, hits_b = _losses_of(b, a, self._betas[1])
        if hits_a is not None and hits_b is not None:
            self._count_hits(hits_a & counted, hits_b & counted)
        if self._changes is not None:
            of_a = _metrics_of(a, b, loss_a, self._betas[0], counted)
            of_b = _metrics_of(b, a, loss_b, self._betas[1], counted)
            matrices = (a.matrix, b.matrix) if self.has_classes else ()
            self._changes.add(of_a, of_b, matrices, a)
            if self.has_classes:
                a, b = replace(a, pred=of_a.pred), replace(b, pred=of_b.pred)
        return a, b, loss_a, loss_b

    def _agree(self, a: Side, b: Side, good: Array) -> None:
        self.agreed += int(np.count_nonzero(self._same(a, b) & good))

    def _same(self, a: Side, b: Side) -> Array:
        """Return whether predictions are the same."""
        assert a.pred is not None  # noqa: S101 - computed for the input, or here for changes
        return np.asarray(a.pred == b.pred)

    def _divergence(self, a: Side, b: Side) -> Array:
        matrices = a.matrix, b.matrix
        if matrices[0].dtype != matrices[1].dtype:
            matrices = a.matrix.astype(np.float64, copy=False), b.matrix.astype(np.float64, copy=False)
        kl = np.empty(len(a.status))
        divergence_rows(*matrices, *self._betas, kl)
        return kl

    def _compare_labels(self, a: Side, b: Side, counted: Array) -> None:
        differ = _different(a, b) & counted
        if not differ.any():
            return
        if self.first_difference is None:
            row = int(np.argmax(differ))
            place = None if a.places is None else int(a.places[row])
            self.first_difference = int(a.numbers[row]), int(b.numbers[row]), place
        self.different_labels += int(np.count_nonzero(differ))

    def _count_hits(self, a: Array, b: Array) -> None:
        self.hits[0] += int(np.count_nonzero(a))
        self.hits[1] += int(np.count_nonzero(b))
        self.right_to_wrong += int(np.count_nonzero(a & ~b))
        self.wrong_to_right += int(np.count_nonzero(b & ~a))

    def _keep(self, a: Side, b: Side, moved: Array, loss_a: Array | None, loss_b: Array | None, kl: Array) -> None:
        def columns(rows: Array) -> list[pa.Array]:
            places = () if a.places is None else (a.places,)
            found = [None if one is None else one[rows] for one in (a.numbers, b.numbers, *places)]
            found += self._classes(a, b, rows)
            found += [None if one is None else one[rows] for one in (loss_a, loss_b, kl)]
            return [
                array if isinstance(array, pa.Array) else _column(array, field.type, len(rows))
                for array, field in zip(found, self._schema, strict=True)
            ]

        self._top.add(np.where(moved > 0.0, moved, np.nan), columns)

    def _classes(self, a: Side, b: Side, rows: Array) -> list[Any]:
        """Return the labels of some rows, and the predictions of both; None if they aren't known."""
        labels = b.labels if a.labels is None else a.labels
        return [None if one is None else one[rows] for one in (labels, a.pred, b.pred)]


def _different(a: Side, b: Side) -> Array:
    """Return whether labels, which are of one kind, differ."""
    if a.labels is not None:
        return np.asarray(a.labels != b.labels)
    assert a.targets is not None  # noqa: S101 - as checked by the caller
    assert b.targets is not None  # noqa: S101
    of_a, of_b = a.targets.astype(np.float32), b.targets.astype(np.float32)
    # Of multi-label rows, NaN is a missing target.
    return np.asarray(((of_a != of_b) & ~(np.isnan(of_a) & np.isnan(of_b))).any(axis=1))


def _column(array: Array | None, kind: pa.DataType, n: int) -> pa.Array:
    return pa.nulls(n, kind) if array is None else pa.array(array, kind)


def _losses_of(side: Side, other: Side, beta: float) -> tuple[Array, Array | None]:
    """Return the losses and hits of one side, with its own labels, or the other's if it has none."""
    if side.nll is not None:
        return side.nll, side.hits
    # Rows without a label of their own are excluded by their status, not by their label index.
    rows = softmax_rows(side.matrix, beta, labels=other.labels, ignore_index=IGNORED_INDEX)
    if other.targets is None:
        return rows.nll, rows.hits
    targets = other.targets.astype(side.matrix.dtype, copy=False)
    return dense_losses(side.matrix, rows, beta, targets, None, 0.0), None


def _metrics_of(side: Side, other: Side, nll: Array, beta: float, counted: Array) -> RowMetrics:
    """Return the row metrics of one side, with its own labels, or the other's if it has none."""
    owner = other if side.nll is None else side
    targets = None if owner.targets is None else np.ascontiguousarray(owner.targets, side.matrix.dtype)
    assert side.maxima is not None  # noqa: S101 - the activation is softmax
    assert side.rests is not None  # noqa: S101
    rows = Rows(side.maxima, side.rests, nll, np.zeros(0, np.bool_), side.status)
    some = row_metrics(side.matrix, None if targets is not None else owner.labels, targets, beta, rows, np.zeros(0))
    return replace(some, counted=counted)

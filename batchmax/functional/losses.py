"""Runs the softmax kernel on matrices, and computes the loss of each row from its results.

Used by the NumPy API and by the scoring of batches, which pass an allocator of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.elementwise import exp_values, log1p_values
from batchmax.kernels.soft_targets import soft_cross_entropy
from batchmax.kernels.softmax.softmax_rows import fill_softmax
from batchmax.runtime.buffers import Take
from batchmax.statuses import Status

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Results of the softmax kernels for n rows; see ``kernels.softmax.softmax_float64``."""

    maxima: Array
    rests: Array
    nll: Array
    hits: Array
    status: Array

    @property
    def log_sums(self) -> Array:
        """log(sum(exp(x - max))) of each row, (n,) float64."""
        values = np.empty(len(self.rests))
        log1p_values(self.rests, values)
        return values


def perplexities(mean_losses: Array) -> Array:
    """Return exp of (n,) float64 mean losses in nats."""
    values = np.empty(len(mean_losses))
    exp_values(mean_losses, values)
    return values


def softmax_rows(
    matrix: Array,
    beta: float,
    *,
    labels: Array | None = None,
    ignore_index: int = -100,
    probs: Array | None = None,
    log_probs: Array | None = None,
    status: Array | None = None,
    take: Take = np.empty,
) -> Rows:
    """Run the softmax kernel on a read-only (n, K) matrix with K >= 1, and return its results.

    ``probs`` and ``log_probs`` are filled if given. ``labels`` are int64. ``status`` has statuses that are already
    known; the kernel lowers them in place.
    """
    n, k = matrix.shape
    unwanted = np.empty((0, k), matrix.dtype)
    if status is None:
        status = take((n,), np.uint8)
        status.fill(Status.OK)
    rows = Rows(
        maxima=take((n,), np.float64),
        rests=take((n,), np.float64),
        nll=take((0 if labels is None else n,), np.float64),
        hits=take((0 if labels is None else n,), np.bool_),
        status=status,
    )
    fill_softmax(
        matrix,
        np.empty(0, np.int64) if labels is None else labels,
        beta,
        ignore_index,
        unwanted if probs is None else probs,
        unwanted if log_probs is None else log_probs,
        rows.maxima,
        rows.rests,
        rows.nll,
        rows.hits,
        rows.status,
    )
    return rows


def index_losses(
    matrix: Array,
    rows: Rows,
    beta: float,
    labels: Array,
    weights: Array | None,
    label_smoothing: float,
    ignore_index: int,
    take: Take = np.empty,
) -> Array:
    """Return the (n,) float64 losses for class indices, given the results of the softmax kernel.

    The loss is NaN for a label that isn't a class, and 0 for an ignored label. Without weights and smoothing, this is
    ``rows.nll`` itself.
    """
    if weights is None and label_smoothing == 0.0:
        return rows.nll
    k = matrix.shape[1]
    classes = np.where((labels >= 0) & (labels < k) & (labels != ignore_index), labels, 0)
    factors = 1.0 if weights is None else weights[classes]
    with np.errstate(invalid="ignore"):
        # An infinite loss with weight 0 adds 0, as for a target distribution.
        losses = np.where(factors == 0.0, np.where(np.isnan(rows.nll), np.nan, 0.0), rows.nll * factors)
    if label_smoothing != 0.0:
        uniform = dense_losses(matrix, rows, beta, None, weights, label_smoothing, take)
        share = 1.0 - label_smoothing
        losses = (losses * share if share else np.where(np.isnan(losses), np.nan, 0.0)) + uniform
        losses[labels == ignore_index] = 0.0
    return losses


def dense_losses(
    matrix: Array,
    rows: Rows,
    beta: float,
    targets: Array | None,
    weights: Array | None,
    label_smoothing: float,
    take: Take = np.empty,
) -> Array:
    """Return the (n,) float64 losses for target distributions, or without ``targets`` the uniform part of smoothing."""
    n, k = matrix.shape
    losses = take((n,), np.float64)
    if targets is None:
        targets = np.empty((0, k), matrix.dtype)
    soft_cross_entropy(
        matrix,
        targets,
        np.ones(k) if weights is None else weights,
        label_smoothing,
        beta,
        rows.maxima,
        rows.rests,
        losses,
    )
    return losses

"""Computes the outputs of an activation whose classes are independent, such as sigmoid: arrays in, arrays out.

Labels are a target for each class, or one class per row, whose target is 1 while all others are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS, LOSSES, LossName
from batchmax.columns.job import Job
from batchmax.columns.label_column import Labels
from batchmax.kernels.multi_label import multi_label_losses, sigmoid_rows
from batchmax.runtime.buffers import Take
from batchmax.statuses import LAST_WITHOUT_LOSS, Status

Array = NDArray[Any]


def activate_classes(logits: Array, status: Array, job: Job, take: Take) -> dict[str, Array]:
    """Return the outputs of (n, K) float64 logits that need no label; set the status of rows with a NaN."""
    values: dict[str, Array] = {}
    probs = take(logits.shape if "probs" in job.outputs else (0, logits.shape[1]), np.float64)
    defined = take((len(logits),), np.bool_)
    sigmoid_rows(logits, job.options.beta, probs, defined)
    np.minimum(status, np.uint8(Status.NAN_LOGIT), out=status, where=~defined)
    if "probs" in job.outputs:
        values["probs"] = probs
    if "preds" in job.outputs:
        # By logits: a probability just above 0.5 would round to 0.5.
        values["preds"] = np.greater(logits, 0, out=take(logits.shape, np.bool_))
    return values


def check_indices(labels: Labels, n_classes: int, status: Array) -> None:
    """Set the status of rows whose class index is out of range or ignored."""
    if labels.indices is None:
        return
    is_known = np.True_ if labels.status is None else labels.status == Status.OK
    is_ignored = is_known & (labels.indices == labels.ignore_index)
    is_bad = is_known & ~is_ignored & ((labels.indices < 0) | (labels.indices >= n_classes))
    for rows, one in ((is_ignored, Status.IGNORED), (is_bad, Status.BAD_LABEL)):
        np.minimum(status, np.uint8(one), out=status, where=rows)


def class_losses(
    logits: Array, labels: Labels, status: Array, job: Job, take: Take
) -> tuple[dict[str, Array], Array, Array]:
    """Return the outputs that need labels, the negative log-likelihoods, and the numbers of labels of rows.

    The status of rows with an infinite loss becomes ``MASKED_LABEL``. Rows without a loss have undefined results.
    """
    likelihood = ACTIVATIONS[job.options.activation_name].likelihood
    loss = job.options.loss_name
    entries = take(logits.shape if "losses" in job.outputs else (0, logits.shape[1]), np.float64)
    given = logits, labels.indices, labels.targets, job.options.beta
    losses, counts = label_losses(
        *given, entries=entries, loss=loss, weights=job.class_weights, pos_weights=job.pos_weights, take=take
    )
    nll = losses
    if loss != likelihood or job.class_weights is not None or job.pos_weights is not None:
        nll, counts = label_losses(*given, entries=np.empty((0, logits.shape[1])), loss=likelihood, take=take)
    infinite = (nll if loss == likelihood else losses) == np.inf
    status[infinite & (status == Status.OK)] = Status.MASKED_LABEL
    values = {"loss": losses} | ({"losses": entries} if "losses" in job.outputs else {})
    return values, nll, counts


def has_one_label(counts: Array, status: Array) -> int:
    """Return how many of the rows with a loss have exactly one label."""
    return int(np.count_nonzero((counts == 1) & (status > LAST_WITHOUT_LOSS)))


def label_losses(
    logits: Array,
    indices: Array | None,
    targets: Array | None,
    beta: float,
    *,
    entries: Array,
    loss: LossName = "binary_cross_entropy",
    weights: Array | None = None,
    pos_weights: Array | None = None,
    take: Take = np.empty,
) -> tuple[Array, Array]:
    """Return the losses of rows, (n,) float64, and their numbers of labels, (n,) int64.

    Parameters
    ----------
    logits : (n, K)
    indices, targets
        The classes of rows, (n,) int64, or targets of all classes, (n, K) float64; the other is None.
    beta
        The inverse temperature.
    entries
        Becomes the losses of classes, (n, K) float64; without rows, these aren't kept.
    loss
        The loss function.
    weights, pos_weights
        The factors of classes, (K,) float64; None for 1.
    take
        Allocator of memory for the results.
    """
    n, k = logits.shape
    ones = np.ones(k)
    losses, counts = take((n,), np.float64), take((n,), np.int64)
    multi_label_losses(
        logits,
        np.empty(0, np.int64) if indices is None else indices,
        np.empty((0, k)) if targets is None else targets,
        beta,
        LOSSES[loss].number,
        ones if weights is None else weights,
        ones if pos_weights is None else pos_weights,
        entries,
        losses,
        counts,
    )
    return losses, counts

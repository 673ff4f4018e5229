"""Computes activations other than softmax, and losses other than cross-entropy: arrays in, arrays out.

All are distributions; module ``multi_label`` has activations with independent classes.

The probabilities of an activation are the softmax of their own logarithms, so the softmax kernels compute all outputs
from these logarithms. Only the status of a row follows from its logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS, LOSSES, LossName
from batchmax.columns.label_column import Labels
from batchmax.kernels.activations import activate_rows, loss_rows
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.buffers import Take
from batchmax.statuses import LAST_WITHOUT_LOSS, Status

Array = NDArray[Any]


def activate(logits: Array, options: ScoreOptions, take: Take) -> tuple[Array, Array]:
    """Return the probabilities of (n, K) float64 logits, and their logarithms; NaN in rows without a result."""
    probs, logs = take(logits.shape, logits.dtype), take(logits.shape, logits.dtype)
    activate_rows(logits, ACTIVATIONS[options.activation_name].number, options.beta, probs, logs)
    return probs, logs


def correct_statuses(status: Array, logits: Array) -> None:
    """Correct in place the statuses that the softmax kernel derived from the logarithms of an activation."""
    # A class may have probability 0 without being masked.
    status[status == Status.MASKED_LABEL] = Status.OK
    undefined = np.flatnonzero(status == Status.NAN_LOGIT)
    if len(undefined):
        rows = logits[undefined]
        reasons = [np.isnan(rows).any(axis=1), (rows == np.inf).any(axis=1), (rows == -np.inf).all(axis=1)]
        status[undefined] = np.select(
            reasons, [Status.NAN_LOGIT, Status.INF_LOGIT, Status.ALL_MASKED], default=Status.NO_ANSWER
        )


def other_losses(
    logits: Array,
    labels: Labels,
    status: Array,
    options: ScoreOptions,
    usual: tuple[Array, Array],
    take: Take,
) -> tuple[Array, Array]:
    """Return the negative log-likelihoods and the losses of (n, K) float64 logits, (n,) float64 each.

    ``usual`` has both for a distribution and cross-entropy. Rows without a loss according to ``status`` have undefined
    results.
    """
    nll, losses = usual
    if options.loss_name != "cross_entropy":
        losses = _losses(logits, labels, status, options, options.loss_name, take)
    return nll, losses


def _losses(logits: Array, labels: Labels, status: Array, options: ScoreOptions, loss: LossName, take: Take) -> Array:
    n, k = logits.shape
    targets = np.empty((0, k)) if labels.targets is None else labels.targets
    indices = np.zeros(n if labels.targets is None else 0, np.int64)
    if labels.indices is not None:
        np.copyto(indices, labels.indices, where=status > LAST_WITHOUT_LOSS)
    found = take((n,), np.float64)
    activation = ACTIVATIONS[options.activation_name].number
    loss_rows(logits, indices, targets, activation, LOSSES[loss].number, options.beta, found, np.empty((0, k)))
    return found

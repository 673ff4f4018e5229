"""Computes activations and losses other than softmax and cross-entropy: from matrices to matrices and losses of rows.

An activation that yields a distribution is the softmax of the logarithms of its probabilities, so all outputs of
softmax are computed from these logarithms. Only the status of a row follows from its logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import LAST_WITHOUT_LOSS, Status
from batchmax.runtime.buffers import Take

Array = NDArray[Any]


def activated(matrix: Array, activation: str, beta: float, take: Take = np.empty) -> tuple[Array, Array]:
    """Return an activation of (n, K) float64 logits and its logarithms; NaN in rows without a result.

    For sigmoid, the second matrix has no logarithms, but values that increase with the probabilities.
    """
    probs, logs = take(matrix.shape, matrix.dtype), take(matrix.shape, matrix.dtype)
    kernels.activate_rows(matrix, int(ACTIVATIONS[activation].number), beta, probs, logs)
    return probs, logs


def mend_statuses(status: Array, matrix: Array) -> None:
    """Correct in place the statuses that the softmax kernel derived from the logarithms of an activation."""
    # A class may have probability 0 without being masked.
    status[status == Status.MASKED_LABEL] = Status.OK
    without = np.flatnonzero(status == Status.NAN_LOGIT)
    if len(without):
        odd = matrix[without]
        reasons = [np.isnan(odd).any(axis=1), (odd == np.inf).any(axis=1), (odd == -np.inf).all(axis=1)]
        status[without] = np.select(
            reasons, [Status.NAN_LOGIT, Status.INF_LOGIT, Status.ALL_MASKED], default=Status.NO_ANSWER
        )


def other_losses(
    matrix: Array,
    labels: Array | None,
    targets: Array | None,
    status: Array,
    options: ScoreOptions,
    usual: tuple[Array, Array],
    take: Take = np.empty,
) -> tuple[Array, Array]:
    """Return the (n,) float64 losses that likelihoods are computed from, and those of ``--loss``.

    Parameters
    ----------
    matrix
        (n, K) float64 logits.
    labels, targets
        (n,) class indices, or (n, K) target distributions.
    status
        Statuses of the rows; both results are undefined for rows without a loss.
    usual
        Both results for cross-entropy, computed from the logarithms of the probabilities.
    """
    plain, losses = usual
    how = (matrix, labels, targets, status, options.activation, options.beta)
    if options.loss_name != "cross_entropy":
        losses = _losses(*how, options.loss_name, take)
    if not ACTIVATIONS[options.activation].is_distribution:
        # Classes are independent: their likelihoods multiply.
        likely = ACTIVATIONS[options.activation].losses[0]
        plain = losses if options.loss_name == likely else _losses(*how, likely, take)
    return plain, losses


def _losses(
    matrix: Array,
    labels: Array | None,
    targets: Array | None,
    status: Array,
    activation: str,
    beta: float,
    loss: str,
    take: Take,
) -> Array:
    n, k = matrix.shape
    indices = np.zeros(n if targets is None else 0, np.int64)
    if labels is not None:
        np.copyto(indices, labels, where=status > LAST_WITHOUT_LOSS)
    found = take((n,), np.float64)
    numbers = int(ACTIVATIONS[activation].number), int(LOSSES[loss])
    wanted = np.empty((0, k)) if targets is None else targets
    kernels.loss_rows(matrix, indices, wanted, *numbers, beta, found, np.empty((0, k)))
    return found

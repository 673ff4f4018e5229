"""Rows under another activation or loss than the usual ones: matrices in, matrices and one number a row out.

An activation whose numbers sum to 1 is softmax of their logarithms, so everything that is computed of softmax is
computed of those. Only the status of a row follows from its logits.
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
    """Return what an activation makes of (n, K) float64 logits, and its logarithms; NaN in rows without an answer.

    Under sigmoid, each class for itself, the second is numbers in the order of the first.
    """
    probs, logs = take(matrix.shape, matrix.dtype), take(matrix.shape, matrix.dtype)
    kernels.activate_rows(matrix, int(ACTIVATIONS[activation].number), beta, probs, logs)
    return probs, logs


def mend_statuses(status: Array, matrix: Array) -> None:
    """Say in place what is odd about rows, given the statuses of their logarithms."""
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
    """Return the (n,) float64 losses of which a likelihood is made, and those that were asked for.

    Parameters
    ----------
    matrix
        (n, K) float64 logits.
    labels, targets
        (n,) class indices, or (n, K).
    status
        Of rows without a loss, both are anything.
    usual
        Both, as they follow from the logarithms of the probabilities.
    """
    plain, losses = usual
    how = (matrix, labels, targets, status, options.activation, options.beta)
    if options.loss_name != "cross_entropy":
        losses = _losses(*how, options.loss_name, take)
    if not ACTIVATIONS[options.activation].is_distribution:
        # Each class for itself: their likelihoods multiply.
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

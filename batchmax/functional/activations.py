"""Alternatives to softmax and cross-entropy, to compare them on the same logits.

With x = z / T, K classes and the label y (or a target distribution t):

=============  ======================================  ==============================================================
activation     p_j                                     rows without a result
=============  ======================================  ==============================================================
``softmax``    exp(x_j) / Σ exp(x_k)                   a NaN, a +inf, nothing but -inf
``argmax``     1 for the first of the largest, else 0  the same; softmax tends to it as T tends to 0
``sigmoid``    1 / (1 + exp(-x_j))                     a NaN; classes are independent, so p need not sum to 1
``sum``        z_j / Σ z_k                             the sum is 0, or the signs differ, or one is infinite; T cancels
``taylor``     (1 + x_j + x_j²/2) / Σ …                one is infinite
``spherical``  x_j² / Σ x_k²                           all are 0, or one is infinite; -z gives the same as z
=============  ======================================  ==============================================================

=========================  ======================================================  ================================
loss                       of a row                                                activations
=========================  ======================================================  ================================
``cross_entropy``          -log p_y, or -Σ t_j log p_j                              softmax, sum, taylor, spherical
``binary_cross_entropy``   -Σ (t_j log p_j + (1 - t_j) log(1 - p_j))                sigmoid; several t_j may be 1
``mse`` (``brier``)        Σ (p_j - t_j)²                                           all
``hinge``                  max(0, 1 + max over j ≠ y of x_j - x_y)                  softmax, argmax: of the logits
``squared_hinge``          its square                                              softmax, argmax
=========================  ======================================================  ================================

Softmax is used with cross-entropy because of the gradient where the model is confidently wrong (p_y near 0, another p_j
near 1). The gradient of cross-entropy is (p - t) / T: its size stays at about 1 however wrong the row is, because the
logarithm cancels the exponential. The gradient of the squared error has a factor p_j (1 - p_j), which vanishes there:
the rows with the largest errors get the smallest updates. Cross-entropy of ``sum`` and ``spherical`` grows without
bound as z_y tends to 0.

See Also
--------
de Brébisson and Vincent 2016, "An exploration of softmax alternatives belonging to the spherical loss family",
arXiv 1511.05042, for ``taylor`` and ``spherical`` (the paper adds a small constant to each square; this module
doesn't); ``sklearn.metrics.hinge_loss``; ``torch.nn.functional.binary_cross_entropy_with_logits``, a mean over classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from batchmax.activations import ACTIVATIONS, LOSSES, Activation, ActivationName, LossName, loss_of
from batchmax.functional.arguments import Lines, Reduction, check_reduction, class_indices
from batchmax.functional.losses import Array
from batchmax.kernels.activations import activate_rows, loss_rows
from batchmax.kernels.compiler.dispatch import standard_floats


@standard_floats()
def activate(
    logits: ArrayLike, activation: ActivationName = "softmax", *, axis: int = -1, temperature: float = 1.0
) -> Array:
    """Return an activation of logits along an axis; see :mod:`batchmax.functional.activations` for the formulas.

    Parameters
    ----------
    logits
        An array of any shape with at least one axis. Computed in float64; the result is float32 for float32 and
        float16, otherwise float64.
    activation
        Name of the activation.
    axis
        The axis of the classes.
    temperature
        T > 0: the logits are divided by it.

    Returns
    -------
    ndarray
        The values p, of the shape of ``logits``; NaN in rows without a result.

    Raises
    ------
    TypeError
        The logits aren't real numbers.
    ValueError
        The name is unknown, or the axis or the temperature is invalid.

    See Also
    --------
    batchmax.softmax : The same as ``activation="softmax"``, within 3 ULP and faster.

    Examples
    --------
    >>> import batchmax
    >>> batchmax.activate([10.0, 20.0], "sum").round(4).tolist()
    [0.3333, 0.6667]
    """
    number = _activation(activation).number
    view = Lines(logits, axis, temperature)
    z = _wide(view)
    probs = np.empty_like(z)
    if z.size:
        activate_rows(z, number, view.beta, probs, np.empty((0, z.shape[1])))
    return view.restored(probs)


@standard_floats()
def loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    activation: ActivationName = "softmax",
    loss: LossName | None = None,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: Reduction = "none",
    grad: bool = False,
) -> Any:
    """Return the loss of each row, and with ``grad`` the gradient; see :mod:`batchmax.functional.activations`.

    Parameters
    ----------
    logits, axis, temperature
        As for :func:`activate`.
    labels
        Class indices, of the shape of ``logits`` without ``axis``; or targets, floats of the shape of ``logits``,
        except for ``hinge`` and ``squared_hinge``. For ``sigmoid``, several targets of a row may be 1.
    activation, loss
        Names of a compatible pair. ``loss`` defaults to the first loss listed for the activation.
    reduction
        ``"none"``, ``"mean"`` or ``"sum"`` over rows.
    grad
        Whether to return the gradient of the (reduced) loss with respect to the logits as well.

    Returns
    -------
    ndarray, number or tuple
        The losses, or (losses, gradient). Losses have the shape of the rows, or are a number if reduced; the gradient
        has the shape of ``logits``. NaN in rows without a result.

    Raises
    ------
    TypeError
        The logits aren't real numbers, or the labels are neither integers nor targets.
    IndexError
        A label isn't a class.
    ValueError
        A name is unknown, a pair is incompatible, shapes don't match, or there are no classes.

    Examples
    --------
    >>> import batchmax
    >>> losses, gradient = batchmax.loss([[8.0, 0.0]], [1], grad=True)
    >>> gradient.round(3).tolist()
    [[1.0, -1.0]]
    >>> batchmax.loss([[8.0, 0.0]], [1], loss="mse", grad=True)[1].round(3).tolist()
    [[0.001, -0.001]]
    """
    number, name = _activation(activation).number, loss_of(activation, loss)
    check_reduction(reduction)
    view = Lines(logits, axis, temperature)
    z = _wide(view)
    n, k = z.shape
    if k == 0:
        raise ValueError("a loss needs at least one class")
    indices, targets = _labels(labels, view)
    if len(targets) and LOSSES[name].needs_class:
        raise ValueError(f"loss {name!r} needs class indices, not targets")
    losses, gradients = np.empty(n), np.empty((n if grad else 0, k))
    loss_rows(z, indices, targets, number, LOSSES[name].number, view.beta, losses, gradients)
    share = 1.0 / n if reduction == "mean" and n else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        result: Any
        if reduction == "none":
            result = losses.astype(view.dtype, copy=False).reshape(view.row_shape)[()]
        else:
            result = view.dtype.type(losses.sum() * share if n or reduction == "sum" else math.nan)
        return (result, view.restored(gradients * share)) if grad else result


def _activation(name: ActivationName) -> Activation:
    if name not in ACTIVATIONS:
        raise ValueError(f"there is no activation {name!r}; choose {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _wide(view: Lines) -> Array:
    with np.errstate(invalid="ignore"):  # making a signaling NaN quiet sets the invalid flag
        return view.matrix.astype(np.float64, copy=False)


def _labels(labels: ArrayLike, view: Lines) -> tuple[Array, Array]:
    """Return (indices, empty targets) or (empty indices, targets)."""
    given, k = np.asarray(labels), view.matrix.shape[1]
    if given.dtype.kind == "f" and given.ndim == view.logits.ndim:
        if given.shape != view.logits.shape:
            raise ValueError(f"targets have shape {given.shape}, but must have shape {view.logits.shape}")
        targets = np.moveaxis(given, view.axis, -1).reshape(-1, k)
        return np.empty(0, np.int64), np.ascontiguousarray(targets, np.float64)
    return class_indices(given, view), np.empty((0, k))

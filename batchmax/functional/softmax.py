"""The NumPy API of softmax and cross-entropy: checks arguments, allocates results, calls the kernels.

Functions accept any shape, axis and strides, and pass to the kernels a read-only, C-contiguous (n, K) matrix of float32
or float64. Doesn't know Arrow or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from batchmax.functional.arguments import Lines, Reduction, check_reduction, class_indices
from batchmax.functional.losses import Array, dense_losses, index_losses, softmax_rows
from batchmax.kernels.compiler.dispatch import standard_floats
from batchmax.runtime.buffers import Buffers


@standard_floats()
def softmax(logits: ArrayLike, *, axis: int = -1, temperature: float = 1.0, out: Array | None = None) -> Array:
    """Return exp(z / T) / sum(exp(z / T)) along an axis, within 3 ULP at any number of classes.

    Parameters
    ----------
    logits
        An array of any shape with at least one axis. float32 and float64 keep their type; float16 becomes float32;
        integers become float64, which rounds those above 2**53.
    axis
        The axis of the classes.
    temperature
        T > 0. Computed with beta = 1 / T, rounded to float64 once; the accuracy is relative to this beta.
    out
        An array for the result, of its shape and type. It may overlap the memory of ``logits``.

    Returns
    -------
    ndarray
        The probabilities, of the shape of ``logits``. A row (a line along ``axis``) with a NaN or +inf, or with only
        -inf, is NaN.

    Raises
    ------
    TypeError
        The logits aren't real numbers, or ``out`` has another type.
    ValueError
        The axis, the temperature, or the shape of ``out`` is invalid.

    Notes
    -----
    Unlike in ``scipy.special.softmax``, ``axis`` is one axis and -1 by default. Unlike in PyTorch, float16 gives
    float32.

    See Also
    --------
    torch.nn.functional.softmax, scipy.special.softmax

    Examples
    --------
    >>> import batchmax
    >>> batchmax.softmax([[0.0, 0.0], [1.0, -1.0]]).round(3).tolist()
    [[0.5, 0.5], [0.881, 0.119]]
    """
    return _along_axis(logits, axis, temperature, out, logs=False)


@standard_floats()
def log_softmax(logits: ArrayLike, *, axis: int = -1, temperature: float = 1.0, out: Array | None = None) -> Array:
    """Return the logarithm of :func:`softmax`, computed from the logits: z / T - max - log(sum).

    Parameters
    ----------
    logits, axis, temperature, out
        As for :func:`softmax`.

    Returns
    -------
    ndarray
        The logarithms in nats, of the shape of ``logits``: -inf for a logit of -inf, NaN for a row without
        probabilities.

    Raises
    ------
    TypeError, ValueError
        As for :func:`softmax`.

    See Also
    --------
    torch.nn.functional.log_softmax, scipy.special.log_softmax

    Examples
    --------
    >>> import batchmax
    >>> batchmax.log_softmax([[0.0, 0.0], [1000.0, 0.0]]).round(3).tolist()
    [[-0.693, -0.693], [0.0, -1000.0]]
    """
    return _along_axis(logits, axis, temperature, out, logs=True)


@standard_floats()
def logsumexp(logits: ArrayLike, *, axis: int = -1) -> Any:
    """Return log(sum(exp(z))) along an axis, without overflow.

    Parameters
    ----------
    logits, axis
        As for :func:`softmax`.

    Returns
    -------
    ndarray or scalar
        An array of the shape of ``logits`` without ``axis`` (a scalar for one row): +inf for a row with a +inf, -inf
        for a row with only -inf or without classes, NaN for a row with a NaN.

    Raises
    ------
    TypeError
        The logits aren't real numbers.
    ValueError
        The axis is invalid.

    See Also
    --------
    torch.logsumexp, scipy.special.logsumexp

    Examples
    --------
    >>> import batchmax
    >>> batchmax.logsumexp([[0.0, 0.0], [1000.0, 0.0]]).round(3).tolist()
    [0.693, 1000.0]
    """
    view = Lines(logits, axis, 1.0)
    if not view.matrix.shape[1]:
        return np.full(view.row_shape, -np.inf, view.dtype)[()]
    rows = softmax_rows(view.matrix, view.beta)
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.where(np.isnan(rows.rests), rows.maxima, rows.maxima + rows.log_sums)
        return values.astype(view.dtype).reshape(view.row_shape)[()]


@standard_floats()
def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    class_weights: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "none",
    temperature: float = 1.0,
) -> Any:
    """Return the cross-entropy of each row in nats: log(sum(exp(x - max))) - (x_label - max), with x = z / T.

    Parameters
    ----------
    logits, axis, temperature
        As for :func:`softmax`.
    labels
        Class indices of any integer type, of the shape of ``logits`` without ``axis``; or floats of the shape of
        ``logits``, a target distribution for each row.
    class_weights
        (K,), finite and not negative: the factor on each class's loss.
    ignore_index
        The index of rows that have loss 0 and aren't counted in a mean.
    label_smoothing
        The share, between 0 and 1, of the uniform distribution that is mixed into the target.
    reduction
        ``"none"``; ``"sum"``; or ``"mean"``, which divides by the summed weights of the labels (for distributions: by
        the number of rows) and is NaN if that is 0.

    Returns
    -------
    ndarray or scalar
        The losses, of the shape of ``logits`` without ``axis``, or a scalar; float64 for float64 and integer logits,
        otherwise float32. NaN for a row without probabilities; +inf if the label's logit is -inf.

    Raises
    ------
    IndexError
        A label is neither a class nor ``ignore_index``.
    TypeError, ValueError
        An argument has the wrong type, shape or value, or there are no classes.

    Notes
    -----
    As ``torch.nn.functional.cross_entropy``, except: the classes are on the last axis by default; ``reduction`` is
    ``"none"`` by default; a target or weight of 0 for a class with logit -inf adds 0, not NaN; float16 gives float32;
    negative or infinite weights are an error.

    Examples
    --------
    >>> import batchmax
    >>> logits = [[2.0, 0.0], [0.0, 0.0]]
    >>> batchmax.cross_entropy(logits, [0, 1]).round(3).tolist()
    [0.127, 0.693]
    >>> round(float(batchmax.cross_entropy(logits, [0, 1], reduction="mean")), 3)
    0.41
    """
    return _cross_entropy(
        Lines(logits, axis, temperature), labels, class_weights, ignore_index, label_smoothing, reduction, None
    )


@standard_floats()
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    class_weights: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Any]:
    """Return the results of :func:`softmax` and :func:`cross_entropy`, computed in one pass over the logits.

    Parameters
    ----------
    logits, labels, axis, class_weights, ignore_index, label_smoothing, temperature
        As for :func:`cross_entropy`.
    out
        Arrays for (probabilities, losses), of the results' shapes and types. Each may overlap the memory of ``logits``,
        ``labels`` or ``class_weights``, but not that of the other.

    Returns
    -------
    tuple of ndarray
        The probabilities, of the shape of ``logits``, and the losses in nats, without ``axis``.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for :func:`cross_entropy`; or ``out`` is invalid.

    Examples
    --------
    >>> import batchmax
    >>> probs, losses = batchmax.softmax_cross_entropy([[2.0, 0.0], [0.0, 0.0]], [0, 1])
    >>> probs.round(3).tolist(), losses.round(3).tolist()
    ([[0.881, 0.119], [0.5, 0.5]], [0.127, 0.693])
    """
    view = Lines(logits, axis, temperature)
    result = _result(None if out is None else out[0], view.logits.shape, view.dtype, "out[0]")
    losses = None if out is None else _result(out[1], view.row_shape, view.dtype, "out[1]")
    given, weights = np.asarray(labels), None if class_weights is None else np.asarray(class_weights)
    target = view.target(result, given, weights)
    read = (view.matrix, given, weights)
    # Newly allocated memory is slow, so the losses are stored to the caller's array, unless its memory is still read.
    is_free = losses is not None and losses.flags.c_contiguous and losses.flags.aligned
    is_free = is_free and not any(one is not None and np.may_share_memory(losses, one) for one in read)
    flat = losses.reshape(-1) if losses is not None and is_free else None
    computed = _cross_entropy(view, given, weights, ignore_index, label_smoothing, "none", target, flat)
    view.store(target, result)
    if losses is None:
        return result, computed
    if flat is None:
        losses[...] = computed
    return result, losses


BLOCK_ROWS = 1 << 17
"""Number of rows that are computed at a time."""


def _blocks(matrix: Array) -> Iterator[slice]:
    """Return slices of rows: the intermediate results of all rows would be newly allocated memory, which is slow."""
    return (slice(start, start + BLOCK_ROWS) for start in range(0, len(matrix) if matrix.size else 0, BLOCK_ROWS))


def _cross_entropy(
    view: Lines,
    labels: ArrayLike,
    class_weights: ArrayLike | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
    probs: Array | None,
    losses: Array | None = None,
) -> Any:
    """Return the losses; ``probs`` and ``losses`` are filled if given, and share no memory with other arguments."""
    n, k = view.matrix.shape
    if k == 0:
        raise ValueError("cross-entropy needs at least one class")
    check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0 and 1, not {label_smoothing!r}")
    weights = _class_weights(class_weights, k)
    given = np.asarray(labels)
    dense = given.shape == view.logits.shape and given.dtype.kind == "f"
    if dense:
        targets = np.ascontiguousarray(np.moveaxis(given, view.axis, -1).reshape(n, k), view.dtype)
    else:
        targets = class_indices(given, view, ignore_index)
    if losses is None:
        losses = np.empty(n, view.dtype if reduction == "none" else np.float64)
    buffers = Buffers()
    for block in _blocks(view.matrix):
        buffers.reset()
        z, target = view.matrix[block], targets[block]
        rows = softmax_rows(
            z,
            view.beta,
            labels=None if dense else target,
            ignore_index=ignore_index,
            probs=None if probs is None else probs[block],
            take=buffers.take,
        )
        if dense:
            computed = dense_losses(z, rows, view.beta, target, weights, label_smoothing, buffers.take)
        else:
            computed = index_losses(z, rows, view.beta, target, weights, label_smoothing, ignore_index, buffers.take)
        # A loss above 3.4e38 is +inf in float32.
        with np.errstate(over="ignore", under="ignore"):
            losses[block] = computed
    if reduction == "none":
        return losses.reshape(view.row_shape)[()]
    total = 1.0
    if reduction == "mean" and dense:
        total = n
    elif reduction == "mean":
        counted = targets != ignore_index
        total = float(np.count_nonzero(counted) if weights is None else weights[targets[counted]].sum())
    with np.errstate(over="ignore", under="ignore"):
        # The mean over a weight of 0 is NaN, even if smoothing gives labels without weight a loss.
        return view.dtype.type(losses.sum() / total if total else np.nan)


def _along_axis(logits: ArrayLike, axis: int, temperature: float, out: Array | None, *, logs: bool) -> Array:
    """Return the probabilities or their logarithms."""
    view = Lines(logits, axis, temperature)
    result = _result(out, view.logits.shape, view.dtype, "out")
    target = view.target(result)
    buffers = Buffers()
    for block in _blocks(view.matrix):
        buffers.reset()
        probs, log_probs = (None, target[block]) if logs else (target[block], None)
        softmax_rows(view.matrix[block], view.beta, probs=probs, log_probs=log_probs, take=buffers.take)
    view.store(target, result)
    return result


def _result(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"{name} must be an array of {dtype}, not {getattr(out, 'dtype', type(out).__name__)}")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}, but must have shape {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return out


def _class_weights(class_weights: ArrayLike | None, k: int) -> Array | None:
    if class_weights is None:
        return None
    weights = np.ascontiguousarray(class_weights, np.float64)
    if weights.shape != (k,):
        raise ValueError(f"class_weights has shape {weights.shape}, but must have shape ({k},)")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("class_weights must be finite and not negative")
    return weights

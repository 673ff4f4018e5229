"""Checks and reshapes the arguments of the public functions: logits of any shape become an (n, K) matrix."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.typing import ArrayLike

from batchmax.functional.losses import Array

Reduction = Literal["none", "mean", "sum"]


class Lines:
    """The lines of an array along one axis, as an (n, K) matrix."""

    def __init__(self, logits: ArrayLike, axis: int, temperature: float) -> None:
        self.logits = np.asarray(logits)
        self.dtype = _compute_dtype(self.logits.dtype)
        if not (np.isfinite(temperature) and temperature > 0 and np.isfinite(1.0 / temperature)):
            raise ValueError(f"temperature must be a positive finite number, not {temperature!r}")
        self.beta = 1.0 / float(temperature)
        self.axis = normalize_axis_index(axis, self.logits.ndim)
        moved = np.moveaxis(self.logits, self.axis, -1)
        self.row_shape = moved.shape[:-1]
        self.matrix = np.ascontiguousarray(
            moved.reshape(int(np.prod(self.row_shape, dtype=np.int64)), moved.shape[-1]), self.dtype
        ).view()
        self.matrix.flags.writeable = False

    def target(self, result: Array, *others: Array | None) -> Array:
        """Return the (n, K) matrix to fill: the result itself, or a new one.

        It's a new one if the memory of the result has another layout, or is shared with the logits or with ``others``,
        which are read while the matrix is filled.
        """
        is_read = any(one is not None and np.may_share_memory(one, result) for one in (self.matrix, *others))
        if self.axis == self.logits.ndim - 1 and result.flags.c_contiguous and result.flags.aligned and not is_read:
            return result.reshape(self.matrix.shape)
        return np.empty(self.matrix.shape, self.dtype)

    def store(self, target: Array, result: Array) -> None:
        """Copy a filled target to the result, unless they share memory."""
        if not np.may_share_memory(target, result):
            np.moveaxis(result, self.axis, -1)[...] = target.reshape((*self.row_shape, self.matrix.shape[1]))

    def restored(self, matrix: Array) -> Array:
        """Return an (n, K) matrix in the shape of the logits and the type of results."""
        values = np.moveaxis(matrix.reshape((*self.row_shape, matrix.shape[1])), -1, self.axis)
        return values.astype(self.dtype, copy=False)


def _compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "iub":
        return np.dtype(np.float64)
    if dtype.kind == "f" and dtype.itemsize <= np.dtype(np.float64).itemsize:
        return np.dtype(np.float32 if dtype.itemsize <= np.dtype(np.float32).itemsize else np.float64)
    raise TypeError(f"logits must be float16, float32, float64 or integers, not {dtype}")


def check_reduction(reduction: str) -> None:
    """Raise ValueError for an unknown reduction."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def class_indices(given: Array, view: Lines, ignore_index: int | None = None) -> Array:
    """Return labels as (n,) int64.

    Raises
    ------
    IndexError
        A label is neither a class nor ``ignore_index``.
    TypeError, ValueError
        The labels aren't integers, or have another shape than the rows.
    """
    k = view.matrix.shape[1]
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(
            f"labels must be integers of shape {view.row_shape} or floats of shape {view.logits.shape}, "
            f"not {given.dtype} of shape {given.shape}"
        )
    if given.shape != view.row_shape:
        raise ValueError(f"labels have shape {given.shape}, but must have shape {view.row_shape}")
    # As unsigned numbers, negative ones are the largest, so that one pass finds all labels that aren't classes.
    if given.size and given.view(given.dtype.str.replace("i", "u")).max() >= k:
        bad = (given < 0) | (given >= k)
        if ignore_index is not None:
            bad &= given != ignore_index
        if bad.any():
            where = np.unravel_index(int(np.argmax(bad)), given.shape)
            at = tuple(int(index) for index in where)
            raise IndexError(f"label {given[where]} at {at} is not a class: valid labels are 0 to {k - 1}")
    return np.ascontiguousarray(given, np.int64).reshape(-1)

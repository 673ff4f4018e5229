"""Converts NumPy results to Arrow columns, without a copy where possible.

The counterpart of ``matrices``: buffers filled by the kernels become columns of the requested layout. Their fields can
be computed before there are data. Doesn't know files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import is_list, number_values, valid_rows
from batchmax.columns.logits_layout import OutputLayout
from batchmax.outputs import singular
from batchmax.runtime.buffers import Take
from batchmax.statuses import STATUS_NAMES

REASONS = ("decided", "abstained", "unknown_group", *STATUS_NAMES)
"""The values of ``decision_reason``: the decision of a rule; bad rows have their status."""

DECIDED, ABSTAINED, UNKNOWN_GROUP = map(REASONS.index, ("decided", "abstained", "unknown_group"))
FIRST_STATUS = len(REASONS) - len(STATUS_NAMES)

REASON_TYPE = pa.dictionary(pa.int8(), pa.string())
"""The type of the ``decision_reason`` column."""

STATUS_TYPE = pa.dictionary(pa.int8(), pa.string())
"""The type of the ``status`` column."""

Missing = NDArray[np.bool_] | None


def matrix_fields(
    name: str,
    n_classes: int,
    layout: OutputLayout,
    dtype: np.dtype[Any],
    suffixes: Sequence[str] = (),
    prefix: str = "",
) -> list[pa.Field]:
    """Return the fields that :func:`matrix_columns` makes of a matrix with ``n_classes`` columns.

    The layout ``wide`` has one field per class, such as ``prob_<suffix>`` for ``probs``; other layouts have one field,
    such as ``prob`` in the layout ``single``. The suffixes are 0, 1, … unless given.
    """
    item = pa.from_numpy_dtype(dtype)
    if layout == "wide":
        return [pa.field(f"{prefix}{singular(name)}_{suffix}", item) for suffix in suffixes or range(n_classes)]
    if layout == "single":
        return [pa.field(f"{prefix}{singular(name)}", item)]
    if layout == "fixed":
        return [pa.field(prefix + name, pa.list_(item, n_classes))]
    return [pa.field(prefix + name, pa.large_list(item) if layout == "large_list" else pa.list_(item))]


def matrix_columns(
    name: str,
    matrix: NDArray[Any],
    layout: OutputLayout,
    *,
    missing: Missing = None,
    suffixes: Sequence[str] = (),
    prefix: str = "",
    take: Take = np.empty,
) -> list[tuple[pa.Field, pa.Array]]:
    """Return a matrix as columns.

    Parameters
    ----------
    name
        Name of the output, such as ``probs``.
    matrix
        Shape (n_rows, n_classes), C-contiguous. The columns share its memory (except in the layout ``wide``, and in
        lists with missing rows), so it must not change while they exist.
    layout
        One list per row, one column per class, or one column of the second class.
    missing
        Shape (n_rows,): whether a row is null.
    suffixes
        One for each class, for the layout ``wide``.
    prefix
        Prefix of every column's name.
    take
        Allocator of memory for offsets of lists.

    Raises
    ------
    ValueError
        A list with 32-bit offsets would have 2**31 or more values.
    """
    n_rows, n_classes = matrix.shape
    fields = matrix_fields(name, n_classes, layout, matrix.dtype, suffixes, prefix)
    if missing is not None and not missing.any():
        missing = None
    if layout == "wide":
        by_class = np.ascontiguousarray(matrix.T)
        arrays = [_over(values, missing) for values in by_class]
    elif layout == "single":
        arrays = [_over(np.ascontiguousarray(matrix[:, 1]), missing)]
    elif layout == "fixed":
        values = _over(matrix.reshape(-1), None)
        arrays = [pa.Array.from_buffers(fields[0].type, n_rows, [_bitmap(missing)], children=[values])]
    elif missing is None:
        arrays = [_equal_lists(matrix, fields[0].type, take)]
    else:
        # Values under a null are valid in Arrow, but not every version of its Parquet writer accepts them.
        lengths = np.where(missing, 0, n_classes)
        arrays = [list_array(matrix[~missing], lengths, missing, fields[0].type)]
    return list(zip(fields, arrays, strict=True))


def vector_column(values: NDArray[Any], missing: Missing = None) -> pa.Array:
    """Return one number or boolean per row as a column; NaN stays NaN, missing rows are null."""
    if values.dtype == np.bool_:
        return pa.array(values, pa.bool_(), mask=missing)
    return _over(np.ascontiguousarray(values), missing)


def status_column(codes: NDArray[np.uint8], texts: Sequence[str] = STATUS_NAMES) -> pa.DictionaryArray:
    """Return row statuses, given as numbers, as a dictionary column of all status names, or of other texts."""
    names = pa.array(texts, pa.string())
    return pa.DictionaryArray.from_arrays(_over(codes.view(np.int8), None), names)


def pred_column(
    pred: NDArray[np.integer[Any]], class_names: Sequence[str] | None = None, missing: Missing = None
) -> pa.Array:
    """Return predicted classes as int32, or as class names if the classes have names."""
    indices = _over(np.ascontiguousarray(pred, np.int32), missing)
    return indices if class_names is None else pa.array(class_names, pa.string()).take(indices)


def classes_column(
    is_right: NDArray[np.bool_], class_names: Sequence[str] | None = None, missing: Missing = None
) -> pa.Array:
    """Return the classes that are true in an (n_rows, n_classes) matrix, as lists of int32 or of class names."""
    if missing is not None:
        is_right = is_right & ~missing[:, None]
    indices = np.nonzero(is_right)[1].astype(np.int32)
    values = pred_column(indices, class_names)
    return list_array(values, np.count_nonzero(is_right, axis=1), missing, pa.list_(values.type))


def null_nans(array: pa.Array) -> pa.Array:
    """Return numbers, or lists of numbers, with nulls in place of NaN."""
    if not is_list(array.type):
        numbers = number_values(array)
        return _over(numbers, ~valid_rows(array) | np.isnan(numbers)) if np.isnan(numbers).any() else array
    child = array.values
    values = null_nans(child)
    if values is child:
        return array
    return pa.Array.from_buffers(array.type, len(array), array.buffers()[: array.type.num_buffers], children=[values])


def _over(values: NDArray[Any], missing: Missing) -> pa.Array:
    """Return an array that shares the memory of contiguous numbers and keeps it alive."""
    # Not pa.array: with a mask it copies, and converts NaN to null.
    arrow_type = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(arrow_type, len(values), [_bitmap(missing), pa.py_buffer(values)])


def _bitmap(missing: Missing) -> pa.Buffer | None:
    return None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))


def list_array(
    values: pa.Array | NDArray[Any], lengths: NDArray[np.int64], missing: Missing, arrow_type: pa.DataType
) -> pa.Array:
    """Return values as lists of the given lengths, which share their memory; missing rows are null and have length 0.

    ``values`` is the child array, or a contiguous matrix of its values.

    Raises
    ------
    ValueError
        A list with 32-bit offsets would have 2**31 or more values.
    """
    offsets = np.zeros(len(lengths) + 1, _offset_type(int(lengths.sum()), arrow_type))
    np.cumsum(lengths, out=offsets[1:])
    buffers = [_bitmap(missing), pa.py_buffer(offsets)]
    child = _over(values.reshape(-1), None) if isinstance(values, np.ndarray) else values
    return pa.Array.from_buffers(arrow_type, len(lengths), buffers, children=[child])


def _equal_lists(matrix: NDArray[Any], arrow_type: pa.DataType, take: Take) -> pa.Array:
    """Return the rows of a contiguous matrix as lists, which share its memory."""
    n_rows, n_classes = matrix.shape
    offsets = take((n_rows + 1,), _offset_type(matrix.size, arrow_type))
    offsets[:] = np.arange(n_rows + 1, dtype=offsets.dtype)
    offsets *= n_classes
    return pa.Array.from_buffers(
        arrow_type, n_rows, [None, pa.py_buffer(offsets)], children=[_over(matrix.reshape(-1), None)]
    )


def _offset_type(total: int, arrow_type: pa.DataType) -> type[np.int32 | np.int64]:
    """Return the type of the offsets of lists with ``total`` values.

    Raises
    ------
    ValueError
        There are too many for offsets of 32 bits.
    """
    dtype = np.int64 if pa.types.is_large_list(arrow_type) else np.int32
    if total > np.iinfo(dtype).max:
        raise ValueError(f"{total:,} numbers exceed the offsets of {arrow_type}")
    return dtype

"""NumPy results as Arrow columns, over the same memory wherever that is possible.

The counterpart of ``matrices``: what the kernels filled becomes columns of the layout asked for, whose fields
can be had before there are data. Knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.logits import OutputLayout
from batchmax.outputs import STATUS_NAMES

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

    The layout ``wide`` makes one field a class, ``prob_<suffix>`` of ``probs``; the others one field. The
    suffixes are 0, 1, … unless given.
    """
    item = pa.from_numpy_dtype(dtype)
    if layout == "wide":
        singular = f"{prefix}{name.removesuffix('s')}"
        return [pa.field(f"{singular}_{suffix}", item) for suffix in suffixes or range(n_classes)]
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
) -> list[tuple[pa.Field, pa.Array]]:
    """Return a matrix as columns.

    Parameters
    ----------
    name
        The output's name, such as ``probs``.
    matrix
        Shape (n_rows, n_classes), C-contiguous. Its memory becomes the columns' memory (except in the layout
        ``wide``, and in lists with missing rows), and so must not change while they live.
    layout
        One list a row, or one column a class.
    missing
        Shape (n_rows,): the rows that are null.
    suffixes
        One for each class, for the layout ``wide``.
    prefix
        What every column's name begins with.

    Raises
    ------
    ValueError
        2**31 numbers or more in lists that count them in 32 bits.
    """
    n_rows, n_classes = matrix.shape
    fields = matrix_fields(name, n_classes, layout, matrix.dtype, suffixes, prefix)
    if missing is not None and not missing.any():
        missing = None
    if layout == "wide":
        by_class = np.ascontiguousarray(matrix.T)
        arrays = [_over(values, missing) for values in by_class]
    elif layout == "fixed":
        values = _over(matrix.reshape(-1), None)
        arrays = [pa.Array.from_buffers(fields[0].type, n_rows, [_bitmap(missing)], children=[values])]
    else:
        arrays = [_list_array(matrix, fields[0].type, missing)]
    return list(zip(fields, arrays, strict=True))


def vector_column(values: NDArray[Any], missing: Missing = None) -> pa.Array:
    """Return one number or boolean a row as a column; NaN stays NaN, missing rows are null."""
    if values.dtype == np.bool_:
        return pa.array(values, pa.bool_(), mask=missing)
    return _over(np.ascontiguousarray(values), missing)


def status_column(codes: NDArray[np.uint8]) -> pa.DictionaryArray:
    """Return row statuses, by number, as text in a dictionary of all statuses."""
    names = pa.array(STATUS_NAMES, pa.string())
    return pa.DictionaryArray.from_arrays(_over(codes.view(np.int8), None), names)


def pred_column(
    pred: NDArray[np.integer[Any]], class_names: Sequence[str] | None = None, missing: Missing = None
) -> pa.Array:
    """Return predicted classes as int32, or as text where the classes have names."""
    indices = _over(np.ascontiguousarray(pred, np.int32), missing)
    return indices if class_names is None else pa.array(class_names, pa.string()).take(indices)


def _over(values: NDArray[Any], missing: Missing) -> pa.Array:
    """Return an array over the memory of contiguous numbers, which it keeps alive."""
    # Not pa.array: given a mask it copies, and takes NaN for null on the way.
    arrow_type = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(arrow_type, len(values), [_bitmap(missing), pa.py_buffer(values)])


def _bitmap(missing: Missing) -> pa.Buffer | None:
    return None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))


def _list_array(matrix: NDArray[Any], arrow_type: pa.DataType, missing: Missing) -> pa.Array:
    n_rows, n_classes = matrix.shape
    dtype: np.dtype[Any] = np.dtype(np.int64 if pa.types.is_large_list(arrow_type) else np.int32)
    if matrix.size > np.iinfo(dtype).max:
        raise ValueError(f"{matrix.size:,} numbers are too many for one array of {arrow_type}")
    if missing is None:
        offsets = np.arange(n_rows + 1, dtype=dtype) * dtype.type(n_classes)
    else:
        # Numbers under a null are legal in Arrow, but not every version of its Parquet writer takes them.
        matrix = matrix[~missing]
        offsets = np.zeros(n_rows + 1, dtype)
        np.cumsum(~missing * n_classes, out=offsets[1:], dtype=dtype)
    buffers = [_bitmap(missing), pa.py_buffer(offsets)]
    return pa.Array.from_buffers(arrow_type, n_rows, buffers, children=[_over(matrix.reshape(-1), None)])

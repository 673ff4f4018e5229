"""Reads Arrow columns of rows of numbers as NumPy matrices, without a copy where possible.

:func:`read_matrix` converts the column that ``find_logits`` found to one read-only matrix, with a status for each row
that has no logits. There are no Python loops over rows. Knows record batches; doesn't know files, or what the numbers
mean.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import (
    buffer_view,
    column_array,
    is_binary,
    is_list,
    number_values,
    plain_array,
    plain_type,
    read_only,
    valid_rows,
)
from batchmax.columns.logits_layout import BITS_WIDTH, LogitsColumn
from batchmax.errors import DataError, UsageError
from batchmax.runtime.buffers import Take
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.runtime.text import quantity
from batchmax.statuses import Status

pc = ImportedWhenUsed("pyarrow.compute")

Matrix: TypeAlias = NDArray[Any]
Statuses: TypeAlias = NDArray[np.uint8]

_TILE_BYTES = 1 << 20


class SparseVectorError(DataError):
    """The error for a sparse Spark vector; ``row`` is its row in the batch."""

    def __init__(self, what: str, *, row: int, remedy: str) -> None:
        super().__init__(what, where=f"row {row:,} of the batch", remedy=remedy)
        self.row = row


PROBABILITY_SLACK = 1e-3
"""Maximum deviation of the sum of a row of probabilities from 1."""

ROWS_OF_ONE_LOGIT = 10
"""Rows of one number from which on numbers between 0 and 1 are likely to be probabilities."""


def read_matrix(
    batch: pa.RecordBatch, column: LogitsColumn, n_classes: int, take: Take = np.empty
) -> tuple[Matrix, Statuses | None]:
    """Return the logits of a batch as a matrix, and the status of its rows.

    Parameters
    ----------
    batch
        Rows with the columns ``column.names``; may be a slice.
    column
        What :func:`batchmax.columns.find_logits.find_logits` found.
    n_classes
        The required length of a row.
    take
        Allocator of memory, used if numbers must be copied.

    Returns
    -------
    matrix
        Shape (n_rows, n_classes), type ``column.dtype``, C-contiguous and read-only: a view of Arrow's memory if the
        stored type is ``column.dtype`` and all rows are valid, otherwise memory from ``take``. If a row has one logit,
        the result of :func:`with_first_class`.
    statuses
        Shape (n_rows,), ``NULL_LOGITS``, ``BAD_LENGTH`` or ``OK`` for each row; None if all are ``OK``. Other rows
        hold zeros. Integers become float64, which rounds those above 2**53.

    Raises
    ------
    SparseVectorError
        A Spark vector is sparse.
    """
    if column.is_one_logit:
        numbers, statuses = read_matrix(batch, replace(column, is_one_logit=False), 1)
        return with_first_class(numbers, column, take), statuses
    if column.layout == "wide":
        return _read_wide(batch, column, take)
    array = _rows_array(batch, column)
    unit = BITS_WIDTH[column.bits] if column.bits is not None and column.layout == "binary" else 1
    block, present, statuses = _block(array, n_classes * unit)
    if column.bits is not None:
        block = block.view("uint16" if column.bits == "bfloat16" else column.bits)
    if statuses is None and block.dtype == column.dtype and block.flags.aligned:
        return read_only(block), None
    out = take((len(array), n_classes), column.dtype)
    if present is None:
        _convert(block, column, out)
    else:
        whole = np.empty(block.shape, column.dtype)
        _convert(block, column, whole)
        out[present] = whole
    if statuses is not None:
        out[statuses != Status.OK] = 0
    return read_only(out), statuses


def with_first_class(numbers: Matrix, column: LogitsColumn, take: Take = np.empty) -> Matrix:
    """Return rows of one number, (n, 1), as read-only rows of two: the first is that of the other class.

    A logit z becomes the logits 0 and z, or -inf and 0 if z is inf, so that the softmax of the row is defined; a
    probability p becomes 1 - p and p.
    """
    values, pairs = numbers[:, 0], take((len(numbers), 2), column.dtype)
    first, second = pairs[:, 0], pairs[:, 1]
    np.copyto(second, values)
    if column.holds == "probs":
        np.subtract(1.0, values, out=first)
    elif column.holds == "log_probs":
        with np.errstate(divide="ignore", invalid="ignore"):
            first[:] = np.log(-np.expm1(values.astype(np.float64)))
    else:
        first[:] = 0
        pairs[values == np.inf] = -np.inf, 0
    return read_only(pairs)


def without_first_class(pairs: Matrix) -> Matrix:
    """Return the rows of one logit, (n, 1), of which :func:`with_first_class` made rows of two."""
    return np.where(pairs[:, :1] == -np.inf, np.inf, pairs[:, 1:]).astype(pairs.dtype, copy=False)


def first_row_length(batch: pa.RecordBatch, column: LogitsColumn) -> int | None:
    """Return the number of classes of the first row that is neither null nor empty; None if there is none.

    Raises
    ------
    SparseVectorError
        A Spark vector is sparse.
    UsageError
        The length of a binary row isn't a multiple of the width of ``column.bits``.
    """
    if column.layout == "wide":
        return len(column.names)
    array = _rows_array(batch, column)
    lengths = np.diff(list_offsets(array))
    filled = (lengths > 0) & valid_rows(array)
    if not filled.any():
        return None
    length = int(lengths[np.argmax(filled)])
    if column.layout == "binary" and column.bits is not None:
        n_bytes = length
        length, rest = divmod(n_bytes, BITS_WIDTH[column.bits])
        if rest:
            raise UsageError(
                f"a row of column {column.names[0]!r} has {quantity(n_bytes, 'byte')}, not a multiple of {column.bits}",
                where="--logits-dtype",
                remedy="give the type that they were written in",
            )
    return length


def _rows_array(batch: pa.RecordBatch, column: LogitsColumn) -> pa.Array:
    array = plain_array(column_array(batch, column.names[0]))
    if column.layout != "spark":
        # If rows are sequences, the batch may have these rows, or their tokens.
        item = plain_type(array.type.value_type) if column.nested and is_list(array.type) else None
        return plain_array(array.flatten()) if item is not None and (is_list(item) or is_binary(item)) else array
    sparse = pc.index(pc.equal(pc.struct_field(array, "type"), 0), value=True).as_py()
    if sparse >= 0:
        vector = array[sparse].as_py()
        stored = f"{len(vector['values'] or ())} of {quantity(vector['size'], 'value')} stored"
        raise SparseVectorError(
            f"column {column.names[0]!r} has a sparse Spark vector ({stored})",
            row=sparse,
            remedy="convert the column to arrays in Spark: pyspark.ml.functions.vector_to_array",
        )
    return plain_array(pc.struct_field(array, "values"))


def list_offsets(array: pa.Array) -> Matrix:
    """Return where each row begins in the child array or the bytes, and where the last one ends."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_fixed_size_binary(kind):
        width: int = kind.list_size if is_list(kind) else kind.byte_width
        return np.arange(array.offset, array.offset + len(array) + 1) * width
    dtype = np.dtype(np.int64 if pa.types.is_large_list(kind) or pa.types.is_large_binary(kind) else np.int32)
    # An array without rows may have no offsets.
    return buffer_view(array.buffers()[1], dtype, array.offset, len(array) + 1) if len(array) else np.zeros(1, dtype)


def _elements(array: pa.Array, first: int, last: int) -> tuple[Matrix, NDArray[np.bool_] | None]:
    """Return elements ``first`` to ``last`` of the child array, and which aren't null (None: all)."""
    if is_binary(array.type):
        buffer = array.buffers()[1 if pa.types.is_fixed_size_binary(array.type) else 2]
        return buffer_view(buffer, np.dtype(np.uint8), first, last - first), None
    child = plain_array(array.values.slice(first, last - first))
    return number_values(child), None if child.null_count == 0 else ~valid_rows(child)


def _block(array: pa.Array, width: int) -> tuple[Matrix, NDArray[np.bool_] | None, Statuses | None]:
    """Return rows of ``width`` elements, which rows these are (None: all), and statuses (None: all ``OK``)."""
    n_rows = n_present = len(array)
    offsets = list_offsets(array)
    lengths = np.diff(offsets)
    elements, null_elements = _elements(array, int(offsets[0]), int(offsets[-1]))
    even = bool((lengths == width).all())
    if even and array.null_count == 0 and null_elements is None:
        return elements.reshape(n_rows, width), None, None

    reasons = [~valid_rows(array), lengths != width]
    statuses = np.select(reasons, [Status.NULL_LOGITS, Status.BAD_LENGTH], Status.OK).astype(np.uint8)
    present = None
    if not even:
        present = statuses == Status.OK
        n_present = int(present.sum())
        if len(elements) != n_present * width:
            kept = np.repeat(present, lengths)
            elements = elements[kept]
            null_elements = None if null_elements is None else null_elements[kept]
    if null_elements is not None:
        holed = null_elements.reshape(n_present, width).any(axis=1)
        statuses[holed if present is None else np.flatnonzero(present)[holed]] = Status.NULL_LOGITS
    # The child may have nulls only under null rows or rows left out, so whether all rows are OK is known only now.
    fine = bool((statuses == Status.OK).all())
    return elements.reshape(n_present, width), present, None if fine else statuses


def _convert(block: Matrix, column: LogitsColumn, out: Matrix) -> None:
    if column.bits == "bfloat16":
        # A bfloat16 is the upper half of a float32.
        np.left_shift(block, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        # A signaling NaN, which is widened to a quiet one, counts as an invalid value.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, block, casting="same_kind")


def _read_wide(batch: pa.RecordBatch, column: LogitsColumn, take: Take) -> tuple[Matrix, Statuses | None]:
    arrays = [plain_array(column_array(batch, name)) for name in column.names]
    values = [number_values(array) for array in arrays]
    out = take((batch.num_rows, len(arrays)), column.dtype)
    # A tile of rows stays in the cache while it is filled column by column.
    step = max(64, _TILE_BYTES // (len(arrays) * column.dtype.itemsize))
    with np.errstate(over="ignore"):
        for start in range(0, batch.num_rows, step):
            tile = out[start : start + step]
            for position, numbers in enumerate(values):
                tile[:, position] = numbers[start : start + step]
    null_rows = np.zeros(batch.num_rows, np.bool_)
    for array in arrays:
        if array.null_count:
            null_rows |= ~valid_rows(array)
    if not null_rows.any():
        return read_only(out), None
    out[null_rows] = 0
    return read_only(out), np.where(null_rows, Status.NULL_LOGITS, Status.OK).astype(np.uint8)


def looks_like_probabilities(matrix: Matrix, *, is_one_logit: bool = False) -> bool:
    """Return whether all values are between 0 and 1, and every row sums to 1.

    Rows of one logit were read as the logits 0 and z: then, of some rows at least, whether every z is between 0 and 1.
    """
    inside = bool(((matrix >= 0) & (matrix <= 1)).all())
    if is_one_logit:
        # Null rows hold zeros.
        return inside and bool(np.count_nonzero(matrix[:, 1]) >= ROWS_OF_ONE_LOGIT)
    if not matrix.size:
        return False
    return inside and bool((np.abs(matrix.sum(axis=1, dtype=np.float64) - 1.0) <= PROBABILITY_SLACK).all())

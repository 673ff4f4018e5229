"""Hashes of the values of a column of clusters. Knows Arrow columns; doesn't know how clusters are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import (
    buffer_view,
    is_binary,
    is_text,
    number_values,
    plain_array,
    plain_type,
    valid_rows,
)
from batchmax.errors import UsageError
from batchmax.kernels.jackknife_sums import hash_integers, hash_texts

Array = NDArray[Any]

NULL_HASH = np.uint64(0x9D3B1F5E27C4A861)
"""The hash of null: all rows without a value are one cluster."""
LARGEST_WHOLE = 2.0**63


def check_cluster(name: str, kind: pa.DataType) -> None:
    """Check that a column of a type can have clusters.

    Raises
    ------
    UsageError
        The type is nested, an interval, or null.
    """
    plain = plain_type(kind)
    if pa.types.is_nested(plain) or pa.types.is_interval(plain) or pa.types.is_null(plain):
        raise UsageError(f"column {name!r} has type {kind}", where="--cluster", remedy="name a column of single values")


def hash_numbers(values: Array) -> Array:
    """Return the hashes of int64 numbers, (n,) uint64."""
    hashes = np.empty(len(values), np.uint64)
    hash_integers(values, hashes)
    return hashes


def hash_values(column: pa.Array) -> Array:
    """Return the hashes of the values of a column, (n,) uint64: equal for equal values, and never 0.

    Numbers are equal whatever their type, so that integers and the floats that some tools make of them are the same
    clusters.
    """
    column = plain_array(column)
    kind, valid = column.type, valid_rows(column)
    if pa.types.is_floating(kind):
        values = number_values(column).astype(np.float64)
        valid &= ~np.isnan(values)
        is_whole = valid & (values == np.floor(values)) & (np.abs(values) < LARGEST_WHOLE)
        numbers = np.where(is_whole, values, 0.0).astype(np.int64)
        hashes = hash_numbers(np.where(is_whole, numbers, values.view(np.int64)))
    elif pa.types.is_boolean(kind):
        hashes = hash_numbers(number_values(column.cast(pa.uint8())).astype(np.int64))
    elif pa.types.is_integer(kind):
        hashes = hash_numbers(number_values(column).astype(np.int64))
    elif pa.types.is_temporal(kind):
        whole = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        hashes = hash_numbers(number_values(whole).astype(np.int64))
    else:
        is_bytes = is_text(kind) or is_binary(kind)
        hashes = _hash_texts((column if is_bytes else column.cast(pa.string())).cast(pa.large_binary()))
    hashes[~valid] = NULL_HASH
    return hashes


def _hash_texts(column: pa.LargeBinaryArray) -> Array:
    hashes = np.empty(len(column), np.uint64)
    _, offsets, text = column.buffers()
    if len(column):
        where = buffer_view(offsets, np.dtype(np.int64), column.offset, len(column) + 1)
        data = buffer_view(text, np.dtype(np.uint8), 0, int(where[-1]))
        hash_texts(where, data, hashes)
    return hashes

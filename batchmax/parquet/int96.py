"""Lossless conversion of INT96 timestamps, which Spark, Hive and Impala write.

An INT96 timestamp is the nanoseconds since midnight in eight bytes and the Julian day in four, both little-endian.
pyarrow reads it as nanoseconds since 1970 in 64 bits, and wraps silently outside the years 1677 to 2262. Here a file's
INT96 columns are declared as fixed-size binary of 12 bytes instead. They have the same encodings, so pyarrow reads and
writes the bytes unchanged. :func:`converted` converts between these bytes and timestamps.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: Type and LogicalType)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.parquet.footer import (
    CONVERTED,
    FIXED_LEN_BYTE_ARRAY,
    LOGICAL,
    MAGIC,
    SCHEMA,
    TYPE,
    TYPE_LENGTH,
    Footer,
    SchemaColumn,
)
from batchmax.parquet.thrift import I32, LIST, Field, List, Struct, write_struct

INT96 = 3
"""The number of the physical type."""
INT96_BYTES = 12
RAW = pa.binary(INT96_BYTES)
WORDS = np.dtype([("ns", "<u8"), ("day", "<u4")])

EPOCH = 2_440_588
"""The Julian day of 1970-01-01."""
DAY_NS, SECOND_NS = 86_400_000_000_000, 1_000_000_000
DAY_SECONDS = 86_400
SMALLEST, LARGEST = divmod(-(2**63), SECOND_NS), divmod(2**63 - 1, SECOND_NS)
"""The smallest and the largest 64-bit nanosecond timestamp, each as seconds and nanoseconds."""
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": SECOND_NS}


class TimestampRangeError(ValueError):
    """An INT96 timestamp that a 64-bit timestamp can't represent; the message is its date."""


def has_int96(column: SchemaColumn) -> bool:
    """Return whether a leaf of a column is INT96."""
    return any(leaf.element[TYPE].value == INT96 for leaf in column.leaves)


def footer_without_int96(footer: Footer) -> pa.Buffer | None:
    """Return a footer, with magic bytes around it, that declares INT96 as 12-byte binary; None if there is no INT96."""
    if not any(map(has_int96, footer.columns)):
        return None
    elements = [_declared_as_bytes(element) for element in footer.fields[SCHEMA].value.values]
    data = write_struct({**footer.fields, SCHEMA: Field(LIST, List(footer.fields[SCHEMA].value.kind, elements))})
    return pa.py_buffer(b"".join([MAGIC, data, len(data).to_bytes(4, "little"), MAGIC]))


def _declared_as_bytes(element: Struct) -> Struct:
    if TYPE not in element or element[TYPE].value != INT96:
        return element
    kept = {number: field for number, field in element.items() if number not in {CONVERTED, LOGICAL}}
    return {**kept, TYPE: Field(I32, FIXED_LEN_BYTE_ARRAY), TYPE_LENGTH: Field(I32, INT96_BYTES)}


def raw_type(kind: pa.DataType, column: SchemaColumn) -> pa.DataType:
    """Return an Arrow type in which the timestamps that the file stores as INT96 are 12-byte binary."""
    is_int96 = iter([leaf.element[TYPE].value == INT96 for leaf in column.leaves])
    return _replaced(kind, lambda leaf: RAW if next(is_int96) and pa.types.is_timestamp(leaf) else leaf)


def raw_of(kind: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return ``other`` if it has 12-byte binary where ``kind`` has a timestamp, else ``kind``."""
    return other if is_raw(other, kind) else kind


def readable(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Convert 12-byte binary to timestamps: of the unit in ``kind`` if all values fit, else of the finest that fits."""
    for unit in ("", "us", "ms"):
        with contextlib.suppress(TimestampRangeError):
            return converted(array, _in_unit(kind, unit) if unit else kind)
    return converted(array, _in_unit(kind, "s"))


def _in_unit(kind: pa.DataType, unit: str) -> pa.DataType:
    return _replaced(kind, lambda leaf: pa.timestamp(unit, leaf.tz) if pa.types.is_timestamp(leaf) else leaf)


def _replaced(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with each leaf replaced; leaves are visited in Parquet's order."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_replaced(field.type, leaf)) for field in kind])
    if pa.types.is_map(kind):
        key, item = _replaced(kind.key_type, leaf), _replaced(kind.item_type, leaf)
        return pa.map_(kind.key_field.with_type(key), kind.item_field.with_type(item), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_replaced(kind.value_type, leaf)), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_replaced(kind.value_type, leaf)))
    return leaf(kind)


def is_raw(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether ``kind`` has 12-byte binary where ``wanted`` has a timestamp."""
    if pa.types.is_timestamp(wanted):
        return bool(kind == RAW)
    if pa.types.is_struct(wanted) and pa.types.is_struct(kind):
        return any(
            is_raw(kind.field(field.name).type, field.type) for field in wanted if kind.get_field_index(field.name) >= 0
        )
    if pa.types.is_map(wanted) and pa.types.is_map(kind):
        return is_raw(kind.key_type, wanted.key_type) or is_raw(kind.item_type, wanted.item_type)
    if _is_list(wanted) and _is_list(kind):
        return is_raw(kind.value_type, wanted.value_type)
    return False


def converted(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Convert an array between 12-byte binary and timestamps where the wanted type differs from its own.

    Children of structs are matched by name. Children that the wanted type lacks stay unchanged.

    Raises
    ------
    TimestampRangeError
        If a timestamp doesn't fit.
    """
    kind = array.type
    if kind == wanted:
        return array
    if pa.types.is_timestamp(wanted) and kind == RAW:
        return _timestamps(array, wanted)
    if pa.types.is_timestamp(kind) and wanted == RAW:
        return _raw(array)
    if pa.types.is_struct(kind) and pa.types.is_struct(wanted):
        children = [
            converted(array.field(number), wanted.field(field.name).type)
            if wanted.get_field_index(field.name) >= 0
            else array.field(number)
            for number, field in enumerate(kind)
        ]
        fields = [field.with_type(child.type) for field, child in zip(kind, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null() if array.null_count else None)
    if pa.types.is_map(kind) and pa.types.is_map(wanted):
        keys, items = converted(array.keys, wanted.key_type), converted(array.items, wanted.item_type)
        made = pa.map_(kind.key_field.with_type(keys.type), kind.item_field.with_type(items.type), kind.keys_sorted)
        entries = pa.StructArray.from_arrays([keys, items], fields=[made.key_field, made.item_field])
        return _with_child(array, made, 2, entries)
    if _is_list(kind) and _is_list(wanted):
        child = converted(array.values, wanted.value_type)
        field = kind.value_field.with_type(child.type)
        if pa.types.is_fixed_size_list(kind):
            return _with_child(array, pa.list_(field, kind.list_size), 1, child)
        made = pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)
        return _with_child(array, made, 2, child)
    return array


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _with_child(array: pa.Array, kind: pa.DataType, n_buffers: int, child: pa.Array) -> pa.Array:
    """Return a list array, or part of one, with other values."""
    buffers = array.buffers()[:n_buffers]
    return pa.Array.from_buffers(kind, len(array), buffers, array.null_count, array.offset, children=[child])


def _timestamps(array: pa.Array, wanted: pa.TimestampType) -> pa.Array:
    words = _values(array, WORDS)
    valid = np.asarray(array.is_valid()) if array.null_count else np.ones(len(array), np.bool_)
    # Seconds fit into 64 bits for any bytes.
    more, ns = np.divmod(words["ns"], np.uint64(SECOND_NS))
    seconds = (words["day"].astype(np.int64) - EPOCH) * DAY_SECONDS + more.astype(np.int64)
    ns = ns.astype(np.int64)
    per_second = UNITS[wanted.unit]
    smallest, largest = (limit // per_second for limit in (-(2**63), 2**63 - 1))
    fits = (seconds > smallest) & (seconds < largest)
    if per_second == SECOND_NS:
        fits |= (seconds == SMALLEST[0]) & (ns >= SMALLEST[1]) | (seconds == LARGEST[0]) & (ns <= LARGEST[1])
    if not fits[valid].all():
        raise TimestampRangeError(_date(int(seconds[np.argmax(valid & ~fits)])))
    values = seconds * per_second + ns // (SECOND_NS // per_second)
    return pa.Array.from_buffers(wanted, len(array), [_validity(array, valid), pa.py_buffer(values)])


def _raw(array: pa.Array) -> pa.Array:
    valid = np.asarray(array.is_valid()) if array.null_count else np.ones(len(array), np.bool_)
    values = _values(array, np.dtype(np.int64))
    per_day = DAY_SECONDS * UNITS[array.type.unit]
    days, rest = np.divmod(np.where(valid, values, 0), per_day)
    words = np.empty(len(array), WORDS)
    words["ns"] = rest * (DAY_NS // per_day)
    if len(days) and not 0 <= days.min() + EPOCH <= days.max() + EPOCH < 2**32:
        raise TimestampRangeError(_date(int(days[np.argmax(np.abs(days))]) * DAY_SECONDS))
    words["day"] = days + EPOCH
    return pa.Array.from_buffers(RAW, len(array), [_validity(array, valid), pa.py_buffer(words)])


def _values(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values of a fixed-width array; values of nulls are undefined."""
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _validity(array: pa.Array, valid: NDArray[np.bool_]) -> pa.Buffer | None:
    return pa.py_buffer(np.packbits(valid, bitorder="little")) if array.null_count else None


def _date(seconds: int) -> str:
    """Return the date and time of a timestamp as text, for any year."""
    return str(np.datetime64(seconds, "s"))

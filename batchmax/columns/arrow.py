"""Finds Arrow columns by name, and unwraps extension types, dictionaries, runs and views, of types and of arrays.

Names of nested columns are dotted. Doesn't know what columns mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.errors import UsageError
from batchmax.runtime.lazy_imports import ImportedWhenUsed

pc = ImportedWhenUsed("pyarrow.compute")

_SPARK_FIELDS = {"type", "size", "indices", "values"}
_LIST_TYPES = {
    pa.ListType: pa.list_,
    pa.LargeListType: pa.large_list,
    pa.FixedSizeListType: pa.list_,
    pa.ListViewType: pa.list_view,
    pa.LargeListViewType: pa.large_list_view,
}
"""The list types, and the function that makes each."""
_TEXT_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BINARY_KINDS = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)


def column_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the type of every column by name; fields of structs have dotted names."""
    types: dict[str, pa.DataType] = {}

    def enter(prefix: str, fields: Iterable[pa.Field]) -> None:
        for field in fields:
            name = prefix + field.name
            types.setdefault(name, field.type)
            plain = plain_type(field.type)
            if pa.types.is_struct(plain) and not is_spark_vector(plain):
                enter(f"{name}.", plain)

    # Top-level names take precedence: a dot in one of them isn't a level of nesting.
    for field in schema:
        types.setdefault(field.name, field.type)
    enter("", schema)
    return types


def plain_type(arrow_type: pa.DataType) -> pa.DataType:
    """Return the type of the values: the storage of an extension type, the values of a dictionary or of runs."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return plain_type(arrow_type.storage_type)
    if pa.types.is_dictionary(arrow_type) or pa.types.is_run_end_encoded(arrow_type):
        return plain_type(arrow_type.value_type)
    return arrow_type


def is_list(arrow_type: pa.DataType) -> bool:
    """Return whether a type, unwrapped by :func:`plain_type`, is a list type of any kind."""
    return type(arrow_type) in _LIST_TYPES


def child_fields(arrow_type: pa.DataType) -> list[pa.Field]:
    """Return the fields of a struct, the key and the item of a map, or the item of a list; none for other types."""
    if pa.types.is_map(arrow_type):
        return [arrow_type.key_field, arrow_type.item_field]
    if pa.types.is_struct(arrow_type):
        return list(arrow_type)
    return [arrow_type.value_field] if is_list(arrow_type) else []


def with_child_types(arrow_type: pa.DataType, types: Iterable[pa.DataType]) -> pa.DataType:
    """Return a struct, map or list type with other types of its :func:`child_fields`; other types unchanged."""
    fields = [field.with_type(kind) for field, kind in zip(child_fields(arrow_type), types, strict=True)]
    if pa.types.is_map(arrow_type):
        return pa.map_(*fields, keys_sorted=arrow_type.keys_sorted)
    if pa.types.is_struct(arrow_type):
        return pa.struct(fields)
    sizes = [arrow_type.list_size] if pa.types.is_fixed_size_list(arrow_type) else []
    return _LIST_TYPES[type(arrow_type)](*fields, *sizes) if fields else arrow_type


def is_large(arrow_type: pa.DataType) -> bool:
    """Return whether a type, unwrapped by :func:`plain_type`, is a list type with 64-bit offsets."""
    return bool(pa.types.is_large_list(arrow_type) or pa.types.is_large_list_view(arrow_type))


def is_binary(arrow_type: pa.DataType) -> bool:
    """Return whether a type, unwrapped by :func:`plain_type`, is a binary type of any kind."""
    return any(is_kind(arrow_type) for is_kind in _BINARY_KINDS)


def is_text(arrow_type: pa.DataType) -> bool:
    """Return whether a type, unwrapped by :func:`plain_type`, is a text type of any kind."""
    return any(is_kind(arrow_type) for is_kind in _TEXT_KINDS)


def is_text_or_bytes(arrow_type: pa.DataType) -> bool:
    """Return whether a type, unwrapped by :func:`plain_type`, is text, or bytes of any length."""
    # Old Parquet writers don't annotate binary columns as text.
    return is_text(arrow_type) or (is_binary(arrow_type) and not pa.types.is_fixed_size_binary(arrow_type))


def type_text(arrow_type: pa.DataType) -> str:
    """Return a type in the usual notation: ``list<float>`` instead of ``list<element: float>``."""
    return re.sub(r"(list(?:_view)?<)\w+: ", r"\1", str(arrow_type))


def is_spark_vector(plain: pa.DataType) -> bool:
    """Return whether a type, unwrapped by :func:`plain_type`, is the struct that Spark ML stores vectors as."""
    return bool(pa.types.is_struct(plain)) and {field.name for field in plain} == _SPARK_FIELDS


def column_array(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column by name, dotted if nested; nulls of the enclosing structs apply to it.

    Raises
    ------
    UsageError
        There is no such column.
    """
    path = column_path(batch.schema, name)
    if not path:
        raise UsageError(f"there is no column {name!r}", remedy="batchmax inspect FILE shows the columns")
    array = batch.column(path[0])
    for position in path[1:]:
        array = pc.struct_field(plain_array(array), [position])
    return array


def column_path(schema: pa.Schema, name: str) -> list[int]:
    """Return the position of a column, dotted if nested: that of its field in each level; empty if there is none."""
    index = schema.get_field_index(name)
    return [index] if index >= 0 else _path(schema, name)


def plain_array(array: pa.Array) -> pa.Array:
    """Return an array without extension type, dictionary, runs or views."""
    if isinstance(array, pa.ExtensionArray):
        return plain_array(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return plain_array(array.dictionary.take(array.indices))
    if isinstance(array, pa.RunEndEncodedArray):
        return plain_array(pc.run_end_decode(array))
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        # Not a cast: pyarrow 26 produces decreasing offsets.
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return pa.LargeListArray.from_arrays(offsets, array.flatten(), mask=array.is_null())
    if pa.types.is_binary_view(array.type):
        return array.cast(pa.large_binary())
    return array


def number_values(array: pa.Array) -> NDArray[Any]:
    """Return the values of a plain numeric array as a view; values of null entries are undefined."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    return buffer_view(array.buffers()[1], dtype, array.offset, len(array))


def buffer_view(buffer: pa.Buffer | None, dtype: np.dtype[Any], offset: int, length: int) -> NDArray[Any]:
    """Return ``length`` numbers of a buffer as a read-only view, starting at number ``offset``."""
    # Arrow may omit the buffer of an empty array, and NumPy raises an error for an empty one.
    if length == 0 or buffer is None:
        return read_only(np.zeros(length, dtype))
    return read_only(np.frombuffer(buffer, dtype, count=length, offset=offset * dtype.itemsize))


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view."""
    view = array.view()
    view.flags.writeable = False
    return view


def valid_rows(array: pa.Array) -> NDArray[np.bool_]:
    """Return for each row whether it isn't null."""
    kind, bits, offset = array.type, array.buffers()[0], array.offset
    if pa.types.is_primitive(kind) or is_list(kind):
        if bits is None:
            return np.ones(len(array), np.bool_)
    else:  # for other types, such as unions, nulls may be stored elsewhere; this imports pyarrow.compute
        valid = array.is_valid()
        bits, offset = valid.buffers()[1], valid.offset
    # Not to_numpy: it imports pandas if installed, which takes a sixth of a second.
    packed = np.frombuffer(bits, np.uint8)
    return np.unpackbits(packed, count=offset + len(array), bitorder="little")[offset:].view(np.bool_)


def _path(fields: Iterable[pa.Field], name: str) -> list[int]:
    for position, field in enumerate(fields):
        if field.name == name:
            return [position]
        kind = plain_type(field.type)
        if name.startswith(f"{field.name}.") and pa.types.is_struct(kind):
            inner = _path(kind, name[len(field.name) + 1 :])
            if inner:
                return [position, *inner]
    return []

"""Checks record batches from outside, and decodes them to types that can be computed on and written.

Batches that come through IPC or Arrow's C interface, or were built from buffers in Python, may contain offsets, indices
or views that point outside of their memory; Arrow detects this only in a full validation. Types that pyarrow can't
filter, take or write, such as string views and run-end-encoded columns, become plain arrays. A batch whose plain arrays
are much larger than the batch itself is decoded a few rows at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchmax.columns.arrow import (
    buffer_view,
    child_fields,
    is_binary,
    is_list,
    is_text,
    is_text_or_bytes,
    number_values,
    type_text,
    valid_rows,
    with_child_types,
)
from batchmax.errors import DataError, UsageError
from batchmax.runtime.arrow_errors import PARSING, is_damage
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.runtime.text import quantity

pc = ImportedWhenUsed("pyarrow.compute")

OFFSET_BYTES = 8
"""Bytes that a text, a binary value or a list takes in addition to its value."""

_CHECK_WRITER = "check the program that wrote the stream"


def check_schema(schema: pa.Schema, where: str) -> None:
    """Check that all names in a schema are valid text.

    Raises
    ------
    DataError
        A name isn't UTF-8.
    """
    try:
        for field in schema:
            _read_names(field)
    except UnicodeDecodeError as error:
        raise DataError(f"a column name is not UTF-8: {error}", where=where, remedy=_CHECK_WRITER) from error


def _read_names(field: pa.Field) -> None:
    """Access the names of a field and all nested fields: pyarrow decodes a name on access."""
    _ = field.name
    kind = field.type
    while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    for place in range(kind.num_fields):
        _read_names(kind.field(place))


def check_batch(batch: pa.RecordBatch, where: str) -> None:
    """Check that a batch is valid.

    This runs Arrow's full validation, which checks offsets, indices, views, run ends, union types, null counts and
    UTF-8 of all arrays and nested arrays; it also checks array lengths and nulls in non-nullable columns.

    Raises
    ------
    DataError
        The batch is invalid; the error names the column and the reason.
    """
    for number, field in enumerate(batch.schema):
        column = batch.column(number)
        try:
            column.validate(full=True)
        except PARSING as error:
            if not is_damage(error):
                raise
            raise _damage(field, " ".join(str(error).split()), where) from error
        if len(column) != batch.num_rows:
            raise _damage(field, f"it has {quantity(len(column), 'row')}, but the batch has {batch.num_rows:,}", where)
        if column.null_count and not field.nullable:
            raise _damage(
                field, f"{quantity(column.null_count, 'row is', 'rows are')} null, but the field is not nullable", where
            )


def _damage(field: pa.Field, what: str, where: str) -> DataError:
    return DataError(
        f"column {field.name!r} ({type_text(field.type)}) is invalid: {what}", where=where, remedy=_CHECK_WRITER
    )


def decoded_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with plain types for views, runs, and dictionaries of values other than text and bytes."""
    return pa.schema([field.with_type(_decoded_type(field.type)) for field in schema], schema.metadata)


def decoded_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch converted to the schema that :func:`decoded_schema` returns for it."""
    schema = decoded_schema(batch.schema)
    if schema.equals(batch.schema) and not any(map(_has_null_entry, batch.columns)):
        return batch
    columns = [_decoded(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def decoded_batches(batches: Iterable[pa.RecordBatch], n_bytes: int) -> Iterator[pa.RecordBatch]:
    """Yield decoded batches of at most ``n_bytes`` decoded bytes, or of one row; empty batches are dropped."""
    for batch in batches:
        start = 0
        for rows in _pieces(batch, n_bytes):
            yield decoded_batch(batch.slice(start, rows))
            start += rows


def check_parquet_types(fields: Iterable[pa.Field]) -> None:
    """Check that every column has a Parquet type.

    Raises
    ------
    UsageError
        Some have none; the error names them.
    """
    found = [field for field in fields if not _is_written(field.type)]
    if not found:
        return
    names = ", ".join(f"{field.name!r} ({type_text(field.type)})" for field in found)
    raise UsageError(
        f"{'column' if len(found) == 1 else 'columns'} {names} can't be written to Parquet",
        where="--columns",
        remedy=f"leave {'them' if len(found) > 1 else 'it'} out: --exclude {','.join(field.name for field in found)}",
    )


@lru_cache(maxsize=256)
def _is_written(kind: pa.DataType) -> bool:
    """Return whether pyarrow can write a type to Parquet; found by trying, because it depends on pyarrow's version."""
    if pa.types.is_primitive(kind) and not pa.types.is_interval(kind):
        return True
    try:
        pq.write_table(pa.Table.from_batches([], pa.schema([pa.field("x", kind)])), io.BytesIO())
    except (pa.ArrowException, OSError):
        return False
    return True


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_run_end_encoded(kind):
        return _decoded_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        storage = _decoded_type(kind.storage_type)
        return kind if storage == kind.storage_type else storage
    if pa.types.is_dictionary(kind):
        value = _decoded_type(kind.value_type)
        # Parquet keeps dictionaries of text and bytes. Others are read back as plain values, some with another type.
        return pa.dictionary(kind.index_type, value, kind.ordered) if is_text_or_bytes(value) else value
    return with_child_types(kind, [_decoded_type(field.type) for field in child_fields(kind)])


def _decoded(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return an array converted to ``kind``, which :func:`_decoded_type` returned for its type."""
    if array.type == kind and not _has_null_entry(array):
        return array
    if isinstance(array, pa.ExtensionArray):
        return _decoded(array.storage, kind)
    if isinstance(array, pa.RunEndEncodedArray):
        # run_end_decode doesn't support all value types.
        values = _decoded(array.values, kind)
        return values.take(pa.array(_runs(array)))
    if isinstance(array, pa.DictionaryArray):
        if not pa.types.is_dictionary(kind):
            return _decoded(array.dictionary, kind).take(array.indices)
        values = _decoded(array.dictionary, kind.value_type)
        if values.null_count:  # Parquet dictionaries have no null entries
            encoded = values.take(array.indices).dictionary_encode()
            array, values = encoded, encoded.dictionary
        return pa.DictionaryArray.from_arrays(array.indices.cast(kind.index_type), values, ordered=kind.ordered)
    if pa.types.is_map(kind):
        entries = pa.struct([kind.key_field, kind.item_field])
        return _with_child(array, kind, _decoded(_entries(array), entries))
    if pa.types.is_struct(kind):
        fields = list(kind)
        children = [_decoded(array.field(place), field.type) for place, field in enumerate(fields)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    if is_list(kind):
        return _with_child(array, kind, _decoded(array.values, kind.value_type))
    return array.cast(kind)


def _has_null_entry(array: pa.Array) -> bool:
    return isinstance(array, pa.DictionaryArray) and array.dictionary.null_count > 0


def _with_child(array: pa.Array, kind: pa.DataType, child: pa.Array) -> pa.Array:
    """Return lists or a map with another child, and the same offsets and nulls."""
    is_view = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    own = 1 if pa.types.is_fixed_size_list(kind) else 3 if is_view else 2
    buffers = array.buffers()[:own]
    return pa.Array.from_buffers(kind, len(array), buffers, array.null_count, array.offset, [child])


def _entries(array: pa.MapArray) -> pa.StructArray:
    """Return the keys and values of all rows of a map as structs."""
    return pa.StructArray.from_arrays([array.keys, array.items], fields=[array.type.key_field, array.type.item_field])


def _runs(array: pa.RunEndEncodedArray) -> NDArray[np.int64]:
    """Return the index of the run that each row is in."""
    rows = np.arange(array.offset, array.offset + len(array), dtype=np.int64)
    return np.searchsorted(number_values(array.run_ends), rows, side="right")


def _pieces(batch: pa.RecordBatch, n_bytes: int) -> Iterator[int]:
    """Yield numbers of rows to decode at a time, so that they take at most ``n_bytes`` bytes."""
    sizes = np.zeros(1, np.int64)
    for column, field in zip(batch.columns, decoded_schema(batch.schema), strict=True):
        # Only in these columns can a few bytes decode to many.
        if column.type != field.type or _has_list_views(column.type):
            sizes = sizes + _row_bytes(column)
    left, largest = batch.num_rows, max(1, int(sizes.max(initial=0)))
    if len(sizes) == 1 or largest * left <= n_bytes:
        most = max(1, n_bytes // largest)
        while left > 0:
            yield min(most, left)
            left -= most
        return
    ends = np.cumsum(sizes)
    start = done = 0
    while start < batch.num_rows:
        end = max(start + 1, int(np.searchsorted(ends, done + n_bytes, side="right")))
        yield end - start
        start, done = end, int(ends[end - 1])


def _has_list_views(kind: pa.DataType) -> bool:
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    return any(_has_list_views(kind.field(place).type) for place in range(kind.num_fields))


def _row_bytes(array: pa.Array) -> NDArray[np.int64]:
    """Return an upper bound of the decoded bytes of each row; one number if it is the same for all rows."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _row_bytes(array.storage)
    if isinstance(array, pa.RunEndEncodedArray):
        return _largest(array.values)
    if isinstance(array, pa.DictionaryArray):
        return _largest(array.dictionary)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = np.frombuffer(array.buffers()[1] or b"", "<i4").reshape(-1, 4)[array.offset : array.offset + len(array)]
        return np.where(valid_rows(array), views[:, 0], 0).astype(np.int64) + OFFSET_BYTES
    if pa.types.is_fixed_size_list(kind):
        return np.int64(kind.list_size) * _largest(array.values)
    if pa.types.is_map(kind) or is_list(kind):
        if pa.types.is_map(kind):
            lengths = np.diff(buffer_view(array.buffers()[1], np.dtype("i4"), array.offset, len(array) + 1))
            return lengths * _largest(_entries(array)) + OFFSET_BYTES
        lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0))
        return lengths.astype(np.int64) * _largest(array.values) + OFFSET_BYTES
    if pa.types.is_struct(kind):
        return sum((_row_bytes(array.field(place)) for place in range(kind.num_fields)), np.zeros(1, np.int64))
    if pa.types.is_union(kind):
        return sum((_largest(array.field(place)) for place in range(kind.num_fields)), np.zeros(1, np.int64))
    if is_binary(kind) or is_text(kind):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0)).astype(np.int64) + OFFSET_BYTES
    return np.array([1 if pa.types.is_null(kind) else -(-kind.bit_width // 8)])


def _largest(array: pa.Array) -> NDArray[np.int64]:
    return np.array([_row_bytes(array).max(initial=0)])

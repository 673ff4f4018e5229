"""Restores types that Parquet can't store from the Arrow schema in a file's metadata."""

from __future__ import annotations

import base64
from collections.abc import Collection

import pyarrow as pa

from batchmax.columns.arrow import child_fields, with_child_types
from batchmax.sources.parquet_file import InputFile


def declared_schema(schema: pa.Schema, file: InputFile, names: Collection[str]) -> pa.Schema:
    """Return a schema in which some columns have the types that the file's Arrow schema declares.

    Parquet has no type for date64 (stored as days), seconds (stored as milliseconds) and dictionaries of numbers
    (stored as these numbers). pyarrow reads the stored types; other readers (Polars, arrow-rs) restore the declared
    ones.
    """
    encoded = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if encoded is None:
        return schema
    try:
        declared = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
        found = {field.name: field.type for field in declared if len(declared.get_all_field_indices(field.name)) == 1}
        fields = [
            field.with_type(_declared(field.type, found[field.name]))
            if field.name in names and field.name in found
            else field
            for field in schema
        ]
    except (pa.ArrowException, ValueError, OSError):
        return schema  # the Arrow schema is damaged, or a name isn't UTF-8; pyarrow ignores it too
    return pa.schema(fields, schema.metadata)


def _declared(read: pa.DataType, declared: pa.DataType) -> pa.DataType:
    """Return the declared type if it is stored in the same way as the type that is read, otherwise the latter."""
    types = pa.types
    fields, others = child_fields(read), child_fields(declared)
    if fields and type(read) is type(declared):
        if types.is_struct(read) and [field.name for field in fields] != [field.name for field in others]:
            return read
        if types.is_map(read):
            others[0] = fields[0]  # keys stay as they are read
        pairs = zip(fields, others, strict=True)
        return with_child_types(read, [_declared(mine.type, theirs.type) for mine, theirs in pairs])
    if types.is_dictionary(declared):
        value = read.value_type if types.is_dictionary(read) else read
        return declared if _plain(value) == _plain(declared.value_type) else read
    same = (
        (types.is_date32(read) and types.is_date64(declared))
        or (read == pa.time32("ms") and declared == pa.time32("s"))
        or (types.is_timestamp(read) and read.unit == "ms" and declared == pa.timestamp("s", read.tz))
    )
    return declared if same else read


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type with 32-bit offsets for text or bytes with 64-bit offsets, which are stored in the same way."""
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)

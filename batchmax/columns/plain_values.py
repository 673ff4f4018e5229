"""Arrow columns as plain Python values, for text and JSON. Doesn't know what columns mean."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchmax.columns.arrow import child_fields, with_child_types


@dataclass(frozen=True)
class PlainColumn:
    """A column as Python values: its name, its values, and whether they are numbers."""

    name: str
    values: list[Any]
    is_number: bool


def plain_columns(table: pa.Table) -> Iterator[PlainColumn]:
    """Yield the columns of a table; times are text, because Python has no times with nanoseconds."""
    readable = _readable(table)
    for name, column in zip(readable.column_names, readable.columns, strict=True):
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        yield PlainColumn(name, column.to_pylist(), is_number)


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table for JSON: bytes as base64, other types that JSON lacks as text."""
    return json.loads(json.dumps(_readable(table).to_pylist(), default=_as_text))  # type: ignore[no-any-return]


def _readable(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([field.with_type(_readable_type(field.type)) for field in table.schema]))


def _readable_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_struct(kind):
        return with_child_types(kind, [_readable_type(field.type) for field in child_fields(kind)])
    return kind


def _as_text(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)

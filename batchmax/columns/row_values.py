"""Values of columns that group rows: their types, their numbers, and their form in JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import is_binary, plain_array, plain_type
from batchmax.errors import UsageError

Array = NDArray[Any]


def check_by(name: str, kind: pa.DataType, where: str = "--by", *, allows_bytes: bool = True) -> None:
    """Check that a column of a type can group rows.

    Raises
    ------
    UsageError
        The type is nested or an interval, or bytes if these aren't allowed.
    """
    plain = plain_type(kind)
    is_excluded = is_binary(plain) and not allows_bytes
    if pa.types.is_nested(plain) or pa.types.is_interval(plain) or is_excluded:
        raise UsageError(f"column {name!r} has type {kind}", where=where, remedy="name a column of single values")


def number_values(column: pa.Array, numbers: dict[Any, int], keys: Callable[[pa.Array], list[Any]]) -> Array:
    """Return the number of each value, (n,) int64, and add the numbers of new values to ``numbers``.

    ``keys`` returns the keys of distinct values in ``numbers``; values with equal keys have one number.
    """
    encoded = column.dictionary_encode(null_encoding="encode")
    found = [numbers.setdefault(key, len(numbers)) for key in keys(encoded.dictionary)]
    numbers_of_rows: Array = np.array(found, np.int64)[encoded.indices.to_numpy()]
    return numbers_of_rows


def number_texts(column: pa.Array, numbers: dict[Any, int]) -> Array:
    """Return the number of each value as :func:`number_values` does; the keys are values that JSON can hold."""
    column = plain_array(column)
    kind = column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.string())
    return number_values(column, numbers, lambda values: list(map(json_value, values.to_pylist())))


def json_value(value: Any) -> Any:
    """Return a value in a form that JSON can hold."""
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)

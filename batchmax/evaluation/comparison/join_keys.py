"""Read the key column of Parquet files: whether keys are ascending, and all keys if they fit in memory.

Inputs with ascending keys are paired as they are read; other inputs need all keys in memory. Knows columns and files,
not what is paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax.columns.arrow import (
    column_array,
    is_binary,
    number_values,
    plain_array,
    plain_type,
    type_text,
    valid_rows,
)
from batchmax.errors import DataError, UsageError
from batchmax.options.input_options import InputOptions
from batchmax.sources.decode_budget import DecodeBudget
from batchmax.sources.parquet_file import InputFile
from batchmax.sources.read_errors import read_errors

ROWS_READ = 1 << 16
"""Keys that are decoded at a time."""

KEY_SHARE = 16
"""Keys of one input may take 1/KEY_SHARE of the memory limit; finding partners takes several times as much."""


@dataclass(frozen=True, eq=False)
class Keys:
    """The keys of some files.

    Attributes
    ----------
    is_ascending
        Whether the keys are strictly ascending without nulls, so that there are no duplicates.
    values
        All keys, or None if they don't fit in memory.
    """

    is_ascending: bool
    values: pa.ChunkedArray | None


def check_key(kind: pa.DataType, name: str, where: str) -> None:
    """Check that a column of a type can be a key.

    Raises
    ------
    UsageError
        The type isn't integer, text, bytes, decimal or time.
    """
    kind = plain_type(kind)
    is_exact = pa.types.is_integer(kind) or pa.types.is_temporal(kind) or pa.types.is_decimal(kind)
    if not (is_exact or pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_binary(kind)):
        raise UsageError(
            f"column {name!r} ({type_text(kind)}) of {where} can't be a key",
            where="--key",
            remedy="name a column of integers, text or times",
        )


def comparable(array: pa.Array) -> pa.Array:
    """Return keys in the one type that all types of their kind are compared in: int64 for integers, bytes for text."""
    array = plain_array(array)
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        return array.cast(pa.int64())
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or is_binary(array.type):
        return array.cast(pa.large_binary())
    return array


def comparable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type to which :func:`comparable` converts keys of a type."""
    return comparable(pa.array([], kind)).type


def read_keys(files: Sequence[InputFile], name: str, options: InputOptions) -> Keys:
    """Read the keys of files; keep them if they fit in memory.

    Raises
    ------
    DataError
        A file can't be read.
    """
    kept: list[pa.Array] | None = []
    is_ascending, last, n_bytes = True, None, 0
    for array in map(comparable, _batches(files, name, options.limit, options.memory_limit)):
        if is_ascending:
            both = array if last is None else pa.concat_arrays([last, array])
            is_ascending = not array.null_count and _ascends(both)
            last = array[-1:]
        if kept is not None:
            kept.append(array)
            n_bytes += array.nbytes
            if n_bytes > options.memory_limit // KEY_SHARE:
                kept = None
        if kept is None and not is_ascending:
            break
    kind = comparable_type(files[0].columns.schema.field(name).type)
    return Keys(is_ascending, None if kept is None else pa.chunked_array(kept, kind))


def values_at(files: Sequence[InputFile], name: str, rows: Sequence[int], memory_limit: int) -> dict[int, int | str]:
    """Return the keys of some rows, numbered over all files: integers as they are, others as text.

    Raises
    ------
    DataError
        A file can't be read.
    """
    result: dict[int, int | str] = {}
    wanted, first = np.array(rows, np.int64), 0
    for array in _batches(files, name, max(rows, default=-1) + 1, memory_limit):
        here = wanted[(wanted >= first) & (wanted < first + len(array))]
        result |= {row: _shown(array[row - first]) for row in here.tolist()}
        first += len(array)
    return result


def partners(a: pa.ChunkedArray, b: pa.ChunkedArray, names: tuple[str, str]) -> NDArray[np.int64]:
    """Return for each key of a the row of b with the same key, or -1. Null keys have no partner.

    Raises
    ------
    DataError
        A key occurs twice; the error names the key, its first two rows and the input, by ``names``.
    """
    if not (pa.types.is_integer(a.type) or pa.types.is_temporal(a.type)):
        for keys, name in zip((a, b), names, strict=True):
            if pc.count_distinct(keys, mode="only_valid").as_py() < len(keys) - keys.null_count:
                values, counts = pc.value_counts(keys.drop_null()).flatten()
                raise _twice(keys, values.filter(pc.greater(counts, 1))[0], name)
        return number_values(pc.index_in(a, value_set=b, skip_nulls=True).combine_chunks().fill_null(-1)).astype(int)
    # Sorting numbers takes a tenth of the memory of Arrow's hash tables.
    ordered = []
    for keys, name in zip((a, b), names, strict=True):
        order, values = _ordered(keys)
        same = np.flatnonzero(values[1:] == values[:-1])
        if len(same):
            raise _twice(keys, keys[int(order[same].min())], name)
        ordered.append((order, values))
    (order_a, values_a), (order_b, values_b) = ordered
    partner = np.full(len(a), -1, np.int64)
    if len(values_b):
        place = np.minimum(np.searchsorted(values_b, values_a), len(values_b) - 1)
        is_there = values_b[place] == values_a
        partner[order_a[is_there]] = order_b[place[is_there]]
    return partner


def _ordered(keys: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the rows of the non-null keys in the order of their keys, and these keys as numbers."""
    whole = keys.combine_chunks()
    values = number_values(whole if pa.types.is_integer(keys.type) else whole.view(f"int{keys.type.bit_width}"))
    rows = np.flatnonzero(valid_rows(whole)) if whole.null_count else None
    order = np.argsort(values if rows is None else values[rows], kind="stable")
    order = order if rows is None else rows[order]
    return order, values[order]


def _twice(keys: pa.ChunkedArray, key: pa.Scalar, where: str) -> DataError:
    first = pc.index(keys, key).as_py()
    second = first + 1 + pc.index(keys[first + 1 :], key).as_py()
    return DataError(
        f"rows {first:,} and {second:,} have the same key, {_shown(key)!r}",
        where=where,
        remedy="name a column of unique values: --key COLUMN",
    )


def _shown(key: pa.Scalar) -> int | str:
    if pa.types.is_temporal(key.type) or pa.types.is_decimal(key.type):
        return str(key.cast(pa.string()).as_py())
    value = key.as_py()
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _ascends(array: pa.Array) -> bool:
    return bool(pc.all(pc.less(array[:-1], array[1:])).as_py() in {True, None})


def _batches(files: Sequence[InputFile], name: str, limit: int | None, memory_limit: int) -> Iterator[pa.Array]:
    left = limit
    for file in files:
        with read_errors(file.path), file.opened() as opened:
            for group in range(opened.parquet.num_row_groups):
                if left is not None and left <= 0:
                    return
                opened.need(group, [name])
                for batch in DecodeBudget(opened, group, [name], memory_limit).batches(ROWS_READ):
                    array = plain_array(column_array(file.conform(batch, [name]), name))[:left]
                    if len(array):
                        yield array
                    if left is not None:
                        left -= len(array)

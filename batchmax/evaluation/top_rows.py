"""The n rows with the largest values of all that go by: never more than n of them in memory, however many there are.

Knows Arrow columns and one number a row; not what either means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.errors import UsageError


class Largest:
    """The n rows with the largest values so far; of equal ones, those that came first.

    Parameters
    ----------
    n
        How many rows to keep.
    schema
        Their columns.
    limit
        Bytes that they may take.
    """

    def __init__(self, n: int, schema: pa.Schema, limit: int) -> None:
        self.table = pa.Table.from_batches([], schema)
        self._values: NDArray[np.float64] = np.empty(0)
        self._n = n
        self._limit = limit

    def add(self, values: NDArray[np.float64], columns_of: Callable[[NDArray[np.intp]], Sequence[pa.Array]]) -> None:
        """Look at some more rows.

        Parameters
        ----------
        values
            Shape (n_rows,). NaN for a row that does not count.
        columns_of
            Returns the columns of some of these rows, by their numbers, in memory of their own.

        Raises
        ------
        UsageError
            The rows kept take more memory than they may.
        """
        is_full = len(self._values) == self._n
        rows = np.flatnonzero(values > self._values[-1] if is_full else ~np.isnan(values))
        if not len(rows):
            return
        rows = rows[_falling(values[rows])[: self._n]]
        found = pa.Table.from_arrays(list(columns_of(rows)), schema=self.table.schema)
        both = np.concatenate([self._values, values[rows]])
        order = _falling(both)[: self._n]
        self.table = pa.concat_tables([self.table, found]).take(pa.array(order)).combine_chunks()
        self._values = both[order]
        if self.table.nbytes > self._limit:
            raise UsageError(
                f"{len(order):,} rows take {self.table.nbytes / 2**20:,.0f} MiB, and may take "
                f"{self._limit / 2**20:,.0f}",
                where="--memory-limit",
                remedy="ask for fewer rows or columns, or allow more",
            )


def decoded_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary; any other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def decoded(array: pa.Array) -> pa.Array:
    """Return the values of a dictionary column without the dictionary; any other column as it is."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _falling(values: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.argsort(-values, kind="stable")

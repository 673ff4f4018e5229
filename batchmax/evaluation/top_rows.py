"""Keep the n rows with the largest values of a stream of rows. Memory doesn't grow with the length of the stream.

Knows Arrow columns and one number per row, not their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.errors import UsageError
from batchmax.runtime.text import quantity


class TopRows:
    """The n rows with the largest values so far; of equal values, the first.

    Parameters
    ----------
    n
        How many rows to keep; may be 0.
    schema
        The schema of the rows.
    limit
        Bytes that the rows may take.
    """

    def __init__(self, n: int, schema: pa.Schema, limit: int) -> None:
        self.table = pa.Table.from_batches([], schema)
        self._values: NDArray[np.float64] = np.empty(0)
        self._n = n
        self._limit = limit

    def add(self, values: NDArray[np.float64], columns_of: Callable[[NDArray[np.intp]], Sequence[pa.Array]]) -> None:
        """Add some rows.

        Parameters
        ----------
        values
            Shape (n_rows,). NaN for a row to leave out.
        columns_of
            Returns the columns of the rows with these numbers, in newly allocated memory.

        Raises
        ------
        UsageError
            The kept rows exceed the limit.
        """
        if not self._n:
            return
        is_full = len(self._values) == self._n
        rows = np.flatnonzero(values > self._values[-1] if is_full else ~np.isnan(values))
        if not len(rows):
            return
        rows = rows[_descending(values[rows])[: self._n]]
        added = pa.Table.from_arrays(list(columns_of(rows)), schema=self.table.schema)
        both = np.concatenate([self._values, values[rows]])
        order = _descending(both)[: self._n]
        self.table = pa.concat_tables([self.table, added]).take(pa.array(order)).combine_chunks()
        self._values = both[order]
        if self.table.nbytes > self._limit:
            raise UsageError(
                f"{quantity(len(order), 'row takes', 'rows take')} {self.table.nbytes / 2**20:,.0f} MiB; the limit is "
                f"{self._limit / 2**20:,.0f} MiB",
                where="--memory-limit",
                remedy="select fewer rows or columns, or raise the limit",
            )


def decoded_type(kind: pa.DataType) -> pa.DataType:
    """Return the value type of a dictionary type, or any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def decoded(array: pa.Array) -> pa.Array:
    """Return a dictionary column decoded, or any other column unchanged."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _descending(values: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.argsort(-values, kind="stable")

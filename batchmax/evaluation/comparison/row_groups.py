"""Clusters and groups of rows by the values of columns. Knows batches; doesn't know what groups are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, plain_array, plain_type
from batchmax.errors import UsageError
from batchmax.evaluation.cluster_keys import hash_values
from batchmax.jobs.row_batch import RowBatch
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]


class RowGroups:
    """The hash of each row's cluster, and the number of each row's value of a column; of tokens, those of their rows.

    Parameters
    ----------
    cluster, by
        The columns, or None.
    """

    def __init__(self, cluster: str | None, by: str | None) -> None:
        self.cluster, self.by = cluster, by
        self._numbers: dict[Any, int] = {}

    @property
    def values(self) -> list[Any]:
        """The values of ``by``, in the order of their numbers."""
        return list(self._numbers)

    def of(self, batch: RowBatch) -> tuple[Array | None, Array | None]:
        """Return the hashes and the numbers of the rows or tokens of a batch, (n,); None without a column."""
        hashes = None if self.cluster is None else hash_values(self._column(batch, self.cluster))
        numbers = None if self.by is None else self._numbered(self._column(batch, self.by))
        if isinstance(batch.chunk, TokenChunk):
            rows = batch.chunk.tokens.places()[0]
            hashes, numbers = (None if one is None else one[rows] for one in (hashes, numbers))
        return hashes, numbers

    def _column(self, batch: RowBatch, name: str) -> pa.Array:
        chunk = batch.chunk
        return column_array(chunk.tokens.rows, name) if isinstance(chunk, TokenChunk) else chunk.values(name)

    def _numbered(self, column: pa.Array) -> Array:
        coded = plain_array(column).dictionary_encode(null_encoding="encode")
        values = coded.dictionary.to_pylist()
        numbers = [self._numbers.setdefault(_readable(value), len(self._numbers)) for value in values]
        found: Array = np.array(numbers, np.int64)[coded.indices.to_numpy(zero_copy_only=False)]
        return found


def check_by(name: str, kind: pa.DataType) -> None:
    """Check that a column of a type can group rows.

    Raises
    ------
    UsageError
        The type is nested or an interval.
    """
    plain = plain_type(kind)
    if pa.types.is_nested(plain) or pa.types.is_interval(plain):
        raise UsageError(f"column {name!r} has type {kind}", where="--by", remedy="name a column of single values")


def _readable(value: Any) -> Any:
    """Return a value in a form that JSON can hold; NaN equals itself."""
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)

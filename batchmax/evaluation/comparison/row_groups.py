"""Clusters and groups of rows by the values of columns. Knows batches; doesn't know what groups are for."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array
from batchmax.columns.row_values import number_texts
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
        numbers = None if self.by is None else number_texts(self._column(batch, self.by), self._numbers)
        if isinstance(batch.chunk, TokenChunk):
            rows = batch.chunk.tokens.places()[0]
            hashes, numbers = (None if one is None else one[rows] for one in (hashes, numbers))
        return hashes, numbers

    def _column(self, batch: RowBatch, name: str) -> pa.Array:
        chunk = batch.chunk
        return column_array(chunk.tokens.rows, name) if isinstance(chunk, TokenChunk) else chunk.values(name)

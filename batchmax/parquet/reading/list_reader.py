"""Reads a column of equally long lists into matrices without decoding levels.

:class:`MatrixReader` reads one column chunk in order, any number of rows at a time. It raises :class:`PageError` for
all data that isn't known to be rows of K values without nulls; another reader must then read the column.

In a list column whose rows all have K values and no nulls, the repetition levels are 0 followed by K - 1 ones, repeated
for each row, and all definition levels have the maximum. Levels are compared with this pattern, never decoded.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.parquet.footer import Leaf
from batchmax.parquet.reading.raw_pages import MAX_PAGE_BYTES, PageError
from batchmax.parquet.reading.value_reader import MAX_DEFINITION, FlatLevels, NumberReader
from batchmax.parquet.thrift import Struct


class MatrixReader(NumberReader):
    """The rows of one column chunk, in order.

    Parameters
    ----------
    descriptor, chunk, workers, max_page_bytes
        As for :class:`NumberReader`.
    leaf
        The column's leaf in the schema.
    n_rows, n_classes
        The required shape of the whole chunk.

    Raises
    ------
    PageError
        If the type, nesting, codec or number of values is another.
    """

    def __init__(
        self,
        descriptor: int,
        chunk: Struct,
        leaf: Leaf,
        n_rows: int,
        n_classes: int,
        workers: Executor | None = None,
        max_page_bytes: int = MAX_PAGE_BYTES,
    ) -> None:
        if leaf.repetition != 1 or not 1 <= leaf.definition <= MAX_DEFINITION:
            raise PageError("not a list of floats")
        super().__init__(descriptor, chunk, FlatLevels(n_classes, leaf.definition), workers, max_page_bytes)
        if self.n_values != n_rows * n_classes:
            raise PageError("rows have different lengths")

    def read_into(self, out: NDArray[Any]) -> None:
        """Fill an (n, K) C-contiguous array of the column's type with the next n rows.

        Raises
        ------
        PageError
            If the pages don't have n more rows of K values, or have an unsupported form.
        OSError
            If the file can't be read.
        """
        target = out.reshape(-1).view(np.uint8)
        if self.fill(target) != len(target):
            raise PageError("there are fewer values than the footer says")

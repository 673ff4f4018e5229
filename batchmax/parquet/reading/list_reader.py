"""A column of equally long lists into matrices, without walking levels.

:class:`MatrixReader` reads one column chunk in order, as many rows at a time as are asked for. Whatever it does not
know to be rows of K values without a null it refuses with :class:`NotAMatrix`; then another reader must do the work.

In a list column whose rows all have K values and no nulls, the repetition levels are 0 followed by K - 1 ones, again
and again, and the definition levels are all the largest one. They are compared with that, never decoded.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.parquet.footer import Leaf
from batchmax.parquet.reading.raw_pages import MOST_PAGE_BYTES, NotAMatrix
from batchmax.parquet.reading.value_reader import MOST_DEFINITION, FlatLevels, NumberReader
from batchmax.parquet.thrift import Struct


class MatrixReader:
    """The rows of one column chunk, in order.

    Parameters
    ----------
    descriptor, chunk, workers, most_page_bytes
        As for :class:`NumberReader`.
    leaf
        What the schema says of the column.
    n_rows, n_classes
        The shape the whole chunk must have.

    Raises
    ------
    NotAMatrix
        Another type, nesting, codec or number of values.
    """

    def __init__(
        self,
        descriptor: int,
        chunk: Struct,
        leaf: Leaf,
        n_rows: int,
        n_classes: int,
        workers: Executor | None = None,
        most_page_bytes: int = MOST_PAGE_BYTES,
    ) -> None:
        if leaf.repetition != 1 or not 1 <= leaf.definition <= MOST_DEFINITION:
            raise NotAMatrix("no list of numbers")
        levels = FlatLevels(n_classes, leaf.definition)
        self._numbers = NumberReader(descriptor, chunk, levels, workers, most_page_bytes)
        if self._numbers.n_values != n_rows * n_classes:
            raise NotAMatrix("rows are not all of one length")

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the values are: float32 or float64."""
        return self._numbers.dtype

    def read_into(self, out: NDArray[Any]) -> None:
        """Fill (n, K) C-contiguous memory of the column's type with the next n rows.

        Raises
        ------
        NotAMatrix
            The pages do not hold that many rows of K values, or not in a way that is read here.
        OSError
            The file cannot be read.
        """
        target = out.reshape(-1).view(np.uint8)
        if self._numbers.fill(target) != len(target):
            raise NotAMatrix("there are fewer values than the footer says")

    def check_end(self) -> None:
        """Check that all rows were read.

        Raises
        ------
        NotAMatrix
            More pages follow.
        """
        self._numbers.check_end()

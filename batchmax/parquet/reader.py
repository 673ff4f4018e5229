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
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.parquet.pages import DICTIONARY_PAGE, NotAMatrix, Page, PageReader

TYPES: dict[str, np.dtype[Any]] = {"FLOAT": np.dtype(np.float32), "DOUBLE": np.dtype(np.float64)}
PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 2, 8, 9
MOST_DEFINITION = 3


class MatrixReader:
    """The rows of one column chunk, in order.

    Parameters
    ----------
    descriptor
        Of the open file; read at positions, so that it can be shared.
    chunk
        What the footer says of the column chunk.
    column
        What the schema says of the column.
    n_rows, n_classes
        The shape the whole chunk must have.
    workers
        Who unpacks pages ahead, as for :class:`~batchmax.parquet.pages.PageReader`.

    Attributes
    ----------
    dtype
        What the values are: float32 or float64.

    Raises
    ------
    NotAMatrix
        Another type, nesting, codec or number of values.
    """

    def __init__(
        self,
        descriptor: int,
        chunk: pq.ColumnChunkMetaData,
        column: pq.ColumnSchema,
        n_rows: int,
        n_classes: int,
        workers: Executor | None = None,
    ) -> None:
        if chunk.physical_type not in TYPES:
            raise NotAMatrix(f"type {chunk.physical_type}")
        if column.max_repetition_level != 1 or not 1 <= column.max_definition_level <= MOST_DEFINITION:
            raise NotAMatrix("no list of numbers")
        if chunk.num_values != n_rows * n_classes:
            raise NotAMatrix("rows are not all of one length")
        if chunk.file_path:
            raise NotAMatrix("the column lies in another file")
        self.dtype = TYPES[chunk.physical_type]
        self._n_classes = n_classes
        self._level = column.max_definition_level
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            start = min(start, chunk.dictionary_page_offset)
        pages = PageReader(descriptor, start, start + chunk.total_compressed_size, chunk.compression, workers)
        self._pages = iter(pages)
        self._packed = _packed_pattern(n_classes)
        self._place = 0
        self._dictionary: NDArray[Any] | None = None
        self._left: NDArray[Any] = np.empty(0, self.dtype)

    def read_into(self, out: NDArray[Any]) -> None:
        """Fill (n, K) C-contiguous memory of the column's type with the next n rows.

        Raises
        ------
        NotAMatrix
            The pages do not hold that many rows of K values, or not in a way that is read here.
        OSError
            The file cannot be read.
        """
        flat = out.reshape(-1)
        done = 0
        while done < len(flat):
            if not len(self._left):
                done += self._next_page(flat[done:])
                continue
            count = min(len(self._left), len(flat) - done)
            flat[done : done + count] = self._left[:count]
            self._left = self._left[count:]
            done += count

    def _next_page(self, out: NDArray[Any]) -> int:
        """Read a page: into ``out`` if all of it fits there, otherwise put it by. Return how many values went out."""
        page = next(self._pages, None)
        if page is None:
            raise NotAMatrix("there are fewer values than the footer says")
        if page.kind == DICTIONARY_PAGE:
            if page.encoding not in {PLAIN, PLAIN_DICTIONARY} or len(page.values) % self.dtype.itemsize:
                raise NotAMatrix("a dictionary that is not plain")
            self._dictionary = page.values.view(self.dtype).copy()
            return 0
        self._check_levels(page)
        if page.encoding == PLAIN:
            self._left = self._plain(page)
            return 0
        fits = page.n_values <= len(out)
        target = out[: page.n_values] if fits else np.empty(page.n_values, self.dtype)
        self._decode(page, target)
        if fits:
            return page.n_values
        self._left = target
        return 0

    def _check_levels(self, page: Page) -> None:
        n_values, level = page.n_values, self._level
        self._place = kernels.check_repetition(page.repetition, n_values, self._n_classes, self._place, self._packed)
        if self._place < 0:
            raise NotAMatrix("rows are not all of one length")
        if not kernels.check_definition(page.definition, n_values, level, level.bit_length()):
            raise NotAMatrix("a row or a value is null")

    def _plain(self, page: Page) -> NDArray[Any]:
        if len(page.values) != page.n_values * self.dtype.itemsize:
            raise NotAMatrix("a page holds another number of values than it says")
        return np.frombuffer(page.values, self.dtype)

    def _decode(self, page: Page, out: NDArray[Any]) -> None:
        if page.encoding in {PLAIN_DICTIONARY, RLE_DICTIONARY}:
            if self._dictionary is None or not kernels.look_up(page.values, page.n_values, self._dictionary, out):
                raise NotAMatrix("indices that the dictionary does not have")
        elif page.encoding == BYTE_STREAM_SPLIT:
            if len(page.values) != out.nbytes:
                raise NotAMatrix("a page holds another number of values than it says")
            # All first bytes, then all second bytes, and so on.
            size = self.dtype.itemsize
            out.view(np.uint8).reshape(-1, size)[:] = page.values.reshape(size, -1).T
        else:
            raise NotAMatrix(f"encoding {page.encoding}")


def _packed_pattern(n_classes: int) -> NDArray[np.uint8]:
    """Return (K,) the eight repetition levels that begin at each place in a row, packed into a byte."""
    places = np.arange(n_classes)
    packed = np.zeros(n_classes, np.uint8)
    for bit in range(8):
        packed |= ((places + bit) % n_classes != 0).astype(np.uint8) << np.uint8(bit)
    return packed

"""A column of equally long lists into matrices, without walking levels.

:class:`MatrixReader` reads one column chunk in order, as many rows at a time as are asked for. Whatever it does not
know to be rows of K values without a null it refuses with :class:`NotAMatrix`; then another reader must do the work.

In a list column whose rows all have K values and no nulls, the repetition levels are 0 followed by K - 1 ones, again
and again, and the definition levels are all the largest one. They are compared with that, never decoded.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.parquet.encoded import CODEC, FILE_PATH, METADATA, N_VALUES, TYPE, place_of
from batchmax.parquet.footer import Leaf
from batchmax.parquet.packed import DICTIONARY_PAGE, MOST_PAGE_BYTES, NotAMatrix, copied, joined, pooled
from batchmax.parquet.pages import (
    BYTE_STREAM_SPLIT,
    FLOATS,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE_DICTIONARY,
    Page,
    PageReader,
)
from batchmax.parquet.thrift import Struct

TYPES: dict[int, np.dtype[Any]] = {number: dtype for dtype, number in FLOATS.items()}
MOST_DEFINITION = 3


class MatrixReader:
    """The rows of one column chunk, in order.

    Parameters
    ----------
    descriptor
        Of the open file; read at positions, so that it can be shared.
    chunk
        What the footer says of the column chunk.
    leaf
        What the schema says of the column.
    n_rows, n_classes
        The shape the whole chunk must have.
    workers, most_page_bytes
        Who unpacks pages ahead, and how large they may be, as for :class:`~batchmax.parquet.pages.PageReader`.

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
        chunk: Struct,
        leaf: Leaf,
        n_rows: int,
        n_classes: int,
        workers: Executor | None = None,
        most_page_bytes: int = MOST_PAGE_BYTES,
    ) -> None:
        if FILE_PATH in chunk or METADATA not in chunk:
            raise NotAMatrix("the column lies in another file, or is encrypted")
        metadata: Struct = chunk[METADATA].value
        try:
            kind, codec, n_values = (metadata[field].value for field in (TYPE, CODEC, N_VALUES))
            start, size = place_of(metadata)
        except (KeyError, TypeError, AttributeError) as error:
            raise NotAMatrix("the footer is damaged") from error
        if kind not in TYPES:
            raise NotAMatrix(f"type {kind}")
        if leaf.repetition != 1 or not 1 <= leaf.definition <= MOST_DEFINITION:
            raise NotAMatrix("no list of numbers")
        if n_values != n_rows * n_classes:
            raise NotAMatrix("rows are not all of one length")
        if start < 0 or size < 0 or start + size > os.fstat(descriptor).st_size:
            raise NotAMatrix("the column reaches beyond the file")
        self.dtype = TYPES[kind]
        self._n_classes = n_classes
        self._values_left = n_values
        self._level = leaf.definition
        self._reader = PageReader(descriptor, start, start + size, codec, workers, most_page_bytes)
        self._pages = iter(self._reader)
        self._packed = _packed_pattern(n_classes)
        self._place = self._place_after = 0
        self._checked: tuple[int, int, bytes, bytes] | None = None
        self._dictionary: NDArray[Any] | None = None
        self._left: deque[NDArray[np.uint8]] = deque()

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
        done = 0
        while done < len(target):
            if not self._left:
                done += self._next_page(target[done:])
                continue
            piece = self._left.popleft()
            count = min(len(piece), len(target) - done)
            target[done : done + count] = piece[:count]
            if count < len(piece):
                self._left.appendleft(piece[count:])
            done += count

    def _next_page(self, out: NDArray[np.uint8]) -> int:
        """Read a page: into ``out`` if all of it fits there, otherwise put it by. Return how many bytes went out."""
        again = self._reader.repeat(out)
        if again is not None:
            last, count = again
            for _ in range(count):
                self._count(last)
            return count * last.n_bytes
        page = next(self._pages, None)
        if page is None:
            raise NotAMatrix("there are fewer values than the footer says")
        if page.kind == DICTIONARY_PAGE:
            if page.encoding not in {PLAIN, PLAIN_DICTIONARY} or page.n_bytes % self.dtype.itemsize:
                raise NotAMatrix("a dictionary that is not plain")
            self._dictionary = copied(page.values).view(self.dtype)
            return 0
        self._count(page)
        n_bytes = page.n_values * self.dtype.itemsize
        if page.encoding == PLAIN:
            if page.n_bytes != n_bytes:
                raise NotAMatrix("a page holds another number of values than it says")
            self._left.extend(piece for piece in page.values if len(piece))
            return 0
        fits = n_bytes <= len(out)
        target = out[:n_bytes] if fits else pooled(n_bytes)
        self._decode(page, target)
        if fits:
            return n_bytes
        self._left.append(target)
        return 0

    def _count(self, page: Page) -> None:
        """Take a page's values from those that are to come, and check its levels."""
        self._values_left -= page.n_values
        if self._values_left < 0:
            raise NotAMatrix("there are more values than the footer says")
        n_values, level = page.n_values, self._level
        # Most pages have the levels of the one before.
        levels = (self._place, n_values, page.repetition.tobytes(), page.definition.tobytes())
        if levels == self._checked:
            self._place = self._place_after
            return
        self._place = kernels.check_repetition(page.repetition, n_values, self._n_classes, self._place, self._packed)
        if self._place < 0:
            raise NotAMatrix("rows are not all of one length")
        if not kernels.check_definition(page.definition, n_values, level, level.bit_length()):
            raise NotAMatrix("a row or a value is null")
        self._checked, self._place_after = levels, self._place

    def _decode(self, page: Page, out: NDArray[np.uint8]) -> None:
        values = joined(page.values)
        if page.encoding in {PLAIN_DICTIONARY, RLE_DICTIONARY}:
            numbers = out.view(self.dtype)
            if self._dictionary is None or not kernels.look_up(values, page.n_values, self._dictionary, numbers):
                raise NotAMatrix("indices that the dictionary does not have")
        elif page.encoding == BYTE_STREAM_SPLIT:
            if len(values) != len(out):
                raise NotAMatrix("a page holds another number of values than it says")
            # All first bytes, then all second bytes, and so on.
            size = self.dtype.itemsize
            out.reshape(-1, size)[:] = values.reshape(size, -1).T
        else:
            raise NotAMatrix(f"encoding {page.encoding}")


@lru_cache(maxsize=4)
def _packed_pattern(n_classes: int) -> NDArray[np.uint8]:
    """Return (K,) the eight repetition levels that begin at each place in a row, packed into a byte."""
    places = np.arange(n_classes)
    packed = np.zeros(n_classes, np.uint8)
    for bit in range(8):
        packed |= ((places + bit) % n_classes != 0).astype(np.uint8) << np.uint8(bit)
    return packed

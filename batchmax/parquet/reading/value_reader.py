"""Reads the numbers of a column chunk, whatever lists they are in."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.parquet.rle import check_repetition, count_levels
from batchmax.parquet.format import (
    BYTE_STREAM_SPLIT,
    DICTIONARY_ENCODINGS,
    DICTIONARY_PAGE,
    FLOATS,
    PLAIN,
    PLAIN_DICTIONARY,
)
from batchmax.parquet.reading.dictionary_values import DictionaryValues, look_up
from batchmax.parquet.reading.page_reader import Page, PageReader
from batchmax.parquet.reading.raw_pages import MAX_PAGE_BYTES, Bytes, PageError, copied, joined, pooled
from batchmax.parquet.thrift import Struct
from batchmax.parquet.writing.column_chunk import CODEC, FILE_PATH, METADATA, N_VALUES, TYPE, chunk_range

TYPES: dict[int, np.dtype[Any]] = {number: dtype for dtype, number in FLOATS.items()}


MAX_DEFINITION = 3


class Levels(Protocol):
    """Checks the levels of a column's pages."""

    def check(self, page: Page) -> int:
        """Return the number of numbers in a page; raise :class:`PageError` if its levels are not as expected."""


class FlatLevels:
    """Checks the levels of rows of K values."""

    def __init__(self, n_classes: int, level: int) -> None:
        self._n_classes = n_classes
        self._level = level
        self._packed = _packed_pattern(n_classes)
        self._place = self._place_after = 0
        self._checked: tuple[int, int, bytes, bytes] | None = None

    def check(self, page: Page) -> int:
        """Return the number of numbers in a page."""
        n_values, level = page.n_values, self._level
        # Most pages have the same levels as the previous one.
        levels = (self._place, n_values, page.repetition.tobytes(), page.definition.tobytes())
        if levels == self._checked:
            self._place = self._place_after
            return n_values
        self._place = check_repetition(page.repetition, n_values, self._n_classes, self._place, self._packed)
        if self._place < 0:
            raise PageError("rows have different lengths")
        counted = count_levels(page.definition, n_values, level.bit_length(), level)
        if counted != (len(page.definition), n_values):
            raise PageError("a row or a value is null")
        self._checked, self._place_after = levels, self._place
        return n_values


class NumberReader:
    """The numbers of one column chunk, in order, whatever lists they are in.

    Parameters
    ----------
    descriptor
        The file descriptor; only read at given positions, so it can be shared.
    chunk
        The ColumnChunk struct.
    levels
        Checks the levels of each page.
    workers, max_page_bytes
        The executor that decompresses pages ahead, and the largest page, as for
        :class:`~batchmax.parquet.reading.page_reader.PageReader`.

    Attributes
    ----------
    dtype
        The type of the values: float32 or float64.
    n_values
        The footer's number of values, including nulls and empty lists.

    Raises
    ------
    PageError
        If the type or codec isn't supported; from methods, if pages don't match their headers or the footer.
    OSError
        From methods, if the file can't be read.
    """

    def __init__(
        self,
        descriptor: int,
        chunk: Struct,
        levels: Levels,
        workers: Executor | None = None,
        max_page_bytes: int = MAX_PAGE_BYTES,
    ) -> None:
        kind, codec, n_values, start, size = chunk_properties(chunk, descriptor)
        self.dtype = TYPES[kind]
        self.n_values: int = n_values
        self._levels = levels
        self._values_left = n_values
        self._reader = PageReader(descriptor, start, start + size, codec, workers, max_page_bytes)
        self._pages = iter(self._reader)
        self._dictionary: NDArray[Any] | None = None
        self._left: deque[NDArray[np.uint8]] = deque()
        self._large: Callable[[Bytes], None] | None = None
        self._large_left = 0

    def fill(self, target: NDArray[np.uint8]) -> int:
        """Fill memory with the next numbers; return the number of bytes, smaller only at the end of the column."""
        done = 0
        while done < len(target):
            if self._left:
                piece = self._left.popleft()
                count = min(len(piece), len(target) - done)
                target[done : done + count] = piece[:count]
                if count < len(piece):
                    self._left.appendleft(piece[count:])
            elif self._large is not None:
                count = min(self._large_left, len(target) - done)
                self._large(target[done : done + count])
                self._large_left -= count
                self._large = self._large if self._large_left else None
            else:
                found = self._next_page(target[done:])
                if found is None:
                    break
                count = found
            done += count
        return done

    def look_ahead(self) -> bool:
        """Check the levels of the next page and buffer its numbers; return whether there was a page."""
        assert self._large is None  # noqa: S101 - not called in the middle of a large page
        return self._next_page(np.empty(0, np.uint8)) is not None

    def check_end(self) -> None:
        """Check that no page with values follows those that were read.

        Raises
        ------
        PageError
            If one does.
        """
        for page in self._pages:
            if page.kind == DICTIONARY_PAGE or page.n_values:
                raise PageError("there are more values than the footer says")

    def _next_page(self, out: NDArray[np.uint8]) -> int | None:
        """Read the next page, into ``out`` if it fits there, else into a buffer.

        Returns the number of bytes in ``out``, or None if there is no further page.
        """
        again = self._reader.repeat(out) if len(out) else None
        if again is not None:
            last, count = again
            for _ in range(count):
                self._count(last)
            return count * last.n_bytes
        page = next(self._pages, None)
        if page is None:
            if self._values_left:
                raise PageError("there are fewer values than the footer says")
            return None
        if page.kind == DICTIONARY_PAGE:
            if self._dictionary is not None or self._values_left < self.n_values:
                raise PageError("a dictionary page is not the first page")
            if page.encoding not in {PLAIN, PLAIN_DICTIONARY} or page.n_bytes % self.dtype.itemsize:
                raise PageError("a dictionary page has an unsupported encoding")
            whole = joined(page.values)
            is_aligned = not whole.ctypes.data % self.dtype.itemsize
            self._dictionary = (whole if is_aligned else copied(page.values)).view(self.dtype)
            return 0
        n_bytes = self._count(page) * self.dtype.itemsize
        if page.encoding == PLAIN and page.n_bytes != n_bytes:
            raise PageError("the number of values of a page differs from its header")
        if page.stream is not None:
            self._begin_large(page, n_bytes)
            return 0
        if page.encoding == PLAIN:
            self._left.extend(piece for piece in page.values if len(piece))
            return 0
        fits = n_bytes <= len(out)
        target = out[:n_bytes] if fits else pooled(n_bytes)
        self._decode(page, target)
        if fits:
            return n_bytes
        self._left.append(target)
        return 0

    def _begin_large(self, page: Page, n_bytes: int) -> None:
        assert page.stream is not None  # noqa: S101 - the page is large
        if page.encoding == PLAIN:
            self._large = page.stream.into
        elif page.encoding in DICTIONARY_ENCODINGS and self._dictionary is not None:
            self._large = DictionaryValues(page.stream, self._dictionary).into
        else:
            raise PageError(f"unsupported encoding of a large page: {page.encoding}")
        self._large_left = n_bytes
        if not n_bytes:
            self._large = None

    def _count(self, page: Page) -> int:
        """Subtract a page's values from those left, check its levels, and return the number of its numbers."""
        self._values_left -= page.n_values
        if self._values_left < 0:
            raise PageError("there are more values than the footer says")
        return self._levels.check(page)

    def _decode(self, page: Page, out: NDArray[np.uint8]) -> None:
        values = joined(page.values)
        if page.encoding in DICTIONARY_ENCODINGS:
            numbers = out.view(self.dtype)
            if self._dictionary is None or not look_up(values, self._dictionary, numbers):
                raise PageError("dictionary indices are out of range")
        elif page.encoding == BYTE_STREAM_SPLIT:
            if len(values) != len(out):
                raise PageError("the number of values of a page differs from its header")
            # The first bytes of all numbers, then the second bytes, and so on.
            size = self.dtype.itemsize
            out.reshape(-1, size)[:] = values.reshape(size, -1).T
        else:
            raise PageError(f"unsupported encoding {page.encoding}")


def chunk_properties(chunk: Struct, descriptor: int) -> tuple[int, int, int, int, int]:
    """Return physical type, codec, number of values, position and size of a column chunk.

    Raises
    ------
    PageError
        If the type isn't supported, or the chunk is encrypted, in another file or beyond the end of the file.
    """
    if FILE_PATH in chunk or METADATA not in chunk:
        raise PageError("the column chunk is in another file, or is encrypted")
    metadata: Struct = chunk[METADATA].value
    kind, codec, n_values = (metadata[field].value for field in (TYPE, CODEC, N_VALUES))
    start, size = chunk_range(metadata)
    if kind not in TYPES:
        raise PageError(f"unsupported type {kind}")
    if start < 0 or size < 0 or start + size > os.fstat(descriptor).st_size:
        raise PageError("the column chunk exceeds the file")
    return kind, codec, n_values, start, size


@lru_cache(maxsize=4)
def _packed_pattern(n_classes: int) -> NDArray[np.uint8]:
    """Return, (K,), the eight repetition levels that begin at each index in a row, packed into a byte."""
    places = np.arange(n_classes)
    packed = np.zeros(n_classes, np.uint8)
    for bit in range(8):
        packed |= ((places + bit) % n_classes != 0).astype(np.uint8) << np.uint8(bit)
    return packed

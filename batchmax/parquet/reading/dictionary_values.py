"""Decodes values that are indices into a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.parquet import rle
from batchmax.kernels.parquet.rle import PADDING
from batchmax.parquet.reading.large_pages import DecompressedStream
from batchmax.parquet.reading.raw_pages import Bytes, PageError, pooled

MAX_WIDTH = 32
"""The largest number of bits of an index."""
INDEX_PIECE = 1 << 20
"""Uncompressed bytes of the indices of a large page that are decoded at once."""


def look_up(indices: Bytes, dictionary: NDArray[Any], out: NDArray[Any]) -> bool:
    """Fill memory with the entries of a page; return False if its indices are damaged or out of range.

    Parameters
    ----------
    indices
        The number of bits of an index, in one byte, then the indices in runs and bit-packed groups.
    dictionary, out
        The entries, and the memory for the values of the page; both of one type.
    """
    if not len(out):
        return True
    if not len(indices) or indices[0] > MAX_WIDTH:
        return False
    padded = np.concatenate([indices[1:], np.zeros(PADDING, np.uint8)])
    used, _ = rle.look_up(padded, True, int(indices[0]), dictionary, out, np.zeros(4, np.int64))
    return bool(used >= 0)


class DictionaryValues:
    """The values of a page that are indices into a dictionary."""

    def __init__(self, stream: DecompressedStream, dictionary: NDArray[Any]) -> None:
        self._stream = stream
        self._dictionary = dictionary
        self._width = int(stream.take(1)[0])
        if self._width > MAX_WIDTH:
            raise PageError("dictionary indices are out of range")
        self._data = pooled(PADDING)
        self._state = np.zeros(4, np.int64)

    def into(self, out: Bytes) -> None:
        """Fill memory with the next values."""
        numbers = out.view(self._dictionary.dtype)
        done = 0
        while done < len(numbers):
            rest = len(self._data) - PADDING
            if rest < INDEX_PIECE // 2 and self._stream.left:
                buffer = pooled(rest + min(INDEX_PIECE, self._stream.left) + PADDING)
                buffer[:rest] = self._data[:rest]
                self._stream.into(buffer[rest:-PADDING])
                self._data = buffer
            used, count = rle.look_up(
                self._data, not self._stream.left, self._width, self._dictionary, numbers[done:], self._state
            )
            if used < 0 or (not used and not count and not self._stream.left):
                raise PageError("dictionary indices are out of range")
            self._data = self._data[used:]
            done += count

"""Pages too long for memory, taken as they are unpacked.

Writers end a page of nested lists where a row ends, so that one row of a long sequence is one page, of gigabytes. Such
a page is read in pieces of its packed bytes; what is left to be unpacked is never more than a piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.kernels.parquet.snappy import LONG_LITERAL, LONGEST_TAG
from batchmax.parquet.format import CODECS
from batchmax.parquet.reading.raw_pages import PIECE, Bytes, NotAMatrix, PackedBody, pooled

PADDING = 8
"""Bytes that the kernel wants behind them."""
INDEX_PIECE = 1 << 20
"""Unpacked bytes of indices into a dictionary that are looked up at once."""
MOST_LENGTH_BYTES = 5
"""Bytes of the length that snappy begins with, seven bits each."""
HISTORY = 1 << 16
"""Bytes of a block of snappy: every encoder works on so many at a time, and copies go back no more than that."""
BLOCK_TAG = bytes([LONG_LITERAL + 1 << 2, 0xFF, 0xFF])
"""What stands before a block that is one literal: that its length, less one, has two bytes, and these."""
FIRST_BLOCKS = 64
"""Blocks that are read at once at first, and half as many as the next time if all of them were literals."""
MOST_BLOCKS = 500
"""Blocks that are read at once: the system reads a thousand pieces at once, with the tags between them."""
SNAPPY_PIECE = 1 << 18
"""Packed bytes that are read at once where they have to be unpacked."""


class Feed:
    """The unpacked bytes of some of a page's body, in order.

    Parameters
    ----------
    body
        The packed bytes; all that are left of them are read.
    codec
        How they are packed, by the format's number.
    size
        How many bytes there are when they are unpacked.

    Raises
    ------
    NotAMatrix
        From every method too: they are damaged, or packed in a way that cannot be unpacked bit by bit.
    """

    def __init__(self, body: PackedBody, codec: int, size: int) -> None:
        self.left = size
        self._body = body
        name = CODECS.get(codec, "")
        if name == "snappy":
            self._fill = _Snappy(body, size).fill
        elif name is None:
            self._fill = self._fill_stored
        elif name in {"gzip", "brotli", "zstd"}:
            self._stream = pa.CompressedInputStream(pa.PythonFile(body, "r"), name)
            self._fill = self._fill_unpacked
        else:
            raise NotAMatrix(f"a long page of codec {codec}")

    def into(self, out: Bytes) -> None:
        """Fill memory with the next bytes."""
        if len(out) > self.left:
            raise NotAMatrix("a page is not as long as it says")
        self._fill(out)
        self.left -= len(out)
        if not self.left and self._body.left:
            # The last bytes of the body mean nothing more, or too much; they count in the checksum.
            rest = pooled(min(self._body.left, PIECE))
            self._body.readinto(rest.data)
            if self._body.left:
                raise NotAMatrix("a page is not as long as it says")

    def take(self, size: int) -> Bytes:
        """Return the next bytes."""
        if size > self.left:
            raise NotAMatrix("a page is not as long as it says")
        out = pooled(size)
        self.into(out)
        return out

    def prefixed(self, most: int) -> Bytes:
        """Return what the next four bytes are the length of; at most so many bytes."""
        size = int.from_bytes(self.take(4).tobytes(), "little")
        if size > most:
            raise NotAMatrix("levels are longer than can be")
        return self.take(size)

    def _fill_stored(self, out: Bytes) -> None:
        if self._body.readinto(out.data) != len(out):
            raise NotAMatrix("a page is not as long as it says")

    def _fill_unpacked(self, out: Bytes) -> None:
        view, have = out.data, 0
        while have < len(out):
            try:
                got = self._stream.readinto(view[have:])
            except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # from reading the file, not from what is in it
                raise NotAMatrix(f"a page cannot be unpacked: {error}") from error
            if not got:
                raise NotAMatrix("a page is not as long as it says")
            have += got


class _Snappy:
    """Unpacks snappy from where it stopped.

    What snappy could not make smaller, logits mostly, are literals of a block each. Then a read brings what is to come
    of one, and as many more as there may be, to where they go, and their tags elsewhere; where a tag is another than
    was expected, what was read from there on is unpacked.
    """

    def __init__(self, body: PackedBody, size: int) -> None:
        self._body = body
        self._size = self._left = size
        self._data = np.empty(0, np.uint8)
        self._history = np.empty(0, np.uint8)
        self._state = np.zeros(3, np.int64)
        self._begun = False
        self._blocks = FIRST_BLOCKS
        self._tags = memoryview(bytearray(MOST_BLOCKS * len(BLOCK_TAG)))

    def fill(self, out: Bytes) -> None:
        filled = 0
        if not self._begun:
            self._begin()
        while filled < len(out):
            if not len(self._data) and self._state[0] and self._body.left:
                filled = self._fill_literals(out, filled)
                continue
            if len(self._data) < LONGEST_TAG and self._body.left:
                self._more()
            before = filled
            used, filled = kernels.unsnap(self._data, not self._body.left, out, filled, self._history, self._state)
            if used < 0:
                raise NotAMatrix("a page cannot be unpacked: corrupt snappy data")
            self._data = self._data[used:]
            if filled == before and not used and not self._body.left:
                raise NotAMatrix("a page is not as long as it says")
        self._history = np.concatenate([self._history, out[-HISTORY:]])[-HISTORY:]
        self._left -= len(out)
        if not self._left and (len(self._data) or self._body.left or self._state[:2].any()):
            raise NotAMatrix("a page is not as long as it says")

    def _fill_literals(self, out: Bytes, filled: int) -> int:
        """Read the rest of a literal, and of the blocks after it those that are literals; return what is filled."""
        view, tags = out.data, self._tags
        end = min(filled + int(self._state[0]), len(out), filled + self._body.left)
        self._state[0] -= end - filled
        pieces, left, size = [view[filled:end]], self._body.left - (end - filled), len(BLOCK_TAG)
        tail = end
        while self._state[0] == 0 and tail < len(out) and len(pieces) < 2 * self._blocks:
            count = min(HISTORY, len(out) - tail)
            left -= size + count
            if left < 0:
                break
            at = len(pieces) // 2 * size
            pieces += (tags[at : at + size], view[tail : tail + count])
            tail += count
        self._body.scatter(pieces)
        expected = BLOCK_TAG * (len(pieces) // 2)
        if tags[: len(expected)] == expected:
            self._blocks = min(2 * self._blocks, MOST_BLOCKS)
            if len(pieces) > 1:
                self._state[0] = HISTORY - len(pieces[-1])
            return tail
        right = next(n for n in range(len(pieces) // 2) if tags[n * size : (n + 1) * size] != BLOCK_TAG)
        self._blocks = 1
        self._data = np.frombuffer(b"".join(pieces[1 + 2 * right :]), np.uint8)
        return end + sum(map(len, pieces[2 : 2 + 2 * right : 2]))

    def _begin(self) -> None:
        """Read how many bytes there are."""
        self._more()
        size = used = 0
        while used < len(self._data) and used < MOST_LENGTH_BYTES:
            byte = int(self._data[used])
            size |= (byte & 0x7F) << (7 * used)
            used += 1
            if byte < 0x80:
                break
        if size != self._size:
            raise NotAMatrix("a page is not as long as it says")
        self._data = self._data[used:]
        self._begun = True

    def _more(self) -> None:
        """Put bytes behind those that are left."""
        rest = len(self._data)
        window = pooled(rest + min(SNAPPY_PIECE, self._body.left))
        window[:rest] = self._data
        self._body.readinto(window[rest:].data)
        self._data = window


class PlainValues:
    """The values of a page as they are."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def into(self, out: Bytes) -> None:
        """Fill memory with the next values."""
        self._feed.into(out)


class DictionaryValues:
    """The values of a page as indices into a dictionary."""

    def __init__(self, feed: Feed, dictionary: NDArray[Any]) -> None:
        self._feed = feed
        self._dictionary = dictionary
        self._width = int(feed.take(1)[0])
        if self._width > 32:
            raise NotAMatrix("indices that the dictionary does not have")
        self._data = pooled(PADDING)
        self._state = np.zeros(4, np.int64)

    def into(self, out: Bytes) -> None:
        """Fill memory with the next values."""
        numbers = out.view(self._dictionary.dtype)
        done = 0
        while done < len(numbers):
            rest = len(self._data) - PADDING
            if rest < INDEX_PIECE // 2 and self._feed.left:
                window = pooled(rest + min(INDEX_PIECE, self._feed.left) + PADDING)
                window[:rest] = self._data[:rest]
                self._feed.into(window[rest:-PADDING])
                self._data = window
            used, count = kernels.look_up_more(
                self._data, not self._feed.left, self._width, self._dictionary, numbers[done:], self._state
            )
            if used < 0 or (not used and not count and not self._feed.left):
                raise NotAMatrix("indices that the dictionary does not have")
            self._data = self._data[used:]
            done += count

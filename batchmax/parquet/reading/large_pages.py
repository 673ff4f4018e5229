"""Reads pages that are too large for memory while they are decompressed.

Writers end a page of nested lists where a row ends, so one row of a long sequence is one page, possibly of gigabytes.
Such a page is read in pieces of its compressed bytes, and no more than a piece waits to be decompressed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchmax.kernels.parquet.snappy import LONG_LITERAL, LONGEST_TAG, decompress_snappy
from batchmax.parquet.format import CODECS
from batchmax.parquet.reading.raw_pages import PIECE, Bytes, CompressedBody, PageError, pooled

MAX_LENGTH_BYTES = 5
"""The most bytes of the uncompressed size at the beginning of Snappy data, seven bits per byte."""
HISTORY = 1 << 16
"""The size of a Snappy block. Every encoder compresses blocks of this size, and copies refer to no earlier bytes."""
BLOCK_TAG = bytes([LONG_LITERAL + 1 << 2, 0xFF, 0xFF])
"""The tag of a full block that is one literal: a literal whose length - 1 follows in two bytes, and these bytes."""
FIRST_BLOCKS = 64
"""Blocks in the first read. The number doubles after each read in which all blocks were literals."""
MAX_BLOCKS = 500
"""The most blocks in a read: a system call reads about a thousand pieces, and each block has a tag."""
SNAPPY_PIECE = 1 << 18
"""Compressed bytes per read if they have to be decompressed."""


class DecompressedStream:
    """The uncompressed bytes of a page's body, or of a part of it, in order.

    Parameters
    ----------
    body
        The compressed bytes; all that are left of them are read.
    codec
        The number of the codec.
    size
        The uncompressed size.

    Attributes
    ----------
    left
        The number of uncompressed bytes that are left.

    Raises
    ------
    PageError
        If the bytes are damaged, or the codec can't decompress piece by piece; also raised by every method.
    """

    def __init__(self, body: CompressedBody, codec: int, size: int) -> None:
        self.left = size
        self._body = body
        name = CODECS.get(codec, "")
        if name == "snappy":
            self._fill = _SnappyStream(body, size).fill
        elif name is None:
            self._fill = self._fill_stored
        elif name in {"gzip", "brotli", "zstd"}:
            self._stream = pa.CompressedInputStream(pa.PythonFile(body, "r"), name)
            self._fill = self._fill_unpacked
        else:
            raise PageError(f"unsupported codec of a large page: {codec}")

    def into(self, out: Bytes) -> None:
        """Fill memory with the next bytes."""
        if len(out) > self.left:
            raise PageError("the size of a page differs from its header")
        self._fill(out)
        self.left -= len(out)
        if not self.left and self._body.left:
            # Bytes after the end of the data, if few, have no meaning but are part of the checksum. More of them are an
            # error.
            rest = pooled(min(self._body.left, PIECE))
            self._body.readinto(rest.data)
            if self._body.left:
                raise PageError("the size of a page differs from its header")

    def take(self, size: int) -> Bytes:
        """Return the next ``size`` bytes."""
        if size > self.left:
            raise PageError("the size of a page differs from its header")
        out = pooled(size)
        self.into(out)
        return out

    def length_prefixed(self, most: int) -> Bytes:
        """Return the bytes after the next four, which are their length.

        Raises
        ------
        PageError
            If they are more than ``most``.
        """
        size = int.from_bytes(self.take(4).tobytes(), "little")
        if size > most:
            raise PageError("levels exceed their maximum size")
        return self.take(size)

    def _fill_stored(self, out: Bytes) -> None:
        if self._body.readinto(out.data) != len(out):
            raise PageError("the size of a page differs from its header")

    def _fill_unpacked(self, out: Bytes) -> None:
        view, have = out.data, 0
        while have < len(out):
            try:
                got = self._stream.readinto(view[have:])
            except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # raised by reading the file, not by its content
                raise PageError(f"a page cannot be decompressed: {error}") from error
            if not got:
                raise PageError("the size of a page differs from its header")
            have += got


class _SnappyStream:
    """Decompresses Snappy data in pieces.

    Data that Snappy couldn't compress, mostly logits, are one literal per block. A read then brings the rest of the
    current literal, and as many following blocks as there may be, to their destination, and their tags to a buffer. If
    a tag isn't the expected one, the bytes from that tag on are decompressed normally.
    """

    def __init__(self, body: CompressedBody, size: int) -> None:
        self._body = body
        self._size = self._left = size
        self._data = np.empty(0, np.uint8)
        self._history = np.empty(0, np.uint8)
        self._state = np.zeros(3, np.int64)
        self._has_size = False
        self._blocks = FIRST_BLOCKS
        self._tags = memoryview(bytearray(MAX_BLOCKS * len(BLOCK_TAG)))

    def fill(self, out: Bytes) -> None:
        filled = 0
        if not self._has_size:
            self._read_size()
        while filled < len(out):
            if not len(self._data) and self._state[0] and self._body.left:
                filled = self._fill_literals(out, filled)
                continue
            if len(self._data) < LONGEST_TAG and self._body.left:
                self._read_more()
            before = filled
            used, filled = decompress_snappy(self._data, not self._body.left, out, filled, self._history, self._state)
            if used < 0:
                raise PageError("a page cannot be decompressed: corrupt snappy data")
            self._data = self._data[used:]
            if filled == before and not used and not self._body.left:
                raise PageError("the size of a page differs from its header")
        self._history = np.concatenate([self._history, out[-HISTORY:]])[-HISTORY:]
        self._left -= len(out)
        if not self._left and (len(self._data) or self._body.left or self._state[:2].any()):
            raise PageError("the size of a page differs from its header")

    def _fill_literals(self, out: Bytes, filled: int) -> int:
        """Read the rest of a literal and the following literal blocks; return how many bytes of out are filled."""
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
            self._blocks = min(2 * self._blocks, MAX_BLOCKS)
            if len(pieces) > 1:
                self._state[0] = HISTORY - len(pieces[-1])
            return tail
        right = next(n for n in range(len(pieces) // 2) if tags[n * size : (n + 1) * size] != BLOCK_TAG)
        self._blocks = 1
        self._data = np.frombuffer(b"".join(pieces[1 + 2 * right :]), np.uint8)
        return end + sum(map(len, pieces[2 : 2 + 2 * right : 2]))

    def _read_size(self) -> None:
        """Read the uncompressed size and check it."""
        self._read_more()
        size = used = 0
        while used < len(self._data) and used < MAX_LENGTH_BYTES:
            byte = int(self._data[used])
            size |= (byte & 0x7F) << (7 * used)
            used += 1
            if byte < 0x80:
                break
        if size != self._size:
            raise PageError("the size of a page differs from its header")
        self._data = self._data[used:]
        self._has_size = True

    def _read_more(self) -> None:
        """Append compressed bytes to those left."""
        rest = len(self._data)
        buffer = pooled(rest + min(SNAPPY_PIECE, self._body.left))
        buffer[:rest] = self._data
        self._body.readinto(buffer[rest:].data)
        self._data = buffer

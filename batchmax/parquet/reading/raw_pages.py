"""Finds the pages of a column chunk in a file and checks their checksums, without parsing their content.

Files are read with positioned reads into buffers of Arrow's memory pool, which reuses them. Files are never mapped: if
a mapped file is truncated, the process gets a signal instead of an error.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: PageHeader)
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from batchmax.parquet.fields import read_page_header
from batchmax.parquet.format import INDEX_PAGE, OWN_HEADERS
from batchmax.parquet.thrift import Struct, ThriftError
from batchmax.storage.system_calls import read_into

Bytes = NDArray[np.uint8]

HEADER = 1 << 12
"""Bytes read for a page header; statistics of numbers are short."""
MAX_PIECES = 500
"""The most pieces of a page that are read separately.

A system call reads about a thousand pieces, including the gaps between them.
"""
MAX_PAGE_BYTES = (1 << 31) - 1
"""The format stores sizes and counts of a page in 32 bits."""
LARGE_PAGE_BYTES = 48 << 20
"""A page with a larger compressed plus uncompressed size is not read into memory as a whole."""
PIECE = 4 << 20
"""Compressed bytes per read of such a page."""


NOTHING: Bytes = np.empty(0, np.uint8)


class PageError(ValueError):
    """Pages of a column chunk that are damaged, or that have a form that isn't supported here."""


class CompressedBody(io.RawIOBase):
    """The compressed bytes of a page as a stream that is read once and then compared with the page's checksum.

    Parameters
    ----------
    descriptor
        The file descriptor.
    header
        The page header.
    at, end
        The position of the body in the file.
    """

    def __init__(self, descriptor: int, header: Struct, at: int, end: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._header = header
        self._at = at
        self._end = end
        self._sum = 0

    @property
    def left(self) -> int:
        """The number of bytes that are left."""
        return self._end - self._at

    def readable(self) -> bool:
        """Return True."""
        return True

    def take(self, size: int) -> Bytes:
        """Return the next ``size`` bytes, which must not exceed those left."""
        out = pooled(size)
        self.readinto(out.data)
        return out

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes read."""
        out = memoryview(buffer).cast("B")[: self.left]
        self.scatter([out] if len(out) else [])
        return len(out)

    def scatter(self, pieces: list[memoryview]) -> None:
        """Fill several buffers in order; none may be empty, and together they must not exceed the bytes left."""
        rest = pieces
        while rest:
            got = read_into(self._descriptor, rest, self._at)
            if not got:
                raise PageError("the file ends within a column chunk")
            self._at += got
            whole = 0
            while whole < len(rest) and got >= len(rest[whole]):
                got -= len(rest[whole])
                whole += 1
            rest = rest[whole:]
            if got:
                rest[0] = rest[0][got:]
        if 4 in self._header and pieces:
            for piece in pieces:
                self._sum = crc32(piece, self._sum)
            if not self.left and self._sum != checksum(self._header):
                raise PageError("a page's checksum is wrong")


@dataclass(frozen=True, eq=False)
class CompressedPage:
    """A page as stored in the file: its position, its header, the size of its header, and its body.

    A large page has an empty body and a ``stream`` instead.
    """

    at: int
    header: Struct
    header_bytes: int
    body: Bytes
    stream: CompressedBody | None = None

    @property
    def n_bytes(self) -> int:
        """The size of the page in the file, including its header."""
        return self.header_bytes + number(self.header, 3)

    def check(self) -> None:
        """Compare the page with its checksum, if it has one; a large page is read to its end for that.

        Raises
        ------
        PageError
            If they differ.
        """
        if self.stream is not None:
            while self.stream.left:
                self.stream.readinto(pooled(min(self.stream.left, PIECE)).data)
        elif 4 in self.header and crc32(self.body.data) != checksum(self.header):
            raise PageError("a page's checksum is wrong")


class RangeReader:
    """The bytes of a file from ``start`` to ``end``, of which up to ``n_bytes`` are in memory.

    Memory isn't reused while arrays refer to it. If ``n_bytes`` is at least ``end - start``, all bytes are read at
    once. ``n_bytes`` may change between reads.
    """

    def __init__(self, descriptor: int, start: int, end: int, n_bytes: int) -> None:
        self.start = start
        self.end = end
        self._descriptor = descriptor
        self.n_bytes = n_bytes
        self._buffer = np.empty(0, np.uint8)
        self._low = start

    def has(self, at: int, size: int) -> bool:
        """Return whether these bytes are in memory."""
        return self._low <= at <= at + size <= self._low + len(self._buffer)

    def head(self, at: int) -> Bytes:
        """Return the bytes in memory from a position on, which include at least a page header."""
        size = min(HEADER, self.end - at)
        if not self.has(at, size):
            # No more than a header: it may be followed by a large page, which is read as a stream.
            self._read(at, size)
        return self._buffer[at - self._low :]

    def bytes(self, at: int, size: int) -> Bytes:
        """Return bytes of the file.

        Raises
        ------
        PageError
            If the file ends early, or the bytes aren't within the range.
        OSError
            If the file can't be read.
        """
        if size > self.end - at:
            raise PageError("a page exceeds its column chunk")
        if not self.has(at, size):
            self._read(at, min(max(size, self.n_bytes), self.end - at))
        return self._buffer[at - self._low : at - self._low + size]

    def stream(self, header: Struct, at: int, size: int) -> CompressedBody:
        """Return the body of a page with this header as a stream."""
        if size > self.end - at:
            raise PageError("a page exceeds its column chunk")
        return CompressedBody(self._descriptor, header, at, at + size)

    def _read(self, at: int, size: int) -> None:
        """Read these bytes, and drop those that were in memory."""
        buffer = pooled(size)
        have = 0
        while have < size:
            got = read_into(self._descriptor, [buffer.data[have:]], at + have)
            if not got:
                raise PageError("the file ends within a column chunk")
            have += got
        self._buffer, self._low = buffer, at


class CompressedPages:
    """The pages of a column chunk as stored in the file, in order.

    Parameters
    ----------
    reader
        Reads the bytes of the chunk.
    most
        The largest compressed plus uncompressed size of a page.
    large
        The compressed plus uncompressed size above which a page is streamed instead of read into memory.

    Attributes
    ----------
    at
        The position of the next page. A caller that reads pages in another way sets it to the position after them.
    """

    def __init__(self, reader: RangeReader, most: int = 2 * MAX_PAGE_BYTES, large: int = LARGE_PAGE_BYTES) -> None:
        self.at = reader.start
        self._reader = reader
        self._most = most
        self._large = large

    def __iter__(self) -> Iterator[CompressedPage]:
        """Return self."""
        return self

    def __next__(self) -> CompressedPage:
        """Return the next page, skipping index pages.

        Raises
        ------
        PageError
            If a header is damaged, or a page is incomplete or too large.
        OSError
            If the file can't be read.
        """
        while self.at < self._reader.end:
            at = self.at
            try:
                header, length = read_page_header(self._reader.head(at).data)
            except ThriftError as error:
                raise PageError(f"a page header is damaged: {error}") from error
            size = number(header, 3)
            if size + number(header, 2) > self._most:
                raise PageError("a page is too large")
            if size + number(header, 2) > self._large:
                page = CompressedPage(at, header, length, NOTHING, self._reader.stream(header, at + length, size))
            else:
                page = CompressedPage(at, header, length, self._reader.bytes(at + length, size))
            self.at += length + size
            if header[1].value != INDEX_PAGE:
                return page
        raise StopIteration


def pooled(n_bytes: int) -> Bytes:
    """Allocate memory from Arrow's pool, which reuses freed memory; memory that is new to the process is slow."""
    return np.frombuffer(pa.allocate_buffer(n_bytes), np.uint8)


def pooled_matrix(n_rows: int, n_columns: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate an (n_rows, n_columns) matrix from Arrow's pool."""
    return pooled(n_rows * n_columns * dtype.itemsize).view(dtype).reshape(n_rows, n_columns)


def copied(pieces: Sequence[Bytes]) -> Bytes:
    """Return a copy of the bytes in one piece, aligned for numbers."""
    return np.concatenate(pieces, out=pooled(sum(map(len, pieces))))


def joined(pieces: Sequence[Bytes]) -> Bytes:
    """Return the bytes in one piece, without a copy if they are in one piece already."""
    return pieces[0] if len(pieces) == 1 else copied(pieces)


def cut(pieces: Sequence[Bytes], size: int) -> tuple[Bytes, list[Bytes]]:
    """Return the first ``size`` bytes, in one piece, and the rest, in at least one.

    Raises
    ------
    PageError
        If there are fewer bytes.
    """
    if pieces and len(pieces[0]) > size:
        return pieces[0][:size], [pieces[0][size:], *pieces[1:]]
    first: list[Bytes] = []
    rest = deque(pieces)
    while size and rest:
        piece = rest.popleft()
        first.append(piece[:size])
        if len(piece) > size:
            rest.appendleft(piece[size:])
        size -= len(first[-1])
    if size:
        raise PageError("levels exceed their page")
    return joined(first or [NOTHING]), list(rest) or [NOTHING]


def cut_levels(body: Sequence[Bytes]) -> tuple[Bytes, list[Bytes]]:
    """Return the levels at the beginning of a data page of version 1, without their four bytes of length, and the rest.

    Raises
    ------
    PageError
        If the levels are longer than the page.
    """
    size, rest = cut(body, 4)
    return cut(rest, int.from_bytes(size.tobytes(), "little"))


def checksum(header: Struct) -> int:
    """Return the checksum in a page header."""
    return int(header[4].value) & 0xFFFFFFFF


def inner_header(header: Struct) -> Struct:
    """Return the part of a page header that belongs to its page type.

    Raises
    ------
    PageError
        If it is missing, or the page type isn't supported.
    """
    field = OWN_HEADERS.get(header[1].value)
    if field is None:
        raise PageError(f"unsupported page type {header[1].value}")
    if field not in header:
        raise PageError("a page header lacks the fields of its page type")
    found: Struct = header[field].value
    return found


def number(header: Struct, field: int) -> int:
    """Return a required count or size from a page header.

    Raises
    ------
    PageError
        If it is negative or too large.
    """
    value: int = header[field].value
    if not 0 <= value <= MAX_PAGE_BYTES:
        raise PageError("a page header has an invalid number")
    return value

"""Pages of a column chunk as they lie in the file: found, checked and unpacked, not understood.

What is read are positioned reads into windows of memory that Arrow's pool gives out again and again; a file is never
mapped, because one that is cut short under a map is a signal rather than an error.

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
from batchmax.parquet.format import INDEX_PAGE
from batchmax.parquet.thrift import Struct, ThriftError
from batchmax.storage.system_calls import read_into

Bytes = NDArray[np.uint8]

HEADER = 1 << 12
"""Bytes of a page header: statistics of numbers are short."""
MOST_PIECES = 500
"""Pieces of a page that are dealt with one by one: the system reads a thousand at once, with what is between them."""
MOST_PAGE_BYTES = (1 << 31) - 1
"""The format counts bytes and values of a page in 32 bits."""
LONG_PAGE_BYTES = 48 << 20
"""A page of more bytes, packed and unpacked, is not taken into memory at once."""
PIECE = 4 << 20
"""Packed bytes of such a page that are read at once."""


NOTHING: Bytes = np.empty(0, np.uint8)


class NotAMatrix(ValueError):  # noqa: N818 - says what a column is, and nothing went wrong
    """A column chunk that is not, or is not known to be, K values in every row in an encoding that is read here."""


class PackedBody(io.RawIOBase):
    """The packed bytes of a page in the file, read once from beginning to end, and then compared with its checksum.

    Parameters
    ----------
    descriptor
        Of the open file.
    header
        Of the page.
    at, end
        Where in the file its body lies.
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
        """How many bytes are to come."""
        return self._end - self._at

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def take(self, size: int) -> Bytes:
        """Return the next bytes, which must be there."""
        out = pooled(size)
        self.readinto(out.data)
        return out

    def readinto(self, buffer: Any) -> int:
        """Fill some memory; return how many bytes it got."""
        out = memoryview(buffer).cast("B")[: self.left]
        self.scatter([out] if len(out) else [])
        return len(out)

    def scatter(self, pieces: list[memoryview]) -> None:
        """Fill pieces of memory one after the other, none of them empty, with no more bytes than are left."""
        rest = pieces
        while rest:
            got = read_into(self._descriptor, rest, self._at)
            if not got:
                raise NotAMatrix("the file ends in the middle of a column")
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
                raise NotAMatrix("a page's checksum is wrong")


@dataclass(frozen=True, eq=False)
class PackedPage:
    """A page as it lies in the file: where it begins, its header and how long that is, and its body.

    A long page has no body here, but a ``stream`` of it.
    """

    at: int
    header: Struct
    header_bytes: int
    body: Bytes
    stream: PackedBody | None = None

    @property
    def n_bytes(self) -> int:
        """How many bytes of the file it has, header included."""
        return self.header_bytes + number(self.header, 3)

    def check(self) -> None:
        """Compare the page with its checksum, if it has one; a long page is read for that, to its end.

        Raises
        ------
        NotAMatrix
            They differ.
        """
        if self.stream is not None:
            while self.stream.left:
                self.stream.readinto(pooled(min(self.stream.left, PIECE)).data)
        elif 4 in self.header and crc32(self.body.data) != checksum(self.header):
            raise NotAMatrix("a page's checksum is wrong")


class Window:
    """Some bytes of a file, from ``start`` to ``end``, of which a few are in memory.

    The memory is not used again while somebody still looks at it. With ``n_bytes`` at least ``end - start`` all bytes
    are read at once.
    """

    def __init__(self, descriptor: int, start: int, end: int, n_bytes: int) -> None:
        self.start = start
        self.end = end
        self._descriptor = descriptor
        self._n_bytes = n_bytes
        self._window = np.empty(0, np.uint8)
        self._low = start

    def has(self, at: int, size: int) -> bool:
        """Return whether bytes are in memory."""
        return self._low <= at <= at + size <= self._low + len(self._window)

    def head(self, at: int) -> Bytes:
        """Return what is in memory from a place on, which is at least as much as a page header has."""
        size = min(HEADER, self.end - at)
        if not self.has(at, size):
            # No more, for what follows may be a long page, which is not taken from here.
            self._read(at, size)
        return self._window[at - self._low :]

    def bytes(self, at: int, size: int) -> Bytes:
        """Return bytes of the file.

        Raises
        ------
        NotAMatrix
            They are not all there.
        OSError
            The file cannot be read.
        """
        if size > self.end - at:
            raise NotAMatrix("a page reaches beyond its column")
        if not self.has(at, size):
            self._read(at, min(max(size, self._n_bytes), self.end - at))
        return self._window[at - self._low : at - self._low + size]

    def stream(self, header: Struct, at: int, size: int) -> PackedBody:
        """Return bytes of the file as a stream: the body of a page with this header."""
        if size > self.end - at:
            raise NotAMatrix("a page reaches beyond its column")
        return PackedBody(self._descriptor, header, at, at + size)

    def _read(self, at: int, size: int) -> None:
        """Have some bytes in memory, and no others."""
        window = pooled(size)
        have = 0
        while have < size:
            got = read_into(self._descriptor, [window.data[have:]], at + have)
            if not got:
                raise NotAMatrix("the file ends in the middle of a column")
            have += got
        self._window, self._low = window, at


class PackedPages:
    """The pages of a column chunk as they lie in the file, one after another.

    Parameters
    ----------
    window
        Of the chunk.
    most
        Bytes that a page may have, packed and unpacked.
    long
        Bytes from which on it is not taken into memory.

    Attributes
    ----------
    at
        Where in the file the next page begins. Whoever read it in another way may set it to what comes after.
    """

    def __init__(self, window: Window, most: int = 2 * MOST_PAGE_BYTES, long: int = LONG_PAGE_BYTES) -> None:
        self.at = window.start
        self._window = window
        self._most = most
        self._long = long

    def __iter__(self) -> Iterator[PackedPage]:
        """Return itself."""
        return self

    def __next__(self) -> PackedPage:
        """Find the next page.

        Raises
        ------
        NotAMatrix
            A header that is damaged, or a page that is not all there, or too large.
        OSError
            The file cannot be read.
        """
        while self.at < self._window.end:
            at = self.at
            try:
                header, length = read_page_header(self._window.head(at).data)
            except ThriftError as error:
                raise NotAMatrix(f"a page header is damaged: {error}") from error
            size = number(header, 3)
            if size + number(header, 2) > self._most:
                raise NotAMatrix("a page is too large")
            if size + number(header, 2) > self._long:
                page = PackedPage(at, header, length, NOTHING, self._window.stream(header, at + length, size))
            else:
                page = PackedPage(at, header, length, self._window.bytes(at + length, size))
            self.at += length + size
            if header[1].value != INDEX_PAGE:
                return page
        raise StopIteration


def pooled(n_bytes: int) -> Bytes:
    """Return memory of Arrow's pool, which gives out again what was used before: new memory is slow."""
    return np.frombuffer(pa.allocate_buffer(n_bytes), np.uint8)


def copied(pieces: Sequence[Bytes]) -> Bytes:
    """Return a copy of bytes in one piece, which lies where numbers may."""
    return np.concatenate(pieces, out=pooled(sum(map(len, pieces))))


def joined(pieces: Sequence[Bytes]) -> Bytes:
    """Return bytes in one piece."""
    return pieces[0] if len(pieces) == 1 else copied(pieces)


def cut(pieces: Sequence[Bytes], size: int) -> tuple[Bytes, list[Bytes]]:
    """Return the first bytes, in one piece, and the rest.

    Raises
    ------
    NotAMatrix
        There are not so many.
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
        raise NotAMatrix("levels are longer than their page")
    return joined(first or [np.empty(0, np.uint8)]), list(rest)


def cut_levels(body: Sequence[Bytes]) -> tuple[Bytes, list[Bytes]]:
    """Return the levels at the beginning of a data page of version 1, and the rest; four bytes say how long they are.

    Raises
    ------
    NotAMatrix
        They are longer than the page.
    """
    size, rest = cut(body, 4)
    return cut(rest, int.from_bytes(size.tobytes(), "little"))


def checksum(header: Struct) -> int:
    """Return the checksum that a page header has."""
    return int(header[4].value) & 0xFFFFFFFF


def inner_header(header: Struct, field: int) -> Struct:
    """Return the part of a page header that only pages of one type have.

    Raises
    ------
    NotAMatrix
        It is not there.
    """
    if field not in header:
        raise NotAMatrix("a page header lacks the part that its type needs")
    found: Struct = header[field].value
    return found


def number(header: Struct, field: int) -> int:
    """Return a count or a size of a page header.

    Raises
    ------
    NotAMatrix
        It is not there, or impossible.
    """
    value: Any = header[field].value if field in header else None
    if not isinstance(value, int) or not 0 <= value <= MOST_PAGE_BYTES:
        raise NotAMatrix("a page header lacks a number, or has an impossible one")
    return value

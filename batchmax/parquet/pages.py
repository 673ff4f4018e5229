"""Pages of a column chunk: found, checked and unpacked, several at once, and given in order.

What is read are positioned reads into windows of memory that Arrow's pool gives out again and again; a file is never
mapped, because one that is cut short under a map is a signal rather than an error. Knows pages, not what is in them.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: PageHeader and what it holds)
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from batchmax.parquet.thrift import Struct, ThriftError, read_struct

Bytes = NDArray[np.uint8]

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 1, 2, 3
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 2, 3, 8, 9
FLOATS: dict[np.dtype[Any], int] = {np.dtype(np.float32): 4, np.dtype(np.float64): 5}
"""The format's numbers of the types that a matrix may have."""
CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
"""Arrow's names of the codecs, by the format's numbers."""
SLOW_CODECS = {"gzip", "brotli", "zstd"}
WINDOW = 4 << 20
HEADER = 1 << 12
"""Bytes of a page header: statistics of numbers are short."""
MOST_VARINT = 5
LONG_LITERAL = 60
MOST_PAGE_BYTES = 1 << 30
PAGES_AHEAD = 4
"""Pages that are unpacked while the one before them is looked at."""


class NotAMatrix(ValueError):  # noqa: N818 - says what a column is, and nothing went wrong
    """A column chunk that is not, or is not known to be, K values in every row in an encoding that is read here."""


@dataclass(frozen=True, eq=False)
class Page:
    """An unpacked page, its values in one piece or several."""

    kind: int
    n_values: int
    encoding: int
    repetition: Bytes
    definition: Bytes
    values: Sequence[Bytes]

    @property
    def n_bytes(self) -> int:
        """The number of bytes of the values."""
        return sum(map(len, self.values))


class PageReader:
    """The pages of one column chunk.

    Parameters
    ----------
    descriptor
        Of the open file.
    start, end
        Where in the file the chunk lies.
    codec
        Its compression, by the format's number.
    workers
        Who checks and unpacks pages while those before them are looked at; None for nobody else.

    Raises
    ------
    NotAMatrix
        A codec that is not read here.
    """

    def __init__(self, descriptor: int, start: int, end: int, codec: int, workers: Executor | None = None) -> None:
        if codec not in CODECS:
            raise NotAMatrix(f"codec {codec}")
        self._packed = packed_pages(Window(descriptor, start, end))
        self._codec = codec
        # Handing a page to somebody else takes longer than unpacking it does with the quick codecs.
        self._workers = workers if CODECS[codec] in SLOW_CODECS else None

    def __iter__(self) -> Iterator[Page]:
        """Read the pages in order.

        Raises
        ------
        NotAMatrix
            A page that is damaged, or of a kind that is not read here.
        OSError
            The file cannot be read.
        """
        if self._workers is None:
            yield from map(self._page, self._packed)
            return
        ahead: deque[Future[Page]] = deque()
        for page in self._packed:
            ahead.append(self._workers.submit(self._page, page))
            if len(ahead) > PAGES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _page(self, page: PackedPage) -> Page:
        page.check()
        header, body = page.header, page.body
        kind = header[1].value
        unpacked = number(header, 2)
        if kind == DATA_PAGE:
            return self._page_v1(_inner(header, 5), unpack(body, unpacked, self._codec))
        if kind == DATA_PAGE_V2:
            return self._page_v2(_inner(header, 8), body, unpacked)
        if kind == DICTIONARY_PAGE:
            inner = _inner(header, 7)
            none = np.empty(0, np.uint8)
            return Page(kind, number(inner, 1), number(inner, 2), none, none, unpack(body, unpacked, self._codec))
        raise NotAMatrix(f"page type {kind}")

    def _page_v1(self, header: Struct, body: Sequence[Bytes]) -> Page:
        if number(header, 3) != RLE or number(header, 4) != RLE:
            raise NotAMatrix("levels in another encoding than RLE")
        try:
            repetition, first = _prefixed(body[0])
            definition, first = _prefixed(first)
        except NotAMatrix:
            if len(body) == 1:
                raise
            return self._page_v1(header, [joined(body)])
        return Page(DATA_PAGE, number(header, 1), number(header, 2), repetition, definition, [first, *body[1:]])

    def _page_v2(self, header: Struct, body: Bytes, unpacked: int) -> Page:
        if number(header, 2):
            raise NotAMatrix("a page with nulls")
        definition, repetition = number(header, 5), number(header, 6)
        levels = definition + repetition
        if levels > len(body) or levels > unpacked:
            raise NotAMatrix("levels are longer than their page")
        values: Sequence[Bytes] = [body[levels:]]
        if 7 not in header or header[7].value:
            values = unpack(values[0], unpacked - levels, self._codec)
        elif len(values[0]) != unpacked - levels:
            raise NotAMatrix("a page is not as long as it says")
        return Page(
            DATA_PAGE_V2,
            number(header, 1),
            number(header, 4),
            body[:repetition],
            body[repetition:levels],
            values,
        )


def unpack(body: Bytes, size: int, codec: int) -> Sequence[Bytes]:
    """Return what a codec packed, in one piece or several.

    Raises
    ------
    NotAMatrix
        The codec is not read here, or does not make it as long as it should be.
    """
    if codec not in CODECS:
        raise NotAMatrix(f"codec {codec}")
    name = CODECS[codec]
    if name is None:
        if len(body) != size:
            raise NotAMatrix("a page is not as long as it says")
        return [body]
    if not size:
        return [np.empty(0, np.uint8)]
    if name == "snappy" and (pieces := literals(body, size)):
        return pieces
    try:
        return [np.frombuffer(pa.Codec(name).decompress(pa.py_buffer(body), size), np.uint8)]
    except (OSError, pa.ArrowException) as error:
        raise NotAMatrix(f"a page cannot be unpacked: {error}") from error


def literals(body: Bytes, size: int) -> list[Bytes] | None:
    """Return the bytes that snappy packed, where they lie, if it only put them behind tags; else None.

    So it does with numbers that it cannot make smaller, which is what logits are: 64 KiB, a tag, and so on.

    See Also
    --------
    https://github.com/google/snappy/blob/main/format_description.txt
    """
    view = body.data
    at = next((at + 1 for at in range(min(len(body), MOST_VARINT)) if view[at] < 0x80), len(body))
    pieces: list[Bytes] = []
    while at < len(body):
        tag = view[at]
        if tag & 3:
            return None
        length, at = tag >> 2, at + 1
        if length >= LONG_LITERAL:
            n_bytes = length - LONG_LITERAL + 1
            length, at = int.from_bytes(view[at : at + n_bytes], "little"), at + n_bytes
        at += length + 1
        pieces.append(body[at - length - 1 : at])
    return pieces if at == len(body) and sum(map(len, pieces)) == size else None


def joined(pieces: Sequence[Bytes]) -> Bytes:
    """Return bytes in one piece."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True, eq=False)
class PackedPage:
    """A page as it lies in the file: where it begins, its header and how long that is, and its body."""

    at: int
    header: Struct
    header_bytes: int
    body: Bytes

    def check(self) -> None:
        """Compare the page with its checksum, if it has one.

        Raises
        ------
        NotAMatrix
            They differ.
        """
        if 4 in self.header and crc32(self.body.data) != self.header[4].value & 0xFFFFFFFF:
            raise NotAMatrix("a page's checksum is wrong")


class Window:
    """Some bytes of a file, from ``start`` to ``end``, of which a few are in memory.

    The memory is not used again while somebody still looks at it. With ``n_bytes`` at least ``end - start`` all bytes
    are read at once.
    """

    def __init__(self, descriptor: int, start: int, end: int, n_bytes: int = WINDOW) -> None:
        self.start = start
        self.end = end
        self._descriptor = descriptor
        self._n_bytes = n_bytes
        self._window = np.empty(0, np.uint8)
        self._low = start

    def head(self, at: int) -> Bytes:
        """Return what is in memory from a place on, which is at least as much as a page header has."""
        self.bytes(at, min(HEADER, self.end - at))
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
        if not self._low <= at <= at + size <= self._low + len(self._window):
            window = np.frombuffer(pa.allocate_buffer(min(max(size, self._n_bytes), self.end - at)), np.uint8)
            have = 0
            while have < len(window):
                got = os.preadv(self._descriptor, [window.data[have:]], at + have)
                if not got:
                    raise NotAMatrix("the file ends in the middle of a column")
                have += got
            self._window, self._low = window, at
        return self._window[at - self._low : at - self._low + size]


def packed_pages(window: Window) -> Iterator[PackedPage]:
    """Find the pages of a column chunk.

    Raises
    ------
    NotAMatrix
        A header that is damaged, or a page that is not all there.
    OSError
        The file cannot be read.
    """
    at = window.start
    while at < window.end:
        try:
            header, length = read_struct(window.head(at).data)
        except ThriftError as error:
            raise NotAMatrix(f"a page header is damaged: {error}") from error
        size = number(header, 3)
        page = PackedPage(at, header, length, window.bytes(at + length, size))
        at += length + size
        if 1 not in header:
            raise NotAMatrix("a page header lacks its type")
        if header[1].value != INDEX_PAGE:
            yield page


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


def _inner(header: Struct, field: int) -> Struct:
    value: Any = header[field].value if field in header else None
    if not isinstance(value, dict):
        raise NotAMatrix("a page header lacks the part that its type needs")
    return value


def _prefixed(body: Bytes) -> tuple[Bytes, Bytes]:
    """Return what the four bytes of length at the beginning are about, and what follows."""
    size = int.from_bytes(body[:4].tobytes(), "little")
    if len(body) < 4 or size > len(body) - 4:
        raise NotAMatrix("levels are longer than their page")
    return body[4 : 4 + size], body[4 + size :]

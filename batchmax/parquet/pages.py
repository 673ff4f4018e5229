"""Pages of a column chunk: found, checked and unpacked, one after another, through a window that is used again.

What is read are positioned reads into that window; a file is never mapped, because one that is cut short under a map is
a signal rather than an error. Knows pages, not what is in them.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: PageHeader and what it holds)
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.parquet.thrift import Struct, ThriftError, read_struct

Bytes = NDArray[np.uint8]

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 1, 2, 3
RLE = 3
CODECS = {
    "SNAPPY": "snappy",
    "GZIP": "gzip",
    "BROTLI": "brotli",
    "ZSTD": "zstd",
    "LZ4": "lz4_raw",
    "LZ4_RAW": "lz4_raw",
}
WINDOW = 4 << 20
HEADER = 1 << 16
MOST_PAGE_BYTES = 1 << 30


class NotAMatrix(ValueError):  # noqa: N818 - says what a column is, and nothing went wrong
    """A column chunk that is not, or is not known to be, K values in every row in an encoding that is read here."""


@dataclass(frozen=True)
class Page:
    """An unpacked page. Its bytes are good until the next one is asked for."""

    kind: int
    n_values: int
    encoding: int
    repetition: Bytes
    definition: Bytes
    values: Bytes


class PageReader:
    """The pages of one column chunk.

    Parameters
    ----------
    descriptor
        Of the open file.
    start, end
        Where in the file the chunk lies.
    codec
        Its compression, as pyarrow's metadata names it.

    Raises
    ------
    NotAMatrix
        A codec that is not read here.
    """

    def __init__(self, descriptor: int, start: int, end: int, codec: str) -> None:
        if codec != "UNCOMPRESSED" and codec not in CODECS:
            raise NotAMatrix(f"codec {codec}")
        self._descriptor = descriptor
        self._at = start
        self._end = end
        self._codec = None if codec == "UNCOMPRESSED" else pa.Codec(CODECS[codec])
        self._window = np.empty(0, np.uint8)
        self._low = self._high = start

    def __iter__(self) -> Iterator[Page]:
        """Read the pages in order.

        Raises
        ------
        NotAMatrix
            A page that is damaged, or of a kind that is not read here.
        OSError
            The file cannot be read.
        """
        while self._at < self._end:
            header = self._header()
            packed = self._number(header, 3)
            unpacked = self._number(header, 2)
            body = self._bytes(self._at, packed)
            self._at += packed
            if 4 in header and zlib.crc32(body.data) != header[4].value & 0xFFFFFFFF:
                raise NotAMatrix("a page's checksum is wrong")
            kind = header[1].value
            if kind == INDEX_PAGE:
                continue
            if kind == DATA_PAGE:
                yield self._page_v1(_inner(header, 5), self._unpack(body, unpacked))
            elif kind == DATA_PAGE_V2:
                yield self._page_v2(_inner(header, 8), body, unpacked)
            elif kind == DICTIONARY_PAGE:
                inner = _inner(header, 7)
                none = np.empty(0, np.uint8)
                values = self._unpack(body, unpacked)
                yield Page(kind, self._number(inner, 1), self._number(inner, 2), none, none, values)
            else:
                raise NotAMatrix(f"page type {kind}")

    def _page_v1(self, header: Struct, body: Bytes) -> Page:
        if self._number(header, 3) != RLE or self._number(header, 4) != RLE:
            raise NotAMatrix("levels in another encoding than RLE")
        repetition, body = _prefixed(body)
        definition, body = _prefixed(body)
        return Page(DATA_PAGE, self._number(header, 1), self._number(header, 2), repetition, definition, body)

    def _page_v2(self, header: Struct, body: Bytes, unpacked: int) -> Page:
        if self._number(header, 2):
            raise NotAMatrix("a page with nulls")
        definition, repetition = self._number(header, 5), self._number(header, 6)
        levels = definition + repetition
        if levels > len(body) or levels > unpacked:
            raise NotAMatrix("levels are longer than their page")
        values = body[levels:]
        if 7 not in header or header[7].value:
            values = self._unpack(values, unpacked - levels)
        elif len(values) != unpacked - levels:
            raise NotAMatrix("a page is not as long as it says")
        return Page(
            DATA_PAGE_V2,
            self._number(header, 1),
            self._number(header, 4),
            body[:repetition],
            body[repetition:levels],
            values,
        )

    def _header(self) -> Struct:
        size = min(HEADER, self._end - self._at)
        try:
            header, length = read_struct(self._bytes(self._at, size).data)
        except ThriftError as error:
            raise NotAMatrix(f"a page header is damaged: {error}") from error
        self._at += length
        return header

    def _bytes(self, at: int, size: int) -> Bytes:
        """Return bytes of the file, from the window where they are in it."""
        if size > self._end - at:
            raise NotAMatrix("a page reaches beyond its column")
        if not self._low <= at <= at + size <= self._high:
            if size > len(self._window):
                self._window = np.empty(max(size, min(WINDOW, self._end - at)), np.uint8)
            self._low = self._high = at
            most = at + min(len(self._window), self._end - at)
            while self._high < most:
                room = self._window.data[self._high - at : most - at]
                got = os.preadv(self._descriptor, [room], self._high)
                if not got:
                    raise NotAMatrix("the file ends in the middle of a column")
                self._high += got
        return self._window[at - self._low : at - self._low + size]

    def _unpack(self, body: Bytes, size: int) -> Bytes:
        if self._codec is None:
            if len(body) != size:
                raise NotAMatrix("a page is not as long as it says")
            return body
        if not size:
            return np.empty(0, np.uint8)
        try:
            return np.frombuffer(self._codec.decompress(pa.py_buffer(body), size), np.uint8)
        except (OSError, pa.ArrowException) as error:
            raise NotAMatrix(f"a page cannot be unpacked: {error}") from error

    @staticmethod
    def _number(header: Struct, field: int) -> int:
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

"""Computes the decoded size of a column chunk before it is decoded, from its pages instead of the footer.

A few bytes of a file may decode to gigabytes: a page that compresses well, a string that a dictionary holds once and a
million rows refer to, a run of two billion nulls. A general reader allocates that memory as it decodes.
:class:`DecodedSize` computes the size of a whole chunk, or of the next rows that a reader is about to decode.

Page headers are always read. Pages are decompressed only if the headers leave too much open. Strings that share
prefixes with the previous one (DELTA_BYTE_ARRAY) are not resolved, so their sizes are not known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from batchmax.kernels.parquet.rle import count_levels, text_lengths
from batchmax.parquet.fields import read_page_header
from batchmax.parquet.footer import FIXED_LEN_BYTE_ARRAY, TYPE, TYPE_LENGTH, Leaf
from batchmax.parquet.format import (
    DATA_PAGE,
    DATA_PAGE_V2,
    DICTIONARY_ENCODINGS,
    DICTIONARY_PAGE,
    FIXED_WIDTHS,
    OWN_HEADERS,
    RLE,
)
from batchmax.parquet.reading.compression import decompress
from batchmax.parquet.reading.dictionary_values import look_up
from batchmax.parquet.reading.page_body import is_compressed, value_encoding
from batchmax.parquet.reading.raw_pages import Bytes, PageError, RangeReader, inner_header, joined, number
from batchmax.parquet.thrift import Struct, ThriftError
from batchmax.parquet.writing.column_chunk import CODEC, METADATA, N_VALUES, chunk_range
from batchmax.runtime.text import quantity

WIDTHS = {0: 1, **FIXED_WIDTHS}
"""The size of a value in memory, by physical type; strings and binary values have no fixed size."""
LEVEL_BYTES = 4
"""The size of a value's two levels."""
OFFSET_BYTES = 8
MAX_RATIOS = {0: 1, 1: 64, 7: 256}
"""The largest compression ratio of a codec; for other codecs there is no known small limit."""
SMALL_CHUNK, SMALL_TEXTS = 16 << 20, 1 << 16
"""Decoded sizes up to which a chunk, and the strings of a page, are not examined further."""
HEADER_BYTES, MAX_HEADER_BYTES = 1 << 12, 1 << 24
"""Bytes read for a page header, at first and at most: string statistics may be long."""


class PageTooLargeError(ValueError):
    """A column chunk with a page that is larger than allowed.

    Attributes
    ----------
    page
        The size of its largest page, as in :class:`DecodedSize`.
    whole
        The most that all rows can take, according to page headers.
    """

    def __init__(self, page: int, whole: int) -> None:
        super().__init__(f"{quantity(page, 'byte')}")
        self.page = page
        self.whole = whole


@dataclass(frozen=True)
class _Page:
    """A data page or a dictionary page: the position of its body, its header, its type's own header, and its type."""

    at: int
    header: Struct
    inner: Struct
    kind: int

    @property
    def compressed_bytes(self) -> int:
        return number(self.header, 3)

    @property
    def uncompressed_bytes(self) -> int:
        return number(self.header, 2)

    @property
    def n_values(self) -> int:
        return number(self.inner, 1)


def fixed_row_bytes(leaf: Leaf, codec: int, compressed_bytes: int) -> int | None:
    """Return an upper bound of the decoded bytes per row from the footer alone; None if pages must be examined."""
    width = _width(leaf)
    if (
        width is None
        or leaf.repetition
        or codec not in MAX_RATIOS
        or not 0 <= compressed_bytes <= SMALL_CHUNK // MAX_RATIOS[codec]
    ):
        return None
    return width + LEVEL_BYTES


class DecodedSize:
    """The decoded size of the rows of a column chunk.

    Parameters
    ----------
    descriptor
        The file descriptor.
    chunk
        The ColumnChunk struct.
    leaf
        The column's leaf in the schema.
    n_rows
        The number of rows of the row group.
    max_page_bytes
        The largest compressed plus uncompressed size of a page.
    shares_texts
        Whether dictionary-encoded strings are held once, with references from the rows.

    Attributes
    ----------
    page
        The largest size of a page: compressed, uncompressed, and the dictionary.
    whole
        An upper bound of the decoded size of all rows.
    added
        The part of the last :meth:`take` that comes from pages that no earlier call reached.

    Raises
    ------
    PageTooLargeError
        If a page is larger than allowed.
    PageError
        If the pages are damaged.
    OSError
        If the file can't be read.
    """

    def __init__(
        self, descriptor: int, chunk: Struct, leaf: Leaf, n_rows: int, max_page_bytes: int, *, shares_texts: bool
    ) -> None:
        self.page = self.whole = self.added = 0
        self._max_page_bytes, self._leaf, self._shares_texts = max_page_bytes, leaf, shares_texts
        self._pages: list[_Page] = []
        self._next_index = self._rows_left = self._page_bytes = self._row_bytes = 0
        self._lengths = np.zeros(0)
        self._longest = 0
        self._width = _width(leaf)
        self._has_fixed_size = self._width is not None and not leaf.repetition
        if METADATA not in chunk:
            return  # encrypted, or in another file: the decoder reports it
        metadata = chunk[METADATA].value
        self._codec = metadata[CODEC].value
        if self._width is not None and self._has_fixed_size:
            self.whole = n_rows * (self._width + LEVEL_BYTES)
        if metadata[N_VALUES].value <= 0:
            return  # there may be no page, and no valid position
        start, size = chunk_range(metadata)
        if start < 0 or size < 0:
            raise PageError("the column chunk exceeds the file")
        self._reader = RangeReader(descriptor, start, os.fstat(descriptor).st_size, HEADER_BYTES)
        dictionary = 0
        for page in _pages(self._reader, start + size, metadata[N_VALUES].value):
            self.page = max(self.page, page.compressed_bytes + page.uncompressed_bytes + dictionary)
            if page.kind == DICTIONARY_PAGE:
                dictionary = page.uncompressed_bytes
                if self._width is None and self.page <= max_page_bytes:
                    self._lengths = np.zeros(min(page.n_values, dictionary))
                    text_lengths(self._decompressed(page), self._lengths)
            else:
                self._pages.append(page)
        # In a dictionary page is too large to examine, one string may take all of it.
        self._longest = int(self._lengths.max(initial=0)) if self.page <= max_page_bytes else dictionary
        if not self._has_fixed_size:
            self.whole = sum(self._bytes_of(page) for page in self._pages)
        if self.page > max_page_bytes:
            raise PageTooLargeError(self.page, self.whole)

    def check_rows(self, n_rows: int) -> None:
        """Compare the number of rows in all pages with the row group's.

        Raises
        ------
        PageError
            If they differ: a reader would stop in the middle of the pages, or miss rows.
        OSError
            If the file can't be read.
        """
        if not self._pages or any(map(self._has_bit_packed_levels, self._pages)):
            return
        if (found := sum(map(self._rows_of, self._pages))) != n_rows:
            raise PageError(f"its pages hold {quantity(found, 'row')}, not {n_rows:,} as the footer says")

    def take(self, rows: int) -> int:
        """Return an upper bound of the decoded size of the next rows.

        Raises
        ------
        PageError, OSError
            As for the class.
        """
        if self._width is not None and self._has_fixed_size:
            self.added = rows * (self._width + LEVEL_BYTES)
            return self.added
        self.added = 0
        if not self._leaf.repetition:
            return self._take_texts(rows)
        taken = self._page_bytes if self._rows_left else 0
        # A page in which no row begins continues the last row.
        while (rows > self._rows_left or not self._rows_left) and self._next_index < len(self._pages):
            rows -= min(rows, self._rows_left)
            self._next_page()
            taken += self._page_bytes
        self._rows_left = max(0, self._rows_left - rows)
        return taken

    def _take_texts(self, rows: int) -> int:
        taken = 0
        while rows and (self._rows_left or self._next_index < len(self._pages)):
            if not self._rows_left:
                self._next_page()
            count = min(rows, self._rows_left)
            rows, self._rows_left = rows - count, self._rows_left - count
            taken += min(self._page_bytes, count * self._row_bytes)
        return taken

    def _next_page(self) -> None:
        """Advance to the next page."""
        page = self._pages[self._next_index]
        self._next_index += 1
        self._rows_left = self._rows_of(page)
        self._page_bytes = self._row_bytes = self._bytes_of(page)
        if self._width is None and self._is_indices(page) and not self._shares_texts:
            own = LEVEL_BYTES + OFFSET_BYTES
            n_bytes, longest = self._texts(page)
            self._page_bytes = page.n_values * own + n_bytes
            self._row_bytes = self._page_bytes if self._leaf.repetition else longest + own
        self.added += self._page_bytes

    def _bytes_of(self, page: _Page) -> int:
        """Return an upper bound of the decoded size of a page's values, from its header alone."""
        n_values = page.n_values
        if self._width is not None:
            return n_values * (self._width + LEVEL_BYTES)
        own = n_values * (LEVEL_BYTES + OFFSET_BYTES)
        if not self._is_indices(page):
            return own + page.uncompressed_bytes
        return own if self._shares_texts else own + n_values * self._longest

    def _is_indices(self, page: _Page) -> bool:
        return value_encoding(page.kind, page.inner) in DICTIONARY_ENCODINGS

    def _texts(self, page: _Page) -> tuple[int, int]:
        """Return the total size and the longest size of the strings that a page's indices refer to, or upper bounds."""
        n_values = page.n_values
        bounds = n_values * self._longest, self._longest
        if bounds[0] <= SMALL_TEXTS or n_values * OFFSET_BYTES > self._max_page_bytes:
            return bounds
        have = n_values - (number(page.inner, 2) if page.kind == DATA_PAGE_V2 else self._nulls(page))
        out = np.zeros(max(0, have))
        is_known = look_up(self._levels(page)[1], self._lengths, out)
        return (int(out.sum()), int(out.max(initial=0))) if is_known else bounds

    def _nulls(self, page: _Page) -> int:
        definition = self._levels(page)[2]
        top = self._leaf.definition
        return page.n_values - _count(definition, page.n_values, top.bit_length(), top) if top else 0

    def _rows_of(self, page: _Page) -> int:
        """Return the number of rows that begin in a page."""
        if not self._leaf.repetition:
            return page.n_values
        if page.kind == DATA_PAGE_V2:
            repetition = self._reader.bytes(page.at, min(number(page.inner, 6), page.compressed_bytes))
        else:
            repetition = self._levels(page)[0]
        return _count(repetition, page.n_values, self._leaf.repetition.bit_length(), 0)

    def _has_bit_packed_levels(self, page: _Page) -> bool:
        """Return whether a page's repetition levels have the deprecated encoding BIT_PACKED, which isn't supported."""
        return bool(self._leaf.repetition) and page.kind == DATA_PAGE and number(page.inner, 4) != RLE

    def _levels(self, page: _Page) -> tuple[Bytes, Bytes, Bytes]:
        """Return the repetition levels of a page, its values, and its definition levels."""
        if page.kind == DATA_PAGE_V2:
            body = self._reader.bytes(page.at, page.compressed_bytes)
            definition, repetition = number(page.inner, 5), number(page.inner, 6)
            values = body[definition + repetition :]
            if is_compressed(page.inner):
                values = joined(decompress(values, page.uncompressed_bytes - definition - repetition, self._codec))
            return body[:repetition], values, body[repetition : repetition + definition]
        rest = self._decompressed(page)
        found: list[Bytes] = []
        for level in (self._leaf.repetition, self._leaf.definition):
            size = int.from_bytes(rest[:4].tobytes(), "little") if level else -4
            found.append(rest[4 : 4 + max(size, 0)])
            rest = rest[4 + size :]
        return found[0], rest, found[1]

    def _decompressed(self, page: _Page) -> Bytes:
        return joined(
            decompress(self._reader.bytes(page.at, page.compressed_bytes), page.uncompressed_bytes, self._codec)
        )


def _width(leaf: Leaf) -> int | None:
    kind = leaf.element[TYPE].value
    return int(leaf.element[TYPE_LENGTH].value) if kind == FIXED_LEN_BYTE_ARRAY else WIDTHS.get(kind)


def _pages(reader: RangeReader, end: int, n_values: int) -> Iterator[_Page]:
    """Read the headers of the pages of a column chunk; check the order of its pages and its number of values."""
    at, n_read, first = reader.start, 0, True
    while at < end:
        try:
            header, length = _header(reader, at)
        except PageError:
            if n_read >= n_values:
                return  # bytes after the last page, which readers ignore
            raise
        kind: int = header[1].value
        at += length
        if kind in OWN_HEADERS:
            page = _Page(at, header, inner_header(header), kind)
            if kind == DICTIONARY_PAGE and not first:
                raise PageError("a dictionary page is not the first page")
            first, n_read = False, n_read + (page.n_values if kind != DICTIONARY_PAGE else 0)
            yield page
        at += number(header, 3)
    if n_read != n_values:
        raise PageError(f"its pages hold {quantity(n_read, 'value')}, not {n_values:,} as the footer says")


def _header(reader: RangeReader, at: int) -> tuple[Struct, int]:
    size = HEADER_BYTES
    while True:
        size = min(size, reader.end - at)
        try:
            return read_page_header(reader.bytes(at, size).data)
        except ThriftError as error:
            if size in {MAX_HEADER_BYTES, reader.end - at}:
                raise PageError(f"a page header is damaged: {error}") from error
            size <<= 6


def _count(levels: Bytes, n_values: int, width: int, wanted: int) -> int:
    """Return how many of n_values levels equal ``wanted``; if the levels are damaged, only those before the damage."""
    return int(count_levels(levels, n_values, width, wanted)[1])

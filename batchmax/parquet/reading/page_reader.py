"""Parses and decompresses the pages of a column chunk, several at once, and yields them in order.

It knows pages, but not the meaning of their levels and values.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: PageHeader and its structs)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from batchmax.parquet.format import CODECS, DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, PLAIN
from batchmax.parquet.reading.compression import decompress
from batchmax.parquet.reading.large_pages import DecompressedStream
from batchmax.parquet.reading.page_body import (
    check_level_encodings,
    is_compressed,
    level_sizes,
    split_body,
    value_encoding,
)
from batchmax.parquet.reading.raw_pages import (
    LARGE_PAGE_BYTES,
    MAX_PAGE_BYTES,
    NOTHING,
    Bytes,
    CompressedBody,
    CompressedPage,
    CompressedPages,
    PageError,
    RangeReader,
    inner_header,
    number,
)
from batchmax.parquet.reading.scatter_read import PageLayout
from batchmax.parquet.thrift import Struct

READ_BYTES = 4 << 20
"""Bytes per read."""
SLOW_CODECS = {"gzip", "brotli", "zstd"}
PAGES_AHEAD = 4
"""Pages that are decompressed ahead."""


@dataclass(frozen=True, eq=False)
class Page:
    """A decompressed page, its values in one or more pieces; the values of a large page come from its ``stream``."""

    kind: int
    n_values: int
    encoding: int
    repetition: Bytes
    definition: Bytes
    values: Sequence[Bytes]
    stream: DecompressedStream | None = None

    @property
    def n_bytes(self) -> int:
        """The number of bytes of the values."""
        return sum(map(len, self.values)) if self.stream is None else self.stream.left


class PageReader:
    """The pages of one column chunk.

    Parameters
    ----------
    descriptor
        The file descriptor.
    start, end
        The position of the chunk in the file.
    codec
        The number of its codec.
    workers
        The executor that checks and decompresses pages ahead, for slow codecs; None to do it in the calling thread.
    most
        The largest compressed plus uncompressed size of a page in memory; several pages are in memory at once. A larger
        page is read piece by piece; only its levels, or a dictionary, are limited to four times this size.

    Raises
    ------
    PageError
        If the codec isn't supported.
    """

    def __init__(
        self,
        descriptor: int,
        start: int,
        end: int,
        codec: int,
        workers: Executor | None = None,
        most: int = MAX_PAGE_BYTES,
    ) -> None:
        if codec not in CODECS:
            raise PageError(f"unsupported codec {codec}")
        self._descriptor, self._reader = descriptor, RangeReader(descriptor, start, end, READ_BYTES)
        self._compressed_pages = CompressedPages(self._reader, large=min(most, LARGE_PAGE_BYTES))
        self._most_at_once = 4 * most
        self._codec = codec
        # With fast codecs, handing a page to another thread takes longer than decompressing it.
        self._workers = workers if CODECS[codec] in SLOW_CODECS else None
        self._last: Page | None = None
        self._layout: PageLayout | None = None

    def __iter__(self) -> Iterator[Page]:
        """Read the pages in order.

        Raises
        ------
        PageError
            If a page is damaged or of an unsupported kind.
        OSError
            If the file can't be read.
        """
        if self._workers is None:
            for compressed in self._compressed_pages:
                self._last = self._page(compressed)
                plain = (
                    self._last.encoding == PLAIN and self._last.kind != DICTIONARY_PAGE and compressed.stream is None
                )
                self._layout = PageLayout.of(compressed, self._last.values) if plain else None
                # Pages that follow with the same layout are read straight to their destination, not to a buffer.
                self._reader.n_bytes = READ_BYTES if self._layout is None else 0
                yield self._last
            return
        ahead: deque[Future[Page]] = deque()
        for page in self._compressed_pages:
            if page.stream is not None:
                # The consumer reads this page from the file, so the pages before it are yielded first.
                while ahead:
                    yield ahead.popleft().result()
                yield self._page(page)
                continue
            ahead.append(self._workers.submit(self._page, page))
            if len(ahead) > PAGES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def repeat(self, out: Bytes) -> tuple[Page, int] | None:
        """Read the values of the next pages straight into ``out`` if the pages have the same layout as the last one.

        Returns the last page, whose levels all of these pages have, and their number. Returns None if the next page
        must be read in the normal way.

        Raises
        ------
        OSError
            If the file can't be read.
        """
        layout, last, at = self._layout, self._last, self._compressed_pages.at
        if layout is None or last is None or len(out) < layout.n_values_bytes or self._reader.has(at, layout.n_bytes):
            return None
        count = layout.read(self._descriptor, at, self._reader.end, out)
        if not count:
            self._layout = None
            return None
        self._compressed_pages.at += count * layout.n_bytes
        return last, count

    def _page(self, page: CompressedPage) -> Page:
        if page.stream is not None:
            return self._large_page(page.header, page.stream)
        page.check()
        kind, inner, size = page.header[1].value, inner_header(page.header), number(page.header, 2)
        if kind == DICTIONARY_PAGE:
            parts = NOTHING, NOTHING, decompress(page.body, size, self._codec)
        else:
            parts = split_body(kind, inner, page.body, size, self._codec)
        return Page(kind, number(inner, 1), value_encoding(kind, inner), *parts)

    def _large_page(self, header: Struct, body: CompressedBody) -> Page:
        """Return a large page of which only the levels, or a dictionary, are decompressed."""
        kind, inner, size, most = header[1].value, inner_header(header), number(header, 2), self._most_at_once
        repetition = definition = NOTHING
        values: list[Bytes] = []
        stream = None
        if kind == DATA_PAGE:
            check_level_encodings(inner)
            stream = DecompressedStream(body, self._codec, size)
            repetition, definition = stream.length_prefixed(most), stream.length_prefixed(most)
        elif kind == DATA_PAGE_V2:
            definition_bytes, repetition_bytes = level_sizes(inner, min(size, body.left, most))
            repetition, definition = body.take(repetition_bytes), body.take(definition_bytes)
            codec = self._codec if is_compressed(inner) else 0
            stream = DecompressedStream(body, codec, size - repetition_bytes - definition_bytes)
        elif size > most:
            raise PageError("a dictionary page is too large")
        else:
            values = [DecompressedStream(body, self._codec, size).take(size)]
        return Page(kind, number(inner, 1), value_encoding(kind, inner), repetition, definition, values, stream)

"""Checks all pages of a column chunk without decoding values: positions, sizes, checksums, numbers of values and rows.

Unlike :mod:`batchmax.parquet.writing.chunk_copy`, it accepts any encoding of the values, and keeps only a window of a
chunk in memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchmax.parquet.footer import MAGIC, TAIL, Footer, FooterError, Leaf
from batchmax.parquet.format import CODECS, DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, RLE
from batchmax.parquet.reading.compression import decompress
from batchmax.parquet.reading.large_pages import DecompressedStream
from batchmax.parquet.reading.page_reader import READ_BYTES
from batchmax.parquet.reading.page_rows import count_rows
from batchmax.parquet.reading.raw_pages import (
    MAX_PAGE_BYTES,
    Bytes,
    CompressedPage,
    CompressedPages,
    PageError,
    RangeReader,
    cut_levels,
    inner_header,
    number,
)
from batchmax.parquet.thrift import ThriftError
from batchmax.parquet.writing.column_chunk import CODEC, FILE_PATH, METADATA, N_VALUES, chunk_range
from batchmax.runtime.text import quantity


class DamagedPageError(ValueError):
    """A page that disagrees with its header or with the footer."""


@dataclass(frozen=True)
class PageCount:
    """The number of pages of a column chunk, and of those without a checksum."""

    pages: int
    unchecked: int


def check_pages(descriptor: int, footer: Footer, group: int, leaf: int) -> PageCount:
    """Read the pages of a column chunk and compare each with its checksum, and all of them with the footer.

    Raises
    ------
    DamagedPageError
        If a page disagrees with its header or with the footer.
    OSError
        If the file can't be read.
    """
    at = 0
    try:
        row_group = footer.row_group(group)
        row_group.check_ranges()
        entry = row_group.chunk(leaf)
        if FILE_PATH in entry or METADATA not in entry:
            raise DamagedPageError("the column chunk is in another file, or is encrypted")
        metadata = entry[METADATA].value
        start, size = chunk_range(metadata)
        if start < len(MAGIC) or size < 0 or start + size > os.fstat(descriptor).st_size - TAIL:
            raise DamagedPageError("the column chunk exceeds the file")
        pages = unchecked = values = rows = 0
        counted = True
        at = start
        for page in CompressedPages(RangeReader(descriptor, start, start + size, READ_BYTES)):
            at = page.at
            kind = page.header[1].value
            if page.stream is None:
                page.check()
            if kind in {DATA_PAGE, DATA_PAGE_V2}:
                values += number(inner_header(page.header), 1)
                found = _rows_in(page, kind, footer.leaves[leaf], metadata[CODEC].value)
                counted, rows = counted and found is not None, rows + (found or 0)
            elif kind == DICTIONARY_PAGE and pages:
                raise DamagedPageError("a dictionary page is not the first page")
            if page.stream is not None:
                page.check()
            pages += 1
            unchecked += 4 not in page.header
            at += page.n_bytes
        if values != metadata[N_VALUES].value:
            raise DamagedPageError(
                f"the pages hold {quantity(values, 'value')}, not {metadata[N_VALUES].value:,} as the footer says"
            )
        if counted and rows != row_group.n_rows:
            raise DamagedPageError(
                f"the pages hold {quantity(rows, 'row')}, not {row_group.n_rows:,} as the footer says"
            )
    except PageError as error:
        raise DamagedPageError(f"{error} (byte {at:,})") from error
    except (FooterError, ThriftError) as error:
        raise DamagedPageError(f"the footer, or a page header, is damaged: {error}") from error
    return PageCount(pages, unchecked)


def _rows_in(page: CompressedPage, kind: int, leaf: Leaf, codec: int) -> int | None:
    """Return the number of rows that begin in a data page; None if its levels have an encoding that isn't supported."""
    inner = inner_header(page.header)
    n_values, stream = number(inner, 1), page.stream
    if not leaf.repetition:
        return n_values
    repetition: Bytes
    if kind == DATA_PAGE_V2:
        size = number(inner, 6)
        repetition = page.body[:size] if stream is None else stream.take(min(size, stream.left))
    elif number(inner, 4) != RLE or codec not in CODECS or (stream is not None and CODECS[codec] == "lz4_raw"):
        return None
    elif stream is None:
        repetition, _ = cut_levels(decompress(page.body, number(page.header, 2), codec))
    else:
        repetition = DecompressedStream(stream, codec, number(page.header, 2)).length_prefixed(MAX_PAGE_BYTES)
    return count_rows(repetition, n_values, leaf.repetition)

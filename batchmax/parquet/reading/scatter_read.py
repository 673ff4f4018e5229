"""Reads the values of pages with the same layout straight to their destination.

The numbers of a matrix are mostly stored uncompressed in their pages: without a codec, or as literals of a codec that
couldn't compress them. The next page of the column then has the same length and the same pieces at the same offsets;
only checksums and statistics differ. One positioned read brings the values to the matrix and the bytes between them to
a buffer. The buffer is compared afterwards, so that a page with another layout is always detected.

See Also
--------
:mod:`batchmax.parquet.reading.page_reader` : pages of any kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from isal.isal_zlib import crc32

from batchmax.parquet.fields import read_page_header
from batchmax.parquet.reading.raw_pages import MAX_PIECES, Bytes, CompressedPage, checksum
from batchmax.parquet.thrift import STRUCT, Struct, ThriftError
from batchmax.storage.system_calls import read_into

PAGES = 4
"""Pages per read: with fewer system calls, a thread waits less often for the others."""


class PageLayout:
    """The offsets of a page's values, and the bytes around them.

    Parameters
    ----------
    compressed
        The page as stored in the file.
    starts, lengths
        The pieces of its values, as offsets into its body and sizes.

    Attributes
    ----------
    n_bytes
        The size of the page, including its header.
    n_values_bytes
        The size of its values.
    """

    def __init__(self, compressed: CompressedPage, starts: Sequence[int], lengths: Sequence[int]) -> None:
        self.n_bytes = compressed.header_bytes + len(compressed.body)
        self.n_values_bytes = sum(lengths)
        self._lengths = lengths
        ends = [0, *(start + length for start, length in zip(starts, lengths, strict=True))]
        gaps = [compressed.body[end:start] for end, start in zip(ends, starts, strict=False)]
        self._fixed_fields = _fixed_fields(compressed.header)
        self._header_bytes = compressed.header_bytes
        self._between = b"".join(gap.tobytes() for gap in gaps)
        self._gaps = [compressed.header_bytes + len(gaps[0]), *map(len, gaps[1:])]
        self._found = [memoryview(bytearray(sum(self._gaps))) for _ in range(min(PAGES, MAX_PIECES // len(lengths)))]

    @classmethod
    def of(cls, compressed: CompressedPage, values: Sequence[Bytes]) -> PageLayout | None:
        """Return the layout of a page; None if its values aren't stored uncompressed, in few pieces, up to its end."""
        if not 0 < len(values) <= MAX_PIECES:
            return None
        base = compressed.body.ctypes.data
        starts, lengths = [piece.ctypes.data - base for piece in values], [len(piece) for piece in values]
        end = 0
        for start, length in zip(starts, lengths, strict=True):
            if start < end:
                return None
            end = start + length
        return cls(compressed, starts, lengths) if end == len(compressed.body) and any(lengths) else None

    def read(self, descriptor: int, at: int, end: int, out: Bytes) -> int:
        """Read pages from position ``at`` into ``out``; return how many of them are complete and have this layout.

        As many pages are read as fit into ``out``, into the buffers, and before ``end``. The content of ``out`` after
        the returned pages is undefined.

        Raises
        ------
        OSError
            If the file can't be read.
        """
        view = out.data
        count = min((end - at) // self.n_bytes, len(out) // self.n_values_bytes)
        pages = [
            self._destinations(found, view[n * self.n_values_bytes :]) for n, found in enumerate(self._found[:count])
        ]
        got = read_into(descriptor, list(chain.from_iterable(pages)), at)
        whole = got // self.n_bytes
        return next((n for n in range(whole) if not self._has_layout(self._found[n], pages[n])), whole)

    def _destinations(self, found: memoryview, out: memoryview) -> list[memoryview]:
        """Return the destinations of a page's bytes: alternately those between the values, and the values."""
        destinations: list[memoryview] = []
        between = values = 0
        for gap, length in zip(self._gaps, self._lengths, strict=True):
            destinations += (found[between : between + gap], out[values : values + length])
            between += gap
            values += length
        return destinations

    def _has_layout(self, found: memoryview, destinations: Sequence[memoryview]) -> bool:
        """Return whether a page has this layout and the right checksum, if it has one."""
        if found[self._header_bytes :] != self._between:
            return False
        try:
            header, length = read_page_header(found)
        except ThriftError:
            return False
        if length != self._header_bytes or _fixed_fields(header) != self._fixed_fields:
            return False
        sum_of_all = 0
        if 4 in header:
            for piece in (destinations[0][length:], *destinations[1:]):
                sum_of_all = crc32(piece, sum_of_all)
        return 4 not in header or sum_of_all == checksum(header)


def _fixed_fields(header: Struct) -> dict[int, Any]:
    """Return the fields of a page header except its checksum and statistics."""
    fields: dict[int, Any] = {}
    for number, field in header.items():
        if field.kind == STRUCT:
            fields[number] = {inner: own.value for inner, own in field.value.items() if own.kind != STRUCT}
        elif number != 4:
            fields[number] = field.value
    return fields

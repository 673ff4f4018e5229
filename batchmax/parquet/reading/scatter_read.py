"""Pages that are laid out alike, read straight to where their values go.

The numbers of a matrix mostly lie in their pages as they are: without a codec, or behind the tags of a codec that could
not make them smaller. Then the next page of the column has the same length and the same pieces at the same places, save
for checksums and statistics. One positioned read brings the values to the matrix and what lies between them elsewhere;
that is compared afterwards, so that a page which is different after all is never taken for one that is not.

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
from batchmax.parquet.reading.raw_pages import MOST_PIECES, Bytes, PackedPage, checksum
from batchmax.parquet.thrift import STRUCT, Struct, ThriftError
from batchmax.storage.system_calls import read_into

PAGES = 4
"""Pages that are read at once: whoever waits for the system less often waits less for the other threads."""


class Layout:
    """Where in a page its values lie, and what lies around them.

    Parameters
    ----------
    packed
        The page as it lies in the file.
    starts, lengths
        Of the pieces of its values, in its body.

    Attributes
    ----------
    n_bytes
        The length of the page, header included.
    n_values_bytes
        The length of its values.
    """

    def __init__(self, packed: PackedPage, starts: Sequence[int], lengths: Sequence[int]) -> None:
        self.n_bytes = packed.header_bytes + len(packed.body)
        self.n_values_bytes = sum(lengths)
        self._lengths = lengths
        ends = [0, *(start + length for start, length in zip(starts, lengths, strict=True))]
        gaps = [packed.body[end:start] for end, start in zip(ends, starts, strict=False)]
        self._facts = _facts(packed.header)
        self._header_bytes = packed.header_bytes
        self._between = b"".join(gap.tobytes() for gap in gaps)
        self._gaps = [packed.header_bytes + len(gaps[0]), *map(len, gaps[1:])]
        self._found = [memoryview(bytearray(sum(self._gaps))) for _ in range(min(PAGES, MOST_PIECES // len(lengths)))]

    @classmethod
    def of(cls, packed: PackedPage, values: Sequence[Bytes]) -> Layout | None:
        """Return the layout of a page; None if its values do not lie in it as they are, in few pieces, to its end."""
        if not 0 < len(values) <= MOST_PIECES:
            return None
        base = packed.body.ctypes.data
        starts, lengths = [piece.ctypes.data - base for piece in values], [len(piece) for piece in values]
        end = 0
        for start, length in zip(starts, lengths, strict=True):
            if start < end:
                return None
            end = start + length
        return cls(packed, starts, lengths) if end == len(packed.body) and any(lengths) else None

    def read(self, descriptor: int, at: int, end: int, out: Bytes) -> int:
        """Read the pages from a place on into ``out``, and return how many of them are laid out like this and whole.

        So many are read as fit into ``out``, and end before ``end``. What is in ``out`` after those means nothing.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        view = out.data
        count = min((end - at) // self.n_bytes, len(out) // self.n_values_bytes)
        pages = [self._places(found, view[n * self.n_values_bytes :]) for n, found in enumerate(self._found[:count])]
        got = read_into(descriptor, list(chain.from_iterable(pages)), at)
        whole = got // self.n_bytes
        return next((n for n in range(whole) if not self._is_right(self._found[n], pages[n])), whole)

    def _places(self, found: memoryview, out: memoryview) -> list[memoryview]:
        """Return where the bytes of a page go: by turns what is between the values, and values."""
        places: list[memoryview] = []
        between = values = 0
        for gap, length in zip(self._gaps, self._lengths, strict=True):
            places += (found[between : between + gap], out[values : values + length])
            between += gap
            values += length
        return places

    def _is_right(self, found: memoryview, places: Sequence[memoryview]) -> bool:
        """Return whether a page that was read is laid out like this, and has the checksum that it says."""
        if found[self._header_bytes :] != self._between:
            return False
        try:
            header, length = read_page_header(found)
        except ThriftError:
            return False
        if length != self._header_bytes or _facts(header) != self._facts:
            return False
        sum_of_all = 0
        if 4 in header:
            for piece in (places[0][length:], *places[1:]):
                sum_of_all = crc32(piece, sum_of_all)
        return 4 not in header or sum_of_all == checksum(header)


def _facts(header: Struct) -> dict[int, Any]:
    """Return what a page header says, but its checksum and statistics."""
    facts: dict[int, Any] = {}
    for number, field in header.items():
        if field.kind == STRUCT:
            facts[number] = {inner: own.value for inner, own in field.value.items() if own.kind != STRUCT}
        elif number != 4:
            facts[number] = field.value
    return facts

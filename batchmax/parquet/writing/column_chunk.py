"""A column chunk as bytes: what it says of itself does not depend on where in a file it comes to lie.

It was encoded here (``matrix_pages``), by pyarrow in memory, or by whoever wrote the file it was copied from. Whatever
the origin, what refers to places outside of the chunk, or may be wrong in another file, has been left out.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: ColumnChunk and ColumnMetaData)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from batchmax.parquet.thrift import BINARY, I64, LIST, Field, List, Struct

# Fields of ColumnChunk.
FILE_PATH, METADATA, OFFSET_INDEX, ENCRYPTION = 1, 3, 4, (8, 9)
# Fields of ColumnMetaData.
TYPE, ENCODINGS, PATH, CODEC, N_VALUES, UNPACKED_BYTES, PACKED_BYTES = 1, 2, 3, 4, 5, 6, 7
DATA_PAGE_AT, DICTIONARY_AT, STATISTICS, ENCODING_COUNTS = 9, 11, 12, 13
KEPT = {TYPE, *range(ENCODINGS, DATA_PAGE_AT + 1), DICTIONARY_AT, STATISTICS, ENCODING_COUNTS}
"""What is true of a chunk wherever it lies. Not so its index pages and bloom filter; what may come is not known."""
# Fields of Statistics.
NULL_COUNT = 3
OLD_STATISTICS = (1, 2)
"""The smallest and largest value as old readers wanted them, in an order that depends on the type and the writer."""
MIN_MAX_STATISTICS = (5, 6, 7, 8)


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """A column chunk of one leaf.

    Attributes
    ----------
    pieces
        Its bytes, to be taken once: they may be made as they are taken.
    metadata
        Its ColumnMetaData with positions from its own start, which count values and bytes when all pieces were taken.
    at
        Where in the file it lies already; None where its pieces are still to be written.
    """

    pieces: Iterable[Any]
    metadata: Struct
    at: int | None = None

    @property
    def n_bytes(self) -> int:
        """The number of bytes in all pieces."""
        return int(self.metadata[PACKED_BYTES].value)

    @property
    def unpacked_bytes(self) -> int:
        """The number of bytes that its pages have when they are unpacked."""
        return int(self.metadata[UNPACKED_BYTES].value)

    def placed(self, at: int, path: Sequence[bytes]) -> Struct:
        """Return the ColumnMetaData of the chunk as it lies at a position of a file, under a path of its schema."""
        metadata = dict(self.metadata)
        for field in (DATA_PAGE_AT, DICTIONARY_AT):
            if field in metadata:
                metadata[field] = Field(I64, metadata[field].value + at)
        metadata[PATH] = Field(LIST, List(BINARY, list(path)))
        return metadata


def place_of(metadata: Struct) -> tuple[int, int]:
    """Return where a column chunk begins and how many bytes it has, as its ColumnMetaData say."""
    start = metadata[DATA_PAGE_AT].value
    if DICTIONARY_AT in metadata and metadata[DICTIONARY_AT].value > 0:
        start = min(start, metadata[DICTIONARY_AT].value)
    return start, metadata[PACKED_BYTES].value


def movable(metadata: Struct, *, ordered: bool = True) -> Struct:
    """Return ColumnMetaData with positions from the chunk's own start, and without what is not true elsewhere.

    ``ordered`` is whether minimum and maximum bound all values, in the order that the column's type defines.
    """
    start, _ = place_of(metadata)
    kept = {number: field for number, field in metadata.items() if number in KEPT}
    if DICTIONARY_AT in kept and kept[DICTIONARY_AT].value <= 0:
        del kept[DICTIONARY_AT]
    for field in (DATA_PAGE_AT, DICTIONARY_AT):
        if field in kept:
            kept[field] = Field(I64, kept[field].value - start)
    if STATISTICS in kept:
        left_out = {*OLD_STATISTICS, *(() if ordered else MIN_MAX_STATISTICS)}
        known = {number: field for number, field in kept[STATISTICS].value.items() if number not in left_out}
        kept[STATISTICS] = Field(kept[STATISTICS].kind, known)
    return kept

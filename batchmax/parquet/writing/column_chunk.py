"""A column chunk as bytes, with metadata that doesn't depend on the chunk's position in a file.

Chunks are encoded here (:mod:`batchmax.parquet.writing.list_writer`) or by pyarrow in memory, or copied from another
file. Their metadata has no references to places outside the chunk, and nothing that may be wrong in another file.

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
TYPE, ENCODINGS, PATH, CODEC, N_VALUES, UNCOMPRESSED_BYTES, COMPRESSED_BYTES = 1, 2, 3, 4, 5, 6, 7
DATA_PAGE_AT, DICTIONARY_AT, STATISTICS, ENCODING_COUNTS = 9, 11, 12, 13
KEPT = {TYPE, *range(ENCODINGS, DATA_PAGE_AT + 1), DICTIONARY_AT, STATISTICS, ENCODING_COUNTS}
"""Fields that are valid at any position. Index pages, Bloom filters and unknown fields are left out."""
# Fields of Statistics.
NULL_COUNT = 3
OLD_STATISTICS = (1, 2)
"""The deprecated minimum and maximum, whose order depends on the type and the writer."""
MIN_MAX_STATISTICS = (5, 6, 7, 8)


@dataclass(frozen=True, eq=False)
class EncodedChunk:
    """A column chunk of one leaf.

    Attributes
    ----------
    pieces
        Its bytes. They may be created while they are iterated, and can be iterated once.
    metadata
        Its ColumnMetaData, with positions from the chunk's start. Counts and sizes are final when all pieces are taken.
    at
        Its position, if it is in the file already; None if its pieces are still to be written.
    """

    pieces: Iterable[Any]
    metadata: Struct
    at: int | None = None

    @property
    def n_bytes(self) -> int:
        """The size of all pieces."""
        return int(self.metadata[COMPRESSED_BYTES].value)

    @property
    def uncompressed_bytes(self) -> int:
        """The uncompressed size of its pages."""
        return int(self.metadata[UNCOMPRESSED_BYTES].value)

    def absolute_metadata(self, at: int, path: Sequence[bytes]) -> Struct:
        """Return the chunk's ColumnMetaData at a position in a file and a path in its schema."""
        metadata = dict(self.metadata)
        for field in (DATA_PAGE_AT, DICTIONARY_AT):
            if field in metadata:
                metadata[field] = Field(I64, metadata[field].value + at)
        metadata[PATH] = Field(LIST, List(BINARY, list(path)))
        return metadata


def chunk_range(metadata: Struct) -> tuple[int, int]:
    """Return the position and the size of a column chunk from its ColumnMetaData."""
    start = metadata[DATA_PAGE_AT].value
    if DICTIONARY_AT in metadata and metadata[DICTIONARY_AT].value > 0:
        start = min(start, metadata[DICTIONARY_AT].value)
    return start, metadata[COMPRESSED_BYTES].value


def relative_metadata(metadata: Struct, *, ordered: bool = True) -> Struct:
    """Return ColumnMetaData with positions from the chunk's start, without fields that are invalid in another file.

    ``ordered`` tells whether minimum and maximum bound all values, in the order that the column's type defines.
    """
    start, _ = chunk_range(metadata)
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

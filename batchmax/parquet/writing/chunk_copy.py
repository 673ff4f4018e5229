"""Copies column chunks from one file to another without decoding their values.

The pages are checked nevertheless: their headers must lead from the first byte of the chunk to the last, their
checksums must be right, and their numbers of values and rows must match the footer. A chunk with any doubt is refused
and must be decoded instead.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batchmax.kernels.parquet.rle import count_levels, count_texts
from batchmax.parquet.fields import PAGE_HEADER, check_fields
from batchmax.parquet.footer import (
    FIXED_LEN_BYTE_ARRAY,
    MAGIC,
    SORTING,
    TAIL,
    TYPE_LENGTH,
    Footer,
    FooterError,
    Leaf,
    SchemaColumn,
)
from batchmax.parquet.footer import TYPE as ELEMENT_TYPE
from batchmax.parquet.format import (
    BYTE_STREAM_SPLIT,
    DATA_PAGE,
    DATA_PAGE_V2,
    DICTIONARY_ENCODINGS,
    DICTIONARY_PAGE,
    FIXED_WIDTHS,
    OWN_HEADERS,
    PLAIN,
)
from batchmax.parquet.reading.compression import decompress, first_bytes
from batchmax.parquet.reading.page_body import check_body, split_body, value_encoding
from batchmax.parquet.reading.page_rows import count_rows
from batchmax.parquet.reading.raw_pages import (
    MAX_PAGE_BYTES,
    Bytes,
    CompressedPage,
    CompressedPages,
    PageError,
    RangeReader,
    inner_header,
    joined,
    number,
)
from batchmax.parquet.thrift import Struct, ThriftError
from batchmax.parquet.value_order import BYTE_ARRAY, FLOATS, value_order
from batchmax.parquet.writing.column_chunk import (
    CODEC,
    DATA_PAGE_AT,
    DICTIONARY_AT,
    ENCODING_COUNTS,
    ENCODINGS,
    ENCRYPTION,
    FILE_PATH,
    METADATA,
    MIN_MAX_STATISTICS,
    N_VALUES,
    NULL_COUNT,
    PATH,
    STATISTICS,
    TYPE,
    UNCOMPRESSED_BYTES,
    EncodedChunk,
    chunk_range,
    relative_metadata,
)
from batchmax.parquet.writing.file_writer import FileSchema, Sorting


class ChunkCopyError(ValueError):
    """A column chunk that isn't known to be valid in another file."""


@dataclass(frozen=True, eq=False)
class CopiedColumns:
    """Column chunks of an input row group that are copied to the output.

    Attributes
    ----------
    n_rows
        The number of rows of the input row group. The chunks can only be copied to an output row group with the same
        rows.
    chunks
        By column name, one chunk for each leaf.
    sorting
        The sort keys of the rows, which also hold for a part of them.
    """

    n_rows: int
    chunks: Mapping[str, Sequence[EncodedChunk]]
    sorting: Sequence[Sorting]


def copy_column(
    descriptor: int, footer: Footer, group: int, column: SchemaColumn, max_bytes: int = MAX_PAGE_BYTES
) -> list[EncodedChunk]:
    """Return the chunks of a top-level column in a row group, one for each leaf, each of at most ``max_bytes`` bytes.

    Raises
    ------
    ChunkCopyError
        If a chunk is in another file, encrypted or too large, or its pages don't match the footer.
    OSError
        If the file can't be read.
    """
    with _copy_errors():
        row_group = footer.row_group(group)
        return [
            _copy(
                descriptor, row_group.chunk(number), leaf, row_group.n_rows, max_bytes, ordered=footer.ordered[number]
            )
            for number, leaf in enumerate(column.leaves, start=column.first_leaf)
        ]


def sorting_of(footer: Footer, group: int, schema: FileSchema) -> list[Sorting]:
    """Return the sort keys of a row group that still hold in a file with another schema.

    Raises
    ------
    ChunkCopyError
        If the footer is damaged.
    """
    keys: list[Sorting] = []
    with _copy_errors():
        found = footer.row_group(group).fields.get(SORTING)
        for element in found.value.values if found else ():
            leaf = element[1].value
            column = next((one for one in footer.columns if 0 <= leaf - one.first_leaf < len(one.leaves)), None)
            if column is None:
                raise ChunkCopyError("the rows are sorted by an unknown column")
            if not schema.takes(column):
                break
            keys.append(Sorting(column.name, leaf - column.first_leaf, element))
    return keys


@contextlib.contextmanager
def _copy_errors() -> Iterator[None]:
    try:
        yield
    except (FooterError, ThriftError) as error:
        raise ChunkCopyError(f"the footer is damaged: {error}") from error
    except PageError as error:
        raise ChunkCopyError(str(error)) from error


def _copy(descriptor: int, entry: Struct, leaf: Leaf, rows: int, max_bytes: int, *, ordered: bool) -> EncodedChunk:
    if FILE_PATH in entry:
        raise ChunkCopyError("the column chunk is in another file")
    if any(field in entry for field in ENCRYPTION):
        raise ChunkCopyError("the column is encrypted")
    if METADATA not in entry:
        raise ChunkCopyError("the footer has no metadata of the column")
    metadata: Struct = entry[METADATA].value
    if tuple(metadata[PATH].value.values) != leaf.path or metadata[TYPE].value != leaf.element[ELEMENT_TYPE].value:
        raise ChunkCopyError("the column differs from the schema")
    start, size = chunk_range(metadata)
    if start < len(MAGIC) or size < 0 or start + size > os.fstat(descriptor).st_size - TAIL:
        raise ChunkCopyError("the column chunk exceeds the file")
    if size > max_bytes:
        raise ChunkCopyError("the column chunk is too large for the memory limit")
    reader = RangeReader(descriptor, start, start + size, size)
    whole = reader.bytes(start, size)
    order = value_order(leaf.element) if ordered else None
    bounds = metadata[STATISTICS].value.keys() & MIN_MAX_STATISTICS if STATISTICS in metadata else ()
    nan = NanSearch(order if order in FLOATS and bounds else None)
    _check_pages(list(CompressedPages(reader, max_bytes, large=2 * MAX_PAGE_BYTES)), metadata, leaf, rows, nan)
    return EncodedChunk([whole], relative_metadata(metadata, ordered=order is not None and not nan.found))


def _check_pages(pages: Sequence[CompressedPage], metadata: Struct, leaf: Leaf, rows: int, nan: NanSearch) -> None:
    """Compare pages with the footer, and search them for NaN."""
    counts: Counter[tuple[bool, int]] = Counter()
    codec, has_second_version = metadata[CODEC].value, False
    values = nulls = uncompressed = pages_rows = 0
    for index, page in enumerate(pages):
        kind = _checked_kind(page.header)
        if index and kind == DICTIONARY_PAGE:
            raise ChunkCopyError("a page header is invalid")
        page.check()
        inner, size = inner_header(page.header), number(page.header, 2)
        n_values, encoding = number(inner, 1), value_encoding(kind, inner)
        counts[kind == DICTIONARY_PAGE, encoding] += 1
        uncompressed += size + page.header_bytes
        if kind == DICTIONARY_PAGE:
            _check_dictionary(page.body, size, codec, n_values, leaf.element, nan)
            continue
        values += n_values
        optional = bool(leaf.definition)
        if kind == DATA_PAGE and not leaf.repetition and not nan.needs_values(encoding):
            check_body(inner, page.body, size, codec, optional=optional)
            pages_rows += n_values
            continue
        repetition, definition, body = split_body(
            kind, inner, page.body, size, codec, repeated=bool(leaf.repetition), optional=optional
        )
        if kind == DATA_PAGE_V2:
            has_second_version = True
            _check_levels(inner, repetition, definition, leaf)
            nulls += number(inner, 2)
            pages_rows += number(inner, 3)
        else:
            pages_rows += count_rows(repetition, n_values, leaf.repetition)
        nan.look(encoding, body)
    if _encodings(metadata) != counts or {encoding for _, encoding in counts} - set(metadata[ENCODINGS].value.values):
        raise ChunkCopyError("the encodings of the pages differ from the footer")
    has_dictionary = bool(pages) and pages[0].header[1].value == DICTIONARY_PAGE
    places = [page.at for page in pages[:2]] if has_dictionary else [0, *(page.at for page in pages[:1])]
    if [metadata[field].value if field in metadata else 0 for field in (DICTIONARY_AT, DATA_PAGE_AT)] != places:
        raise ChunkCopyError("the offsets of the pages differ from the footer")
    if values != metadata[N_VALUES].value or (not leaf.repetition and values != rows):
        raise ChunkCopyError("the number of values differs from the footer")
    if uncompressed != metadata[UNCOMPRESSED_BYTES].value:
        raise ChunkCopyError("the size of the pages differs from the footer")
    if pages_rows != rows:
        raise ChunkCopyError("the number of rows differs from the footer")
    if has_second_version:
        known = metadata[STATISTICS].value.get(NULL_COUNT) if STATISTICS in metadata else None
        if known is None or known.value != nulls:
            raise ChunkCopyError("the number of nulls is unknown")


def _checked_kind(header: Struct) -> int:
    """Return the type of a page whose header has only known fields; another program decodes the page."""
    kind: int = header[1].value
    try:
        check_fields(header, PAGE_HEADER, known_only=True)
    except ThriftError as error:
        raise ChunkCopyError("a page header is invalid") from error
    if header.keys() & OWN_HEADERS.values() != {OWN_HEADERS.get(kind)}:
        raise ChunkCopyError("a page header is invalid")
    return kind


def _check_levels(inner: Struct, repetition: Bytes, definition: Bytes, leaf: Leaf) -> None:
    """Raise ChunkCopyError if the levels of a data page of version 2 don't match its header."""
    n_values = number(inner, 1)
    for data, max_level, wanted, counted in (
        (repetition, leaf.repetition, 0, number(inner, 3)),
        (definition, leaf.definition, leaf.definition, n_values - number(inner, 2)),
    ):
        if bool(len(data)) != bool(max_level):
            raise ChunkCopyError("the levels of a page differ from its header")
        if max_level and count_levels(data, n_values, max_level.bit_length(), wanted) != (len(data), counted):
            raise ChunkCopyError("the levels of a page differ from its header")


class NanSearch:
    """Searches the pages of a column chunk for NaN.

    Attributes
    ----------
    found
        Whether there is a NaN, or may be one because the encoding of the values isn't supported.
    """

    def __init__(self, order: str | None) -> None:
        self.found = False
        self._dtype = None if order is None else np.dtype(FLOATS[order])

    def needs_values(self, encoding: int) -> bool:
        """Return whether pages of this encoding are searched; the dictionary of indices was searched before."""
        return self._dtype is not None and not self.found and encoding not in DICTIONARY_ENCODINGS

    def look(self, encoding: int, values: Sequence[Bytes]) -> None:
        """Search the values of a page."""
        if self._dtype is None or not self.needs_values(encoding):
            return
        size = self._dtype.itemsize
        if encoding == BYTE_STREAM_SPLIT:
            whole = joined(values)
            values = [whole[: len(whole) // size * size].reshape(size, -1).T.ravel()]
        elif encoding != PLAIN:
            self.found = True
            return
        if len(values) > 1 and any(len(piece) % size for piece in values):
            values = [joined(values)]
        for piece in values:
            numbers = np.frombuffer(piece, self._dtype, len(piece) // size)
            # The minimum is NaN if any number is NaN; computing it needs no memory.
            self.found |= bool(len(numbers)) and bool(np.isnan(numbers.min()))


def _encodings(metadata: Struct) -> Counter[tuple[bool, int]]:
    """Return the footer's number of pages by encoding, for dictionary pages and data pages."""
    # Writers disagree on whether data pages of version 2 are listed as version 1.
    counts: Counter[tuple[bool, int]] = Counter()
    for entry in metadata[ENCODING_COUNTS].value.values if ENCODING_COUNTS in metadata else ():
        counts[entry[1].value == DICTIONARY_PAGE, entry[2].value] += entry[3].value
    return counts


def _check_dictionary(body: Bytes, size: int, codec: int, count: int, element: Struct, nan: NanSearch) -> None:
    """Raise ChunkCopyError if a dictionary page isn't exactly ``count`` values of the schema's type; search for NaN."""
    kind = element[ELEMENT_TYPE].value
    if kind == BYTE_ARRAY:
        right = count_texts(joined(decompress(body, size, codec))) == count
    else:
        width = element[TYPE_LENGTH].value if kind == FIXED_LEN_BYTE_ARRAY else FIXED_WIDTHS.get(kind, 0)
        right = size == count * width
        if nan.needs_values(PLAIN):
            nan.look(PLAIN, decompress(body, size, codec))
        else:
            first_bytes(body, size, codec, 0)
    if not right:
        raise ChunkCopyError("the number of values of a dictionary differs from its header")

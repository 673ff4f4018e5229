"""Encodes the rows of a matrix as pages of a list column; the reverse of :class:`MatrixReader`.

Pages end where rows end. Their levels are encoded once per shape, and their values are the matrix's own memory: without
a codec, no number is copied on its way to the file. Pages are independent, so several are encoded at once.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: PageHeader and DataPageHeader)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from batchmax.parquet.footer import FIXED_LEN_BYTE_ARRAY
from batchmax.parquet.format import BYTE_STREAM_SPLIT, CODEC_NUMBERS, CODECS, DATA_PAGE, FLOATS, PLAIN, RLE
from batchmax.parquet.levels import full_levels, levels_with_nulls, varint
from batchmax.parquet.reading.raw_pages import copied
from batchmax.parquet.thrift import BINARY, I32, I64, LIST, STRUCT, Field, List, Struct, write_struct
from batchmax.parquet.writing.column_chunk import (
    CODEC,
    COMPRESSED_BYTES,
    DATA_PAGE_AT,
    ENCODING_COUNTS,
    ENCODINGS,
    N_VALUES,
    PATH,
    TYPE,
    UNCOMPRESSED_BYTES,
    EncodedChunk,
)

PAGE_BYTES = 1 << 20
"""Bytes of values per page, unless one row has more."""

SIGN = 1 << 31
LITERAL = b"\xfc"
"""Snappy's tag of a literal whose length - 1 follows in four bytes."""

SAMPLE_BYTES = 1 << 12
SAMPLES = 4
WORTH_PACKING = 0.95
"""A page is compressed if Snappy shrinks a sample of it to less than this ratio."""

PACKED_PIECES = 2
"""A compressed page has two pieces: header and body."""

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


STORED_TYPES = FLOATS | {np.dtype(np.float16): FIXED_LEN_BYTE_ARRAY}
"""Physical types of numbers."""


@dataclass(frozen=True, eq=False)
class MatrixRows:
    """Rows of a list column, some of which may be null.

    Attributes
    ----------
    values : (n_values, K) float32 or float64
        The rows that aren't null, C-contiguous, K at least 1.
    missing : (n_rows,) bool or None
        The null rows; None if there are none.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_] | None = None

    @property
    def n_rows(self) -> int:
        """The number of rows, including null rows."""
        return len(self.values) if self.missing is None else len(self.missing)


@dataclass(frozen=True)
class MatrixFormat:
    """The format of a list column.

    Attributes
    ----------
    codec
        ``NONE``, ``SNAPPY``, ``GZIP``, ``BROTLI``, ``ZSTD`` or ``LZ4``.
    definition
        The definition level of a number: how many of the list, its entries and the number are optional or repeated.
    byte_stream_split
        Whether to store the first bytes of all numbers of a page, then all second bytes, and so on.
    repeated
        Whether a row is a list. If not, it is one number, and K is 1.
    """

    codec: str
    definition: int = 3
    byte_stream_split: bool = False
    repeated: bool = True

    @property
    def encoding(self) -> int:
        """The number of the encoding."""
        return BYTE_STREAM_SPLIT if self.byte_stream_split else PLAIN


@dataclass(frozen=True, eq=False)
class EncodedPage:
    """A page in pieces: its header, and its body in one or more."""

    pieces: Sequence[Any]
    n_values: int
    uncompressed_bytes: int

    @property
    def is_stored(self) -> bool:
        """Whether the values are in place, in a piece of their own after the header and the levels."""
        return len(self.pieces) > PACKED_PIECES


def encode_matrix(rows: Sequence[MatrixRows], form: MatrixFormat, map_pages: Map = map) -> EncodedChunk:
    """Encode rows as a column chunk.

    Parameters
    ----------
    rows
        Runs of rows, in order. No page contains rows of two runs.
    form
        The format of the column.
    map_pages
        A function like :func:`map`; the method of an executor encodes pages in parallel.
    """
    first, *others = (page for run in rows for page in _pages(run))
    opening = _encode_page(first, form)
    # Adding a header takes less time than handing the page to another thread. The page is encoded when it is requested,
    # so that the bytes that its checksum has read are still in the CPU's cache when they are written.
    rest = (map if opening.is_stored else map_pages)(lambda rows: _encode_page(rows, form), others)
    counts = ChunkCounts(form, rows[0].values.dtype)
    metadata = counts.metadata()
    return EncodedChunk(_pieces(chain([opening], rest), counts, metadata), metadata)


class ChunkCounts:
    """Counts the values and bytes of the pages of a column chunk."""

    def __init__(self, form: MatrixFormat, dtype: np.dtype[Any]) -> None:
        self._form = form
        self._dtype = dtype
        self.pages = self.values = self.uncompressed = self.compressed = 0

    def add(self, page: EncodedPage) -> None:
        """Count a page."""
        self.pages += 1
        self.values += page.n_values
        self.uncompressed += page.uncompressed_bytes
        self.compressed += sum(len(memoryview(piece).cast("B")) for piece in page.pieces)

    def metadata(self) -> Struct:
        """Return the ColumnMetaData of these pages, with positions from the chunk's start."""
        encoding = self._form.encoding
        kinds = [{1: Field(I32, DATA_PAGE), 2: Field(I32, encoding), 3: Field(I32, self.pages)}]
        return {
            TYPE: Field(I32, STORED_TYPES[self._dtype]),
            ENCODINGS: Field(LIST, List(I32, [RLE, encoding])),
            PATH: Field(LIST, List(BINARY)),
            CODEC: Field(I32, CODEC_NUMBERS[self._form.codec]),
            N_VALUES: Field(I64, self.values),
            UNCOMPRESSED_BYTES: Field(I64, self.uncompressed),
            COMPRESSED_BYTES: Field(I64, self.compressed),
            DATA_PAGE_AT: Field(I64, 0),
            ENCODING_COUNTS: Field(LIST, List(STRUCT, kinds)),
        }


def _pieces(pages: Iterable[EncodedPage], counts: ChunkCounts, metadata: Struct) -> Iterator[Any]:
    """Yield the pieces of pages; then update metadata with the counts of values and bytes."""
    for page in pages:
        yield from page.pieces
        counts.add(page)
    metadata.update(counts.metadata())


def _pages(rows: MatrixRows) -> Iterable[MatrixRows]:
    """Split rows into pages."""
    n_classes = rows.values.shape[1]
    step = max(1, PAGE_BYTES // (n_classes * rows.values.itemsize))
    if rows.missing is None:
        for start in range(0, len(rows.values), step):
            yield MatrixRows(rows.values[start : start + step])
        return
    at = 0
    for start in range(0, len(rows.missing), step):
        missing = rows.missing[start : start + step]
        end = at + len(missing) - int(np.count_nonzero(missing))
        yield MatrixRows(rows.values[at:end], missing if missing.any() else None)
        at = end


def _encode_page(rows: MatrixRows, form: MatrixFormat) -> EncodedPage:
    n_classes = rows.values.shape[1]
    if rows.missing is None:
        n_values = rows.values.size
        levels = full_levels(rows.n_rows, n_classes, form.definition, repeated=form.repeated)
    else:
        n_values = rows.values.size + rows.n_rows - len(rows.values)
        levels = levels_with_nulls(rows.missing, n_classes, form.definition, repeated=form.repeated)
    return encode_body(rows.values, levels, n_values, form)


def encode_body(numbers: NDArray[Any], levels: bytes, n_values: int, form: MatrixFormat) -> EncodedPage:
    """Encode numbers as a page with these levels; ``n_values`` includes nulls and empty lists."""
    values = _bytes_of(numbers)
    if form.byte_stream_split:
        values = np.ascontiguousarray(values.reshape(-1, numbers.itemsize).T).reshape(-1)
    size = len(levels) + len(values)
    body = _pack(levels, values, form.codec)
    checksum = 0
    for piece in body:
        checksum = crc32(piece, checksum)
    compressed = sum(len(piece) for piece in body)
    before, after = _page_header(n_values, form.encoding, size, compressed)
    # The checksum is a signed integer in Thrift's zigzag encoding.
    signed = checksum << 1 if checksum < SIGN else 4 * SIGN - 2 * checksum - 1
    header = before + varint(signed) + after
    return EncodedPage([header, *body], n_values, len(header) + size)


@lru_cache(maxsize=64)
def _page_header(n_values: int, encoding: int, size: int, compressed: int) -> tuple[bytes, bytes]:
    """Return the parts of a data page header before and after the checksum, which differs from page to page."""
    page: Struct = {1: Field(I32, n_values), 2: Field(I32, encoding), 3: Field(I32, RLE), 4: Field(I32, RLE)}
    sizes: Struct = {1: Field(I32, DATA_PAGE), 2: Field(I32, size), 3: Field(I32, compressed), 4: Field(I32, 0)}
    header = write_struct({**sizes, 5: Field(STRUCT, page)})
    at = len(write_struct(sizes)) - 2
    return header[:at], header[at + 1 :]


def _bytes_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _pack(levels: bytes, values: NDArray[np.uint8], codec: str) -> list[Any]:
    """Return a page's body, compressed with the codec, in pieces."""
    if codec == "NONE":
        return [levels, values]
    if codec == "SNAPPY" and not _shrinks(values):
        # Floats rarely shrink. Snappy's encoder would copy them into a literal for every 64 KiB; here one literal holds
        # the whole page, and the values are not copied.
        size = len(levels) + len(values)
        return [varint(size) + LITERAL + (size - 1).to_bytes(4, "little") + levels, values]
    whole = copied([np.frombuffer(levels, np.uint8), values])
    return [pa.Codec(CODECS[CODEC_NUMBERS[codec]]).compress(pa.py_buffer(whole))]


def _shrinks(values: NDArray[np.uint8]) -> bool:
    """Return whether Snappy compresses a sample of the bytes."""
    step = max(SAMPLE_BYTES, len(values) // SAMPLES)
    sample = np.concatenate([values[at : at + SAMPLE_BYTES] for at in range(0, len(values), step)] or [values])
    return len(pa.Codec("snappy").compress(sample, asbytes=True)) < WORTH_PACKING * len(sample)

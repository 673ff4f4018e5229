"""Reads and writes Parquet columns that are matrices without decoding their levels. It doesn't know about jobs.

A list column whose rows all have K numbers and no nulls is a matrix, and its repetition and definition levels are
known in advance. General readers decode them one by one. Here they are compared with the expected levels.

Decisions
---------
Levels are compared, not decoded
    Decoding them takes longer than everything else. A column chunk that the comparison does not show to be a matrix, or
    that is damaged, is read by pyarrow from the first row that was not returned yet. ``BATCHMAX_PARQUET=pyarrow``
    disables the fast reader and the copying of columns, and ``-v`` counts the chunks of both. Rejected: trusting the
    footer, which does not say whether rows have one length.
Pages are written from the matrix's own memory
    Snappy does not compress floats, and its encoder would copy them behind a tag for every 64 KiB. Where a sample shows
    that, one tag stores a whole page. Rejected: data pages of version 2, which older readers do not read.
Unchanged columns are copied without decoding
    Page headers, sizes, counts, rows, encodings and checksums are compared with the footer first. The first row group
    of a file is decoded as well, to find a footer that is wrong about a column. Page indexes, Bloom filters and
    statistics with an undefined order are not copied.
Minimum and maximum bound every value, or are left out
    They are left out for float chunks with a NaN (readers that sort NaN above all numbers would lose rows), for types
    without a defined order (INT96, INTERVAL), and where the order differs from the one that was used. Rejected: floats
    without statistics, and ``nan_count``, which readers don't use yet.
INT96 timestamps stay 12 bytes
    pyarrow gets a footer that declares them so. Rejected: nanoseconds (not all years), microseconds (lost digits).
The rows in pages are counted
    pyarrow stops at the row group's number of rows. Rejected: trusting the footer's number of values.
Decoded sizes are computed before pyarrow decodes
    A few bytes may decode to gigabytes: a page that compresses well, a text that a dictionary holds once, a run of
    nulls. Page headers tell how much, and indices and levels where headers are not enough. Rejected: limits of the
    address space, which threads and allocators reserve without using it.
pyarrow does not write the output file
    A row group is encoded in memory and appended, followed by our footer. pyarrow is not asked about metadata of column
    chunks either: damaged ones end the process.
Direct I/O (``O_DIRECT``), where the file system has it
    Copies into the page cache took more of a core than the kernels, and the data must be on the disk before the rename.
    Six blocks of 4 MiB keep the disk busy. Rejected: fewer, larger blocks; several writes at once; preallocation.
Only a parser reports damage
    A missing Thrift field or one of another type is a :class:`FooterError` or :class:`ThriftError`; any exception that
    is no parser's is a bug and reported as one. Rejected: catching KeyError, TypeError and AttributeError around code
    that uses what was read.
"""

from __future__ import annotations

from batchmax.parquet.footer import Footer, FooterError
from batchmax.parquet.reading.decoded_size import DecodedSize, PageTooLargeError, fixed_row_bytes
from batchmax.parquet.reading.list_reader import MatrixReader
from batchmax.parquet.reading.nested_list_reader import SequenceReader, first_inner_length
from batchmax.parquet.reading.raw_pages import PageError
from batchmax.parquet.thrift import ThriftError
from batchmax.parquet.writing.chunk_copy import ChunkCopyError, CopiedColumns, copy_column, sorting_of
from batchmax.parquet.writing.column_chunk import EncodedChunk
from batchmax.parquet.writing.file_writer import FileSchema, FileWriter, Sorting
from batchmax.parquet.writing.list_writer import MatrixFormat, MatrixRows, encode_matrix
from batchmax.parquet.writing.nested_list_writer import NestedColumn, TokenRows

__all__ = [
    "ChunkCopyError",
    "CopiedColumns",
    "DecodedSize",
    "EncodedChunk",
    "FileSchema",
    "FileWriter",
    "Footer",
    "FooterError",
    "MatrixFormat",
    "MatrixReader",
    "MatrixRows",
    "NestedColumn",
    "PageError",
    "PageTooLargeError",
    "SequenceReader",
    "Sorting",
    "ThriftError",
    "TokenRows",
    "copy_column",
    "encode_matrix",
    "first_inner_length",
    "fixed_row_bytes",
    "sorting_of",
]

"""Matrices in Parquet without walking levels: a small library that knows nothing of the rest of the package.

A list column whose rows all have K numbers and no nulls is a matrix, and its repetition and definition levels say
nothing. General readers handle them one by one all the same. Here they are compared with what they must be.
"""

from __future__ import annotations

from batchmax.parquet.footer import Footer, FooterError
from batchmax.parquet.reading.decoded_size import Demand, TooLarge, even_bytes
from batchmax.parquet.reading.list_reader import MatrixReader
from batchmax.parquet.reading.nested_list_reader import SequenceReader, first_inner_length
from batchmax.parquet.reading.raw_pages import NotAMatrix
from batchmax.parquet.thrift import ThriftError
from batchmax.parquet.writing.chunk_copy import CopiedColumns, NotCopyable, copy_column, sorting_of
from batchmax.parquet.writing.column_chunk import EncodedChunk
from batchmax.parquet.writing.file_writer import FileSchema, FileWriter, Sorting
from batchmax.parquet.writing.list_writer import MatrixFormat, MatrixRows, encode_matrix
from batchmax.parquet.writing.nested_list_writer import NestedColumn, TokenRows

__all__ = [
    "CopiedColumns",
    "Demand",
    "EncodedChunk",
    "FileSchema",
    "FileWriter",
    "Footer",
    "FooterError",
    "MatrixFormat",
    "MatrixReader",
    "MatrixRows",
    "NestedColumn",
    "NotAMatrix",
    "NotCopyable",
    "SequenceReader",
    "Sorting",
    "ThriftError",
    "TokenRows",
    "TooLarge",
    "copy_column",
    "encode_matrix",
    "even_bytes",
    "first_inner_length",
    "sorting_of",
]

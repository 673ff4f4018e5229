"""Matrices in Parquet without walking levels: a small library that knows nothing of the rest of the package.

A list column whose rows all have K numbers and no nulls is a matrix, and its repetition and definition levels say
nothing. General readers handle them one by one all the same. Here they are compared with what they must be.
"""

from __future__ import annotations

from batchmax.parquet.copies import CopiedColumns, NotCopyable, copy_column, sorting_of
from batchmax.parquet.demands import Demand, TooLarge, even_bytes
from batchmax.parquet.encoded import EncodedChunk
from batchmax.parquet.file_writer import FileSchema, FileWriter, Sorting
from batchmax.parquet.footer import Footer, FooterError
from batchmax.parquet.matrix_pages import MatrixFormat, MatrixRows, encode_matrix
from batchmax.parquet.nested_pages import NestedColumn, TokenRows
from batchmax.parquet.nested_reader import SequenceReader, first_inner_length
from batchmax.parquet.packed import NotAMatrix
from batchmax.parquet.reader import MatrixReader
from batchmax.parquet.thrift import ThriftError

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

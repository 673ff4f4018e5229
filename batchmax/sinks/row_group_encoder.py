"""Encodes record batches as a row group.

Matrices are encoded here as pages (:func:`batchmax.parquet.encode_matrix`), carried columns are copied from the input
without decoding if the row groups match, and pyarrow encodes all other columns in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.columns.arrow import is_list, number_values, valid_rows
from batchmax.parquet import (
    CopiedColumns,
    EncodedChunk,
    FileSchema,
    Footer,
    MatrixFormat,
    MatrixRows,
    NestedColumn,
    encode_matrix,
)
from batchmax.parquet.footer import OPTIONAL, REPEATED, REPETITION, Leaf, SchemaColumn, footer_of_schema
from batchmax.parquet.footer import TYPE as ELEMENT_TYPE
from batchmax.parquet.int96 import converted, raw_type
from batchmax.parquet.thrift import I32, Field, Struct
from batchmax.parquet.value_order import value_order
from batchmax.parquet.writing.column_chunk import METADATA, TYPE, chunk_range, relative_metadata
from batchmax.parquet.writing.list_writer import Map
from batchmax.runtime.lazy_imports import ImportedWhenUsed

pc = ImportedWhenUsed("pyarrow.compute")


@dataclass(frozen=True, eq=False)
class RowGroupEncoder:
    """The encoding of the row groups of a file.

    Attributes
    ----------
    schema
        The Parquet schema of the file.
    codecs
        The codec of each column, by name.
    plain
        The columns whose values rarely repeat: they are written without dictionary and statistics, and matrices among
        them are encoded here.
    split
        Whether these matrices are encoded with BYTE_STREAM_SPLIT.
    map_pages
        A function like :func:`map` that encodes pages; the method of an executor encodes them in parallel.
    """

    schema: FileSchema
    codecs: Mapping[str, str]
    plain: frozenset[str] = frozenset()
    split: bool = False
    map_pages: Map = map
    _options: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def nested_column(self, name: str, dtype: np.dtype[Any], n_classes: int) -> NestedColumn:
        """Return an encoder that makes a column of nullable lists of lists of floats in pieces."""
        # Not every reader supports BYTE_STREAM_SPLIT for float16.
        split = self.split and dtype != np.float16
        return NestedColumn(MatrixFormat(self.codecs[name], byte_stream_split=split), dtype, n_classes)

    def encode(
        self,
        batches: Sequence[pa.RecordBatch],
        copied: CopiedColumns | None,
        streamed: Mapping[str, EncodedChunk] = MappingProxyType({}),
    ) -> dict[str, list[EncodedChunk]]:
        """Return the column chunks of every column.

        Parameters
        ----------
        batches
            The rows; at least one. They need not have the copied columns.
        copied
            The column chunks of the input, if the rows are a whole row group of it.
        streamed
            The column chunks of lists of lists that were written in pieces.
        """
        columns = {name: list(chunks) for name, chunks in copied.chunks.items()} if copied is not None else {}
        columns |= {name: [chunk] for name, chunk in streamed.items()}
        others: list[str] = []
        for column in self.schema.columns:
            if column.name in columns:
                continue
            rows = [matrix_rows(batch.column(column.name)) for batch in batches] if column.name in self.plain else []
            form = self._matrix_format(column)
            known = [run for run in rows if run is not None]
            if form is None or not rows or len(known) < len(rows):
                others.append(column.name)
            else:
                columns[column.name] = [encode_matrix(known, form, self.map_pages)]
        if others:
            table = pa.Table.from_batches([batch.select(others) for batch in batches])
            columns |= self._encode_with_pyarrow(self._int96_as_bytes(table))
        return columns

    def _int96_as_bytes(self, table: pa.Table) -> pa.Table:
        """Return the table with timestamps that become INT96 replaced by bytes, unless they already are bytes."""
        for number, name in enumerate(table.column_names):
            if name in self.schema.int96:
                kind = raw_type(table.field(number).type, self.schema.by_name[name])
                chunks = [converted(chunk, kind) for chunk in table.column(number).chunks]
                table = table.set_column(number, table.field(number).with_type(kind), pa.chunked_array(chunks, kind))
        return table

    def _matrix_format(self, column: SchemaColumn) -> MatrixFormat | None:
        """Return the format of a column of numbers or of lists of them; None if pyarrow must encode it."""
        levels = [element[REPETITION].value for element in column.elements]
        codec, optional = self.codecs[column.name], levels[-1] == OPTIONAL
        if len(levels) == 1:
            return MatrixFormat(codec, 1, self.split, repeated=False) if optional else None
        if levels[:-1] != [OPTIONAL, REPEATED] or len(column.leaves) != 1 or levels[-1] == REPEATED:
            return None
        return MatrixFormat(codec, 2 + optional, self.split)

    def _encode_with_pyarrow(self, table: pa.Table) -> dict[str, list[EncodedChunk]]:
        names = tuple(table.column_names)
        if names not in self._options:
            self._options[names] = writer_options(table.schema, self.codecs, self.plain)
        stream = pa.BufferOutputStream()
        with pq.ParquetWriter(stream, table.schema, **self._options[names]) as writer:
            writer.write_table(table, row_group_size=table.num_rows)
        data = stream.getvalue()
        footer = Footer.parse(data)
        group = footer.row_group(0)
        columns: dict[str, list[EncodedChunk]] = {}
        for column in footer.columns:
            target, nan = self.schema.by_name[column.name], list(_leaves_with_nan(table.column(column.name)))
            columns[column.name] = [
                _cut_out(
                    data,
                    group.chunk(column.first_leaf + number)[METADATA].value,
                    leaf,
                    target.leaves[number],
                    nan[number],
                )
                for number, leaf in enumerate(column.leaves)
            ]
        return columns


def matrix_rows(array: pa.Array) -> MatrixRows | None:
    """Return a column's rows as a matrix; None if they aren't floats or lists of floats of equal length."""
    missing = ~valid_rows(array) if array.null_count else None
    filled = len(array) - array.null_count
    values = _flat_values(array) if is_list(array.type) else array
    if values.type not in {pa.float32(), pa.float64()}:
        return None
    if values is array and missing is not None:
        values = pa.array(number_values(array)[~missing])  # drop_null would import pyarrow.compute
    if values.null_count:
        return None
    n_classes = len(values) // max(filled, 1) or 1
    if filled * n_classes != len(values):
        return None
    if is_list(array.type) and not pa.types.is_fixed_size_list(array.type):
        lengths = np.diff(array.offsets.to_numpy())
        if ((lengths if missing is None else lengths[~missing]) != n_classes).any():
            return None
    return MatrixRows(values.to_numpy().reshape(filled, n_classes), missing)


def _flat_values(array: pa.Array) -> pa.Array:
    """Return the values of lists, without those of null lists."""
    if array.null_count or not isinstance(array, pa.ListArray | pa.LargeListArray):
        return array.flatten()  # imports pyarrow.compute
    start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.values.slice(start, end - start)


def writer_options(schema: pa.Schema, codecs: Mapping[str, str], plain: frozenset[str]) -> dict[str, Any]:
    """Return pyarrow's options for writing columns, by their leaves."""
    columns = leaf_columns(schema)
    repeating = [leaf for leaf, name in columns.items() if name not in plain]
    return {
        "compression": {leaf: codecs[name] for leaf, name in columns.items()},
        "use_dictionary": repeating,
        "write_statistics": repeating,
        "write_page_checksum": True,
        "store_schema": False,
    }


def leaf_columns(schema: pa.Schema) -> dict[str, str]:
    """Return the paths of all Parquet leaves of a schema, and the column that each belongs to.

    The path alone doesn't determine the column, because names may have dots.
    """
    return {leaf.name: column.name for column in footer_of_schema(schema).columns for leaf in column.leaves}


def _leaves_with_nan(column: pa.ChunkedArray) -> Iterator[bool]:
    """Yield for each Parquet leaf of a column whether it contains a NaN."""
    yield from map(any, zip(*map(_nan_in_leaves, column.chunks), strict=True))


def _nan_in_leaves(array: pa.Array) -> Iterator[bool]:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _nan_in_leaves(array.storage)
    elif pa.types.is_dictionary(kind):
        yield from _nan_in_leaves(array.dictionary)
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _nan_in_leaves(child)
    elif pa.types.is_map(kind):
        for child in (array.keys, array.items):
            yield from _nan_in_leaves(child)
    elif is_list(kind):
        yield from _nan_in_leaves(array.flatten())
    else:
        yield pa.types.is_floating(kind) and bool(pc.any(pc.is_nan(array)).as_py())


def _cut_out(data: pa.Buffer, metadata: Struct, leaf: Leaf, target: Leaf, has_nan: bool) -> EncodedChunk:
    """Return a column chunk of a file that pyarrow wrote, as one of another leaf with the same encoding."""
    start, size = chunk_range(metadata)
    order = value_order(target.element)
    ordered = order is not None and order == value_order(leaf.element) and not has_nan
    metadata = {**metadata, TYPE: Field(I32, target.element[ELEMENT_TYPE].value)}
    return EncodedChunk([data.slice(start, size)], relative_metadata(metadata, ordered=ordered))

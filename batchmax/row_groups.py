"""Record batches as a row group: each column encoded by who does it best, none by who needs it decoded.

Columns of computed matrices become pages here (``parquet.encode_matrix``), columns that are carried through stay the
bytes they are in the input where the row groups line up, and pyarrow encodes all others in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.arrow import is_list, valid_rows
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
from batchmax.parquet.encoded import METADATA, movable, place_of
from batchmax.parquet.footer import OPTIONAL, REPEATED, REPETITION, SchemaColumn, footer_of_schema


@dataclass(frozen=True, eq=False)
class RowGroupEncoder:
    """How the row groups of a file are encoded.

    Attributes
    ----------
    schema
        Of the file as Parquet has it.
    codecs
        By the column's name.
    plain
        The columns whose values hardly repeat: without dictionary and statistics, and as pages of a matrix where they
        are one.
    split
        Whether the bytes of the numbers of such a matrix are split (BYTE_STREAM_SPLIT).
    workers
        Who encodes pages at the same time.
    """

    schema: FileSchema
    codecs: Mapping[str, str]
    plain: frozenset[str]
    split: bool
    workers: Executor
    _options: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def nested_column(self, name: str, dtype: np.dtype[Any], n_classes: int) -> NestedColumn:
        """Return what makes a column of lists of lists of float32 or float64 that may all be null, piece by piece."""
        return NestedColumn(MatrixFormat(self.codecs[name], byte_stream_split=self.split), dtype, n_classes)

    def encode(
        self,
        batches: Sequence[pa.RecordBatch],
        copied: CopiedColumns | None,
        streamed: Mapping[str, EncodedChunk] = MappingProxyType({}),
    ) -> dict[str, list[EncodedChunk]]:
        """Return the chunks of every column.

        Parameters
        ----------
        batches
            The rows, at least one. They need not have the columns that are copied.
        copied
            What comes from the input, if these rows are all of a row group of it.
        streamed
            Columns of lists of lists that were made piece by piece.
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
                columns[column.name] = [encode_matrix(known, form, self.workers.map)]
        for int96 in (False, True):
            names = [name for name in others if (name in self.schema.int96) == int96]
            if names:
                table = pa.Table.from_batches([batch.select(names) for batch in batches])
                columns |= self._encode_with_pyarrow(table, int96=int96)
        return columns

    def _matrix_format(self, column: SchemaColumn) -> MatrixFormat | None:
        """Return how a column of numbers or of lists of them is written here; None if pyarrow must."""
        levels = [element[REPETITION].value for element in column.elements]
        codec, optional = self.codecs[column.name], levels[-1] == OPTIONAL
        if len(levels) == 1:
            return MatrixFormat(codec, 1, self.split, repeated=False) if optional else None
        if levels[:-1] != [OPTIONAL, REPEATED] or len(column.leaves) != 1 or levels[-1] == REPEATED:
            return None
        return MatrixFormat(codec, 2 + optional, self.split)

    def _encode_with_pyarrow(self, table: pa.Table, *, int96: bool) -> dict[str, list[EncodedChunk]]:
        names = tuple(table.column_names)
        if names not in self._options:
            self._options[names] = writer_options(table.schema, self.codecs, self.plain) | {
                "use_deprecated_int96_timestamps": int96,
                "store_schema": False,
            }
        stream = pa.BufferOutputStream()
        with pq.ParquetWriter(stream, table.schema, **self._options[names]) as writer:
            writer.write_table(table, row_group_size=table.num_rows)
        data = stream.getvalue()
        footer = Footer.parse(data)
        group = footer.row_group(0)
        return {
            column.name: [
                _cut_out(data, group.chunk(leaf)[METADATA].value)
                for leaf in range(column.first_leaf, column.first_leaf + len(column.leaves))
            ]
            for column in footer.columns
        }


def matrix_rows(array: pa.Array) -> MatrixRows | None:
    """Return a column's rows as a matrix, or None if they are not floats, or lists of them of one length."""
    missing = ~valid_rows(array) if array.null_count else None
    filled = len(array) - array.null_count
    values = array.flatten() if is_list(array.type) else array.drop_null()
    if values.type not in {pa.float32(), pa.float64()} or values.null_count:
        return None
    n_classes = len(values) // max(filled, 1) or 1
    if filled * n_classes != len(values):
        return None
    if is_list(array.type) and not pa.types.is_fixed_size_list(array.type):
        lengths = np.diff(array.offsets.to_numpy())
        if ((lengths if missing is None else lengths[~missing]) != n_classes).any():
            return None
    return MatrixRows(values.to_numpy().reshape(filled, n_classes), missing)


def writer_options(schema: pa.Schema, codecs: Mapping[str, str], plain: frozenset[str]) -> dict[str, Any]:
    """Return pyarrow's options for writing columns, by their leaves."""
    leaves = leaf_columns(schema)
    return {
        "compression": {leaf: codecs[name] for leaf, name in leaves.items()},
        "use_dictionary": [leaf for leaf, name in leaves.items() if name not in plain],
        "write_statistics": [leaf for leaf, name in leaves.items() if name not in plain],
        "write_page_checksum": True,
    }


def leaf_columns(schema: pa.Schema) -> dict[str, str]:
    """Return the path of every leaf that a schema has in Parquet, and the column it belongs to.

    A path does not tell: a name may have a dot in it.
    """
    return {leaf.name: column.name for column in footer_of_schema(schema).columns for leaf in column.leaves}


def _cut_out(data: pa.Buffer, metadata: dict[int, Any]) -> EncodedChunk:
    start, size = place_of(metadata)
    return EncodedChunk([data.slice(start, size)], movable(metadata))

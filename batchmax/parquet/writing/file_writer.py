"""Writes Parquet files from encoded column chunks: row groups one after another, then the footer.

The schema is pyarrow's for the output's Arrow schema. A column that is carried from the input keeps its schema elements
from there if the physical layout is the same, so logical types, field IDs and names that Arrow can't represent survive.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: FileMetaData and RowGroup)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import pyarrow as pa

from batchmax.parquet.footer import (
    COLUMNS,
    CREATED_BY,
    GROUP_ROWS,
    KEY_VALUES,
    LAYOUT_FIELDS,
    LOGICAL,
    MAGIC,
    N_ROWS,
    ROW_GROUPS,
    SCHEMA,
    SORTING,
    TYPE,
    Footer,
    SchemaColumn,
    footer_of_schema,
)
from batchmax.parquet.int96 import INT96, has_int96
from batchmax.parquet.thrift import BINARY, I32, I64, LIST, STRUCT, Field, List, Struct, read_struct, write_struct
from batchmax.parquet.value_order import INT64
from batchmax.parquet.writing.column_chunk import METADATA, EncodedChunk
from batchmax.parquet.writing.direct_io import DirectWriter

TIMESTAMP_TYPE = 8
"""A logical type."""


class FileSchema:
    """The schema of a file to be written.

    Parameters
    ----------
    schema
        The Arrow schema, with the file's metadata.
    like
        The footer of the input, if there is one.
    carried
        The names of columns that are carried from the input.

    Attributes
    ----------
    int96
        The names of columns with INT96 timestamps. They stay INT96: Spark still writes them, and can't read the
        nanoseconds that pyarrow would write instead.
    """

    def __init__(self, schema: pa.Schema, like: Footer | None = None, carried: Iterable[str] = ()) -> None:
        self.footer = footer_of_schema(schema)
        self.int96: set[str] = set()
        self._carried: dict[str, SchemaColumn] = {}
        self.columns: list[SchemaColumn] = []
        theirs = {name: like.column(name) for name in carried} if like is not None else {}
        for ours in self.footer.columns:
            column = theirs.get(ours.name)
            if column is None or not _is_encoded_as(column, ours):
                self.columns.append(ours)
                continue
            self._carried[ours.name] = column
            self.columns.append(column)
            if has_int96(column):
                self.int96.add(ours.name)

    @cached_property
    def by_name(self) -> dict[str, SchemaColumn]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    def takes(self, column: SchemaColumn) -> bool:
        """Return whether chunks of this column of another file may be copied into the file."""
        ours = self._carried.get(column.name)
        return ours is not None and ours.means(column)

    @property
    def elements(self) -> list[Struct]:
        """The schema elements of the file, root first."""
        root = self.footer.fields[SCHEMA].value.values[0]
        return [root, *(element for column in self.columns for element in column.elements)]


def _is_encoded_as(theirs: SchemaColumn, ours: SchemaColumn) -> bool:
    """Return whether pyarrow's encoding of ``ours`` is valid for ``theirs``, with INT96 given as binary."""
    if not has_int96(theirs):
        return theirs.stored_as(ours)
    return theirs.nested_as(ours) and all(
        leaf.element[TYPE].value == INT64 and LOGICAL in leaf.element and TIMESTAMP_TYPE in leaf.element[LOGICAL].value
        if their.element[TYPE].value == INT96
        else [their.element.get(field) for field in LAYOUT_FIELDS]
        == [leaf.element.get(field) for field in LAYOUT_FIELDS]
        for their, leaf in zip(theirs.leaves, ours.leaves, strict=True)
    )


@dataclass(frozen=True)
class Sorting:
    """A sort key of rows: the column, the index of the leaf among the column's leaves, and the SortingColumn struct."""

    column: str
    leaf: int
    element: Struct


class FileWriter(DirectWriter):
    """A file that is written row group by row group.

    Parameters
    ----------
    descriptor
        A file descriptor, open for reading and writing. The caller closes it.
    schema
        The schema of the file.
    created_by
        The program's name and version, in the form that the format requires: ``name version 1.2.3``.
    done
        For a file that is resumed: its row groups, as returned by :meth:`new_groups`, and its size with them.
    durable
        Whether the file is synced while it grows.

    Raises
    ------
    OSError
        From every method, if the file can't be written.
    """

    def __init__(
        self,
        descriptor: int,
        schema: FileSchema,
        created_by: str,
        done: tuple[Sequence[bytes], int] = ((), 0),
        *,
        durable: bool = True,
    ) -> None:
        groups, size = done
        super().__init__(descriptor, size, durable=durable)
        self._schema = schema
        self._created_by = created_by
        self._groups: list[Struct] = [read_struct(group)[0] for group in groups]
        self._n_returned = len(self._groups)
        self._n_rows = sum(group[GROUP_ROWS].value for group in self._groups)
        if not size:
            self.write([MAGIC])

    def append(self, n_rows: int, columns: Mapping[str, Sequence[EncodedChunk]], sorting: Sequence[Sorting]) -> None:
        """Append a row group: for each column of the schema, one chunk for each of its leaves."""
        start, uncompressed, compressed = self.size, 0, 0
        entries: list[Struct] = []
        first_leaf: dict[str, int] = {}
        for column in self._schema.columns:
            first_leaf[column.name] = len(entries)
            for chunk, leaf in zip(columns[column.name], column.leaves, strict=True):
                at = self.size
                if chunk.at is not None:
                    at = chunk.at
                    start = min(start, at)
                else:
                    self.write(chunk.pieces)
                    if self.size - at != chunk.n_bytes:
                        raise ValueError(f"a chunk has {self.size - at} bytes, not {chunk.n_bytes}")
                compressed += chunk.n_bytes
                entries.append({2: Field(I64, 0), METADATA: Field(STRUCT, chunk.absolute_metadata(at, leaf.path))})
                uncompressed += chunk.uncompressed_bytes
        group: Struct = {
            COLUMNS: Field(LIST, List(STRUCT, entries)),
            2: Field(I64, uncompressed),
            GROUP_ROWS: Field(I64, n_rows),
            5: Field(I64, start),
            6: Field(I64, compressed),
        }
        if sorting:
            keys = [{**key.element, 1: Field(I32, first_leaf[key.column] + key.leaf)} for key in sorting]
            group[SORTING] = Field(LIST, List(STRUCT, keys))
        self._groups.append(group)
        self._n_rows += n_rows

    def rewind(self, size: int) -> None:
        """Go back to an earlier size; later bytes are overwritten."""
        self.write_rest()
        self.close()
        super().__init__(self._descriptor, size, durable=self._durable)

    def new_groups(self) -> list[bytes]:
        """Return the row groups that were appended since the last call, serialized as in the footer."""
        groups = [write_struct(group) for group in self._groups[self._n_returned :]]
        self._n_returned = len(self._groups)
        return groups

    def finish(self, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the footer, with metadata in addition to the schema's."""
        fields = dict(self._schema.footer.fields)
        fields[SCHEMA] = Field(LIST, List(STRUCT, self._schema.elements))
        fields[N_ROWS] = Field(I64, self._n_rows)
        fields[ROW_GROUPS] = Field(LIST, List(STRUCT, self._groups))
        if metadata:
            texts = ((key.encode(), value.encode()) for key, value in metadata.items())
            pairs = [{1: Field(BINARY, key), 2: Field(BINARY, value)} for key, value in texts]
            known = fields[KEY_VALUES].value.values if KEY_VALUES in fields else []
            fields[KEY_VALUES] = Field(LIST, List(STRUCT, [*known, *pairs]))
        fields[CREATED_BY] = Field(BINARY, self._created_by.encode())
        footer = write_struct(fields)
        self.write([footer, len(footer).to_bytes(4, "little"), MAGIC])
        self.write_rest()

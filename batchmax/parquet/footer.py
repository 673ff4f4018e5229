"""Reads footers: the schema as a tree, and the column chunks of each row group.

A footer is kept as generic Thrift structs, so fields that are unknown here survive a copy.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: FileMetaData, SchemaElement, RowGroup)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchmax.kernels.parquet.thrift_skip import INNER, read_integers
from batchmax.parquet.fields import COLUMN_CHUNK, FILE_METADATA, ROW_GROUP, check_fields
from batchmax.parquet.thrift import Struct, ThriftError, UnparsedStructs, read_struct
from batchmax.storage.system_calls import read_at

MAGIC = b"PAR1"
TAIL = 8
"""Bytes after the footer: its length in four bytes, and the magic bytes."""

# Fields of FileMetaData, SchemaElement and RowGroup.
SCHEMA, N_ROWS, ROW_GROUPS, KEY_VALUES, CREATED_BY, COLUMN_ORDERS, ENCRYPTION_ALGORITHM = 2, 3, 4, 5, 6, 7, 8
TYPE, TYPE_LENGTH, REPETITION, NAME, N_CHILDREN, CONVERTED, SCALE, PRECISION, LOGICAL = 1, 2, 3, 4, 5, 6, 7, 8, 10
COLUMNS, GROUP_ROWS, SORTING = 1, 3, 4
REQUIRED, OPTIONAL, REPEATED = 0, 1, 2
FIXED_LEN_BYTE_ARRAY = 7
MAX_NESTING = 100
"""The largest nesting depth of groups in the schema."""

SIZE_FIELDS = np.array([3 * INNER + number for number in (4, 7, 5, 9, 11)])
"""Fields of ColumnChunk's ColumnMetaData: codec, compressed size, number of values, position of the data pages, and of
the dictionary page."""
LAYOUT_FIELDS = (TYPE, TYPE_LENGTH, REPETITION, N_CHILDREN)
NESTING_FIELDS = (REPETITION, N_CHILDREN)
MEANING_FIELDS = (CONVERTED, SCALE, PRECISION, LOGICAL)


class FooterError(ValueError):
    """A footer that can't be read or is inconsistent."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf of the schema: its path, its SchemaElement, and its maximum repetition and definition levels."""

    path: tuple[bytes, ...]
    element: Struct
    repetition: int
    definition: int

    @property
    def name(self) -> str:
        """The path, joined with dots."""
        return str(b".".join(self.path), "utf-8", "replace")


@dataclass(frozen=True, eq=False)
class SchemaColumn:
    """A top-level column: its SchemaElements in the footer's order, its leaves, and the index of its first leaf."""

    elements: Sequence[Struct]
    leaves: Sequence[Leaf]
    first_leaf: int

    @cached_property
    def name(self) -> str:
        """The column's name."""
        return str(self.elements[0][NAME].value, "utf-8", "replace")

    def stored_as(self, other: SchemaColumn) -> bool:
        """Return whether both columns have the same physical layout; names and logical types may differ."""
        return self._fields(LAYOUT_FIELDS) == other._fields(LAYOUT_FIELDS)

    def nested_as(self, other: SchemaColumn) -> bool:
        """Return whether both columns have the same nesting of lists and structs; types may differ."""
        return self._fields(NESTING_FIELDS) == other._fields(NESTING_FIELDS)

    def means(self, other: SchemaColumn) -> bool:
        """Return whether both columns have the same types and physical layout; names inside the column may differ."""
        return self.stored_as(other) and self._fields(MEANING_FIELDS) == other._fields(MEANING_FIELDS)

    def _fields(self, numbers: Sequence[int]) -> list[list[Any]]:
        return [
            [(element[number].kind, element[number].value) if number in element else None for number in numbers]
            for element in self.elements
        ]


class RowGroup:
    """A row group of a footer. The structs of its column chunks are read on demand.

    Raises
    ------
    ThriftError
        If the bytes are not a row group.
    """

    def __init__(self, data: Any, start: int) -> None:
        self._data = data
        self.fields, _ = read_struct(data, start, {COLUMNS})
        check_fields(self.fields, ROW_GROUP)
        columns: UnparsedStructs = self.fields[COLUMNS].value
        self._starts = columns.starts
        self.n_rows: int = self.fields[GROUP_ROWS].value
        self.n_columns = len(self._starts) - 1

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Sizes and positions of column chunks, (n_columns, 5); -1 if unknown.

        For each chunk: codec, compressed size, number of values, position of the data pages, position of the dictionary
        page (0 without one).
        """
        sizes, ends = np.empty((self.n_columns, len(SIZE_FIELDS)), np.int64), np.empty(self.n_columns, np.int64)
        read_integers(np.frombuffer(self._data, np.uint8), self._starts[:-1], ends, SIZE_FIELDS, sizes)
        sizes[(ends >= 0) & (sizes[:, 4] < 0), 4] = 0
        return sizes

    @property
    def ranges(self) -> NDArray[np.int64]:
        """Start and end of each column chunk in the file, (n_columns, 2); -1 if unknown."""
        _, compressed, _, data_at, dictionary_at = self.sizes.T
        starts = np.where((dictionary_at > 0) & (dictionary_at < data_at), dictionary_at, data_at)
        ranges = np.stack([starts, starts + compressed], 1)
        ranges[(compressed < 0) | (data_at < 0) | (dictionary_at < 0)] = -1
        return ranges

    def check_ranges(self) -> None:
        """Check that no two column chunks overlap in the file.

        Raises
        ------
        FooterError
            If two overlap: the metadata of one of them is wrong.
        """
        # Column chunks without values occupy no bytes, whatever their metadata says.
        ranges = self.ranges[self.sizes[:, 2] > 0]
        ranges = ranges[ranges[:, 0] < ranges[:, 1]]
        ranges = ranges[np.argsort(ranges[:, 0])]
        if (ranges[:-1, 1] > ranges[1:, 0]).any():
            raise FooterError("two column chunks of a row group overlap")

    def chunk(self, leaf: int) -> Struct:
        """Return the ColumnChunk struct of a leaf.

        Raises
        ------
        ThriftError
            If the footer is damaged.
        """
        chunk, _ = read_struct(self._data, int(self._starts[:-1][leaf]))
        check_fields(chunk, COLUMN_CHUNK)
        return chunk


class Footer:
    """A file's footer.

    Parameters
    ----------
    data
        The footer's bytes, without the last eight bytes of the file.

    Raises
    ------
    FooterError
        If the bytes are not a footer; also raised by the class methods.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._last: tuple[int, RowGroup] | None = None
        try:
            self.fields, _ = read_struct(data, unparsed={ROW_GROUPS})
            check_fields(self.fields, FILE_METADATA)
        except ThriftError as error:
            raise FooterError(f"the footer is damaged: {error}") from error
        self._groups = self.fields[ROW_GROUPS].value.starts
        self.columns = list(_columns(self.fields[SCHEMA].value.values))

    @classmethod
    def parse(cls, whole: Any) -> Self:
        """Read the footer of a file that is in memory."""
        tail = bytes(whole[-TAIL:])
        size = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or size > len(whole) - TAIL:
            raise FooterError("the file has no footer")
        return cls(whole[len(whole) - TAIL - size : len(whole) - TAIL])

    @classmethod
    def read(cls, descriptor: int) -> Self:
        """Read the footer of an open file.

        Raises
        ------
        OSError
            If the file can't be read.
        """
        end = os.fstat(descriptor).st_size - TAIL
        tail = read_at(descriptor, TAIL, max(end, 0))
        size = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or size > end:
            raise FooterError("the file has no footer")
        return cls(read_at(descriptor, size, end - size))

    @cached_property
    def leaves(self) -> list[Leaf]:
        """The leaves of all columns, in the order of a row group's chunks."""
        return [leaf for column in self.columns for leaf in column.leaves]

    @property
    def has_encrypted_columns(self) -> bool:
        """Whether some column chunks are encrypted although the footer is not."""
        return ENCRYPTION_ALGORITHM in self.fields

    @property
    def n_row_groups(self) -> int:
        """The number of row groups."""
        return len(self._groups) - 1

    def row_group(self, group: int) -> RowGroup:
        """Return a row group.

        Raises
        ------
        FooterError
            If there is no such row group, or it is damaged, or its number of columns differs from the schema's.
        """
        if self._last is not None and self._last[0] == group:
            return self._last[1]
        if not 0 <= group < self.n_row_groups:
            raise FooterError(f"there is no row group {group}")
        try:
            found = RowGroup(self._data, int(self._groups[group]))
        except ThriftError as error:
            raise FooterError(f"row group {group} is damaged: {error}") from error
        if found.n_columns != len(self.leaves):
            raise FooterError(f"row group {group} and the schema have different numbers of columns")
        self._last = (group, found)
        return found

    @cached_property
    def ordered(self) -> list[bool]:
        """For each leaf, whether its values are ordered by the order that its type defines."""
        orders = self.fields[COLUMN_ORDERS].value.values if COLUMN_ORDERS in self.fields else ()
        return [1 in order for order in orders] if len(orders) == len(self.leaves) else [False] * len(self.leaves)

    def column(self, name: str) -> SchemaColumn | None:
        """Return the column with this name; None if there is none or more than one."""
        found = self._by_name.get(name, [])
        return found[0] if len(found) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, list[SchemaColumn]]:
        names: dict[str, list[SchemaColumn]] = {}
        for column in self.columns:
            names.setdefault(column.name, []).append(column)
        return names


def _columns(elements: Sequence[Struct]) -> Iterator[SchemaColumn]:
    if not elements or N_CHILDREN not in elements[0]:
        raise FooterError("the footer is damaged: its schema has no root")
    at, leaf = 1, 0
    for _ in range(elements[0][N_CHILDREN].value):
        end, leaves = _subtree(elements, at, (), 0, 0)
        yield SchemaColumn(elements[at:end], leaves, leaf)
        at, leaf = end, leaf + len(leaves)


def footer_of_schema(schema: pa.Schema, **options: Any) -> Footer:
    """Return the footer that pyarrow writes for a file with this schema and no rows."""
    stream = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), stream, **options)
    return Footer.parse(stream.getvalue())


def _subtree(
    elements: Sequence[Struct], at: int, path: tuple[bytes, ...], repetition: int, definition: int
) -> tuple[int, list[Leaf]]:
    """Return the index after a subtree of the schema, and the leaves of the subtree."""
    if at >= len(elements) or REPETITION not in elements[at]:
        raise FooterError("the footer is damaged: its schema is incomplete")
    if len(path) == MAX_NESTING:
        raise FooterError("the footer is damaged: its schema is nested too deeply")
    element = elements[at]
    path = (*path, element[NAME].value)
    repetition += element[REPETITION].value == REPEATED
    definition += element[REPETITION].value != REQUIRED
    count = element[N_CHILDREN].value if N_CHILDREN in element else 0
    at += 1
    if not count:
        if TYPE not in element or (element[TYPE].value == FIXED_LEN_BYTE_ARRAY and TYPE_LENGTH not in element):
            raise FooterError("the footer is damaged: its schema lacks the type of a column")
        if element[TYPE].value == FIXED_LEN_BYTE_ARRAY and element[TYPE_LENGTH].value < 0:
            raise FooterError("the footer is damaged: its schema has a type of negative length")
        return at, [Leaf(path, element, repetition, definition)]
    leaves: list[Leaf] = []
    for _ in range(count):
        at, found = _subtree(elements, at, path, repetition, definition)
        leaves += found
    return at, leaves

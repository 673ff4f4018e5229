"""Footers: the schema as a tree, the column chunks of each row group, and what an empty file of a schema looks like.

A footer is kept as the generic structs it was read as, so what is not known here survives a copy.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: FileMetaData, SchemaElement, RowGroup)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.parquet.thrift import Struct, ThriftError, read_struct

MAGIC = b"PAR1"
TAIL = 8
"""The length of the footer in four bytes, and the magic ones."""

# Fields of FileMetaData, SchemaElement and RowGroup.
SCHEMA, N_ROWS, ROW_GROUPS, KEY_VALUES, CREATED_BY, COLUMN_ORDERS = 2, 3, 4, 5, 6, 7
TYPE, TYPE_LENGTH, REPETITION, NAME, N_CHILDREN, CONVERTED, SCALE, PRECISION, LOGICAL = 1, 2, 3, 4, 5, 6, 7, 8, 10
COLUMNS, GROUP_ROWS, SORTING = 1, 3, 4
REQUIRED, OPTIONAL, REPEATED = 0, 1, 2

LAYOUT_FIELDS = (TYPE, TYPE_LENGTH, REPETITION, N_CHILDREN)
MEANING_FIELDS = (CONVERTED, SCALE, PRECISION, LOGICAL)


class FooterError(ValueError):
    """A footer that cannot be read, or does not hold together."""


@dataclass(frozen=True, eq=False)
class SchemaColumn:
    """A top-level column: its elements in the footer's order, and the paths of its leaves."""

    elements: Sequence[Struct]
    leaves: Sequence[tuple[bytes, ...]]
    first_leaf: int

    @property
    def name(self) -> str:
        """The column's name."""
        return str(self.elements[0][NAME].value, "utf-8", "replace")

    def stored_as(self, other: SchemaColumn) -> bool:
        """Return whether the bytes of one could be those of the other, whatever they mean and are called."""
        return self._fields(LAYOUT_FIELDS) == other._fields(LAYOUT_FIELDS)

    def means(self, other: SchemaColumn) -> bool:
        """Return whether both have the same types, stored in the same way; names inside the column may differ."""
        return self.stored_as(other) and self._fields(MEANING_FIELDS) == other._fields(MEANING_FIELDS)

    def _fields(self, numbers: Sequence[int]) -> list[list[Any]]:
        return [
            [element[number].value if number in element else None for number in numbers] for element in self.elements
        ]


class Footer:
    """What a file says of itself at its end."""

    def __init__(self, fields: Struct) -> None:
        self.fields = fields

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Read the footer of a whole file in memory.

        Raises
        ------
        FooterError
            It is not one.
        """
        tail = bytes(data[-TAIL:])
        size = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or size > len(data) - TAIL:
            raise FooterError("there is no footer at the end")
        return cls._of(data[len(data) - TAIL - size : len(data) - TAIL])

    @classmethod
    def read(cls, descriptor: int, most_bytes: int) -> Self:
        """Read the footer of an open file, if it has at most so many bytes.

        Raises
        ------
        FooterError
            It is longer, or cannot be read.
        OSError
            The file cannot be read.
        """
        end = os.fstat(descriptor).st_size - TAIL
        tail = os.pread(descriptor, TAIL, max(end, 0))
        size = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or size > min(end, most_bytes):
            raise FooterError("there is no footer at the end, or a very long one")
        return cls._of(os.pread(descriptor, size, end - size))

    @classmethod
    def _of(cls, data: Any) -> Self:
        try:
            footer = cls(read_struct(data)[0])
            if footer.columns and footer.row_groups is not None:
                return footer
        except (ThriftError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise FooterError(f"the footer is damaged: {error}") from error
        raise FooterError("the footer has no columns")

    @cached_property
    def columns(self) -> list[SchemaColumn]:
        """The top-level columns."""
        elements: list[Struct] = self.fields[SCHEMA].value.values
        columns: list[SchemaColumn] = []
        at, leaf = 1, 0
        for _ in range(elements[0][N_CHILDREN].value):
            end, leaves = _subtree(elements, at, ())
            columns.append(SchemaColumn(elements[at:end], leaves, leaf))
            at, leaf = end, leaf + len(leaves)
        return columns

    @property
    def row_groups(self) -> list[Struct]:
        """The row groups, as structs."""
        groups: list[Struct] = self.fields[ROW_GROUPS].value.values
        return groups

    @property
    def ordered(self) -> list[bool]:
        """For each leaf, whether its values have the order that their type defines."""
        if COLUMN_ORDERS not in self.fields:
            return [False] * sum(len(column.leaves) for column in self.columns)
        return [1 in order for order in self.fields[COLUMN_ORDERS].value.values]

    def column(self, name: str) -> SchemaColumn | None:
        """Return the only column of a name, or None."""
        found = [column for column in self.columns if column.name == name]
        return found[0] if len(found) == 1 else None


def footer_of_schema(schema: pa.Schema) -> Footer:
    """Return the footer that pyarrow gives a file of this schema without rows."""
    stream = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), stream)
    return Footer.parse(stream.getvalue())


def _subtree(elements: Sequence[Struct], at: int, path: tuple[bytes, ...]) -> tuple[int, list[tuple[bytes, ...]]]:
    """Return where a subtree ends, and the paths of its leaves."""
    element = elements[at]
    path = (*path, element[NAME].value)
    count = element[N_CHILDREN].value if N_CHILDREN in element else 0
    at += 1
    if not count:
        return at, [path]
    leaves: list[tuple[bytes, ...]] = []
    for _ in range(count):
        at, found = _subtree(elements, at, path)
        leaves += found
    return at, leaves

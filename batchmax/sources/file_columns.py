"""Several files as one table: the columns of all files by name, and how a file's own become these.

A column that a file lacks is null there, and a type is widened to one that has every value. Where no type has, the
column stays as it is in each file, and is refused if it is read. Knows schemas and batches; not which columns are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchmax.columns.arrow import type_text
from batchmax.columns.type_union import common_type_of, read_as
from batchmax.errors import DataError, UsageError


@dataclass(frozen=True, eq=False)
class FileColumns:
    """How the columns of one file are read.

    Attributes
    ----------
    own
        As they are in the file; without metadata, and shared by all files with the same columns.
    schema
        As they are read: those of all files.
    cast, added
        The names of those whose type is another, and of those that the file lacks.
    recoded
        Those of ``cast`` and ``added`` whose stored bytes cannot be those of an output either.
    """

    own: pa.Schema
    schema: pa.Schema
    cast: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    recoded: frozenset[str] = frozenset()

    def conform(self, batch: pa.RecordBatch, path: str, names: Collection[str] | None = None) -> pa.RecordBatch:
        """Return a batch of the file with the columns of all files: of those in it, and of those among ``names``.

        Parameters
        ----------
        batch
            Some columns of the file, structs perhaps without some fields.
        path
            Of the file, for errors.
        names
            The columns that were asked for, dotted where nested; None for all.

        Raises
        ------
        DataError
            A point in time that the unit of another file cannot express.
        """
        if not self.cast and not self.added:
            return batch
        wanted = None if names is None else {*names, *(name.split(".")[0] for name in names)}
        fields, arrays = [], []
        for field in self.schema:
            at = batch.schema.get_field_index(field.name)
            if at >= 0:
                array = batch.column(at)
                if field.name in self.cast:
                    array = self._read_as(array, field, path)
            elif field.name in self.added and (wanted is None or field.name in wanted):
                array = pa.nulls(batch.num_rows, field.type)
            else:
                continue
            fields.append(field.with_type(array.type))
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)) if arrays else batch

    def _read_as(self, array: pa.Array, field: pa.Field, path: str) -> pa.Array:
        try:
            return read_as(array, field.type, self.own.field(field.name).type)
        except pa.ArrowInvalid as error:
            own = type_text(self.own.field(field.name).type)
            raise DataError(
                f"column {field.name!r} ({own}) has a value that {type_text(field.type)}, its type in other files, "
                f"cannot express: {error}",
                where=path,
                remedy="score the files one by one, or write the column with one type",
            ) from error


@dataclass(frozen=True)
class Conflict:
    """A column without a common type: its type in the first file that has it, and another in another file."""

    file: str
    kind: pa.DataType
    other_file: str
    other_kind: pa.DataType


@dataclass(frozen=True)
class Union:
    """The columns of several files together.

    Attributes
    ----------
    schema
        By name: those of the first file, then those that only others have.
    files
        For each file, how its columns are read.
    conflicts
        The columns without a common type.
    """

    schema: pa.Schema
    files: tuple[FileColumns, ...]
    conflicts: dict[str, Conflict]

    def differences(self, names: Collection[str]) -> list[dict[str, Any]]:
        """Return which of some columns are not the same in all files, as JSON has it.

        Each with its name, the type that it is read as, how many files have it as which type, and how many lack it.
        """
        kinds = Counter(self.files)
        found = []
        for field in self.schema:
            name = field.name
            if name not in names or not any(name in one.recoded for one in kinds):
                continue
            types: Counter[str] = Counter()
            for one, count in kinds.items():
                if name not in one.added:
                    types[type_text(one.own.field(name).type)] += count
            missing = sum(count for one, count in kinds.items() if name in one.added)
            found.append({"column": name, "type": type_text(field.type), "types": dict(types), "missing": missing})
        return found


def unite(paths: Sequence[str], schemas: Sequence[pa.Schema]) -> Union:
    """Return the columns of files together.

    Raises
    ------
    UsageError
        A file has two columns of one name, and other files have other columns than it.
    """
    shared: dict[pa.Schema, str] = {}
    own = [schema.remove_metadata() for schema in schemas]
    for path, schema in zip(paths, own, strict=True):
        shared.setdefault(schema, path)
    if len(shared) == 1:
        return Union(schemas[0], (FileColumns(own[0], own[0]),) * len(own), {})
    for schema, path in shared.items():
        name, count = Counter(schema.names).most_common(1)[0]
        if count > 1:
            what = f"there are two columns {name!r}, and other files have other columns"
            raise UsageError(what, where=path, remedy="rename one of the two")
    fields: list[pa.Field] = []
    conflicts: dict[str, Conflict] = {}
    for name in dict.fromkeys(name for schema in shared for name in schema.names):
        having = [(schema.field(name), path) for schema, path in shared.items() if name in schema.names]
        field, conflict = _common(having)
        if conflict is not None:
            conflicts[name] = conflict
        fields.append(field if len(having) == len(shared) else field.with_nullable(True))
    united = pa.schema(fields)
    columns = {schema: _file_columns(schema, united, conflicts) for schema in shared}
    return Union(united.with_metadata(schemas[0].metadata), tuple(columns[schema] for schema in own), conflicts)


def conform_to(schema: pa.Schema, own: pa.Schema) -> FileColumns:
    """Return how the columns of one file are read as those of all files, where these are known."""
    return _file_columns(own.remove_metadata(), schema.remove_metadata(), ())


def _common(having: Sequence[tuple[pa.Field, str]]) -> tuple[pa.Field, Conflict | None]:
    """Return the field of all files that have it, and why there is none if there is none."""
    first, path = having[0]
    nullable = any(field.nullable for field, _ in having)
    metadata = {
        key: value
        for key, value in (first.metadata or {}).items()
        if all((field.metadata or {}).get(key) == value for field, _ in having)
    }
    kind = common_type_of([field.type for field, _ in having])
    field = pa.field(first.name, first.type if kind is None else kind, nullable, metadata or None)
    if kind is not None:
        return field, None
    other, other_path = next(one for one in having if common_type_of([first.type, one[0].type]) is None)
    return field, Conflict(path, first.type, other_path, other.type)


def _file_columns(own: pa.Schema, schema: pa.Schema, conflicts: Collection[str]) -> FileColumns:
    names = set(own.names)
    differing = {
        field.name: own.field(field.name).type
        for field in schema
        if field.name in names and field.name not in conflicts and not own.field(field.name).type.equals(field.type)
    }
    added = frozenset(field.name for field in schema if field.name not in names)
    recoded = {name for name, kind in differing.items() if _plain_text(kind) != _plain_text(schema.field(name).type)}
    return FileColumns(own, schema, frozenset(differing), added, added | recoded | {*conflicts} & names)


def _plain_text(kind: pa.DataType) -> str:
    """Return a type without what the children of lists are called, and whether these may be null."""
    return re.sub(r"<(?:element|item|array_element|array): ", "<", str(kind).replace(" not null", ""))

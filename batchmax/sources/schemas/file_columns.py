"""Merges the columns of several files by name, and converts the batches of each file to the merged columns.

A column that a file lacks is null there; a column with several types gets a type that can represent all values. If
there is none, the column keeps each file's type, and reading it is an error. Doesn't know which columns are read.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchmax.columns.arrow import type_text
from batchmax.columns.type_union import common_field, common_type_of, read_as
from batchmax.errors import UsageError


@dataclass(frozen=True, eq=False)
class FileColumns:
    """How the columns of one file are read.

    Attributes
    ----------
    own
        Schema of the file, without metadata; shared by all files with the same columns.
    schema
        Schema of all files, as the columns are read.
    cast, added
        Names of columns that are cast to another type, and of columns that the file lacks.
    recoded
        Names of columns whose stored bytes can't be copied to an output: those in ``added``, those that are cast to a
        type that is stored differently, and those without a common type.
    others
        For a column that is cast, another file that the cast is for, and the column's type there; empty if unknown.
    """

    own: pa.Schema
    schema: pa.Schema
    cast: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    recoded: frozenset[str] = frozenset()
    others: Mapping[str, tuple[str, pa.DataType]] = dataclasses.field(default_factory=dict)

    def conform(self, batch: pa.RecordBatch, path: str, names: Collection[str] | None = None) -> pa.RecordBatch:
        """Return a batch of the file with the columns of all files.

        Parameters
        ----------
        batch
            Some columns of the file; structs may lack some fields.
        path
            Path of the file, for errors.
        names
            Names of the columns to return, dotted if nested; None for all. Decides which missing columns are added.

        Raises
        ------
        UsageError
            A value can't be represented in the common type, such as a timestamp in the unit of another file.
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
            other, kind = self.others.get(field.name, ("other files", field.type))
            raise UsageError(
                f"column {field.name!r} is {own}, but {type_text(kind)} in {other}, "
                f"and {type_text(field.type)} can't represent a value of this file: {error}",
                where=path,
                remedy="write it with one type, or score the files one by one",
                column=field.name,
            ) from error


@dataclass(frozen=True)
class TypeConflict:
    """A column without a common type: its type in the first file that has it, and its type in another file."""

    file: str
    kind: pa.DataType
    other_file: str
    other_kind: pa.DataType


@dataclass(frozen=True)
class MergedSchema:
    """The merged columns of several files.

    Attributes
    ----------
    schema
        The columns by name: those of the first file, then those that only other files have.
    files
        For each file, how its columns are read.
    conflicts
        The columns without a common type.
    """

    schema: pa.Schema
    files: tuple[FileColumns, ...]
    conflicts: dict[str, TypeConflict]

    def differences(self, names: Collection[str]) -> list[dict[str, Any]]:
        """Return which of some columns differ between files, serializable as JSON.

        For each: its name, the type that it is read as, the number of files with each type, and of files without it.
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


def merge_schemas(paths: Sequence[str], schemas: Sequence[pa.Schema]) -> MergedSchema:
    """Merge the columns of files.

    Raises
    ------
    UsageError
        A file has two columns with the same name, and the files' columns differ.
    """
    shared: dict[pa.Schema, str] = {}
    own = [schema.remove_metadata() for schema in schemas]
    for path, schema in zip(paths, own, strict=True):
        shared.setdefault(schema, path)
    if len(shared) == 1:
        return MergedSchema(schemas[0], (FileColumns(own[0], own[0]),) * len(own), {})
    for schema, path in shared.items():
        name, count = Counter(schema.names).most_common(1)[0]
        if count > 1:
            what = f"there are two columns {name!r}, and the files have different columns"
            raise UsageError(what, where=path, remedy="rename one of the two")
    fields: list[pa.Field] = []
    conflicts: dict[str, TypeConflict] = {}
    for name in dict.fromkeys(name for schema in shared for name in schema.names):
        having = [(schema.field(name), path) for schema, path in shared.items() if name in schema.names]
        field, conflict = _common(having)
        if conflict is not None:
            conflicts[name] = conflict
        fields.append(field if len(having) == len(shared) else field.with_nullable(True))
    united = pa.schema(fields)
    columns = {schema: _file_columns(schema, united, conflicts, shared) for schema in shared}
    return MergedSchema(united.with_metadata(schemas[0].metadata), tuple(columns[schema] for schema in own), conflicts)


def file_columns_of(schema: pa.Schema, own: pa.Schema) -> FileColumns:
    """Return how the columns of one file are read, given the merged schema of all files."""
    return _file_columns(own.remove_metadata(), schema.remove_metadata(), (), {})


def _common(having: Sequence[tuple[pa.Field, str]]) -> tuple[pa.Field, TypeConflict | None]:
    """Return the merged field of the files that have it, and the conflict if they have no common type."""
    field = common_field(*(field for field, _ in having))
    if field is not None:
        return field, None
    first, path = having[0]
    other, other_path = next(one for one in having if common_type_of([first.type, one[0].type]) is None)
    return first, TypeConflict(path, first.type, other_path, other.type)


def _file_columns(
    own: pa.Schema, schema: pa.Schema, conflicts: Collection[str], paths: Mapping[pa.Schema, str]
) -> FileColumns:
    """Return how the columns of a file are read; ``paths`` has a file with each schema."""
    names = set(own.names)
    differing = {
        field.name: own.field(field.name).type
        for field in schema
        if field.name in names and field.name not in conflicts and not own.field(field.name).type.equals(field.type)
    }
    added = frozenset(field.name for field in schema if field.name not in names)
    recoded = {name for name, kind in differing.items() if _plain_text(kind) != _plain_text(schema.field(name).type)}
    others: dict[str, tuple[str, pa.DataType]] = {}
    for name, kind in differing.items():
        found = [(path, one.field(name).type) for one, path in paths.items() if name in one.names]
        # If possible, a file that requires the common type even without the others.
        whole = schema.field(name).type
        found.sort(key=lambda one: common_type_of([kind, one[1]]) != whole)
        if found:
            others[name] = found[0]
    return FileColumns(own, schema, frozenset(differing), added, added | recoded | {*conflicts} & names, others)


def _plain_text(kind: pa.DataType) -> str:
    """Return a type as text, without the names and nullability of list children."""
    return re.sub(r"<(?:element|item|array_element|array): ", "<", str(kind).replace(" not null", ""))

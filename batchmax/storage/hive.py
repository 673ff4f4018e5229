"""Hive partitions: folders named ``key=value``, whose columns are in the paths of files and not in the files.

As in Hive, values are text, quoted as in a URL, and ``__HIVE_DEFAULT_PARTITION__`` means null. If all values of a key
are integers, its column has integers. Keys and values have composed accents (NFC), whatever the file system returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa

from batchmax.storage.file_names import composed, folded, name_order

NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Partitions:
    """The columns from the folder names of some files.

    Attributes
    ----------
    fields
        The fields of the columns.
    values
        For each file, the values of the columns.
    """

    fields: tuple[pa.Field, ...] = ()
    values: tuple[tuple[int | str | None, ...], ...] = ()

    def of(self, file: int) -> dict[str, int | str | None]:
        """Return the values of the columns for one of the files."""
        values = self.values[file] if self.fields else ()
        return {field.name: value for field, value in zip(self.fields, values, strict=True)}

    def added(self, batch: pa.RecordBatch, file: int, names: Sequence[str] | None) -> pa.RecordBatch:
        """Return a batch of a file with the columns in ``names`` added; None for all columns."""
        for field, value in zip(self.fields, self.values[file] if self.values else (), strict=True):
            if names is None or field.name in names:
                column = pa.nulls(batch.num_rows, field.type) if value is None else pa.repeat(value, batch.num_rows)
                batch = batch.append_column(field, column.cast(field.type))
        return batch

    @property
    def names(self) -> frozenset[str]:
        """The names of the columns."""
        return frozenset(field.name for field in self.fields)


def partitions_of(folders: Sequence[str], existing: Sequence[str]) -> Partitions:
    """Return the columns from folders such as ``date=2026-11-20/hour=3``, given one folder for each file.

    A key that a file lacks is null there. Columns in ``existing`` are left out, because the files already have them.
    """
    found = [dict(_pair(segment) for segment in folder.split("/") if "=" in segment) for folder in folders]
    keys = [key for key in dict.fromkeys(key for one in found for key in one) if key not in existing]
    columns = [_typed([one.get(key) for one in found]) for key in keys]
    fields = tuple(pa.field(key, kind) for key, (kind, _) in zip(keys, columns, strict=True))
    return Partitions(fields, tuple(zip(*(values for _, values in columns), strict=True)) if columns else ())


def keys_of(folder: str) -> list[str]:
    """Return the keys of a folder such as ``date=2026-11-20/hour=3``."""
    return [_pair(segment)[0] for segment in folder.split("/") if "=" in segment]


def are_mirrored(folders: Sequence[str]) -> bool:
    """Return whether the output can have the same folders, and its files the order of the inputs.

    It can't if two folders differ only in case or in how accents are encoded: some systems treat them as the same.
    """
    if len(set(map(folded, folders))) != len(set(folders)):
        return False
    keys = {tuple(_pair(segment)[0] for segment in folder.split("/")) for folder in folders}
    ordered = sorted(folders, key=lambda one: name_order(f"{one}/"))
    return len(keys) == 1 and keys != {("",)} and list(folders) == ordered


def folder_of(path: str, root: str) -> str:
    """Return the ``key=value`` folders between a root and a file below it; empty if there are other folders."""
    segments = path[len(root) :].strip("/").split("/")[:-1] if path.startswith(root) else []
    return "/".join(segments) if all(segment.find("=") > 0 for segment in segments) else ""


def _pair(segment: str) -> tuple[str, str]:
    key, _, value = segment.partition("=")
    return composed(unquote(key)), composed(unquote(value))


def _typed(values: Sequence[str | None]) -> tuple[pa.DataType, Sequence[int | str | None]]:
    plain = [None if value in {None, NULL} else value for value in values]
    if any(plain) and all(value is None or _is_integer(value) for value in plain):
        return pa.int64(), [None if value is None else int(value) for value in plain]
    return pa.string(), plain


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) <= 18 and str(int(text)) == text

"""Table formats that keep data in Parquet files and a log next to them: Delta Lake, Iceberg, Hudi and others.

Only the log tells which files and rows belong to the table. Deleted and replaced rows stay in the files, so reading
them as plain Parquet returns wrong rows. Logs aren't read, so inputs in such a table are refused. Knows the names of
files and folders, not their contents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batchmax.errors import UsageError


@dataclass(frozen=True)
class TableFormat:
    """A table format.

    Attributes
    ----------
    name
        Its name, as users write it.
    marker
        The entry in the table's folder that identifies the format.
    export
        A command or code that writes the current rows to Parquet files, with ``{table}`` for the folder.
    evidence
        A pattern that the name of an entry in ``marker`` must match, if the name of the marker isn't specific enough.
    """

    name: str
    marker: str
    export: str
    evidence: re.Pattern[str] | None = None


_DUCKDB = "duckdb -c \"COPY (FROM {scan}('{{table}}')) TO 'rows.parquet'\""
_SPARK = "spark.read.format('{format}').load('{{table}}').write.parquet('rows')"

FORMATS = (
    TableFormat("Delta Lake", "_delta_log", _DUCKDB.format(scan="delta_scan")),
    TableFormat(
        "Iceberg",
        "metadata",
        _DUCKDB.format(scan="iceberg_scan"),
        re.compile(r".*\.metadata\.json(\.gz)?|version-hint\.text"),
    ),
    TableFormat("Hudi", ".hoodie", _SPARK.format(format="hudi")),
    TableFormat("Paimon", "snapshot", _SPARK.format(format="paimon"), re.compile(r"snapshot-\d+|LATEST|EARLIEST")),
    TableFormat("Spark structured streaming", "_spark_metadata", _SPARK.format(format="parquet")),
)

DUCKLAKE = TableFormat(
    "DuckLake",
    "",
    "duckdb -c \"ATTACH 'ducklake:CATALOG' AS lake; COPY (FROM lake.TABLE) TO 'rows.parquet'\"",
)
"""Its log is a database that may be anywhere, so it is identified by the names of its files."""

_DUCKLAKE_FILE = re.compile(r"ducklake-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-deletes?)?\.parquet")

ListNames = Callable[[str], Iterable[str]]
"""Returns the names in a folder; none if it isn't a folder."""


def format_of(names: Iterable[str], entries: ListNames) -> TableFormat | None:
    """Return the format of the table in a folder with these names; None if it isn't a table.

    Parameters
    ----------
    names
        The names in the folder, or at least those of its markers.
    entries
        Returns the names in the subfolder of this name.
    """
    there = set(names)
    for one in FORMATS:
        if one.marker in there and (one.evidence is None or any(map(one.evidence.fullmatch, entries(one.marker)))):
            return one
    return None


def format_of_file(name: str) -> TableFormat | None:
    """Return the format that uses this name for data files, for formats whose log may be anywhere."""
    return DUCKLAKE if _DUCKLAKE_FILE.fullmatch(name) else None


def refuse_table(found: TableFormat, table: str, given: str) -> None:
    """Refuse an input that is a table, or in one.

    Raises
    ------
    UsageError
        It names the format and how to export the rows.
    """
    name = f"{'an' if found.name[0] in 'AEIOU' else 'a'} {found.name} table"
    what = f"{table} is {name}" if found.marker else f"this is a data file of {name}"
    if given.rstrip("/") == table.rstrip("/"):
        what = f"this is {name}"
    raise UsageError(
        f"{what}, and batchmax does not read its log, which lists the current files and rows",
        where=given,
        remedy="export its rows to Parquet files first: " + found.export.replace("{table}", table),
    )

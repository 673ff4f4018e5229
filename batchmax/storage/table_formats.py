"""Table formats that keep data in Parquet files and a log next to them: Delta Lake, Iceberg, Hudi and others.

Only the log knows which files and rows belong to the table. Deleted and replaced rows stay in the files, so reading
these as plain Parquet gives wrong rows. Inputs in such a table are refused until the log is read. Knows names of files
and folders, not what is in them.
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
        As its users write it.
    marker
        The entry of the table's folder that shows the format.
    export
        How to write the current rows into Parquet files, with ``{table}`` for the folder.
    evidence
        What the name of an entry of ``marker`` must match, where the name of the marker alone says little.
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
"""Its log is a database anywhere; only the names that it gives to files tell."""

_DUCKLAKE_FILE = re.compile(r"ducklake-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-deletes?)?\.parquet")

List = Callable[[str], Iterable[str]]
"""Returns the names in a folder; none if it is no folder."""


def format_of(names: Iterable[str], entries: List) -> TableFormat | None:
    """Return the format of the table whose folder has these names in it; None if it is no table.

    Parameters
    ----------
    names
        Of what is in the folder, or of those markers that are.
    entries
        Returns the names in the folder with this name in it.
    """
    there = set(names)
    for one in FORMATS:
        if one.marker in there and (one.evidence is None or any(map(one.evidence.fullmatch, entries(one.marker)))):
            return one
    return None


def format_of_file(name: str) -> TableFormat | None:
    """Return the format that gives this name to data files, for formats whose log may be anywhere."""
    return DUCKLAKE if _DUCKLAKE_FILE.fullmatch(name) else None


def refuse_table(found: TableFormat, table: str, given: str) -> None:
    """Refuse an input that is a table, or in one.

    Raises
    ------
    UsageError
        Naming the format and how to get at the rows.
    """
    name = f"{'an' if found.name[0] in 'AEIOU' else 'a'} {found.name} table"
    what = f"{table} is {name}" if found.marker else f"this is a data file of {name}"
    if given.rstrip("/") == table.rstrip("/"):
        what = f"this is {name}"
    raise UsageError(
        f"{what}, and its log, which batchmax does not read, says which files and rows are current",
        where=given,
        remedy="write its rows into Parquet files first: " + found.export.replace("{table}", table),
    )

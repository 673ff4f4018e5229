"""What ``inspect`` finds in a Parquet file: the footer's facts, and what is taken for logits and labels.

A file in which no logits are found is still described: that is when people look.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from batchmax.arrow import type_text
from batchmax.cli import tables
from batchmax.cli.text import ABSENT, number, printable, shell_word, size
from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.options import score_options
from batchmax.source import ParquetSource

Facts = dict[str, Any]

MOST_COLUMNS = 40
MOST_CLASSES = 20


def gather(file: str, given: dict[str, Any]) -> Facts:
    """Return everything there is to say about a file, ready for JSON.

    Raises
    ------
    DataError
        The file cannot be read.
    UsageError
        The file is not there, or an option cannot be.
    """
    options = score_options(**given)
    if Path(file).is_dir():
        raise UsageError("is a folder", where=file, remedy=f"name one of its files: ls {shell_word(file)}")
    job, problem = None, None
    try:
        job = ParquetSource([file], options).job
    except (UsageError, DataError) as error:
        problem = error
    footer, schema = _footer(file, problem)
    columns = _columns(footer, schema)
    facts: Facts = {
        "file": file,
        "bytes": sum(column["bytes"] for column in columns),
        "n_rows": footer.num_rows,
        "created_by": footer.created_by,
        "format_version": footer.format_version,
        "row_groups": _row_groups(footer),
        "columns": columns,
        "metadata_keys": [key.decode("utf-8", "backslashreplace") for key in footer.metadata or {}],
        "logits": None,
        "n_classes": None,
        "label": None,
        "classes": None,
        "problem": None if problem is None else str(problem),
        "command": None,
    }
    if job is not None:
        logits, label = job.logits, job.label
        facts["logits"] = {"columns": list(logits.names), "layout": logits.layout, "why": logits.why}
        facts["n_classes"] = job.n_classes
        facts["label"] = None if label is None else {"column": label.name, "why": label.why}
        facts["classes"] = None if job.classes is None else list(job.classes)
        facts["command"] = _command(file, given)
    return facts


def show(facts: Facts) -> None:
    """Print the facts as tables."""
    console = tables.console()
    groups = facts["row_groups"]
    tables.show_pairs(
        [
            ("file", printable(facts["file"])),
            ("rows", number(facts["n_rows"])),
            ("size", f"{size(facts['bytes'])} of columns"),
            ("row groups", _groups_text(groups)),
            ("written by", printable(facts["created_by"] or ABSENT)),
            ("metadata", ", ".join(map(printable, facts["metadata_keys"])) or "none"),
        ]
    )
    console.print()
    table = tables.new_table()
    for heading in ("column", "type", "size", "ratio", "codec", "encodings", "levels"):
        is_number = heading in {"size", "ratio"}
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for column in facts["columns"][:MOST_COLUMNS]:
        cells = (
            printable(column["name"]),
            printable(column["type"]),
            size(column["bytes"]),
            number(round(column["ratio"], 2)) if column["ratio"] else ABSENT,
            ", ".join(column["codecs"]).lower(),
            ", ".join(column["encodings"]).lower(),
            column["levels"],
        )
        table.add_row(*map(Text, cells))
    console.print(table)
    if len(facts["columns"]) > MOST_COLUMNS:
        console.print(Text(f"and {len(facts['columns']) - MOST_COLUMNS:,} more columns: --json", style="dim"))
    console.print()
    tables.show_pairs(_found(facts))


def _found(facts: Facts) -> list[tuple[str, str]]:
    if facts["problem"]:
        return [("to score", f"not as it is: {printable(facts['problem'])}")]
    classes = facts["classes"] or []
    names = ", ".join(map(printable, classes[:MOST_CLASSES]))
    more = f" and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    label = facts["label"]
    return [
        ("logits", printable(facts["logits"]["why"])),
        ("label", printable(label["why"] or label["column"]) if label else "none"),
        ("classes", number(facts["n_classes"]) + (f": {names}{more}" if names else "")),
        ("to score", facts["command"]),
    ]


def _footer(file: str, problem: BatchmaxError | None) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        footer = pq.read_metadata(file)
        return footer, footer.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        if problem is not None:
            raise problem from error
        raise DataError(
            "its footer cannot be read", where=file, remedy="write it again; it must be one Parquet file"
        ) from error


def _row_groups(footer: pq.FileMetaData) -> Facts:
    groups = [footer.row_group(position) for position in range(footer.num_row_groups)]
    rows = [group.num_rows for group in groups]
    sizes = [group.total_byte_size for group in groups]
    return {
        "count": len(groups),
        "rows": {"smallest": min(rows, default=None), "largest": max(rows, default=None)},
        "uncompressed_bytes": {"smallest": min(sizes, default=None), "largest": max(sizes, default=None)},
    }


def _groups_text(groups: Facts) -> str:
    if not groups["count"]:
        return "none"
    rows, sizes = groups["rows"], groups["uncompressed_bytes"]
    rows_text = _span(number(rows["smallest"]), number(rows["largest"]))
    sizes_text = _span(size(sizes["smallest"]), size(sizes["largest"]))
    return f"{groups['count']:,} of {rows_text} rows, {sizes_text} unpacked"


def _span(smallest: str, largest: str) -> str:
    return smallest if smallest == largest else f"{smallest} to {largest}"


def _columns(footer: pq.FileMetaData, schema: pa.Schema) -> list[Facts]:
    """Return the facts of each leaf column, summed over the row groups."""
    columns = []
    for position in range(footer.num_columns):
        leaf = footer.schema.column(position)
        chunks = [footer.row_group(group).column(position) for group in range(footer.num_row_groups)]
        packed = sum(chunk.total_compressed_size for chunk in chunks)
        unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
        top = leaf.path.split(".")[0]
        is_top = top in schema.names and schema.names.count(top) == 1
        columns.append(
            {
                "name": leaf.path if not is_top or pa.types.is_struct(schema.field(top).type) else top,
                "path": leaf.path,
                "type": type_text(schema.field(top).type) if is_top else leaf.physical_type.lower(),
                "bytes": packed,
                "ratio": unpacked / packed if packed else None,
                "codecs": sorted({chunk.compression for chunk in chunks}),
                "encodings": sorted({encoding for chunk in chunks for encoding in chunk.encodings}),
                "has_dictionary": any(chunk.has_dictionary_page for chunk in chunks),
                "has_page_index": any(chunk.has_offset_index for chunk in chunks),
                "levels": f"{leaf.max_definition_level}/{leaf.max_repetition_level}",
                "nulls": _nulls(chunks),
            }
        )
    return columns


def _nulls(chunks: list[Any]) -> int | None:
    """Return the number of nulls, None where the writer did not count."""
    counts: list[Any] = [chunk.statistics.null_count if chunk.is_stats_set else None for chunk in chunks]
    return None if None in counts else sum(counts)


def _command(file: str, given: dict[str, Any]) -> str:
    """Return the command that scores the file with the options that ``inspect`` was given."""
    words = ["batchmax", "score", shell_word(file), "-o", "scored.parquet"]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", shell_word(str(value))]
    return " ".join(words)

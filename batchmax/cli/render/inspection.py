"""Print the result of ``inspect`` as tables."""

from __future__ import annotations

from batchmax.cli.render import summaries, tables
from batchmax.cli.render.formatting import ABSENT, number, size
from batchmax.cli.render.tables import Column
from batchmax.columns.logits_layout import INPUT_TEXTS
from batchmax.runtime.text import printable, quantity
from batchmax.sources.inspection.facts import Facts
from batchmax.sources.schemas.schema_check import describe_differences

MOST_COLUMNS = 40
MOST_CLASSES = 20


def show(facts: Facts) -> None:
    """Print the facts as tables."""
    console = tables.console()
    groups = facts["row_groups"]
    summaries.show_pairs(
        [
            ("file", printable(facts["file"])),
            *([("files", number(len(facts["files"])))] if len(facts["files"]) > 1 else []),
            ("rows", number(facts["n_rows"])),
            ("size", f"{size(facts['bytes'])} in columns"),
            ("row groups", _groups_text(groups)),
            ("written by", printable(facts["created_by"] or ABSENT)),
            ("metadata", ", ".join(map(printable, facts["metadata_keys"])) or "none"),
        ]
    )
    console.print()
    shown = facts["columns"][:MOST_COLUMNS]
    columns = [
        Column("column", [printable(one["name"]) for one in shown], "left"),
        Column("type", [printable(one["type"]) for one in shown], "left"),
        Column("size", [size(one["bytes"]) for one in shown]),
        Column("ratio", [number(round(one["ratio"], 2)) if one["ratio"] else ABSENT for one in shown]),
        Column("codec", [", ".join(one["codecs"]).lower() for one in shown], "left"),
        Column("encodings", [", ".join(one["encodings"]).lower() for one in shown], "left"),
        Column("levels", [one["levels"] for one in shown], "left"),
    ]
    console.print_columns(columns, overflow="fold")
    more = len(facts["columns"]) - MOST_COLUMNS
    if more > 0:
        console.print_line(f"and {quantity(more, 'more column')}; for all: --json", "dim")
    console.print()
    summaries.show_pairs(_found(facts))


def _found(facts: Facts) -> list[tuple[str, str]]:
    command = [(f"to {facts['task']}", facts["command"])] if facts["command"] else []
    if facts["problem"]:
        problem = printable(facts["problem"])
        if command:
            return [("problem", f"the rows can't be read: {problem}"), *command]
        return [("problem", f"the file can't be scored as it is: {problem}")]
    classes = facts["classes"] or []
    names = ", ".join(map(printable, classes[:MOST_CLASSES]))
    more = f" and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    label = facts["label"]
    return [
        (INPUT_TEXTS[facts["logits"]["holds"]], printable(facts["logits"]["why"])),
        ("label", printable(label["why"] or label["column"]) if label else "none"),
        ("classes", number(facts["n_classes"]) + (f": {names}{more}" if names else "")),
        *(("differs", printable(line)) for line in describe_differences(facts["unified"], len(facts["files"]))),
        *command,
    ]


def _groups_text(groups: Facts) -> str:
    if not groups["count"]:
        return "none"
    rows, sizes = groups["rows"], groups["uncompressed_bytes"]
    rows_text = _span(number(rows["smallest"]), number(rows["largest"]))
    sizes_text = _span(size(sizes["smallest"]), size(sizes["largest"]))
    return f"{groups['count']:,} of {rows_text} rows, {sizes_text} uncompressed"


def _span(smallest: str, largest: str) -> str:
    return smallest if smallest == largest else f"{smallest} to {largest}"

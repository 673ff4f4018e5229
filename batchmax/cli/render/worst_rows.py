"""Print the rows with the largest loss: one line per row, with as many carried columns as fit.

Knows the columns of the table that :func:`batchmax.evaluation.worst_rows.worst_rows` returns.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
from rich.cells import cell_len
from rich.text import Text

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, number
from batchmax.runtime.text import printable

HEADINGS = {"label": "label", "pred": "pred", "p_label": "p(label)", "p_pred": "p(pred)", "loss": "loss"}
LONGEST = 60
"""Most characters to show of a text."""

NARROWEST = 8
"""Smallest width to which the last column is truncated."""


def show(found: pa.Table) -> None:
    """Print the rows, the largest loss first."""
    found = _readable(found)
    console = tables.console()
    if not found.num_rows:
        console.print("no row has a loss")
        return
    files = found["file"].to_pylist()
    common = os.path.commonpath(files) if len({os.path.isabs(file) for file in files}) == 1 else ""  # noqa: PTH117
    if common:
        console.print(Text(printable(common), style="bold"))
    where = ["row", "token"] if found.column_names[2] == "token" else ["row"]
    carried = found.column_names[1 + len(where) : -len(HEADINGS)]
    first = [*where, *HEADINGS]
    columns = [(HEADINGS.get(name, name), *_cells(found[name])) for name in first]
    if len(set(files)) > 1:
        names = [os.path.relpath(file, common or ".") for file in files]
        columns.insert(0, ("file", list(map(_shortened, names)), False))
    columns += [(printable(name), *_cells(found[name])) for name in carried]
    widths = [max(map(cell_len, (heading, *cells))) for heading, cells, _ in columns]
    least = [
        width if is_number else min(width, NARROWEST) for width, (_, _, is_number) in zip(widths, columns, strict=True)
    ]
    shown = max(fitting(widths, least, console.width), 1)
    # If there isn't enough room, only the last column is truncated. All widths are set, because rich would shrink every
    # column.
    widths[shown - 1] = min(widths[shown - 1], console.width - sum(widths[: shown - 1]) - tables.GAP * (shown - 1))
    table = tables.new_table()
    for width, (heading, _, is_number) in zip(widths[:shown], columns[:shown], strict=True):
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(Text(heading), justify=justify, width=max(width, 1), no_wrap=True, overflow="ellipsis")
    for line in zip(*(cells for _, cells, _ in columns[:shown]), strict=True):
        table.add_row(*map(Text, line))
    console.print(table)
    if shown < len(columns):
        left_out = ", ".join(heading for heading, _, _ in columns[shown:])
        console.print(Text(f"no room for {left_out}: --columns, --json or -o", style="dim"))


def fitting(widths: Sequence[int], least: Sequence[int], room: int) -> int:
    """Return how many columns fit in ``room``, given their widths; the last may be truncated to its ``least`` width."""
    used = 0
    for count, width in enumerate(widths):
        if used + least[count] > room:
            return count
        used += width + tables.GAP
    return len(widths)


def as_records(found: pa.Table) -> list[dict[str, Any]]:
    """Return the rows for ``--json``: bytes as base64, other types that JSON lacks as text."""
    return [{name: _plain(value) for name, value in row.items()} for row in _readable(found).to_pylist()]


def _readable(found: pa.Table) -> pa.Table:
    """Return a table with times as text, because Python has no times with nanoseconds."""
    return found.cast(pa.schema([field.with_type(_readable_type(field.type)) for field in found.schema]))


def _readable_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_readable_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_readable_type(field.type)) for field in kind])
    return kind


def _cells(column: pa.ChunkedArray) -> tuple[list[str], bool]:
    """Return the values of a column as text, and whether they are numbers."""
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return [_cell(value, column.type) for value in column.to_pylist()], is_number


def _cell(value: Any, kind: pa.DataType) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool) or pa.types.is_floating(kind):
        return number(value)
    return _shortened(value if isinstance(value, str) else str(value))


def _shortened(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)

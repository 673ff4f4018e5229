"""Reads and damages Parquet files for tests of jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq


def group_sizes(path):
    footer = pq.read_metadata(path)
    return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


def names_in(folder):
    """Return the names in a folder, including hidden ones."""
    return sorted(path.name for path in Path(folder).iterdir())


def row_texts(table):
    """Return rows as text that distinguishes all floats, including NaN and -0."""
    return [json.dumps(row, default=str) for row in table.to_pylist()]


def damage(path, group):
    """Overwrite the data of the second column in a row group."""
    column = pq.read_metadata(path).row_group(group).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)

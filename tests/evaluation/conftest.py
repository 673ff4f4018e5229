"""Writes tables."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a table and returns the path."""

    def write_table(name, table, **options):
        pq.write_table(table, tmp_path / f"{name}.parquet", **options)
        return str(tmp_path / f"{name}.parquet")

    return write_table

"""Write a file of logits again as another library writes it with its own defaults; run as a script, one process each.

::

    writers.py LIBRARY SOURCE TARGET CODEC    # CODEC is snappy, zstd or lz4

Row groups, pages, encodings, levels and schema are the library's own, so this shows whether batchmax is fast on files
that it didn't prepare: Polars writes ``large_list`` columns in pages of 1 MiB, DuckDB pages of 100 MiB without
checksums in row groups of 122,880 rows or more, and pyarrow one row group whose first pages use a dictionary.
"""

from __future__ import annotations

import sys
from typing import Any


def polars(source: str, target: str, codec: str) -> None:
    """Polars, as ``DataFrame.write_parquet`` writes."""
    import polars as pl

    compression: Any = codec
    pl.read_parquet(source).write_parquet(target, compression=compression)


def duckdb(source: str, target: str, codec: str) -> None:
    """DuckDB, as ``COPY … TO`` writes."""
    import duckdb as duck

    duck.execute(f"COPY (SELECT * FROM '{source}') TO '{target}' (FORMAT parquet, COMPRESSION {codec})")  # noqa: S608


def pyarrow(source: str, target: str, codec: str) -> None:
    """Use pyarrow, as ``write_table`` writes."""
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(source), target, compression=codec)


LIBRARIES = {"polars": polars, "duckdb": duckdb, "pyarrow": pyarrow}


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    LIBRARIES[name](*paths)

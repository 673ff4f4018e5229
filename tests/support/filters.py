"""An output with statistics, page indexes and Bloom filters, and filters on its columns."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import batchmax
from tests.support.interchange import matrix_of
from tests.support.parquet_anatomy import chunks_of
from tests.support.parquet_readers import as_type
from tests.support.requirements import optional
from tests.support.rows import lists

duckdb = optional("duckdb")
pl = optional("polars")

FILTERS = {
    "id above": ("id", ">", 1234),
    "id below": ("id", "<", 101),
    "id is": ("id", "==", 777),
    "id is none": ("id", "==", 5000),
    "text is": ("text", "==", "row 01500"),
    "text is none": ("text", "==", "row 01500x"),
    "text from": ("text", ">=", "row 01990"),
    "kind is": ("kind", "==", "kind 3"),
    "kind is not": ("kind", "!=", "kind 3"),
    "when before": ("when", "<", dt.datetime(2024, 1, 5, tzinfo=dt.UTC)),
    "maybe above": ("maybe", ">", 890.0),
    "maybe is": ("maybe", "==", 151.0),
    "before is": ("before", "==", 16),
    "loss above": ("loss", ">", 9.0),
    "loss below": ("loss", "<", 0.05),
    "pred is": ("pred", "==", 4),
}


def filtered_output(folder, kind):
    """Score rows whose row groups and pages have different statistics; return the output's path and its rows."""
    n_rows, n_classes = 2000, 6
    matrix = matrix_of(n_rows, n_classes, seed=3)
    numbers = np.arange(n_rows)
    bad = np.isin(numbers, [0, 99, 100, *range(400, 620), 1999])
    dropped = kind == "dropped"
    matrix[bad, 1] = np.nan
    day = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    source = pa.table(
        {
            "before": pa.array(numbers % 17),
            "logits": lists(matrix),
            "id": pa.array(numbers),
            "text": pa.array([f"row {number:05d}" for number in numbers]),
            "kind": pa.array([f"kind {number // 250}" for number in numbers]).dictionary_encode(),
            "when": pa.array([day + dt.timedelta(hours=int(number)) for number in numbers], pa.timestamp("us", "UTC")),
            "maybe": pa.array([None if number % 5 == 0 or number < 300 else number / 2 for number in numbers.tolist()]),
            "label": pa.array(numbers % n_classes),
        }
    )
    options = {"row_group_size": 100, "data_page_size": 300, "write_batch_size": 10, "write_page_index": True}
    path = folder / "in.parquet"
    if kind == "duckdb":
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("rows", source)
            connection.execute(f"COPY rows TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048, PARQUET_VERSION V2)")
        assert any(chunk.meta.get(14) for chunk in chunks_of(path)), "a Bloom filter"
    elif kind == "polars":
        pl.from_arrow(source).write_parquet(path, row_group_size=100, data_page_size=300, statistics="full")
    else:
        sorting = pq.SortingColumn.from_ordering(source.schema, [("id", "ascending")])
        pq.write_table(
            source,
            path,
            sorting_columns=sorting,
            bloom_filter_options={name: {"ndv": 100, "fpp": 0.01} for name in ("id", "text", "kind")},
            **options,
        )
        assert any(chunk.meta.get(14) for chunk in chunks_of(path)), "a Bloom filter"
    out = folder / "out.parquet"
    more = {"row_group_size": 333} if kind == "split" else {}
    batchmax.score(path, out, on_bad_row="drop" if dropped else "null", outputs="probs,loss,pred", **more)
    rows = pq.ParquetFile(out).read()
    assert rows["id"].to_pylist() == (numbers[~bad] if dropped else numbers).tolist()
    return out, rows


def matching_ids(rows, search):
    """Return the ids that a filter must find: null values never match."""
    name, sign, value = search
    compare = {">": pc.greater, "<": pc.less, ">=": pc.greater_equal, "==": pc.equal, "!=": pc.not_equal}[sign]
    column = rows[name]
    column = as_type(column, pa.string()) if name == "kind" else column
    return rows["id"].filter(compare(column, pa.scalar(value, column.type))).to_pylist()

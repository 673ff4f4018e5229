"""Tests that pyarrow, Polars, DuckDB, fastparquet, pandas and Hugging Face read the same rows from outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchmax
from tests.support.interchange import (
    CASES,
    CODECS,
    LAYOUTS,
    check_scored,
    matrix_of,
    null_rows,
    readers_named,
    table_of,
)
from tests.support.parquet_anatomy import check_file
from tests.support.parquet_readers import READERS, files_of

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.mark.parametrize(
    ("n_classes", "n_rows", "group", "layout", "codec", "nulls"),
    CASES,
    ids=["-".join(map(str, case)) for case in CASES],
)
def test_all_readers_read_outputs(n_classes, n_rows, group, layout, codec, nulls, tmp_path):
    """All readers read outputs of 2 to 300,000 classes, small and large row groups, and null rows at page borders."""
    missing = null_rows(nulls, n_rows, n_classes)
    matrix = matrix_of(n_rows, n_classes)
    matrix[missing, n_classes // 2] = np.nan
    source = table_of(matrix)
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=group, compression=codec.replace("none", "NONE"))
    out = tmp_path / "out.parquet"
    summary = batchmax.score(tmp_path / "in.parquet", out, layout=layout, on_bad_row="null")
    assert summary.bad_rows == missing.sum()
    assert pq.read_metadata(out).num_row_groups == -(-n_rows // group)
    check_scored(out, source, matrix, missing)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_readers_read_each_codec(codec, layout, tmp_path):
    """All readers read float64 outputs in each layout and codec, and ``compression`` sets the codec."""
    matrix = matrix_of(200, 12, np.float64)
    missing = null_rows("few", 200, 12)
    matrix[missing] = np.nan
    source = table_of(matrix)
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=70)
    out = tmp_path / "out.parquet"
    batchmax.score(tmp_path / "in.parquet", out, layout=layout, compression=codec, on_bad_row="null")
    group = pq.read_metadata(out).row_group(0)
    found = {group.column(index).compression for index in range(group.num_columns)}
    assert found == {{"none": "UNCOMPRESSED"}.get(codec, codec.upper())}
    check_scored(out, source, matrix, missing, dtype=np.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nulls", ["none", "few", "all"])
def test_all_readers_read_folders(nulls, layout, tmp_path):
    """All readers read an output folder of several parts as the rows in their order."""
    matrix = matrix_of(900, 10)
    missing = null_rows(nulls, 900, 10)
    matrix[missing] = np.inf
    source = table_of(matrix)
    for number in range(3):
        part = source.slice(300 * number, 300)
        pq.write_table(part, tmp_path / f"in{number}.parquet", row_group_size=(100, 300, 70)[number])
    out = tmp_path / "out"
    batchmax.score(str(tmp_path / "in?.parquet"), str(out), layout=layout, on_bad_row="null")
    assert [Path(file).name for file in files_of(out)] == [
        "_batchmax.parquet",
        *(f"part-0000{n}.parquet" for n in range(3)),
    ]
    check_scored(out, source, matrix, missing)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_readers_read_outputs_without_rows(layout, tmp_path):
    """All readers read an output without rows, which has its columns, and one of an input with empty row groups."""
    matrix = matrix_of(40, 4)
    source = table_of(matrix)
    pq.write_table(source.slice(0, 0), tmp_path / "none.parquet")
    batchmax.score(tmp_path / "none.parquet", tmp_path / "out.parquet", layout=layout, n_classes=4)
    schema = pq.read_schema(tmp_path / "out.parquet").remove_metadata()
    for reader, read in READERS.items():
        if reader not in {"load_dataset", "Dataset.from_parquet"}:  # they refuse a split without rows
            found = read(tmp_path / "out.parquet", schema)
            assert (found.num_rows, found.schema.names) == (0, schema.names), reader
    check_file(tmp_path / "out.parquet")

    with pq.ParquetWriter(tmp_path / "some.parquet", source.schema) as writer:
        for start, end in ((0, 0), (0, 15), (15, 15), (15, 40), (40, 40)):
            writer.write_table(source.slice(start, end - start))
    assert pq.read_metadata(tmp_path / "some.parquet").num_row_groups == 5
    batchmax.score(tmp_path / "some.parquet", tmp_path / "whole.parquet", layout=layout)
    check_scored(tmp_path / "whole.parquet", source, matrix, np.zeros(40, bool))


@given(
    st.integers(2, 70),
    st.integers(1, 120),
    st.integers(1, 50),
    st.sampled_from(LAYOUTS),
    st.sampled_from(CODECS),
    st.sampled_from([np.float32, np.float64]),
    st.data(),
)
@settings(max_examples=25)
def test_any_shape_is_read_by_other_libraries(tmp_path_factory, n_classes, n_rows, group, layout, codec, dtype, data):
    """pyarrow, Polars and DuckDB read the right rows for any shape, row group size and null rows."""
    folder = tmp_path_factory.mktemp("any")
    matrix = matrix_of(n_rows, n_classes, dtype)
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows)))
    matrix[missing] = np.nan
    source = table_of(matrix)
    pq.write_table(source, folder / "in.parquet", row_group_size=group)
    out = folder / "out.parquet"
    batchmax.score(folder / "in.parquet", out, layout=layout, compression=codec, on_bad_row="null")
    check_scored(out, source, matrix, missing, readers_named("pyarrow", "polars", "duckdb"), dtype)

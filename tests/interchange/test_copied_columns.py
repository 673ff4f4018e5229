"""Tests that other libraries read copied columns, their schema and their statistics."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.copied_columns import INPUTS, check_copied_columns, table_of_all_types
from tests.support.interchange import (
    CODECS,
    matrix_of,
    probs_and_losses,
    readers_named,
    score_with_statistics,
    table_of,
)
from tests.support.parquet_anatomy import check_file
from tests.support.parquet_readers import READERS, ask_duckdb, duckdb_files, numbers_of
from tests.support.requirements import optional
from tests.support.rows import lists

duckdb = optional("duckdb")
pl = optional("polars")

pytestmark = pytest.mark.usefixtures("no_sync")

DUCKDB_ROWS = """
    SELECT i AS id, ('r' || (i % 50)) AS text, (i % 4)::UTINYINT AS tiny, (i % 2 = 0) AS flag,
           DATE '2024-01-01' + i::INTEGER AS day, TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND AS at,
           (TIME '00:00:00' + INTERVAL (i) SECOND) AS clock, (i / 8)::DECIMAL(14, 3) AS price,
           CASE WHEN i % 9 = 4 THEN NULL ELSE i * 3 END AS maybe, ['a', 'b', NULL][1 : i % 4] AS words,
           {{'x': i, 'y': 'y' || i}} AS pair, (i::VARCHAR)::BLOB AS blob,
           (['low', 'high'][1 + i % 2])::ENUM ('low', 'high') AS level,
           [sin(i * 7 + k)::FLOAT FOR k IN range(5)] AS logits, (i % 5) AS label
    FROM range({rows}) t(i)
"""


@pytest.mark.parametrize("how", INPUTS)
def test_all_readers_read_copied_columns(how, tmp_path):
    """Column chunks of every type are copied unchanged, for all page formats, statistics and row groups."""
    source, matrix, missing = table_of_all_types()
    pq.write_table(source, tmp_path / "in.parquet", **INPUTS[how])
    # A file without an Arrow schema contains what pyarrow reads from it.
    source = pq.read_table(tmp_path / "in.parquet")
    statistics, _ = score_with_statistics(tmp_path / "in.parquet", on_bad_row="null")
    groups = pq.read_metadata(tmp_path / "in.parquet").num_row_groups
    assert statistics[:2] == (groups, 0)
    # INT96 timestamps are copied too.
    copied = groups * (source.num_columns - 1)
    assert f"copied as they are: {copied:,}" in statistics[2]
    out = tmp_path / "scored.parquet"
    check_copied_columns(out, source, how=how)
    got, nulls = numbers_of(pq.read_table(out)["probs"], 5)
    assert np.array_equal(nulls, missing)
    np.testing.assert_allclose(got, probs_and_losses(matrix, np.zeros(250, int))[0][~missing], rtol=1e-6)
    check_file(out, checksums=["probs", "loss"])


def test_maps_are_copied(tmp_path):
    """Map columns are copied. Hugging Face doesn't support maps, and fastparquet doesn't keep their pairs."""
    pairs = [None if row % 7 == 3 else [("k", row)] * (row % 2) for row in range(100)]
    source = table_of(matrix_of(100, 4), pairs=pa.array(pairs, pa.map_(pa.string(), pa.int32())))
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=30)
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    check_copied_columns(
        tmp_path / "out.parquet", source, readers=readers_named("pyarrow", "polars", "duckdb", "pandas_arrow")
    )


@pytest.mark.parametrize("change", ["drop", "drop few", "split", "merge", "limit", "exclude", "reorder"])
@pytest.mark.parametrize("how", ["plain", "page index", "second version", "one group"])
def test_copied_columns_stay_aligned_with_results(how, change, tmp_path):
    """Copied columns stay aligned with results if rows are dropped, row groups change, or columns are left out."""
    source, matrix, missing = table_of_all_types(nulls="none")
    if change == "drop":
        missing[::3] = True
    elif change == "drop few":
        missing[[60, 61, 120]] = True
    bad = matrix.copy()
    bad[missing] = np.nan
    source = source.set_column(source.column_names.index("logits"), "logits", lists(bad))
    pq.write_table(source, tmp_path / "in.parquet", **INPUTS[how])
    options = {
        "split": {"row_group_size": 17},
        "merge": {"row_group_size": 220},
        "limit": {"limit": 130},
        "exclude": {"exclude": "count,kind,label"},
        "reorder": {"columns": "words,id,label,count"},
    }.get(change, {})
    out = tmp_path / "out.parquet"
    batchmax.score(tmp_path / "in.parquet", out, on_bad_row="drop", **options)
    keep = np.flatnonzero(~missing)[: options.get("limit")]
    carried = [name for name in pq.read_schema(out).names if name not in {"probs", "loss"}]
    check_copied_columns(out, source.select(carried), keep, how=how)
    got, nulls = numbers_of(pq.read_table(out)["probs"], 5)
    assert not nulls.any()
    np.testing.assert_allclose(got, probs_and_losses(matrix, np.zeros(250, int))[0][keep], rtol=1e-6)
    check_file(out, checksums=["probs", "loss"])


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("codec", ["snappy", "zstd"])
def test_duckdb_columns_are_copied(codec, version, tmp_path):
    """Columns with DuckDB's encodings (delta in V2), Bloom filters and converted types are copied."""
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    with duckdb.connect(config={"threads": 1}) as connection:
        query = DUCKDB_ROWS.format(rows=3000)
        copy = f"FORMAT parquet, CODEC '{codec}', PARQUET_VERSION {version}, ROW_GROUP_SIZE 2048"
        connection.execute(f"COPY ({query}) TO '{path}' ({copy})")
    batchmax.score(path, out)
    source = pq.read_table(path)
    readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
    check_copied_columns(out, source, readers=readers)
    # fastparquet doesn't support every delta encoding: it must read from the output what it reads from the input.
    check_copied_columns(out, source.select(["id", "tiny", "label", "logits"]), readers=readers_named("fastparquet"))
    check_file(out, checksums=["probs", "loss"])
    found = ask_duckdb(f"SELECT id FROM {duckdb_files(out)} WHERE text = 'r49' AND id > 2100")
    assert found["id"].to_pylist() == [row for row in range(2101, 3000) if row % 50 == 49]


@pytest.mark.parametrize("codec", CODECS)
def test_polars_columns_are_copied(codec, tmp_path):
    """Columns with Polars' encodings and page statistics are copied."""
    source, matrix, _ = table_of_all_types(nulls="none")
    source = source.drop(["nothing"])
    frame = pl.from_arrow(source)
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    frame.write_parquet(path, compression=codec.replace("none", "uncompressed"), row_group_size=90, data_page_size=200)
    batchmax.score(path, out)
    readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
    check_copied_columns(out, pq.read_table(path), readers=readers)
    probs, _ = numbers_of(pq.read_table(out)["probs"], 5)
    np.testing.assert_allclose(probs, probs_and_losses(matrix, np.zeros(250, int))[0], rtol=1e-6)
    check_file(out, checksums=["probs", "loss"])


def test_field_ids_and_nullability_are_kept(tmp_path):
    """Copied columns keep field ids and nullability; computed columns don't get the field id of another column."""
    number_of = lambda number: {"PARQUET:field_id": str(number)}
    numbered = lambda name, kind, number, **more: pa.field(name, kind, metadata=number_of(number), **more)
    schema = pa.schema(
        [
            numbered("id", pa.int64(), 1, nullable=False),
            numbered("logits", pa.list_(numbered("element", pa.float32(), 8, nullable=False)), 2, nullable=False),
            numbered("words", pa.list_(numbered("element", pa.string(), 7)), 3),
            numbered("nest", pa.struct([numbered("a", pa.int32(), 9, nullable=False)]), 4),
            numbered("label", pa.int32(), 5, nullable=False),
        ]
    )
    matrix = matrix_of(50, 3)
    source = pa.table(
        [
            pa.array(range(50)),
            lists(matrix).cast(schema.field("logits").type),
            pa.array([["a"]] * 50),
            pa.array([{"a": row} for row in range(50)], schema.field("nest").type),
            pa.array(np.arange(50) % 3, pa.int32()),
        ],
        schema=schema,
    )
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=20)
    before = pq.read_metadata(tmp_path / "in.parquet").schema
    for number, options in enumerate([{}, {"row_group_size": 7}]):
        out = tmp_path / f"out{number}.parquet"
        batchmax.score(tmp_path / "in.parquet", out, **options)
        got = pq.read_schema(out)
        for name in ("id", "words", "nest", "label"):
            assert got.field(name).nullable == schema.field(name).nullable
            assert got.field(name).metadata[b"PARQUET:field_id"] == schema.field(name).metadata[b"PARQUET:field_id"]
        assert got.field("words").type.value_field.metadata == {b"PARQUET:field_id": b"7"}
        assert not got.field("nest").type.field("a").nullable
        numbers = [int((field.metadata or {}).get(b"PARQUET:field_id", -1)) for field in got]
        assert not {*numbers[-2:]} & {1, 2, 3, 4, 5, 7, 8, 9}
        after = pq.read_metadata(out).schema
        leaves = {before.column(index).path: before.column(index) for index in range(len(before))}
        for index in range(len(after)):
            leaf = after.column(index)
            if leaf.path in leaves:
                old = leaves[leaf.path]
                assert leaf.max_definition_level == old.max_definition_level
                assert (leaf.physical_type, str(leaf.logical_type)) == (old.physical_type, str(old.logical_type))
        readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
        check_copied_columns(out, source, readers=readers)
        check_file(out, checksums=["probs", "loss"])


@pytest.mark.parametrize("options", [{}, {"row_group_size": 70}, {"row_group_size": 250}, {"exclude": "id"}])
@pytest.mark.parametrize("keys", [["id"], ["label", "id"], ["logit_1"], ["id", "logit_1"]])
def test_declared_sorting_is_right(keys, options, tmp_path):
    """Sorting columns in an output's footer are right: row groups are sorted by them, and the column index is adjusted.

    Each row group of the input is sorted; the whole file isn't.
    """
    numbers = np.arange(300)
    within = numbers % 100
    source = pa.table(
        {
            "other": 300 - numbers,
            "logit_0": np.sin(numbers),
            "logit_1": within / 8,
            "id": within,
            "label": within // 50,
        }
    )
    sorting = pq.SortingColumn.from_ordering(source.schema, [(key, "ascending") for key in keys])
    pq.write_table(source, tmp_path / "in.parquet", sorting_columns=sorting, row_group_size=100)
    check_file(tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", layout="list", **options)
    check_file(tmp_path / "out.parquet")

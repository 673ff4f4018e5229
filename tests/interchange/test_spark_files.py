"""Tests files that Spark wrote, and outputs that Spark reads."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.copied_columns import INPUTS, check_copied_columns, table_of_all_types
from tests.support.filters import FILTERS, filtered_output, matching_ids
from tests.support.interchange import (
    CASES,
    CLASSES,
    LAYOUTS,
    check_readers_agree,
    check_scored,
    matrix_of,
    null_rows,
    table_of,
)
from tests.support.parquet_anatomy import check_file, chunks_of
from tests.support.parquet_readers import READERS, in_schema
from tests.support.spark import local_session

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("no_sync")]


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Return one session for all tests, because starting it takes seconds."""
    with local_session(tmp_path_factory.mktemp("spark"), cores=1) as session:
        yield session


def read_spark(spark, path, schema):
    frame = spark.read.parquet(str(path))
    if "id" in frame.columns:
        frame = frame.orderBy("id")
    return in_schema(frame.select(*(f"`{name}`" for name in schema.names)).toArrow(), schema)


def spark_file(folder):
    """Return the only data file in a folder that Spark wrote."""
    (file,) = folder.glob("part-*.parquet")
    return file


@pytest.mark.parametrize("legacy", ["false", "true"])
@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spark_files_are_read(dtype, nullable, legacy, spark, tmp_path, monkeypatch):
    """The fast reader reads Spark's lists, legacy or not, nullable or not; Hadoop's LZ4 codec is left to pyarrow."""
    from pyspark.sql import types

    kind = types.FloatType() if dtype == np.float32 else types.DoubleType()
    schema = types.StructType(
        [
            types.StructField("id", types.LongType(), nullable=False),
            types.StructField("logits", types.ArrayType(kind, nullable), nullable),
            types.StructField("label", types.LongType()),
        ]
    )
    codecs = itertools.cycle(["snappy", "zstd", "gzip", "lz4", "lz4_raw", "none"])
    spark.conf.set("spark.sql.parquet.writeLegacyFormat", legacy)
    for number, n_classes in enumerate([*CLASSES, *CLASSES]):
        codec = next(codecs)
        matrix = matrix_of(max(60, 3000 // n_classes), n_classes, dtype, few=number % 2 == 0)
        options = {
            "compression": codec,
            "parquet.writer.version": ("v1", "v2")[number // 6],
            "parquet.page.size": str((300, 1 << 20)[number % 4 // 2]),
            "parquet.block.size": "20000",
            "parquet.page.row.count.limit": "37",
            "parquet.enable.dictionary": ("true", "false")[number % 3 // 2],
        }
        frame = spark.createDataFrame(table_of(matrix), schema=schema).coalesce(1)
        folder = tmp_path / f"x{number}"
        frame.write.options(**options).parquet(str(folder))
        file = spark_file(folder)
        chunk = next(chunk for chunk in chunks_of(file) if chunk.path.startswith("logits"))
        last = {("false", True): "list.element", ("false", False): "list.element", ("true", True): "bag.array"}
        assert chunk.path == f"logits.{last.get((legacy, nullable), 'array')}"
        assert len(chunk.data_pages) > 1 or len(matrix) < 300
        check_readers_agree(file, matrix, monkeypatch, falls_back="codec" if codec == "lz4" else None)
        codecs = codecs if number != 5 else itertools.cycle(["gzip", "none", "lz4_raw", "snappy", "lz4", "zstd"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_spark_reads_outputs(layout, spark, tmp_path):
    """Spark reads output files and folders in every codec that it supports (not brotli), with null rows."""
    read = {"spark": functools.partial(read_spark, spark)}
    cases = [case for case in CASES if case[3] == layout and case[4] != "brotli" and case[1] <= 20_000]
    for number, (n_classes, n_rows, group, _, codec, nulls) in enumerate(cases):
        missing = null_rows(nulls, n_rows, n_classes)
        matrix = matrix_of(n_rows, n_classes)
        matrix[missing, 0] = np.nan
        source = table_of(matrix)
        inputs = tmp_path / f"in{number}"
        inputs.mkdir()
        half = n_rows // 2
        options = {"row_group_size": group, "compression": codec.replace("none", "NONE")}
        pq.write_table(source.slice(0, half), inputs / "0.parquet", **options)
        pq.write_table(source.slice(half), inputs / "1.parquet", **options)
        for out in (tmp_path / f"out{number}.parquet", tmp_path / f"out{number}"):
            batchmax.score(str(inputs), str(out), layout=layout, on_bad_row="null")
            check_scored(out, source, matrix, missing, read)


def test_spark_reads_a_folder_with_its_manifest(spark, tmp_path):
    """Spark reads the rows of all parts of an output folder, Hive partitions included, and from its parent folder."""
    for day in (1, 2):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"logits": [[1.0, 2.0]] * 5}), tmp_path / "in" / f"day={day}" / "x.parquet")
    batchmax.score(tmp_path / "in", tmp_path / "partitioned" / "out")
    batchmax.score(tmp_path / "in" / "day=1", tmp_path / "plain" / "out")
    partitioned = spark.read.parquet(str(tmp_path / "partitioned" / "out"))
    assert sorted(partitioned.groupBy("day").count().collect()) == [(1, 5), (2, 5)]
    assert spark.read.parquet(str(tmp_path / "plain" / "out")).count() == 5
    assert spark.read.option("recursiveFileLookup", "true").parquet(str(tmp_path / "plain")).count() == 5


@pytest.mark.parametrize("how", [how for how in INPUTS if how != "checksums"])  # Spark doesn't support its brotli
def test_spark_reads_copied_columns(how, spark, tmp_path):
    """Spark reads copied columns of every type."""
    source, _, _ = table_of_all_types()
    pq.write_table(source, tmp_path / "in.parquet", **INPUTS[how])
    source = pq.read_table(tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", on_bad_row="null")
    check_copied_columns(tmp_path / "out.parquet", source, readers={"spark": functools.partial(read_spark, spark)})


@pytest.mark.parametrize("kind", ["pyarrow", "split", "dropped", "duckdb", "polars"])
def test_spark_filters_find_the_rows(kind, spark, tmp_path):
    """Spark's filters, which skip by statistics, page indexes and Bloom filters, find all matching rows."""
    from pyspark.sql import functions

    out, rows = filtered_output(tmp_path, kind)
    frame = spark.read.parquet(str(out))
    for search in FILTERS.values():
        name, sign, value = search
        column = functions.col(name)
        test = {"==": column == value, "!=": column != value, ">": column > value, "<": column < value}.get(
            sign, column >= value
        )
        found = [row["id"] for row in frame.filter(test).select("id", "probs").orderBy("id").collect()]
        assert found == matching_ids(rows, search), search
    without = rows["id"].filter(rows["probs"].is_null()).to_pylist()
    assert sorted(row["id"] for row in frame.filter("probs IS NULL").select("id").collect()) == without
    assert frame.count() == rows.num_rows
    some = frame.filter("id BETWEEN 700 AND 705").orderBy("id").select("probs").collect()
    before = len(matching_ids(rows, ("id", "<", 700)))
    assert [row["probs"] for row in some] == rows["probs"].slice(before, 6).to_pylist()


@pytest.mark.parametrize("legacy", ["false", "true"])
@pytest.mark.parametrize("timestamps", ["TIMESTAMP_MICROS", "INT96"])
def test_spark_columns_are_copied(timestamps, legacy, spark, tmp_path):
    """Spark's INT96 timestamps and legacy lists are copied; Spark and the other readers read them."""
    source, _, _ = table_of_all_types(nulls="none")
    source = source.drop(["huge", "kind"])
    spark.conf.set("spark.sql.parquet.writeLegacyFormat", legacy)
    spark.conf.set("spark.sql.parquet.outputTimestampType", timestamps)
    frame = spark.createDataFrame(source).coalesce(1)
    frame.write.option("parquet.block.size", "20000").parquet(str(tmp_path / "in"))
    path, out = spark_file(tmp_path / "in"), tmp_path / "out.parquet"
    batchmax.score(path, out)
    written = pq.read_table(path)
    readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
    check_copied_columns(out, written, readers=readers | {"spark": functools.partial(read_spark, spark)})
    check_file(out, checksums=["probs", "loss"])

"""Tests carried columns of every type: each reader finds the types and values of the input, copied or re-encoded."""

from __future__ import annotations

import base64
import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError
from batchmax.sources.parquet_source import open_source
from tests.support import crafted
from tests.support.column_types import (
    CARRIED,
    GRID,
    KNOWN_TO_POLARS,
    NAN,
    SOME,
    N,
    bits,
    declared_types,
    int96,
    parquet_types,
    rows_in,
    source,
    write_input,
)
from tests.support.requirements import optional
from tests.support.rows import lists

duckdb = optional("duckdb")
pl = optional("polars")

pytestmark = pytest.mark.usefixtures("no_sync")


@SOME
@GRID
def test_readers_find_the_schema_and_values_of_the_input(how, what, files):
    """Types, metadata of all fields and all values are unchanged for pyarrow, Polars and DuckDB.

    This includes INT96 values beyond the range of nanoseconds.
    """
    path, out = files(how), files(how, what)
    before, after = pq.ParquetFile(path), pq.ParquetFile(out)
    for name in CARRIED:
        assert after.schema_arrow.field(name).equals(before.schema_arrow.field(name), check_metadata=True), name
    assert declared_types(out) == declared_types(path)
    assert parquet_types(out) == parquet_types(path)
    microseconds = {"coerce_int96_timestamp_unit": "us"}
    want = pq.read_table(path, columns=CARRIED, **microseconds).slice(0, rows_in(what))
    assert bits(pq.read_table(out, columns=CARRIED, **microseconds)) == bits(want)
    frame, theirs = (pl.read_parquet(file, columns=KNOWN_TO_POLARS) for file in (out, path))
    assert frame.schema == theirs.schema
    assert frame.equals(theirs.head(rows_in(what)))
    query = "SELECT {} FROM read_parquet('{}') ORDER BY id LIMIT {}"
    columns = ", ".join(f'typeof("{name}"), "{name}"::VARCHAR' for name in CARRIED)
    with duckdb.connect(config={"threads": 1}) as connection:
        got, read = (connection.sql(query.format(columns, file, rows_in(what))).fetchall() for file in (out, path))
    assert got == read


@pytest.mark.parametrize("name", [b"id", b"item"])
def test_a_declared_schema_with_damaged_names_is_ignored(name, tmp_path):
    """An Arrow schema with a name that isn't UTF-8 is ignored; as in pyarrow, the Parquet schema is used instead."""
    path, out = tmp_path / "x.parquet", tmp_path / "out.parquet"
    nested = pa.array([[1], [2]], pa.list_(pa.field("item", pa.int64())))
    pq.write_table(pa.table({"id": [1, 2], "logits": [[1.0, 2.0]] * 2, "nested": nested}), path)

    def damage(fields):
        for pair in fields[5].value.values:
            if pair[1].value == b"ARROW:schema":
                declared = base64.b64decode(pair[2].value)
                assert name in declared
                pair[2].value = base64.b64encode(declared.replace(name, b"\xff" + name[1:]))

    path.write_bytes(crafted.edited(path.read_bytes(), damage))
    batchmax.score(path, out)
    assert pq.read_table(out)["id"].to_pylist() == [1, 2]
    assert pq.read_table(out)["nested"].to_pylist() == [[1], [2]]


def test_rejected_rows_keep_types(tmp_path):
    """Rejected rows keep all columns and types, including INT96 and declared types, and have no statistics with NaN."""
    table = source()
    logits = np.full((N, 3), NAN, np.float32)
    table = table.set_column(table.column_names.index("logits"), "logits", lists(logits))
    path, out, rejects = tmp_path / "x.parquet", tmp_path / "out.parquet", tmp_path / "rejects.parquet"
    write_input(path, table)
    batchmax.score(path, out, on_bad_row="drop", rejects=rejects, columns="id", n_classes=3)
    assert declared_types(rejects) == declared_types(path)
    assert parquet_types(rejects) == parquet_types(path)
    read = functools.partial(pq.read_table, columns=CARRIED, coerce_int96_timestamp_unit="us")
    assert bits(read(rejects)) == bits(read(path))
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{rejects}') WHERE \"float64\" = 'nan'").fetchall()[0][0] > 0


def test_timestamp_out_of_range_is_an_error_if_decoded(files, tmp_path):
    """An INT96 timestamp that is out of the range of 64-bit nanoseconds raises DataError if it goes to an Arrow stream.

    The error names the column and the timestamp. If the column is excluded or its values fit, rows are read.
    """
    path = files("1.0 with statistics")
    with pytest.raises(
        DataError, match=r"column 'int96': the timestamp 9999-12-31T00:00:00 is out of the range .*: --exclude int96$"
    ):
        batchmax.scan(path).read_all()
    names = ",".join(name for name in CARRIED if "int96" in name)
    assert batchmax.scan(path, exclude=names).read_all().num_rows == N
    few = pa.table({"int96": pa.array([int96(0, 5), None, int96(1)], pa.binary(12))})
    few = few.append_column("logits", lists(np.zeros((3, 2), np.float32)))
    write_input(tmp_path / "few.parquet", few)
    found = batchmax.scan(tmp_path / "few.parquet").read_all()["int96"]
    assert found.cast(pa.int64()).to_pylist() == [5, None, 86_400_000_000_000]
    late = pa.table({"int96": pa.array([int96(2_932_896)], pa.binary(12)), "label": [0]})
    write_input(tmp_path / "late.parquet", late.append_column("logits", lists(np.zeros((1, 2), np.float32))))
    # evaluate has no --exclude.
    with pytest.raises(DataError, match=r"column 'int96': the timestamp 9999-.*; write the column in microseconds$"):
        batchmax.evaluate(tmp_path / "late.parquet", by="int96")


def test_int96_and_other_timestamps_in_one_output(tmp_path):
    """The first file decides how a timestamp column is stored; the values of all files are kept."""
    logits = lists(np.zeros((2, 2), np.float32))
    times = pa.array([1704067200 * 10**9, None], pa.timestamp("ns"))
    raw = pa.array([int96(19723), int96(19723, 1)], pa.binary(12))
    for order in ("ab", "ba"):
        folder = tmp_path / order
        folder.mkdir()
        write_input(folder / f"{order[0]}.parquet", pa.table({"int96": raw, "logits": logits}))
        pq.write_table(pa.table({"int96": times, "logits": logits}), folder / f"{order[1]}.parquet")
        batchmax.score(folder, tmp_path / f"{order}.parquet")
        got = pq.read_table(tmp_path / f"{order}.parquet")["int96"].cast(pa.int64()).to_pylist()
        one = 1704067200 * 10**9
        assert sorted(got, key=repr) == sorted([one, one + 1, one, None], key=repr)


def test_verify_and_show_accept_timestamps_of_any_year(files):
    """``verify`` compares INT96 columns as they are stored.

    A single row is read with timestamps of any year, in microseconds if it needs them.
    """
    path, out = files("1.0 with statistics"), files("1.0 with statistics", "zstd")
    assert batchmax.verify(out, inputs=[str(path)], sample=N).sampled_rows == N
    _, row = open_source(str(path), batchmax.score_options()).row(1)
    assert str(row["int96"][0]).startswith("9999-12-31 00:00:00")
    _, row = open_source(str(path), batchmax.score_options(exclude="id")).row(0)
    assert row["int96"].type == pa.timestamp("ns")


def test_date64_of_a_table_is_written_as_days(tmp_path):
    """Dates of a table in milliseconds, also in lists, are the same dates in the file, which declares their type."""
    days = pa.array([0, 86_400_000, -86_400_000, None, 253_402_214_400_000], pa.int64()).view(pa.date64())
    table = pa.table({"logits": lists(np.eye(5)), "day": days, "days": pa.array([[day] for day in days])})
    batchmax.score(table, tmp_path / "out.parquet")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["day"].type == pa.date32()
    assert out.select(["day", "days"]).to_pylist() == table.select(["day", "days"]).to_pylist()
    assert declared_types(tmp_path / "out.parquet", ["day"]) == {"day": "date64[ms]"}

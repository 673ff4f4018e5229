"""Tests ``score`` on streams: tables, readers, data frames and query results; and ``scan``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax import BadRowError, BatchmaxError, UsageError
from batchmax.jobs.score import scan, score
from tests.support.files import damage, group_sizes, row_texts
from tests.support.layouts import digits
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.requirements import optional
from tests.support.rows import BAD, NAN, lists, table_of, table_of_every_status

duckdb = optional("duckdb")
pl = optional("polars")
ALL = SOFTMAX_OUTPUTS

STREAMS = {
    "table": lambda table: table,
    "reader": lambda table: table.to_reader(),
    "batch": lambda table: table.combine_chunks().to_batches()[0],
    "polars": pl.from_arrow,
    "pandas": lambda table: table.to_pandas(),
    "duckdb": lambda table: duckdb.connect().from_arrow(table),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("policy", ["null", "drop"])
def test_streams_give_the_rows_of_files(kind, policy, tmp_path):
    """Tables, readers, data frames and query results give the same rows as a file with these rows."""
    table, statuses = table_of_every_status()
    text = pa.array([f"row {number}" for number in range(table.num_rows)])
    table = table.append_column("text", text).append_column("kind", text.dictionary_encode())
    if kind == "pandas":  # pandas treats NaN as null, and has no integers with nulls
        logits = table["logits"].to_pylist()
        logits = [row and [7.0 if value != value else value for value in row] for row in logits]  # noqa: PLR0124
        table = table.set_column(1, "logits", pa.array(logits, pa.list_(pa.float32())))
        table = table.set_column(2, "label", table["label"].cast(pa.float64()))
    pq.write_table(table, tmp_path / "in.parquet")
    options = {"outputs": ALL, "on_bad_row": policy, "top_k": 2, "exclude": "label", "layout": "fixed"}
    score(tmp_path / "in.parquet", tmp_path / "file.parquet", **options)
    summary = score(STREAMS[kind](table), tmp_path / "stream.parquet", **options)
    assert row_texts(pq.read_table(tmp_path / "stream.parquet")) == row_texts(pq.read_table(tmp_path / "file.parquet"))
    assert summary.n_rows == len(statuses)
    assert summary.files == []


def test_rows_of_a_stream_are_numbered(tmp_path):
    """Errors and rejects number the rows of a stream from its beginning, across batches."""
    table, statuses = table_of_every_status()
    bad = [row for row, status in enumerate(statuses) if status in BAD]
    with pytest.raises(BadRowError, match=f"the stream: row {bad[0]}: "):
        score(pa.Table.from_batches(table.to_batches(max_chunksize=3)), tmp_path / "out.parquet")
    options = {"on_bad_row": "drop", "rejects": str(tmp_path / "rejects.parquet")}
    score(pa.Table.from_batches(table.to_batches(max_chunksize=3)), tmp_path / "out.parquet", **options)
    assert pq.read_table(tmp_path / "rejects.parquet")["row"].to_pylist() == bad


@pytest.mark.usefixtures("small_chunks")
def test_stream_batches_do_not_affect_row_groups(tmp_path):
    """A stream's batches don't affect row groups of the output: they have up to 64 MiB of logits, or the given size."""
    table = table_of(1000, 10)
    pieces = lambda: pa.Table.from_batches(table.to_batches(max_chunksize=7))
    score(pieces(), tmp_path / "a.parquet")
    assert group_sizes(tmp_path / "a.parquet") == [102] * 9 + [82]
    score(pieces().to_reader(), tmp_path / "c.parquet")
    assert group_sizes(tmp_path / "c.parquet") == [102] * 9 + [82]
    score(pieces(), tmp_path / "b.parquet", row_group_size=300)
    assert group_sizes(tmp_path / "b.parquet") == [300, 300, 300, 100]


def test_dictionaries_that_differ_between_batches(tmp_path):
    """A dictionary column of a stream may have a different dictionary in each batch."""
    batches = [
        pa.record_batch({"logits": lists(np.zeros((1, 2))), "d": pa.array([text]).dictionary_encode()})
        for text in "abc"
    ]
    score(pa.Table.from_batches(batches), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["d"].to_pylist() == ["a", "b", "c"]


def test_string_views_are_carried(tmp_path):
    """Columns of string views, also inside lists, structs and dictionaries, are carried with every policy."""
    view = pa.string_view()
    columns = {
        "s": pa.array(["a", None, "c"], view),
        "b": pa.array([b"a", b"", None], pa.binary_view()),
        "l": pa.array([["a"], [], None], pa.list_(view)),
        "t": pa.array([{"x": "a"}, None, {"x": None}], pa.struct([("x", view)])),
        "d": pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), pa.array(["a", "b"], view)),
    }
    table = pa.table({"logits": lists(np.array([[0.0, 1.0], [NAN, 0.0], [2.0, 0.0]], np.float32)), **columns})
    pq.write_table(table.drop(["d"]), tmp_path / "in.parquet")
    for src in (table, tmp_path / "in.parquet"):
        names = [name for name in columns if src is table or name != "d"]
        want = table.select(names).to_pylist()
        for policy, rows in (("null", want), ("drop", [want[0], want[2]])):
            rejects = {} if policy == "null" else {"rejects": str(tmp_path / "rejects.parquet")}
            score(src, tmp_path / "out.parquet", on_bad_row=policy, if_exists="overwrite", **rejects)
            assert pq.read_table(tmp_path / "out.parquet").select(names).to_pylist() == rows
        assert pq.read_table(tmp_path / "rejects.parquet").select(names).to_pylist() == [want[1]]


@pytest.mark.parametrize("src", [3, None, [3], {"a": 1}.items()])
def test_invalid_inputs_are_refused(src, tmp_path):
    """An input that is neither paths nor a stream is a usage error."""
    with pytest.raises(UsageError, match=r"are not supported"):
        score(src, tmp_path / "out.parquet")


@pytest.mark.usefixtures("small_chunks")
def test_scan_is_lazy(tmp_path):
    """A reader from ``scan`` yields what ``score`` writes, and doesn't read further than its batches need."""
    table = table_of(1000, 10)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=300)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs=ALL)
    reader = scan(tmp_path / "in.parquet", outputs=ALL)
    assert reader.schema.names == ["id", "label", *ALL]
    batches = list(reader)
    assert len(batches) > 4
    # Batches don't share memory: the first one hasn't changed.
    assert row_texts(pa.Table.from_batches(batches)) == row_texts(pq.read_table(tmp_path / "out.parquet"))
    assert scan(table, limit=5).read_all().num_rows == 5
    damage(tmp_path / "in.parquet", 3)
    reader = scan(tmp_path / "in.parquet")
    assert reader.read_next_batch()["id"][0].as_py() == 0
    with pytest.raises((BatchmaxError, pa.ArrowException, OSError)):
        reader.read_all()


@pytest.mark.parametrize("options", [{"fail_if": "bad_rows > 0"}, {"on_bad_row": "drop", "rejects": "r.parquet"}])
def test_scan_refuses_gates_and_rejects(options):
    """``scan`` refuses gates and rejects."""
    with pytest.raises(UsageError, match="scan doesn't support this"):
        scan(digits(), **options)


def test_scan_drops_bad_rows():
    """``scan`` drops bad rows with ``on_bad_row='drop'``."""
    table, statuses = table_of_every_status()
    got = scan(table, on_bad_row="drop").read_all()
    assert got["id"].to_pylist() == [row for row, status in enumerate(statuses) if status not in BAD]

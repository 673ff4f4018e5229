"""Tasks of foreign engines, tested without an engine."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.jobs import engine_task
from tests.support.rows import rows_of_every_status


def batch_of(n_rows, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n_rows, n_classes)).astype(np.float32)
    return pa.record_batch(
        {"id": np.arange(n_rows), "logits": list(logits), "label": rng.integers(0, n_classes, n_rows)}
    )


def sent(error):
    """Return an error as it arrives in another process."""
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own data


def run(batches, threads=1, whole=None, **given):
    job = engine_task.plan_tasks(batches[0].schema, batchmax.score_options(**given), batches[0])
    return list(engine_task.score_batches(batches, job, threads, whole))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows_at_a_time", [1, 3, 100])
def test_pieces_have_the_values_of_the_whole(rows_at_a_time, threads, monkeypatch):
    """The rows are those of `score_batch`, in order, for slices of any size."""
    batch = batch_of(10)
    given = {"outputs": "probs,loss,pred,rank,entropy,status", "top_k": 2}
    want = batchmax.score_batch(batch, **given)
    job = engine_task.plan_tasks(batch.schema, batchmax.score_options(**given), batch)
    monkeypatch.setattr(engine_task, "SLICE_BYTES", rows_at_a_time * max(job.row_bytes, job.result_bytes))
    got = list(engine_task.score_batches([batch.slice(0, 6), batch.slice(6)], job, threads))
    assert pa.Table.from_batches(got).to_pylist() == want.to_pylist()
    assert max(piece.num_rows for piece in got) == min(rows_at_a_time, 6)


def test_a_batch_without_rows_gives_one():
    """A batch without rows gives one batch with all columns."""
    batch = batch_of(3)
    (got,) = run([batch.slice(0, 0)], n_classes=5)
    assert (got.num_rows, got.schema.names) == (0, ["id", "label", "probs", "loss"])


def test_the_number_of_classes_is_that_of_the_first_rows():
    """The first batch determines the number of classes, and later rows with another length are bad."""
    with pytest.raises(batchmax.BadRowError, match="4 logits, not 5"):
        run([batch_of(2), batch_of(2, n_classes=4)])


@pytest.mark.parametrize(
    ("whole", "where"), [("partition 3", "row 14 of partition 3"), (None, "row 4 of a batch")], ids=["counted", "not"]
)
@pytest.mark.parametrize("rows_at_a_time", [1, 100])
def test_a_bad_row_is_told_by_its_number(whole, where, rows_at_a_time, monkeypatch):
    """The row number in an error counts all rows of an ordered task, and otherwise the rows of its batch."""
    good, bad = batch_of(10), batch_of(10)
    bad = bad.set_column(2, "label", pa.array([0, 1, 2, 3, 5, 0, 9, 0, 0, 0]))
    monkeypatch.setattr(engine_task, "SLICE_BYTES", rows_at_a_time * 100)
    with pytest.raises(batchmax.BadRowError) as raised:
        run([good, bad], whole=whole)
    assert raised.value.where == where
    assert "label 5 is not a class" in raised.value.what
    assert raised.value.remedy.endswith(
        "to find it, add status to --outputs, and filter by it; to write nulls instead: --on-bad-row null"
    )
    assert str(sent(raised.value)) == str(raised.value)


def test_odd_rows_are_nulled_and_dropped_as_in_a_batch(monkeypatch):
    """Policies for bad rows give the same rows in slices as in a whole batch."""
    logits, labels, statuses = rows_of_every_status()
    batch = pa.record_batch({"logits": pa.array(logits, pa.list_(pa.float32())), "label": labels, "want": statuses})
    monkeypatch.setattr(engine_task, "SLICE_BYTES", 5 * 30)
    for policy in ("null", "drop"):
        given = {"on_bad_row": policy, "outputs": "probs,loss,status"}
        got = pa.Table.from_batches(run([batch], **given)).to_pylist()
        assert got == batchmax.score_batch(batch, **given).to_pylist()
        assert [row["status"] for row in got] == [row["want"] for row in got]


def test_a_sparse_vector_is_told_by_its_number():
    """The error for a sparse vector names the row of the task, and can be pickled."""
    kind = pa.struct(
        [
            ("type", pa.int8()),
            ("size", pa.int32()),
            ("indices", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float64())),
        ]
    )
    dense = {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0]}
    sparse = {"type": 0, "size": 2, "indices": [1], "values": [2.0]}
    batch = pa.record_batch({"logits": pa.array([dense, dense, sparse], kind)})
    what = "row 5 of partition 0: column 'logits' has a sparse Spark vector"
    with pytest.raises(batchmax.DataError, match=what) as raised:
        run([batch.slice(0, 2), batch.slice(0, 1), batch], whole="partition 0")
    assert str(sent(raised.value)) == str(raised.value)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"rejects": "x.parquet", "on_bad_row": "drop"}, "--rejects"),
        ({"fail_if": "n_rows < 1"}, "--fail-if"),
        ({"limit": 3}, "--limit"),
        ({"outputs": "probs,sample"}, "--outputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_all_rows_is_refused(given, where):
    """Options that need all rows are refused with the option and a remedy."""
    with pytest.raises(batchmax.UsageError) as raised:
        engine_task.check_options(batchmax.score_options(**given))
    assert raised.value.where == where
    assert raised.value.remedy


def test_engines_are_there_without_being_loaded():
    """`batchmax.spark` and `batchmax.ray` need no import, and load their engines only when they are used."""
    code = """
    import sys, batchmax
    assert not {"batchmax.ray", "batchmax.spark"} & set(sys.modules)
    assert callable(batchmax.ray.score) and callable(batchmax.spark.score)
    assert not {"ray", "pyspark"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)

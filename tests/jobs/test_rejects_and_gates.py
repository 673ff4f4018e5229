"""Tests the rejects of ``score``, and gates, which hold the output."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax import GateError, OutputError, UsageError
from batchmax.jobs.score import score
from tests.support.files import names_in, row_texts
from tests.support.layouts import LAYOUTS, READ_AS, digits
from tests.support.progress import Recorder
from tests.support.rows import BAD, table_of, table_of_every_status

# Rejects


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rejects_have_all_columns_and_the_position(layout, out, tmp_path):
    """Rejects have all columns of the dropped rows, with file, row and status.

    The output has the other rows, in order.
    """
    table = pq.read_table(digits(layout))
    labels = table["label"].to_pylist()
    labels[3], labels[50] = 99, -1
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=20)
    rejects = "rejects.parquet" if out.endswith("parquet") else "rejects"
    options = {"on_bad_row": "drop", "rejects": str(tmp_path / rejects), "exclude": "id", **READ_AS.get(layout, {})}
    summary = score(tmp_path / "in.parquet", tmp_path / out, **options)
    got = pq.read_table(tmp_path / rejects)
    assert got.column_names == [*table.column_names, "file", "row", "status"]
    assert got.select(table.column_names).to_pylist() == table.take([3, 50]).to_pylist()
    assert got["row"].to_pylist() == [3, 50]
    assert got["status"].to_pylist() == ["bad_label"] * 2
    assert set(got["file"].to_pylist()) == {str(tmp_path / "in.parquet")}
    left = pq.read_table(tmp_path / out)
    assert left["label"].to_pylist() == [label for label in labels if 0 <= label < 10]
    assert (summary.n_rows, summary.bad_rows, left.num_rows) == (60, 2, 58)
    if out == "out":
        assert names_in(tmp_path / "rejects") == ["_SUCCESS", "_batchmax.parquet", "part-00000.parquet"]


def test_rejects_are_exactly_the_bad_rows(tmp_path):
    """Rejects have exactly the bad rows; without bad rows, they have no rows but all columns."""
    table, statuses = table_of_every_status()
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    options = {"on_bad_row": "drop", "rejects": str(tmp_path / "rejects.parquet")}
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet", **options)
    rejects = pq.read_table(tmp_path / "rejects.parquet")
    assert rejects["status"].to_pylist() == [status for status in statuses if status in BAD]
    assert rejects["row"].to_pylist() == [row for row, status in enumerate(statuses) if status in BAD]
    assert summary.status_counts == {status: statuses.count(status) for status in set(statuses)}
    pq.write_table(table_of(5), tmp_path / "good.parquet")
    score(tmp_path / "good.parquet", tmp_path / "out.parquet", if_exists="overwrite", **options)
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 0


def test_rejects_of_files_with_different_column_orders(tmp_path):
    """Files may have their columns in different orders, and additional columns, in the output and in the rejects."""
    table, statuses = table_of_every_status()
    pq.write_table(table, tmp_path / "1.parquet")
    pq.write_table(table.select(["label", "id", "logits"]).append_column("x", table["id"]), tmp_path / "2.parquet")
    rejects = tmp_path / "rejects.pq"
    score(str(tmp_path / "?.parquet"), tmp_path / "out.pq", on_bad_row="drop", rejects=str(rejects), exclude="id")
    got = pq.read_table(rejects)
    n_bad = sum(status in BAD for status in statuses)
    assert got.column_names == ["id", "logits", "label", "x", "file", "row", "status"]
    assert got["id"].to_pylist()[:n_bad] == got["id"].to_pylist()[n_bad:] == got["x"].to_pylist()[n_bad:]
    assert pq.read_table(tmp_path / "out.pq").column_names == ["label", "x", "probs", "loss"]


def test_input_columns_named_like_reject_columns_keep_their_names(tmp_path):
    """An input column named file, row or status keeps its name in the rejects; the added column gets a prefix."""
    table, _ = table_of_every_status()
    pq.write_table(table.append_column("row", table["id"]), tmp_path / "in.parquet")
    score(
        tmp_path / "in.parquet", tmp_path / "out.pq", on_bad_row="drop", rejects=str(tmp_path / "rejects.pq")
    )  # fmt: skip
    got = pq.read_table(tmp_path / "rejects.pq")
    assert got.column_names[-4:] == ["row", "file", "batchmax_row", "status"]
    assert got["row"].equals(got["batchmax_row"])


def test_reject_columns_get_unused_names(tmp_path):
    """Input columns named file and batchmax_file don't hide the rejects' file column."""
    table = (
        table_of(4).append_column("file", pa.array(list("abcd"))).append_column("batchmax_file", pa.array(list("efgh")))
    )
    table = table.set_column(table.schema.get_field_index("label"), "label", pa.array([0, 99, 1, 2]))
    pq.write_table(table, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "o.parquet", on_bad_row="drop", rejects=str(tmp_path / "r.parquet"))
    rejected = pq.read_table(tmp_path / "r.parquet")
    assert rejected["file"].to_pylist() == ["b"]
    assert rejected["batchmax_batchmax_file"].to_pylist() == [str(tmp_path / "in.parquet")]


@pytest.mark.parametrize(
    ("rejects", "error", "message"),
    [
        ("rejects", UsageError, "of a file must be a file"),
        ("out.parquet", UsageError, "the same path"),
        ("in.parquet", OutputError, "also an input"),
        ("in.parquet/rejects.parquet", OutputError, "in.parquet is not a folder"),
    ],
)
def test_invalid_reject_paths_are_refused(rejects, error, message, tmp_path):
    """Rejects can't have the path of an input or of the output, or a path below a file.

    The rejects of an output file must be a file.
    """
    pq.write_table(table_of(5), tmp_path / "in.parquet")
    before = (tmp_path / "in.parquet").read_bytes()
    with pytest.raises(error, match=message):
        score(
            tmp_path / "in.parquet",
            tmp_path / "out.parquet",
            on_bad_row="drop",
            rejects=str(tmp_path / rejects),
            if_exists="overwrite",
        )
    assert (tmp_path / "in.parquet").read_bytes() == before
    assert names_in(tmp_path) == ["in.parquet"]


# Gates


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_failed_gate_holds_the_output(out, tmp_path):
    """If a gate fails, the output path is unchanged.

    The finished output and its rejects are held in paths that end in ``.held``.
    """
    table, _ = table_of_every_status()
    pq.write_table(table, tmp_path / "in.parquet")
    score(digits(), tmp_path / out)
    before = row_texts(pq.read_table(tmp_path / out))
    rejects = tmp_path / ("rejects.parquet" if "." in out else "rejects")
    options = {"on_bad_row": "drop", "rejects": str(rejects), "if_exists": "overwrite"}
    for _ in range(2):
        with pytest.raises(
            GateError, match=rf"bad_rate is 0\.\d+; the finished output is .*{out}\.held; to publish it: --if-exists"
        ):
            score(tmp_path / "in.parquet", tmp_path / out, fail_if="bad_rate > 0.5", **options)
    assert row_texts(pq.read_table(tmp_path / out)) == before
    held = Path(f"{tmp_path / out}.held")
    score(tmp_path / "in.parquet", tmp_path / out, fail_if="bad_rate > 0.99", **options)
    assert row_texts(pq.read_table(held)) == row_texts(pq.read_table(tmp_path / out))
    assert row_texts(pq.read_table(f"{rejects}.held")) == row_texts(pq.read_table(rejects))


def test_gate_on_a_count_stops_the_run(tmp_path):
    """The run stops once a count exceeds its gate's limit; the rest isn't read, and nothing is written."""
    table, _ = table_of_every_status()
    pq.write_table(pa.concat_tables([table] * 20), tmp_path / "in.parquet", row_group_size=table.num_rows)
    recorder = Recorder()
    with pytest.raises(GateError, match="the run was stopped and nothing is written"):
        score(
            tmp_path / "in.parquet",
            tmp_path / "out.parquet",
            on_bad_row="null",
            fail_if="accuracy > 2 or bad_rows > 30",
            progress=recorder,
        )
    assert recorder.rows <= 2 * table.num_rows
    assert names_in(tmp_path) == ["in.parquet"]


def test_missing_value_fails_the_gate(tmp_path):
    """A missing value fails its gate: rows without labels have no mean loss."""
    pq.write_table(table_of(5).drop(["label"]), tmp_path / "in.parquet")
    with pytest.raises(GateError, match=r"mean_loss has no value .the rows have no labels."):
        score(tmp_path / "in.parquet", tmp_path / "out.parquet", fail_if="mean_loss > 1e9")


def test_gate_on_accuracy_reads_the_labels(tmp_path):
    """A gate on the accuracy needs labels, but no output that uses them."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="probs", fail_if="accuracy < 0")
    assert summary.accuracy is not None
    quiet = score(tmp_path / "in.parquet", tmp_path / "q.parquet", outputs="probs")
    assert quiet.accuracy is None
    assert not any("label" in note for note in quiet.notes)

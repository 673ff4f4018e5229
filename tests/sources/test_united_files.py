"""Files with different columns are read as one table, in the same way in every command."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

import batchmax
from batchmax.cli.app import main
from batchmax.errors import UsageError
from batchmax.jobs.plan import Plan, run_part
from batchmax.options.score_options import score_options
from batchmax.sinks.commit.staging import PartFolder
from batchmax.sources.parquet_source import ParquetSource
from tests.support.progress import Recorder
from tests.support.requirements import optional

duckdb = optional("duckdb")

K, ROWS = 4, 30
D = decimal.Decimal


def lists(values, kind):
    """Return rows of numbers as a column of a type."""
    return pa.array([None if row is None else [float(value) for value in row] for row in values], kind)


@pytest.fixture
def logits():
    """Return float32 logits of three files, (3, ROWS, K)."""
    return np.random.default_rng(3).normal(size=(3, ROWS, K)).astype(np.float32)


@pytest.fixture
def files(tmp_path, monkeypatch, logits):
    """Write three files with every allowed difference, change to their folder, and return their names."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(ROWS) % K
    times = [dt.datetime(2026, 1, 1) + dt.timedelta(hours=row) for row in range(ROWS)]  # noqa: DTZ001 - naive
    names = [["x", "y", None][row % 3] for row in range(ROWS)]
    first = {
        "id": pa.array(range(ROWS), pa.int32()),
        "name": pa.array(names, pa.dictionary(pa.int8(), pa.string())),
        "at": pa.array(times, pa.timestamp("ms")),
        "logits": lists(logits[0], pa.list_(pa.float32())),
        "label": pa.array(labels, pa.int32()),
        "price": pa.array([D("12.50")] * ROWS, pa.decimal128(5, 2)),
        "tags": pa.array([[row] if row % 2 else None for row in range(ROWS)], pa.list_(pa.int32())),
        "meta": pa.array([{"x": row} for row in range(ROWS)], pa.struct({"x": pa.int32()})),
    }
    second = {
        "label": pa.array(labels, pa.int64()),
        "extra": pa.array([f"e{row}" for row in range(ROWS)]),
        "logits": lists(logits[1], pa.large_list(pa.float64())),
        "id": pa.array([2**40 + row for row in range(ROWS)], pa.int64()),
        "at": pa.array([time + dt.timedelta(microseconds=1) for time in times], pa.timestamp("us")),
        "name": pa.array(names),
        "price": pa.array([D("123456.0001")] * ROWS, pa.decimal128(10, 4)),
        "tags": pa.array([[2**40, None]] * ROWS, pa.large_list(pa.int64())),
        "meta": pa.array(
            [{"y": "t", "x": 2**40} if row else None for row in range(ROWS)],
            pa.struct({"y": pa.string(), "x": pa.int64()}),
        ),
    }
    third = {
        "meta": pa.nulls(ROWS, pa.null()),
        "logits": lists(logits[2], pa.list_(pa.float32(), K)),
        "label": pa.array(labels, pa.int8()),
        "name": pa.array(names, pa.large_string()),
        "id": pa.array(range(100, 100 + ROWS), pa.uint16()),
    }
    for file, columns in zip("abc", (first, second, third), strict=True):
        pq.write_table(pa.table(columns), f"{file}.parquet", row_group_size=12)
    return ["a.parquet", "b.parquet", "c.parquet"]


def rows_of(*paths):
    """Return the rows of files as Python values, by name, with None for columns that a file lacks."""
    tables = [pq.read_table(path).to_pylist() for path in paths]
    names = dict.fromkeys(name for rows in tables for row in rows for name in row)
    found = [{name: row.get(name) for name in names if name != "logits"} for rows in tables for row in rows]
    for row in found:
        if row.get("meta") is not None:
            row["meta"] = {"x": row["meta"]["x"], "y": row["meta"].get("y")}
    return found


def softmax(z):
    """Return probabilities in float64."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


TYPES = {
    "id": pa.int64(),
    "name": pa.large_string(),
    "at": pa.timestamp("us"),
    "label": pa.int64(),
    "price": pa.decimal128(10, 4),
    "tags": pa.large_list(pa.int64()),
    "meta": pa.struct({"x": pa.int64(), "y": pa.string()}),
    "extra": pa.string(),
    "probs": pa.large_list(pa.float64()),
    "loss": pa.float64(),
}


def check(table, files, logits):
    """Compare a scored table with the files, read by pyarrow, and with NumPy's softmax."""
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == TYPES
    assert table.drop_columns(["probs", "loss"]).to_pylist() == rows_of(*files)
    probs = softmax(logits.reshape(-1, K).astype(float))
    assert_allclose(np.array(table["probs"].to_pylist()), probs, rtol=1e-14)
    labels = np.tile(np.arange(ROWS) % K, 3)
    assert_allclose(table["loss"].to_pylist(), -np.log(probs[np.arange(len(probs)), labels]), rtol=1e-13)


# One table


@pytest.mark.parametrize("how", ["batchmax", "pyarrow"])
@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_files_that_differ_become_one_table(files, logits, how, out, monkeypatch):
    """Columns are matched by name, with nulls for missing ones and the widest types, for both readers."""
    monkeypatch.setenv("BATCHMAX_PARQUET", how)
    summary = batchmax.score(files, out)
    check(pq.read_table(out), files, logits)
    assert summary.files == files
    assert summary.mean_loss == pytest.approx(np.mean(pq.read_table(out)["loss"].to_pylist()))
    where = "out/*.parquet" if out == "out" else out
    found = duckdb.sql(f"""SELECT id, name, "at", price, extra FROM '{where}' ORDER BY id""").fetchall()
    want = sorted((row["id"], row["name"], row["at"], row["price"], row["extra"]) for row in rows_of(*files))
    assert found == want


def test_the_order_of_files_decides_the_order_of_columns_alone(files, logits):
    """The order of files changes only the order of columns, not types or values."""
    for order in itertools.permutations(range(3)):
        named = [files[at] for at in order]
        batchmax.score(named, "out.parquet", if_exists="overwrite")
        table = pq.read_table("out.parquet")
        assert table.schema.field("id").type == pa.int64()
        check(table.select(list(TYPES)).cast(pa.schema(TYPES)), named, logits[list(order)])


def test_the_logits_are_read_as_matrices(files):
    """Lists, large lists and fixed-size lists of float32 and float64 are all read as matrices, without pyarrow."""
    source = ParquetSource(files, score_options())
    from batchmax.sources.parts import plan_parts
    from batchmax.sources.passthrough import ReadPlan

    parts = plan_parts(source.group_rows(), source.row_bytes)
    chunks = list(source.chunks(parts, ReadPlan(source.job.columns_read)))
    assert all(chunk.logits is not None and chunk.logits.dtype == np.float64 for chunk in chunks)
    assert source.read_statistics.by_pyarrow == 0


def test_equal_columns_are_still_copied(files):
    """Columns that are the same in all files are copied without decoding."""
    text = pa.array(["the same"] * ROWS)
    for file in files:
        pq.write_table(pq.read_table(file).select(["id", "logits", "label"]).append_column("text", text), file)
    source = ParquetSource(files, score_options())
    assert {name for file in source.files for name in file.columns.recoded} == {"id", "logits", "label"}
    recorder = Recorder()
    batchmax.score(files, "out.parquet", progress=recorder)
    assert "of other columns copied as they are: 3" in recorder.details[0]


# ReadStatistics to run, and all commands


def run_parts(inputs, folder):
    """Run every part of a plan that was serialized to JSON, one by one, and return the rows."""
    plan = Plan.from_json(json.dumps(Plan.of(ParquetSource(inputs, score_options())).as_dict()))
    Path(folder).mkdir()
    parts = PartFolder(Path(folder))
    parts.create()
    for part in plan.parts:
        run_part(plan, part.number, parts)
    return pa.concat_tables(map(pq.read_table, sorted(Path(folder).rglob("part-*.parquet"))))


def test_shards_and_resuming_make_the_same_bytes(files):
    """A folder made by shards and a resume, and parts made one by one, have the bytes of a single run."""
    batchmax.score(files, "whole")
    for shard in ("0/2", "1/2"):
        batchmax.score(files, "shared", shard=shard)
    batchmax.score(files, "shared", if_exists="resume")
    run_parts(files, "parts")
    for path in Path("whole").glob("part-*.parquet"):
        assert (Path("shared") / path.name).read_bytes() == path.read_bytes()
        (made,) = Path("parts").rglob(path.name)
        assert made.read_bytes() == path.read_bytes()


def test_a_plan_has_the_columns_of_folders(files):
    """A part that is made from a plan has the values of ``key=value`` folders that the output doesn't mirror."""
    for file, folder in zip(files, ("day=2", "day=1", "night=x"), strict=True):
        Path("in", folder).mkdir(parents=True)
        Path(file).rename(Path("in", folder, file))
    table = run_parts(["in"], "parts")
    assert table["day"].to_pylist() == [1] * ROWS + [2] * ROWS + [None] * ROWS
    assert table["night"].to_pylist() == [None] * 2 * ROWS + ["x"] * ROWS


@pytest.mark.usefixtures("files")
def test_a_folder_and_a_column_of_one_name():
    """A name that is a column in some files and a folder of others is refused."""
    Path("in/extra=1").mkdir(parents=True)
    Path("in/extra=2").mkdir()
    Path("a.parquet").rename("in/extra=1/a.parquet")
    Path("b.parquet").rename("in/extra=2/b.parquet")
    with pytest.raises(
        UsageError, match=r"^in/extra=1/a\.parquet: 'extra' is a folder name of this file, and a column in "
    ):
        batchmax.score("in", "out.parquet")


def test_every_command_reads_the_same_rows(files, logits, capsys):
    """All commands read the rows of different files like ``score``."""
    table = rows_of(*files)
    pq.write_table(
        pa.table(
            {"logits": lists(logits.reshape(-1, K), pa.list_(pa.float64())), "label": [row["label"] for row in table]}
        ),
        "plain.parquet",
    )
    batchmax.score(files, "scored.parquet")
    assert batchmax.verify("scored.parquet", files, sample=90).sampled_rows == 90
    one, many = batchmax.evaluate("plain.parquet"), batchmax.evaluate(files, by="extra")
    assert (one.mean_loss, one.accuracy, one.brier) == (many.mean_loss, many.accuracy, many.brier)
    assert {group["value"]: group["n_rows"] for group in many.slices["extra"]}[None] == 2 * ROWS
    assert batchmax.calibrate("plain.parquet").temperature == batchmax.calibrate(files).temperature
    assert batchmax.compare("plain.parquet", files).mean_kl == 0
    assert (
        batchmax.worst_rows(files, 90)["loss"].to_pylist()
        == batchmax.worst_rows("plain.parquet", 90)["loss"].to_pylist()
    )
    assert batchmax.report(files, "page.html").mean_loss == one.mean_loss
    batchmax.convert(files, "wide.parquet", "wide")
    wide = pq.read_table("wide.parquet")
    assert np.array_equal(np.column_stack([wide[f"logit_{k}"] for k in range(K)]), logits.reshape(-1, K))
    assert wide["extra"].to_pylist() == [row["extra"] for row in table]
    capsys.readouterr()
    for row in (0, ROWS, 2 * ROWS + 3):
        assert main(["show", *files, "--row", str(row), "--json"]) == 0
        assert_allclose(json.loads(capsys.readouterr().out)["logits"], logits.reshape(-1, K)[row].astype(float))


def test_rows_are_paired_by_a_key_of_different_types(files):
    """A key that is int32 in one file and int64 in another is one key."""
    found = batchmax.compare(files, files[::-1], key="id")
    assert (found.n_rows, found.mean_kl) == (3 * ROWS, 0)


def test_rejected_rows_have_every_column(files):
    """Rejected rows have the columns of all files."""
    bad = pq.read_table("c.parquet").to_pylist()
    bad[5]["logits"] = [float("nan")] * K
    pq.write_table(pa.Table.from_pylist(bad, pq.read_schema("c.parquet")), "c.parquet")
    batchmax.score(files, "out.parquet", on_bad_row="drop", rejects="rejects.parquet")
    (rejected,) = pq.read_table("rejects.parquet").to_pylist()
    assert (rejected["file"], rejected["row"], rejected["id"], rejected["extra"]) == ("c.parquet", 5, 105, None)
    assert pq.read_schema("rejects.parquet").field("id").type == pa.int64()


# Messages


def test_the_summary_says_what_was_united(files, capsys):
    """The summary, in text and JSON, has the number of files, and each column that differs between files."""
    assert main(["score", *files, "-o", "out.parquet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["files"] == files
    by_name = {one["column"]: one for one in summary["unified"]}
    assert list(by_name) == ["id", "name", "at", "logits", "label", "price", "tags", "meta", "extra"]
    assert by_name["id"] == {
        "column": "id",
        "type": "int64",
        "types": {"int32": 1, "int64": 1, "uint16": 1},
        "missing": 0,
    }
    assert by_name["extra"] == {"column": "extra", "type": "string", "types": {"string": 1}, "missing": 2}
    assert main(["score", *files, "-o", "out2.parquet"]) == 0
    text = capsys.readouterr().out
    assert "files: 3" in text
    assert "column 'id': read as int64 (int32 in 1, int64 in 1, uint16 in 1)" in text
    assert "column 'extra': read as string, null in the 2 of 3 files without it" in text
    assert main(["score", "a.parquet", "-o", "out3.parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unified"] == []


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "report", "convert"])
def test_other_summaries_say_it_too(files, command, capsys):
    """The JSON of every command that reads files lists the unified columns."""
    more = {
        "evaluate": [],
        "calibrate": ["-o", "c.json"],
        "report": ["-o", "r.html"],
        "convert": ["-o", "o.parquet", "--layout", "wide"],
    }
    assert main([command, *files, "--json", *more[command]]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "logits" in [one["column"] for one in found["unified"]]
    assert "files: 3" in found["notes"]


# Columns that can't be unified


def rewrite(file, **columns):
    """Rewrite a file with some columns replaced, or dropped if None."""
    table = pq.read_table(file)
    for name, column in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if column is not None:
            table = table.append_column(name, column)
    pq.write_table(table, file)


@pytest.mark.parametrize(
    ("file", "name", "column", "message"),
    [
        ("b", "id", pa.array(["x"] * ROWS), r"b\.parquet: column 'id' is string, but int32 in a\.parquet"),
        ("b", "at", pa.nulls(ROWS, pa.timestamp("us", "UTC")), r"b.*timestamp\[us, tz=UTC\], but timestamp\[ms\] in a"),
        (
            "c",
            "logits",
            pa.array([[0.0] * 5] * ROWS, pa.list_(pa.float32(), 5)),
            r"c.*: 5 classes, but 4 in a\.parquet",
        ),
        ("c", "logits", pa.array([[0.0] * 5] * ROWS), r"c\.parquet: 5 classes, but 4 in a\.parquet"),
        ("b", "logits", None, r"b\.parquet: there is no column 'logits', the logits column of a\.parquet"),
        ("a", "logits", None, r"a\.parquet: there is no column 'logits', the logits column of b\.parquet"),
        ("b", "label", None, r"b\.parquet: there is no column 'label', the label column of a\.parquet"),
        ("a", "label", None, r"a\.parquet: there is no column 'label', the label column of b\.parquet"),
        ("b", "label", pa.array(["x"] * ROWS), r"b\.parquet: column 'label' is string, but int32 in a\.parquet"),
        ("c", "logits", pa.array([1] * ROWS), r"c\.parquet: column 'logits' is int64, but list<float> in a\.parquet"),
    ],
)
def test_what_cannot_be_united_is_refused(files, file, name, column, message):
    """Files that can't be unified are refused with both files and a remedy, and no output is started."""
    rewrite(f"{file}.parquet", **{name: column})
    with pytest.raises(UsageError, match=message) as caught:
        batchmax.score(files, "out.parquet")
    assert caught.value.remedy
    assert not Path("out.parquet").exists()


def test_a_column_that_is_not_read_may_differ(files):
    """A column that isn't read may differ in any way, unless rejected rows are written."""
    rewrite("b.parquet", id=pa.array(["x"] * ROWS))
    batchmax.score(files, "out.parquet", exclude="id")
    batchmax.score(files, "few.parquet", columns="name")
    assert pq.read_table("few.parquet").column_names == ["name", "probs", "loss"]
    assert batchmax.evaluate(files).n_rows == 3 * ROWS
    assert batchmax.verify("out.parquet", files).sampled_rows == 20
    assert main(["show", *files, "--row", "35"]) == 0
    with pytest.raises(UsageError, match="column 'id' is string"):
        batchmax.score(files, "out2.parquet", exclude="id", on_bad_row="drop", rejects="rejects.parquet")


def test_labels_under_another_name(files):
    """A file with its labels in a column of another name is refused, and not read as unlabelled."""
    labels = pq.read_table("b.parquet")["label"]
    rewrite("b.parquet", label=None, target=labels)
    with pytest.raises(UsageError, match=r"b\.parquet: there is no column 'label'"):
        batchmax.score(files, "out.parquet")
    batchmax.score(files, "out.parquet", label="none")
    assert pq.read_table("out.parquet")["target"].null_count == 2 * ROWS


def test_wide_logits_of_another_number(tmp_path, monkeypatch):
    """A file without the column of one class is refused by name, and the class isn't filled with nulls."""
    monkeypatch.chdir(tmp_path)
    for file, n_classes in (("a", 3), ("b", 4)):
        pq.write_table(pa.table({f"logit_{k}": [0.5, 1.5] for k in range(n_classes)}), f"{file}.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet: there is no column 'logit_3', the logits column of b\.parquet"):
        batchmax.score(["a.parquet", "b.parquet"], "out.parquet")


def test_wide_logits_of_several_types(tmp_path, monkeypatch, logits):
    """Wide columns in another order and of the wrong type are matched by name."""
    monkeypatch.chdir(tmp_path)
    a = pa.table({f"logit_{k}": pa.array(logits[0, :, k]) for k in range(K)})
    b = pa.table({f"logit_{k}": pa.array(logits[1, :, k].astype(float)) for k in reversed(range(K))})
    pq.write_table(a, "a.parquet")
    pq.write_table(b, "b.parquet")
    batchmax.score(["a.parquet", "b.parquet"], "out.parquet", layout="list")
    assert_allclose(
        np.array(pq.read_table("out.parquet")["probs"].to_pylist()),
        softmax(logits[:2].reshape(-1, K).astype(float)),
        rtol=1e-14,
    )


def test_a_time_that_does_not_fit(tmp_path, monkeypatch):
    """A year that nanoseconds can't represent is an error that names both files, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    for file, kind, value in (("a", "ns", 0), ("b", "us", 253402214400000000)):
        columns = {"logits": [[0.0, 1.0]], "label": [0], "at": pa.array([value], pa.timestamp(kind))}
        pq.write_table(pa.table(columns), f"{file}.parquet")
    what = r"^b\.parquet: column 'at' is timestamp\[us\], but timestamp\[ns\] in a\.parquet, "
    with pytest.raises(UsageError, match=what + r".*, or leave the column out: --exclude at$"):
        batchmax.score(["a.parquet", "b.parquet"], "out.parquet")
    # evaluate has no --exclude.
    with pytest.raises(UsageError, match=what + r".*; write it with one type, or score the files one by one$"):
        batchmax.evaluate(["a.parquet", "b.parquet"], by="at")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_dotted_names_and_structs(tmp_path, monkeypatch, logits):
    """Logits in structs with other fields, and columns with dots in their names, are unified like others."""
    monkeypatch.chdir(tmp_path)
    a = {
        "out": [{"logits": [float(v) for v in row], "n": 1} for row in logits[0]],
        "a.b": pa.array([1] * ROWS, pa.int32()),
    }
    b = {"a.b": pa.array([2] * ROWS), "out": [{"more": "x", "logits": [float(v) for v in row]} for row in logits[1]]}
    pq.write_table(pa.table(a), "a.parquet")
    pq.write_table(pa.table(b), "b.parquet")
    batchmax.score(["a.parquet", "b.parquet"], "out.parquet", logits="out.logits")
    table = pq.read_table("out.parquet")
    assert table["a.b"].to_pylist() == [1] * ROWS + [2] * ROWS
    assert table["out"].to_pylist() == [{"n": 1, "more": None}] * ROWS + [{"n": None, "more": "x"}] * ROWS
    assert_allclose(np.array(table["probs"].to_pylist()), softmax(logits[:2].reshape(-1, K).astype(float)), rtol=1e-14)

"""Tests jobs from files and streams to files: values, row order, splits of the input, publishing, rejects, gates."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import batchmax
from batchmax import BadRowError, BatchmaxError, DataError, GateError, OutputError, UsageError
from batchmax.jobs import run, threads
from batchmax.jobs.score import dry_run, scan, score
from batchmax.options.score_options import score_options
from batchmax.outputs import OUTPUTS
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.sources import chunks
from batchmax.sources.parts import plan_parts
from tests.support import oracle
from tests.support.paths import DATA, ROOT
from tests.support.processes import HANGS
from tests.support.progress import Recorder
from tests.support.requirements import optional
from tests.support.rows import BAD, INF, NAN, columns_of, lists, odd_rows, some_logits

duckdb = optional("duckdb")
pd = optional("pandas")
pl = optional("polars")
torch = optional("torch")

LAYOUTS = sorted(path.stem.removeprefix("digits_") for path in (DATA / "layouts").glob("*.parquet"))
READ_AS = {
    "nested": {"logits": "outputs.logits"},
    "binary": {"logits_dtype": "float32"},
    "bfloat16": {"logits_dtype": "bfloat16"},
}
OTHER_NUMBERS = {"bfloat16", "list_float16", "list_int"}
ALL = tuple(OUTPUTS)


def digits(layout="list"):
    return DATA / "layouts" / f"digits_{layout}.parquet"


def table_of(n_rows=40, n_classes=4, seed=0, **more):
    logits = some_logits(n_rows, n_classes, seed=seed)
    labels = pa.array(np.arange(n_rows) % n_classes)
    return pa.table({"id": pa.array(np.arange(n_rows)), "logits": lists(logits), "label": labels, **more})


def odd_table():
    logits, labels, statuses = odd_rows()
    columns = {"id": list(range(len(labels))), "logits": pa.array(logits, pa.list_(pa.float32()))}
    return pa.table({**columns, "label": pa.array(labels, pa.int64())}), statuses


def group_sizes(path):
    footer = pq.read_metadata(path)
    return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


def contents(folder):
    """Return the names in a folder, including hidden ones."""
    return sorted(path.name for path in Path(folder).iterdir())


def bits(table):
    """Return rows as text that distinguishes all floats, including NaN and -0."""
    return [json.dumps(row, default=str) for row in table.to_pylist()]


@pytest.fixture
def small_chunks(monkeypatch):
    """Limit row groups of the output to 4 KiB of logits, and chunks to 1 KiB."""
    monkeypatch.setattr(chunks, "MOST_ROW_GROUP_BYTES", 4096)
    monkeypatch.setattr(chunks, "MOST_CHUNK_BYTES", 1024)


@pytest.fixture
def small_parts(monkeypatch):
    """Limit parts to 100 bytes of logits."""
    monkeypatch.setattr(run, "plan_parts", functools.partial(plan_parts, part_bytes=100))


# The numbers


def test_digits_agree_with_pytorch(tmp_path):
    """The sample's probabilities and losses are within 3 float32 ULP of PyTorch's in float64; the summary agrees."""
    table = pq.read_table(DATA / "digits.parquet")
    summary = score(DATA / "digits.parquet", tmp_path / "out.parquet", outputs="probs,loss")
    got = pq.read_table(tmp_path / "out.parquet")
    logits = torch.tensor(columns_of(table, "logits")).double()
    labels = torch.tensor(columns_of(table, "label"))
    probs = torch.softmax(logits, 1).numpy()
    # PyTorch's subtraction loses digits of the smallest losses; summing the other classes' probabilities doesn't.
    others = torch.where(torch.nn.functional.one_hot(labels, 10).bool(), 0.0, torch.softmax(logits, 1)).sum(1)
    losses = torch.where(others < 0.5, -torch.log1p(-others), torch.nn.functional.cross_entropy(
        logits, labels, reduction="none"
    ))  # fmt: skip
    assert oracle.ulp_error(columns_of(got, "probs"), probs, np.float32).max() <= 3
    assert oracle.ulp_error(columns_of(got, "loss"), losses.numpy(), np.float32).max() <= 3
    mean = torch.nn.functional.cross_entropy(logits, labels).item()
    assert summary.mean_loss == pytest.approx(mean, rel=1e-8)
    assert summary.log_likelihood == pytest.approx(-mean * 899, rel=1e-8)
    assert summary.perplexity == pytest.approx(np.exp(mean), rel=1e-8)
    assert summary.accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert (summary.n_rows, summary.n_classes, summary.bad_rows) == (899, 10, 0)
    assert summary.status_counts == {"ok": 899}
    assert summary.bytes_read == (DATA / "digits.parquet").stat().st_size
    assert summary.bytes_written == (tmp_path / "out.parquet").stat().st_size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_numbers(layout, tmp_path):
    """Layouts with the same logits give the same bits; rounded logits give the results of the rounded logits."""
    options = READ_AS.get(layout, {})
    dtype = "float32" if layout in {"list_float64", "spark", "list_int"} else None
    score(digits(layout), tmp_path / "out.parquet", outputs=ALL, dtype=dtype, layout="list", **options)
    got = pq.read_table(tmp_path / "out.parquet")
    plain = pq.read_table(digits())
    if layout in OTHER_NUMBERS:
        logits = columns_of(plain, "logits")
        if layout == "bfloat16":
            logits = torch.tensor(logits).bfloat16().float().numpy()
        else:
            logits = np.rint(logits) if layout == "list_int" else logits.astype(np.float16)
        plain = plain.set_column(1, "logits", lists(logits.astype(np.float64 if layout == "list_int" else np.float32)))
    elif layout in {"list_float64", "spark"}:
        plain = plain.set_column(1, "logits", lists(columns_of(plain, "logits").astype(np.float64)))
    want = pa.Table.from_batches([batchmax.score_batch(plain.to_batches()[0], outputs=ALL, dtype=dtype)])
    assert got.column_names == ["id", "label", *ALL]
    assert bits(got) == bits(want)


@pytest.mark.parametrize("name", ["string", "dictionary"])
@pytest.mark.parametrize("classes", ["classes.txt", "config.json"])
def test_labels_by_name_are_the_labels_by_number(name, classes, tmp_path):
    """Labels that are names or dictionaries of names give the same losses as class indices."""
    score(digits(), tmp_path / "numbers.parquet", outputs="probs,loss,rank")
    path = DATA / "labels" / f"digits_{name}.parquet"
    score(path, tmp_path / "names.parquet", outputs="probs,loss,rank", classes=str(DATA / "labels" / classes))
    numbers, names = (pq.read_table(tmp_path / f"{kind}.parquet").drop(["label"]) for kind in ("numbers", "names"))
    assert names.equals(numbers)


def test_distributions_as_labels(tmp_path):
    """Target distributions from a file give PyTorch's loss."""
    path = DATA / "labels" / "digits_distribution.parquet"
    score(path, tmp_path / "out.parquet", dtype="float64")
    table = pq.read_table(path)
    logits, targets = (torch.tensor(columns_of(table, name)).double() for name in ("logits", "label"))
    want = torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()
    np.testing.assert_allclose(columns_of(pq.read_table(tmp_path / "out.parquet"), "loss"), want, rtol=1e-12)


def test_class_names_of_hugging_face_are_used(tmp_path):
    """Predictions use the ClassLabel names in the file's metadata, and a note says so."""
    recorder = Recorder()
    score(DATA / "digits.parquet", tmp_path / "out.parquet", outputs="pred", progress=recorder)
    assert set(pq.read_table(tmp_path / "out.parquet")["pred"].to_pylist()) >= {"zero", "nine"}
    assert any("Hugging Face ClassLabel" in note for note in recorder.notes)


# Readers of the output


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.usefixtures("small_parts")
def test_others_read_files_and_folders(out, layout, tmp_path):
    """The libraries pyarrow, DuckDB, Polars and pandas read the same rows, including nulls and text."""
    table, _ = odd_table()
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    path = tmp_path / out
    score(tmp_path / "in.parquet", path, outputs=ALL, on_bad_row="null", top_k=2, layout=layout)
    whole = pa.Table.from_batches([batchmax.score_batch(
        table.combine_chunks().to_batches()[0], outputs=ALL, on_bad_row="null", top_k=2, layout=layout
    )]).to_pylist()  # fmt: skip
    files = f"{path}/*.parquet" if path.is_dir() else str(path)
    assert pq.read_table(path).to_pylist() == whole
    assert pl.read_parquet(files).to_dicts() == whole
    # DuckDB returns fixed-size lists as tuples.
    relation = duckdb.connect().sql(f"SELECT * FROM '{files}'")
    rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    assert [{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in rows] == whole
    frame = pd.read_parquet(path)
    assert list(frame.columns) == list(whole[0])
    assert frame["status"].tolist() == [row["status"] for row in whole]
    assert frame["loss"].isna().tolist() == [row["loss"] is None for row in whole]


# Splits of the input


def odd_and_many():
    table, _ = odd_table()
    more = table_of(60, 3).cast(table.schema)
    return pa.concat_tables([table, more]).combine_chunks()


CUT = odd_and_many()
CUT_WHOLE = bits(pa.Table.from_batches(
    [batchmax.score_batch(CUT.to_batches()[0], outputs=ALL, on_bad_row="null", top_k=2)]
))  # fmt: skip


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, CUT.num_rows), max_size=4),
    st.integers(1, CUT.num_rows),
    st.none() | st.integers(1, CUT.num_rows),
)
def test_splitting_changes_no_bit(cuts, group, row_group_size):
    """No bit of any row depends on the input's files and row groups, or on the row groups of the output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        edges = [0, *sorted(cuts), CUT.num_rows]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            pq.write_table(CUT.slice(start, end - start), folder / f"{number}.parquet", row_group_size=group)
        options = {"outputs": ALL, "on_bad_row": "null", "top_k": 2, "row_group_size": row_group_size}
        summary = score(folder, folder / "out.pq", n_classes=3, **options)
        score(str(folder / "[0-9].parquet"), folder / "parts", n_classes=3, **options)
        assert bits(pq.read_table(folder / "out.pq")) == CUT_WHOLE
        assert bits(pq.read_table(folder / "parts")) == CUT_WHOLE
        assert summary.n_rows == CUT.num_rows


@pytest.mark.parametrize(("n_rows", "n_classes"), [(20_000, 10), (500, 1000)])
def test_every_number_of_threads_gives_the_same_bytes(n_rows, n_classes, tmp_path):
    """Output files have the same bytes for any number of threads and any path, and at any time."""
    pq.write_table(table_of(n_rows, n_classes), tmp_path / "in.parquet", row_group_size=n_rows // 3)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "in.parquet", tmp_path / "elsewhere" / "other.parquet")
    score(tmp_path / "in.parquet", tmp_path / "a.parquet", outputs=ALL, threads=1)
    score(tmp_path / "in.parquet", tmp_path / "b.parquet", outputs=ALL, threads=2)
    score(tmp_path / "elsewhere" / "other.parquet", tmp_path / "elsewhere" / "c.pq", outputs=ALL, threads=7)
    first = (tmp_path / "a.parquet").read_bytes()
    assert (tmp_path / "b.parquet").read_bytes() == first
    assert (tmp_path / "elsewhere" / "c.pq").read_bytes() == first


@pytest.mark.usefixtures("small_chunks")
def test_chunks_within_a_row_group_change_no_bit(tmp_path):
    """A row group that is processed in several chunks gives the bits of a single batch."""
    table = table_of(1000, 10)
    pq.write_table(table, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs=ALL)
    want = batchmax.score_batch(table.to_batches()[0], outputs=ALL)
    assert bits(pq.read_table(tmp_path / "out.parquet")) == bits(pa.Table.from_batches([want]))
    assert max(group_sizes(tmp_path / "out.parquet")) * 10 * 4 <= 4096


def test_row_groups_are_the_inputs(tmp_path):
    """The output has the input's row groups, even if they're tiny or in many files; none is empty."""
    for number, size in enumerate((7, 1, 16)):
        pq.write_table(table_of(20), tmp_path / f"{number}.parquet", row_group_size=size)
    score(tmp_path, tmp_path / "out.pq")
    assert group_sizes(tmp_path / "out.pq") == [7, 7, 6, *[1] * 20, 16, 4]


def test_row_groups_are_of_at_most_64_mib(tmp_path):
    """A row group above 64 MiB of logits is split into equal pieces."""
    n_rows = 180_000
    column = pa.FixedSizeListArray.from_arrays(np.zeros(n_rows * 100, np.float32), 100)
    pq.write_table(pa.table({"logits": column}), tmp_path / "in.parquet", row_group_size=n_rows)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="entropy")
    assert group_sizes(tmp_path / "out.parquet") == [90_000, 90_000]
    assert 90_000 * 400 <= 64 << 20


@pytest.mark.parametrize("size", [1, 9, 13, 40, 1000])
def test_row_group_size_is_taken_outright(size, tmp_path):
    """With ``row_group_size``, every row group but the last has exactly that many rows.

    This holds across row groups and files of the input.
    """
    for number in range(2):
        pq.write_table(table_of(20), tmp_path / f"{number}.parquet", row_group_size=7)
    score(tmp_path, tmp_path / "out.pq", row_group_size=size)
    sizes = group_sizes(tmp_path / "out.pq")
    assert sum(sizes) == 40
    assert set(sizes[:-1]) <= {size}
    assert sizes[-1] == (40 % size or size if size < 40 else 40)


@pytest.mark.usefixtures("small_parts", "small_chunks")
def test_rows_keep_their_order(tmp_path):
    """Rows keep the order of files and rows, in a file and in parts."""
    for number, start in ((2, 0), (10, 500), (1, 900)):
        ids = pa.array(np.arange(start, start + 300))
        pq.write_table(table_of(300).set_column(0, "id", ids), tmp_path / f"f{number}.parquet", row_group_size=37)
    want = [*range(900, 1200), *range(500, 800), *range(300)]
    for out in ("out.parquet", "out"):
        score(str(tmp_path / "f*.parquet"), tmp_path / out, outputs="pred")
        files = sorted((tmp_path / out).glob("part-*")) if out == "out" else [tmp_path / out]
        assert [row for file in files for row in pq.read_table(file)["id"].to_pylist()] == want


# Folders, publishing, limits


@pytest.mark.usefixtures("small_parts")
def test_a_folder_holds_parts_and_success_and_nothing_else(tmp_path):
    """An output folder contains only the parts, an empty ``_SUCCESS`` and the manifest.

    Parts are whole row groups. The manifest has the sizes of the parts and the summary.
    """
    pq.write_table(table_of(20), tmp_path / "in.parquet", row_group_size=5)
    summary = score(tmp_path / "in.parquet", tmp_path / "out", outputs="pred,loss")
    assert contents(tmp_path) == ["in.parquet", "out"]
    parts = [f"part-0000{number}.parquet" for number in range(4)]
    assert contents(tmp_path / "out") == ["_SUCCESS", "_batchmax.parquet", *parts]
    assert [group_sizes(part) for part in sorted((tmp_path / "out").glob("part-*"))] == [[5]] * 4
    assert (tmp_path / "out" / "_SUCCESS").read_bytes() == b""
    manifest = pq.read_metadata(tmp_path / "out" / "_batchmax.parquet")
    assert manifest.num_rows == 0
    assert manifest.schema.to_arrow_schema() == pq.read_schema(tmp_path / "out" / parts[0])
    said = json.loads(manifest.metadata[b"batchmax.manifest"])
    assert said["parts"] == {part: (tmp_path / "out" / part).stat().st_size for part in parts}
    passing = {"files": 0, "seconds": 0, "bytes_written": 0, "held": 0}
    assert said["summary"] | passing == json.loads(summary.to_json()) | passing


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_what_is_there_is_replaced_only_when_asked(out, tmp_path):
    """An existing output is refused by default, and replaced as a whole by ``overwrite``."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    path = tmp_path / out
    score(tmp_path / "in.parquet", path, outputs="pred")
    with pytest.raises(OutputError, match=r"the output exists; .*--if-exists overwrite"):
        score(tmp_path / "in.parquet", path, outputs="loss")
    assert "pred" in pq.read_table(path).column_names
    score(tmp_path / "in.parquet", path, outputs="loss", if_exists="overwrite")
    assert "loss" in pq.read_table(path).column_names
    assert not [name for name in contents(tmp_path) if name.startswith(".")]


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path):
    """A folder that batchmax didn't write is never overwritten."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="not a folder that batchmax wrote"):
        score(tmp_path / "in.parquet", tmp_path / "out", if_exists="overwrite")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.usefixtures("small_parts")
def test_a_bad_row_leaves_everything_as_it_was(out, tmp_path):
    """With ``on_bad_row='error'``, the error names file, row and row group, and nothing of the output remains."""
    table = table_of(30)
    logits = table["logits"].to_pylist()
    logits[23][2] = NAN
    bad = table.set_column(1, "logits", pa.array(logits, pa.list_(pa.float32())))
    pq.write_table(table, tmp_path / "1.parquet", row_group_size=5)
    pq.write_table(bad, tmp_path / "2.parquet", row_group_size=5)
    inputs = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    with pytest.raises(BadRowError) as caught:
        score(inputs, tmp_path / out)
    second = tmp_path / "2.parquet"
    assert str(caught.value) == (
        f"{second}: row 23 (row group 4): NaN at class 2; look: batchmax show {second} --row 23; "
        "go on: --on-bad-row null"
    )
    assert contents(tmp_path) == ["1.parquet", "2.parquet"]


@pytest.mark.parametrize("limit", [0, 1, 10, 20, 25, 40, 1000])
@pytest.mark.parametrize("out", ["out.pq", "out"])
@pytest.mark.usefixtures("small_parts")
def test_limit_takes_the_first_rows(limit, out, tmp_path):
    """A limit of N takes the first N rows of all files; with no rows, the output still has its columns."""
    for number in range(2):
        pq.write_table(table_of(20, seed=number), tmp_path / f"{number}.parquet", row_group_size=8)
    source_path = str(tmp_path / "?.parquet")
    score(source_path, tmp_path / "whole.pq", outputs=ALL)
    summary = score(source_path, tmp_path / out, outputs=ALL, limit=limit)
    got = pq.read_table(tmp_path / out)
    assert bits(got) == bits(pq.read_table(tmp_path / "whole.pq"))[:limit]
    assert got.column_names == ["id", "label", *ALL]
    assert summary.n_rows == min(limit, 40)


def damage(path, group):
    """Overwrite the data of the second column in a row group."""
    column = pq.read_metadata(path).row_group(group).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)


def test_a_damaged_file_is_named_and_what_lies_after_the_limit_is_not_read(tmp_path):
    """A row group that can't be read is an error that names the file.

    A row group after the limit isn't read.
    """
    path = tmp_path / "in.parquet"
    pq.write_table(table_of(400), path, row_group_size=100)
    damage(path, 2)
    assert score(path, tmp_path / "out.parquet", limit=200).n_rows == 200
    with pytest.raises(DataError, match=rf"{path}: cannot be read: .*batchmax inspect"):
        score(path, tmp_path / "other.parquet")
    assert contents(tmp_path) == ["in.parquet", "out.parquet"]


# Rejects and gates


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rejects_are_whole_rows_with_their_place(layout, out, tmp_path):
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
        assert contents(tmp_path / "rejects") == ["_SUCCESS", "_batchmax.parquet", "part-00000.parquet"]


def test_every_bad_status_is_rejected_and_no_other(tmp_path):
    """Rejects have exactly the bad rows; without bad rows, they have no rows but all columns."""
    table, statuses = odd_table()
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


def test_rejects_of_files_whose_columns_are_ordered_otherwise(tmp_path):
    """Files may have their columns in different orders, and additional columns, in the output and in the rejects."""
    table, statuses = odd_table()
    pq.write_table(table, tmp_path / "1.parquet")
    pq.write_table(table.select(["label", "id", "logits"]).append_column("x", table["id"]), tmp_path / "2.parquet")
    rejects = tmp_path / "rejects.pq"
    score(str(tmp_path / "?.parquet"), tmp_path / "out.pq", on_bad_row="drop", rejects=str(rejects), exclude="id")
    got = pq.read_table(rejects)
    n_bad = sum(status in BAD for status in statuses)
    assert got.column_names == ["id", "logits", "label", "x", "file", "row", "status"]
    assert got["id"].to_pylist()[:n_bad] == got["id"].to_pylist()[n_bad:] == got["x"].to_pylist()[n_bad:]
    assert pq.read_table(tmp_path / "out.pq").column_names == ["label", "x", "probs", "loss"]


def test_rejects_keep_columns_named_as_theirs(tmp_path):
    """An input column named file, row or status keeps its name in the rejects; the added column gets a prefix."""
    table, _ = odd_table()
    pq.write_table(table.append_column("row", table["id"]), tmp_path / "in.parquet")
    score(
        tmp_path / "in.parquet", tmp_path / "out.pq", on_bad_row="drop", rejects=str(tmp_path / "rejects.pq")
    )  # fmt: skip
    got = pq.read_table(tmp_path / "rejects.pq")
    assert got.column_names[-4:] == ["row", "file", "batchmax_row", "status"]
    assert got["row"].equals(got["batchmax_row"])


@pytest.mark.parametrize(
    ("rejects", "error", "says"),
    [
        ("rejects", UsageError, "of a file go to a file"),
        ("out.parquet", UsageError, "the same path"),
        ("in.parquet", OutputError, "also an input"),
        ("in.parquet/rejects.parquet", OutputError, "in.parquet is not a folder"),
    ],
)
def test_rejects_go_where_they_harm_nobody(rejects, error, says, tmp_path):
    """Rejects can't have the path of an input or of the output, or a path below a file.

    The rejects of an output file must be a file.
    """
    pq.write_table(table_of(5), tmp_path / "in.parquet")
    before = (tmp_path / "in.parquet").read_bytes()
    with pytest.raises(error, match=says):
        score(
            tmp_path / "in.parquet",
            tmp_path / "out.parquet",
            on_bad_row="drop",
            rejects=str(tmp_path / rejects),
            if_exists="overwrite",
        )
    assert (tmp_path / "in.parquet").read_bytes() == before
    assert contents(tmp_path) == ["in.parquet"]


@pytest.mark.parametrize("out", ["in.parquet", "link.parquet", "hard.parquet"])
def test_the_input_is_never_the_output(out, tmp_path):
    """An output path that is an input, also through a symbolic or hard link, is refused."""
    pq.write_table(table_of(5), tmp_path / "in.parquet")
    before = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "link.parquet").symlink_to("in.parquet")
    (tmp_path / "hard.parquet").hardlink_to(tmp_path / "in.parquet")
    with pytest.raises(OutputError, match="also an input"):
        score(tmp_path / "in.parquet", tmp_path / out, if_exists="overwrite")
    assert (tmp_path / "in.parquet").read_bytes() == before


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_a_gate_that_is_true_holds_the_finished_output(out, tmp_path):
    """If a gate fails, the output path is unchanged.

    The finished output and its rejects are held in paths that end in ``.held``.
    """
    table, _ = odd_table()
    pq.write_table(table, tmp_path / "in.parquet")
    score(digits(), tmp_path / out)
    before = bits(pq.read_table(tmp_path / out))
    rejects = tmp_path / ("rejects.parquet" if "." in out else "rejects")
    options = {"on_bad_row": "drop", "rejects": str(rejects), "if_exists": "overwrite"}
    for _ in range(2):
        with pytest.raises(
            GateError, match=rf"bad_rate is 0\.\d+; the finished output is .*{out}\.held; to keep it: --if-exists"
        ):
            score(tmp_path / "in.parquet", tmp_path / out, fail_if="bad_rate > 0.5", **options)
    assert bits(pq.read_table(tmp_path / out)) == before
    held = Path(f"{tmp_path / out}.held")
    score(tmp_path / "in.parquet", tmp_path / out, fail_if="bad_rate > 0.99", **options)
    assert bits(pq.read_table(held)) == bits(pq.read_table(tmp_path / out))
    assert bits(pq.read_table(f"{rejects}.held")) == bits(pq.read_table(rejects))


def test_a_gate_over_a_count_stops_the_run(tmp_path):
    """The run stops once a count exceeds its gate's limit; the rest isn't read, and nothing is written."""
    table, _ = odd_table()
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
    assert contents(tmp_path) == ["in.parquet"]


def test_a_gate_over_what_does_not_exist_is_true(tmp_path):
    """A missing value fails its gate: rows without labels have no mean loss."""
    pq.write_table(table_of(5).drop(["label"]), tmp_path / "in.parquet")
    with pytest.raises(GateError, match=r"mean_loss has no value .the rows have no labels."):
        score(tmp_path / "in.parquet", tmp_path / "out.parquet", fail_if="mean_loss > 1e9")


# Warnings and the summary


def test_rows_that_are_probabilities_warn(tmp_path):
    """Rows in [0, 1] that sum to 1 cause a warning, because they're probably not logits.

    With ``input='probs'``, there is no warning.
    """
    probs = np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32)
    pq.write_table(pa.table({"logits": lists(probs)}), tmp_path / "in.parquet")
    recorder = Recorder()
    summary = score(tmp_path / "in.parquet", tmp_path / "a.parquet", progress=recorder)
    assert (
        summary.warnings
        == recorder.warnings
        == ["the rows look like probabilities already; if they are: --input probs"]
    )
    assert score(tmp_path / "in.parquet", tmp_path / "b.parquet", input="probs").warnings == []
    assert score(digits(), tmp_path / "c.parquet").warnings == []


def test_one_class_is_refused(tmp_path):
    """One class is refused before anything is written, because its softmax is always 1."""
    pq.write_table(pa.table({"logits": lists(np.ones((3, 1), np.float32))}), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="one number in a row, whose softmax is always 1"):
        score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_infinite_losses_warn_and_leave_no_mean(tmp_path):
    """A masked label makes the mean loss infinite; the summary then has no mean loss and a warning."""
    logits = lists(np.array([[0.0, 1.0], [-INF, 0.0]], np.float32))
    pq.write_table(pa.table({"logits": logits, "label": [0, 0]}), tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (summary.infinite_losses, summary.mean_loss, summary.perplexity, summary.accuracy) == (1, None, None, 0.0)
    assert "1 rows have an infinite loss" in summary.warnings[0]
    assert json.loads(summary.to_json())["status_counts"] == {"masked_label": 1, "ok": 1}


def test_the_mean_loss_is_weighted_as_in_pytorch(tmp_path):
    """With class weights, the mean loss is divided by the sum of the labels' weights, as in PyTorch.

    The log-likelihood has no weights and no smoothing.
    """
    table = pq.read_table(DATA / "digits.parquet")
    logits, labels = torch.tensor(columns_of(table, "logits")).double(), torch.tensor(columns_of(table, "label"))
    weights = np.arange(1.0, 11.0)
    summary = score(
        DATA / "digits.parquet", tmp_path / "out.parquet", class_weights=weights, label_smoothing=0.1, ignore_index=4
    )
    mean = torch.nn.functional.cross_entropy(
        logits, labels, torch.tensor(weights), label_smoothing=0.1, ignore_index=4
    ).item()
    plain = torch.nn.functional.cross_entropy(logits, labels, ignore_index=4, reduction="sum").item()
    assert summary.mean_loss == pytest.approx(mean, rel=1e-8)
    assert summary.log_likelihood == pytest.approx(-plain, rel=1e-8)


# Metadata


def test_metadata_is_rebuilt(tmp_path):
    """Metadata that describe the input's columns are removed.

    Other keys are kept; if files differ, the first file's value is used.
    """
    theirs = dict.fromkeys(("pandas", "huggingface", "org.apache.spark.sql.parquet.row.metadata"), "{}")
    theirs |= {"batchmax": "old", "batchmax.summary": "old"}
    first = table_of(5).replace_schema_metadata({**theirs, "owner": "first", "a": "1"})
    second = table_of(5).replace_schema_metadata({**theirs, "owner": "second", "b": "2"})
    pq.write_table(first, tmp_path / "1.parquet")
    pq.write_table(second, tmp_path / "2.parquet")
    score(str(tmp_path / "?.parquet"), tmp_path / "out.pq")
    metadata = pq.read_metadata(tmp_path / "out.pq").metadata
    assert set(metadata) == {b"ARROW:schema", b"batchmax", b"batchmax.summary", b"owner", b"a", b"b"}
    assert metadata[b"owner"] == b"first"
    assert json.loads(metadata[b"batchmax.summary"])["n_rows"] == 10
    assert pq.read_schema(tmp_path / "out.pq").names == ["id", "label", "probs", "loss"]


def test_the_batchmax_key_says_what_decides_the_bytes(tmp_path):
    """The ``batchmax`` key has the version, the options and a fingerprint of the inputs.

    It has no paths, times, host names or numbers of threads.
    """
    score(digits(), tmp_path / "out.parquet", temperature=0.5, classes=DATA / "labels" / "classes.txt", threads=2)
    said = json.loads(pq.read_metadata(tmp_path / "out.parquet").metadata[b"batchmax"])
    assert said["version"] == batchmax.__version__
    assert said["temperature"] == 0.5
    assert said["classes"][3] == "three"
    assert said["outputs"] == ["probs", "loss"]
    assert [set(file) for file in said["inputs"]] == [{"size", "footer_sha256", "sample_sha256"}]
    assert said["inputs"][0]["size"] == digits().stat().st_size
    text = json.dumps(said)
    assert str(tmp_path) not in text
    assert not {"threads", "seconds", "host", "memory_limit", "time"} & ({*said} | {*said["options"]})


def test_pandas_metadata_do_not_follow(tmp_path):
    """A pandas frame with an index is scored, and pandas reads the result with the index as a column."""
    frame = pd.DataFrame({"logits": [[1.0, 2.0], [2.0, 1.0]], "label": [0, 1]}, index=pd.Index([7, 8], name="key"))
    frame.to_parquet(tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    got = pd.read_parquet(tmp_path / "out.parquet")
    assert b"pandas" not in pq.read_metadata(tmp_path / "out.parquet").metadata
    assert got["key"].tolist() == [7, 8]
    assert list(got.columns) == ["label", "key", "probs", "loss"]


@pytest.mark.parametrize("codec", ["zstd", "gzip", "lz4", "snappy", "none"])
def test_codecs_follow_the_input(codec, tmp_path):
    """Computed columns have the codec of the logits, and carried columns keep theirs.

    The option ``compression`` applies to all columns.
    """
    codecs = {"id": "brotli", "label": "snappy", "logits.list.element": codec}
    empty, path = tmp_path / "0.parquet", tmp_path / "1.parquet"
    pq.write_table(table_of(0), empty)
    pq.write_table(table_of(40), path, compression=codecs)

    def written(**options):
        score([empty, path], tmp_path / "out.pq", if_exists="overwrite", **options)
        group = pq.read_metadata(tmp_path / "out.pq").row_group(0)
        columns = (group.column(number) for number in range(group.num_columns))
        return {column.path_in_schema.split(".")[0]: column.compression for column in columns}

    name = {"none": "UNCOMPRESSED"}.get(codec, codec.upper())
    assert written() == {"id": "BROTLI", "label": "SNAPPY", "probs": name, "loss": name}
    assert set(written(compression="gzip").values()) == {"GZIP"}


def test_pages_carry_checksums(tmp_path):
    """A flipped bit in any column of the output is an error if checksums are verified."""
    score(digits(), tmp_path / "out.parquet", compression="none", outputs=ALL)
    footer = pq.read_metadata(tmp_path / "out.parquet")
    data = (tmp_path / "out.parquet").read_bytes()
    for number in range(footer.num_columns):
        column = footer.row_group(0).column(number)
        flipped = bytearray(data)
        flipped[column.data_page_offset + column.total_compressed_size - 1 - (
            column.data_page_offset - (column.dictionary_page_offset or column.data_page_offset)
        )] ^= 1  # fmt: skip
        (tmp_path / "flipped.parquet").write_bytes(flipped)
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(tmp_path / "flipped.parquet", page_checksum_verification=True)


def test_the_nested_column_loses_its_logits(tmp_path):
    """The other fields of a struct with the logits are carried; a struct with only the logits isn't."""
    table = pq.read_table(digits("nested"))
    inner = table["outputs"].combine_chunks()
    logits = inner.field("logits")
    both = pa.StructArray.from_arrays([logits, pa.array(range(60))], ["logits", "step"])
    pq.write_table(table.set_column(1, "outputs", both), tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "both.parquet", logits="outputs.logits")
    score(digits("nested"), tmp_path / "alone.parquet", logits="outputs.logits")
    got = pq.read_table(tmp_path / "both.parquet")
    assert got["outputs"].to_pylist() == [{"step": step} for step in range(60)]
    assert pq.read_table(tmp_path / "alone.parquet").column_names == ["id", "label", "probs", "loss"]


# Streams


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
def test_streams_are_scored_as_files_are(kind, policy, tmp_path):
    """Tables, readers, data frames and query results give the same rows as a file with these rows."""
    table, statuses = odd_table()
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
    assert bits(pq.read_table(tmp_path / "stream.parquet")) == bits(pq.read_table(tmp_path / "file.parquet"))
    assert summary.n_rows == len(statuses)
    assert summary.files == []


def test_rows_of_a_stream_are_named(tmp_path):
    """Errors and rejects number the rows of a stream from its beginning, across batches."""
    table, statuses = odd_table()
    bad = [row for row, status in enumerate(statuses) if status in BAD]
    with pytest.raises(BadRowError, match=f"the stream: row {bad[0]}: "):
        score(pa.Table.from_batches(table.to_batches(max_chunksize=3)), tmp_path / "out.parquet")
    options = {"on_bad_row": "drop", "rejects": str(tmp_path / "rejects.parquet")}
    score(pa.Table.from_batches(table.to_batches(max_chunksize=3)), tmp_path / "out.parquet", **options)
    assert pq.read_table(tmp_path / "rejects.parquet")["row"].to_pylist() == bad


@pytest.mark.usefixtures("small_chunks")
def test_streams_have_row_groups_of_their_own(tmp_path):
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


def test_views_of_text_are_carried(tmp_path):
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
def test_what_is_no_input_is_refused(src, tmp_path):
    """An input that is neither paths nor a stream is a usage error."""
    with pytest.raises(UsageError, match=r"is not accepted"):
        score(src, tmp_path / "out.parquet")


@pytest.mark.usefixtures("small_chunks")
def test_scan_computes_as_it_is_pulled(tmp_path):
    """A reader from ``scan`` yields what ``score`` writes, and doesn't read further than its batches need."""
    table = table_of(1000, 10)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=300)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs=ALL)
    reader = scan(tmp_path / "in.parquet", outputs=ALL)
    assert reader.schema.names == ["id", "label", *ALL]
    batches = list(reader)
    assert len(batches) > 4
    # Batches don't share memory: the first one hasn't changed.
    assert bits(pa.Table.from_batches(batches)) == bits(pq.read_table(tmp_path / "out.parquet"))
    assert scan(table, limit=5).read_all().num_rows == 5
    damage(tmp_path / "in.parquet", 3)
    reader = scan(tmp_path / "in.parquet")
    assert reader.read_next_batch()["id"][0].as_py() == 0
    with pytest.raises((BatchmaxError, pa.ArrowException, OSError)):
        reader.read_all()


@pytest.mark.parametrize("options", [{"fail_if": "bad_rows > 0"}, {"on_bad_row": "drop", "rejects": "r.parquet"}])
def test_scan_refuses_what_it_cannot_do(options):
    """``scan`` refuses gates and rejects."""
    with pytest.raises(UsageError, match="a reader cannot do that"):
        scan(digits(), **options)


def test_scan_drops_bad_rows():
    """``scan`` drops bad rows with ``on_bad_row='drop'``."""
    table, statuses = odd_table()
    got = scan(table, on_bad_row="drop").read_all()
    assert got["id"].to_pylist() == [row for row, status in enumerate(statuses) if status not in BAD]


# Odd inputs


def test_names_with_dots_are_names(tmp_path):
    """A dot in a column's name isn't a path into a struct, neither in input names nor in new ones."""
    inner = pa.array([{"c": 1, "d.e": 2}] * 5)
    table = table_of(5, **{"a.b": pa.array(range(5)), "a": inner})
    pq.write_table(table, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", prefix="new.")
    got = pq.read_table(tmp_path / "out.parquet")
    assert got.column_names == ["id", "label", "a.b", "a", "new.probs", "new.loss"]
    assert got.select(["a.b", "a"]).to_pylist() == table.select(["a.b", "a"]).to_pylist()


def test_files_without_rows(tmp_path):
    """Empty files among others add nothing.

    Alone, they need ``n_classes``, and the output has its columns.
    """
    pq.write_table(table_of(0), tmp_path / "0.parquet")
    pq.write_table(table_of(5), tmp_path / "1.parquet")
    pq.write_table(table_of(0), tmp_path / "2.parquet")
    summary = score(str(tmp_path / "?.parquet"), tmp_path / "out.pq", outputs=ALL)
    assert (summary.n_rows, group_sizes(tmp_path / "out.pq")) == (5, [5])
    with pytest.raises(DataError, match="--n-classes"):
        score(tmp_path / "0.parquet", tmp_path / "none.pq")
    for out in ("empty.pq", "empty"):
        summary = score(tmp_path / "0.parquet", tmp_path / out, outputs=ALL, n_classes=4)
        assert pq.read_table(tmp_path / out).num_rows == 0
        assert pq.read_schema(
            tmp_path / out / "part-00000.parquet" if out == "empty" else tmp_path / out
        ).names == ["id", "label", *ALL]  # fmt: skip
        assert (summary.mean_loss, summary.bad_rate, summary.accuracy) == (None, None, None)


def test_row_groups_of_nulls(tmp_path):
    """Row groups without any logits, first, last and in between, give null rows."""
    table = table_of(30)
    logits = [None if row // 5 in {0, 3, 5} else value for row, value in enumerate(table["logits"].to_pylist())]
    table = table.set_column(1, "logits", pa.array(logits, pa.list_(pa.float32())))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet", on_bad_row="null", outputs=ALL)
    got = pq.read_table(tmp_path / "out.parquet")
    assert [row is None for row in got["probs"].to_pylist()] == [row is None for row in logits]
    assert summary.status_counts["null_logits"] == 15
    score(tmp_path / "in.parquet", tmp_path / "left.parquet", on_bad_row="drop")
    assert group_sizes(tmp_path / "left.parquet") == [5, 5, 5]


def test_many_tiny_row_groups(tmp_path):
    """A thousand row groups of one row are scored correctly."""
    table = table_of(1000)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    want = batchmax.score_batch(table.to_batches()[0])
    assert bits(pq.read_table(tmp_path / "out.parquet")) == bits(pa.Table.from_batches([want]))


@pytest.mark.parametrize("as_fixed", [False, True])
def test_files_that_differ_in_classes_are_refused(as_fixed, tmp_path):
    """Inputs with different numbers of classes are refused, and the error names the files."""
    for name, n_classes in (("1", 4), ("2", 5)):
        table = table_of(5, n_classes)
        if as_fixed:
            column = lists(some_logits(5, n_classes), pa.list_(pa.float32(), n_classes))
            table = table.set_column(1, "logits", column)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(UsageError) as caught:
        score(tmp_path, tmp_path / "out.pq")
    assert caught.value.where == str(tmp_path / "2.parquet")
    assert str(tmp_path / "1.parquet") in caught.value.what
    assert contents(tmp_path) == ["1.parquet", "2.parquet"]


@pytest.mark.parametrize("column", ["label", "id"])
def test_files_that_differ_in_columns_are_refused(column, tmp_path):
    """Files with incompatible types of a column, and files with two columns of one name, are refused.

    The error names the file.
    """
    table = table_of(5)
    other = table[column].cast(pa.string())
    pq.write_table(table, tmp_path / "1.parquet")
    pq.write_table(table.drop([column]).append_column(column, other), tmp_path / "3.parquet")
    pq.write_table(table.append_column(column, other), tmp_path / "4.parquet")
    with pytest.raises(UsageError, match=f"3.parquet: column '{column}' is string, but int64 in .*1.parquet"):
        score([tmp_path / "1.parquet", tmp_path / "3.parquet"], tmp_path / "out.pq")
    with pytest.raises(UsageError, match=f"4.parquet: there are two columns '{column}'"):
        score([tmp_path / "1.parquet", tmp_path / "4.parquet"], tmp_path / "out.pq")


def test_sparse_vectors_are_named_by_file_and_row(tmp_path):
    """A sparse Spark vector is an error that names file and row, whether or not it's in the first row."""
    kind = pq.read_schema(digits("spark")).field("logits").type
    dense = {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0]}
    sparse = {"type": 0, "size": 2, "indices": [0], "values": [1.0]}
    for row in (0, 5):
        vectors = [sparse if number == row else dense for number in range(8)]
        table = pa.table({"logits": pa.array(vectors, kind)})
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
        with pytest.raises(DataError, match=rf"in\.parquet: row {row}\b.*a sparse Spark vector.*make it dense"):
            score(tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_a_dry_run_says_what_would_be(tmp_path):
    """A dry run returns rows, classes, schema, parts and output size, and writes nothing."""
    options = score_options(outputs=ALL, top_k=3, classes=DATA / "labels" / "classes.txt", limit=7)
    plan = dry_run(digits(), str(tmp_path / "out"), options)
    assert (plan["n_rows"], plan["n_classes"]) == (7, 10)
    assert list(plan["schema"]) == ["id", "label", *ALL, "top_k_classes", "top_k_probs"]
    assert plan["parts"] == [{"name": "part-00000.parquet", "rows": 60}]
    assert contents(tmp_path) == []
    wide = dry_run(digits(), str(tmp_path / "out"), score_options(outputs="probs", dtype="float64"))
    assert wide["bytes_written"] == 60 * 10 * 8
    assert_array_equal(wide["parts"][0]["rows"], 60)


# Spark


def test_what_spark_says_of_the_input_is_dropped(tmp_path):
    """Spark's metadata keys are removed, and no other metadata.

    Spark prefers its own keys to the schema, so it wouldn't see new columns.
    """
    before = pq.read_metadata(digits("spark")).metadata
    assert any(key.startswith(b"org.apache.spark") for key in before)
    score(digits("spark"), tmp_path / "out.parquet")
    after = pq.read_metadata(tmp_path / "out.parquet").metadata
    assert set(after) == {b"ARROW:schema", b"batchmax", b"batchmax.summary"}
    assert pq.read_schema(tmp_path / "out.parquet").names == ["id", "label", "probs", "loss"]


@pytest.mark.spark
def test_spark_sees_what_was_added_to_its_own_files(tmp_path):
    """Spark reads the columns probs and loss of scored files that it wrote, with arrays and ML vectors."""
    program = ROOT / "tests/support/spark_round_trip.py"
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(DATA.parent)}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    logits = np.array(said["logits"])
    labels = np.arange(len(logits)) % 4
    assert set(said["seen"]) == {"array_scored.parquet", "array_scored", "vector_scored.parquet", "vector_scored"}
    for name, seen in said["seen"].items():
        single = name.startswith("array")
        assert seen["columns"] == ["id", "label", "probs", "loss"]
        kind = "float" if single else "double"
        assert seen["types"][2:] == [f"array<{kind}>", kind]
        dtype = np.float32 if single else np.float64
        assert oracle.ulp_error(seen["probs"], oracle.softmax(logits), dtype).max() <= 3
        assert oracle.ulp_error(seen["loss"], oracle.cross_entropy(logits, labels), dtype).max() <= 3


def named(path, names):
    """Write a file with ClassLabel names in its metadata."""
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table_of(6, 3).replace_schema_metadata(metadata), path)


def test_class_names_must_agree(tmp_path):
    """Class names that differ between files are refused, unless ``classes`` is given."""
    named(tmp_path / "a.parquet", ["cat", "dog", "fox"])
    named(tmp_path / "b.parquet", ["fox", "dog", "cat"])
    with pytest.raises(UsageError, match=r"b\.parquet: the classes have other names than in .*a\.parquet"):
        score(tmp_path / "*.parquet", tmp_path / "out", outputs="pred")
    score(tmp_path / "*.parquet", tmp_path / "out", outputs="pred", classes="x,y,z")
    assert set(pq.read_table(tmp_path / "out")["pred"].to_pylist()) <= {"x", "y", "z"}


def test_files_may_differ_in_what_is_beside_the_point(tmp_path):
    """Files may differ in the nullability of values and in the name of a list's child field."""
    table = table_of(8)
    pq.write_table(table, tmp_path / "a.parquet")
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False))
    position = table.schema.get_field_index("logits")
    other = table.set_column(position, pa.field("logits", kind), table["logits"].cast(kind))
    pq.write_table(other, tmp_path / "b.parquet", use_compliant_nested_type=False)
    score(tmp_path / "*.parquet", tmp_path / "out.parquet", columns="*")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["logits"].to_pylist() == table["logits"].to_pylist() * 2


def test_the_command_to_look_reads_as_the_job_does(tmp_path):
    """The command that an error suggests has the job's options for columns and classes."""
    table = table_of(5).append_column("other", pa.array([0, 1, 9, 0, 0]))
    pq.write_table(table, tmp_path / "a b.parquet")
    with pytest.raises(BadRowError) as caught:
        score(tmp_path / "a b.parquet", tmp_path / "o.parquet", label="other", ignore_index=7, classes="k,l,m,n")
    file = str(tmp_path / "a b.parquet")
    assert f"look: batchmax show '{file}' --row 2 --label other --ignore-index 7 --classes k,l,m,n" in str(caught.value)


def test_a_gate_on_labels_reads_them(tmp_path):
    """A gate on the accuracy needs labels, but no output that uses them."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="probs", fail_if="accuracy < 0")
    assert summary.accuracy is not None
    quiet = score(tmp_path / "in.parquet", tmp_path / "q.parquet", outputs="probs")
    assert quiet.accuracy is None
    assert not any("label" in note for note in quiet.notes)


def test_a_plan_says_what_memory_it_takes_and_checks_the_gate(tmp_path):
    """A dry run returns the memory needed, and refuses an invalid gate."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    plan = dry_run(tmp_path / "in.parquet", str(tmp_path / "o.parquet"), score_options())
    assert PROGRAM_BYTES < plan["memory_needed"] < plan["memory_limit"]
    with pytest.raises(UsageError, match="--fail-if"):
        dry_run(tmp_path / "in.parquet", str(tmp_path / "o.parquet"), score_options(fail_if="garbage (("))


def test_threads_of_arrow_are_given_back():
    """Nested limits of Arrow's threads leave the original number when the last job is done."""
    before = pa.cpu_count()
    with threads.use_threads(score_options(threads=1)):
        with threads.use_threads(score_options(threads=3)):
            assert pa.cpu_count() == 3
        assert pa.cpu_count() == 3
    assert pa.cpu_count() == before


def test_rejects_find_names_of_their_own(tmp_path):
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


def test_rows_that_are_no_probabilities_are_said(tmp_path):
    """With ``input='probs'``, rows that don't sum to 1 cause a warning."""
    table = table_of(4, 2)
    rows = lists(np.array([[20, 80]] * 4, np.float32))
    pq.write_table(table.set_column(table.schema.get_field_index("logits"), "logits", rows), tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "o.parquet", input="probs")
    assert any("sum to 1" in text for text in summary.warnings)


def test_a_column_that_has_nulls_in_a_later_file_only(tmp_path):
    """A column is nullable in the output if it is in any file, not only in the first."""
    for name, nullable, ids in (("a", False, [1, 2]), ("b", True, [3, None])):
        schema = pa.schema([pa.field("id", pa.int64(), nullable=nullable), pa.field("logits", pa.list_(pa.float32()))])
        pq.write_table(pa.table({"id": ids, "logits": [[1.0, 2.0]] * 2}, schema=schema), tmp_path / f"{name}.parquet")
    for out in (tmp_path / "out.parquet", tmp_path / "out"):
        batchmax.score([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], str(out))
        found = pq.read_table(out)
        assert found["id"].to_pylist() == [1, 2, 3, None]
        assert found.schema.field("id").nullable

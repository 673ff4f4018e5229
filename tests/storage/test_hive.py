"""Tests Hive partitions (folders named ``key=value``): an output folder mirrors them, other outputs have columns."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.storage.hive import are_mirrored, folder_of, partitions_of
from tests.support.requirements import optional

duckdb = optional("duckdb")
pl = optional("polars")

FOLDERS = ["date=2026-11-19/hour=11", "date=2026-11-19/hour=3", "date=2026-11-20/hour=3"]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Write two files into each folder, and change to the parent of the input folder."""
    random = np.random.default_rng(2)
    for folder in FOLDERS:
        for name in ("a", "b"):
            path = tmp_path / "in" / folder
            path.mkdir(parents=True, exist_ok=True)
            logits = list(random.normal(size=(20, 4)).astype(np.float32))
            columns = {"id": random.integers(0, 1000, 20), "logits": logits, "label": random.integers(0, 4, 20)}
            pq.write_table(pa.table(columns), path / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    return "in"


def test_an_output_folder_has_the_same_folders(inputs):
    """An output folder has the input's partition folders, with parts numbered within each, and no columns for the keys.

    DuckDB and Polars read the keys as columns; ``verify`` and ``evaluate`` accept the folder.
    """
    batchmax.score(inputs, "out")
    found = sorted(str(path.relative_to("out")) for path in Path("out").rglob("part-*.parquet"))
    assert found == [f"{folder}/part-0000{number}.parquet" for folder in FOLDERS for number in (0, 1)]
    assert pq.read_schema(f"out/{found[0]}").names == ["id", "label", "probs", "loss"]
    files = duckdb.read_parquet("out/**/*.parquet", hive_partitioning=True)
    assert files.aggregate("date, hour, count(*)").order("date, hour").fetchall() == [
        (date(2026, 11, 19), 3, 40), (date(2026, 11, 19), 11, 40), (date(2026, 11, 20), 3, 40),
    ]  # fmt: skip
    assert pl.read_parquet("out/**/*.parquet", hive_partitioning=True)["hour"].sum() == 80 * 3 + 40 * 11
    assert batchmax.verify("out", inputs=[inputs], sample=120).sampled_rows == 120
    theirs, ours = (batchmax.evaluate(one, by="date").slices["date"] for one in (inputs, "out"))
    assert [(one["value"], one["n_rows"]) for one in ours] == [("2026-11-19", 80), ("2026-11-20", 40)]
    assert [one["mean_loss"] for one in ours] == pytest.approx([one["mean_loss"] for one in theirs], rel=1e-6)


def test_one_file_has_columns(inputs):
    """In a file, keys become columns after the carried ones: integers if all values are, otherwise text.

    A stream and ``worst_rows`` have the columns, too.
    """
    batchmax.score(inputs, "out.parquet")
    table = pq.read_table("out.parquet")
    assert table.schema.names == ["id", "label", "date", "hour", "probs", "loss"]
    assert table["date"].to_pylist() == ["2026-11-19"] * 80 + ["2026-11-20"] * 40
    assert table["hour"].to_pylist() == [11] * 40 + [3] * 80
    assert batchmax.scan(inputs).read_all().equals(table.replace_schema_metadata(None))
    assert batchmax.verify("out.parquet", inputs=[inputs]).inputs == 6
    batchmax.score(inputs, "few.parquet", columns="hour,id", outputs="loss")
    assert pq.read_table("few.parquet").schema.names == ["id", "hour", "loss"]
    assert batchmax.worst_rows(inputs, 1)["hour"][0].as_py() in {3, 11}
    shown = batchmax.evaluate(inputs, by="hour").slices["hour"]
    assert [(one["value"], one["n_rows"]) for one in shown] == [(3, 80), (11, 40)]


def test_a_column_of_the_file_comes_first(inputs):
    """A column in the file takes precedence over a key of the same name in the path."""
    path = Path(inputs) / FOLDERS[0] / "a.parquet"
    table = pq.read_table(path, partitioning=None)
    for file in Path(inputs).rglob("*.parquet"):
        pq.write_table(table.append_column("hour", pa.array(["late"] * 20)), file)
    batchmax.score(inputs, "out.parquet")
    assert set(pq.read_table("out.parquet")["hour"].to_pylist()) == {"late"}


def test_folders_that_cannot_be_mirrored_are_columns(inputs):
    """With several inputs, or folders with different keys, the keys become columns of an output folder.

    With several inputs, the order of rows would differ from that of the files. With different keys, no tool could read
    the folder.
    """
    batchmax.score([f"{inputs}/date=2026-11-20", f"{inputs}/date=2026-11-19"], "out")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "_SUCCESS",
        "_batchmax.parquet",
        *(f"part-0000{n}.parquet" for n in range(6)),
    ]
    assert pq.read_table("out")["hour"].to_pylist() == [3] * 40 + [11] * 40 + [3] * 40
    os.rename(f"{inputs}/date=2026-11-20", f"{inputs}/day=20")  # noqa: PTH104
    batchmax.score(inputs, "other")
    table = pq.read_table("other")
    assert table["date"].to_pylist() == ["2026-11-19"] * 80 + [None] * 40
    assert table["day"].to_pylist() == [None] * 80 + [20] * 40


def test_a_carried_column_that_a_file_lacks(inputs):
    """A carried column is null for the rows of a file that lacks it."""
    path = Path(inputs) / FOLDERS[1] / "b.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["id"]), path)
    batchmax.score(inputs, "out.parquet")
    lacking = [one["id"] is None for one in pq.read_table("out.parquet").to_pylist()]
    assert sum(lacking) == pq.read_metadata(path).num_rows


@pytest.mark.parametrize(
    ("folders", "want"),
    [
        (["a=1", "a=02"], {"a": ["1", "02"]}),
        (["a=1", "a=-2", "a=__HIVE_DEFAULT_PARTITION__"], {"a": [1, -2, None]}),
        (["a=x%20y%2Fz/b=%C3%A4", "a=/b=3"], {"a": ["x y/z", ""], "b": ["ä", "3"]}),
        (["", ""], {}),
    ],
)
def test_values_are_read_as_hive_writes_them(folders, want):
    """Values are percent-decoded, and Hive's name for null becomes null.

    They become integers only if all of them are written in canonical form.
    """
    found = partitions_of(folders, [])
    assert {field.name: [row[at] for row in found.values] for at, field in enumerate(found.fields)} == want


def test_which_folders_count():
    """Partition folders are those below the input, if all of them are named ``key=value``.

    They are mirrored if they have the same keys and are in order.
    """
    assert folder_of("in/a=1/b=2/x.parquet", "in") == "a=1/b=2"
    assert folder_of("in/a=1/raw/x.parquet", "in") == ""
    assert folder_of("in/x.parquet", "in") == ""
    assert are_mirrored(["a=1", "a=1", "a=2"])
    assert not are_mirrored(["a=2", "a=1"])
    assert not are_mirrored(["a=1", "b=1"])
    assert not are_mirrored(["", ""])

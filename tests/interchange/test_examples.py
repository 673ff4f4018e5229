"""Tests the guide's examples with other tools (Polars, DuckDB, datasets, pandas, a scheduler) against ``scan``."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from tests.support.documents import blocks_of
from tests.support.paths import ROOT
from tests.support.requirements import package

DIGITS = str(ROOT / "data" / "digits.parquet")


@pytest.fixture(scope="module")
def want():
    """Return the rows that ``scan`` yields for the sample."""
    return batchmax.scan(DIGITS).read_all()


def test_polars_takes_a_reader_and_files(want, tmp_path):
    """Polars gets the same values from a reader and from a folder of parts."""
    pl = package("polars")
    frame = pl.from_arrow(batchmax.scan(DIGITS))
    assert frame["probs"].to_list() == want["probs"].to_pylist()
    batchmax.score(pl.read_parquet(DIGITS), tmp_path / "x")
    lazy = pl.scan_parquet(tmp_path / "x").filter(pl.col("loss") > 1).select("id", "loss").sort("id").collect()
    wide = [(row["id"], row["loss"]) for row in want.select(["id", "loss"]).to_pylist() if row["loss"] > 1]
    assert lazy.rows() == wide


def test_duckdb_takes_a_reader_as_a_relation(want):
    """A DuckDB query over a reader sees every row once."""
    duckdb = package("duckdb")
    relation = duckdb.from_arrow(batchmax.scan(DIGITS))
    rows, total = relation.aggregate("count(*), sum(loss)").fetchall()[0]
    assert rows == 899
    assert total == pytest.approx(np.sum(want["loss"].to_numpy(), dtype=np.float64), rel=1e-12)


def test_datasets_map_score_batch(want, tmp_path):
    """``Dataset.map`` passes tables to ``score_batch`` and keeps all columns it returns, including class names."""
    datasets = package("datasets")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_parquet(DIGITS, cache_dir=str(tmp_path)).with_format("arrow")
    scored = rows.map(
        batchmax.score_batch,
        batched=True,
        batch_size=100,
        fn_kwargs={"outputs": "probs,loss,pred"},
    )
    assert scored.column_names == ["id", "label", "probs", "loss", "pred"]
    got = pa.concat_tables([scored[start : start + 100] for start in range(0, 899, 100)])
    assert got["probs"].to_pylist() == want["probs"].to_pylist()
    assert got["loss"].to_pylist() == want["loss"].to_pylist()
    assert set(got["pred"].to_pylist()) <= set(rows.features["label"].names)


def test_a_frame_of_pandas_goes_round(want, tmp_path):
    """A pandas frame gives the same values as the file, and pandas reads the written output back unchanged."""
    pd = package("pandas")
    frame = pd.read_parquet(DIGITS)
    back = batchmax.scan(frame).read_pandas()
    assert list(back.columns) == ["id", "label", "probs", "loss"]
    assert np.array_equal(np.stack(back["probs"]), np.array(want["probs"].to_pylist(), np.float32))
    assert np.array_equal(back["loss"], want["loss"].to_numpy())
    batchmax.score(frame, str(tmp_path / "x.parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), back)


@pytest.mark.parametrize(
    ("content", "condition", "code"),
    [
        (None, "accuracy < 0.9", 0),
        (b"no Parquet", "accuracy < 0.9", 1),
        (None, "acuracy < 0.9", 2),
        (None, "accuracy < 0.99", 4),
    ],
    ids=["done", "data", "usage", "gate"],
)
def test_a_task_of_a_scheduler_ends_as_the_guide_says(content, condition, code, tmp_path):
    """The guide's scheduler script tells the four exit codes apart and leaves the files that the guide describes."""
    (script,) = [block for block in blocks_of("bash") if "case $? in" in block and "summary.json" in block]
    command = tmp_path / "batchmax"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchmax "$@"\n')
    command.chmod(0o755)
    (tmp_path / "logits" / "x").mkdir(parents=True)
    (tmp_path / "scored").mkdir()
    (tmp_path / "rejects").mkdir()
    (tmp_path / "logits" / "x" / "a.parquet").write_bytes(content or Path(DIGITS).read_bytes())
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "DAY": "x"}
    assert "accuracy < 0.9 " in script
    done = subprocess.run(
        ["bash", "-c", script.replace("accuracy < 0.9 ", f"{condition} ")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "scored" / "x").exists() == (code == 0)
    assert (tmp_path / "scored" / "x.held").exists() == (code == 4)
    said = json.loads((tmp_path / "summary.json").read_text())
    assert ("error" in said) == (code != 0)


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("spark", "pyspark")])
def test_without_an_engine_the_error_says_what_to_install(monkeypatch, engine, package):
    """``batchmax.ray`` and ``batchmax.spark`` can be imported without their engine; ``score`` says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    module = importlib.import_module(f"batchmax.{engine}")
    with pytest.raises(batchmax.UsageError, match=re.escape(f"pip install '.[{engine}]'")):
        module.score(None)

"""Tests the values that ``score`` writes, the summary, and its warnings."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.jobs.score import score
from tests.support import oracle
from tests.support.files import row_texts
from tests.support.layouts import LAYOUTS, READ_AS, digits
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.paths import DATA
from tests.support.progress import Recorder
from tests.support.requirements import optional
from tests.support.rows import INF, columns_of, lists, table_of, table_of_every_status

duckdb = optional("duckdb")
pd = optional("pandas")
pl = optional("polars")
torch = optional("torch")
OTHER_NUMBERS = {"bfloat16", "list_float16", "list_int"}
ALL = SOFTMAX_OUTPUTS


# Values


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
def test_every_layout_gives_the_same_values(layout, tmp_path):
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
    assert row_texts(got) == row_texts(want)


@pytest.mark.parametrize("name", ["string", "dictionary"])
@pytest.mark.parametrize("classes", ["classes.txt", "config.json"])
def test_label_names_and_indices_give_the_same_losses(name, classes, tmp_path):
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


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.usefixtures("small_parts")
def test_other_libraries_read_files_and_folders(out, layout, tmp_path):
    """The libraries pyarrow, DuckDB, Polars and pandas read the same rows, including nulls and text."""
    table, _ = table_of_every_status()
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


# Summary and warnings


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


def test_infinite_losses_warn_and_leave_no_mean(tmp_path):
    """A masked label makes the mean loss infinite; the summary then has no mean loss and a warning."""
    logits = lists(np.array([[0.0, 1.0], [-INF, 0.0]], np.float32))
    pq.write_table(pa.table({"logits": logits, "label": [0, 0]}), tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (summary.infinite_losses, summary.mean_loss, summary.perplexity, summary.accuracy) == (1, None, None, 0.0)
    assert "1 row has an infinite loss" in summary.warnings[0]
    assert json.loads(summary.to_json())["status_counts"] == {"masked_label": 1, "ok": 1}


def test_rows_that_are_probabilities_warn(tmp_path):
    """Rows in [0, 1] that sum to 1 cause a warning, because they're probably not logits.

    With ``input='probs'``, there is no warning.
    """
    probs = np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32)
    pq.write_table(pa.table({"logits": lists(probs)}), tmp_path / "in.parquet")
    recorder = Recorder()
    summary = score(tmp_path / "in.parquet", tmp_path / "a.parquet", progress=recorder)
    assert summary.warnings == recorder.warnings == ["the rows look like probabilities; if they are: --input probs"]
    assert score(tmp_path / "in.parquet", tmp_path / "b.parquet", input="probs").warnings == []
    assert score(digits(), tmp_path / "c.parquet").warnings == []


def test_input_probs_that_are_no_probabilities_warn(tmp_path):
    """With ``input='probs'``, rows that don't sum to 1 cause a warning."""
    table = table_of(4, 2)
    rows = lists(np.array([[20, 80]] * 4, np.float32))
    pq.write_table(table.set_column(table.schema.get_field_index("logits"), "logits", rows), tmp_path / "in.parquet")
    summary = score(tmp_path / "in.parquet", tmp_path / "o.parquet", input="probs")
    assert any("sum to 1" in text for text in summary.warnings)

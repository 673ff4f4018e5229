"""Tests metrics, bad rows, output columns and groups of sequences."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
import batchmax.sources.sequence_source
from batchmax.cli.app import main
from batchmax.errors import GateError
from batchmax.scoring.score_rows import read_rows
from batchmax.sources.parquet_source import open_source
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.statuses import Status
from tests.support.requirements import optional
from tests.support.rows import NAN
from tests.support.split_mix import split_mix
from tests.support.token_tables import LOGITS, PIECES, table_of

duckdb = optional("duckdb")
pl = optional("polars")
datasets = optional("datasets")


# Bad rows


BAD = {
    "a null row": (None, [0]),
    "NaN": ([[NAN, 0.0], [0.0, 0.0]], [0, 0]),
    "a null token": ([None, [0.0, 0.0]], [0, 0]),
    "a wrong length": ([[0.0, 0.0, 0.0]], [0]),
    "a label out of range": ([[0.0, 0.0]], [2]),
    "too few labels": ([[0.0, 0.0], [0.0, 0.0]], [0]),
}


@PIECES
@pytest.mark.parametrize("kind", BAD)
def test_bad_sequences_are_counted_by_every_command(write, tmp_path, monkeypatch, kind, piece):
    """Each command counts the same bad rows, and a gate on bad rows fails."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    monkeypatch.setattr("batchmax.reports.html.page.page", lambda _: "")
    logits, labels = BAD[kind]
    path = write("in", table_of([[[0, 0], [1, 0]], logits, [[1, 0]]], [[0, 0], labels, [1]]))
    options = {"on_bad_row": "null", "n_classes": 2}
    summary = batchmax.score(path, tmp_path / "out.parquet", **options)
    found = batchmax.evaluate(path, **options)
    for name in ("n_rows", "bad_rows", "bad_rate", "status_counts", "token_status_counts", "n_tokens", "mean_loss"):
        assert getattr(found, name) == getattr(summary, name), name
    assert (summary.n_rows, summary.bad_rows) == (3, 1)
    compared = batchmax.compare(path, path, **options)
    assert (compared.n_rows, compared.bad_rows, compared.n_judged) == (3, 1, summary.n_tokens)
    assert batchmax.report(path, str(tmp_path / "page.html"), **options).bad_rows == 1
    assert batchmax.calibrate(path, holdout=0.0, **options).bad_rows == 1
    for run in (
        lambda gate: batchmax.score(path, tmp_path / "gated.parquet", fail_if=gate, **options),
        lambda gate: batchmax.evaluate(path, fail_if=gate, **options),
        lambda gate: batchmax.compare(path, path, fail_if=gate, **options),
    ):
        with pytest.raises(GateError, match="bad_rows"):
            run("bad_rows > 0")


@PIECES
def test_padding_does_not_affect_the_status(write, tmp_path, monkeypatch, piece):
    """Tokens without a label don't affect the status of a row that has a loss; without any loss, they determine it."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    inf = float("inf")
    rows = [
        ([[1, 0], [0, 0]], [0, -100], "ok"),
        ([[1, 0], [0, 0]], [None, 0], "ok"),
        ([[1, 0], [0, 0]], [-100, -100], "ignored"),
        ([[1, 0], [0, 0]], [None, None], "unlabelled"),
        ([[1, 0], [0, 0]], [-100, None], "ignored"),
        ([[-inf, 0], [0, 0]], [0, -100], "masked_label"),
        ([[1, 0], [0, 0]], [7, -100], "bad_label"),
        ([], [], "ok"),
    ]
    path = write("in", table_of([row[0] for row in rows], [row[1] for row in rows]))
    out = tmp_path / "out.parquet"
    summary = batchmax.score(path, out, outputs="loss,status", on_bad_row="null")
    assert pq.read_table(out)["status"].to_pylist() == [row[2] for row in rows]
    assert summary.status_counts == {"bad_label": 1, "ignored": 2, "unlabelled": 1, "masked_label": 1, "ok": 3}
    assert batchmax.evaluate(path, on_bad_row="null").status_counts == summary.status_counts
    assert batchmax.verify(out, path).sampled_rows == len(rows)


# Output columns


@pytest.mark.parametrize("codec", ["snappy", "zstd"])
@pytest.mark.parametrize("split", [False, True])
def test_half_precision_and_prefixes_are_read_by_other_libraries(write, tmp_path, codec, split):
    """Probabilities in float16 with a prefix equal NumPy's rounded values when read by DuckDB, Polars and pyarrow."""
    random = np.random.default_rng(1)
    logits = [random.standard_normal((n, 3)).astype(np.float32) for n in (2, 0, 5)]
    table = table_of([one.tolist() for one in logits], [[0] * len(one) for one in logits])
    path = write("in", table, use_dictionary=False, use_byte_stream_split=["logits.list.element.list.element"] * split)
    out = tmp_path / "out.parquet"
    batchmax.score(path, out, dtype="float16", prefix="p_", outputs="probs,log_probs,loss", compression=codec, top_k=1)
    found = pq.read_table(out)
    assert found.schema.field("p_probs").type == pa.list_(pa.list_(pa.float16()))
    assert {"p_losses", "p_mean_loss", "p_n_tokens", "p_top_k_classes", "p_tail_mass"} < set(found.schema.names)
    want = []
    for z in logits:
        powers = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True, initial=-9))
        want.append((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float16).tolist())
    assert found["p_probs"].to_pylist() == want
    assert [row[0] for row in duckdb.sql(f"SELECT p_probs FROM '{out}'").fetchall()] == want
    assert pl.read_parquet(out)["p_probs"].to_list() == want
    assert batchmax.verify(out, path).sampled_tokens == 7


def test_hive_folders_become_columns(tmp_path):
    """A column from Hive folder names is a column of the rows in every command."""
    for day, logits in ((1, [[1, 0], [2, 0]]), (2, [[3, 0]])):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        table = table_of([logits], [[0] * len(logits)])
        pq.write_table(table, tmp_path / "in" / f"day={day}" / "x.parquet")
    batchmax.score(tmp_path / "in", tmp_path / "out.parquet", outputs="loss")
    assert pq.read_table(tmp_path / "out.parquet")["day"].to_pylist() == [1, 2]
    groups = batchmax.evaluate(str(tmp_path / "in"), by="day").slices["day"]
    assert [(one["value"], one["n_rows"], one["n_tokens"]) for one in groups] == [(1, 1, 2), (2, 1, 1)]
    worst = batchmax.worst_rows(str(tmp_path / "in"), 3)
    assert (worst["day"].to_pylist(), worst["token"].to_pylist()) == ([1, 1, 2], [0, 1, 0])


@PIECES
def test_written_losses_are_used(write, tmp_path, monkeypatch, piece):
    """For outputs of score, the losses are read from the file, because they are more precise than the probabilities."""
    path = write("in", table_of([[[0, 200], [1, 0]], [[30, 0]]], [[0, 0], [0]]))
    batchmax.score(path, tmp_path / "out.parquet", outputs="probs,loss")
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    found = batchmax.evaluate(str(tmp_path / "out.parquet"))
    losses = [one for row in pq.read_table(tmp_path / "out.parquet")["losses"].to_pylist() for one in row]
    assert found.mean_loss == pytest.approx(math.fsum(losses) / 3, rel=1e-12)
    assert (found.infinite_losses, found.token_status_counts) == (0, {"ok": 3})


def test_columns_of_score_are_not_shown(write, tmp_path):
    """The worst tokens of a scored file are shown with the input's columns, without the columns of score."""
    path = write("in", table_of([[[1, 0]]], [[0]], id=[4]))
    out = tmp_path / "out.parquet"
    batchmax.score(path, out, outputs="probs,loss,pred,status", top_k=1, prefix="p_")
    names = batchmax.worst_rows(str(out), 1).schema.names
    assert names == ["file", "row", "token", "id", "label", "pred", "p_label", "p_pred", "loss"]


@pytest.mark.parametrize("form", ["datasets", "version 3", "version 2"])
def test_class_names_of_token_labels(form):
    """Class names that Hugging Face stores for the items of label lists are used, in any form of its metadata."""
    names = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    features = {"version 3": {"feature": names, "_type": "Sequence"}, "version 2": [names]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": features.get(form)}}})}
    if form == "datasets":
        feature = datasets.List(datasets.ClassLabel(names=["neg", "pos"]))
        metadata = datasets.Features({"label": feature}).arrow_schema.metadata
    table = table_of([[[1, 0], [2, 0]], [[0, 3]]], [[0, 1], [1]]).replace_schema_metadata(metadata)
    assert batchmax.score_batch(table, outputs="pred")["preds"].to_pylist() == [["neg", "neg"], ["pos"]]
    assert batchmax.evaluate(table).classes == ["neg", "pos"]
    worst = batchmax.worst_rows(table, 1).to_pylist()[0]
    assert (worst["label"], worst["pred"]) == ("pos", "neg")


def test_distributions_of_tokens_are_shown(write):
    """The worst tokens of sequences with soft targets are shown with the target of the token."""
    soft = pa.array([[[0.5, 0.5], [0.0, 1.0]]], pa.list_(pa.list_(pa.float32())))
    path = write("in", pa.table({"logits": pa.array([[[1, 0], [2, 0]]], LOGITS), "label": soft}))
    worst = batchmax.worst_rows(path, 1).to_pylist()[0]
    assert (worst["token"], worst["input_label"], worst["label"]) == (1, [0.0, 1.0], None)


# Whole sequences


def is_held_out(row, seed, share):
    """Return whether a row is held out, by output ``row`` of a generator that is seeded with output 0 of ``seed``."""
    return (split_mix(split_mix(seed, 0), row) >> 11) / 2**53 < share


@PIECES
def test_whole_sequences_are_held_out(write, monkeypatch, piece):
    """All tokens of a sequence are fitted, or all are held out, depending on the row number."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    random = np.random.default_rng(2)
    lengths = [1, 2, 4, 0, 8, 16, 32]
    logits = [random.standard_normal((n, 3)).tolist() for n in lengths]
    path = write("in", table_of(logits, [random.integers(0, 3, n).tolist() for n in lengths]))
    for seed in (0, 1):
        found = batchmax.calibrate(path, holdout=0.5, seed=seed)
        held = sum(n for row, n in enumerate(lengths) if is_held_out(row, seed, 0.5))
        assert (found.n_rows, found.n_holdout, found.n_fit) == (len(lengths), held, sum(lengths) - held)


@PIECES
@pytest.mark.parametrize("row", [0, 1, 2, 3])
def test_a_report_of_a_row_without_a_loss(write, tmp_path, monkeypatch, row, piece):
    """A requested row is shown if it has a token with probabilities; otherwise a note says why not."""
    monkeypatch.setattr("batchmax.reports.html.page.page", lambda _: "")
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    path = write("in", table_of([[[1, 0]], [[2, 0], [0, 1]], None, []], [[0], [-100, -100], [0], []]))
    found = batchmax.report(path, str(tmp_path / "page.html"), row=row, on_bad_row="null", worst=0)
    if row < 2:
        assert (found.row["row"], found.row["token"]) == (row, 0)
    else:
        assert found.row is None
        assert any(f"Row {row} has no tokens" in note for note in found.notes)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_worst_tokens_fit_the_terminal(write, tmp_path, monkeypatch, capsys, width):
    """The table fits the terminal: the last column is truncated, and columns without room are named below."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    text = ["a sentence that is much longer than any terminal has room for, and then goes on for a while"]
    write("in", table_of([[[1, 0], [0, 9]]], [[0, 0]], id=[12345], text=text))
    assert main(["show", "in.parquet", "--worst", "2"]) == 0
    heading, _, first, *others = capsys.readouterr().out.splitlines()[1:]
    names = heading.split()
    assert names[:4] == ["row", "token", "label", "pred"]
    assert first.split()[:4] == ["0", "1", "0", "1"]
    if "id" in names:
        assert first.split()[names.index("id")] == "12345"
    if "text" in names:
        assert first.rstrip().endswith("…")
    missing = {"p(label)", "p(pred)", "loss", "id", "text"} - set(names)
    assert all(name in " ".join(others) for name in missing)
    assert max(map(len, [heading, first])) <= width


@pytest.mark.parametrize("as_matrix", [False, True], ids=["column", "matrix"])
def test_a_chunk_of_tokens_is_split_between_rows(write, monkeypatch, as_matrix):
    """Wherever a chunk is split, each token keeps its logits, label, status, columns and position; no row is lost."""
    logits = [[[1, 0], [2, 0]], None, [], [[3, 0], [4, 0], [5, 0]], [[6, 0]]]
    table = table_of(logits, [[0, 1], [0], [], [1, 0], [0]], id=[10, 11, 12, 13, 14])
    path = write("in", table)
    monkeypatch.setenv("BATCHMAX_PARQUET", "batchmax" if as_matrix else "pyarrow")
    source = open_source(path, batchmax.score_options(n_classes=2, columns="id"))
    parts = plan_parts(source.group_rows(), source.row_bytes)
    (chunk,) = source.chunks(parts, ReadPlan(source.job.columns_read))
    assert (chunk.logits is not None) == as_matrix

    def tokens_of(*chunks):
        """Return the properties of each token."""
        found = []
        for one in chunks:
            places = [one.place(token) for token in range(one.batch.num_rows)]
            values = [
                np.ravel(read_rows(one.unit(at, source.job), source.job)[0]).tolist() for at in range(len(places))
            ]
            known = [None] * len(places) if one.known is None else one.known.tolist()
            known = [None if status == Status.OK else status for status in known]
            units = np.arange(len(places))
            ids = one.take(units, ["id"])["id"].to_pylist()
            assert one.values("id").to_pylist() == ids
            rows = one.rows_of(units).tolist()
            found += zip(places, values, known, ids, rows, one.batch["label"].to_pylist(), strict=True)
        return found

    want = tokens_of(chunk)
    assert [(row, ids) for _, _, _, ids, row, _ in want] == [(0, 10), (0, 10), (3, 13), (3, 13), (3, 13), (4, 14)]
    assert want[4][2] == Status.BAD_LABEL
    for rows in range(1, 5):
        head, tail = chunk.split(rows)
        assert tokens_of(head, tail) == want
        assert (head.rows_done, head.n_rows, tail.n_rows, head.ends_group) == (rows, rows, 5 - rows, False)
        assert (tail.ends_group, tail.origin.first_row) == (chunk.ends_group, rows)
        assert head.tokens.missing.sum() + tail.tokens.missing.sum() == 1
        assert head.after((0, 0)) == (rows, 0)
        assert tail.after(head.after((0, 0))) == (5, 0)


@PIECES
def test_groups_with_little_memory(write, tmp_path, monkeypatch, piece):
    """With memory for one group, groups of consecutive rows are all in the table, including empty and null rows."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    monkeypatch.setattr("batchmax.evaluation.groups.SHARE", 10**6)
    lengths = [2, 0, 1, None, 4, 3]
    logits = [None if n is None else [[0.0, 0.0]] * n for n in lengths]
    labels = [[0] * (n or 0) for n in lengths]
    path = write("in", table_of(logits, labels, id=[1, 1, 2, 3, 4, 4], n=[2, 5, 4, 1, 8, 1]))
    out = tmp_path / "out.parquet"
    batchmax.evaluate(path, by="id", out=str(out), bytes="n", on_bad_row="null")
    assert pq.read_table(out).select(["id", "n_rows", "n_tokens", "bits_per_byte"]).to_pylist() == [
        {"id": 1, "n_rows": 2, "n_tokens": 2, "bits_per_byte": 1.0},
        {"id": 2, "n_rows": 1, "n_tokens": 1, "bits_per_byte": 0.25},
        {"id": 3, "n_rows": 1, "n_tokens": 0, "bits_per_byte": None},
        {"id": 4, "n_rows": 2, "n_tokens": 7, "bits_per_byte": pytest.approx(7 / 9)},
    ]

"""Counts and figures of sequences (pairs of tokens, bad rows, bytes of text, statuses) against independent sums."""

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
from batchmax.errors import DataError, GateError, UsageError
from batchmax.outputs import Status
from batchmax.scoring.score_rows import read_rows
from batchmax.sources.parquet_source import open_source
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import Reading
from tests.support.requirements import optional

duckdb = optional("duckdb")
pl = optional("polars")
datasets = optional("datasets")

LOGITS, LABELS = pa.list_(pa.list_(pa.float32())), pa.list_(pa.int64())
PIECES = pytest.mark.parametrize("piece", [1, 1 << 20], ids=["a token at a time", "all"])


def table_of(logits, labels, **columns):
    """Return sequences with other columns added."""
    return pa.table({"logits": pa.array(logits, LOGITS), "label": pa.array(labels, LABELS), **columns})


def loss(z, label):
    """Return the cross-entropy of one token in float64."""
    return math.log(math.fsum(math.exp(one - max(z)) for one in z)) - (z[label] - max(z))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a table and returns the path."""

    def write_table(name, table, **options):
        pq.write_table(table, tmp_path / f"{name}.parquet", **options)
        return str(tmp_path / f"{name}.parquet")

    return write_table


# Pairs of tokens

A = table_of([[[1, 0], [2, 0]], [[3, 0]], [[4, 0], [5, 0]]], [[0, 0], [0], [0, 0]], id=[10, 11, 12])
KEYS = {
    "int": pa.array([10, 11, 12]),
    "text": pa.array(["a", "b", "c"]),
    "null": pa.array([10, None, 12]),
}


@PIECES
@pytest.mark.parametrize("kind", KEYS)
def test_a_file_has_not_changed_from_itself(write, monkeypatch, kind, piece):
    """A file compared with itself, by position or key and in any row order, pairs each token with itself: no change."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
    table = A.set_column(2, "id", KEYS[kind])
    a = write("a", table, row_group_size=2)
    keyed = 3 - table["id"].null_count
    n_tokens = 5 if keyed == 3 else 4
    for key, order, pairs in ((None, [0, 1, 2], 3), ("id", [0, 1, 2], keyed), ("id", [2, 0, 1], keyed)):
        b = write("b", table.take(order), row_group_size=1)
        found = batchmax.compare(a, b, key=key)
        assert (found.n_rows, found.n_judged) == (pairs, 5 if key is None else n_tokens)
        assert (found.mean_loss_change, found.mean_kl, found.moved) == (0.0, 0.0, [])
        assert (found.only_a, found.only_b) == ((0, 0) if key is None else (3 - keyed, 3 - keyed))
        assert (found.tokens_only_a, found.tokens_only_b) == (0, 0)
        assert not any("tokens" in warning for warning in found.warnings)


@PIECES
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=["rising", "other"])
def test_moved_tokens_are_named(write, monkeypatch, order, piece):
    """The most changed tokens are named by file, row, token and key, also in several files, with their own losses."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
    random = np.random.default_rng(3)
    lengths, k = [2, 3, 1, 4], 3
    logits = [random.standard_normal((n, k)).astype(np.float32) for n in lengths]
    labels = [random.integers(0, k, n).tolist() for n in lengths]
    moved = [one.copy() for one in logits]
    moved[1][2, labels[1][2]] -= 5.0
    moved[3][0, labels[3][0]] -= 2.0
    ids = [5, 7, 8, 9]
    a = table_of([one.tolist() for one in logits], labels, id=ids)
    b = table_of([one.tolist() for one in moved], labels, id=ids).take(order)
    files_a = [write("a0", a.slice(0, 2)), write("a1", a.slice(2))]
    files_b = [write("b0", b.slice(0, 1)), write("b1", b.slice(1))]
    found = batchmax.compare(files_a, files_b, key="id", worst=5)
    assert [(row["file"], row["row"], row["token"], row["key"]) for row in found.moved] == [
        (files_a[0], 1, 2, 7),
        (files_a[1], 1, 0, 9),
    ]
    at = [order.index(row) for row in (1, 3)]
    assert [(row["file_b"], row["row_b"]) for row in found.moved] == [
        (files_b[min(one, 1)], one - min(one, 1)) for one in at
    ]
    for one, (row, token) in zip(found.moved, ((1, 2), (3, 0)), strict=True):
        label = labels[row][token]
        assert one["loss_a"] == pytest.approx(loss(logits[row][token].tolist(), label), rel=1e-6)
        assert one["loss_b"] == pytest.approx(loss(moved[row][token].tolist(), label), rel=1e-6)
    want = [
        loss(there[token].tolist(), label) - loss(here[token].tolist(), label)
        for here, there, theirs in zip(logits, moved, labels, strict=True)
        for token, label in enumerate(theirs)
    ]
    assert found.mean_loss_change == pytest.approx(math.fsum(want) / len(want), rel=1e-6)
    assert found.n_judged == sum(lengths)


@PIECES
def test_sequences_that_are_missing_or_shorter_are_told(write, monkeypatch, piece):
    """Missing and shorter sequences are counted and named by key, and refused by position.

    By position, the error has the numbers of rows, or names the row with another number of tokens.
    """
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
    a = write("a", A)
    shorter = table_of([[[1, 0], [2, 0]], [[4, 0]]], [[0, 0], [0]], id=[10, 12])
    for order in ([0, 1], [1, 0]):
        b = write("b", shorter.take(order))
        found = batchmax.compare(a, b, key="id")
        assert (found.n_rows, found.only_a, found.only_b, found.n_judged) == (2, 1, 0, 3)
        assert (found.tokens_only_a, found.tokens_only_b) == (1, 0)
        assert found.mean_loss_change == 0.0
        (warning,) = (warning for warning in found.warnings if "tokens" in warning)
        assert f"row 2 of {a}: 2 tokens, and 1 in {b} (row {order.index(1)})" in warning
        back = batchmax.compare(b, a, key="id")
        assert (back.only_a, back.only_b, back.tokens_only_a, back.tokens_only_b) == (0, 1, 0, 1)
    with pytest.raises(DataError, match=r"3 rows, but 2 in"):
        batchmax.compare(a, b)
    b = write("b", table_of([[[1, 0], [2, 0]], [[3, 0], [3, 1]], [[4, 0]]], [[0, 0], [0, 0], [0]]))
    with pytest.raises(DataError, match=r"a\.parquet: row 1 has 1 token, and 2 in .*b\.parquet \(row 1\); .*--key"):
        batchmax.compare(a, b)
    flat = write("flat", pa.table({"logits": [[1.0, 2.0]] * 5, "label": [0] * 5}))
    with pytest.raises(UsageError, match=r"are sequences, and those of the other input are not"):
        batchmax.compare(a, flat)


def test_other_labels_are_told_by_token(write):
    """A token with another label in b is named by its row and token index."""
    a = write("a", A)
    b = write("b", A.set_column(1, "label", pa.array([[0, 0], [0], [0, 1]], LABELS)))
    with pytest.raises(DataError, match=r"a token has another label than in .*b\.parquet, the first row 2, token 1"):
        batchmax.compare(a, b)
    assert batchmax.compare(a, b, labels_from="a").mean_loss_change == 0.0


# Bad rows

NAN = float("nan")
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
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
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
def test_padding_is_not_odd(write, tmp_path, monkeypatch, piece):
    """Tokens without a label don't affect the status of a row that has a loss; without any loss, they determine it."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
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


# Bytes of text


@PIECES
def test_bytes_are_those_of_losses(write, tmp_path, monkeypatch, piece):
    """Bits per byte are over the rows that have a loss and aren't bad, in score, in evaluate, and in each group."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
    logits = [[[0, 0], [0, 0]], None, [[0, 0], [NAN, 0]], [[0, 0]], [[2, 0], [0, 0], [0, 0]], [], [[0, 0]]]
    labels = [[0, 0], [0], [0, 0], [-100], [1, -100, 0], [], [0]]
    numbers = [2, 100, 50, None, 7, None, 0]
    table = table_of(logits, labels, n=numbers, by=["x", "x", "y", "y", "z", "z", "x"])
    path = write("in", table, row_group_size=2)
    options = {"on_bad_row": "null", "n_classes": 2}
    one, other = math.log(2), loss([2, 0], 1)
    whole = (3 * one + other + one) / math.log(2)
    summary = batchmax.score(path, tmp_path / "out.parquet", bytes="n", outputs="loss", **options)
    assert summary.bits_per_byte == pytest.approx(whole / (2 + 7 + 0), rel=1e-6)
    assert summary.bits_per_token == pytest.approx((5 * one + other) / math.log(2) / 6, rel=1e-6)
    found = batchmax.evaluate(path, bytes="n", by="by", **options)
    assert (found.bits_per_byte, found.bits_per_token) == (summary.bits_per_byte, summary.bits_per_token)
    groups = {group["value"]: group for group in found.slices["by"]}
    assert groups["x"]["bits_per_byte"] == pytest.approx(3 * one / math.log(2) / 2, rel=1e-6)
    assert groups["y"]["bits_per_byte"] is None
    assert groups["z"]["bits_per_byte"] == pytest.approx((one + other) / math.log(2) / 7, rel=1e-6)
    assert [groups[name]["n_rows"] for name in "xyz"] == [3, 2, 2]
    assert [groups[name]["n_tokens"] for name in "xyz"] == [3, 1, 2]
    with pytest.raises(GateError, match=r"bits_per_byte is 0\.7"):
        batchmax.evaluate(path, bytes="n", fail_if="bits_per_byte > 0.5", **options)


def test_the_example_of_bytes(write, tmp_path):
    """Two tokens of one bit each with two bytes, and a null row with a hundred bytes, have one bit per byte."""
    path = write("in", table_of([[[0, 0], [0, 0]], None], [[0, 0], [0]], n=[2, 100]))
    assert batchmax.score(path, tmp_path / "out.parquet", bytes="n", on_bad_row="null").bits_per_byte == 1.0


@pytest.mark.parametrize("kind", ["int", "text"])
@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_bytes_that_cannot_be_are_refused(write, tmp_path, command, kind):
    """A null or negative number of bytes for a row that has a loss is an error that names the row."""
    values = {"int": [1, -2, 3], "text": ["a", None, "b"]}[kind]
    path = write("in", table_of([[[0, 0]]] * 3, [[0]] * 3, n=values))
    told = "is -2" if kind == "int" else "is null"
    runs = {
        "score": lambda: batchmax.score(path, tmp_path / "out.parquet", bytes="n"),
        "evaluate": lambda: batchmax.evaluate(path, bytes="n"),
    }
    with pytest.raises(DataError, match=rf"in\.parquet: row 1 .*column 'n' {told}, and the row has a loss"):
        runs[command]()
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("command", ["compare", "calibrate", "report", "worst_rows"])
def test_bytes_are_refused_where_nothing_uses_them(write, tmp_path, command):
    """Commands without bits per byte refuse the option ``bytes``."""
    path = write("in", table_of([[[0, 0]]], [[0]], n=[1]))
    runs = {
        "compare": lambda: batchmax.compare(path, path, bytes="n"),
        "calibrate": lambda: batchmax.calibrate(path, bytes="n"),
        "report": lambda: batchmax.report(path, str(tmp_path / "page.html"), bytes="n"),
        "worst_rows": lambda: batchmax.worst_rows(path, 1, bytes="n"),
    }
    with pytest.raises(UsageError, match="bits per byte are figures of score and evaluate"):
        runs[command]()


# Output columns


@pytest.mark.parametrize("codec", ["snappy", "zstd"])
@pytest.mark.parametrize("split", [False, True])
def test_half_precision_and_prefixes_are_read_by_others(write, tmp_path, codec, split):
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


def test_folders_become_columns(tmp_path):
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
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
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


def split_mix(seed, n):
    """Return output n, from 0, of SplitMix64 (Steele et al. 2014), computed with Python integers."""
    x = (seed + (n + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def is_held_out(row, seed, share):
    """Return whether a row is held out, by output ``row`` of a generator that is seeded with output 0 of ``seed``."""
    return (split_mix(split_mix(seed, 0), row) >> 11) / 2**53 < share


@PIECES
def test_whole_sequences_are_held_out(write, monkeypatch, piece):
    """All tokens of a sequence are fitted, or all are held out, depending on the row number."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
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
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
    path = write("in", table_of([[[1, 0]], [[2, 0], [0, 1]], None, []], [[0], [-100, -100], [0], []]))
    found = batchmax.report(path, str(tmp_path / "page.html"), row=row, on_bad_row="null", worst=0)
    if row < 2:
        assert (found.row["row"], found.row["token"]) == (row, 0)
    else:
        assert found.row is None
        assert any(f"Row {row} has no tokens" in note for note in found.notes)


# The terminal


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


# Chunks


@pytest.mark.parametrize("as_matrix", [False, True], ids=["column", "matrix"])
def test_a_chunk_of_tokens_is_split_between_rows(write, monkeypatch, as_matrix):
    """Wherever a chunk is split, each token keeps its logits, label, status, columns and position; no row is lost."""
    logits = [[[1, 0], [2, 0]], None, [], [[3, 0], [4, 0], [5, 0]], [[6, 0]]]
    table = table_of(logits, [[0, 1], [0], [], [1, 0], [0]], id=[10, 11, 12, 13, 14])
    path = write("in", table)
    monkeypatch.setenv("BATCHMAX_PARQUET", "batchmax" if as_matrix else "pyarrow")
    source = open_source(path, batchmax.score_options(n_classes=2, columns="id"))
    parts = plan_parts(source.group_rows(), source.row_bytes)
    (chunk,) = source.chunks(parts, Reading(source.job.columns_read))
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


# Groups, streams


@PIECES
def test_groups_that_are_given_away(write, tmp_path, monkeypatch, piece):
    """With memory for one group, groups of consecutive rows are all in the table, including empty and null rows."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MOST_CHUNK_BYTES", piece)
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


def test_streams_are_compared_by_place():
    """Tables and readers of sequences are compared token by token; different numbers of rows are an error."""
    found = batchmax.compare(A, pa.RecordBatchReader.from_batches(A.schema, A.to_batches(max_chunksize=1)))
    assert (found.n_rows, found.n_judged, found.mean_loss_change) == (3, 5, 0.0)
    shorter = A.slice(0, 2)
    with pytest.raises(DataError, match="3 rows, but 2 in the stream"):
        batchmax.compare(A, pa.RecordBatchReader.from_batches(A.schema, shorter.to_batches()))

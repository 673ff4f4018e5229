"""Sequences against independent sums in plain float64, for any way to cut, read and write rows."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
import batchmax.sources.chunks
import batchmax.sources.sequence_source
from batchmax.errors import BadRowError, UsageError

LENGTHS = [5, 0, 7, 30, 1, 0, 0, 12, 3]


def sequences(
    lengths=LENGTHS, k=7, kind="list", dtype=np.float32, seed=0, nulls=(), label_nulls=(), spread=3.0, labels=None
):
    """Return a table of sequences: an id, logits and labels."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    values = pa.array((rng.standard_normal(n * k) * spread).astype(dtype))
    offsets = np.arange(n + 1) * k
    item = values.type
    inner = {
        "list": lambda: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values),
        "large_list": lambda: pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(values, type=pa.list_(item, k)),
    }[kind]()
    outer = np.concatenate([[0], np.cumsum(lengths)])
    mask = pa.array([row in nulls for row in range(len(lengths))]) if nulls else None
    make = pa.LargeListArray if kind == "large_list" else pa.ListArray
    index = pa.int64() if kind == "large_list" else pa.int32()
    rows = make.from_arrays(pa.array(outer, index), inner, mask=mask)
    ids = rng.integers(0, k, n) if labels is None else labels
    tokens = pa.array(ids, pa.int32(), mask=np.isin(np.arange(n), label_nulls) if len(label_nulls) else None)
    return pa.table(
        {
            "id": np.arange(len(lengths)),
            "logits": rows,
            "labels": pa.ListArray.from_arrays(pa.array(outer, pa.int32()), tokens),
        }
    )


def exact_losses(logits, labels, shift=0):
    """Return the float64 loss of each token of one row, None without a label."""
    losses = []
    for place, row in enumerate(logits):
        at = place + shift
        if at >= len(labels) or labels[at] is None or labels[at] == -100:
            losses.append(None)
            continue
        z = np.array(row, np.float64)
        m = z.max()
        losses.append(float(np.log(np.exp(z - m).sum()) - (z[labels[at]] - m)))
    return losses


def check_rows(table, scored, shift=0):
    """Compare every row of an output with its input."""
    assert scored.num_rows == table.num_rows
    for row, out in zip(table.to_pylist(), scored.to_pylist(), strict=True):
        assert row["id"] == out["id"]
        assert row["labels"] == out["labels"]
        want = exact_losses(row["logits"], row["labels"], shift)
        assert [one is None for one in out["losses"]] == [one is None for one in want]
        counted = [one for one in want if one is not None]
        got = [one for one in out["losses"] if one is not None]
        np.testing.assert_allclose(got, counted, rtol=3e-7)
        assert out["n_tokens"] == len(counted)
        assert out["sum_loss"] == pytest.approx(math.fsum(counted), rel=1e-7)
        if counted:
            assert out["mean_loss"] == pytest.approx(math.fsum(counted) / len(counted), rel=1e-7)
            assert out["perplexity"] == pytest.approx(math.exp(out["mean_loss"]), rel=1e-6)
        else:
            assert out["mean_loss"] is None
            assert out["perplexity"] is None
        if "probs" in out:
            assert [len(one) for one in out["probs"]] == [len(one) for one in row["logits"]]
            for z, p in zip(row["logits"], out["probs"], strict=True):
                z64 = np.array(z, np.float64)
                e = np.exp(z64 - z64.max())
                np.testing.assert_allclose(p, e / e.sum(), rtol=5e-7)


WAYS = {
    "rows of a few": {"row_group_size": 4},
    "one row group": {},
    "no dictionary, small pages": {"use_dictionary": False, "data_page_size": 64},
    "pages of version 2": {"data_page_version": "2.0", "compression": "zstd"},
    "split bytes": {"use_dictionary": False, "use_byte_stream_split": ["logits.list.element.list.element"]},
}


@pytest.mark.parametrize("path", ["batchmax", "pyarrow"])
@pytest.mark.parametrize("piece", [1, 50, 1 << 20], ids=["a token at a time", "some", "all"])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("way", list(WAYS))
def test_rows_are_right_however_they_are_cut(tmp_path, monkeypatch, way, kind, piece, path):
    """Losses, figures derived from them, and probabilities equal plain sums for any chunks, pages and layouts."""
    monkeypatch.setenv("BATCHMAX_PARQUET", path)
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    table = sequences(kind=kind, label_nulls=[2, 3], k=3)
    pq.write_table(table, tmp_path / "in.parquet", **WAYS[way])
    out = tmp_path / "out.parquet"
    summary = batchmax.score(tmp_path / "in.parquet", out, outputs="probs,loss")
    scored = pq.read_table(out)
    check_rows(table, scored)
    assert scored.schema.field("probs").type.value_type.value_type == pa.float32()
    assert scored.schema.names == ["id", "labels", "probs", "losses", "mean_loss", "sum_loss", "perplexity", "n_tokens"]
    assert (summary.n_rows, summary.n_tokens) == (len(LENGTHS), sum(LENGTHS) - 2)
    losses = [one for row in scored["losses"].to_pylist() for one in row if one is not None]
    assert summary.mean_loss == pytest.approx(math.fsum(losses) / len(losses), rel=1e-7)
    assert summary.bits_per_token == pytest.approx(summary.mean_loss / math.log(2))


@pytest.mark.parametrize("piece", [1, 1 << 20], ids=["a token at a time", "all"])
def test_shifted_labels(tmp_path, monkeypatch, piece):
    """With ``shift``, each token has the label of the next; the missing last label doesn't affect the row's status."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    table = sequences()
    pq.write_table(table, tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="loss,status", shift=True)
    scored = pq.read_table(tmp_path / "out.parquet")
    check_rows(table, scored, shift=1)
    for length, row in zip(LENGTHS, scored.to_pylist(), strict=True):
        assert row["statuses"] == ["ok"] * (length - 1) + ["unlabelled"] * (length > 0)
        assert row["status"] == "ok"


@pytest.mark.parametrize("k", [2, 40, 1000])
def test_any_number_of_classes(tmp_path, k):
    """Losses and probabilities are right for few and many classes, in float64."""
    table = sequences(k=k, dtype=np.float64)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="probs,log_probs,loss,status")
    scored = pq.read_table(tmp_path / "out.parquet")
    check_rows(table, scored)
    for probs, logs in zip(scored["probs"].to_pylist(), scored["log_probs"].to_pylist(), strict=True):
        for one, other in zip(probs, logs, strict=True):
            np.testing.assert_allclose(np.exp(other), one, rtol=1e-12)


def bad_rows_table():
    """Return sequences, most of them with a defect, and the statuses of their tokens and rows."""
    nan, inf = float("nan"), float("inf")
    rows = [
        ([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [0, 1]),
        (None, [0]),
        ([[nan, 0.0, 0.0], [1.0, 2.0, 3.0]], [0, 1]),
        ([None, [1.0, 2.0, 3.0]], [2, 2]),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]], [2, 2]),
        ([[1.0, 2.0, 3.0]], None),
        ([[1.0, 2.0, 3.0], [inf, 0.0, 0.0]], [-100, 0]),
        ([[1.0, 2.0, 3.0], [1.0, -inf, 0.0]], [7, 1]),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 0.0], [0.0, 2.0, 0.0]], [0, 1]),
        ([[1.0, 2.0, 3.0]], [0, 1, 2]),
        ([], []),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [-100, 1]),
    ]
    table = pa.table(
        {
            "id": list(range(len(rows))),
            "logits": pa.array([row[0] for row in rows], pa.list_(pa.list_(pa.float32()))),
            "labels": pa.array([row[1] for row in rows], pa.list_(pa.int64())),
        }
    )
    statuses = [
        (["ok", "ok"], "ok"),
        (None, "null_logits"),
        (["nan_logit", "ok"], "nan_logit"),
        (["null_logits", "ok"], "null_logits"),
        (["bad_length", "ok"], "bad_length"),
        (["unlabelled"], "unlabelled"),
        (["ignored", "inf_logit"], "inf_logit"),
        (["bad_label", "masked_label"], "bad_label"),
        (["ok", "ok", "bad_label"], "bad_label"),
        (["bad_label"], "bad_label"),
        ([], "ok"),
        (["ignored", "ok"], "ok"),
    ]
    return table, statuses


@pytest.mark.parametrize("path", ["batchmax", "pyarrow"])
@pytest.mark.parametrize("piece", [1, 24, 1 << 20], ids=["a token at a time", "some", "all"])
def test_odd_tokens_are_named(tmp_path, monkeypatch, piece, path):
    """Each token has a status, the row has the worst of them; a bad token has no values, and its row no figures."""
    monkeypatch.setenv("BATCHMAX_PARQUET", path)
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    table, statuses = bad_rows_table()
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    out = tmp_path / "out.parquet"
    summary = batchmax.score(tmp_path / "in.parquet", out, outputs="probs,loss,status", n_classes=3, on_bad_row="null")
    bad = {"null_logits", "bad_length", "nan_logit", "inf_logit", "bad_label"}
    for row, (tokens, whole) in zip(pq.read_table(out).to_pylist(), statuses, strict=True):
        assert (row["statuses"], row["status"]) == (tokens, whole), row["id"]
        if whole in bad:
            assert [row[name] for name in ("mean_loss", "sum_loss", "perplexity", "n_tokens")] == [None] * 4
        if tokens is None:
            assert row["probs"] is None
            assert row["losses"] is None
            continue
        assert [one is None for one in row["probs"]] == [one in bad - {"bad_label"} for one in tokens]
        assert [one is None for one in row["losses"]] == [one not in {"ok", "masked_label"} for one in tokens]
    assert summary.bad_rows == sum(whole in bad for _, whole in statuses)
    assert summary.n_rows == len(statuses)


@pytest.mark.parametrize("path", ["batchmax", "pyarrow"])
@pytest.mark.parametrize("piece", [1, 24, 1 << 20], ids=["a token at a time", "some", "all"])
def test_dropped_rows_leave_nothing(tmp_path, monkeypatch, piece, path):
    """A row with a bad token is dropped as a whole, even if parts of it were written already, and is in the rejects."""
    monkeypatch.setenv("BATCHMAX_PARQUET", path)
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    table, statuses = bad_rows_table()
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    out = tmp_path / "out.parquet"
    batchmax.score(
        tmp_path / "in.parquet",
        out,
        outputs="probs,log_probs,loss,status",
        n_classes=3,
        on_bad_row="drop",
        rejects=tmp_path / "rejects.parquet",
    )
    bad = {"null_logits", "bad_length", "nan_logit", "inf_logit", "bad_label"}
    kept = [row for row, (_, whole) in enumerate(statuses) if whole not in bad]
    scored = pq.read_table(out)
    assert scored["id"].to_pylist() == kept
    whole = table.take(kept)
    for row, found in zip(whole.to_pylist(), scored.to_pylist(), strict=True):
        assert [len(one) for one in found["probs"]] == [3] * len(row["logits"])
        for z, p, log_p in zip(row["logits"], found["probs"], found["log_probs"], strict=True):
            e = np.exp(np.array(z, np.float64) - max(z))
            np.testing.assert_allclose(p, e / e.sum(), rtol=3e-7)
            np.testing.assert_allclose(np.exp(np.array(log_p, np.float64)), e / e.sum(), rtol=1e-6)
    rejects = pq.read_table(tmp_path / "rejects.parquet")
    assert rejects.schema.names == ["id", "labels", "file", "row", "status"]
    gone = [(row, whole) for row, (_, whole) in enumerate(statuses) if whole in bad]
    assert list(zip(rejects["row"].to_pylist(), rejects["status"].to_pylist(), strict=True)) == gone


def test_a_bad_token_is_told(tmp_path):
    """The error names the first bad token: its row, its index in the row, and what is wrong."""
    table, _ = bad_rows_table()
    for rows, said in {
        (0, 2): r"row 1, token 0 .*NaN at class 0",
        (0, 1): r"row 1 \(row group 0\): the logits are null",
        (0, 8): r"row 1, token 2 .*: the row does not have one label for each token",
        (0, 9): r"row 1, token 0 .*: the row does not have one label for each token",
        (0, 7): r"row 1, token 0 .*: label 7 is not a class",
    }.items():
        pq.write_table(table.take(list(rows)), tmp_path / "in.parquet")
        with pytest.raises(BadRowError, match=said):
            batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet")
        with pytest.raises(
            BadRowError, match=r"row 1 of the batch(, token [02])?: " + said.rpartition(": ")[2].rpartition(".*")[2]
        ):
            batchmax.score_batch(table.take(list(rows)).combine_chunks().to_batches()[0], n_classes=3)


def test_top_k_without_probabilities(tmp_path):
    """``top_k`` gives the largest classes of each token, their log-probabilities, and the mass of the other classes."""
    table = sequences(k=50, spread=8.0)
    pq.write_table(table, tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="loss", top_k=4)
    scored = pq.read_table(tmp_path / "out.parquet")
    assert "probs" not in scored.schema.names
    for row, found in zip(table.to_pylist(), scored.to_pylist(), strict=True):
        columns = [found[name] for name in ("top_k_classes", "top_k_log_probs", "tail_mass")]
        assert {len(one) for one in columns} == {len(row["logits"])}
        for z, classes, logs, tail in zip(row["logits"], *columns, strict=True):
            z64 = np.array(z, np.float64)
            order = np.argsort(-z64, kind="stable")
            log_p = z64 - z64.max() - np.log(np.exp(z64 - z64.max()).sum())
            assert classes == order[:4].tolist()
            np.testing.assert_allclose(logs, log_p[order[:4]], rtol=3e-7, atol=1e-12)
            np.testing.assert_allclose(tail, math.fsum(np.exp(log_p[order[4:]])), rtol=3e-7)


def test_a_part_is_a_file_and_a_killed_run_goes_on(tmp_path, monkeypatch):
    """A folder of parts has the rows of a single file, and a limit counts rows, not tokens."""
    table = sequences([9] * 30, k=100)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    monkeypatch.setattr("batchmax.sources.parts.PART_BYTES", 1)
    batchmax.score(tmp_path / "in.parquet", tmp_path / "folder", outputs="probs,loss")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "one.parquet", outputs="probs,loss")
    assert pq.read_table(tmp_path / "folder").equals(pq.read_table(tmp_path / "one.parquet"))
    batchmax.score(tmp_path / "in.parquet", tmp_path / "few.parquet", outputs="probs,loss", limit=11)
    assert pq.read_table(tmp_path / "few.parquet").equals(pq.read_table(tmp_path / "one.parquet").slice(0, 11))


def test_tables_readers_and_streams(tmp_path):
    """A batch, a reader and a table as input give the same rows as a file."""
    table = sequences(k=11)
    pq.write_table(table, tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="probs,loss,status")
    want = pq.read_table(tmp_path / "out.parquet")
    asked = {"outputs": "probs,loss,status"}
    for found in (
        batchmax.scan(tmp_path / "in.parquet", **asked).read_all(),
        batchmax.scan(table, **asked).read_all(),
        batchmax.score_batch(table, **asked),
        pa.Table.from_batches([batchmax.score_batch(table.combine_chunks().to_batches()[0], **asked)]),
    ):
        assert found.schema.names == want.schema.names
        assert found.to_pylist() == want.to_pylist()
    batchmax.score(table, tmp_path / "of table.parquet", **asked)
    assert pq.read_table(tmp_path / "of table.parquet").to_pylist() == want.to_pylist()


def test_bits_per_byte(tmp_path):
    """Bits per byte are the losses in bits over the bytes of the text or their number, for rows that have a loss."""
    table = sequences(k=11)
    texts = ["é" * (3 * row + 1) for row in range(table.num_rows)]
    table = table.append_column("text", pa.array(texts)).append_column("size", [[len(one.encode()) for one in texts]])
    pq.write_table(table, tmp_path / "in.parquet")
    total = sum(one for row in table.to_pylist() for one in exact_losses(row["logits"], row["labels"]))
    for name in ("text", "size"):
        summary = batchmax.score(
            tmp_path / "in.parquet", tmp_path / f"{name}.parquet", outputs="loss", bytes=name, columns="id"
        )
        scored = [text for text, length in zip(texts, LENGTHS, strict=True) if length]
        want = total / math.log(2) / sum(len(one.encode()) for one in scored)
        assert summary.bits_per_byte == pytest.approx(want, rel=1e-6)
        assert json.loads(summary.to_json())["bits_per_byte"] == summary.bits_per_byte


def test_options_of_sequences_are_refused_elsewhere():
    """Sequence options are refused without sequences; one label per row and the wide layout are refused with them."""
    flat = pa.table({"logits": [[1.0, 2.0]], "label": [0]})
    for given in ({"shift": True}, {"bytes": "label"}):
        with pytest.raises(UsageError, match=r"rows aren't sequences"):
            batchmax.score_batch(flat, **given)
    nested = pa.table({"logits": [[[1.0, 2.0]]], "label": [0]})
    with pytest.raises(UsageError, match=r"one label per row, but the rows are sequences"):
        batchmax.score_batch(nested)
    with pytest.raises(UsageError, match=r"one column per class"):
        batchmax.score_batch(nested, label="none", layout="wide")
    with pytest.raises(UsageError, match=r"neither text nor an integer"):
        batchmax.score_batch(nested, label="none", bytes="logits")
    deep = pa.table({"logits": [[[[1.0, 2.0]]]]})
    with pytest.raises(UsageError, match=r"lists of lists"):
        batchmax.score_batch(deep, logits="logits")


def test_an_output_is_verified(tmp_path):
    """``verify`` accepts an output of sequences, and refuses it after any of several columns is changed."""
    table = sequences(k=9, label_nulls=[1, 8])
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    out = tmp_path / "out.parquet"
    every = "probs,log_probs,loss,pred,confidence,margin,entropy,logsumexp,rank,correct,el2n,status"
    batchmax.score(tmp_path / "in.parquet", out, outputs=every, top_k=2, shift=True)
    found = batchmax.verify(out)
    assert set(found.summary) >= {"n_rows", "mean_loss", "n_tokens"}
    assert found.compared["loss"] == ["probs"]
    scored = pq.read_table(out)
    for name, change in {
        "losses": lambda rows: [[one and one + 0.01 for one in row] for row in rows],
        "sum_loss": lambda rows: [one + 0.01 for one in rows],
        "n_tokens": lambda rows: [one + 1 for one in rows],
        "preds": lambda rows: [[(one + 1) % 9 for one in row] for row in rows],
        "ranks": lambda rows: [row[:-1] for row in rows],
    }.items():
        at = scored.schema.get_field_index(name)
        changed = pa.array(change(scored[name].to_pylist()), scored.schema.field(name).type)
        # With checksums on all pages, as in our own files.
        pq.write_table(scored.set_column(at, name, changed), tmp_path / "x.parquet", write_page_checksum=True)
        with pytest.raises(batchmax.DataError, match="row"):
            batchmax.verify(tmp_path / "x.parquet")


def as_rows(table):
    """Return the tokens of sequences as plain rows."""
    lengths = [0 if row is None else len(row) for row in table["logits"].to_pylist()]
    columns = {name: np.repeat(table[name].to_numpy(), lengths) for name in table.schema.names if name == "id"}
    tokens = {"logits": "logits", "label": "labels"}
    return pa.table(columns | {name: table[theirs].combine_chunks().flatten() for name, theirs in tokens.items()})


def test_subnormal_losses_are_verified(tmp_path):
    """``verify`` accepts losses so small that float32 has few digits for them."""
    logits = [[[float(gap), 0.0]] * 3 for gap in range(85, 106)]
    pq.write_table(pa.table({"logits": logits, "label": [[0] * 3] * len(logits)}), tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="probs,loss")
    found = batchmax.verify(tmp_path / "out.parquet", tmp_path / "in.parquet")
    assert found.n_rows == len(logits)


def test_memory_of_long_rows_is_that_of_the_rows_read_at_once(tmp_path):
    """A small file of long sequences needs no more than the default memory limit."""
    tokens = 14_000
    logits = pa.array([[[0.0, 1.0]] * tokens] * 3, pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"logits": logits, "label": [[0] * tokens] * 3}), tmp_path / "in.parquet")
    assert batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="loss").n_tokens == 3 * tokens


@pytest.mark.parametrize("piece", [1, 60, 1 << 20], ids=["a token at a time", "some", "all"])
def test_figures_are_those_of_tokens(monkeypatch, piece):
    """Figures and worst rows of sequences equal those of their tokens as rows; rows are counted as sequences."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    table = sequences(k=9, spread=2.0)
    flat = as_rows(table)
    of_sequences, of_tokens = batchmax.evaluate(table, by="id"), batchmax.evaluate(flat, by="id")
    slices = *of_sequences.slices["id"], *of_tokens.slices["id"]
    for one in (*of_sequences.per_class, *of_tokens.per_class, *slices):
        del one["intervals"]  # tokens of a sequence depend on each other
    for name in ("accuracy", "mean_loss", "ece", "brier", "per_class", "confusion", "losses", "bins"):
        assert getattr(of_sequences, name) == getattr(of_tokens, name), name
    assert (of_sequences.n_rows, of_sequences.n_tokens) == (len(LENGTHS), of_tokens.n_rows)
    assert of_sequences.token_status_counts == of_tokens.status_counts
    groups = {one["value"]: one for one in of_sequences.slices["id"]}
    assert {value: (one["n_rows"], one["n_tokens"]) for value, one in groups.items()} == {
        row: (1, length) for row, length in enumerate(LENGTHS)
    }
    for one in of_tokens.slices["id"]:
        assert groups[one["value"]] == one | {"n_rows": 1, "n_tokens": one["n_rows"]}
    worst, among = batchmax.worst_rows(table, 5), batchmax.worst_rows(flat, 5)
    assert worst["loss"].to_pylist() == among["loss"].to_pylist()
    assert worst["id"].to_pylist() == among["id"].to_pylist()
    starts = np.cumsum([0, *LENGTHS])[worst["row"].to_numpy()]
    assert (starts + worst["token"].to_numpy()).tolist() == among["row"].to_pylist()


def test_a_report_is_one_of_tokens(tmp_path):
    """The report counts rows and tokens separately, shows a row as tokens, and lists the worst tokens."""
    table = sequences(k=9, spread=2.0, nulls=[7])
    pq.write_table(table, tmp_path / "in.parquet")
    page = tmp_path / "page.html"
    found = batchmax.report(str(tmp_path / "in.parquet"), str(page), row=3, shift=True, on_bad_row="null")
    n_tokens = sum(max(length - 1, 0) for row, length in enumerate(LENGTHS) if row != 7)
    assert (found.n_rows, found.n_tokens, found.bad_rows) == (len(LENGTHS), n_tokens, 1)
    whole = page.read_text()
    assert f"Histogram of the loss of {n_tokens} tokens" in whole
    text = re.sub(r"(<[^>]*>|\s)+", " ", whole)
    assert "Losses of the tokens" in text
    assert "The worst tokens" in text
    assert f"over {n_tokens} tokens." in text
    assert f"Rows {len(LENGTHS)} 1 null_logits" in text
    assert f"Tokens with a loss {n_tokens} 5 unlabelled" in text
    assert " 9 rows" not in text
    assert "--shift --on-bad-row null --row 3" in text


@pytest.mark.parametrize("piece", [1, 1 << 20], ids=["a token at a time", "all"])
def test_the_strip_of_a_report_is_the_whole_row(monkeypatch, piece):
    """For any chunks, the report has the losses of all tokens of a row, and selects the one with the largest loss."""
    from batchmax.evaluation.row_stream import open_rows, row_batches
    from batchmax.options.input_options import InputOptions
    from batchmax.reports.collectors import RowSelector

    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
    table = sequences(k=9)
    want = [exact_losses(row["logits"], row["labels"]) for row in table.to_pylist()]
    worst = max(range(len(want)), key=lambda row: max(want[row], default=-1))
    for number, row in ((None, worst), (3, 3), (8, 8)):
        source = open_rows(table, InputOptions(), ("loss", "pred", "confidence"))
        selector = RowSelector(source.job, number)
        for batch in row_batches(source):
            selector.add(batch)
        assert (selector.selected.row, selector.selected.token) == (row, int(np.argmax(want[row])))
        np.testing.assert_allclose(selector.selected.losses, want[row], rtol=3e-7)

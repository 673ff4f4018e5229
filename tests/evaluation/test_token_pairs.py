"""Tests ``compare`` on sequences, whose tokens are paired."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

import batchmax
import batchmax.sources.sequence_source
from batchmax.errors import DataError, UsageError
from tests.support.token_tables import LABELS, PIECES, loss, table_of

A = table_of([[[1, 0], [2, 0]], [[3, 0]], [[4, 0], [5, 0]]], [[0, 0], [0], [0, 0]], id=[10, 11, 12])
KEYS = {
    "int": pa.array([10, 11, 12]),
    "text": pa.array(["a", "b", "c"]),
    "null": pa.array([10, None, 12]),
}


@PIECES
@pytest.mark.parametrize("kind", KEYS)
def test_sequences_compared_with_themselves_have_no_change(write, monkeypatch, kind, piece):
    """A file compared with itself, by position or key and in any row order, pairs each token with itself: no change."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
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
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
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
def test_missing_and_shorter_sequences_are_named(write, monkeypatch, piece):
    """Missing and shorter sequences are counted and named by key, and refused by position.

    By position, the error has the numbers of rows, or names the row with another number of tokens.
    """
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
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
    with pytest.raises(UsageError, match=r"are sequences, and those of the other input aren't"):
        batchmax.compare(a, flat)


def test_label_that_differs_is_named_by_token(write):
    """A token with another label in b is named by its row and token index."""
    a = write("a", A)
    b = write("b", A.set_column(1, "label", pa.array([[0, 0], [0], [0, 1]], LABELS)))
    with pytest.raises(DataError, match=r"a token has a different label in .*b\.parquet, first in row 2, token 1"):
        batchmax.compare(a, b)
    assert batchmax.compare(a, b, labels_from="a").mean_loss_change == 0.0


def test_streams_are_compared_by_position():
    """Tables and readers of sequences are compared token by token; different numbers of rows are an error."""
    found = batchmax.compare(A, pa.RecordBatchReader.from_batches(A.schema, A.to_batches(max_chunksize=1)))
    assert (found.n_rows, found.n_judged, found.mean_loss_change) == (3, 5, 0.0)
    shorter = A.slice(0, 2)
    with pytest.raises(DataError, match="3 rows, but 2 in the stream"):
        batchmax.compare(A, pa.RecordBatchReader.from_batches(A.schema, shorter.to_batches()))

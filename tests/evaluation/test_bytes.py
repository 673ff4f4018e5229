"""Tests losses per byte of text against independent sums."""

from __future__ import annotations

import math

import pytest

import batchmax
import batchmax.sources.sequence_source
from batchmax.errors import DataError, GateError, UsageError
from tests.support.rows import NAN
from tests.support.token_tables import PIECES, loss, table_of


@PIECES
def test_bits_per_byte_are_over_rows_with_a_loss(write, tmp_path, monkeypatch, piece):
    """Bits per byte are over the rows that have a loss and aren't bad, in score, in evaluate, and in each group."""
    monkeypatch.setattr(batchmax.sources.sequence_source, "MAX_CHUNK_BYTES", piece)
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


def test_bits_per_byte_example(write, tmp_path):
    """Two tokens of one bit each with two bytes, and a null row with a hundred bytes, have one bit per byte."""
    path = write("in", table_of([[[0, 0], [0, 0]], None], [[0, 0], [0]], n=[2, 100]))
    assert batchmax.score(path, tmp_path / "out.parquet", bytes="n", on_bad_row="null").bits_per_byte == 1.0


@pytest.mark.parametrize("kind", ["int", "text"])
@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_invalid_bytes_are_refused(write, tmp_path, command, kind):
    """A null or negative number of bytes for a row that has a loss is an error that names the row."""
    values = {"int": [1, -2, 3], "text": ["a", None, "b"]}[kind]
    path = write("in", table_of([[[0, 0]]] * 3, [[0]] * 3, n=values))
    problem = "is -2" if kind == "int" else "is null"
    runs = {
        "score": lambda: batchmax.score(path, tmp_path / "out.parquet", bytes="n"),
        "evaluate": lambda: batchmax.evaluate(path, bytes="n"),
    }
    with pytest.raises(DataError, match=rf"in\.parquet: row 1 .*column 'n' {problem}, but the row has a loss"):
        runs[command]()
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("command", ["compare", "calibrate", "report", "worst_rows"])
def test_bytes_option_is_refused_if_unused(write, tmp_path, command):
    """Commands without bits per byte refuse the option ``bytes``."""
    path = write("in", table_of([[[0, 0]]], [[0]], n=[1]))
    runs = {
        "compare": lambda: batchmax.compare(path, path, bytes="n"),
        "calibrate": lambda: batchmax.calibrate(path, bytes="n"),
        "report": lambda: batchmax.report(path, str(tmp_path / "page.html"), bytes="n"),
        "worst_rows": lambda: batchmax.worst_rows(path, 1, bytes="n"),
    }
    with pytest.raises(UsageError, match="only score and evaluate compute bits per byte"):
        runs[command]()

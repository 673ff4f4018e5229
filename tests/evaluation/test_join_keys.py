"""Tests how ``compare`` pairs rows by key."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from tests.support.comparisons import assert_close, expected, rows_of, write
from tests.support.progress import Recorder


def keyed(kind, ids):
    """Return ids as keys of a type, in the same order."""
    return {
        "int": pa.array(ids),
        "text": pa.array([f"{number:08d}" for number in ids]),
        "dictionary": pa.array([f"{number:08d}" for number in ids]).dictionary_encode(),
        "time": pa.array(ids).cast(pa.timestamp("ns")),
        "hash": pa.array([f"{number * 2654435761 % 2**32:x}" for number in ids]),
    }[kind]


HOW = {
    "rising": "the keys are ascending in both inputs, so no rows are kept in memory",
    "same": "the keys are in the same order in both inputs, so no rows are kept in memory",
    "other": "the keys are in different orders in the two inputs, so {} rows are kept in memory",
}


@pytest.mark.parametrize("kind", ["int", "text", "dictionary", "time", "hash"])
@pytest.mark.parametrize("order", ["rising", "same", "other"])
def test_rows_are_paired_by_key(tmp_path, kind, order):
    """Rows are paired by key if keys ascend, have the same order in both inputs, or have any order.

    Unpaired rows are counted.
    """
    rng = np.random.default_rng(3)
    a, b = rows_of(900, 1), rows_of(900, 2)
    in_a, in_b = np.sort(rng.permutation(900)[:800]), np.sort(rng.permutation(900)[:700])
    if order != "rising":
        place = rng.permutation(900)
        in_a, in_b = (np.array(sorted(rows, key=lambda row: place[row])) for rows in (in_a, in_b))
    if order == "other":
        in_b = rng.permutation(in_b)
    a = a.set_column(0, "id", keyed(kind, a["id"].to_numpy()))
    b = b.set_column(0, "id", keyed(kind, b["id"].to_numpy()))
    both = np.array([row for row in in_a if row in set(in_b)])
    recorder = Recorder()
    found = batchmax.compare(
        write(a.take(pa.array(in_a)), tmp_path / "a.parquet", 130),
        write(b.take(pa.array(in_b)), tmp_path / "b.parquet", 90),
        key="id",
        worst=5,
        progress=recorder,
    )
    if kind != "hash":
        assert recorder.details == [HOW[order].format(len(both))]
    figures, moved = expected(a.take(pa.array(both)), b.take(pa.array(both)))
    assert_close(found, figures)
    assert (found.only_a, found.only_b) == (800 - len(both), 700 - len(both))
    wanted = both[np.argsort(-moved, kind="stable")[:5]]
    assert [in_a[row["row"]] for row in found.moved] == [in_b[row["row_b"]] for row in found.moved] == wanted.tolist()
    if kind in {"int", "text"}:
        assert [row["key"] for row in found.moved] == a["id"].take(pa.array(wanted)).to_pylist()
    json.loads(found.to_json())


def test_no_common_keys(tmp_path):
    """Inputs without a common key, and with null keys, have no pairs: counts are kept and metrics are None."""
    a, b = rows_of(20), rows_of(20)
    a = a.set_column(0, "id", pa.array([None, *range(19)]))
    b = b.set_column(0, "id", pa.array([None, *range(119, 100, -1)]))
    found = batchmax.compare(write(a, tmp_path / "a.parquet"), write(b, tmp_path / "b.parquet"), key="id")
    assert (found.n_rows, found.only_a, found.only_b, found.moved) == (0, 20, 20, [])
    assert (found.mean_loss_a, found.agreement, found.mean_kl, found.mcnemar_p) == (None,) * 4


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_after_the_last_key_of_the_other_are_counted(tmp_path, sign):
    """If one input ends first, the remaining rows of the other are counted as unpaired."""
    a = write(rows_of(500, 1), tmp_path / "a.parquet", 100)
    b = write(rows_of(500, 2).slice(20, 150), tmp_path / "b.parquet", 90)
    found = batchmax.compare(*(a, b)[::sign], key="id", labels_from="ab"[::sign][0])
    assert (found.n_rows, *(found.only_a, found.only_b)[::sign]) == (150, 350, 0)


def test_thread_limit_holds_until_both_inputs_are_read(tmp_path, monkeypatch):
    """The thread limit holds until both inputs have been read, and is then removed."""
    limits = []
    for module in ("evaluation.comparison.row_cursor", "jobs.threads"):
        monkeypatch.setattr(f"batchmax.{module}.limit_threads", limits.append)
    a = write(rows_of(50, 1).slice(0, 10), tmp_path / "a.parquet")
    b = write(rows_of(50, 2), tmp_path / "b.parquet", 10)
    batchmax.compare(a, b, key="id", labels_from="b", threads=1)
    assert [after for before, after in itertools.pairwise(limits) if before is None] == [1, 1]
    assert limits[-1] is None


def test_keys_that_ascend_only_within_row_groups(tmp_path):
    """Keys that only ascend within row groups are paired all the same, and duplicates are found."""
    ids = [4, 5, 6, 1, 2, 3]
    a = write(rows_of(6, 1).set_column(0, "id", pa.array(ids)), tmp_path / "a.parquet", 3)
    b = write(rows_of(6, 2).set_column(0, "id", pa.array(sorted(ids))), tmp_path / "b.parquet", 2)
    found = batchmax.compare(a, b, key="id", labels_from="a")
    assert (found.n_rows, found.only_a, found.only_b) == (6, 0, 0)
    assert sorted(row["row_b"] for row in found.moved) == list(range(6))
    assert all(ids[row["row"]] == row["key"] == row["row_b"] + 1 for row in found.moved)
    write(rows_of(6).set_column(0, "id", pa.array([1, 2, 3, 3, 4, 5])), tmp_path / "b.parquet", 3)
    with pytest.raises(batchmax.DataError, match="rows 2 and 3 have the same key, 3"):
        batchmax.compare(a, b, key="id")


def test_duplicate_key_is_an_error(tmp_path):
    """A duplicate key is an error with the key and its first two rows."""
    ids = [1, 5, 3, 5]
    a, b = (write(rows_of(4).set_column(0, "id", pa.array(ids)), tmp_path / f"{name}.parquet") for name in "ab")
    with pytest.raises(batchmax.DataError, match=r"a\.parquet: rows 1 and 3 have the same key, 5; .*--key"):
        batchmax.compare(a, b, key="id")


def test_join_above_the_memory_limit_is_refused(tmp_path):
    """A join of unordered rows that needs too much memory is an error with a remedy, before any rows are read."""
    n = 300_000
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * 64, np.float32)), 64)
    ids = np.arange(n)
    for name, order in (("a", ids), ("b", ids[::-1])):
        write(pa.table({"id": order, "logits": wide}), tmp_path / f"{name}.parquet", 4096)
    with pytest.raises(
        batchmax.UsageError, match=r"300,000 rows in memory takes about .* MiB.*sort both by id"
    ) as error:
        batchmax.compare(
            str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), key="id", memory_limit="300MiB", n_classes=64
        )
    assert "--memory-limit" in error.value.remedy


def test_keys_above_the_memory_limit_are_refused(tmp_path, monkeypatch):
    """Unordered keys that exceed their share of memory are rejected; ascending keys need no memory."""
    monkeypatch.setattr("batchmax.evaluation.comparison.join_keys.KEY_SHARE", 1 << 24)
    a, b = rows_of(50), rows_of(50)
    paths = [write(table, tmp_path / f"{name}.parquet") for name, table in (("a", a), ("b", b))]
    assert batchmax.compare(*paths, key="id").n_rows == 50
    write(b.take(pa.array(np.arange(49, -1, -1))), tmp_path / "b.parquet")
    with pytest.raises(batchmax.UsageError, match=r"--key: the keys of .* sort both inputs"):
        batchmax.compare(*paths, key="id")


def test_key_type_mismatch_and_streams_with_keys_are_refused(tmp_path):
    """Keys of different types are rejected, and so are streams with a key, because they can't be read twice."""
    a = write(rows_of(10), tmp_path / "a.parquet")
    b = write(rows_of(10).set_column(0, "id", pa.array(list("abcdefghij"))), tmp_path / "b.parquet")
    with pytest.raises(batchmax.UsageError, match=r"is int64 in .* and string in"):
        batchmax.compare(a, b, key="id")
    with pytest.raises(batchmax.UsageError, match="a stream can be read only once"):
        batchmax.compare(a, rows_of(10), key="id")

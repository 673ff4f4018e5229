"""``compare``: its results against NumPy, SciPy and scikit-learn on the same rows in memory."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchmax
from batchmax import kernels
from batchmax.evaluation.comparison.paired_tests import MOST_EXACT, Differences, mcnemar
from tests.support.progress import Recorder
from tests.support.requirements import optional, package

mpmath = optional("mpmath")
stats = optional("scipy.stats")
log_softmax = package("scipy.special").log_softmax
rel_entr = package("scipy.special").rel_entr
softmax = package("scipy.special").softmax
accuracy_score = package("sklearn.metrics").accuracy_score
log_loss = package("sklearn.metrics").log_loss

NAN, INF = float("nan"), float("inf")
K = 6


def logits_of(n, seed=0, k=K, dtype=np.float32):
    return (3 * np.random.default_rng([seed, n]).standard_normal((n, k))).astype(dtype)


def rows_of(n, seed=0, **columns):
    """Return n rows: ascending ids with gaps, logits, and labels that don't depend on seed or logits."""
    labels = np.random.default_rng(99).integers(0, K, n)
    return pa.table({"id": np.arange(n) * 3 + 7, "logits": list(logits_of(n, seed)), "label": labels, **columns})


def write(table, path, rows=None):
    pq.write_table(table, path, row_group_size=rows or 1 << 20)
    return str(path)


def expected(a, b):
    """Return the results for two tables of paired rows, and the absolute change of each row's loss.

    They are computed with NumPy, SciPy and scikit-learn.
    """
    za, zb = (np.array(table["logits"].to_pylist(), np.float64) for table in (a, b))
    y = a["label"].to_numpy()
    rows = np.arange(len(y))
    loss_a, loss_b = (-log_softmax(z, axis=1)[rows, y] for z in (za, zb))
    test = stats.ttest_rel(loss_b, loss_a)
    half = stats.norm.ppf(0.975) * abs((loss_b - loss_a).mean() / test.statistic)
    right_a, right_b = za.argmax(1) == y, zb.argmax(1) == y
    ways = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    names = list(range(za.shape[1]))
    return {
        "n_rows": len(y),
        "n_judged": len(y),
        "mean_loss_a": log_loss(y, softmax(za, axis=1), labels=names),
        "mean_loss_b": log_loss(y, softmax(zb, axis=1), labels=names),
        "mean_loss_change": (loss_b - loss_a).mean(),
        "mean_loss_change_low": (loss_b - loss_a).mean() - half,
        "mean_loss_change_high": (loss_b - loss_a).mean() + half,
        "accuracy_a": accuracy_score(y, za.argmax(1)),
        "accuracy_b": accuracy_score(y, zb.argmax(1)),
        "right_to_wrong": ways[0],
        "wrong_to_right": ways[1],
        "mcnemar_p": stats.binomtest(ways[0], sum(ways)).pvalue,
        "agreement": (za.argmax(1) == zb.argmax(1)).mean(),
        "mean_kl": rel_entr(softmax(za, axis=1), softmax(zb, axis=1)).sum(1).mean(),
    }, np.abs(loss_b - loss_a)


def assert_like(found, figures):
    for name, value in figures.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1e-12), name


@pytest.mark.parametrize("groups", [(1000, 1000), (300, 77), (1, 999)])
def test_figures_agree_with_other_libraries(tmp_path, groups):
    """With any row groups, every result and the rows that moved most match SciPy and scikit-learn."""
    a, b = rows_of(1000, 1), rows_of(1000, 2)
    if 1 in groups:
        a, b = a.slice(0, 40), b.slice(0, 40)
    found = batchmax.compare(
        write(a, tmp_path / "a.parquet", groups[0]), write(b, tmp_path / "b.parquet", groups[1]), worst=7
    )
    figures, moved = expected(a, b)
    assert_like(found, figures)
    order = np.argsort(-moved, kind="stable")[:7]
    assert [row["row"] for row in found.moved] == [row["row_b"] for row in found.moved] == order.tolist()
    first = found.moved[0]
    assert abs(first["loss_b"] - first["loss_a"]) == pytest.approx(moved[order[0]])
    assert first["label"] == a["label"][int(order[0])].as_py()
    assert (found.interval, found.mcnemar_method) == ("95 %, normal approximation, paired", "exact")


@pytest.mark.parametrize("chunk", [3000, 40])
def test_cuts_do_not_change_a_figure(tmp_path, chunk):
    """Results are the same bit by bit if the two inputs are cut into chunks at different rows.

    This holds for files and for tables in batches.
    """
    a, b = rows_of(3000, 1), rows_of(3000, 2)
    whole = batchmax.compare(write(a, tmp_path / "a.parquet"), write(b, tmp_path / "b.parquet"))
    cut = batchmax.compare(
        pa.Table.from_batches(a.to_batches(max_chunksize=chunk)),
        pa.Table.from_batches(b.to_batches(max_chunksize=97)),
        threads=1,
    )
    left_out = {"files_a", "files_b", "bytes_read", "seconds", "moved"}
    assert {k: v for k, v in whole.as_dict().items() if k not in left_out} == {
        k: v for k, v in cut.as_dict().items() if k not in left_out
    }
    assert [row["row"] for row in whole.moved] == [row["row"] for row in cut.moved]


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
    "rising": "the keys rise in both inputs, so no row is kept",
    "same": "the keys are in one order in both inputs, so no row is kept",
    "other": "the keys are in another order in the two inputs, so {} rows are kept",
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
    assert_like(found, figures)
    assert (found.only_a, found.only_b) == (800 - len(both), 700 - len(both))
    wanted = both[np.argsort(-moved, kind="stable")[:5]]
    assert [in_a[row["row"]] for row in found.moved] == [in_b[row["row_b"]] for row in found.moved] == wanted.tolist()
    if kind in {"int", "text"}:
        assert [row["key"] for row in found.moved] == a["id"].take(pa.array(wanted)).to_pylist()
    json.loads(found.to_json())


def test_keys_that_pair_nothing(tmp_path):
    """Inputs without a common key, and with null keys, have no pairs: counts are kept and metrics are None."""
    a, b = rows_of(20), rows_of(20)
    a = a.set_column(0, "id", pa.array([None, *range(19)]))
    b = b.set_column(0, "id", pa.array([None, *range(119, 100, -1)]))
    found = batchmax.compare(write(a, tmp_path / "a.parquet"), write(b, tmp_path / "b.parquet"), key="id")
    assert (found.n_rows, found.only_a, found.only_b, found.moved) == (0, 20, 20, [])
    assert (found.mean_loss_a, found.agreement, found.mean_kl, found.mcnemar_p) == (None,) * 4


@pytest.mark.parametrize("sign", [1, -1])
def test_what_lies_beyond_the_last_key_of_the_other_is_counted(tmp_path, sign):
    """If one input ends first, the remaining rows of the other are counted as unpaired."""
    a = write(rows_of(500, 1), tmp_path / "a.parquet", 100)
    b = write(rows_of(500, 2).slice(20, 150), tmp_path / "b.parquet", 90)
    found = batchmax.compare(*(a, b)[::sign], key="id", labels_from="ab"[::sign][0])
    assert (found.n_rows, *(found.only_a, found.only_b)[::sign]) == (150, 350, 0)


def test_threads_are_as_asked_for_until_both_have_ended(tmp_path, monkeypatch):
    """The thread limit holds until both inputs have been read, and is then removed."""
    limits = []
    monkeypatch.setattr("batchmax.kernels.limit_threads", limits.append)
    a = write(rows_of(50, 1).slice(0, 10), tmp_path / "a.parquet")
    b = write(rows_of(50, 2), tmp_path / "b.parquet", 10)
    batchmax.compare(a, b, key="id", labels_from="b", threads=1)
    assert [after for before, after in itertools.pairwise(limits) if before is None] == [1, 1]
    assert limits[-1] is None


def test_keys_that_rise_in_each_row_group_alone(tmp_path):
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


def test_a_key_that_is_there_twice_is_an_error(tmp_path):
    """A duplicate key is an error with the key and its first two rows."""
    ids = [1, 5, 3, 5]
    a, b = (write(rows_of(4).set_column(0, "id", pa.array(ids)), tmp_path / f"{name}.parquet") for name in "ab")
    with pytest.raises(batchmax.DataError, match=r"a\.parquet: rows 1 and 3 have the same key, 5; .*--key"):
        batchmax.compare(a, b, key="id")


def test_a_join_that_does_not_fit_is_refused(tmp_path):
    """A join of unordered rows that needs too much memory is an error with a remedy, before any rows are read."""
    n = 300_000
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * 64, np.float32)), 64)
    ids = np.arange(n)
    for name, order in (("a", ids), ("b", ids[::-1])):
        write(pa.table({"id": order, "logits": wide}), tmp_path / f"{name}.parquet", 4096)
    with pytest.raises(batchmax.UsageError, match=r"300,000 rows takes about .* MiB.*sort both by id") as error:
        batchmax.compare(
            str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), key="id", memory_limit="300MiB", n_classes=64
        )
    assert "--memory-limit" in error.value.remedy


def test_keys_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    """Unordered keys that exceed their share of memory are rejected; ascending keys need no memory."""
    monkeypatch.setattr("batchmax.evaluation.comparison.row_pairing.KEY_SHARE", 1 << 24)
    a, b = rows_of(50), rows_of(50)
    paths = [write(table, tmp_path / f"{name}.parquet") for name, table in (("a", a), ("b", b))]
    assert batchmax.compare(*paths, key="id").n_rows == 50
    write(b.take(pa.array(np.arange(49, -1, -1))), tmp_path / "b.parquet")
    with pytest.raises(batchmax.UsageError, match=r"--key: the keys of .* sort both inputs"):
        batchmax.compare(*paths, key="id")


def odd_pair():
    """Return two tables of the same rows with every kind of bad or flagged row on either side."""
    a, b = logits_of(9, 1).tolist(), logits_of(9, 2).tolist()
    labels_a, labels_b = [0] * 9, [0] * 9
    a[0] = [NAN] * K
    b[1] = None
    a[2], b[2] = [INF] * K, [INF] * K
    labels_a[3] = labels_b[3] = K + 3
    labels_a[4] = labels_b[4] = -100
    labels_a[5] = labels_b[5] = None
    b[6][3] = -INF  # masked only in b
    a[7][2] = -INF
    return (
        pa.table({"logits": a, "label": pa.array(labels_a, pa.int64())}),
        pa.table({"logits": b, "label": pa.array(labels_b, pa.int64())}),
    )


@pytest.mark.parametrize("policy", ["null", "drop"])
def test_odd_rows_are_left_out_and_counted(policy):
    """A pair with a bad row on either side counts as bad.

    A pair without a label has a divergence, but no loss.
    """
    a, b = odd_pair()
    found = batchmax.compare(a, b, on_bad_row=policy, n_classes=K)
    assert (found.n_rows, found.bad_rows, found.n_judged, found.infinite_kl) == (9, 4, 3, 1)
    za, zb = (np.array(table["logits"].take([4, 5, 7, 8]).to_pylist()) for table in (a, b))
    kl = rel_entr(softmax(za, axis=1), softmax(zb, axis=1)).sum(1)
    assert found.mean_kl == pytest.approx(kl.mean(), rel=1e-9)
    za, zb = (np.array(table["logits"].take([6, 7, 8]).to_pylist()) for table in (a, b))
    assert found.mean_loss_change == pytest.approx((log_softmax(za, 1) - log_softmax(zb, 1))[:, 0].mean(), rel=1e-9)
    with pytest.raises(batchmax.BadRowError, match="row 0"):
        batchmax.compare(a, b, n_classes=K)


def test_an_infinite_loss_leaves_no_mean():
    """If the label is masked on one side, that side has no mean loss, and there is no change.

    There is a warning, and JSON has null for the loss.
    """
    a, b = rows_of(5, 1), rows_of(5, 2)
    z = np.array(b["logits"].to_pylist())
    z[2, b["label"][2].as_py()] = -INF
    found = batchmax.compare(a, b.set_column(1, "logits", pa.array(list(z))))
    assert found.mean_loss_a is not None
    assert (found.mean_loss_b, found.mean_loss_change, found.mean_loss_change_low) == (None, None, None)
    assert (found.infinite_losses_a, found.infinite_losses_b) == (0, 1)
    assert "infinite loss in b" in found.warnings[0]
    assert (found.moved[0]["row"], found.moved[0]["loss_b"]) == (2, INF)
    assert json.loads(found.to_json())["moved"][0]["loss_b"] is None


def test_labels_of_one_side_hold_for_both():
    """If one input has no labels, or ``labels_from`` names an input, both sides use the same labels.

    Otherwise, labels that differ are an error.
    """
    a, b = rows_of(200, 1), rows_of(200, 2)
    figures, _ = expected(a, b)
    assert_like(batchmax.compare(a, b.drop(["label"])), figures)
    assert_like(batchmax.compare(a.drop(["label"]), b), figures)
    wrong = b.set_column(2, "label", pa.array((b["label"].to_numpy() + 1) % K))
    assert_like(batchmax.compare(a, wrong, labels_from="a"), figures)
    assert_like(batchmax.compare(wrong, b, labels_from="b"), {"accuracy_b": figures["accuracy_b"]})
    with pytest.raises(batchmax.DataError, match=r"200 of 200 rows have another label .* --labels-from"):
        batchmax.compare(a, wrong)


def test_one_label_that_differs_is_named(tmp_path):
    """The error for a label that differs names the file and the row."""
    a = rows_of(30)
    labels = a["label"].to_pylist()
    labels[17] = (labels[17] + 1) % K
    b = a.set_column(2, "label", pa.array(labels))
    with pytest.raises(batchmax.DataError, match=r"a\.parquet: a row has another label .*b\.parquet, the first row 17"):
        batchmax.compare(write(a, tmp_path / "a.parquet", 7), write(b, tmp_path / "b.parquet", 11))


def test_without_labels_there_are_divergence_and_agreement():
    """Without labels, results that need losses are None.

    The rows that moved most are those with the largest divergence.
    """
    a, b = rows_of(100, 1).drop(["label"]), rows_of(100, 2).drop(["label"])
    found = batchmax.compare(a, b, worst=3)
    za, zb = (np.array(table["logits"].to_pylist(), np.float64) for table in (a, b))
    kl = rel_entr(softmax(za, axis=1), softmax(zb, axis=1)).sum(1)
    assert found.mean_kl == pytest.approx(kl.mean(), rel=1e-9)
    assert (found.mean_loss_a, found.accuracy_a, found.right_to_wrong, found.infinite_losses_a) == (None,) * 4
    assert (found.moved_by, found.n_judged) == ("kl", 0)
    assert [row["row"] for row in found.moved] == np.argsort(-kl)[:3].tolist()
    assert found.moved[0]["loss_a"] is None


def test_distributions_are_compared_by_loss():
    """Soft targets have losses but no accuracy.

    Soft targets that differ between the inputs are an error, like labels that differ.
    """
    a, b = rows_of(50, 1), rows_of(50, 2)
    targets = softmax(np.random.default_rng(5).standard_normal((50, K)), axis=1).astype(np.float32)
    a, b = (table.set_column(2, "label", pa.array(list(targets))) for table in (a, b))
    found = batchmax.compare(a, b)
    za, zb = (np.array(table["logits"].to_pylist(), np.float64) for table in (a, b))
    change = (targets * (log_softmax(za, axis=1) - log_softmax(zb, axis=1))).sum(1)
    assert found.mean_loss_change == pytest.approx(change.mean(), rel=1e-6)
    assert (found.accuracy_a, found.right_to_wrong, found.moved[0]["label"]) == (None, None, None)
    assert_like(batchmax.compare(a, b.drop(["label"])), {"mean_loss_b": found.mean_loss_b})
    with pytest.raises(batchmax.DataError, match="50 of 50 rows"):
        batchmax.compare(a, b.set_column(2, "label", pa.array(list(targets[::-1]))))
    with pytest.raises(batchmax.UsageError, match=r"distributions .* and classes"):
        batchmax.compare(a, rows_of(50, 2))


def test_scored_files_and_logits_compare(tmp_path):
    """A scored file gives the results of its logits, on one or both sides, and has the class names."""
    paths = [write(rows_of(300, seed), tmp_path / f"{seed}.parquet") for seed in (1, 2)]
    scored = [str(tmp_path / f"scored{seed}.parquet") for seed in (1, 2)]
    for path, out in zip(paths, scored, strict=True):
        batchmax.score(path, out, classes="a,b,c,d,e,f")
    figures, _ = expected(rows_of(300, 1), rows_of(300, 2))
    for a, b in ((scored[0], scored[1]), (paths[0], scored[1]), (scored[0], paths[1])):
        found = batchmax.compare(a, b)
        assert_like(found, figures)
        assert found.moved[0]["label"] in set("abcdef")


def test_inputs_that_are_not_alike_are_refused(tmp_path):
    """Different numbers of rows or classes, and different class names, are errors."""
    a, b = write(rows_of(10), tmp_path / "a.parquet"), write(rows_of(9), tmp_path / "b.parquet")
    with pytest.raises(batchmax.DataError, match=r"a\.parquet: 10 rows, but 9 in .*--key"):
        batchmax.compare(a, b)
    assert batchmax.compare(a, b, limit=9).n_rows == 9
    streams = [pa.RecordBatchReader.from_batches(t.schema, t.to_batches()) for t in (rows_of(9), rows_of(10))]
    with pytest.raises(batchmax.DataError, match="9 rows, but more than 9"):
        batchmax.compare(*streams)
    other = pa.table({"logits": list(logits_of(10, k=3)), "label": [0] * 10})
    with pytest.raises(batchmax.UsageError, match="3 classes, but 6"):
        batchmax.compare(a, other)
    named = [f"{tmp_path}/{order}.parquet" for order in ("x,y,z", "z,y,x", "x,y,w")]
    for path in named:
        batchmax.score(other, path, classes=path.split("/")[-1].removesuffix(".parquet"))
    with pytest.raises(batchmax.UsageError, match="in another order"):
        batchmax.compare(named[0], named[1])
    with pytest.raises(batchmax.UsageError, match="called otherwise"):
        batchmax.compare(named[0], named[2])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"key": "nope"}, "no column 'nope'"),
        ({"key": "logits"}, "cannot be a key"),
        ({"worst": -1}, "less than 0"),
        ({"labels_from": "c"}, "--labels-from"),
        ({"label_smoothing": 0.1}, "plain cross-entropy"),
        ({"fail_if": "loss > 1"}, "no figure is called 'loss'"),
        ({"fail_if": "moved > 1"}, "no figure is called 'moved'"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, options, what):
    """Invalid options are usage errors that name the option or the value."""
    path = write(rows_of(10), tmp_path / "a.parquet")
    with pytest.raises(batchmax.UsageError, match=what):
        batchmax.compare(path, path, **options)


def test_keys_of_another_type_and_of_streams_are_refused(tmp_path):
    """Keys of different types are rejected, and so are streams with a key, because they can't be read twice."""
    a = write(rows_of(10), tmp_path / "a.parquet")
    b = write(rows_of(10).set_column(0, "id", pa.array(list("abcdefghij"))), tmp_path / "b.parquet")
    with pytest.raises(batchmax.UsageError, match=r"is int64 in .* and string in"):
        batchmax.compare(a, b, key="id")
    with pytest.raises(batchmax.UsageError, match="a stream comes once"):
        batchmax.compare(a, rows_of(10), key="id")


def test_a_condition_that_is_true_is_an_error_with_its_figures():
    """A true condition, or one on a missing value, raises GateError; a false one doesn't."""
    a, b = rows_of(100, 1), rows_of(100, 2)
    assert batchmax.compare(a, b, fail_if="mean_kl < 0 or right_to_wrong > 100").n_rows == 100
    with pytest.raises(batchmax.GateError, match=r"right_to_wrong is \d+; look: batchmax compare"):
        batchmax.compare(a, b, fail_if="right_to_wrong > 0")
    with pytest.raises(batchmax.GateError, match=r"mean_loss_change has no value .the rows have no labels."):
        batchmax.compare(a.drop(["label"]), b.drop(["label"]), fail_if="mean_loss_change > 1")


def test_the_same_file_twice_has_not_changed(tmp_path):
    """A file compared with itself has changes of exactly 0, and no rows that moved."""
    path = write(rows_of(100), tmp_path / "a.parquet")
    found = batchmax.compare(path, path)
    assert (found.mean_loss_change, found.mean_loss_change_low, found.mean_kl, found.agreement) == (0, 0, 0, 1)
    assert (found.mcnemar_p, found.moved) == (1.0, [])


def test_a_notebook_shows_a_table(tmp_path):
    """The result is an HTML table in notebooks, with file names escaped."""
    path = write(rows_of(5), tmp_path / "<b>.parquet")
    shown = batchmax.compare(path, path)._repr_html_()
    assert "<th>mean_kl</th>" in shown
    assert "<b>" not in shown


# Statistics


@given(st.integers(0, 60), st.integers(0, 60))
def test_flips_are_tested_as_scipy_does(one, other):
    """The exact McNemar p-value is that of SciPy's binomial test."""
    p, method = mcnemar(one, other)
    assert method == "exact"
    assert p == pytest.approx(stats.binomtest(one, one + other).pvalue if one + other else 1.0, rel=1e-12)


def test_many_flips_are_tested_by_chi_square():
    """Above ``MOST_EXACT`` flips, the p-value is that of chi-square with Edwards's correction.

    It is close to the exact one.
    """
    one, other = 5100, MOST_EXACT - 5000
    p, method = mcnemar(one, other)
    assert method == "asymptotic"
    assert p == pytest.approx(stats.chi2.sf((abs(one - other) - 1) ** 2 / (one + other), 1), rel=1e-9)
    assert p == pytest.approx(stats.binomtest(one, one + other).pvalue, rel=2e-3)
    assert mcnemar(6000, 6000) == (1.0, "asymptotic")
    assert mcnemar(MOST_EXACT, 0)[0] >= 0


def test_the_interval_keeps_its_digits_far_from_zero():
    """For a mean change that is large compared with its spread, the interval matches exact arithmetic."""
    rng = np.random.default_rng(7)
    before = rng.random(10_000)
    after = before + 1e6 + rng.standard_normal(10_000) * 1e-3
    sums = Differences()
    for start in range(0, 10_000, 999):
        sums.add(before[start : start + 999], after[start : start + 999])
    found = sums.interval()
    exact = [mpmath.mpf(value) for value in (after - before)]
    mean = mpmath.fsum(exact) / len(exact)
    spread = mpmath.sqrt(mpmath.fsum((value - mean) ** 2 for value in exact) / (len(exact) - 1))
    half = mpmath.mpf(stats.norm.ppf(0.975)) * spread / 100
    assert found.n == 10_000
    assert found.mean == pytest.approx(float(mean), rel=1e-15)
    assert (found.high - found.low) / 2 == pytest.approx(float(half), rel=1e-6)


def test_one_pair_has_no_interval_and_none_no_mean():
    """One pair has a mean but no interval; zero pairs have neither."""
    sums = Differences()
    assert sums.interval().mean is None
    sums.add(np.array([1.0]), np.array([3.0]))
    assert (sums.interval().mean, sums.interval().low) == (2.0, None)


# Divergence


def exact_divergence(a, b, beta_a, beta_b):
    """Return the KL divergence, computed with 60 digits."""
    with mpmath.workdps(60):
        logs = []
        for row, beta in ((a, beta_a), (b, beta_b)):
            scaled = [mpmath.mpf(float(z)) * mpmath.mpf(beta) for z in row]
            log_sum = mpmath.log(mpmath.fsum(mpmath.exp(z) for z in scaled))
            logs.append([z - log_sum for z in scaled])
        return float(mpmath.fsum(mpmath.exp(p) * (p - q) for p, q in zip(*logs, strict=True) if p != -mpmath.inf))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 7, 100])
@pytest.mark.parametrize(("apart", "tolerance"), [(10.0, 1e-13), (1.0, 1e-13), (1e-3, 1e-12), (1e-6, 1e-8)])
def test_divergence_is_exact_for_rows_far_apart_and_almost_alike(dtype, k, apart, tolerance):
    """The KL divergence is accurate even for almost equal rows, where the textbook sum loses all digits."""
    a = logits_of(20, 1, k, dtype)
    b = (a + apart * logits_of(20, 2, k, dtype)).astype(dtype)
    found = np.empty(20)
    kernels.divergence_rows(a, b, 1.0, 0.7 if apart > 1 else 1.0, found)
    wanted = [exact_divergence(*pair, 1.0, 0.7 if apart > 1 else 1.0) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=1e-30)


def test_divergence_of_masked_huge_and_odd_rows():
    """A class masked in a doesn't matter; one masked only in b gives an infinite divergence.

    Differences far beyond the range of exp stay finite. Rows with NaN or +inf, or of only -inf, give NaN.
    """
    a = np.array(
        [[0, -INF, 1], [0, 1, 2], [0, -INF, 2], [1e300, 0, 0], [NAN, 1, 2], [-INF] * 3, [5, 1, 2], [0, 800, 0]]
    )
    b = np.array(
        [[0, 1, 1], [0, -INF, 2], [0, -INF, 2], [1e300, 0, 0], [0, 1, 2], [0, 1, 2], [INF, 1, 2], [800.0, 0, 0]]
    )
    found = np.empty(len(a))
    kernels.divergence_rows(a, b, 1.0, 1.0, found)
    assert found[0] == pytest.approx(rel_entr(softmax(a[0]), softmax(b[0])).sum(), rel=1e-14)
    assert found[1:4].tolist() == [INF, 0, 0]
    assert np.isnan(found[4:7]).all()
    assert found[7] == pytest.approx(800.0)
    assert math.isfinite(found[7])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_does_not_depend_on_its_neighbours(dtype):
    """The divergence of a row has the same bits whether it is computed alone or with other rows."""
    a, b = logits_of(50, 1, 37, dtype), logits_of(50, 2, 37, dtype)
    whole, alone = np.empty(50), np.empty(1)
    kernels.divergence_rows(a, b, 1.0, 1.0, whole)
    for row in range(50):
        kernels.divergence_rows(a[row : row + 1], b[row : row + 1], 1.0, 1.0, alone)
        assert alone[0] == whole[row]

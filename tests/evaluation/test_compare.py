"""Tests ``compare``: metrics against other libraries, bad rows, labels, conditions and errors."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from tests.support.comparisons import K, assert_close, expected, logits_of, rows_of, write
from tests.support.requirements import optional, package
from tests.support.rows import INF, NAN

duckdb = optional("duckdb")
log_softmax = package("scipy.special").log_softmax
rel_entr = package("scipy.special").rel_entr
softmax = package("scipy.special").softmax


@pytest.mark.parametrize("groups", [(1000, 1000), (300, 77), (1, 999)])
def test_metrics_agree_with_other_libraries(tmp_path, groups):
    """With any row groups, every result and the rows that moved most match SciPy and scikit-learn."""
    a, b = rows_of(1000, 1), rows_of(1000, 2)
    if 1 in groups:
        a, b = a.slice(0, 40), b.slice(0, 40)
    found = batchmax.compare(
        write(a, tmp_path / "a.parquet", groups[0]), write(b, tmp_path / "b.parquet", groups[1]), worst=7
    )
    figures, moved = expected(a, b)
    assert_close(found, figures)
    order = np.argsort(-moved, kind="stable")[:7]
    assert [row["row"] for row in found.moved] == [row["row_b"] for row in found.moved] == order.tolist()
    first = found.moved[0]
    assert abs(first["loss_b"] - first["loss_a"]) == pytest.approx(moved[order[0]])
    assert first["label"] == a["label"][int(order[0])].as_py()
    assert (found.interval, found.mcnemar_method) == ("95 %, paired t-test", "exact")


@pytest.mark.parametrize("chunk", [3000, 40])
def test_chunk_boundaries_do_not_change_metrics(tmp_path, chunk):
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


def pairs_of_every_status():
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
def test_bad_rows_are_left_out_and_counted(policy):
    """A pair with a bad row on either side counts as bad.

    A pair without a label has a divergence, but no loss.
    """
    a, b = pairs_of_every_status()
    found = batchmax.compare(a, b, on_bad_row=policy, n_classes=K)
    assert (found.n_rows, found.bad_rows, found.n_judged, found.infinite_kl) == (9, 4, 3, 1)
    za, zb = (np.array(table["logits"].take([4, 5, 7, 8]).to_pylist()) for table in (a, b))
    kl = rel_entr(softmax(za, axis=1), softmax(zb, axis=1)).sum(1)
    assert found.mean_kl == pytest.approx(kl.mean(), rel=1e-7)
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


def test_labels_of_one_input_are_used_for_both():
    """If one input has no labels, or ``labels_from`` names an input, both sides use the same labels.

    Otherwise, labels that differ are an error.
    """
    a, b = rows_of(200, 1), rows_of(200, 2)
    figures, _ = expected(a, b)
    assert_close(batchmax.compare(a, b.drop(["label"])), figures)
    assert_close(batchmax.compare(a.drop(["label"]), b), figures)
    wrong = b.set_column(2, "label", pa.array((b["label"].to_numpy() + 1) % K))
    assert_close(batchmax.compare(a, wrong, labels_from="a"), figures)
    assert_close(batchmax.compare(wrong, b, labels_from="b"), {"accuracy_b": figures["accuracy_b"]})
    with pytest.raises(batchmax.DataError, match=r"200 of 200 rows have a different label .* --labels-from"):
        batchmax.compare(a, wrong)


def test_label_that_differs_is_named(tmp_path):
    """The error for a label that differs names the file and the row."""
    a = rows_of(30)
    labels = a["label"].to_pylist()
    labels[17] = (labels[17] + 1) % K
    b = a.set_column(2, "label", pa.array(labels))
    with pytest.raises(
        batchmax.DataError, match=r"a\.parquet: a row has a different label .*b\.parquet, first in row 17"
    ):
        batchmax.compare(write(a, tmp_path / "a.parquet", 7), write(b, tmp_path / "b.parquet", 11))


def test_without_labels_results_are_divergence_and_agreement():
    """Without labels, results that need losses are None.

    The rows that moved most are those with the largest divergence.
    """
    a, b = rows_of(100, 1).drop(["label"]), rows_of(100, 2).drop(["label"])
    found = batchmax.compare(a, b, worst=3)
    za, zb = (np.array(table["logits"].to_pylist(), np.float64) for table in (a, b))
    kl = rel_entr(softmax(za, axis=1), softmax(zb, axis=1)).sum(1)
    assert found.mean_kl == pytest.approx(kl.mean(), rel=1e-7)
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
    assert_close(batchmax.compare(a, b.drop(["label"])), {"mean_loss_b": found.mean_loss_b})
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
        assert_close(found, figures)
        assert found.moved[0]["label"] in set("abcdef")


def test_inputs_with_different_rows_or_classes_are_refused(tmp_path):
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
    with pytest.raises(batchmax.UsageError, match="named differently"):
        batchmax.compare(named[0], named[2])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"key": "nope"}, "no column 'nope'"),
        ({"key": "logits"}, "can't be a key"),
        ({"worst": -1}, "less than 0"),
        ({"labels_from": "c"}, "--labels-from"),
        ({"label_smoothing": 0.1}, "plain cross-entropy"),
        ({"fail_if": "loss > 1"}, "unknown metric 'loss'"),
        ({"fail_if": "moved > 1"}, "unknown metric 'moved'"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, what):
    """Invalid options are usage errors that name the option or the value."""
    path = write(rows_of(10), tmp_path / "a.parquet")
    with pytest.raises(batchmax.UsageError, match=what):
        batchmax.compare(path, path, **options)


def test_an_open_result_on_the_same_connection_is_an_error_with_a_remedy(tmp_path):
    """Relations of one DuckDB connection can't be read at the same time; the error names a way that works."""
    connection = duckdb.connect()
    a, b = (connection.from_arrow(rows_of(50, number)) for number in (1, 2))
    for run in (lambda: batchmax.compare(a, b), lambda: batchmax.report(a, str(tmp_path / "report.html"))):
        with pytest.raises(batchmax.DataError, match=r"open result.*; .* make a table first: relation\.to_arrow_table"):
            run()
    found = batchmax.compare(a.to_arrow_table(), b.to_arrow_table())
    assert found.mean_kl == batchmax.compare(rows_of(50, 1), rows_of(50, 2)).mean_kl
    assert batchmax.compare(a, duckdb.connect().from_arrow(rows_of(50, 2))).mean_kl == found.mean_kl


def test_true_condition_raises_gate_error():
    """A true condition, or one on a missing value, raises GateError; a false one doesn't."""
    a, b = rows_of(100, 1), rows_of(100, 2)
    assert batchmax.compare(a, b, fail_if="mean_kl < 0 or right_to_wrong > 100").n_rows == 100
    with pytest.raises(batchmax.GateError, match=r"right_to_wrong is \d+; to see the rows: batchmax compare"):
        batchmax.compare(a, b, fail_if="right_to_wrong > 0")
    with pytest.raises(batchmax.GateError, match=r"mean_loss_change has no value .the rows have no labels."):
        batchmax.compare(a.drop(["label"]), b.drop(["label"]), fail_if="mean_loss_change > 1")


def test_file_compared_with_itself_has_no_change(tmp_path):
    """A file compared with itself has changes of exactly 0, and no rows that moved."""
    path = write(rows_of(100), tmp_path / "a.parquet")
    found = batchmax.compare(path, path)
    assert (found.mean_loss_change, found.mean_loss_change_low, found.mean_kl, found.agreement) == (0, 0, 0, 1)
    assert (found.mcnemar_p, found.moved) == (1.0, [])

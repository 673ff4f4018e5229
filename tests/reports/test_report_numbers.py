"""Tests the numbers of the HTML report against other libraries."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.report_pages import DIGITS, Tables, parsed_column, parsed_number, softmax, table_of, write_report
from tests.support.requirements import package
from tests.support.rows import INF, NAN, lists


def test_confidence_bins_agree_with_numpy(digits):
    """Count, mean confidence and accuracy of each bin agree with NumPy."""
    text, _, z, y = digits
    p = softmax(z)
    confidence, hits = p.max(1), p.argmax(1) == y
    rows = Tables(text).tables["reliability"]
    bins = np.minimum((confidence * 15).astype(int), 14)
    assert parsed_column(rows, 1) == [np.count_nonzero(bins == at) for at in range(15)]
    for at in range(15):
        inside = bins == at
        if inside.any():
            assert parsed_column(rows, 2)[at] == pytest.approx(confidence[inside].mean(), rel=1e-3)
            assert parsed_column(rows, 3)[at] == pytest.approx(hits[inside].mean(), rel=1e-3)


def test_loss_histogram_counts_every_row(digits):
    """The loss histogram counts every row once, with the range of probabilities of each bin."""
    text, _, z, y = digits
    losses = -np.log(softmax(z)[np.arange(len(y)), y])
    rows = Tables(text).tables["loss"]
    for row in rows[1:]:
        low, high = (parsed_number(word) for word in row[0].split(" – "))
        assert parsed_number(row[2]) == np.count_nonzero((losses >= low) & (losses < high))
        p_low, p_high = (parsed_number(word) for word in row[1].split(" – "))
        assert (p_low, p_high) == pytest.approx((math.exp(-high), math.exp(-low)), rel=6e-3)
    assert sum(parsed_column(rows, 2)) == len(y)


def test_confidence_histograms_agree_with_numpy(digits):
    """The histograms of correct and wrong rows by confidence agree with NumPy."""
    text, _, z, y = digits
    p = softmax(z)
    rows = Tables(text).tables["confidence"]
    for at, chosen in ((1, p.argmax(1) == y), (2, p.argmax(1) != y)):
        assert parsed_column(rows, at) == np.histogram(p.max(1)[chosen], 20, (0, 1))[0].tolist()


def test_confusion_and_classes_agree_with_scikit_learn(digits):
    """Confusion matrix, precision, recall and F1 of each class agree with scikit-learn.

    The mean losses of the classes agree with NumPy.
    """
    metrics = package("sklearn.metrics")
    text, _, z, y = digits
    p = softmax(z)
    tables = Tables(text).tables
    matrix = [[parsed_number(cell) for cell in row[1:]] for row in tables["confusion"][1:]]
    assert matrix == metrics.confusion_matrix(y, p.argmax(1)).tolist()
    losses = -np.log(p[np.arange(len(y)), y])
    names = tables["confusion"][0][1:]
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, p.argmax(1))
    means = [losses[y == at].mean() for at in range(10)]
    order = np.argsort(means)[::-1]
    rows = tables["classes"]
    assert [row[0] for row in rows[1:]] == [names[at] for at in order]
    assert parsed_column(rows, 1) == pytest.approx(np.array(means)[order], rel=1e-3)
    assert parsed_column(rows, 2) == support[order].tolist()
    for at, figures in ((4, precision), (5, recall), (6, f1)):
        assert parsed_column(rows, at) == pytest.approx(figures[order], abs=1e-3)


def test_worst_rows_have_the_largest_losses(digits):
    """The 20 rows with the largest losses are listed in the order of NumPy's losses, with their carried columns."""
    text, _, z, y = digits
    p = softmax(z)
    losses = -np.log(p[np.arange(len(y)), y])
    order = np.argsort(-losses)[:20]
    rows = Tables(text).tables["worst"]
    assert rows[0] == ["row", "label", "pred", "p_label", "p_pred", "loss", "id"]
    assert parsed_column(rows, 0) == order.tolist()
    assert parsed_column(rows, 5) == pytest.approx(losses[order], rel=1e-4)
    assert parsed_column(rows, 6) == pq.read_table(DIGITS)["id"].to_numpy()[order].tolist()


def test_row_chart_has_the_worst_row_and_softmax_for_each_beta(digits):
    """The row drawn has the largest loss; its probabilities, and those for each β, agree with SciPy."""
    text, _, z, y = digits
    worst = int(np.argmax(-np.log(softmax(z)[np.arange(len(y)), y])))
    tables = Tables(text).tables
    rows = tables["row"]
    order = np.argsort(-z[worst])
    assert parsed_column(rows, 1) == pytest.approx(z[worst][order], rel=1e-4)
    assert parsed_column(rows, 2) == pytest.approx(softmax(z[worst])[order], rel=1e-4)
    assert [row[4] for row in rows[1:]].index("label") == order.tolist().index(y[worst])
    betas = tables["beta"]
    shown = [tables["confusion"][0][1:].index(name) for name in betas[0][1:-1]]
    assert y[worst] in shown
    for row in betas[1:]:
        p = softmax(parsed_number(row[0]) * z[worst])
        assert [parsed_number(cell) for cell in row[1:-1]] == pytest.approx(p[shown], rel=2e-2)
        assert parsed_number(row[-1]) == pytest.approx(-np.log(p[y[worst]]), rel=5e-3)


def test_groups_are_ordered_by_their_loss(digits):
    """Groups have correct rows, losses and accuracies, ordered by how much they add to the loss."""
    text, _, z, y = digits
    p = softmax(z)
    losses = -np.log(p[np.arange(len(y)), y])
    groups = sorted(range(10), key=lambda one: -(losses[y == one] - losses.mean()).sum())
    rows = next(rows for rows in Tables(text).tables.values() if rows[0][0] == "value")
    assert parsed_column(rows, 0) == groups
    assert parsed_column(rows, 1) == [np.count_nonzero(y == one) for one in groups]
    assert parsed_column(rows, 2) == pytest.approx([losses[y == one].mean() for one in groups], rel=1e-3)


def test_a_scored_file_makes_the_same_charts(digits, tmp_path):
    """A scored file gives the same charts from its probabilities, and the page says how it was scored."""
    text, *_ = digits
    scored = tmp_path / "scored.parquet"
    batchmax.score(DIGITS, str(scored), outputs="probs,loss,pred", temperature=1.0)
    other, _ = write_report(scored, tmp_path)
    ours, theirs = Tables(other).tables, Tables(text).tables
    for name in ("loss", "confidence", "confusion"):
        assert ours[name] == theirs[name]
    assert ours["row"][0][1] == "log-probability"
    assert "Log-probabilities, and the probabilities" in other
    assert "How these inputs were scored" in other
    assert "How these inputs were scored" not in text


def test_row_option_selects_the_row(tmp_path):
    """The option ``row`` counts rows over all inputs; the result names the file."""
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for path, z in ((first, [[5.0, 1.0]] * 3), (second, [[1.0, 2.5], [0.25, 4.0]])):
        pq.write_table(table_of(logits=lists(np.array(z, np.float32)), label=[0] * len(z)), path)
    result = batchmax.report([first, second], str(tmp_path / "x.html"), row=4)
    assert result.row == {"file": str(second), "row": 1}
    rows = Tables((tmp_path / "x.html").read_text()).tables["row"]
    assert parsed_column(rows, 1) == [4.0, 0.25]


def test_the_worst_row_is_found_in_any_row_group(tmp_path):
    """The row with the largest loss is found in any row group; of equal losses, it's the first.

    Counts are over all rows.
    """
    z = np.tile(np.array([4.0, 0.0], np.float32), (30, 1))
    z[[13, 25]] = (0.0, 4.0)
    path = tmp_path / "groups.parquet"
    pq.write_table(table_of(logits=lists(z), label=[0] * 30), path, row_group_size=10)
    result = batchmax.report(path, str(tmp_path / "x.html"))
    assert result.row == {"file": str(path), "row": 13}
    rows = Tables((tmp_path / "x.html").read_text()).tables["confusion"]
    assert [[parsed_number(cell) for cell in row[1:]] for row in rows[1:]] == [[28, 2], [0, 0]]


def test_report_without_labels(tmp_path):
    """Without labels, the page has the confidence chart and the least certain row.

    It has no losses and says that there are no labels.
    """
    text, _ = write_report(DIGITS, tmp_path, label="none")
    tables = Tables(text).tables
    z = np.array(pq.read_table(DIGITS)["logits"].to_pylist(), np.float64)
    p = softmax(z)
    assert parsed_column(tables["confidence"], 1) == np.histogram(p.max(1), 20, (0, 1))[0].tolist()
    assert parsed_column(tables["row"], 2)[0] == pytest.approx(p.max(1).min(), rel=1e-4)
    assert "There are no labels" in text
    assert set(tables) == {"confidence", "row", "beta", "provenance"}


def test_most_confused_pairs_of_many_classes(tmp_path):
    """With over a thousand classes, the page lists the most confused pairs, with exact counts, instead of a matrix."""
    k, n = 1500, 400
    rng = np.random.default_rng(5)
    z = rng.normal(size=(n, k)).astype(np.float32)
    y = rng.integers(0, k, n)
    z[np.arange(n), y] += 9
    z[:7, 3], y[:7] = 50, 11
    z[7:11, 4], y[7:11] = 50, 12
    text, _ = write_report(table_of(logits=lists(z), label=y), tmp_path)
    rows = Tables(text).tables["confusion"]
    assert [row[:2] for row in rows[1:3]] == [["11", "3"], ["12", "4"]]
    assert parsed_column(rows, 2)[:2] == [7, 4]


def test_too_many_pairs_to_keep_are_noted(tmp_path, monkeypatch):
    """If there are too many pairs to keep, the most frequent one is still first.

    The page says that rare pairs are left out.
    """
    from batchmax.reports import collectors

    monkeypatch.setattr(collectors, "MOST_PAIRS", 8)
    rng = np.random.default_rng(6)
    z = rng.normal(size=(200, 1200)).astype(np.float32)
    y = rng.integers(0, 1200, 200)
    z[::4, 3], y[::4] = 50, 11
    text, _ = write_report(table_of(logits=lists(z), label=y), tmp_path)
    assert Tables(text).tables["confusion"][1][:2] == ["11", "3"]
    assert "rare ones are left out" in text


UNUSUAL_INPUTS = {
    "no rows": ([], [], {"n_classes": 3}),
    "one row": ([[1.0, 2.0]], [1], {}),
    "all ignored": ([[1.0, 2.0]] * 3, [-100] * 3, {}),
    "all bad": ([[NAN, 2.0]] * 3, [0] * 3, {"on_bad_row": "null"}),
    "a bad row asked for": ([[NAN, 2.0], [1.0, 2.0]], [0, 1], {"on_bad_row": "null", "row": 0}),
    "labels masked": ([[-INF, 2.0, 1.0]] * 3, [0] * 3, {}),
    "some masked": ([[-INF, 2.0, 1.0]] * 3, [0, 1, 2], {}),
    "huge logits": ([[3e38, -3e38], [1e-40, 1.0]], [1, 1], {}),
    "huge beta": ([[3.0, -3.0], [1.0, 1.0]], [1, 1], {"beta": 1e300}),
    "tiny beta": ([[3.0, -3.0], [1.0, 1.0]], [1, 1], {"beta": 1e-300}),
    "nothing wrong": ([[100.0, -900.0]] * 9, [0] * 9, {}),
    "no worst rows": ([[1.0, 2.0]] * 3, [0] * 3, {"worst": 0}),
}


@pytest.mark.parametrize("name", UNUSUAL_INPUTS)
def test_report_of_unusual_inputs(name, tmp_path):
    """Unusual inputs, such as no rows or only bad ones, give a page without NaN."""
    z, y, given = UNUSUAL_INPUTS[name]
    table = table_of(logits=pa.array(z, pa.list_(pa.float32())), label=pa.array(y, pa.int64()))
    text, _ = write_report(table, tmp_path, **given)
    assert not re.search(r"\bnan\b", re.sub(r"nan_logit", "", text), re.IGNORECASE)
    assert "<h2" in text


def test_report_of_soft_targets(tmp_path):
    """Target distributions give a page with losses but without charts that need a class."""
    table = table_of(logits=[[1.0, 2.0], [3.0, 4.0]], label=[[0.5, 0.5], [0.1, 0.9]])
    text, _ = write_report(table, tmp_path)
    assert "labels are distributions" in text
    assert {"worst", "row"} <= set(Tables(text).tables)


def test_columns_of_every_type_are_shown_as_text(tmp_path):
    """Columns of every type are shown as text.

    Cases include nested types, binary data, and times that Python can't represent.
    """
    table = table_of(
        logits=[[1.0, 2.0, 3.0]] * 2,
        label=[0, 1],
        blob=pa.array([b"x" * 100, None]),
        word=pa.array(["x", "y"]).dictionary_encode(),
        when=pa.array([0, None], pa.timestamp("us", "UTC")),
        late=pa.array([2**62, -(2**62)], pa.timestamp("s")),
        mars=pa.array([1, 2], pa.timestamp("ns", "Mars/Phobos")),
        fine=pa.array([1, 2], pa.time64("ns")),
        price=pa.array([1, 2]).cast(pa.decimal128(28, 3)),
        both=pa.array([{"a": 1, "b": [1, 2]}, None]),
        map=pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        long=pa.array([[1] * 100, [2]]),
        empty=pa.nulls(2),
    )
    text, _ = write_report(table, tmp_path)
    heading, first, _ = Tables(text).tables["worst"]
    shown = dict(zip(heading, first, strict=True))
    assert shown["word"] == "x"
    assert shown["blob"].endswith("(100 B)")
    assert shown["when"].startswith("1970-01-01")
    assert shown["both"] == "{a: 1, b: [1, 2]}"
    assert shown["long"].endswith("…] (100)")
    assert shown["empty"] == "–"

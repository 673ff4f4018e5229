"""The rows with the largest losses, against a sort of all rows in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.evaluation.top_rows import TopRows
from tests.support.requirements import package
from tests.support.rows import NAN, rows_of_every_status

log_softmax = package("scipy.special").log_softmax

K = 5


def table(n, seed=0, **columns):
    """Return n rows, of which many are equal, so that there are ties."""
    rng = np.random.default_rng(seed)
    z = np.random.default_rng(7).normal(0, 2, (100, K)).astype(np.float32)[rng.integers(0, 100, n)]
    return pa.table({"id": np.arange(n), "logits": list(z), "label": rng.integers(0, K, n), **columns})


def sorted_losses(found):
    """Return the losses of a table, and the order of its rows: the largest loss first, ties in the original order."""
    z = np.array(found["logits"].to_pylist(), np.float64)
    losses = -log_softmax(z, axis=1)[np.arange(len(z)), found["label"].to_numpy()]
    return losses, np.argsort(-np.round(losses, 9), kind="stable")


@pytest.mark.parametrize("groups", [[7], [64, 1000], [333]])
@pytest.mark.parametrize("n", [1, 20, 5000])
def test_the_worst_are_those_of_a_sort(tmp_path, groups, n):
    """Files, rows, labels, predictions and losses are those of a stable sort of all rows, for any row groups."""
    parts = [table(1000, seed) for seed in range(len(groups))]
    for number, (part, rows) in enumerate(zip(parts, groups, strict=True)):
        pq.write_table(part, tmp_path / f"{number}.parquet", row_group_size=rows)
    found = batchmax.worst_rows(str(tmp_path), n)
    whole = pa.concat_tables(parts)
    losses, order = sorted_losses(whole)
    order = order[:n]
    assert found.column_names == ["file", "row", "id", "label", "pred", "p_label", "p_pred", "loss"]
    assert found["file"].to_pylist() == [str(tmp_path / f"{row // 1000}.parquet") for row in order]
    assert found["row"].to_pylist() == (order % 1000).tolist() == found["id"].to_pylist()
    z = np.array(whole["logits"].to_pylist(), np.float64)[order]
    assert found["label"].to_pylist() == whole["label"].take(pa.array(order)).to_pylist()
    assert found["pred"].to_pylist() == z.argmax(axis=1).tolist()
    np.testing.assert_allclose(found["loss"], losses[order], rtol=1e-6)
    np.testing.assert_allclose(found["p_label"], np.exp(-losses[order]), rtol=1e-6)
    np.testing.assert_allclose(found["p_pred"], np.exp(log_softmax(z, axis=1).max(axis=1)), rtol=1e-6)


def test_infinite_losses_come_first_and_rows_without_a_loss_never():
    """Rows with an infinite loss (masked labels) come first, and rows without a loss are left out."""
    logits, labels, statuses = rows_of_every_status()
    found = batchmax.worst_rows(
        pa.table({"status_wanted": statuses, "logits": logits, "label": labels}), 100, on_bad_row="null", n_classes=3
    )
    wanted = [status for status in statuses if status in {"masked_label", "ok"}]
    assert found["status_wanted"].to_pylist() == sorted(wanted, key=["masked_label", "ok"].index)
    assert found["loss"].to_pylist()[:1] == [np.inf]
    assert found["p_label"].to_pylist()[:1] == [0.0]


def test_a_bad_row_is_an_error_unless_it_may_be_null():
    """Bad rows are errors by default, and left out with ``null`` and ``drop``."""
    rows = pa.table({"logits": [[0.0, 1.0], [NAN, 0.0]], "label": [0, 0]})
    with pytest.raises(batchmax.BadRowError, match="row 1"):
        batchmax.worst_rows(rows, 2)
    for policy in ("null", "drop"):
        assert batchmax.worst_rows(rows, 2, on_bad_row=policy)["row"].to_pylist() == [0]


def test_what_score_wrote_gives_the_same_rows(tmp_path):
    """A scored file gives the same rows, with class names and without the columns that score computed."""
    pq.write_table(table(500), tmp_path / "in.parquet")
    source, scored = str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet")
    for layout in ("list", "wide"):
        outputs = "probs,log_probs,loss,pred,status"
        batchmax.score(source, scored, outputs=outputs, classes="a,b,c,d,e", layout=layout, if_exists="overwrite")
        plain, found = batchmax.worst_rows(source, 30), batchmax.worst_rows(scored, 30)
        assert found.column_names == plain.column_names
        np.testing.assert_allclose(found["loss"], plain["loss"], rtol=1e-6)
        assert found["label"].to_pylist()[0] == "abcde"[plain["label"][0].as_py()]
        assert found["pred"].to_pylist()[0] == "abcde"[plain["pred"][0].as_py()]
    assert batchmax.worst_rows(scored, 1, columns="loss").column_names[2] == "input_loss"


def test_columns_are_chosen_and_may_have_our_names():
    """Carried columns can be selected; a used name gets the prefix ``input_``; dictionaries are decoded."""
    rows = table(50, loss=np.arange(50), kind=pa.array(list("ab") * 25).dictionary_encode())
    assert batchmax.worst_rows(rows, 1).column_names[2:5] == ["id", "input_loss", "kind"]
    assert batchmax.worst_rows(rows, 1, columns="kind").schema.field("kind").type == pa.string()
    assert batchmax.worst_rows(rows, 1, columns=["logits"]).column_names[2] == "logits"
    assert batchmax.worst_rows(rows, 1, columns=[]).column_names[2] == "label"


def test_distributions_have_losses_and_no_label():
    """With soft targets, rows have a loss, and label and p_label are null."""
    rows = pa.table({"logits": [[0.0, 1.0], [2.0, 0.0]], "target": [[0.5, 0.5], [0.0, 1.0]]})
    (first, second) = batchmax.worst_rows(rows, 2).to_pylist()
    assert (first["row"], first["label"], first["p_label"]) == (1, None, None)
    assert first["target"] == [0.0, 1.0]
    assert second["loss"] == pytest.approx(np.log(1 + np.e) - 0.5)


def test_no_rows_are_an_empty_table():
    """An input without rows, or a limit of 0, gives all columns and no rows."""
    assert batchmax.worst_rows(table(5), 3, limit=0).num_rows == 0
    assert batchmax.worst_rows(table(5).slice(0, 0), 3, n_classes=K).column_names[-1] == "loss"


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_rows_is_asked_for(n):
    """Anything except a positive integer is refused."""
    with pytest.raises(batchmax.UsageError, match="--worst"):
        batchmax.worst_rows(table(5), n)


@pytest.mark.parametrize("options", [{"label": "none"}, {}])
def test_without_labels_there_is_no_worst(options):
    """Without a label column, or with ``label="none"``, the rows are refused before anything is read."""
    with pytest.raises(batchmax.UsageError, match="losses need labels"):
        batchmax.worst_rows(table(5).drop(["label"]), 1, **options)


def test_rows_that_take_more_memory_than_they_may_are_refused():
    """The memory of kept rows is limited: long texts are an error that asks for fewer rows."""
    largest = TopRows(10, pa.schema([("text", pa.string())]), 1000)
    largest.add(np.arange(9.0), lambda rows: [pa.array(["x" * 50] * len(rows))])
    with pytest.raises(batchmax.UsageError, match="fewer rows"):
        largest.add(np.arange(9.0), lambda rows: [pa.array(["x" * 500] * len(rows))])


def test_no_more_is_kept_than_was_asked_for():
    """Only rows that can be among the largest are fetched, and at most n are kept."""
    largest, asked = TopRows(3, pa.schema([("n", pa.int64())]), 1 << 20), []
    for start in range(0, 100, 10):
        values = np.array([5.0, NAN, 1, 5, 2, 0, 4, 3, 5, np.inf]) - start
        largest.add(values, lambda rows, start=start: [asked.append(len(rows)) or pa.array(rows + start)])
    assert largest.table["n"].to_pylist() == [9, 19, 29]
    assert asked == [3, 1, 1]

"""Inputs of binary and multi-label tasks together with class names, patterns, weights, and outputs of ``score``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import BadRowError, UsageError
from tests.support.requirements import optional

torch = optional("torch")

Z = [1.0, -1.0, 0.5]
NAMES = ["pos", "neg", "neg"]


def one_logit(**columns):
    """Return rows of one logit with columns added."""
    return pa.table({"logit": Z, **columns})


def write(tmp_path, table, name="in.parquet"):
    """Write a table; return its path."""
    pq.write_table(table, tmp_path / name)
    return str(tmp_path / name)


# One logit


def test_class_names_of_one_logit(tmp_path, capsys):
    """With class names, outputs can be verified with their inputs, rows shown, and the number of logits given."""
    path, out = write(tmp_path, one_logit(label=NAMES)), str(tmp_path / "out.parquet")
    given = ["--classes", "neg,pos"]
    assert main(["score", path, "-o", out, *given, "--n-classes", "1", "-q"]) == 0
    assert main(["verify", out, path]) == 0
    assert main(["show", path, "--row", "0", *given]) == 0
    assert "pos" in capsys.readouterr().out
    assert main(["evaluate", path, *given, "--n-classes", "1"]) == 0
    with pytest.raises(UsageError, match="3 class names, but the logits have 2 classes"):
        batchmax.evaluate(path, classes="neg,pos,other")


def test_sigmoid_of_one_logit_in_files(tmp_path):
    """``--activation sigmoid`` is accepted for files and folders, and gives the same bytes."""
    for name in ("a", "b"):
        write(tmp_path, one_logit(label=[1, 0, 0]), f"{name}.parquet")
    paths = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    outs = [str(tmp_path / f"out{n}.parquet") for n in range(2)]
    batchmax.score(paths, outs[0])
    batchmax.score(paths, outs[1], activation="sigmoid")
    assert pq.read_table(outs[0]) == pq.read_table(outs[1])
    assert batchmax.evaluate(paths, activation="sigmoid").task == "binary"


def test_the_name_of_the_positive_weight():
    """A positive weight by name is that of the second class; for another name it's refused."""
    rows = one_logit(label=NAMES)
    by_name, by_number = (
        batchmax.scan(rows, classes="neg,pos", outputs="loss", pos_weight=weight).read_all()
        for weight in ({"pos": 3.0}, [3.0])
    )
    assert by_name == by_number
    for name in ("neg", "other"):
        with pytest.raises(UsageError, match="--pos-weight"):
            batchmax.scan(rows, classes="neg,pos", outputs="loss", pos_weight={name: 3.0})


@pytest.mark.parametrize("layout", [None, "list"])
def test_the_mean_loss_with_a_positive_weight(tmp_path, layout):
    """The mean isn't divided by the weights, as in PyTorch; outputs verify, and metrics use the plain losses."""
    path, out = write(tmp_path, one_logit(label=[1, 0, 0])), str(tmp_path / "out.parquet")
    given = {} if layout is None else {"layout": layout}
    found = batchmax.score(path, out, pos_weight=[3.0], outputs="probs,loss,correct,status", **given)
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))
    assert found.mean_loss == pytest.approx(float(loss(torch.tensor(Z), torch.tensor([1.0, 0.0, 0.0]))), rel=1e-6)
    for inputs in ([], [path]):
        assert batchmax.verify(out, inputs).n_rows == 3
    assert batchmax.evaluate(out).mean_loss == pytest.approx(batchmax.evaluate(path).mean_loss, rel=1e-6)
    changed = pq.read_table(out)
    at = changed.schema.get_field_index("loss")
    changed = changed.set_column(at, changed.schema.field(at), pa.array([0.5, 0.3132617, 0.974077], pa.float64()))
    pq.write_table(changed.cast(pq.read_schema(out)), out)
    with pytest.raises(batchmax.DataError):
        batchmax.verify(out)


def test_parts_of_a_folder_have_the_positive_weight(tmp_path):
    """Parts that tasks compute use the positive weight too."""
    for name in ("a", "b"):
        write(tmp_path, one_logit(label=[1, 0, 0]), f"in-{name}.parquet")
    inputs, whole, shared = str(tmp_path / "in-*.parquet"), tmp_path / "whole", tmp_path / "shared"
    batchmax.score(inputs, str(whole), pos_weight=[3.0])
    for shard in ("0/2", "1/2"):
        batchmax.score(inputs, str(shared), pos_weight=[3.0], shard=shard)
    batchmax.score(inputs, str(shared), pos_weight=[3.0], if_exists="resume")
    parts = sorted(path.name for path in whole.glob("part-*"))
    assert parts
    assert all((whole / part).read_bytes() == (shared / part).read_bytes() for part in parts)


@pytest.mark.parametrize("labels", [[[0], [1], [1]], [[True], [False], [True]], [["a"], [], ["a"]]])
def test_one_logit_has_one_label(labels):
    """Lists of labels are refused at once, with a remedy that helps."""
    with pytest.raises(UsageError, match="has several labels per row, and rows of one logit have one") as caught:
        batchmax.scan(one_logit(label=labels))
    assert "store each label as a number, bool or name" in caught.value.remedy


def test_null_rows_of_one_logit_are_no_probabilities(tmp_path):
    """Null rows don't count as numbers between 0 and 1."""
    lists = pa.array([None] * 1100 + [[5.0]] * 20, pa.list_(pa.float64()))
    path, out = write(tmp_path, pa.table({"z": lists, "label": [0] * 1120})), str(tmp_path / "out.parquet")
    assert batchmax.score(path, out, on_bad_row="null").bad_rows == 1100


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("probs", 1.5, "1.5 is not a probability"),
        ("log_probs", 0.5, "0.5 is not the logarithm of a probability"),
        ("logits", float("nan"), "the logit is NaN"),
    ],
)
def test_bad_numbers_in_one_column(name, value, what):
    """The error has the number of the file, not one that was derived from it."""
    with pytest.raises(BadRowError, match=what):
        batchmax.score_batch(pa.table({"x": [value], "label": [0]}), logits="x", input=name)


def test_the_note_of_a_pattern_with_one_match(capsys, tmp_path):
    """A pattern that matches one column of numbers is explained as one logit per row."""
    path = write(tmp_path, pa.table({"logit_a": Z, "label": [1, 0, 0]}))
    assert main(["evaluate", path, "--logits", "logit_*", "--json", "-q"]) == 0
    out = capsys.readouterr().out
    assert "the only match of 'logit_*', one logit per row, that of the second class" in out
    assert "one per class" not in out


# Multi-label rows

WIDE = pa.table(
    {f"logit_{k}": [float(k), -float(k), 0.5] for k in range(3)} | {"labels": [[True, False, True], None, [False] * 3]}
)


def test_losses_alone_in_wide_columns_can_be_verified(tmp_path):
    """An output with a column of losses per class, and no loss, verifies although a row has no label."""
    path, out = write(tmp_path, WIDE), str(tmp_path / "out.parquet")
    batchmax.score(path, out, outputs="losses,status")
    assert batchmax.verify(out).n_rows == 3
    assert batchmax.verify(out, [path]).n_rows == 3


def test_a_pattern_names_the_logits_that_score_kept(tmp_path):
    """Logits in a scored file are read with the file's activation, by a pattern as by a column."""
    out, rows = str(tmp_path / "out.parquet"), WIDE.drop_columns("labels").append_column("label", pa.array([2, 1, 0]))
    batchmax.score(rows, out, columns="*", activation="sigmoid")
    want = batchmax.evaluate(rows, activation="sigmoid").mean_loss
    assert want != pytest.approx(batchmax.evaluate(rows).mean_loss)
    for given in ({}, {"logits": "logit_*"}):
        assert batchmax.evaluate(out, **given).mean_loss == want


def test_patterns_of_logits_and_labels():
    """A pattern of labels is left out of a wider pattern of logits."""
    rows = {f"y_{k}": Z for k in "abc"} | {f"y_true_{k}": [1, 0, 1] for k in "abc"}
    found = batchmax.scan(pa.table(rows), logits="y_*", label="y_true_*", outputs="loss,probs").read_all()
    assert [name for name in found.column_names if name.startswith("prob")] == ["prob_a", "prob_b", "prob_c"]


@pytest.mark.parametrize(
    ("labels", "given", "what"),
    [
        ([[b"a"], [b"a", b"zz"]], {"classes": "a,b,c"}, "'zz' is not a class name"),
        ([["a"], ["-100"]], {"classes": "a,b,c"}, "'-100' is not a class name"),
        ([[1, 0, 0], [-100, 5, 0]], {"label_format": "khot"}, "label 5 at class 1 is not 0 or 1"),
    ],
)
def test_the_wrong_label_is_named(labels, given, what):
    """The error about a bad row of labels has the one that is wrong."""
    rows = pa.table({"logits": [[1.0, 2.0, 3.0]] * 2, "labels": labels})
    with pytest.raises(BadRowError, match=what):
        batchmax.score_batch(rows, **given)


def test_the_wrong_label_column_is_named():
    """A missing label isn't taken for the wrong one."""
    rows = pa.table({"logits": [[1.0, 2.0]], "l_0": [np.nan], "l_1": [5.0]})
    with pytest.raises(BadRowError, match=r"label 5.0 at class 1 \(column 'l_1'\) is not 0 or 1"):
        batchmax.score_batch(rows, label="l_*")

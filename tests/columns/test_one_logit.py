"""Rows of one logit: a binary classifier's z. They are read as the two logits 0 and z."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import UsageError
from tests.support.requirements import package

SPECIAL = [np.inf, -np.inf, 0.0, 40.0, -80.0, 1e-3]
Z = np.concatenate([np.random.default_rng(1).normal(size=200) * 4, SPECIAL]).astype(np.float32)
Y = (np.random.default_rng(2).random(len(Z)) < 1 / (1 + np.exp(-np.clip(Z, -50, 50)))).astype(np.int64)

LISTS = pa.array([[z] for z in Z], pa.list_(pa.float32()))
SHAPES = {
    "a float": {"logit": Z},
    "a float called logits": {"logits": Z},
    "one column of a pattern": {"logit_pos": Z},
    "a double": {"logit": Z.astype(np.float64)},
    "a list of one": {"logits": LISTS},
    "a large list of one": {"logits": LISTS.cast(pa.large_list(pa.float32()))},
    "a fixed list of one": {"logits": LISTS.cast(pa.list_(pa.float32(), 1))},
    "a field": {"out": pa.StructArray.from_arrays([pa.array(Z)], ["z"])},
}
GIVEN = {"a field": {"logits": "out.z"}}
OUTPUTS = "probs,log_probs,loss,pred,confidence,entropy,rank,correct,el2n,status"


def pairs():
    """Return the two logits per row that one logit means."""
    two = np.stack([np.zeros_like(Z), Z], axis=1)
    two[np.isposinf(Z)] = -np.inf, 0
    return two


def table(**columns):
    """Return columns with labels added."""
    return pa.table({**columns, "label": Y})


def two_logits():
    """Return the same rows with two logits each."""
    return table(logits=pa.array(pairs().tolist(), pa.list_(pa.float32())))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_logit_has_the_results_of_two(shape, tmp_path):
    """All outputs equal those of the logits 0 and z; probs and log_probs are one column, that of the second class."""
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table(**SHAPES[shape]), path)
    summary = batchmax.score(str(path), str(out), outputs=OUTPUTS, **GIVEN.get(shape, {}))
    got, want = pq.read_table(out), batchmax.scan(two_logits(), outputs=OUTPUTS).read_all()
    assert got.column_names[-10:] == ["prob", "log_prob", *OUTPUTS.split(",")[2:]]
    is_double = got.schema.field("prob").type == pa.float64()
    for name in OUTPUTS.split(",")[2:]:
        if is_double and name not in {"pred", "rank", "correct", "status"}:
            np.testing.assert_allclose(got[name].to_numpy(), want[name].to_numpy(), rtol=1e-6, atol=1e-12)
        else:
            assert got[name].to_pylist() == want[name].to_pylist(), name
    for name in ("probs", "log_probs"):
        second = np.array(want[name].to_pylist())[:, 1]
        np.testing.assert_allclose(got[name[:-1]].to_numpy(), second, rtol=1e-6 if is_double else 0)
    assert summary.n_classes == 2
    assert summary.bad_rows == 0
    assert batchmax.verify(str(out), [str(path)], sample=len(Z)).largest_errors["probs"]["ulp"] <= 3


@pytest.mark.parametrize("shape", SHAPES)
def test_one_logit_has_the_metrics_of_two(shape, tmp_path):
    """``evaluate`` gives the same metrics for one logit, for two, and for the scored file of one."""
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table(**SHAPES[shape]), path)
    batchmax.score(str(path), str(out), **GIVEN.get(shape, {}))
    want = batchmax.evaluate(two_logits())
    for found in (batchmax.evaluate(str(path), **GIVEN.get(shape, {})), batchmax.evaluate(str(out))):
        for name in ("mean_loss", "accuracy", "brier", "ece", "mce"):
            assert getattr(found, name) == pytest.approx(getattr(want, name), rel=1e-6), name
        assert (found.task, found.positive, found.n_classes) == ("binary", "1", 2)


def test_metrics_of_two_classes_are_those_of_scikit_learn():
    """The Brier score and the calibration errors are about the probability of the positive class."""
    metrics = package("sklearn.metrics")
    z = np.random.default_rng(3).normal(size=4000) * 2
    y = (np.random.default_rng(4).random(4000) < 0.3).astype(np.int64)
    p = 1 / (1 + np.exp(-z))
    found = batchmax.evaluate(pa.table({"logit": z, "label": y}), bins=10)
    assert found.mean_loss == pytest.approx(metrics.log_loss(y, p), abs=1e-12)
    assert found.brier == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-12)
    assert found.accuracy == metrics.accuracy_score(y, p > 0.5)
    at = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[at == k].mean() - y[at == k].mean()) * (at == k).mean() for k in range(10)]
    assert found.ece == pytest.approx(sum(gaps), abs=1e-12)
    assert [one["n_rows"] for one in found.bins] == [np.count_nonzero(at == k) for k in range(10)]
    groups = batchmax.evaluate(pa.table({"logit": z, "label": y, "g": y * 0}), bins=10, by="g").slices["g"]
    assert groups[0]["ece"] == pytest.approx(found.ece, abs=1e-12)
    assert groups[0]["brier"] == pytest.approx(found.brier, abs=1e-12)


def test_the_positive_class():
    """``--positive`` chooses the class of the bins, by name or number; other names and tasks are refused."""
    rows = pa.table({"logit": Z, "label": pa.array(["neg", "pos"]).take(pa.array(Y))})
    second, first = (batchmax.evaluate(rows, classes="neg,pos", positive=name) for name in (None, "neg"))
    assert (second.positive, first.positive) == ("pos", "neg")
    total = lambda found: sum(one["n_rows"] * one["confidence"] for one in found.bins if one["n_rows"])
    assert total(first) == pytest.approx(len(Z) - total(second))
    assert first.brier == second.brier
    with pytest.raises(UsageError, match=r"--positive: 'cat' is not a class; choose neg or pos"):
        batchmax.evaluate(rows, classes="neg,pos", positive="cat")
    with pytest.raises(UsageError, match=r"--positive: there are 10 classes"):
        batchmax.evaluate("data/digits.parquet", positive="1")


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.float32(), pa.string()])
def test_labels_of_one_logit(kind):
    """Labels are 0 and 1, booleans, or names."""
    labels = pa.array(Y).cast(kind) if kind != pa.string() else pa.array(["no", "yes"]).take(pa.array(Y))
    given = {"classes": "no,yes"} if kind == pa.string() else {}
    found = batchmax.scan(pa.table({"logit": Z, "label": labels}), outputs="loss,pred", **given).read_all()
    want = batchmax.scan(table(logit=Z), outputs="loss").read_all()
    assert found["loss"] == want["loss"]
    if given:
        assert found["pred"].to_pylist() == ["yes" if z > 0 else "no" for z in Z]


def test_bad_rows_of_one_logit():
    """NaN, null and lists of another length are bad rows; the error names the row and what is wrong."""
    rows = pa.array([[1.0], [np.nan], None, [1.0, 2.0], []], pa.list_(pa.float32()))
    given = pa.table({"logits": rows, "label": [1, 0, 0, 1, 5]})
    found = batchmax.scan(given, outputs="probs,status", on_bad_row="null").read_all()
    assert found["status"].to_pylist() == ["ok", "nan_logit", "null_logits", "bad_length", "bad_length"]
    assert [p is None for p in found["prob"].to_pylist()] == [False, True, True, True, True]
    with pytest.raises(batchmax.BadRowError, match="the logit is NaN"):
        batchmax.score_batch(given.slice(1, 1).to_batches()[0], n_classes=1)
    with pytest.raises(batchmax.BadRowError, match="2 logits, not 1"):
        batchmax.score_batch(given.slice(3, 1).to_batches()[0], n_classes=1)
    with pytest.raises(batchmax.BadRowError, match="valid labels are 0 to 1"):
        batchmax.score_batch(pa.table({"logit": [1.0], "label": [5]}))


@pytest.mark.parametrize("name", ["probs", "log_probs"])
def test_one_probability_per_row(name):
    """A column of probabilities of the second class, or of their logarithms, is read as such."""
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-Z.astype(np.float64)))
    with np.errstate(divide="ignore"):
        rows = table(x=p if name == "probs" else np.log(p))
    some = np.abs(Z) < 30
    found = batchmax.scan(rows.filter(pa.array(some)), logits="x", input=name, outputs="loss,probs").read_all()
    want = np.where(Y == 1, np.logaddexp(0, -Z), np.logaddexp(0, Z))[some]
    np.testing.assert_allclose(found["loss"].to_numpy(), want, rtol=1e-3 if name == "probs" else 1e-2, atol=1e-9)
    np.testing.assert_allclose(found["prob"].to_numpy(), p[some], rtol=1e-9)


def test_layouts_of_one_logit(tmp_path):
    """An explicit layout has the probabilities of both classes."""
    for layout, names in (("list", ["probs"]), ("fixed", ["probs"]), ("wide", ["prob_0", "prob_1"])):
        out = tmp_path / f"{layout}.parquet"
        batchmax.score(table(logit=Z), str(out), layout=layout)
        got = pq.read_table(out)
        assert got.column_names == ["label", *names, "loss"]
        assert batchmax.verify(str(out)).n_rows == len(Z)
        assert batchmax.evaluate(str(out)).accuracy == batchmax.evaluate(table(logit=Z)).accuracy


def test_sigmoid_of_one_logit_is_the_default():
    """``--activation sigmoid`` changes nothing; other activations and losses need two logits."""
    plain = batchmax.scan(table(logit=Z)).read_all()
    assert batchmax.scan(table(logit=Z), activation="sigmoid").read_all() == plain
    assert batchmax.scan(table(logit=Z), activation="sigmoid", loss="binary_cross_entropy").read_all() == plain
    for given, where in (({"activation": "taylor"}, "--activation"), ({"loss": "hinge"}, "--loss")):
        with pytest.raises(UsageError, match=rf"{where}: .* needs two or more logits per row, and there is one"):
            batchmax.scan(table(logit=Z), **given)


def test_tokens_of_one_logit_are_refused():
    """Sequences of one logit per token are refused, with a remedy."""
    nested = pa.array([[[1.0], [2.0]]], pa.list_(pa.list_(pa.float32())))
    with pytest.raises(UsageError, match=r"one number each.*give two logits per token"):
        batchmax.scan(pa.table({"logits": nested, "label": [[0, 1]]})).read_all()


def test_every_command_reads_one_logit(tmp_path, capsys, monkeypatch):
    """Commands that read logits accept one logit per row, and ``inspect`` suggests a command that runs."""
    package("matplotlib")
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(logit=Z, id=range(len(Z))), "x.parquet")
    for words in (
        "score x.parquet -o out.parquet",
        "evaluate x.parquet --by label",
        "calibrate x.parquet -o c.json",
        "calibrate x.parquet -o v.json --method vector",
        "score x.parquet -o calibrated.parquet --calibration c.json",
        "score x.parquet -o scaled.parquet --calibration v.json",
        "compare x.parquet out.parquet",
        "report x.parquet -o r.html",
        "show x.parquet --row 0",
        "show x.parquet --worst 2",
        "show --values 3",
        "verify out.parquet x.parquet",
        "verify calibrated.parquet x.parquet",
        "verify scaled.parquet x.parquet",
        "convert x.parquet -o list.parquet --layout list",
    ):
        assert main(words.split()) == 0, words
    assert pq.read_table("list.parquet")["logit"].to_pylist() == [[z] for z in Z.tolist()]
    capsys.readouterr()
    assert main(["inspect", "x.parquet", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["n_classes"] == 2
    assert main([*shlex.split(facts["command"])[1:], "-q"]) == 0


def test_folders_shards_and_resumed_jobs_of_one_logit(tmp_path):
    """Parts of a folder are computed as one logit, whatever computes them, and files with other logits are refused."""
    pq.write_table(table(logits=LISTS), tmp_path / "a.parquet", row_group_size=50)
    pq.write_table(table(logits=LISTS), tmp_path / "b.parquet")
    inputs = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    batchmax.score(inputs, str(whole))
    for shard in ("0/2", "1/2"):
        batchmax.score(inputs, str(shared), shard=shard)
    batchmax.score(inputs, str(shared), if_exists="resume")
    for part in sorted(path.name for path in whole.iterdir() if path.suffix == ".parquet"):
        assert (whole / part).read_bytes() == (shared / part).read_bytes()
    pq.write_table(two_logits(), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match="2 classes, but 1 in"):
        batchmax.score([*inputs, str(tmp_path / "c.parquet")], str(tmp_path / "mixed"))


def test_files_with_a_column_of_logits(tmp_path):
    """Several files with a column of one logit per row are read as one input."""
    for name in "ab":
        pq.write_table(table(logit=Z), tmp_path / f"{name}.parquet")
    assert batchmax.evaluate(str(tmp_path)).n_rows == 2 * len(Z)
    batchmax.score(str(tmp_path), str(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["label", "prob", "loss"]


def test_numbers_between_0_and_1_are_doubtful(capsys, tmp_path):
    """Numbers between 0 and 1 named as logits give a warning; the only list of such numbers is refused."""
    p = np.random.default_rng(0).random(50)
    pq.write_table(pa.table({"logit": p, "label": (p > 0.5).astype(np.int8)}), tmp_path / "x.parquet")
    assert main(["evaluate", str(tmp_path / "x.parquet")]) == 0
    assert "the rows look like probabilities; if they are: --input probs" in capsys.readouterr().err
    lists = pa.array([[one] for one in p], pa.list_(pa.float64()))
    with pytest.raises(UsageError, match="the rows look like probabilities"):
        batchmax.scan(pa.table({"z": lists})).read_all()


def test_the_report_of_two_classes(tmp_path):
    """The page is about the probability of the positive class, by its name."""
    package("matplotlib")
    for given, name in (({}, "class 1"), ({"classes": "ham,spam"}, "spam"), ({"positive": "0"}, "class 0")):
        path = tmp_path / f"{name}.html"
        batchmax.report(table(logit=Z), str(path), **given)
        text = path.read_text()
        assert f"The mean probability of {name} is" in text
        assert f"share of {name}" in text


def test_the_weight_of_the_positive_class():
    """``--pos-weight`` multiplies the losses of rows with label 1, as in PyTorch's BCEWithLogitsLoss."""
    some = np.isfinite(Z)
    rows = table(logit=Z).filter(pa.array(some))
    found = batchmax.scan(rows, outputs="loss", pos_weight=[3.0]).read_all()["loss"].to_numpy()
    z, y = Z[some].astype(np.float64), Y[some]
    np.testing.assert_allclose(found, np.where(y == 1, 3.0 * np.logaddexp(0, -z), np.logaddexp(0, z)), rtol=1e-6)
    for given in ({"pos_weight": [1.0, 2.0]}, {"pos_weight": [2.0], "class_weights": [1.0, 1.0]}):
        with pytest.raises(UsageError, match="--pos-weight"):
            batchmax.scan(rows, **given)

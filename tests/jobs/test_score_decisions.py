"""Rules that ``decide`` wrote, applied by ``score --decision``: the decisions are those that the rule was chosen by."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import UsageError

COSTS = "true,0,1,abstain\n0,0,1,0.2\n1,5,0,0.3\n"


def drawn(n=800, seed=0, digits=1):
    """Return log-odds with ties, and labels drawn from their probabilities."""
    random = np.random.default_rng(seed)
    z = np.round(random.normal(size=n) * 2 - 1, digits)
    return z, (random.random(n) < 1 / (1 + np.exp(-z))).astype(np.int64)


def lists(matrix):
    return pa.array(list(matrix))


def one_logit(z, dtype=np.float32):
    return {"logit": z.astype(dtype)}


def two_logits(z):
    return {"logits": lists(np.stack([0.25 * z, 1.25 * z], axis=1).astype(np.float32))}


def stored(z, name="probs", dtype=np.float32):
    values = np.stack([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))], axis=1)
    return {name: lists((np.log(values) if name == "log_probs" else values).astype(dtype))}


def single_prob(z):
    return {"prob": (1 / (1 + np.exp(-z))).astype(np.float32)}


COLUMNS = {
    "one logit": (one_logit, {}),
    "one float64 logit": (lambda z: one_logit(z, np.float64), {}),
    "two logits": (two_logits, {}),
    "temperature": (two_logits, {"temperature": 1.7}),
    "beta": (one_logit, {"beta": 1.526}),
    "first class": (two_logits, {"positive": "0"}),
    "first class of one logit": (one_logit, {"positive": "0"}),
    "probabilities": (stored, {"input": "probs"}),
    "float64 probabilities": (lambda z: stored(z, dtype=np.float64), {"input": "probs"}),
    "log-probabilities": (lambda z: stored(z, "log_probs"), {"input": "log_probs"}),
    "first class of log-probabilities": (lambda z: stored(z, "log_probs"), {"input": "log_probs", "positive": "0"}),
    "one probability": (single_prob, {"logits": "prob", "input": "probs"}),
    "first class of one probability": (single_prob, {"logits": "prob", "input": "probs", "positive": "0"}),
}


@pytest.mark.parametrize("digits", [1, 15], ids=["ties", "no ties"])
@pytest.mark.parametrize("name", COLUMNS)
def test_decisions_of_two_classes_are_those_that_the_rule_was_chosen_by(name, digits, tmp_path):
    """Also of rows whose score is the threshold: precision, recall and the share of positive rows are the same."""
    make, given = COLUMNS[name]
    z, labels = drawn(digits=digits)
    table = pa.table(make(z) | {"label": labels})
    path = tmp_path / "decision.json"
    rule = batchmax.decide(table, path, maximize="f1", holdout=0.0, **given)
    reads = {one: value for one, value in given.items() if one in {"logits", "input"}}
    scored = batchmax.score_batch(table, decision=path, outputs="pred", **reads)
    positive = int(given.get("positive", 1))
    is_positive, is_right = scored["decision"].to_numpy() == positive, labels == positive
    assert 0 < is_positive.sum() < len(z)
    assert rule.fitted["alert_rate"] == pytest.approx(is_positive.mean(), abs=1e-12)
    assert rule.fitted["precision"] == pytest.approx(is_right[is_positive].mean(), abs=1e-12)
    assert rule.fitted["recall"] == pytest.approx(is_positive[is_right].mean(), abs=1e-12)
    assert set(scored["decision_reason"].to_pylist()) == {"decided"}


def test_costs_of_two_classes(tmp_path):
    """Rows between the thresholds have no decision; the expected cost is that of the decision."""
    z, labels = drawn()
    table = pa.table(one_logit(z) | {"label": labels})
    (tmp_path / "costs.csv").write_text(COSTS)
    path = tmp_path / "decision.json"
    rule = batchmax.decide(table, path, costs=tmp_path / "costs.csv", holdout=0.0)
    scored = batchmax.score_batch(table, decision=path, dtype="float64")
    decision = np.array([-1 if one is None else one for one in scored["decision"].to_pylist()])
    np.testing.assert_array_equal(decision, np.where(z < rule.logit_low, 0, np.where(z >= rule.logit_high, 1, -1)))
    assert rule.fitted["coverage"] == pytest.approx((decision >= 0).mean())
    costs = np.array([[0, 1, 0.2], [5, 0, 0.3]])
    assert costs[labels, decision].mean() == pytest.approx(rule.fitted["mean_cost"])
    p = 1 / (1 + np.exp(-z.astype(np.float32).astype(np.float64)))
    expected = (1 - p) * costs[0, decision] + p * costs[1, decision]
    np.testing.assert_allclose(scored["expected_cost"].to_numpy(), expected, rtol=1e-12)
    reasons = ["decided" if one >= 0 else "abstained" for one in decision]
    assert scored["decision_reason"].to_pylist() == reasons


def three_classes(n=3000, names=("a", "b", "c")):
    random = np.random.default_rng(5)
    logits = np.round(random.normal(size=(n, 3)) * 3, 1).astype(np.float32)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    labels = (random.random(n)[:, None] > probs.cumsum(axis=1)).sum(axis=1)
    return pa.table({"logits": lists(logits), "label": pa.array(names).take(pa.array(labels))}), probs, labels


def test_confident_decisions_of_more_classes(tmp_path):
    """The decision is the predicted class; both parts together have as many decisions as the rule says."""
    table, probs, labels = three_classes()
    path = tmp_path / "decision.json"
    rule = batchmax.decide(table, path, at="accuracy>=0.85", classes="a,b,c")
    scored = batchmax.score_batch(table, decision=path, outputs="pred", classes="a,b,c")
    is_decided = np.array(scored["decision"].is_valid())
    assert scored["decision"].filter(is_decided).equals(scored["pred"].filter(is_decided))
    n_decided = sum(part["n_rows"] * part["coverage"] for part in (rule.fitted, rule.held_out))
    assert is_decided.sum() == pytest.approx(n_decided)
    n_right = sum(part["n_rows"] * part["coverage"] * part["accuracy"] for part in (rule.fitted, rule.held_out))
    assert (probs.argmax(axis=1) == labels)[is_decided].sum() == pytest.approx(n_right)
    assert set(scored["decision_reason"].filter(is_decided).to_pylist()) == {"decided"}


@pytest.mark.parametrize("names", [("a", "c", "abstain"), ("call", "wait", "abstain")])
def test_decisions_with_the_least_expected_cost(names, tmp_path):
    """They may be classes or have other names."""
    table, probs, _ = three_classes()
    costs = np.array([[0, 2, 0.5], [1, 1, 0.5], [3, 0, 0.5]])
    lines = [
        ",".join(("true", *names)),
        *(f"{c},{','.join(map(str, row))}" for c, row in zip("abc", costs, strict=True)),
    ]
    (tmp_path / "costs.csv").write_text("\n".join(lines))
    path = tmp_path / "decision.json"
    batchmax.decide(table, path, costs=tmp_path / "costs.csv", classes="a,b,c")
    scored = batchmax.score_batch(table, decision=path, classes="a,b,c", dtype="float64")
    expected = probs.astype(np.float64) @ costs
    best = expected.argmin(axis=1)
    near = np.sort(expected, axis=1)[:, 1] - expected.min(axis=1) < 1e-5
    found = np.array(["abstain" if one is None else one for one in scored["decision"].to_pylist()])
    assert (found == np.array(names)[best])[~near].all()
    assert near.mean() < 0.01
    np.testing.assert_allclose(scored["expected_cost"].to_numpy(), expected.min(axis=1), rtol=1e-5)


def multi_label(n=900):
    random = np.random.default_rng(2)
    logits = np.round(random.normal(size=(n, 3)), 1).astype(np.float32)
    labels = random.random((n, 3)) < 1 / (1 + np.exp(-2 * logits))
    return logits, labels


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_decisions_of_labels(beta, tmp_path):
    """Each label has its threshold; a label without one is never decided for, and rows need no labels."""
    logits, labels = multi_label()
    table = pa.table({"logits": lists(logits), "label": pa.array(labels.tolist(), pa.list_(pa.bool_()))})
    path = tmp_path / "decision.json"
    rule = batchmax.decide(table, path, maximize="f1", holdout=0.0, beta=beta)
    scored = batchmax.score_batch(table.drop_columns("label"), decision=path, outputs="preds")
    found = np.zeros(logits.shape, bool)
    for row, classes in enumerate(scored["decisions"].to_pylist()):
        found[row, classes] = True
    for at, one in enumerate(rule.thresholds):
        assert found[:, at].mean() == pytest.approx(one["fitted"]["alert_rate"])
        assert labels[found[:, at], at].mean() == pytest.approx(one["fitted"]["precision"])
    text = json.loads(path.read_text())
    text["thresholds"][1]["logit"] = None
    path.write_text(json.dumps(text))
    again = batchmax.score_batch(table, decision=path, classes="x,y,z")["decisions"].to_pylist()
    assert {name for one in again for name in one} == {"x", "z"}


VALUES = {
    "text": ["north", None, "south"],
    "number": [0.5, float("nan"), None],
    "day": [dt.date(2026, 1, 1), dt.date(2026, 1, 2), None],
    "bool": [True, False, None],
}


@pytest.mark.parametrize("kind", VALUES)
def test_groups_have_thresholds_of_their_own(kind, tmp_path):
    """Values may be null or NaN; rows of other groups have no decision."""
    z, labels = drawn(1200)
    number = np.arange(len(z)) % 3
    by = pa.array(VALUES[kind], from_pandas=False).take(pa.array(number))
    table = pa.table(one_logit(z) | {"label": labels, "by": by})
    path = tmp_path / "decision.json"
    rule = batchmax.decide(table.filter(pa.array(number < 2)), path, maximize="f1", holdout=0.0, by="by")
    source = tmp_path / "rows.parquet"
    pq.write_table(table, source, row_group_size=500)
    batchmax.score(source, tmp_path / "scored.parquet", decision=path)
    scored = pq.read_table(tmp_path / "scored.parquet")
    logits = [group["logit"] for group in rule.groups]
    assert logits[0] != logits[1]
    is_known = number < 2
    expected = np.where(z.astype(np.float32) >= np.array([*logits, np.nan])[number], 1, 0)
    assert np.array(scored["decision"].filter(pa.array(is_known))).tolist() == expected[is_known].tolist()
    assert scored["decision"].filter(pa.array(~is_known)).null_count == (~is_known).sum()
    reasons = np.where(is_known, "decided", "unknown_group")
    assert scored["decision_reason"].cast(pa.string()).to_pylist() == reasons.tolist()
    assert batchmax.verify(tmp_path / "scored.parquet", source).n_rows == len(z)
    assert scored["by"].equals(table["by"]) or kind == "number"


def test_bad_rows_have_their_status_as_the_reason(tmp_path):
    """A row without a label is decided; one without probabilities isn't."""
    z, labels = drawn()
    path = tmp_path / "decision.json"
    batchmax.decide(pa.table(one_logit(z) | {"label": labels}), path, maximize="f1")
    rows = pa.table({"logit": [9.0, float("nan"), None, -9.0, float("inf")], "label": [1, 1, 1, None, 1]})
    scored = batchmax.score_batch(rows, decision=path, on_bad_row="null", outputs="status")
    assert scored["decision"].to_pylist() == [1, None, None, 0, 1]
    assert scored["decision_reason"].to_pylist() == ["decided", "nan_logit", "null_logits", "decided", "decided"]


def test_the_output_says_which_rule_was_applied(tmp_path):
    """Another rule is another job; verify knows the columns; and the calibration of the rule is applied."""
    z, labels = drawn()
    source, path, out = tmp_path / "rows.parquet", tmp_path / "decision.json", tmp_path / "scored.parquet"
    pq.write_table(pa.table(two_logits(z) | {"label": labels}), source)
    rule = batchmax.decide(source, path, maximize="f1", temperature=2.0)
    assert main(["score", str(source), "-o", str(out), "--decision", str(path), "--prefix", "new_"]) == 0
    metadata = json.loads(pq.read_metadata(out).metadata[b"batchmax"])
    assert metadata["temperature"] == 2.0
    assert json.loads(metadata["options"]["rule"])["beta"] == 0.5
    names = ["label", "new_probs", "new_loss", "new_decision", "new_decision_reason"]
    assert pq.read_schema(out).names == names
    result = batchmax.verify(out, source)
    assert "the values of the --decision columns are not checked" in result.notes
    assert batchmax.evaluate(out).n_rows == len(z)
    # The probabilities of the output have the temperature already; their rounding may change rows at the threshold.
    is_far = pa.array(abs(z / 2 - rule.logit) > 1e-6)
    again = batchmax.score_batch(pq.read_table(out), decision=path, outputs=())["decision"]
    assert again.filter(is_far).equals(pq.read_table(out)["new_decision"].filter(is_far))


def changed(**members):
    return lambda text: text | members


ERRORS = {
    "no file": (lambda _: None, {}, "there is no file"),
    "no rule": (lambda _: {"a": 1}, {}, "is not a decision file"),
    "another task": (changed(task="regression"), {}, "task is not binary"),
    "no number": (changed(logit="0.5"), {}, "is not a decision file"),
    "more classes": (changed(task="multiclass", n_classes=3, positive=None), {}, "the rule is for 3 classes"),
    "other classes": (changed(classes=["no", "yes"], positive="yes"), {"classes": "neg,pos"}, "classes no, yes"),
    "no positive class": (changed(positive="2"), {}, "positive is not one of two classes"),
    "no group": (changed(by="x"), {}, "by and groups are not both given"),
    "another calibration": (changed(), {"temperature": 3.0}, "another calibration or temperature"),
    "another activation": (changed(), {"activation": "taylor"}, "for activation softmax, not for taylor"),
    "short costs": (changed(costs={"decisions": ["0", "1"], "matrix": [[0, 1]]}), {}, "costs do not have"),
    "missing column": (
        lambda text: (
            text
            | {"by": "x", "groups": [{"by": 1, "logit": 0, "logit_low": None, "logit_high": None, "thresholds": []}]}
        ),
        {},
        "which the input doesn't have",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_rules_that_do_not_fit(name, tmp_path):
    """The message names the option and the reason."""
    change, given, message = ERRORS[name]
    z, labels = drawn()
    path = tmp_path / "decision.json"
    table = pa.table(two_logits(z) | {"label": labels})
    batchmax.decide(table, path, maximize="f1", temperature=2.0)
    text = change(json.loads(path.read_text()))
    path.write_text(json.dumps(text)) if text is not None else path.unlink()
    with pytest.raises(UsageError, match=message) as error:
        batchmax.score_batch(table, decision=path, **given)
    assert error.value.where == "--decision"


def test_options_without_a_rule():
    """The file is read where keyword arguments become options."""
    with pytest.raises(UsageError, match="isn't read"):
        batchmax.ScoreOptions(decision="decision.json")


def test_a_temperature_is_refused_for_probabilities():
    """It would change them after the rule was chosen."""
    z, labels = drawn()
    table = pa.table(stored(z) | {"label": labels})
    with pytest.raises(UsageError, match="would change the probabilities"):
        batchmax.decide(table, maximize="f1", input="probs", temperature=2.0)


def test_a_rule_of_calibrated_rows(tmp_path):
    """Vector scaling is applied to the logits too; the same calibration may be given again."""
    table, _, labels = three_classes(names=("0", "1", "2"))
    table = pa.table({"logits": table["logits"], "label": labels})
    calibration, path = tmp_path / "calibration.json", tmp_path / "decision.json"
    batchmax.calibrate(table, out=str(calibration), method="vector")
    rule = batchmax.decide(table, path, at="accuracy>=0.85", calibration=str(calibration))
    scored = batchmax.score_batch(table, decision=path)
    assert scored.equals(batchmax.score_batch(table, decision=path, calibration=str(calibration)))
    assert scored["probs"].equals(batchmax.score_batch(table, calibration=str(calibration))["probs"])
    n_decided = sum(part["n_rows"] * part["coverage"] for part in (rule.fitted, rule.held_out))
    assert len(table) - scored["decision"].null_count == pytest.approx(n_decided)
    assert len(json.loads(path.read_text())["scale"]) == 3

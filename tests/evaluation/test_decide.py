"""Decision rules against scikit-learn, SciPy, brute force, and the constraints that they have to meet."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import DataError, OutputError, UsageError
from batchmax.evaluation.distributions import log_binomial_tails
from tests.support.requirements import optional

metrics = optional("sklearn.metrics")
stats = optional("scipy.stats")


def drawn(n=600, seed=0, digits=1, **columns):
    """Return rows of one logit, rounded so that there are ties, and labels drawn from their probabilities."""
    random = np.random.default_rng(seed)
    z = np.round(random.normal(size=n) * 2 - 1, digits)
    labels = (random.random(n) < 1 / (1 + np.exp(-z))).astype(np.int64)
    return pa.table({"logit": z, "label": labels, **columns})


def decided(table, logit):
    """Return the labels and the decisions of a threshold."""
    z, y = table["logit"].to_numpy(), table["label"].to_numpy()
    return y, z >= (math.inf if logit is None else logit)


SCORES = {
    "f1": partial(metrics.fbeta_score, beta=1.0),
    "f0.5": partial(metrics.fbeta_score, beta=0.5),
    "f2": partial(metrics.fbeta_score, beta=2.0),
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "mcc": metrics.matthews_corrcoef,
}


@pytest.mark.parametrize("name", SCORES)
def test_the_best_threshold_is_that_of_brute_force(name):
    """No other score has a larger value of the metric, which is that of scikit-learn."""
    table = drawn()
    rule = batchmax.decide(table, maximize=name, holdout=0.0)
    values = [SCORES[name](*decided(table, z)) for z in [None, *np.unique(table["logit"].to_numpy())]]
    assert rule.fitted[name] == pytest.approx(max(values), abs=1e-12)
    assert SCORES[name](*decided(table, rule.logit)) == pytest.approx(max(values), abs=1e-12)
    assert rule.threshold == pytest.approx(1 / (1 + math.exp(-rule.logit)))
    assert (rule.held_out, rule.optimism) == (rule.fitted, 0.0)


def test_parts_are_disjoint_and_measured_apart():
    """The metrics of both parts together are those of all rows; a row is in the same part at any number of threads."""
    table = drawn(5000)
    rule = batchmax.decide(table, maximize="f1", threads=1)
    parts = rule.fitted, rule.held_out
    y, d = decided(table, rule.logit)
    assert sum(part["n_rows"] for part in parts) == len(y)
    assert parts[1]["n_rows"] == pytest.approx(2500, abs=150)
    assert sum(part["n_rows"] * part["accuracy"] for part in parts) == pytest.approx((y == d).sum())
    assert rule.optimism == parts[0]["f1"] - parts[1]["f1"]
    other = batchmax.decide(table, maximize="f1", seed=1)
    assert other.held_out != rule.held_out


def test_clusters_are_held_out_as_a_whole():
    """With a cluster column, the held-out rows are whole clusters."""
    clusters = np.arange(600) // 10
    sizes = [batchmax.decide(drawn(cluster=clusters), maximize="f1", cluster="cluster", seed=s).held_out["n_rows"]
             for s in range(5)]  # fmt: skip
    assert all(size % 10 == 0 for size in sizes)


def test_a_logit_and_two_logits_have_one_rule():
    """Two logits have the rule of their difference, and the other class as positive the mirrored one."""
    table = drawn()
    z = table["logit"].to_numpy()
    two = pa.table({"logits": list(np.stack([np.zeros(len(z)), z], axis=1)), "label": table["label"]})
    one, other = (batchmax.decide(given, maximize="f1") for given in (table, two))
    assert (one.logit, one.held_out) == (other.logit, other.held_out)
    assert (one.n_classes, other.n_classes) == (1, 2)
    mirrored = batchmax.decide(
        pa.table({"logit": -z, "label": 1 - table["label"].to_numpy()}), maximize="f1", positive="0"
    )
    assert (mirrored.logit, mirrored.positive) == (one.logit, "0")


@pytest.mark.parametrize("m", [1, 30, 5000, 10**7])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_binomial_tails_are_those_of_scipy(m, share):
    """Logarithms of tails are those of SciPy, within the error of the logarithms of factorials."""
    spread = np.linspace(-4, 4, 50) * math.sqrt(m * share * (1 - share))
    hits = np.unique(np.clip(np.round(m * share + spread), 0, m))
    found = log_binomial_tails(hits, np.full(len(hits), float(m)), share)
    assert found == pytest.approx(stats.binom.logsf(hits - 1, m, share), rel=1e-7, abs=1e-7)


def exact_p_value(at, y, d):
    """Return the p-value of a constraint by SciPy."""
    match at.split("0")[0]:
        case "precision>=":
            return stats.binom.sf((y & d).sum() - 1, d.sum(), 0.8)
        case "recall>=":
            return stats.binom.sf((y & d).sum() - 1, y.sum(), 0.8)
        case "fpr<=":
            return stats.binom.cdf((d & ~y).sum(), (~y).sum(), 0.1)
        case _:
            return stats.binom.cdf(d.sum(), len(d), 0.1)


@pytest.mark.parametrize("at", ["precision>=0.8", "recall>=0.8", "fpr<=0.1", "alert_rate<=0.1"])
def test_the_last_threshold_that_passes_is_kept(at):
    """The p-value is that of the held-out rows, and not far below 0.05, as the last one that passed."""
    rule = batchmax.decide(drawn(4000, digits=2), at=at)
    part = rule.held_out
    alerts = round(part["alert_rate"] * part["n_rows"])
    hits = round((part["precision"] or 0.0) * alerts)
    positives = round(hits / part["recall"])
    y = np.repeat([True, False], [positives, part["n_rows"] - positives])
    d = np.zeros(len(y), np.bool_)
    d[:hits] = d[positives : positives + alerts - hits] = True
    assert rule.constraint["p_value"] == pytest.approx(exact_p_value(at, y, d), rel=1e-9)
    assert 0.005 < rule.constraint["p_value"] <= 0.05


def test_a_constraint_is_missed_in_few_files():
    """In 200 simulated files, the true precision is below the target in at most 5 % and three standard errors."""
    random = np.random.default_rng(0)
    z = np.sort(random.normal(size=400_000) * 2 - 1)[::-1]
    precision = np.cumsum(1 / (1 + np.exp(-z))) / np.arange(1, len(z) + 1)
    misses = 0
    for seed in range(200):
        try:
            rule = batchmax.decide(drawn(1500, seed, digits=6), at="precision>=0.8")
        except DataError:
            continue
        misses += precision[np.searchsorted(-z, -rule.logit, side="right") - 1] < 0.8
    assert misses <= 200 * (0.05 + 3 * 0.0154)


def test_no_threshold_meets_an_impossible_constraint(tmp_path, capsys):
    """The exit code is 1, no file is written, and the message has the best bound."""
    pq.write_table(drawn(), tmp_path / "x.parquet")
    out = tmp_path / "decision.json"
    assert main(["decide", str(tmp_path / "x.parquet"), "--at", "precision>=0.999", "-o", str(out)]) == 1
    assert not out.exists()
    assert "the best lower bound of precision on held-out rows is 0." in capsys.readouterr().err


def brute_force(z, y, cost):
    """Return the least mean cost over all pairs of thresholds; ``cost`` has those of negative, positive, abstain."""
    cuts = [-math.inf, *np.unique(z), math.inf]
    best = math.inf
    for low in cuts:
        for high in cuts if len(cost[0]) == 3 else [low]:
            if high >= low:
                chosen = np.where(z >= high, 1, np.where(z < low, 0, 2))
                best = min(best, np.mean([cost[label][one] for label, one in zip(y, chosen, strict=True)]))
    return best


@pytest.mark.parametrize("text", ["true,0,1\n0,0,1\n1,4,0\n", "true,0,abstain,1\n1,5,0.3,0\n0,0,0.2,1\n",
                                  "true,0,1,abstain\n0,0,1,9\n1,4,0,9\n"])  # fmt: skip
def test_costs_are_least(text, tmp_path):
    """The mean cost is the least over all thresholds; two classes have one, or two around abstention."""
    (tmp_path / "costs.csv").write_text(text)
    table = drawn(150)
    z, y = table["logit"].to_numpy(), table["label"].to_numpy()
    rule = batchmax.decide(table, costs=tmp_path / "costs.csv", holdout=0.0)
    names = [name for name in ("0", "1", "abstain") if name in rule.costs["decisions"]]
    cost = [[row[rule.costs["decisions"].index(name)] for name in names] for row in rule.costs["matrix"]]
    assert rule.fitted["mean_cost"] == pytest.approx(brute_force(z, y, cost), abs=1e-12)
    assert (rule.logit_low is None) == ("abstain" not in names)


def test_costs_of_several_classes_are_of_the_least_expected_decision(tmp_path):
    """With more classes, each row has the decision with the least expected cost."""
    (tmp_path / "costs.csv").write_text("true,go,stop,abstain\nx,0,2,0.5\ny,3,0,0.5\nz,1,1,0.5\n")
    random = np.random.default_rng(0)
    z, y = random.normal(size=(300, 3)) * 3, random.integers(0, 3, 300)
    table = pa.table({"logits": list(z), "label": y})
    rule = batchmax.decide(table, costs=tmp_path / "costs.csv", classes="x,y,z", holdout=0.0)
    cost = np.array(rule.costs["matrix"])
    probs = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    chosen = (probs @ cost).argmin(axis=1)
    assert rule.fitted["mean_cost"] == pytest.approx(cost[y, chosen].mean())
    assert rule.fitted["coverage"] == pytest.approx((chosen != 2).mean())
    assert (rule.logit, rule.fitted["accuracy"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("label,0,1\n", "the first column of .* is 'label'"),
        ("true,0,1\n0,0,1\n", "no line for class '1'"),
        ("true,0,1\n0,0,x\n1,1,0\n", r"line 2, column 3 \('1'\) of .*: 'x' is not a cost"),
        ("true,0,1\n0,0,1\n2,1,0\n", "line 3 of .*, column 1: '2' is not a class"),
        ("true,0,1\n0,0\n", "line 2 of .* has 2 values, and the header 3"),
        ("true,0,0\n", "line 1, column 3 of .*: decision '0' occurs twice"),
        ("true,0,2\n0,0,1\n1,1,0\n", "'2' is not one of the decisions"),
    ],
)
def test_invalid_costs_are_named(text, reason, tmp_path):
    """A message about costs has the line and the column."""
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(UsageError, match=reason):
        batchmax.decide(drawn(), costs=tmp_path / "costs.csv")


def test_labels_have_a_threshold_each():
    """A label of multi-label rows has the rule of its own column; missing targets count nowhere."""
    random = np.random.default_rng(0)
    z = random.normal(size=(400, 3)) * 2
    y = random.random((400, 3)) < 1 / (1 + np.exp(-z))
    table = pa.table({"logits": list(z), "labels": list(y)})
    rule = batchmax.decide(table, maximize="f1", classes="a,b,c", holdout=0.0)
    assert (rule.task, rule.activation, rule.threshold) == ("multilabel", "sigmoid", None)
    for at, one in enumerate(rule.thresholds):
        alone = batchmax.decide(pa.table({"logit": z[:, at], "label": y[:, at]}), maximize="f1", holdout=0.0)
        assert one["class"] == "abc"[at]
        assert (one["logit"], one["fitted"]) == (alone.logit, alone.fitted)


def test_several_classes_have_a_confidence():
    """The accuracy of the rows whose confidence is at least the threshold is that of the result."""
    random = np.random.default_rng(0)
    z = random.normal(size=(3000, 4)) * 2
    y = (z + random.gumbel(size=z.shape)).argmax(axis=1)
    rule = batchmax.decide(pa.table({"logits": list(z), "label": y}), at="accuracy>=0.9")
    confidence = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).max(axis=1)
    kept = confidence >= rule.threshold - 1e-12
    parts = rule.fitted, rule.held_out
    assert sum(part["n_rows"] * part["coverage"] for part in parts) == pytest.approx(kept.sum())
    right = sum(part["n_rows"] * part["coverage"] * part["accuracy"] for part in parts)
    assert right == pytest.approx((z.argmax(axis=1) == y)[kept].sum())
    assert rule.held_out["accuracy"] > 0.9


def test_groups_have_a_rule_each():
    """A group has the rule that its rows alone would have; null is a group too."""
    by = pa.array(["x", None, "y"] * 200)
    table = drawn(by=by)
    rule = batchmax.decide(table, maximize="f1", by="by", holdout=0.0)
    assert [group["by"] for group in rule.groups] == ["x", None, "y"]
    assert (rule.by, rule.fitted, rule.threshold) == ("by", None, None)
    for at, group in enumerate(rule.groups):
        alone = batchmax.decide(table.take(list(range(at, 600, 3))), maximize="f1", holdout=0.0)
        assert (group["logit"], group["fitted"]) == (alone.logit, alone.fitted)


def test_infinite_logits_are_at_the_ends():
    """A row with the logit -inf is never positive, and JSON has no infinite thresholds."""
    z = np.array([-math.inf, -math.inf, 0.0, math.inf])
    table = pa.table({"logit": z, "label": [1, 1, 1, 1]})
    rule = batchmax.decide(table, maximize="accuracy", holdout=0.0)
    assert (rule.logit, rule.fitted["alert_rate"]) == (0.0, 0.5)
    json.loads(rule.to_json())


def test_weights_count():
    """A row of weight 3 counts as three rows, and one of weight 0 not at all."""
    table = drawn(w=np.arange(600) % 4)
    repeated = table.take(np.repeat(np.arange(600), np.arange(600) % 4))
    weighted = batchmax.decide(table, maximize="f1", sample_weight="w", holdout=0.0)
    plain = batchmax.decide(repeated, maximize="f1", holdout=0.0)
    assert weighted.logit == plain.logit
    assert weighted.fitted == plain.fitted | {"n_rows": 600}


def test_the_file_has_the_members_in_order(tmp_path):
    """The file is the result, in the documented order; it isn't replaced unless asked."""
    out = tmp_path / "decision.json"
    rule = batchmax.decide(drawn(), out, maximize="f1", temperature=2.0)
    members = json.loads(out.read_text())
    assert list(members) == [
        *("task", "rule", "n_classes", "classes", "positive", "input", "activation"),
        *("temperature", "beta", "scale", "bias"),
        *("threshold", "logit", "logit_low", "logit_high", "thresholds", "costs", "by", "groups", "constraint"),
        *("fitted", "held_out", "optimism", "holdout", "seed", "n_rows", "files", "version"),
    ]
    assert members == {name: rule.as_dict()[name] for name in members}
    assert (rule.temperature, rule.logit * 2.0) == (2.0, batchmax.decide(drawn(), maximize="f1").logit)
    with pytest.raises(OutputError, match="the output exists"):
        batchmax.decide(drawn(), out, maximize="f1")
    batchmax.decide(drawn(), out, maximize="f1", if_exists="overwrite")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "--maximize: it isn't said what the rule is for"),
        ({"maximize": "f1", "at": "recall>=0.9"}, "exclude each other"),
        ({"maximize": "f3"}, "unknown metric 'f3'"),
        ({"at": "precision=0.9"}, "precision has no constraint with ="),
        ({"at": "recall<=0.9"}, "recall has no constraint with <="),
        ({"at": "precision>=1"}, "1 is out of range"),
        ({"at": "loss>=0.5"}, "'loss>=0.5' is not a constraint"),
        ({"at": "accuracy>=0.9"}, "accuracy has no threshold from which it is met"),
        ({"at": "recall>=0.9", "holdout": 0.0}, "--holdout: "),
        ({"at": "recall>=0.9", "sample_weight": "label"}, "--sample-weight: "),
        ({"at": "recall>=0.9", "confidence_level": 1.0}, "--confidence-level: 1 is out of range"),
        ({"maximize": "f1", "holdout": 1.0}, "--holdout: 1 is out of range"),
        ({"costs": "missing.csv"}, "there is no file missing.csv"),
    ],
    ids=str,
)
def test_invalid_options(given, reason):
    """A message names the option and what is wrong."""
    with pytest.raises(UsageError, match=reason):
        batchmax.decide(drawn(), **given)


def test_clusters_widen_the_test():
    """With rows that are copied ten times, clusters give a stricter threshold; few clusters are warned about."""
    table = drawn(600, digits=3)
    copies = table.take(np.repeat(np.arange(600), 10)).append_column("c", pa.array(np.repeat(np.arange(600), 10)))
    plain, clustered = (batchmax.decide(copies, at="fpr<=0.1", **how) for how in ({}, {"cluster": "c"}))
    assert clustered.logit > plain.logit
    few = copies.set_column(2, "c", pa.array(np.arange(6000) % 25))
    assert any("only 25 clusters" in text for text in batchmax.decide(few, at="fpr<=0.5", cluster="c").warnings)


def test_the_terminal_shows_the_threshold_and_held_out_metrics(tmp_path, capsys):
    """A person sees what the rule is, what it gives on held-out rows, and where it was written."""
    pq.write_table(drawn(4000), tmp_path / "x.parquet")
    words = ["decide", str(tmp_path / "x.parquet"), "-o", str(tmp_path / "d.json"), "--if-exists", "overwrite"]
    assert main([*words, "--at", "alert_rate<=0.05"]) == 0
    shown = capsys.readouterr().out
    for text in ("1 if the probability is at least 0.", "held out", "alert rate", "d.json"):
        assert text in shown

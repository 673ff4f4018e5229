"""Metrics of predicted classes equal those of scikit-learn; those that are 0/0 are None and listed."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.cli.app import main
from tests.support.requirements import package

NAMES = ("precision", "recall", "f1", "jaccard")


def case(n, k, seed=0, *, weighted=False, missing=None):
    """Return float64 logits, labels and weights; ``missing`` is a class without rows."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * 2
    labels = random.integers(0, k, n)
    picked = random.random(n) < 0.5
    labels[picked] = logits.argmax(1)[picked]
    if missing is not None:
        labels[labels == missing] = (missing + 1) % k
    weights = random.random(n) * 3 if weighted else np.ones(n)
    return logits, labels, weights


def evaluated(logits, labels, weights):
    """Return the evaluation of rows with weights."""
    kind = pa.list_(pa.float64())
    rows = {"logits": pa.array(logits.tolist(), kind), "label": pa.array(labels, pa.int64()), "w": weights}
    return batchmax.evaluate(pa.table(rows), sample_weight="w")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("n", "k", "missing"), [(1, 2, None), (2, 2, None), (2000, 2, None), (500, 3, 1), (3000, 100, 7), (20, 100, None)]
)
def test_metrics_are_those_of_scikit_learn(n, k, missing, weighted):
    """Every metric that scikit-learn defines is equal to 1e-12; a 0/0 there is None here, and listed."""
    metrics = package("sklearn.metrics")
    logits, labels, weights = case(n, k, seed=n + k, weighted=weighted, missing=missing)
    found = evaluated(logits, labels, weights)
    pred, given = logits.argmax(1), {"sample_weight": weights}
    near = lambda value: pytest.approx(value, rel=1e-12, abs=1e-12)
    scores = {
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
        "f1": metrics.f1_score,
        "jaccard": metrics.jaccard_score,
    }
    for name, score in scores.items():
        for average in ("macro", "micro", "weighted"):
            want = score(labels, pred, average=average, zero_division=0, **given)
            assert getattr(found, average)[name] == near(want), (name, average)
        each = score(labels, pred, average=None, labels=range(k), zero_division=0, **given)
        counts = np.array([(labels == at).sum() * (name != "precision") for at in range(k)])
        counts += np.array([(pred == at).sum() * (name != "recall") for at in range(k)])
        each = np.where(counts > 0, each, np.nan)
        undefined = {one["class"] for one in found.undefined if one["metric"] == name}
        for at, want in enumerate(each):
            assert found.per_class[at][name] == (None if np.isnan(want) else near(want)), (name, at)
            assert (at in undefined) == np.isnan(want)
    assert found.balanced_accuracy == near(metrics.balanced_accuracy_score(labels, pred, **given))
    kappa = metrics.cohen_kappa_score(labels, pred, **given)
    assert found.kappa == (None if np.isnan(kappa) else near(kappa))
    if found.mcc is None:
        assert metrics.matthews_corrcoef(labels, pred, **given) == 0
    else:
        assert found.mcc == near(metrics.matthews_corrcoef(labels, pred, **given))
    if n > 2:
        probs = np.exp(logits - logits.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
        occurring = np.unique(labels)
        loss = -np.average(np.log(probs[np.arange(n), labels]), weights=weights)
        prior = np.array([weights[labels == one].sum() for one in occurring]) / weights.sum()
        assert found.d2_log_loss == near(1 - loss / -(prior * np.log(prior)).sum())
        if len(occurring) == k:
            want = metrics.d2_log_loss_score(labels, probs, labels=range(k), **given)
            assert found.d2_log_loss == near(want)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("positive", ["0", "1"])
def test_metrics_of_the_positive_class(positive):
    """Precision, recall and F1 of a binary task are those of the positive class."""
    metrics = package("sklearn.metrics")
    random = np.random.default_rng(3)
    z, y = random.normal(size=1000), random.integers(0, 2, 1000)
    found = batchmax.evaluate(pa.table({"logit": z, "label": y}), positive=positive)
    pred, at = (z > 0).astype(int), int(positive)
    assert found.prevalence == pytest.approx(np.mean(y == at), abs=1e-12)
    assert found.precision == pytest.approx(metrics.precision_score(y, pred, pos_label=at), abs=1e-12)
    assert found.recall == pytest.approx(metrics.recall_score(y, pred, pos_label=at), abs=1e-12)
    assert found.specificity == pytest.approx(metrics.recall_score(y, pred, pos_label=1 - at), abs=1e-12)
    assert found.f1 == pytest.approx(metrics.f1_score(y, pred, pos_label=at), abs=1e-12)
    assert found.undefined == []


def test_rare_classes_lose_no_digits():
    """With 3 rows of a class among 100,000, the correlation is exact in its last digits."""
    z = np.full(100_000, -1.0)
    y = np.zeros(100_000, np.int64)
    z[:4], y[1:4] = 1.0, 1
    y[-1] = 1
    found = batchmax.evaluate(pa.table({"logit": z, "label": y}))
    tp, fp, fn, tn = 3, 1, 1, 99_995
    want = (tp * tn - fp * fn) / np.sqrt(float((tp + fp) * (tp + fn)) * float((tn + fp) * (tn + fn)))
    assert found.mcc == pytest.approx(want, rel=1e-13)


def test_undefined_metrics_are_none_and_listed():
    """Rows of one class have no correlation; rows without labels have no metric, and none is listed as a number."""
    found = batchmax.evaluate(pa.table({"logit": [-1.0, -2.0], "label": [0, 0]}), curves="none")
    assert (found.prevalence, found.specificity, found.balanced_accuracy) == (0.0, 1.0, 1.0)
    assert (found.precision, found.recall, found.f1, found.kappa, found.mcc, found.d2_log_loss) == (None,) * 6
    listed = {(one["metric"], one["class"]) for one in found.undefined}
    of_positive = {(name, None) for name in ("precision", "recall", "f1", "kappa", "mcc", "d2_log_loss")}
    assert listed == of_positive | {(name, 1) for name in NAMES}
    assert found.macro["f1"] == 1.0
    empty = batchmax.evaluate(pa.table({"logit": pa.array([], pa.float64()), "label": pa.array([], pa.int64())}))
    assert (empty.mcc, empty.precision, empty.macro["f1"], empty.balanced_accuracy) == (None,) * 4
    json.dumps(json.loads(empty.to_json()))


@pytest.mark.parametrize(
    ("condition", "code"), [("macro.f1 < 0.9", 0), ("macro.f1 < 0.99", 4), ("0.99 > weighted.recall or mcc < 0", 4)]
)
def test_conditions_name_averages(condition, code):
    """Conditions may name averages with a dot, and the metrics of all classes."""
    assert main(["evaluate", "data/digits.parquet", "--fail-if", condition]) == code


def test_conditions_without_a_value():
    """A metric of the positive class has no value for ten classes, which fails the condition, with the reason."""
    with pytest.raises(batchmax.GateError, match=r"precision has no value .there are more than two classes"):
        batchmax.evaluate("data/digits.parquet", fail_if="precision < 0.1")
    for condition in ("macro.gini < 1", "macro < 1", "macro.f1.x < 1", "f() < 1", "macro['f1'] < 1"):
        with pytest.raises(batchmax.UsageError), warnings.catch_warnings():
            batchmax.evaluate("data/digits.parquet", fail_if=condition)

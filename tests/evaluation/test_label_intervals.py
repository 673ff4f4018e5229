"""Confidence intervals of the metrics of multi-label rows: by their definitions, and their coverage."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.evaluation import label_intervals
from tests.support.requirements import package

Z = np.random.default_rng(5).normal(size=(600, 4)) * 2
Y = np.random.default_rng(6).random(Z.shape) < 1 / (1 + np.exp(-Z))
CLUSTERS = np.random.default_rng(7).integers(0, 50, 600)


def table(z=Z, y=Y, **more):
    """Return a table of the rows."""
    return pa.table({"logits": list(z), "labels": pa.array(y.tolist(), pa.list_(pa.bool_())), **more})


def bounds(interval):
    """Return the bounds of an interval."""
    return interval["lower"], interval["upper"]


METRICS = {
    "hamming_loss": lambda m, y, z: m.hamming_loss(y, z > 0),
    "subset_accuracy": lambda m, y, z: m.accuracy_score(y, z > 0),
    "label_ranking_average_precision": lambda m, y, z: m.label_ranking_average_precision_score(y, z),
    "macro.f1": lambda m, y, z: m.f1_score(y, z > 0, average="macro"),
    "micro.jaccard": lambda m, y, z: m.jaccard_score(y, z > 0, average="micro"),
    "weighted.precision": lambda m, y, z: m.precision_score(y, z > 0, average="weighted", zero_division=0),
    "samples.recall": lambda m, y, z: m.recall_score(y, z > 0, average="samples", zero_division=0),
    "class.2.recall": lambda m, y, z: m.recall_score(y[:, 2], z[:, 2] > 0),
    "class.1.prevalence": lambda _, y, __: y[:, 1].mean(),
    "class.1.specificity": lambda m, y, z: m.recall_score(~y[:, 1], z[:, 1] <= 0),
}


def interval_of(found, name):
    """Return an interval of a metric, of an average or of a class."""
    first, _, rest = name.partition(".")
    if first == "class":
        at, _, metric = rest.partition(".")
        return found.per_class[int(at)]["intervals"][metric]
    return found.interval(*name.split("."))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METRICS)
def test_jackknife_of_clusters(name):
    """Intervals of clusters equal those of the definition: the metric again without each cluster, and its logit."""
    stats, metrics = package("scipy.stats"), package("sklearn.metrics")
    found = batchmax.evaluate(table(patient=CLUSTERS), cluster="patient", curves="none")
    used = np.unique(CLUSTERS)
    value = METRICS[name](metrics, Y, Z)
    left = np.array([METRICS[name](metrics, Y[one != CLUSTERS], Z[one != CLUSTERS]) for one in used])
    g = len(used)
    error = np.sqrt((g - 1) / g * ((left - left.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, g - 1) * error / (value * (1 - value))
    logit = np.log(value / (1 - value))
    want = tuple(1 / (1 + np.exp(-bound)) for bound in (logit - half, logit + half))
    assert bounds(interval_of(found, name)) == pytest.approx(want, rel=1e-9)
    assert interval_of(found, name)["method"] == "jackknife"
    assert found.n_clusters == g


def test_proportions_of_independent_rows_are_wilsons():
    """Subset accuracy, and metrics of the predictions of a class, have Wilson intervals; the others don't."""
    stats = package("scipy.stats")
    found = batchmax.evaluate(table(), curves="none")
    right = ((Z > 0) == Y).all(axis=1)
    want = stats.binomtest(int(right.sum()), len(Z)).proportion_ci(0.95, method="wilson")
    assert bounds(found.intervals["subset_accuracy"]) == pytest.approx((want.low, want.high), abs=1e-12)
    one = found.per_class[3]["intervals"]
    hits = int(((Z[:, 3] > 0) & Y[:, 3]).sum())
    want = stats.binomtest(hits, int((Z[:, 3] > 0).sum())).proportion_ci(0.95, method="wilson")
    assert bounds(one["precision"]) == pytest.approx((want.low, want.high), abs=1e-12)
    assert {one[name]["method"] for name in ("recall", "f1", "jaccard", "prevalence", "specificity")} == {"wilson"}
    assert one["mean_loss"]["method"] == found.intervals["hamming_loss"]["method"] == "jackknife"
    assert found.intervals["perplexity"]["lower"] == pytest.approx(np.exp(found.intervals["mean_loss"]["lower"]))
    ratio = found.mean_loss / found.mean_label_loss
    assert found.intervals["mean_label_loss"]["upper"] * ratio == pytest.approx(found.intervals["mean_loss"]["upper"])


def test_few_rows_many_classes_and_weights(monkeypatch):
    """Ten rows are needed for a jackknife, memory for averages over classes; weights leave no Wilson interval."""
    few = batchmax.evaluate(table(Z[:8], Y[:8]))
    assert set(few.intervals) == {"subset_accuracy"}
    monkeypatch.setattr(label_intervals, "MOST_BYTES", 100)
    found = batchmax.evaluate(table())
    assert any("4 classes have no intervals" in note for note in found.notes)
    assert "macro" not in found.intervals
    assert found.intervals["micro"]["f1"] is not None
    assert found.per_class[0]["intervals"]["mean_loss"] is None
    weighted = batchmax.evaluate(table(w=np.full(600, 2.5)), sample_weight="w")
    assert weighted.intervals["subset_accuracy"]["method"] == "jackknife"
    assert bounds(weighted.intervals["brier"]) == pytest.approx(bounds(found.intervals["brier"]), rel=1e-9)


def test_equal_entries_of_a_row_are_one_observation():
    """If all classes of a row are copies of one, intervals are those of one class: entries aren't independent."""
    one = batchmax.evaluate(table(Z[:, :1].repeat(3, 1), Y[:, :1].repeat(3, 1)))
    binary = batchmax.evaluate(pa.table({"logit": Z[:, 0], "label": Y[:, 0]}))
    for name in ("brier", "mean_label_loss"):
        want = binary.intervals["mean_loss" if name == "mean_label_loss" else name]
        assert bounds(one.intervals[name]) == pytest.approx(bounds(want), rel=1e-9), name
    assert one.intervals["ece"]["upper"] == pytest.approx(binary.intervals["ece"]["upper"], rel=0.01)


def test_calibration_of_dependent_entries():
    """Calibrated rows whose classes depend on each other are rejected in about 5 % of files, not in most."""
    random = np.random.default_rng(8)
    rejected = 0
    for _ in range(60):
        z = random.normal(size=(400, 1)).repeat(6, 1)
        y = (random.random((400, 1)) < 1 / (1 + np.exp(-z[:, :1]))).repeat(6, 1)
        p = batchmax.evaluate(table(z, y), curves="none").calibration_p
        rejected += p < 0.05
    assert rejected <= 9

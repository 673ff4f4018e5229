"""Tests confidence intervals: distributions, Wilson's and jackknife bounds, clusters, and what has no interval."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import GateError, UsageError
from batchmax.evaluation import jackknife
from batchmax.evaluation.cluster_keys import hash_numbers, hash_values
from batchmax.evaluation.distributions import chi_square_tail, f_tail, t_quantile
from batchmax.evaluation.intervals import absolute_bias, wilson
from batchmax.evaluation.jackknife import Jackknife
from tests.support.requirements import package
from tests.support.simulated_files import intervals_of, row_metrics, simulate


def rows(n, k=3, seed=0, **columns):
    """Return n rows of float64 logits and labels, with other columns."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * 2
    labels = np.where(random.random(n) < 0.6, logits.argmax(1), random.integers(0, k, n))
    return pa.table({"logits": pa.array(logits.tolist(), pa.list_(pa.float64())), "label": labels, **columns})


def bounds(interval):
    """Return the bounds of an interval."""
    return interval["lower"], interval["upper"]


@pytest.mark.parametrize("degrees", [1, 2, 9, 19, 39.5, 255])
def test_quantiles_of_t(degrees):
    """Quantiles of Student's t distribution equal SciPy's."""
    stats = package("scipy.stats")
    for p in (0.5, 0.6, 0.9, 0.975, 0.9999):
        assert t_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("degrees", [0.7, 1, 5, 33.3, 999])
def test_tails(degrees):
    """Tails of the chi-square and F distributions equal SciPy's, also far out."""
    stats = package("scipy.stats")
    for x in (0.0, 1e-3, 0.1, 1, 3, 30, 300, 1100):
        assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-10, abs=1e-300)
        for other in (5, 255):
            assert f_tail(x, degrees, other) == pytest.approx(stats.f.sf(x, degrees, other), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (999, 100_000)])
def test_wilson_bounds(hits, n):
    """Bounds of proportions equal SciPy's, and contain the proportion; without rows there are none."""
    stats = package("scipy.stats")
    for level in (0.8, 0.95):
        want = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
        low, high = wilson(np.array([float(hits)]), np.array([float(n)]), level)
        assert (low[0], high[0]) == pytest.approx((want.low, want.high), abs=1e-12)
        assert low[0] <= hits / n <= high[0]
    assert np.isnan(wilson(np.zeros(1), np.zeros(1), 0.95)).all()


def test_bias_of_absolute_values():
    """E|N(d, s)| - |d| equals an average over the distribution; it is 0 without an error."""
    nodes = np.linspace(-10, 10, 20_001)
    weights = np.exp(-0.5 * nodes * nodes)
    gaps, errors = np.array([0.0, 0.1, -0.1, 0.3, 0.2]), np.array([0.1, 0.1, 0.1, 0.05, 0.0])
    want = (np.abs(gaps[:, None] + errors[:, None] * nodes) * weights).sum(axis=1) / weights.sum() - np.abs(gaps)
    assert absolute_bias(gaps, errors) == pytest.approx(want, abs=1e-6)
    assert absolute_bias(gaps[4:], errors[4:])[0] == 0.0


@pytest.mark.parametrize("n_clusters", [40, 200])
def test_jackknife_of_clusters(n_clusters):
    """Intervals equal those of the definition: all metrics again without each cluster, t quantile, scale."""
    stats, metrics = package("scipy.stats"), package("sklearn.metrics")
    clusters = np.random.default_rng(1).integers(0, n_clusters, 600)
    table = rows(600, patient=pa.array([f"p{one}" for one in clusters]))
    found = batchmax.evaluate(table, cluster="patient")
    logits, labels = np.array(table["logits"].to_pylist()), table["label"].to_numpy()
    pred = logits.argmax(1)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(600), labels]
    used = np.unique(clusters)
    g = len(used)
    t = stats.t.ppf(0.975, g - 1)
    assert found.n_clusters == g

    def spread(metric):
        left = np.array([metric(clusters != one) for one in used])
        return metric(np.ones(600, bool)), np.sqrt((g - 1) / g * ((left - left.mean()) ** 2).sum()), left

    for name, metric in {
        "accuracy": lambda kept: (pred == labels)[kept].mean(),
        "balanced_accuracy": lambda kept: metrics.balanced_accuracy_score(labels[kept], pred[kept]),
    }.items():
        value, error, _ = spread(metric)
        half = t * error / (value * (1 - value))
        logit = np.log(value / (1 - value))
        want = tuple(1 / (1 + np.exp(-bound)) for bound in (logit - half, logit + half))
        assert bounds(found.intervals[name]) == pytest.approx(want, rel=1e-9), name
    value, error, _ = spread(lambda kept: metrics.cohen_kappa_score(labels[kept], pred[kept]))
    half = t * error / (1 - value**2)
    want = tuple(np.tanh(np.arctanh(value) + sign * half) for sign in (-1, 1))
    assert bounds(found.intervals["kappa"]) == pytest.approx(want, rel=1e-9)
    value, error, left = spread(lambda kept: losses[kept].mean())
    squares = (left - left.mean()) ** 2
    degrees = min(g - 1, 2 / ((squares**2).sum() / squares.sum() ** 2 - 1 / g))
    factor = np.exp(stats.t.ppf(0.975, degrees) * error / value)
    assert bounds(found.intervals["mean_loss"]) == pytest.approx((value / factor, value * factor), rel=1e-9)
    assert bounds(found.intervals["perplexity"]) == pytest.approx(np.exp((value / factor, value * factor)), rel=1e-9)
    value, error, _ = spread(lambda kept: metrics.f1_score(labels[kept], pred[kept], average="macro"))
    assert found.intervals["macro"]["f1"]["lower"] < value < found.intervals["macro"]["f1"]["upper"]
    assert {one["intervals"]["recall"]["method"] for one in found.per_class} == {"jackknife"}


def test_proportions_of_independent_rows_are_wilsons():
    """Accuracy, metrics of classes and of the positive class have Wilson intervals; F1 one by the Jaccard index."""
    stats, n = package("scipy.stats"), 500
    random = np.random.default_rng(2)
    z, y = random.normal(size=n), random.integers(0, 2, n)
    found = batchmax.evaluate(pa.table({"logit": z, "label": y}), confidence_level=0.9)
    right, both = int(((z > 0) & (y == 1)).sum()), int(((z > 0) | (y == 1)).sum())
    for name, hits, of in (
        ("accuracy", int(((z > 0) == y).sum()), n),
        ("prevalence", int(y.sum()), n),
        ("precision", right, int((z > 0).sum())),
        ("recall", right, int(y.sum())),
        ("specificity", int(((z <= 0) & (y == 0)).sum()), int((y == 0).sum())),
    ):
        want = stats.binomtest(hits, of).proportion_ci(0.9, method="wilson")
        assert bounds(found.intervals[name]) == pytest.approx((want.low, want.high), abs=1e-12), name
        assert found.intervals[name]["method"] == "wilson"
    want = np.array(stats.binomtest(right, both).proportion_ci(0.9, method="wilson"))
    assert bounds(found.intervals["f1"]) == pytest.approx(tuple(2 * want / (1 + want)), abs=1e-12)
    assert found.per_class[1]["intervals"]["f1"] == found.intervals["f1"]
    assert found.intervals["kappa"]["method"] == found.intervals["ece"]["method"] == "jackknife"
    assert (found.n_clusters, found.confidence_level) == (None, 0.9)


@pytest.mark.parametrize("n_clusters", [None, 100, 257, 2000])
def test_intervals_do_not_depend_on_batches(n_clusters):
    """Rows that are added in any number of pieces give the same bits."""
    z, y, clusters = simulate(np.random.default_rng(3), 5000, 0.3, "nearly", n_clusters)
    want = intervals_of(z, y, clusters)
    for pieces in (2, 17, 1000):
        found = intervals_of(z, y, clusters, pieces=pieces)
        assert found.of_all() == want.of_all()
        assert found.of_classes() == want.of_classes()
        assert (found.calibration_p, found.n_units) == (want.calibration_p, want.n_units)
    assert want.n_units == (5000 if clusters is None else len(np.unique(clusters)))


def test_intervals_do_not_depend_on_threads(write):
    """Any number of threads and any row groups give the same intervals."""
    table = rows(3000, patient=np.arange(3000) // 7)
    results = [
        batchmax.evaluate(write(str(size), table, row_group_size=size), cluster="patient", threads=threads).as_dict()
        for size, threads in ((3000, 1), (3000, 2), (100, 2))
    ]
    for name in ("intervals", "n_clusters", "calibration_p", "per_class"):
        assert results[0][name] == results[1][name] == results[2][name]


def test_many_clusters_are_counted():
    """The number of clusters is exact, in a table that grows; beyond the largest size, it is an estimate."""
    keys = np.random.default_rng(4).integers(0, 200_000, 300_000)
    some, hashes = row_metrics(np.zeros(300_000), np.zeros(300_000, np.int64)), hash_numbers(keys)
    counted = Jackknife([], counts_clusters=True)
    counted.add(some, lambda start, stop: hashes[start:stop])
    assert (counted.n_clusters, counted.is_estimated) == (len(np.unique(keys)), False)


def test_keys_of_clusters():
    """Equal numbers, texts and times have equal hashes, whatever their encoding; all nulls are one cluster."""
    numbers = pa.array([1, 2, None, 1, -5], pa.int32())
    for other in (numbers.cast(pa.int64()), numbers.cast(pa.float64()), numbers.dictionary_encode()):
        assert (hash_values(other) == hash_values(numbers)).all()
    assert (hash_values(numbers) == hash_values(pa.array([1.0, 2.0, np.nan, 1.0, -5.0]))).all()
    assert len(set(hash_values(pa.array([0.25, 0.5, 1.0, -0.25])).tolist())) == 4
    texts = pa.array(["a", "", None, "a", "bc"])
    for other in (texts.cast(pa.large_string()), texts.cast(pa.binary()), texts.dictionary_encode(), texts):
        assert (hash_values(other) == hash_values(texts)).all()
    found = hash_values(texts)
    assert found[0] == found[3]
    assert len(set(found.tolist())) == 4
    assert (hash_values(texts[1:]) == found[1:]).all()
    assert hash_values(pa.array([True, False, True])).tolist()[::2] == [hash_values(pa.array([1]))[0]] * 2
    assert len(set(hash_values(pa.array(["2020-01-01", "2021-01-01"]).cast(pa.date32())).tolist())) == 2
    with pytest.raises(UsageError, match="--cluster"):
        batchmax.evaluate(rows(5, tags=pa.array([[1]] * 5)), cluster="tags")


def test_few_clusters():
    """Fewer than 30 clusters are a warning; with fewer than 10 there are no intervals."""
    found = batchmax.evaluate(rows(400, patient=np.arange(400) % 29), cluster="patient")
    assert any("only 29 clusters" in one for one in found.warnings)
    assert found.intervals["accuracy"]["method"] == "jackknife"
    found = batchmax.evaluate(rows(400, patient=np.arange(400) % 9), cluster="patient")
    assert any("only 9 clusters" in one for one in found.warnings)
    assert found.intervals["accuracy"] is None
    assert "mean_loss" not in found.intervals
    assert found.calibration_p is None
    with pytest.raises(GateError, match="too few rows or clusters"):
        batchmax.evaluate(rows(400, patient=np.arange(400) % 9), cluster="patient", fail_if="mean_loss.upper > 9")


def test_without_variation():
    """If all rows are right, the interval is Wilson's, of all rows or clusters; no rows have no interval."""
    table = pa.table({"logits": [[5.0, 0.0, 0.0]] * 60, "label": [0] * 60, "patient": np.arange(60) % 40})
    plain, clustered = batchmax.evaluate(table), batchmax.evaluate(table, cluster="patient")
    for found, n in (plain, 60), (clustered, 40):
        low, high = wilson(np.array([float(n)]), np.array([float(n)]), 0.95)
        assert found.intervals["accuracy"] == {"lower": low[0], "upper": high[0], "method": "wilson"}
    assert plain.intervals["mean_loss"] is None
    assert plain.per_class[1]["intervals"]["recall"] is None
    none = batchmax.evaluate(table.set_column(1, "label", pa.nulls(60, pa.int64())))
    assert (none.intervals["accuracy"], none.calibration_p) == (None, None)


def test_weights():
    """Rows with weights have jackknife intervals; equal weights change nothing but the method of proportions."""
    table = rows(700, w=np.full(700, 2.5))
    plain, weighted = batchmax.evaluate(table), batchmax.evaluate(table, sample_weight="w")
    assert weighted.intervals["accuracy"]["method"] == "jackknife"
    for name in ("mean_loss", "brier", "ece", "kappa", "mcc"):
        assert bounds(weighted.intervals[name]) == pytest.approx(bounds(plain.intervals[name]), rel=1e-9), name
    assert bounds(weighted.intervals["accuracy"]) == pytest.approx(bounds(plain.intervals["accuracy"]), abs=0.005)


def test_sequences_are_clusters():
    """The tokens of a sequence are a cluster, unless a column of clusters is given."""
    flat = rows(600, id=np.arange(600) // 12, patient=np.arange(600) // 24)
    nested = pa.table({
        "logits": pa.array([flat["logits"][at : at + 12].to_pylist() for at in range(0, 600, 12)]),
        "label": pa.array([flat["label"][at : at + 12].to_pylist() for at in range(0, 600, 12)]),
        "patient": np.arange(50) // 2,
    })  # fmt: skip
    by_row, want = batchmax.evaluate(nested), batchmax.evaluate(flat, cluster="id")
    assert by_row.n_clusters == want.n_clusters == 50
    assert by_row.intervals["bits_per_token"]["lower"] == by_row.intervals["mean_loss"]["lower"] / np.log(2)
    assert {name: one for name, one in by_row.intervals.items() if name != "bits_per_token"} == want.intervals
    by_patient, want = (batchmax.evaluate(table, cluster="patient") for table in (nested, flat))
    assert by_patient.intervals["accuracy"] == want.intervals["accuracy"]
    assert by_patient.n_clusters == 25


def test_infinite_losses_and_distributions():
    """An infinite mean loss has no interval, other metrics have; distributions have intervals of losses alone."""
    table = rows(300)
    logits = table["logits"].to_pylist()
    logits[0][table["label"][0].as_py()] = -np.inf
    found = batchmax.evaluate(table.set_column(0, "logits", pa.array(logits)))
    assert found.intervals["mean_loss"] is None
    assert found.intervals["brier"] is not None
    soft = pa.table({"logits": logits[1:], "label": [[0.5, 0.25, 0.25]] * 299})
    found = batchmax.evaluate(soft)
    assert found.intervals["mean_loss"]["lower"] < found.mean_loss < found.intervals["mean_loss"]["upper"]
    assert (found.intervals["accuracy"], found.calibration_p) == (None, None)


def test_many_classes_have_no_intervals_of_averages(monkeypatch):
    """If the sums of all groups would take too much memory, a note says so; proportions have intervals."""
    monkeypatch.setattr(jackknife, "MOST_BYTES", 100)
    found = batchmax.evaluate(rows(300))
    assert any("3 classes have no intervals" in note for note in found.notes)
    assert "kappa" not in found.intervals
    assert found.intervals["accuracy"] is not None
    assert found.per_class[0]["intervals"]["f1"]["method"] == "wilson"
    found = batchmax.evaluate(rows(300, patient=np.arange(300) % 50), cluster="patient")
    assert found.per_class[0]["intervals"]["f1"] is None


def test_the_command_shows_intervals(write, capsys):
    """Brackets after a metric contain its interval; gates can name bounds; level 0 computes none."""
    path = write("in", rows(300, patient=np.arange(300) % 50))
    assert main(["evaluate", path, "--confidence-level", "0.9", "--cluster", "patient"]) == 0
    shown = capsys.readouterr().out
    found = batchmax.evaluate(path, confidence_level=0.9, cluster="patient")
    low, high = bounds(found.intervals["accuracy"])
    assert f"{found.accuracy:.6g}  [{low:.4g}, {high:.4g}]" in shown
    assert "clusters" in shown
    assert main(["evaluate", path, "--json", "--fail-if", "accuracy.lower < 0.1 or mean_loss.upper > 9"]) == 0
    assert json.loads(capsys.readouterr().out)["intervals"]["accuracy"]["method"] == "wilson"
    assert main(["evaluate", path, "-q", "--fail-if", "accuracy.lower < 0.99"]) == 4
    assert "accuracy.lower is 0." in capsys.readouterr().err
    assert main(["evaluate", path, "--confidence-level", "0"]) == 0
    assert "[" not in capsys.readouterr().out
    assert main(["evaluate", path, "--confidence-level", "0", "--fail-if", "accuracy.lower < 0.1"]) == 4
    assert "--confidence-level 0 computes no intervals" in capsys.readouterr().err
    assert main(["evaluate", path, "--confidence-level", "95"]) == 2
    assert "--confidence-level: 95.0 is out of range" in capsys.readouterr().err


def test_the_table_has_bounds(write, tmp_path):
    """Bounds of metrics, averages, values of k, and classes are rows of the table of metrics."""
    path, out = write("in", rows(300)), str(tmp_path / "out.parquet")
    found = batchmax.evaluate(path, out=out, top_k=2)
    values = {(row["scope"], row["name"], row["figure"]): row["value"] for row in pq.read_table(out).to_pylist()}
    assert values["all", None, "accuracy.lower"] == found.intervals["accuracy"]["lower"]
    assert values["all", None, "macro_f1.upper"] == found.intervals["macro"]["f1"]["upper"]
    assert values["all", None, "top_2_accuracy.upper"] == found.intervals["top_k_accuracy"]["2"]["upper"]
    assert values["class", "1", "recall.lower"] == found.per_class[1]["intervals"]["recall"]["lower"]

"""Tests intervals of areas under curves and of groups of rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.evaluation import group_intervals
from batchmax.evaluation.intervals import wilson
from batchmax.kernels.score_bins import areas_without_groups
from tests.support.requirements import package


def rows(n, seed=0, spread=2.0, digits=3, prevalence=0.4):
    """Return n rows of one logit with ties, and their logits, labels and clusters."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < prevalence).astype(np.int64)
    z = np.round(random.normal(size=n) * spread + 2.0 * labels - 1.0, digits)
    clusters = random.integers(0, 60, n)
    return pa.table({"logit": z, "label": labels, "patient": clusters}), z, labels, clusters


def bounds(interval):
    """Return the bounds of an interval."""
    return interval["lower"], interval["upper"]


def on_logits(value, half):
    """Return the bounds of an interval that is symmetric on the scale of the logit."""
    middle, half = np.log(value / (1 - value)), half / (value * (1 - value))
    return tuple(1 / (1 + np.exp(-bound)) for bound in (middle - half, middle + half))


def placements(z, labels):
    """Return the placements of positives and of negatives, by comparing each with each."""
    positives, negatives = z[labels == 1][:, np.newaxis], z[labels == 0][np.newaxis]
    wins = (positives > negatives) + 0.5 * (positives == negatives)
    return wins.mean(axis=1), wins.mean(axis=0)


@pytest.mark.parametrize(("n", "spread", "digits"), [(400, 2.0, 3), (2000, 0.6, 1), (500, 8.0, 0)])
def test_auroc_of_independent_rows_is_delongs(n, spread, digits):
    """The variance is that of the placements, which are computed from all pairs; with ties."""
    table, z, labels, _ = rows(n, spread=spread, digits=digits)
    found = batchmax.evaluate(table, confidence_level=0.9)
    of_positives, of_negatives = placements(z, labels)
    error = np.sqrt(of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives))
    want = on_logits(of_positives.mean(), package("scipy.stats").norm.ppf(0.95) * error)
    assert bounds(found.intervals["auroc"]) == pytest.approx(want, rel=1e-10)
    assert found.intervals["auroc"]["method"] == "delong"
    assert found.per_class[0]["intervals"]["auroc"] == found.per_class[1]["intervals"]["auroc"]
    assert found.per_class[1]["intervals"]["auroc"] == found.intervals["auroc"]


def test_auroc_of_few_rows():
    """With fewer than 50 rows of a class, each class has half a row more, in the middle of the other class."""
    table, z, labels, _ = rows(300, prevalence=0.05)
    found = batchmax.evaluate(table)
    parts = placements(z, labels)
    m = min(map(len, parts))
    center = (parts[0].mean() * m + 0.25) / (m + 0.5)
    error = sum(
        (((one - center) ** 2).sum() + 0.5 * (0.5 - center) ** 2) / ((len(one) + 0.5) * (len(one) - 0.5))
        for one in parts
    )
    low, high = on_logits(center, package("scipy.stats").norm.ppf(0.975) * np.sqrt(error))
    want = min(low, found.auroc), max(high, found.auroc)
    assert m < 50
    assert bounds(found.intervals["auroc"]) == pytest.approx(want, rel=1e-10)


def test_auroc_of_few_rows_of_clusters():
    """The same half rows are added to the jackknife's variance."""
    stats, metrics = package("scipy.stats"), package("sklearn.metrics")
    table, z, labels, clusters = rows(400, prevalence=0.06)
    used, sizes = np.unique(clusters), (labels.sum(), (1 - labels).sum())
    left = np.array([metrics.roc_auc_score(labels[clusters != one], z[clusters != one]) for one in used])
    value = metrics.roc_auc_score(labels, z)
    center = (value * min(sizes) + 0.25) / (min(sizes) + 0.5)
    variance = (len(used) - 1) / len(used) * ((left - left.mean()) ** 2).sum() + sum(
        (n * (value - center) ** 2 + 0.5 * (0.5 - center) ** 2) / ((n + 0.5) * (n - 0.5)) for n in sizes
    )
    low, high = on_logits(center, stats.t.ppf(0.975, len(used) - 1) * np.sqrt(variance))
    found = batchmax.evaluate(table, cluster="patient").intervals["auroc"]
    assert min(sizes) < 50
    assert bounds(found) == pytest.approx((min(low, value), max(high, value)), abs=0.01 * (high - low))


def test_every_class_has_an_interval_of_its_auroc():
    """Of more than two classes, each is DeLong's for the log-odds against the others; averages are jackknife's."""
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(900, 3)), random.integers(0, 3, 900)
    logits[np.arange(900), labels] += 1.0
    found = batchmax.evaluate(pa.table({"logits": logits.tolist(), "label": labels}))
    for k in range(3):
        others = np.delete(logits, k, axis=1)
        parts = placements(logits[:, k] - np.log(np.exp(others).sum(axis=1)), labels == k)
        error = np.sqrt(sum(one.var(ddof=1) / len(one) for one in parts))
        want = on_logits(parts[0].mean(), 1.959963984540054 * error)
        assert bounds(found.per_class[k]["intervals"]["auroc"]) == pytest.approx(want, rel=1e-9)
    for average in ("macro", "weighted"):
        for name in ("auroc", "average_precision"):
            interval = found.intervals[average][name]
            assert interval["method"] == "jackknife"
            assert interval["lower"] < getattr(found, average)[name] < interval["upper"]


def test_rows_without_a_label_of_several_classes():
    """They don't change the intervals: each label stays with its scores."""
    random = np.random.default_rng(8)
    logits, labels, clusters = random.normal(size=(900, 4)), random.integers(0, 4, 900), np.arange(900) % 50
    logits[np.arange(900), labels] += 1.5
    known = np.arange(900) % 7 != 3
    table = pa.table({"logits": logits.tolist(), "label": pa.array(labels, mask=~known), "patient": clusters})
    found, want = (batchmax.evaluate(one, cluster="patient") for one in (table, table.filter(pa.array(known))))
    for average in ("macro", "weighted"):
        for name in ("auroc", "average_precision"):
            interval = found.intervals[average][name]
            assert bounds(interval) == pytest.approx(bounds(want.intervals[average][name]), rel=1e-9)


def test_jackknife_of_clusters():
    """Standard errors are those of scikit-learn's metrics without each cluster, up to the width of a bin."""
    stats, metrics = package("scipy.stats"), package("sklearn.metrics")
    table, z, labels, clusters = rows(1500)
    found = batchmax.evaluate(table, cluster="patient")
    used = np.unique(clusters)
    for name, metric in ("auroc", metrics.roc_auc_score), ("average_precision", metrics.average_precision_score):
        left = np.array([metric(labels[clusters != one], z[clusters != one]) for one in used])
        error = np.sqrt((len(used) - 1) / len(used) * ((left - left.mean()) ** 2).sum())
        low, high = on_logits(metric(labels, z), stats.t.ppf(0.975, len(used) - 1) * error)
        interval = found.intervals[name]
        assert bounds(interval) == pytest.approx((low, high), abs=0.01 * (high - low)), name
        assert interval["method"] == "jackknife"
        assert found.per_class[1]["intervals"][name] == interval
    left = [metrics.average_precision_score(labels[clusters != one] == 0, -z[clusters != one]) for one in used]
    error = np.sqrt((len(used) - 1) / len(used) * ((left - np.mean(left)) ** 2).sum())
    value = metrics.average_precision_score(labels == 0, -z)
    low, high = on_logits(value, stats.t.ppf(0.975, len(used) - 1) * error)
    interval = found.per_class[0]["intervals"]["average_precision"]
    assert bounds(interval) == pytest.approx((low, high), abs=0.01 * (high - low))


def test_areas_without_groups():
    """The areas from bins equal scikit-learn's of the rows of all other groups, with the bins as scores."""
    metrics, random = package("sklearn.metrics"), np.random.default_rng(4)
    groups = random.integers(0, 4, (6, 2, 9)).astype(float)
    areas = np.empty((6, 5))
    areas_without_groups(groups.sum(axis=0), groups, areas)
    for g in range(6):
        left = groups.sum(axis=0) - groups[g]
        scores, labels = np.tile(np.arange(9), 2), np.repeat([1, 0], 9)
        weights = left.reshape(-1)
        want = (
            metrics.roc_auc_score(labels, scores, sample_weight=weights),
            metrics.average_precision_score(labels, scores, sample_weight=weights),
            metrics.average_precision_score(1 - labels, -scores, sample_weight=weights),
            *left.sum(axis=1),
        )
        assert areas[g] == pytest.approx(want, rel=1e-12)


def test_areas_of_1():
    """Wilson's interval has the number of rows, or clusters, of the smaller class, for average precision of its own."""
    labels = np.arange(400) % 4 // 3
    table = pa.table({"logit": labels * 2.0 - 1.0, "label": labels, "patient": np.arange(400) // 4 % 40})
    for cluster, n in (None, 100.0), ("patient", 40.0):
        low, _ = wilson(np.array([n]), np.array([n]), 0.95)
        found = batchmax.evaluate(table, cluster=cluster)
        for name in ("auroc", "average_precision"):
            assert found.intervals[name] == {"lower": low[0], "upper": 1.0, "method": "wilson"}, name
    one = batchmax.evaluate(pa.table({"logit": [0.0, 1.0, 2.0], "label": [0, 1, 0]}))
    assert one.intervals["auroc"] is None


def test_weights_and_bins():
    """Equal weights change only the method; binned curves have jackknife intervals of their own values."""
    table, *_ = rows(3000)
    plain = batchmax.evaluate(table)
    weighted = batchmax.evaluate(table.append_column("w", pa.array(np.full(3000, 3.0))), sample_weight="w")
    binned = batchmax.evaluate(table, curves="binned")
    for found in weighted, binned:
        assert found.intervals["auroc"]["method"] == "jackknife"
        for name in ("auroc", "average_precision"):
            assert bounds(found.intervals[name]) == pytest.approx(bounds(plain.intervals[name]), abs=0.005)


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_scored_files(kind, tmp_path):
    """Stored probabilities are binned like their log-odds."""
    random = np.random.default_rng(6)
    logits, labels = random.normal(size=(600, 2)), random.integers(0, 2, 600)
    path, scored = str(tmp_path / "in.parquet"), str(tmp_path / "scored.parquet")
    pq.write_table(pa.table({"logits": logits.tolist(), "label": labels}), path)
    assert main(["score", path, "-o", scored, "--outputs", f"{kind},loss", "-q"]) == 0
    want, found = (batchmax.evaluate(one, positive="0").intervals for one in (path, scored))
    for name in ("auroc", "average_precision"):
        assert bounds(found[name]) == pytest.approx(bounds(want[name]), abs=2e-4)


def test_scores_that_bins_cannot_distinguish():
    """Where bins change the average precision, it has no interval, and a note says why; DeLong's needs no bins."""
    table, z, labels, _ = rows(600)
    found = batchmax.evaluate(pa.table({"logit": z + 1e6, "label": labels}))
    assert found.intervals["average_precision"] is None
    assert bounds(found.intervals["auroc"]) == pytest.approx(bounds(batchmax.evaluate(table).intervals["auroc"]))
    assert any("bins of scores don't distinguish them" in note for note in found.notes)


def test_many_curves_have_no_jackknife():
    """If the bins of all curves would take too much memory, each class still has DeLong's interval."""
    random = np.random.default_rng(7)
    labels = np.arange(900) % 300
    logits = random.normal(size=(900, 300)) + 3.0 * np.eye(300)[labels]
    found = batchmax.evaluate(pa.table({"logits": logits.tolist(), "label": labels}), curves="exact")
    assert any("over 300 curves have no intervals" in note for note in found.notes)
    assert found.per_class[5]["intervals"]["auroc"]["lower"] < found.per_class[5]["auroc"]
    assert found.intervals["macro"].get("auroc") is None


def test_the_same_at_any_number_of_threads(write):
    """Threads and row groups don't change a bit of the intervals of areas and groups; bad rows are left out."""
    table, _, _, clusters = rows(3000)
    table = table.append_column("site", pa.array(clusters % 7))
    labels = table["label"].to_pylist()
    labels[5:700:9] = [None] * len(labels[5:700:9])
    table = table.set_column(1, "label", pa.array(labels, pa.int64()))
    results = [
        batchmax.evaluate(write(str(size), table, row_group_size=size), by="site", threads=threads).as_dict()
        for size, threads in ((3000, 1), (3000, 2), (100, 2))
    ]
    for name in ("intervals", "per_class", "slices"):
        assert results[0][name] == results[1][name] == results[2][name]


def test_commands_show_them(write, capsys, tmp_path):
    """Brackets, conditions and the table of metrics have the intervals of areas."""
    path, out = write("in", rows(300)[0]), str(tmp_path / "out.parquet")
    assert main(["evaluate", path, "-o", out, "--by", "label,patient"]) == 0
    shown = capsys.readouterr().out
    assert main(["evaluate", path, "--json", "--by", "label"]) == 0
    found = json.loads(capsys.readouterr().out)
    low, high = bounds(found["intervals"]["auroc"])
    assert f"[{low:.4g}, {high:.4g}]" in next(line for line in shown.splitlines() if line.startswith("AUROC"))
    values = {(row["scope"], row["name"], row["figure"]): row["value"] for row in pq.read_table(out).to_pylist()}
    assert values["all", None, "auroc.lower"] == low
    assert (
        values["all", None, "macro_average_precision.upper"]
        == (found["intervals"]["macro"]["average_precision"]["upper"])
    )
    assert values["class", "1", "auroc.upper"] == high
    by_label = {one["value"]: one["intervals"] for one in found["slices"]["label"]}
    assert values["label", "0", "accuracy.lower"] == by_label[0]["accuracy"]["lower"]
    condition = f"auroc.lower < {low - 1e-9} or average_precision.upper > 1 or macro.auroc.lower < {low - 1e-9}"
    assert main(["evaluate", path, "-q", "--fail-if", condition]) == 0
    assert main(["evaluate", path, "-q", "--fail-if", f"auroc.lower < {low + 1e-9}"]) == 4
    capsys.readouterr()
    assert main(["evaluate", path, "-q", "--curves", "none", "--fail-if", "auroc.lower < 0.1"]) == 4
    assert "no curves are computed" in capsys.readouterr().err


@pytest.mark.parametrize("cluster", [None, "patient"])
def test_groups_have_the_intervals_of_their_rows(cluster):
    """Of clusters, those of the rows alone; of independent rows, Wilson's, and those of other groups of rows."""
    table, _, _, clusters = rows(2000)
    site = pa.array([None if one % 5 == 0 else f"s{one % 5}" for one in clusters.tolist()])
    table = table.append_column("site", site)
    found = {one["value"]: one for one in batchmax.evaluate(table, by="site", cluster=cluster).slices["site"]}
    for value, one in found.items():
        alone = batchmax.evaluate(table.filter([other == value for other in site.to_pylist()]), cluster=cluster)
        for name in group_intervals.NAMES:
            interval, want = one["intervals"][name], alone.intervals[name]
            exact = cluster is not None or name == "accuracy"
            tolerance = 1e-9 if exact else 0.2 * (want["upper"] - want["lower"])
            assert bounds(interval) == pytest.approx(bounds(want), abs=tolerance), (value, name)
            assert interval["method"] == want["method"]


def test_groups_with_few_clusters_or_many_groups_have_no_intervals():
    """A group of fewer than 10 clusters has none; nor have groups of a column with more than 256, with a note."""
    table, _, _, clusters = rows(1000)
    table = table.append_column("site", pa.array(clusters < 8)).append_column("row", pa.array(np.arange(1000)))
    found = batchmax.evaluate(table, by=["site", "row"], cluster="patient")
    intervals = {one["value"]: one["intervals"] for one in found.slices["site"]}
    assert intervals[True] == dict.fromkeys(group_intervals.NAMES)
    assert intervals[False]["brier"]["lower"] > 0
    assert "intervals" not in found.slices["row"][0]
    assert any("'row' have no intervals: more than 256 groups" in note for note in found.notes)

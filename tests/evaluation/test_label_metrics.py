"""Metrics of the predicted labels of multi-label rows, and of their curves, equal those of scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import GateError, UsageError
from tests.support.requirements import optional

metrics = optional("sklearn.metrics")
SCORES = {
    "precision": "precision_score",
    "recall": "recall_score",
    "f1": "f1_score",
    "jaccard": "jaccard_score",
}
AVERAGES = ("macro", "micro", "weighted", "samples")


def near(value):
    """Return a number to compare with to 1e-12; None for NaN."""
    return None if math.isnan(value) else pytest.approx(float(value), rel=1e-12, abs=1e-12)


def case(n, k, seed=0, *, ties=None, missing=False, dtype=np.float32):
    """Return logits, targets and weights; with ``missing``, a third of the targets are NaN."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(n, k)) * 2 - 1
    y = (random.random((n, k)) < 1 / (1 + np.exp(-z))).astype(float)
    if missing:
        y[random.random((n, k)) < 1 / 3] = np.nan
    return (z if ties is None else z.round(ties)).astype(dtype), y, random.integers(0, 4, n) / 3


def table(z, y, weights=None):
    """Return a table of the rows; NaN is null."""
    n, k = z.shape
    values = pa.array(np.ravel(y) == 1, mask=np.isnan(y).ravel())
    logits = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), k)
    columns = {"logits": logits, "labels": pa.FixedSizeListArray.from_arrays(values, k)}
    return pa.table(columns | {"w": np.ones(n) if weights is None else weights})


def ranked(z):
    """Return finite float64 numbers in the order of the logits."""
    return np.where(np.isinf(z), np.copysign(1e30, z), z).astype(np.float64)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("n", "k", "ties"),
    [(1, 2, None), (2, 2, None), (2, 3, 0), (50, 3, 0), (100_000, 3, None), (2000, 100, 1)],
)
def test_metrics_are_those_of_scikit_learn(n, k, ties, weighted):
    """All metrics equal scikit-learn's to 1e-12, with ties, infinite logits, missing classes and empty rows."""
    z, y, weights = case(n, k, seed=n + k, ties=ties)
    if n >= 50:
        z[:3, 0], z[3:6, 0], z[6:9] = np.inf, -np.inf, [[-0.0] * k, [5] * k, [-5] * k]
        y[:3, 0], y[3:6, 0], y[9:11], y[11] = 1, 0, 0, 1
        y[:, -1], z[:, -1] = (0, z[:, -1]) if k == 3 else (y[:, -1], z[:, -1])
    weights = weights if weighted else np.ones(n)
    if not weights.any():
        weights[:] = 1
    found = batchmax.evaluate(table(z, y, weights), sample_weight="w")
    pred, given, of_rows = z > 0, {"sample_weight": weights}, ranked(z)
    assert (found.task, found.accuracy, found.kappa, found.confusion) == ("multilabel", None, None, None)
    assert found.subset_accuracy == near(metrics.accuracy_score(y, pred, **given))
    assert found.hamming_loss == near(metrics.hamming_loss(y, pred, **given))
    lrap = metrics.label_ranking_average_precision_score(y, of_rows, **given)
    # scikit-learn adds up rows one after the other.
    assert found.label_ranking_average_precision == pytest.approx(lrap, rel=1e-11)
    undefined = {(one["metric"], one["class"]) for one in found.undefined}
    for name, score in SCORES.items():
        score_of = getattr(metrics, score)
        for average in AVERAGES:
            value, want = getattr(found, average)[name], score_of(y, pred, average=average, **given, zero_division=0)
            if value is None:
                assert (want, (f"{average}.{name}", None) in undefined) == (0, True)
            else:
                assert value == near(want), (average, name)
        each = score_of(y, pred, average=None, zero_division=np.nan if name != "jaccard" else 0, **given)
        for one, want in zip(found.per_class, each, strict=True):
            is_empty = name == "jaccard" and not one["support"] + one["predicted"]
            assert one[name] == near(np.nan if is_empty else want), (name, one["class"])
            assert ((name, one["class"]) in undefined) == (one[name] is None)
    total = weights.sum()
    for at, one in enumerate(found.per_class):
        is_label = y[:, at] == 1
        assert one["support"] == near(weights[is_label].sum())
        assert one["predicted"] == near(weights[pred[:, at]].sum())
        assert one["n_rows"] == near(total)
        assert one["prevalence"] == near(weights[is_label].sum() / total)
        negatives = weights[~is_label].sum()
        want = weights[~is_label & ~pred[:, at]].sum() / negatives if negatives else math.nan
        assert one["specificity"] == near(want)
    check_areas(found, of_rows, y, weights)


def check_areas(found, z, y, weights):
    """Check the areas of classes and their averages."""
    for name, score in (("auroc", metrics.roc_auc_score), ("average_precision", metrics.average_precision_score)):
        values, supports = [], []
        for at, one in enumerate(found.per_class):
            there = ~np.isnan(y[:, at]) & (weights > 0)
            labels = y[there, at]
            is_defined = labels.any() and (name != "auroc" or not labels.all())
            want = score(labels, z[there, at], sample_weight=weights[there]) if is_defined else math.nan
            assert one[name] == near(want), (name, at)
            values.append(want)
            supports.append((weights[there] * labels).sum())
        defined = ~np.isnan(values)
        values, supports = np.array(values)[defined], np.array(supports)[defined]
        assert found.macro[name] == (near(values.mean()) if len(values) else None)
        assert found.weighted[name] == (near(np.average(values, weights=supports)) if supports.sum() else None)
        there = ~np.isnan(y) & (weights > 0)[:, None]
        labels, shares = y[there], np.broadcast_to(weights[:, None], y.shape)[there]
        if labels.any() and not labels.all():
            assert found.micro[name] == near(score(labels, z[there], sample_weight=shares))
        of_rows = []
        for at in range(min(len(y), 300)) if len(y) <= 2000 else ():
            one = ~np.isnan(y[at])
            is_defined = y[at][one].any() and (name != "auroc" or not y[at][one].all())
            of_rows.append(score(y[at][one], z[at][one]) if is_defined else math.nan)
        if len(of_rows) == len(y):
            known = ~np.isnan(of_rows)
            total = weights[known].sum()
            want = (np.array(of_rows)[known] * weights[known]).sum() / total if total else math.nan
            assert found.samples[name] == near(want)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("k", [2, 3, 40])
def test_only_known_entries_count(k):
    """A class without a label in a row counts nowhere: metrics of classes and rows are those of the known entries."""
    z, y, weights = case(300, k, ties=1, missing=True)
    y[7] = np.nan
    found = batchmax.evaluate(table(z, y, weights), sample_weight="w")
    there, pred = ~np.isnan(y), (z > 0).astype(float)
    used = there.any(axis=1)
    assert found.status_counts["unlabelled"] == np.count_nonzero(~used)
    shares = np.broadcast_to(weights[:, None], y.shape)[there]
    wrong = (pred != y) & there
    assert found.hamming_loss == near((shares * wrong[there]).sum() / shares.sum())
    exact = np.average(~wrong.any(axis=1)[used], weights=weights[used])
    assert found.subset_accuracy == near(exact)
    of_rows = {name: [] for name in (*SCORES, "ranking")}
    for row in np.flatnonzero(used):
        one = there[row]
        for name, score in SCORES.items():
            of_rows[name].append(getattr(metrics, score)(y[row][one], pred[row][one], zero_division=0))
        ranking = metrics.label_ranking_average_precision_score
        is_single = np.count_nonzero(one) == 1
        of_rows["ranking"].append(1.0 if is_single else ranking(y[row][one][None], z[row][one][None]))
    for name, score in SCORES.items():
        assert found.samples[name] == near(np.average(of_rows[name], weights=weights[used])), name
        for at, one in enumerate(found.per_class):
            known = there[:, at]
            given = {"sample_weight": weights[known], "zero_division": np.nan if name != "jaccard" else 0}
            assert one[name] == near(getattr(metrics, score)(y[known, at], pred[known, at], **given))
        given = {"sample_weight": shares, "zero_division": 0}
        assert found.micro[name] == near(getattr(metrics, score)(y[there], pred[there], **given))
    want = np.average(of_rows["ranking"], weights=weights[used])
    assert found.label_ranking_average_precision == near(want)
    losses = np.where(y == 1, np.logaddexp(0, -z.astype(float)), np.logaddexp(0, z.astype(float)))
    assert found.mean_label_loss == near((shares * losses[there]).sum() / shares.sum())
    for at, one in enumerate(found.per_class):
        known = there[:, at]
        assert one["n_rows"] == near(weights[known].sum())
        assert one["mean_loss"] == near(np.average(losses[known, at], weights=weights[known]))
    check_areas(found, ranked(z), y, np.where(used, weights, 0))


def test_no_rows():
    """Without rows, no metric has a value, and the result is valid JSON."""
    z, y, _ = case(2, 3)
    found = batchmax.evaluate(table(z, y).slice(0, 0))
    assert (found.subset_accuracy, found.hamming_loss, found.label_ranking_average_precision) == (None,) * 3
    assert all(value is None for average in AVERAGES for value in getattr(found, average).values())
    assert [one["support"] for one in found.per_class] == [0] * 3
    json.loads(found.to_json(), parse_constant=pytest.fail)


def test_rows_of_one_logit_have_one_label():
    """A list of labels for one logit is refused; a label that isn't a list makes the task binary."""
    with pytest.raises(UsageError, match="rows of one logit have one"):
        batchmax.evaluate(pa.table({"logits": [[1.0], [-1.0]], "labels": [[True], [False]]}))
    assert batchmax.evaluate(pa.table({"logits": [[1.0], [-1.0]], "label": [True, False]})).task == "binary"


def test_losses_that_are_infinite():
    """An infinite loss of a class leaves the mean losses undefined, but no other metric and no other class."""
    found = batchmax.evaluate(table(np.array([[np.inf, 1.0], [2.0, -1.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])))
    assert (found.mean_loss, found.mean_label_loss, found.per_class[0]["mean_loss"]) == (None, None, None)
    assert found.per_class[1]["mean_loss"] == near((np.logaddexp(0, -1) + np.logaddexp(0, 1)) / 2)
    assert found.hamming_loss == 0.5
    assert any("another class has logit inf" in one for one in found.warnings)


def test_warnings_about_labels():
    """One label in every row is a warning; targets between 0 and 1 are one, and have no metrics of predictions."""
    z, _, _ = case(50, 3)
    found = batchmax.evaluate(table(z, np.eye(3)[np.arange(50) % 3]))
    assert any("every row has exactly one label" in one for one in found.warnings)
    soft = pa.table({"logits": list(z), "label": [[0.5, 0.0, 1.0]] * 50})
    found = batchmax.evaluate(soft, activation="sigmoid")
    assert any("neither 0 nor 1" in one for one in found.warnings)
    assert (found.subset_accuracy, found.macro, found.per_class, found.undefined) == (None, {}, [], [])
    assert found.mean_label_loss == near(found.mean_loss / 3)
    assert found.intervals["mean_label_loss"]["lower"] < found.mean_label_loss
    hard = pa.table({"logits": list(z), "label": [[0.0, 0.0, 1.0]] * 50})
    assert batchmax.evaluate(hard, activation="sigmoid").per_class[2]["support"] == 50


@pytest.mark.parametrize("k", [3, 40])
def test_results_do_not_depend_on_threads(k, tmp_path):
    """Any number of threads and any row groups give the same bits."""
    z, y, weights = case(3000, k, missing=True)
    results = []
    for size, threads in ((3000, 1), (100, 2)):
        path = tmp_path / f"{size}.parquet"
        pq.write_table(table(z, y, weights * math.pi), path, row_group_size=size)
        found = batchmax.evaluate(str(path), sample_weight="w", threads=threads, by="w").as_dict()
        results.append({name: found[name] for name in found if name not in {"files", "bytes_read", "seconds"}})
    assert results[0] == results[1]


@pytest.mark.parametrize("weighted", [False, True])
def test_bounds_contain_the_exact_areas(weighted):
    """Binned curves have bounds of all averages that contain the exact values."""
    z, y, weights = case(5000, 5, missing=True)
    given = {"sample_weight": "w"} if weighted else {}
    exact, binned = (batchmax.evaluate(table(z, y, weights), curves=one, **given) for one in ("exact", "binned"))
    for average in ("macro", "micro", "weighted"):
        for name in ("auroc", "average_precision"):
            bounds = binned.bounds[f"{average}.{name}"]
            assert bounds["lower"] <= getattr(exact, average)[name] <= bounds["upper"]
            assert bounds["upper"] - bounds["lower"] < 0.005
    assert exact.samples == binned.samples
    assert "auroc" not in batchmax.evaluate(table(z, y), curves="none").samples


def test_points_of_curves(tmp_path):
    """Each class has points with exact counts, over the rows with a label of it; logits include the temperature."""
    z, y, _ = case(400, 3, missing=True)
    out = tmp_path / "points.parquet"
    batchmax.evaluate(table(z, y), curves_out=str(out), temperature=2.0)
    for row in pq.read_table(out).to_pylist():
        at = int(row["class"])
        known = ~np.isnan(y[:, at])
        positive = known & (row["logit"] is not None) & (z[:, at] / 2.0 >= (row["logit"] or 0.0))
        assert row["tp"] == (positive & (y[:, at] == 1)).sum()
        assert row["fp"] == (positive & (y[:, at] == 0)).sum()
        assert row["tp"] + row["fp"] + row["tn"] + row["fn"] == known.sum()


def test_groups_have_the_metrics_of_their_rows(tmp_path):
    """Each group has the metrics that an evaluation of its rows alone gives; the table has them too."""
    z, y, weights = case(900, 4, missing=True)
    some = table(z, y, weights).append_column("g", pa.array(np.arange(900) % 3))
    found = batchmax.evaluate(some, by="g", sample_weight="w")
    for one in found.slices["g"]:
        rows = np.arange(900) % 3 == one["value"]
        alone = batchmax.evaluate(some.filter(pa.array(rows)), sample_weight="w")
        assert one["n_rows"] == 300
        values = {name: getattr(alone, name) for name in one if name in vars(alone) and name != "n_rows"}
        values |= {"micro_f1": alone.micro["f1"], "samples_f1": alone.samples["f1"]}
        assert {"subset_accuracy", "hamming_loss", "ece"} <= set(values)
        for name, value in values.items():
            assert one[name] == near(value), name
    out = tmp_path / "groups.parquet"
    batchmax.evaluate(some, by="g", sample_weight="w", out=str(out))
    assert pq.read_table(out).sort_by("g").to_pylist()[1]["micro_f1"] == found.slices["g"][1]["micro_f1"]


def test_tables_and_conditions(tmp_path, capsys):
    """The printed table and the file have the metrics; conditions can name them and the bounds of their intervals."""
    z, y, _ = case(400, 3)
    path, out = str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet")
    pq.write_table(table(z, y), path)
    assert main(["evaluate", path, "-o", out]) == 0
    shown, found = capsys.readouterr().out, batchmax.evaluate(path)
    assert f"{found.subset_accuracy:.6g}  [" in shown
    assert f"{found.label_ranking_average_precision:.6g}  [" in shown
    assert "accuracy   –" not in shown
    values = {(row["scope"], row["name"], row["figure"]): row["value"] for row in pq.read_table(out).to_pylist()}
    assert values["all", None, "hamming_loss"] == found.hamming_loss
    assert values["all", None, "samples_f1.lower"] == found.intervals["samples"]["f1"]["lower"]
    assert values["class", "1", "prevalence"] == found.per_class[1]["prevalence"]
    for condition in ("hamming_loss > 0.9 or micro.auroc < 0.1", "samples.f1.lower < 0 or macro.average_precision < 0"):
        assert main(["evaluate", path, "-q", "--fail-if", condition]) == 0
    with pytest.raises(GateError, match=r"accuracy has no value .the rows are multi-label"):
        batchmax.evaluate(path, fail_if="accuracy < 0.5")
    with pytest.raises(GateError, match=r"samples.f1 has no value .the rows are not multi-label"):
        batchmax.evaluate("data/digits.parquet", fail_if="samples.f1 < 0.5")

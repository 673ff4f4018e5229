"""Tests ``compare`` of multi-label rows against ``evaluate``, scikit-learn, SciPy and a brute-force jackknife."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError, GateError, UsageError
from batchmax.evaluation.comparison import label_change_sums
from batchmax.evaluation.comparison.label_change_sums import LABEL_CHANGED, OF_CLASS_CHANGED
from batchmax.kernels.class_divergence import class_divergence_rows
from tests.support.requirements import optional, package

metrics = package("sklearn.metrics")
stats = optional("scipy.stats")
special = package("scipy.special")

N_CLUSTERS = 40
INF, NAN = np.inf, np.nan


def models(n=500, k=3, seed=0, dtype=np.float64):
    """Return logits of two models, and labels, clusters and groups of n rows."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, N_CLUSTERS, n)
    z = 2 * rng.normal(size=(n, k)) - 0.5 + 0.5 * rng.normal(size=(N_CLUSTERS, k))[clusters]
    y = (rng.random((n, k)) < special.expit(z)).astype(float)
    b = z + 0.9 * rng.normal(size=(n, k))
    return z.astype(dtype), b.astype(dtype), y, clusters, np.array(["north", "south"])[rng.integers(0, 2, n)]


def table(z, y, clusters=None, groups=None, rows=slice(None)):
    """Return a table of some of the rows; NaN is a missing label."""
    n, k = z.shape
    labels = pa.array(np.ravel(y[rows]) == 1, mask=np.isnan(y[rows]).ravel())
    of_rows = pa.ListArray.from_arrays(np.arange(len(y[rows]) + 1, dtype=np.int32) * k, labels)
    columns = {"id": np.arange(n)[rows], "logits": list(z[rows]), "labels": of_rows}
    if clusters is not None:
        columns |= {"patient": clusters[rows], "hospital": groups[rows]}
    return pa.table(columns)


@pytest.mark.parametrize(
    ("n", "k", "dtype", "case"),
    [
        (700, 3, np.float64, "plain"),
        (400, 4, np.float32, "missing"),
        (400, 3, np.float64, "ties"),
        (400, 3, np.float64, "infinite"),
        (12, 2, np.float32, "plain"),
        (1, 3, np.float64, "plain"),
        (60, 101, np.float32, "plain"),
    ],
)
def test_changes_are_differences_of_two_evaluations(n, k, dtype, case):
    """The metrics of a and b have the bits of ``evaluate``, and the change is their difference."""
    a, b, y, *_ = models(n, k, dtype=dtype)
    if case == "missing":
        y[np.random.default_rng(3).random(y.shape) < 0.3] = NAN
    if case == "ties":
        a, b = a.round(), b.round()
    if case == "infinite":
        a[:5, 0], b[5:9, 1], y[:5, 0], y[5:9, 1] = INF, -INF, 1, 0
    tables = table(a, y), table(b, y)
    found = batchmax.compare(*tables)
    evaluations = [batchmax.evaluate(rows) for rows in tables]
    assert (found.task, found.accuracy_a, found.mcnemar_p) == ("multilabel", None, None)
    n_names = 0
    for name in LABEL_CHANGED:
        change, (first, _, rest) = found.change(name), name.partition(".")
        of_each = [getattr(one, first) for one in evaluations]
        if k > 100 and rest in {"auroc", "average_precision"}:
            assert change is None
            continue
        check(change, *([one[rest] for one in of_each] if rest else of_each))
        n_names += 1
    assert n_names == (31 if k <= 100 else 23)
    assert set(found.changes) == {name.partition(".")[0] for name in LABEL_CHANGED} | {"per_class"}
    for at, change in enumerate(found.changes["per_class"]):
        of_each = [one.per_class[at] for one in evaluations]
        assert change["class"] == of_each[0]["class"]
        for name in (*OF_CLASS_CHANGED, "mean_loss", *(("auroc", "average_precision") if k <= 100 else ())):
            check(change[name], *(one[name] for one in of_each))
    assert len(found.changes["per_class"]) == k


def check(change, a, b):
    """Check the metrics of a change, and their difference."""
    assert (change["a"], change["b"]) == (a, b)
    difference = None if a is None or b is None else b - a
    assert change["change"] == (difference if difference is None else pytest.approx(difference, abs=1e-14, rel=1e-12))


METRICS = {
    "mean_label_loss": lambda y, z: -special.log_expit(np.where(y > 0, z, -z)).mean(),
    "brier": lambda y, z: ((special.expit(z) - y) ** 2).mean(),
    "hamming_loss": lambda y, z: metrics.hamming_loss(y, z > 0),
    "label_ranking_average_precision": metrics.label_ranking_average_precision_score,
    "macro.f1": lambda y, z: metrics.f1_score(y, z > 0, average="macro"),
    "micro.jaccard": lambda y, z: metrics.jaccard_score(y, z > 0, average="micro"),
    "weighted.precision": lambda y, z: metrics.precision_score(y, z > 0, average="weighted", zero_division=0),
    "samples.recall": lambda y, z: metrics.recall_score(y, z > 0, average="samples", zero_division=0),
    "macro.auroc": lambda y, z: metrics.roc_auc_score(y, z, average="macro"),
    "micro.auroc": lambda y, z: metrics.roc_auc_score(y, z, average="micro"),
    "weighted.average_precision": lambda y, z: metrics.average_precision_score(y, z, average="weighted"),
    "class.1.f1": lambda y, z: metrics.f1_score(y[:, 1], z[:, 1] > 0),
    "class.2.precision": lambda y, z: metrics.precision_score(y[:, 2], z[:, 2] > 0),
    "class.0.mean_loss": lambda y, z: -special.log_expit(np.where(y > 0, z, -z))[:, 0].mean(),
    "class.0.auroc": lambda y, z: metrics.roc_auc_score(y[:, 0], z[:, 0]),
}
OF_CLUSTERS = METRICS | {
    "mean_loss": lambda y, z: -special.log_expit(np.where(y > 0, z, -z)).sum(axis=1).mean(),
    "subset_accuracy": lambda y, z: metrics.accuracy_score(y, z > 0),
    "class.1.recall": lambda y, z: metrics.recall_score(y[:, 1], z[:, 1] > 0),
    "class.1.specificity": lambda y, z: metrics.recall_score(1 - y[:, 1], z[:, 1] <= 0),
}


def change_of(changes, name):
    """Return the change of a metric, such as ``class.1.f1``."""
    first, _, rest = name.partition(".")
    if first == "class":
        at, _, metric = rest.partition(".")
        return changes["per_class"][int(at)][metric]
    return changes[first][rest] if rest else changes[first]


def brute_force(a, b, y, clusters, metric):
    """Return the standard error, bounds and p-value of a change, with the metric without each cluster."""
    without = [clusters != one for one in np.unique(clusters)]
    left = np.array([metric(y[rows], b[rows]) - metric(y[rows], a[rows]) for rows in without])
    g = len(left)
    squares = (left - left.mean()) ** 2
    error = np.sqrt((g - 1) / g * squares.sum())
    degrees = min(g - 1, 2 / ((squares**2).sum() / squares.sum() ** 2 - 1 / g))
    change = metric(y, b) - metric(y, a)
    half = stats.t.ppf(0.975, degrees) * error
    return error, change - half, change + half, 2 * stats.t.sf(abs(change) / error, degrees)


@pytest.mark.parametrize("of", ["clusters", "rows"])
def test_intervals_equal_a_brute_force_jackknife(of):
    """Intervals are those of both metrics without each cluster, or each of few rows; areas as far as bins allow."""
    a, b, y, clusters, groups = models(400 if of == "clusters" else 90)
    given = (y, clusters, groups)
    found = batchmax.compare(table(a, *given), table(b, *given), cluster="patient" if of == "clusters" else None)
    assert found.n_clusters == (N_CLUSTERS if of == "clusters" else None)
    units = clusters if of == "clusters" else np.arange(len(y))
    for name, metric in (OF_CLUSTERS if of == "clusters" else METRICS).items():
        change = change_of(found.changes, name)
        is_area = name.endswith(("auroc", "average_precision"))
        near = {"rel": 0.02, "abs": 5e-4} if is_area else {"rel": 1e-7}
        values = change["mde"] / 2.8, change["lower"], change["upper"], change["p_value"]
        assert values == pytest.approx(brute_force(a, b, y, units, metric), **near), name


def test_missing_labels_count_in_no_area():
    """Areas and their intervals are those of the entries that have a label."""
    a, b, y, clusters, groups = models(400)
    y[np.random.default_rng(4).random(y.shape) < 0.4] = NAN
    found = batchmax.compare(*(table(z, y, clusters, groups) for z in (a, b)), cluster="patient")
    for name, of in (("class.0.auroc", np.s_[:, 0]), ("micro.auroc", np.s_[:])):

        def metric(labels, z, of=of):
            known = ~np.isnan(labels[of])
            return metrics.roc_auc_score(labels[of][known], z[of][known])

        change = change_of(found.changes, name)
        values = change["mde"] / 2.8, change["lower"], change["upper"], change["p_value"]
        assert values == pytest.approx(brute_force(a, b, y, clusters, metric), rel=0.05, abs=5e-4), name


def test_independent_pairs_have_a_t_test_of_losses_and_flips():
    """Mean loss is SciPy's paired t-test; subset accuracy, recall and specificity have Bonett and Price's interval."""
    a, b, y, *_ = models(700)
    found = batchmax.compare(table(a, y), table(b, y))
    losses = [-special.log_expit(np.where(y > 0, z, -z)).sum(axis=1) for z in (a, b)]
    test = stats.ttest_rel(losses[1], losses[0])
    interval, change = test.confidence_interval(0.95), found.changes["mean_loss"]
    assert (change["lower"], change["upper"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert change["p_value"] == pytest.approx(test.pvalue, rel=1e-7)
    assert (found.mean_loss_change_low, found.mean_loss_change) == (change["lower"], change["change"])
    right = [(z > 0) == (y > 0) for z in (a, b)]
    of_class = found.changes["per_class"][2]
    for change, rows, of_a, of_b in (
        (found.changes["subset_accuracy"], np.ones(len(y), bool), *(one.all(axis=1) for one in right)),
        (of_class["recall"], y[:, 2] > 0, *(one[:, 2] for one in right)),
        (of_class["specificity"], y[:, 2] == 0, *(one[:, 2] for one in right)),
    ):
        n, up, down = rows.sum(), (of_b & ~of_a & rows).sum(), (of_a & ~of_b & rows).sum()
        p_up, p_down = (up + 1) / (n + 2), (down + 1) / (n + 2)
        half = stats.norm.ppf(0.975) * np.sqrt((p_up + p_down - (p_up - p_down) ** 2) / (n + 2))
        assert change["change"] == pytest.approx((up - down) / n)
        assert (change["lower"], change["upper"]) == pytest.approx((p_up - p_down - half, p_up - p_down + half))
        assert change["p_value"] == pytest.approx(stats.binomtest(int(up), int(up + down)).pvalue)
    values = [one["f1"]["p_value"] for one in found.changes["per_class"]]
    by_holm = [
        max(min(1.0, (3 - sorted(values).index(one)) * one) for one in values if one <= value) for value in values
    ]
    assert [one["f1"]["p_adjusted"] for one in found.changes["per_class"]] == pytest.approx(by_holm)


@pytest.mark.parametrize("given", [{}, {"cluster": "patient", "by": "hospital"}])
def test_equal_inputs_have_no_change(given):
    """Every change is 0 with a p-value of 1, also of areas that are 0 or 1, and nothing fails."""
    a, _, *rest = models(300)
    rest[0][:, 1] = a[:, 1] > 0
    rows = table(a, *rest)
    found = batchmax.compare(rows, rows, **given)
    assert (found.agreement, found.mean_kl, found.moved) == (1.0, 0.0, [])
    changes = [change_of(found.changes, name) for name in (*LABEL_CHANGED, "class.1.auroc", "class.0.mean_loss")]
    for group in found.groups:
        changes += [change_of(group["changes"], name) for name in LABEL_CHANGED]
    assert {(one["change"], one["p_value"], one["mde"]) for one in changes} == {(0.0, 1.0, None)}


def test_groups_are_those_of_a_comparison_of_their_rows():
    """Changes by group equal those of the group's rows alone; p-values are adjusted over the groups."""
    a, b, *rest = models(600)
    found = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital", cluster="patient")
    assert [group["n_rows"] for group in found.groups] == sorted(np.unique(rest[2], return_counts=True)[1])[::-1]
    for group in found.groups:
        rows = np.flatnonzero(rest[2] == group["by"])
        alone = batchmax.compare(table(a, *rest, rows), table(b, *rest, rows), cluster="patient")
        assert (group["n_rows"], group["n_clusters"]) == (len(rows), alone.n_clusters)
        for name in LABEL_CHANGED:
            one, other = change_of(group["changes"], name), change_of(alone.changes, name)
            assert [one[key] for key in ("a", "b")] == [other[key] for key in ("a", "b")], name
            # Areas of groups have fewer bins of scores.
            near = {"rel": 0.05} if name.endswith(("auroc", "average_precision")) else {"rel": 1e-9}
            assert one["mde"] == pytest.approx(other["mde"], **near), name
    values = [group["changes"]["hamming_loss"]["p_value"] for group in found.groups]
    adjusted = [group["changes"]["hamming_loss"]["p_adjusted"] for group in found.groups]
    assert adjusted == [max(2 * min(values), value) if value > min(values) else 2 * value for value in values]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("order", ["same", "reversed"])
def test_pairs_by_key(order):
    """Pairs by key have the changes of pairs by position, in any order of the rows of b."""
    a, b, *rest = models(300)
    rows = np.arange(299, -1, -1) if order == "reversed" else np.arange(300)
    pq.write_table(table(a, *rest), "a.parquet")
    pq.write_table(table(b, *rest, rows), "b.parquet")
    wanted = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital", cluster="patient")
    found = batchmax.compare("a.parquet", "b.parquet", key="id", by="hospital", cluster="patient")
    assert (found.changes, found.groups, found.agreement) == (wanted.changes, wanted.groups, wanted.agreement)


def test_bad_rows_and_no_rows():
    """Changes are over the pairs without a bad row; without pairs, nothing is defined, and nothing fails."""
    a, b, *rest = models(200)
    kept = np.arange(200) != 4
    wanted = batchmax.compare(*(table(z[kept], *(one[kept] for one in rest)) for z in (a, b)), by="hospital")
    b[4, 1] = NAN
    found = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital", on_bad_row="null")
    assert (found.bad_rows, found.mean_kl, found.agreement) == (1, wanted.mean_kl, wanted.agreement)
    for name in LABEL_CHANGED:
        assert [found.change(name)[of] for of in "ab"] == [wanted.change(name)[of] for of in "ab"]
    none = table(a, *rest).slice(0, 0)
    found = batchmax.compare(none, none, by="hospital", n_classes=3)
    assert {value for name in LABEL_CHANGED for value in found.change(name).values()} == {None}


def test_results_do_not_depend_on_threads_or_chunks():
    """Changes have the same bits with one thread, and with other batches."""
    a, b, *rest = models(2000)
    whole = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital")
    batches = (pa.Table.from_batches(table(z, *rest).to_batches(max_chunksize=97)) for z in (a, b))
    cut = batchmax.compare(*batches, by="hospital", threads=1)
    assert (whole.changes, whole.groups, whole.mean_kl) == (cut.changes, cut.groups, cut.mean_kl)


def test_labels_of_one_input_serve_both():
    """If only one input has labels, or only those of one are used, changes are the same; also in files."""
    a, b, y, *_ = models(200)
    tables = table(a, y), table(b, y)
    wanted = batchmax.compare(*tables).changes
    for without in (0, 1):
        pair = [rows.drop_columns("labels") if at == without else rows for at, rows in enumerate(tables)]
        assert batchmax.compare(*pair).changes == wanted
        for name, rows in zip("ab", pair, strict=True):
            pq.write_table(rows, f"{name}.parquet")
        assert batchmax.compare("a.parquet", "b.parquet").changes == wanted
        single = [rows.to_reader() if at == without else rows for at, rows in enumerate(pair)]
        with pytest.raises(UsageError, match=r"a stream can be opened only once; choose the activation: --activation"):
            batchmax.compare(*single)
        single = [rows.to_reader() if at == without else rows for at, rows in enumerate(pair)]
        assert batchmax.compare(*single, activation="sigmoid").changes == wanted
        other = table(b, 1 - y) if without else tables[1]
        first = tables[0] if without else table(a, 1 - y)
        assert batchmax.compare(first, other, labels_from="ba"[without]).changes == wanted


def test_different_labels_are_refused():
    """Labels must be equal; a missing label equals a missing one, and no other."""
    a, b, y, *_ = models(50)
    y[3, 1] = y[7] = NAN
    assert batchmax.compare(table(a, y), table(b, y)).n_judged == batchmax.evaluate(table(a, y)).n_rows - 1
    other = y.copy()
    other[3, 1], other[9, 0] = 1, NAN
    with pytest.raises(DataError, match=r"2 of 49 rows have a different label in .*, first in row 3"):
        batchmax.compare(table(a, y), table(b, other))


def test_other_kinds_of_labels():
    """Classes as labels with sigmoid are those of one-hot rows; targets between 0 and 1 have losses alone."""
    a, b, y, *_ = models(200)
    labels = y.argmax(axis=1)
    classes = [pa.table({"logits": list(z), "label": labels}) for z in (a, b)]
    found = batchmax.compare(*classes, activation="sigmoid")
    one_hot = batchmax.compare(*(table(z, np.eye(3)[labels]) for z in (a, b)))
    assert found.changes == one_hot.changes
    assert (found.warnings, len(one_hot.warnings)) == ([], 1)
    assert "every row has exactly one label" in one_hot.warnings[0]
    assert found.moved[0]["label"] == [labels[found.moved[0]["row"]]]
    soft = [pa.table({"logits": list(z), "label": list(0.8 * y + 0.1)}) for z in (a, b)]
    found = batchmax.compare(*soft, activation="sigmoid")
    assert list(found.changes) == ["mean_loss", "mean_label_loss", "brier", "ece"]
    assert found.warnings == ["some targets are neither 0 nor 1, so there are no metrics of predicted labels"]
    for name, change in found.changes.items():
        check(change, *(getattr(batchmax.evaluate(rows, activation="sigmoid"), name) for rows in soft))
    unlabelled = [rows.drop_columns("label") for rows in classes]
    found = batchmax.compare(*unlabelled, activation="sigmoid")
    assert (found.changes, found.moved_by, found.moved[0]["label"]) == ({}, "kl", None)
    for pair, why in (
        ((classes[0], table(b, y)), "the rows of the stream are multi-label, and those of the stream aren't"),
        ((classes[0], table(b, y), "sigmoid"), "labels are sets of classes in the stream and classes in the stream"),
    ):
        with pytest.raises(UsageError, match=why):
            batchmax.compare(*pair[:2], activation=pair[2] if len(pair) > 2 else None)
    with pytest.raises(UsageError, match="--positive"):
        batchmax.compare(table(a, y), table(b, y), positive="1")


def exact_divergence(x, y):
    """Return the divergence of a class with log-odds x from one with y, by its definition."""
    mpmath = package("mpmath")
    with mpmath.workdps(60):
        log_p, log_q = ([-mpmath.log1p(mpmath.exp(-mpmath.mpf(float(sign * z)))) for sign in (1, -1)] for z in (x, y))
        return mpmath.fsum(mpmath.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))


@pytest.mark.parametrize(("apart", "tolerance"), [(10.0, 1e-13), (1.0, 1e-13), (1e-3, 1e-12), (1e-6, 1e-8)])
def test_divergence_is_accurate(apart, tolerance):
    """The KL divergence is the sum over classes, accurate also for almost equal rows."""
    rng = np.random.default_rng(0)
    a = 4 * rng.normal(size=(30, 5))
    b, found = a + apart * rng.normal(size=(30, 5)), np.empty(30)
    class_divergence_rows(a, b, 0.5, 0.5, found)
    wanted = [float(sum(map(exact_divergence, x / 2, y / 2))) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=tolerance)


def test_divergence_of_extreme_logits():
    """A probability of 0 or 1 in b alone gives an infinite divergence; large logits and equal infinities don't."""
    a = np.array([[INF, 1], [INF, 1], [1, 0], [-INF, 0], [-900, 1], [900, 1], [NAN, 0], [INF, 0]])
    b = np.array([[INF, 1], [1, 1], [-INF, 0], [2, 0], [900, 1], [899, 1], [0, 0], [-INF, 0]])
    found = np.empty(len(a))
    class_divergence_rows(a, b, 1.0, 1.0, found)
    wanted = [0.0, np.log1p(np.exp(-1)), INF, np.log1p(np.exp(2)), 900.0, 0.0, NAN, INF]
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


def test_agreement_and_rows_that_changed_most():
    """Predictions are sets of classes, by name if classes have names; rows are ordered by the change of their loss."""
    a, b, y, *_ = models(80)
    found = batchmax.compare(table(a, y), table(b, y), classes=["x", "y", "z"], worst=4)
    assert found.agreement == ((a > 0) == (b > 0)).all(axis=1).mean()
    wanted = [sum(map(float, map(exact_divergence, *rows))) for rows in zip(a, b, strict=True)]
    assert found.mean_kl == pytest.approx(np.mean(wanted), rel=1e-9)
    losses = [-special.log_expit(np.where(y > 0, z, -z)).sum(axis=1) for z in (a, b)]
    rows = np.argsort(-np.abs(losses[1] - losses[0]))[:4]
    assert [one["row"] for one in found.moved] == rows.tolist()
    for one, row in zip(found.moved, rows, strict=True):
        for name, is_in in (("label", y[row] > 0), ("pred_a", a[row] > 0), ("pred_b", b[row] > 0)):
            assert one[name] == [letter for letter, has in zip("xyz", is_in, strict=True) if has], name
    assert [one["class"] for one in found.changes["per_class"]] == ["x", "y", "z"]


def test_conditions_on_changes():
    """A condition can name the changes of multi-label metrics; those of one class per row don't exist."""
    a, b, y, *_ = models(200)
    pair = table(a, y), table(b, y)
    batchmax.compare(*pair, fail_if="changes.samples.f1.p_value > 1 or changes.micro.auroc.upper > 1")
    with pytest.raises(GateError, match=r"changes\.subset_accuracy\.upper"):
        batchmax.compare(*pair, fail_if="changes.subset_accuracy.upper < 1")
    with pytest.raises(GateError, match=r"the rows are multi-label: see changes\.subset_accuracy"):
        batchmax.compare(*pair, fail_if="accuracy_b < -1")


def test_many_classes_and_little_memory(monkeypatch):
    """Too many classes have no changes of their own, and averages over classes may have no intervals."""
    monkeypatch.setattr(label_change_sums, "MOST_CLASSES", 2)
    monkeypatch.setattr("batchmax.evaluation.label_intervals.MOST_BYTES", 100)
    a, b, y, *_ = models(200)
    found = batchmax.compare(table(a, y), table(b, y))
    assert "per_class" not in found.changes
    assert found.change("macro.f1")["lower"] is None
    assert found.change("macro.f1")["change"] is not None
    assert found.change("micro.f1")["lower"] is not None

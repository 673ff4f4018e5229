"""Tests the changes of metrics in ``compare`` against scikit-learn, SciPy and a brute-force jackknife."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.errors import DataError, GateError, UsageError
from batchmax.evaluation.comparison.changes import holm
from tests.support.requirements import optional, package

metrics = package("sklearn.metrics")
stats = optional("scipy.stats")
softmax = package("scipy.special").softmax

N_CLUSTERS = 40


def models(n, k, seed=0):
    """Return logits of two models, and labels, clusters and groups of n rows."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, N_CLUSTERS, n)
    y = rng.integers(0, k, n)
    z = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[y] + 0.5 * rng.normal(size=(N_CLUSTERS, k))[clusters]
    return (
        z,
        z + 0.8 * rng.normal(size=(n, k)),
        y,
        clusters,
        np.array(["north", "south", "west"])[rng.integers(0, 3, n)],
    )


def table(z, y, clusters, groups, rows=slice(None)):
    columns = {"logits": list(z[rows]), "label": y[rows], "patient": clusters[rows], "hospital": groups[rows]}
    return pa.table({"id": np.arange(len(y))[rows], **columns})


def values_of(z, y):
    """Return metrics by their names, computed by scikit-learn."""
    p, pred, k = softmax(z, axis=1), z.argmax(1), z.shape[1]
    found = {
        "mean_loss": metrics.log_loss(y, p, labels=range(k)),
        "accuracy": metrics.accuracy_score(y, pred),
        "brier": ((p - np.eye(k)[y]) ** 2).sum(1).mean() / (2 if k == 2 else 1),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, pred),
        "kappa": metrics.cohen_kappa_score(y, pred),
        "mcc": metrics.matthews_corrcoef(y, pred),
        "d2_log_loss": metrics.d2_log_loss_score(y, p, labels=range(k)),
    }
    for average in ("macro", "micro", "weighted"):
        found[f"{average}.f1"] = metrics.f1_score(y, pred, average=average)
        found[f"{average}.jaccard"] = metrics.jaccard_score(y, pred, average=average)
    if k == 2:
        found |= {
            "precision": metrics.precision_score(y, pred),
            "recall": metrics.recall_score(y, pred),
            "specificity": metrics.recall_score(y, pred, pos_label=0),
            "f1": metrics.f1_score(y, pred),
            "auroc": metrics.roc_auc_score(y, z[:, 1] - z[:, 0]),
            "average_precision": metrics.average_precision_score(y, z[:, 1] - z[:, 0]),
        }
    return found


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("n", [1500, 11])
def test_metrics_of_both_inputs_equal_scikit_learn(n, k):
    """The metrics of a and b are those of scikit-learn, to 1e-12, and the change is their difference."""
    a, b, *rest = models(n, k)
    found = batchmax.compare(table(a, *rest), table(b, *rest))
    wanted = values_of(a, rest[0]), values_of(b, rest[0])
    for name in wanted[0]:
        change = found.change(name)
        assert (change["a"], change["b"]) == pytest.approx((wanted[0][name], wanted[1][name]), rel=1e-12), name
        assert change["change"] == pytest.approx(wanted[1][name] - wanted[0][name], abs=1e-12), name
    assert (found.change("f1") is None) == (k == 3)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_means_over_rows_are_compared_by_a_paired_t_test(level):
    """Interval and p-value of loss and Brier score are SciPy's."""
    a, b, *rest = models(900, 3)
    y = rest[0]
    found = batchmax.compare(table(a, *rest), table(b, *rest), confidence_level=level)
    p_a, p_b = softmax(a, axis=1), softmax(b, axis=1)
    rows = np.arange(len(y))
    pairs = {
        "mean_loss": (-np.log(p_a[rows, y]), -np.log(p_b[rows, y])),
        "brier": [((p - np.eye(3)[y]) ** 2).sum(1) for p in (p_a, p_b)],
    }
    for name, (before, after) in pairs.items():
        change, test = found.changes[name], stats.ttest_rel(after, before)
        interval = test.confidence_interval(level)
        assert (change["lower"], change["upper"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
        error = np.std(after - before, ddof=1) / np.sqrt(len(y))
        assert change["mde"] == pytest.approx(2.8 * error, rel=1e-9)
        assert change["p_value"] == pytest.approx(test.pvalue, rel=1e-7)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_proportions_of_rows_are_compared_by_flips(level):
    """Accuracy, recall and specificity have the interval of Bonett and Price, and McNemar's p-value."""
    stats = package("scipy.stats")
    a, b, *rest = models(300, 2)
    y = rest[0]
    right = a.argmax(1) == y, b.argmax(1) == y
    found = batchmax.compare(table(a, *rest), table(b, *rest), confidence_level=level)
    for name, rows in (("accuracy", y >= 0), ("recall", y == 1), ("specificity", y == 0)):
        n, before, after = int(rows.sum()), right[0][rows], right[1][rows]
        up, down = int((after & ~before).sum()), int((before & ~after).sum())
        p_up, p_down = (up + 1) / (n + 2), (down + 1) / (n + 2)
        half = stats.norm.ppf(0.5 + 0.5 * level) * np.sqrt((p_up + p_down - (p_up - p_down) ** 2) / (n + 2))
        change = found.changes[name]
        assert change["change"] == pytest.approx((up - down) / n)
        assert (change["lower"], change["upper"]) == pytest.approx((p_up - p_down - half, p_up - p_down + half))
        assert change["p_value"] == pytest.approx(stats.binomtest(up, up + down).pvalue)
        assert change["mde"] == pytest.approx(2.8 * np.std(after.astype(float) - before, ddof=1) / np.sqrt(n))


def brute_force(a, b, y, clusters, names):
    """Return standard errors, bounds and p-values of changes, with scikit-learn's metrics without each cluster."""
    chosen = [clusters != one for one in np.unique(clusters)]
    without = [(values_of(a[rows], y[rows]), values_of(b[rows], y[rows])) for rows in chosen]
    before, after, found = values_of(a, y), values_of(b, y), {}
    for name in names:
        left = np.array([values[1][name] - values[0][name] for values in without])
        g = len(left)
        squares = (left - left.mean()) ** 2
        error = np.sqrt((g - 1) / g * squares.sum())
        degrees = min(g - 1, 2 / ((squares**2).sum() / squares.sum() ** 2 - 1 / g))
        change = after[name] - before[name]
        half = stats.t.ppf(0.975, degrees) * error
        found[name] = error, change - half, change + half, 2 * stats.t.sf(abs(change) / error, degrees)
    return found


@pytest.mark.parametrize(
    ("k", "names"), [(2, ("f1", "accuracy", "specificity", "auroc", "average_precision")), (3, ("macro.f1", "mcc"))]
)
def test_changes_with_clusters_equal_a_brute_force_jackknife(k, names):
    """Everything else equals the jackknife that leaves out one cluster each; areas as far as bins of scores allow."""
    a, b, *rest = models(500, k)
    found = batchmax.compare(table(a, *rest), table(b, *rest), cluster="patient")
    assert (found.n_clusters, found.interval) == (N_CLUSTERS, "95 %, jackknife of clusters")
    for name, wanted in brute_force(a, b, *rest[:2], names).items():
        change = found.change(name)
        near = {"rel": 0.02, "abs": 2e-4} if name in {"auroc", "average_precision"} else {"rel": 1e-7}
        values = change["mde"] / 2.8, change["lower"], change["upper"], change["p_value"]
        assert values == pytest.approx(wanted, **near), name


def test_groups_are_those_of_a_comparison_of_their_rows():
    """Changes by group equal those of the group's rows alone, with adjusted p-values; the largest group is first."""
    a, b, *rest = models(900, 2)
    found = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital", cluster="patient")
    sizes = [group["n_rows"] for group in found.groups]
    assert sizes == sorted(sizes, reverse=True)
    assert sorted(group["by"] for group in found.groups) == ["north", "south", "west"]
    for group in found.groups:
        rows = np.flatnonzero(rest[2] == group["by"])
        alone = batchmax.compare(table(a, *rest, rows), table(b, *rest, rows), cluster="patient")
        assert (group["n_rows"], group["n_clusters"]) == (len(rows), alone.n_clusters)
        for name in ("mean_loss", "f1", "accuracy", "average_precision"):
            one, other = group["changes"][name], alone.changes[name]
            assert one["change"] == pytest.approx(other["change"], abs=1e-12)
            near = {"rel": 0.05} if name == "average_precision" else {"rel": 1e-9}
            assert one["p_value"] == pytest.approx(other["p_value"], **near)
    values = [group["changes"]["f1"]["p_value"] for group in found.groups]
    assert [group["changes"]["f1"]["p_adjusted"] for group in found.groups] == by_hand(values)
    assert found.changes["f1"]["p_adjusted"] is None


def by_hand(values):
    """Return p-values adjusted by Holm's method, by its definition."""
    ordered = sorted(values)
    m = len(values)
    return [max(min(1.0, (m - at) * ordered[at]) for at in range(ordered.index(value) + 1)) for value in values]


def test_holm_is_its_definition():
    """Adjusted p-values equal the definition, are at least as large as the p-values, and at most 1."""
    rng = np.random.default_rng(0)
    for m in (0, 1, 2, 3, 10):
        values = (rng.random(m) ** 3).tolist()
        assert holm(values) == pytest.approx(by_hand(values))
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("order", ["same", "reversed"])
def test_clusters_and_groups_are_those_of_a_in_pairs_by_key(order):
    """Pairs by key have the clusters and groups of a, also if b has other ones, and in any order of the rows of b."""
    a, b, *rest = models(600, 2)
    rows = np.arange(599, -1, -1) if order == "reversed" else np.arange(600)
    of_b = table(b, rest[0], np.zeros(600, int), np.full(600, "x"), rows)
    wanted = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital", cluster="patient")
    found = batchmax.compare(*map(written, (table(a, *rest), of_b)), key="id", by="hospital", cluster="patient")
    assert (found.changes, found.groups) == (wanted.changes, wanted.groups)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(rows):
    name = f"{id(rows)}.parquet"
    pa.parquet.write_table(rows, name)
    return name


def test_each_sequence_is_a_cluster_of_tokens():
    """Changes over the tokens of sequences equal those of rows with a column of clusters."""
    a, b, y, *_ = models(600, 3)
    sequence = np.arange(600) // 15

    def nested(z):
        tokens = [list(map(list, z[at : at + 15])) for at in range(0, 600, 15)]
        return pa.table({"logits": tokens, "label": y.reshape(-1, 15).tolist()})

    flat = (pa.table({"logits": list(z), "label": y, "s": sequence}) for z in (a, b))
    wanted = batchmax.compare(*flat, cluster="s")
    found = batchmax.compare(nested(a), nested(b), memory_limit="2GiB")
    assert found.n_clusters == wanted.n_clusters == 40
    for name in ("mean_loss", "accuracy", "macro.f1", "ece"):
        of_both = [one.change(name) for one in (found, wanted)]
        assert [one.pop("p_adjusted") for one in of_both] == [None, None]
        assert of_both[0] == pytest.approx(of_both[1], rel=1e-9), name


@pytest.mark.parametrize(("n_clusters", "has_interval"), [(9, False), (10, True), (29, True), (30, True)])
def test_few_clusters_are_reported(n_clusters, has_interval):
    """Under 30 clusters there is a warning, and under 10 no interval."""
    a, b, y, *_ = models(300, 2)
    pair = [pa.table({"logits": list(z), "label": y, "c": np.arange(300) % n_clusters}) for z in (a, b)]
    found = batchmax.compare(*pair, cluster="c")
    assert any(f"only {n_clusters} clusters" in text for text in found.warnings) == (n_clusters < 30)
    for name in ("mean_loss", "f1", "auroc"):
        change = found.changes[name]
        assert (change["lower"] is not None) == has_interval
        assert change["change"] is not None
    assert (found.mean_loss_change_low is not None) == has_interval


def test_equal_inputs_have_no_change():
    """Without any difference, the p-value is 1, and no detectable difference is known.

    The interval of the mean loss is 0, that of the accuracy has one flip each way, and others have none.
    """
    a, _, *rest = models(200, 2)
    found = batchmax.compare(table(a, *rest), table(a, *rest))
    change = found.change("accuracy")
    assert [change[key] for key in ("change", "p_value", "mde")] == [0, 1, None]
    half = package("scipy.stats").norm.ppf(0.975) * math.sqrt(2) / 202
    assert [change["lower"], change["upper"]] == pytest.approx([-half, half])
    change = found.change("mean_loss")
    assert [change[key] for key in ("change", "lower", "upper", "p_value", "mde")] == [0, 0, 0, 1, None]
    for name in ("f1", "auroc", "macro.f1"):
        change = found.change(name)
        assert [change[key] for key in ("change", "lower", "upper", "p_value", "mde")] == [0, None, None, 1, None], name


def test_results_do_not_depend_on_threads_or_chunks():
    """Changes have the same bits with one thread, and with other batches."""
    a, b, *rest = models(3000, 2)
    whole = batchmax.compare(table(a, *rest), table(b, *rest), by="hospital")
    batches = (pa.Table.from_batches(table(z, *rest).to_batches(max_chunksize=97)) for z in (a, b))
    cut = batchmax.compare(*batches, by="hospital", threads=1)
    assert (whole.changes, whole.groups) == (cut.changes, cut.groups)


def test_conditions_on_changes():
    """A condition can name each number of a change; it is true if the number is missing."""
    a, b, *rest = models(400, 3)
    pair = table(a, *rest), table(b, *rest)
    batchmax.compare(*pair, fail_if="changes.macro.f1.p_value > 1 or changes.accuracy.a < 0")
    with pytest.raises(GateError, match=r"changes\.accuracy\.upper"):
        batchmax.compare(*pair, fail_if="changes.accuracy.upper < 1")
    with pytest.raises(GateError, match="don't have this metric"):
        batchmax.compare(*pair, fail_if="changes.auroc.change < -9")
    with pytest.raises(GateError, match="confidence-level 0"):
        batchmax.compare(*pair, fail_if="changes.accuracy.change < -9", confidence_level=0)
    with pytest.raises(UsageError):
        batchmax.compare(*pair, fail_if="changes.nothing.change < -9")


def test_distributions_have_changes_of_loss_and_brier_score():
    """Labels that are distributions have a loss and a Brier score, and no metrics of classes."""
    a, b, *_ = models(200, 2)
    q = softmax(np.random.default_rng(1).normal(size=(200, 2)), axis=1)
    found = batchmax.compare(*(pa.table({"logits": list(z), "label": list(q)}) for z in (a, b)))
    assert set(found.changes) == {"mean_loss", "brier"}
    differences = (((softmax(b, axis=1) - q) ** 2).sum(1) - ((softmax(a, axis=1) - q) ** 2).sum(1)) / 2
    assert found.changes["brier"]["change"] == pytest.approx(differences.mean(), rel=1e-9)


def test_labels_of_one_input_serve_both():
    """If only one input has labels, changes are the same as if both had."""
    a, b, *rest = models(200, 2)
    wanted = batchmax.compare(table(a, *rest), table(b, *rest)).changes
    assert batchmax.compare(table(a, *rest), table(b, *rest).drop_columns("label")).changes == wanted
    assert batchmax.compare(table(a, *rest).drop_columns("label"), table(b, *rest)).changes == wanted


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"by": "nothing"}, "--by"),
        ({"cluster": "nothing"}, "--cluster"),
        ({"by": "lists"}, "--by"),
        ({"cluster": "lists"}, "--cluster"),
        ({"by": "hospital", "confidence_level": 0}, "--by"),
        ({"by": "hospital", "label": "none"}, "--by"),
        ({"positive": "1"}, "--positive"),
        ({"confidence_level": 1.0}, "--confidence-level"),
    ],
)
def test_invalid_options_are_refused(given, where):
    """The error names the option."""
    a, b, *rest = models(20, 3)
    pair = [table(z, *rest).append_column("lists", pa.array([[1]] * 20)) for z in (a, b)]
    with pytest.raises(UsageError) as error:
        batchmax.compare(*pair, **given)
    assert where in str(error.value)


def test_too_many_groups_are_refused():
    """The error says how many groups fit in memory."""
    a, b, y, *_ = models(2000, 2)
    pair = [pa.table({"logits": list(z), "label": y, "id": np.arange(2000)}) for z in (a, b)]
    with pytest.raises(DataError, match="groups, which don't fit in memory"):
        batchmax.compare(*pair, by="id", memory_limit="1GiB")


def test_differences_that_overflow_are_below_infinite_ones():
    """Areas have the bits of those of evaluate, whose log-odds differ there."""
    logits = [[-1.5e308, 1.5e308], [-np.inf, 0.0], [1.0, 0.0], [1.5e308, -1.5e308], [0.0, -np.inf], [0.0, 1.0]]
    table = pa.table({"logits": logits, "label": [0, 1, 0, 1, 0, 1]})
    expected = batchmax.evaluate(table, on_bad_row="null").auroc
    found = batchmax.compare(table, table, on_bad_row="null").changes["auroc"]
    assert found["a"] == found["b"] == expected

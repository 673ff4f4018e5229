"""AUROC, average precision, partial AUROC and the points of curves are exact, or within their bounds."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import GateError, OutputError, UsageError
from batchmax.evaluation.curves import curves as curves_module
from batchmax.kernels.compiler import dispatch
from batchmax.kernels.compiler.float_mode import STANDARD
from tests.support.curve_rows import binary, exact_log_odds, several, table
from tests.support.requirements import optional
from tests.support.result_hashes import FLUSH

metrics = optional("sklearn.metrics")
near = lambda value: pytest.approx(value, abs=1e-12)

LARGE = 3.4e38


def counted(scores, labels, weights=None):
    """Return AUROC, average precision and the points of the curves, by definition, in exact arithmetic."""
    weights = [1] * len(scores) if weights is None else weights
    rows = list(zip(scores, labels, map(Fraction, weights), strict=True))
    positives, negatives = (sum(w for _, y, w in rows if y == which) for which in (1, 0))
    pairs = ap = Fraction(0)
    points, before = [(Fraction(0), Fraction(0))], Fraction(0)
    for score in sorted(set(scores), reverse=True):
        tp, fp = (sum((w for s, y, w in rows if y == which and s >= score), Fraction(0)) for which in (1, 0))
        points.append((tp, fp))
        ap += (tp - before) * tp / (tp + fp) if tp + fp else 0
        before = tp
    for (tp, fp), (next_tp, next_fp) in itertools.pairwise(points):
        pairs += (next_fp - fp) * (tp + next_tp) / 2
    auroc = pairs / (positives * negatives) if positives and negatives else None
    return auroc, ap / positives if positives else None, points


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "ties"), [(1, None), (2, None), (3, 0), (1000, 0), (100_000, None), (100_000, 1)])
def test_binary_areas_are_those_of_scikit_learn(n, ties, dtype, weighted):
    """For one logit, all areas equal those of scikit-learn to 1e-12; those that aren't defined are None and listed."""
    z, labels = binary(n, seed=n, dtype=dtype, ties=ties)
    if n > 100:
        z[:3], z[3:6], z[6:8] = np.inf, -np.inf, -0.0
        labels[:6] = [0, 1, 1, 0, 1, 0]
    weights = np.random.default_rng(1).integers(0, 4, n) / 3 if weighted else np.ones(n)
    found = batchmax.evaluate(table(z, labels, weights), sample_weight="w", max_fpr=0.1)
    scores = np.where(np.isinf(z), np.copysign(1e30, z), z).astype(np.float64)
    given = {"sample_weight": weights}
    has = [bool(weights[labels == which].sum()) for which in (0, 1)]
    if all(has):
        assert found.auroc == near(metrics.roc_auc_score(labels, scores, **given))
        assert found.partial_auroc == near(metrics.roc_auc_score(labels, scores, max_fpr=0.1, **given))
    else:
        assert found.auroc is None
        assert found.partial_auroc is None
        assert {"metric": "auroc", "class": None} in found.undefined
        assert {"metric": "auroc", "class": 1} in found.undefined
    if has[1]:
        assert found.average_precision == near(metrics.average_precision_score(labels, scores, **given))
    else:
        assert found.average_precision is None
        assert {"metric": "average_precision", "class": None} in found.undefined
    if has[0]:
        want = metrics.average_precision_score(1 - labels, -scores, **given)
        assert found.per_class[0]["average_precision"] == near(want)
    assert found.per_class[0]["auroc"] == found.per_class[1]["auroc"] == found.auroc
    assert found.curves == {"method": "exact"}
    assert found.bounds == {}


@pytest.mark.parametrize("max_fpr", [1e-9, 0.001, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_partial_areas_at_and_between_thresholds(max_fpr, weighted):
    """The partial area is interpolated within a threshold, as in scikit-learn."""
    z, labels = binary(2000, ties=0)
    weights = np.random.default_rng(1).random(2000) if weighted else np.ones(2000)
    found = batchmax.evaluate(table(z, labels, weights), sample_weight="w", max_fpr=max_fpr)
    want = metrics.roc_auc_score(labels, z, max_fpr=max_fpr, sample_weight=weights)
    assert found.partial_auroc == pytest.approx(want, abs=1e-10 if max_fpr < 1e-6 else 1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("n", "k", "missing"), [(1, 3, 0), (2, 3, 0), (20_000, 3, 1), (100_000, 3, None), (4000, 100, 7)]
)
def test_areas_of_several_classes_are_those_of_scikit_learn(n, k, missing, weighted):
    """Each class against the others, and the averages over defined classes, equal scikit-learn's on exact log-odds."""
    z, labels = several(n, k, seed=k)
    labels[labels == missing] = (0 if missing is None else missing + 1) % k
    weights = np.random.default_rng(1).random(n) + 0.1 if weighted else np.ones(n)
    found = batchmax.evaluate(table(z, labels, weights), sample_weight="w")
    scores = exact_log_odds(z)
    areas = {"auroc": [], "average_precision": []}
    supports = [float(weights[labels == at].sum()) for at in range(k)]
    for at, one in enumerate(found.per_class):
        is_class = labels == at
        given = is_class.astype(int), scores[:, at]
        has = is_class.any(), not is_class.all()
        auroc = metrics.roc_auc_score(*given, sample_weight=weights) if all(has) else None
        ap = metrics.average_precision_score(*given, sample_weight=weights) if has[0] else None
        assert one["auroc"] == (None if auroc is None else near(auroc))
        assert one["average_precision"] == (None if ap is None else near(ap))
        assert ({"metric": "auroc", "class": at} in found.undefined) == (auroc is None)
        areas["auroc"].append(auroc)
        areas["average_precision"].append(ap)
    for name, values in areas.items():
        known = [(value, support) for value, support in zip(values, supports, strict=True) if value is not None]
        if not known:
            assert found.macro[name] is None
            continue
        assert found.macro[name] == near(sum(value for value, _ in known) / len(known))
        total = sum(support for _, support in known)
        assert found.weighted[name] == near(sum(value * support for value, support in known) / total)
    assert (found.auroc, found.average_precision, found.partial_auroc) == (None, None, None)


def test_no_rows():
    """Of an empty table, no area is defined, and a missing value fails a gate."""
    empty = table(np.zeros(0, np.float32), np.zeros(0, np.int64))
    found = batchmax.evaluate(empty, max_fpr=0.5)
    assert (found.auroc, found.average_precision, found.partial_auroc, found.macro["auroc"]) == (None,) * 4
    with pytest.raises(GateError, match="auroc has no value"):
        batchmax.evaluate(empty, fail_if="auroc < 0.9")


def test_logits_are_ordered_exactly():
    """Differences of two logits are ordered as exact numbers, although probabilities and float32 differences tie."""
    random = np.random.default_rng(2)
    z = random.choice([30.0, 60.0, 1e4, -1e-6, 1.0], (60, 2)) + random.normal(size=(60, 2)) * 1e-3
    z[:8] = [[1, 2**25], [-1, 2**25], [0, 2**25], [LARGE, -LARGE], [-LARGE, LARGE], [3, 3], [-5, -5], [0, 1e-45]]
    z = z.astype(np.float32)
    labels = random.integers(0, 2, 60)
    exact = [Fraction(float(one)) - Fraction(float(zero)) for zero, one in z]
    with np.errstate(over="ignore"):
        assert len(set(exact)) > len(set((z[:, 1] - z[:, 0]).tolist()))
    auroc, ap, _ = counted(exact, labels)
    found = batchmax.evaluate(table(z, labels))
    assert (found.auroc, found.average_precision) == (float(auroc), near(float(ap)))
    auroc, ap, _ = counted([-one for one in exact], 1 - labels)
    other = batchmax.evaluate(table(z, labels), positive="0", max_fpr=0.5)
    assert (other.auroc, other.average_precision) == (float(auroc), near(float(ap)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_that_float64_rounds_may_tie_but_not_swap(dtype):
    """Logits whose exponents differ by more than float64 holds are ordered by their difference, rounded once."""
    random = np.random.default_rng(3)
    z = np.ldexp(random.normal(size=(300, 2)), random.integers(-80, 80, (300, 2))).astype(dtype)
    z[:100, 1] = 1
    labels = random.integers(0, 2, 300)
    exact = [Fraction(float(one)) - Fraction(float(zero)) for zero, one in z]
    rounded = [float(one) for one in exact]
    assert len(set(rounded)) < len(set(exact))
    assert all(a <= b for a, b in itertools.pairwise(one for _, one in sorted(zip(exact, rounded, strict=True))))
    assert batchmax.evaluate(table(z, labels)).auroc == float(counted(rounded, labels)[0])


def test_differences_that_overflow_are_below_infinite_logits():
    """In float64, logits whose difference is too large for a number tie, below a row with a masked class."""
    z = np.array([[-1.7e308, 1.7e308], [-np.inf, 0.0], [0.0, 1.0], [1.7e308, -1.7e308], [0.0, -np.inf]])
    for labels in itertools.product([0, 1], repeat=5):
        if 0 < sum(labels) < 5:
            want = float(counted([3, 4, 2, 1, 0], labels)[0])
            assert batchmax.evaluate(table(z, np.array(labels))).auroc == want


def test_classes_far_from_the_others_are_ordered():
    """With three classes, log-odds are exact where probabilities are 1, and where they are 0."""
    random = np.random.default_rng(4)
    z = np.zeros((400, 3))
    z[:, 0] = random.normal(size=400) + random.choice([50.0, 1000.0, -800.0], 400)
    z[:, 1] = random.normal(size=400) * 1e-3
    z[5:10, 1] = -np.inf
    z[7:9, 2] = -np.inf
    z[11, 0] = -np.inf
    labels = random.integers(0, 3, 400)
    labels[5:12] = 0
    found = batchmax.evaluate(table(z, labels))
    with np.errstate(all="ignore"):
        scores = exact_log_odds(z)
    scores[np.isneginf(z)] = -np.inf
    scores[7:9, 0] = np.inf
    for at in range(3):
        auroc, ap, _ = counted(scores[:, at].tolist(), labels == at)
        assert found.per_class[at]["auroc"] == near(float(auroc))
        assert found.per_class[at]["average_precision"] == near(float(ap))


def test_the_order_of_the_other_classes_does_not_matter():
    """Rows with the same logits of the other classes, in another order, are tied; so are shifted rows."""
    random = np.random.default_rng(5)
    row = random.normal(size=30).astype(np.float32)
    rows = np.array([np.concatenate([row[:1], random.permutation(row[1:])]) for _ in range(200)])
    rows[50:100] += 0
    labels = random.integers(0, 2, 200)
    assert batchmax.evaluate(table(rows, labels)).per_class[0]["auroc"] == 0.5


def test_temperature_changes_the_order_only_with_several_classes():
    """Log-odds of two classes keep their order at every temperature; of more, each is against a softer maximum."""
    z, labels = binary(1000)
    assert batchmax.evaluate(table(z, labels), temperature=3).auroc == batchmax.evaluate(table(z, labels)).auroc
    z, labels = several(1000, 4)
    found = batchmax.evaluate(table(z, labels), temperature=2)
    want = [metrics.roc_auc_score(labels == at, exact_log_odds(z * 0.5)[:, at]) for at in range(4)]
    assert [one["auroc"] for one in found.per_class] == near(want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", ["probs", "log_probs"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_scored_files_are_ordered_as_stored(k, outputs, dtype, tmp_path):
    """The stored numbers decide: probabilities that round to 1 are tied, and small float64 ones are not."""
    logits, labels = binary(3000) if k == 1 else several(3000, k)
    logits = logits * 20 - 60 * (k == 1)
    pq.write_table(table(logits, labels), tmp_path / "in.parquet")
    out = str(tmp_path / "out.parquet")
    batchmax.score(str(tmp_path / "in.parquet"), out, outputs=(outputs,), dtype=dtype)
    stored = pq.read_table(out)
    name = outputs if outputs in stored.column_names else outputs[:-1]
    values = np.array(stored[name].to_pylist(), np.float64)
    found = batchmax.evaluate(out)
    for at, one in enumerate(found.per_class):
        scores = np.where(at, values, -values) if k == 1 else values[:, at] if k > 2 else values[:, 1] * (2 * at - 1)
        assert one["auroc"] == near(metrics.roc_auc_score(labels == at, scores))
    if k == 1:
        assert batchmax.evaluate(out, positive="0").auroc == found.auroc
    if k == 2:
        assert batchmax.evaluate(out, positive="0").auroc == near(metrics.roc_auc_score(labels == 0, values[:, 0]))


def test_bad_rows_are_left_out():
    """Rows with NaN, without a label or without logits don't count."""
    z, labels = binary(1000)
    want = batchmax.evaluate(table(z, labels)).auroc
    worse = np.concatenate([[np.nan, 5, np.nan], z, [9]]).astype(np.float32)
    rows = table(worse, np.zeros(1004, np.int64))
    rows = rows.set_column(1, "label", pa.array([0, None, 1, *labels.tolist(), -100], pa.int64()))
    assert batchmax.evaluate(rows, on_bad_row="null").auroc == want
    z, labels = several(500, 3)
    want = batchmax.evaluate(table(z, labels))
    z, labels = np.concatenate([z, z[:2]]), np.concatenate([labels, [0, 9]])
    z[-2, 1] = np.nan
    assert batchmax.evaluate(table(z, labels), on_bad_row="null").macro == want.macro


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_results_do_not_depend_on_threads_and_memory(threads, weighted, monkeypatch):
    """One and two threads, keys in memory and in temporary files give the same bits."""
    for z, labels in (binary(50_000), several(20_000, 3)):
        weights = np.random.default_rng(1).random(len(z)) if weighted else None
        how = {"sample_weight": "w" if weighted else None, "max_fpr": 0.2 if z.ndim == 1 else None}
        rows = table(z, labels, weights)
        want = batchmax.evaluate(rows, **how)
        with monkeypatch.context() as patched:
            patched.setattr(curves_module, "PROGRAM_BYTES", 1 << 60)
            found = batchmax.evaluate(rows, threads=threads, **how)
        for name in ("auroc", "average_precision", "partial_auroc", "macro", "weighted", "per_class"):
            assert getattr(found, name) == getattr(want, name)


def test_subnormal_logits_are_distinct_if_a_library_flushes_them():
    """Logits that the CPU would replace by zero, in the mode that some libraries set, keep their order."""
    z = np.arange(-50, 50).astype(np.float32) * np.float32(1e-45)
    labels = (np.arange(100) >= 50).astype(np.int64)
    before = dispatch._exchange(STANDARD | FLUSH)
    try:
        found = batchmax.evaluate(table(z, labels))
    finally:
        dispatch._exchange(before)
    assert (found.auroc, found.average_precision) == (1.0, 1.0)


def test_a_full_disk_is_an_error(monkeypatch):
    """If there is no space for keys, the error says what to do."""
    monkeypatch.setattr(curves_module, "PROGRAM_BYTES", 1 << 60)
    monkeypatch.setattr("os.posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match=r"No space left.*TMPDIR"):
        batchmax.evaluate(table(*binary(1000)))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("prevalence", [0.5, 0.01])
@pytest.mark.parametrize("kind", ["normal", "ties", "probs", "sharp"])
def test_bounds_contain_the_exact_values(kind, prevalence, weighted, tmp_path):
    """Binned areas are within their bounds, as are the exact ones; on ordinary data they are at most 1e-4 apart."""
    random = np.random.default_rng(6)
    labels = (random.random(100_000) < prevalence).astype(np.int64)
    z = random.normal(size=100_000) + 2 * labels - 1
    z = {"normal": z, "ties": z.round(1), "sharp": z * 1e-6, "probs": z * 2}[kind].astype(np.float32)
    weights = random.random(100_000) if weighted else np.ones(100_000)
    how = {"sample_weight": "w", "max_fpr": 0.05}
    rows = table(z, labels, weights)
    if kind == "probs":
        pq.write_table(rows, tmp_path / "in.parquet")
        rows = str(tmp_path / "out.parquet")
        batchmax.score(str(tmp_path / "in.parquet"), rows, dtype="float64")
    exact = batchmax.evaluate(rows, **how)
    found = batchmax.evaluate(rows, curves="binned", **how)
    assert found.curves == {"method": "binned"}
    for name in ("auroc", "average_precision", "partial_auroc"):
        low, high = found.bounds[name]["lower"], found.bounds[name]["upper"]
        assert low <= getattr(exact, name) <= high
        assert low <= getattr(found, name) <= high
        if kind != "sharp" and (name == "auroc" or kind == "normal") and prevalence == 0.5:
            assert high - low <= (1e-4 if kind != "ties" else 1)


def test_bounds_of_few_rows():
    """The bounds hold whatever the order within a bin is, and no rows have none."""
    random = np.random.default_rng(7)
    for _ in range(60):
        n = random.integers(1, 9)
        z = (random.integers(0, 3, n) + random.random(n) * 1e-6).astype(np.float32) * 1e-7
        labels = random.integers(0, 2, n)
        exact, found = (batchmax.evaluate(table(z, labels), curves=how, max_fpr=0.5) for how in ("exact", "binned"))
        for name in ("auroc", "average_precision", "partial_auroc"):
            value = getattr(exact, name)
            assert (value is None) == (name not in found.bounds) == (getattr(found, name) is None)
            if value is not None:
                assert found.bounds[name]["lower"] <= value <= found.bounds[name]["upper"]


def test_bounds_of_averages():
    """With several classes, the bounds are those of the macro averages."""
    rows = table(*several(20_000, 5))
    exact, found = (batchmax.evaluate(rows, curves=how) for how in ("exact", "binned"))
    for name in ("auroc", "average_precision"):
        bounds = found.bounds[f"macro.{name}"]
        assert bounds["lower"] <= exact.macro[name] <= bounds["upper"] <= bounds["lower"] + 1e-3


@pytest.mark.parametrize(
    ("logits", "given", "message"),
    [
        (binary(10), {"curves": "fast"}, "unknown method 'fast'"),
        (binary(10), {"max_fpr": 0.0}, "0 is out of range"),
        (binary(10), {"max_fpr": 1.5}, "1.5 is out of range"),
        (binary(10), {"max_fpr": 0.1, "curves": "none"}, "no curves are computed"),
        (several(10, 3), {"max_fpr": 0.1}, "needs a positive one"),
    ],
)
def test_invalid_options(logits, given, message):
    """Invalid options, and a partial area without curves or a positive class, are refused."""
    with pytest.raises(UsageError, match=message):
        batchmax.evaluate(table(*logits), **given)


def test_more_than_100_classes_need_the_option():
    """Of more than 100 classes, curves are computed only if asked for; a note says so, and a gate fails."""
    rows = table(*several(300, 101))
    found = batchmax.evaluate(rows)
    assert found.curves == {"method": "none"}
    assert "auroc" not in found.macro
    assert any("--curves exact" in note for note in found.notes)
    with pytest.raises(GateError, match="no curves are computed"):
        batchmax.evaluate(rows, fail_if="macro.auroc < 0.1")
    assert batchmax.evaluate(rows, curves="exact").macro["auroc"] > 0.5
    assert batchmax.evaluate(rows, curves="binned").macro["auroc"] > 0.5


def test_the_command_shows_areas_and_bounds(write, tmp_path, capsys):
    """Areas are in the table and in JSON; bounds follow the values of binned curves."""
    path = write("rows", table(*binary(1000)))
    assert main(["evaluate", path, "--max-fpr", "0.1", "-o", str(tmp_path / "m.parquet")]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("AUROC", "average precision", "partial AUROC"))
    assert main(["evaluate", path, "--curves", "binned"]) == 0
    assert " to " in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("AUROC"))
    assert main(["evaluate", path, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    values = {(one["scope"], one["name"], one["figure"]): one["value"] for one in rows}
    assert values["all", None, "auroc"] == result["auroc"]
    assert values["class", "1", "average_precision"] == result["average_precision"]
    assert main(["evaluate", path, "--curves", "none"]) == 0
    assert "AUROC" not in capsys.readouterr().out

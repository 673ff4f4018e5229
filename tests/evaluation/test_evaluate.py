"""Tests the metrics of ``evaluate`` against scikit-learn, torchmetrics and NumPy: logits, scored files, groups."""

from __future__ import annotations

import json
import math
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError, GateError, OutputError, UsageError
from batchmax.evaluation import evaluate, groups
from tests.support.paths import DATA
from tests.support.requirements import optional, package

torch = optional("torch")
metrics = optional("sklearn.metrics")

DIGITS = DATA / "digits.parquet"


def random_case(n=5000, k=12, seed=0, dtype=np.float32, scale=2.0):
    random = np.random.default_rng(seed)
    logits = (random.normal(size=(n, k)) * scale).astype(dtype)
    labels = np.where(random.random(n) < 0.6, logits.argmax(1), random.integers(0, k, n))
    return logits, labels, random.random(n) * 3


def probs_of(logits):
    exps = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return exps / exps.sum(1, keepdims=True)


def table_of(logits, labels, **more):
    rows = pa.array(list(logits), pa.list_(pa.from_numpy_dtype(logits.dtype)))
    return pa.table({"logits": rows, "label": pa.array(labels), **more})


def digits():
    table = pq.read_table(DIGITS)
    return np.array(table["logits"].to_pylist(), np.float32), np.array(table["label"]), np.linspace(0, 2, len(table))


CASES = {
    "digits": digits,
    "random": random_case,
    "few classes": lambda: random_case(k=3, seed=1),
    "two classes": lambda: random_case(k=2, seed=5),
    "many classes": lambda: random_case(n=800, k=300, seed=2),
    "float64": lambda: random_case(seed=3, dtype=np.float64),
    "sharp": lambda: random_case(seed=4, scale=5.0),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_scikit_learn(case, weighted):
    """Loss, accuracy, top-k, Brier score, per-class metrics and confusion matrix equal scikit-learn's."""
    logits, labels, weights = CASES[case]()
    n, k = logits.shape
    table = table_of(logits, labels, w=weights)
    given = {"sample_weight": "w"} if weighted else {}
    ks = (1, 2, k) if k > 2 else (1,)
    found = batchmax.evaluate(table, top_k=ks, **given)
    probs, w = probs_of(logits), weights if weighted else np.ones(n)
    every = {"labels": range(k), "sample_weight": w}
    near = lambda value: pytest.approx(value, rel=1e-6)
    assert found.n_rows == n
    assert found.mean_loss == near(metrics.log_loss(labels, probs, **every))
    assert found.log_likelihood == near(-metrics.log_loss(labels, probs, normalize=False, **every))
    assert found.perplexity == near(math.exp(metrics.log_loss(labels, probs, **every)))
    pred = probs.argmax(1)
    assert found.accuracy == near(metrics.accuracy_score(labels, pred, sample_weight=w))
    if k > 2:
        for place in ks[1:-1]:
            want = metrics.top_k_accuracy_score(labels, logits, k=place, **every)
            assert found.top_k_accuracy[str(place)] == near(want)
        assert found.top_k_accuracy[str(k)] == near(1.0)
    one_hot = np.eye(k)[labels]
    if k == 2:
        assert found.brier == near(metrics.brier_score_loss(labels, probs[:, 1], sample_weight=w))
    else:
        assert found.brier == near(float(np.average(((probs - one_hot) ** 2).sum(1), weights=w)))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, pred, labels=range(k), sample_weight=w, zero_division=np.nan
    )
    for number, one in enumerate(found.per_class):
        assert one["support"] == near(w[labels == number].sum())
        for name, want in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert one[name] == (None if np.isnan(want[number]) else near(want[number])), (number, name)
        if support[number]:
            mine = labels == number
            losses = -np.log(probs[mine, number])
            assert one["mean_loss"] == near(float(np.average(losses, weights=w[mine])))
    np.testing.assert_allclose(found.confusion, metrics.confusion_matrix(labels, pred, **every), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bins", [15, 7])
@pytest.mark.parametrize("case", ["digits", "random", "many classes"])
def test_calibration_errors_are_those_of_torchmetrics(case, bins):
    """ECE, MCE and RMSCE equal torchmetrics' arithmetic in float64, and roughly its function's, in float32."""
    calibration_error = package("torchmetrics.functional.classification").multiclass_calibration_error

    compute = sys.modules[calibration_error.__module__]._ce_compute
    logits, labels, _ = CASES[case]()
    found = batchmax.evaluate(table_of(logits, labels), bins=bins)
    probs, y = torch.from_numpy(probs_of(logits)), torch.from_numpy(labels)
    confidences, predicted = probs.max(1)
    for figure, norm in (("ece", "l1"), ("mce", "max"), ("rmsce", "l2")):
        ours = getattr(found, figure)
        borders = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        want = compute(confidences, predicted.eq(y).double(), borders, norm=norm)
        assert ours == pytest.approx(float(want), rel=1e-6), figure
        single = calibration_error(probs, y, num_classes=logits.shape[1], n_bins=bins, norm=norm)
        assert ours == pytest.approx(float(single), rel=1e-4), figure


def test_certain_rows_are_in_the_last_bin():
    """A confidence of exactly 1 is in the last bin."""
    logits = np.array([[200.0, 0.0, -3.0], [3.0, 0.0, -3.0]], np.float32)
    found = batchmax.evaluate(table_of(logits, [0, 1]), bins=10)
    assert [one["n_rows"] for one in found.bins] == [0] * 9 + [2]
    assert found.bins[-1]["high"] == 1.0


@pytest.mark.parametrize(("k", "dtype"), [(20, np.float32), (70, np.float32), (9, np.float32), (20, np.float64)])
def test_ties_go_to_the_lower_class(k, dtype):
    """Ties count in the label's rank if their class is lower, and the lowest class is predicted, in every kernel."""
    logits = np.zeros((3, k), dtype)
    found = batchmax.evaluate(table_of(logits, [0, 4, 5]), top_k=(1, 5))
    assert found.top_k_accuracy == {"1": pytest.approx(1 / 3), "5": pytest.approx(2 / 3)}
    assert [row[0] for row in found.confusion][:6] == [1, 0, 0, 0, 1, 1]


def test_a_scored_file_has_the_figures_of_its_logits(tmp_path):
    """Evaluating a scored file gives the metrics of its logits, for every output, layout, prefix and dtype."""
    want = batchmax.evaluate(str(DIGITS))
    for number, given in enumerate(
        (
            {},
            {"outputs": "log_probs"},
            {"layout": "wide"},
            {"prefix": "m_", "outputs": "probs,pred"},
            {"dtype": "float64"},
        )
    ):
        out = str(tmp_path / f"{number}.parquet")
        batchmax.score(str(DIGITS), out, **given)
        found = batchmax.evaluate(out)
        for name in ("mean_loss", "accuracy", "brier", "ece", "top_k_accuracy"):
            assert getattr(found, name) == pytest.approx(getattr(want, name), rel=1e-5), (given, name)
        assert found.classes == want.classes


def test_what_cannot_be_judged_is_said(tmp_path):
    """Inputs without the needed columns and options that don't fit the input raise UsageError."""
    out = str(tmp_path / "a.parquet")
    batchmax.score(str(DIGITS), out, outputs="loss")
    with pytest.raises(UsageError, match="no probs or log_probs"):
        batchmax.evaluate(out)
    batchmax.score(str(DIGITS), out, if_exists="overwrite")
    with pytest.raises(UsageError, match="temperature"):
        batchmax.evaluate(out, temperature=2.0)
    logits, labels, _ = random_case(10)
    table = table_of(logits, labels)
    for given, what in (
        ({"label": "none"}, "labels"),
        ({"by": "nothing"}, "no column 'nothing'"),
        ({"by": "logits"}, "has type list"),
        ({"sample_weight": "nothing"}, "no column"),
        ({"bins": 0}, "bins"),
        ({"top_k": 13}, "for 12 classes"),
        ({"fail_if": "nonsense > 1"}, "unknown metric"),
        ({"fail_if": "bytes_written > 1"}, "unknown metric"),
        ({"class_weights": [1.0] * 12}, "plain losses"),
        ({"label_smoothing": 0.1}, "plain losses"),
    ):
        with pytest.raises(UsageError, match=what):
            batchmax.evaluate(table, **given)


@pytest.mark.parametrize("label", [None, -100])
def test_nothing_to_judge_is_counted_and_null(label):
    """If all rows have a null or ignored label, rows are counted and every metric is null."""
    logits, _, _ = random_case(7)
    found = batchmax.evaluate(table_of(logits, pa.array([label] * 7, pa.int64())))
    assert found.n_rows == 7
    assert sum(found.status_counts.values()) == 7
    for name in ("mean_loss", "accuracy", "perplexity", "brier", "ece", "mce", "rmsce", "log_likelihood"):
        assert getattr(found, name) is None, name
    assert found.top_k_accuracy == {"5": None}
    assert all(one["f1"] is None for one in found.per_class)
    assert "NaN" not in found.to_json()


def test_bad_rows_stop_it_or_are_left_out():
    """A NaN logit stops the run; with ``on_bad_row`` null or drop its row is counted and left out of every metric."""
    logits, labels, _ = random_case(100)
    want = batchmax.evaluate(table_of(logits[1:], labels[1:]))
    logits[0, 3] = np.nan
    table = table_of(logits, labels)
    with pytest.raises(DataError, match="NaN at class 3"):
        batchmax.evaluate(table)
    for policy in ("null", "drop"):
        found = batchmax.evaluate(table, on_bad_row=policy)
        assert (found.bad_rows, found.bad_rate) == (1, 0.01)
        assert found.mean_loss == want.mean_loss
        assert found.confusion == want.confusion


def test_an_infinite_loss_leaves_no_mean():
    """An infinite loss is counted; it makes the mean loss null, with a warning, and stays in the Brier score."""
    logits, labels, _ = random_case(50)
    logits[0, labels[0]] = -np.inf
    found = batchmax.evaluate(table_of(logits, labels))
    assert found.infinite_losses == 1
    assert (found.mean_loss, found.perplexity, found.log_likelihood) == (None, None, None)
    probs = probs_of(logits)
    assert found.brier == pytest.approx(float(((probs - np.eye(12)[labels]) ** 2).sum(1).mean()), rel=1e-6)
    assert "infinite" in found.warnings[0]
    assert json.loads(found.to_json())["per_class"][labels[0]]["mean_loss"] is None


@pytest.mark.parametrize("weight", [None, math.nan, -1.0, math.inf])
def test_a_weight_that_is_none_is_named(weight):
    """A null, NaN, negative or infinite weight raises DataError with the row."""
    logits, labels, _ = random_case(20)
    weights = pa.array([1.0] * 7 + [weight] + [1.0] * 12)
    with pytest.raises(DataError, match="the weight is") as caught:
        batchmax.evaluate(table_of(logits, labels, w=weights), sample_weight="w")
    assert "row 7" in caught.value.where


def test_rows_without_weight_count_nothing():
    """Rows of weight 0 don't count, not even an infinite loss; if all weights are 0, every metric is null."""
    logits, labels, _ = random_case(50)
    logits[0, labels[0]] = -np.inf
    weights = np.r_[0.0, np.ones(49)]
    found = batchmax.evaluate(table_of(logits, labels, w=weights), sample_weight="w")
    want = batchmax.evaluate(table_of(logits[1:], labels[1:], w=weights[1:]), sample_weight="w")
    assert (found.mean_loss, found.accuracy, found.brier) == (want.mean_loss, want.accuracy, want.brier)
    assert (found.infinite_losses, found.per_class, found.bins) == (0, want.per_class, want.bins)
    nothing = batchmax.evaluate(table_of(logits, labels, w=weights * 0), sample_weight="w")
    assert (nothing.n_rows, nothing.mean_loss, nothing.accuracy, nothing.ece) == (50, None, None, None)


@pytest.mark.parametrize("k", [12, 40])
def test_distributions_have_a_loss_and_a_brier_score(k):
    """Soft targets have a loss and a Brier score, weighted and by group, and no class metrics."""
    logits, _, weights = random_case(40, k)
    targets = probs_of(logits[::-1]).astype(np.float32).astype(np.float64)
    labels = pa.array(list(targets.astype(np.float32)), pa.list_(pa.float32()))
    keys = np.arange(40) % 3
    table = table_of(logits, labels, w=weights, key=keys)
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(targets), reduction="none"
    ).numpy()
    briers = ((probs_of(logits) - targets) ** 2).sum(1)
    found = batchmax.evaluate(table, sample_weight="w", by="key")
    assert found.mean_loss == pytest.approx(np.average(losses, weights=weights), rel=1e-6)
    assert found.brier == pytest.approx(np.average(briers, weights=weights), rel=1e-6)
    for one in found.slices["key"]:
        mine = keys == one["value"]
        assert one["mean_loss"] == pytest.approx(np.average(losses[mine], weights=weights[mine]), rel=1e-6)
        assert one["brier"] == pytest.approx(np.average(briers[mine], weights=weights[mine]), rel=1e-6)
        assert (one["accuracy"], one["ece"]) == (None, None)
    assert (found.accuracy, found.ece, found.mce, found.top_k_accuracy) == (None, None, None, {"5": None})
    assert (found.per_class, found.confusion, found.bins) == ([], None, [])
    assert "NaN" not in found.to_json()
    assert sum(found.losses["counts"]) == 40
    assert found.warnings


def test_losses_that_score_wrote_are_taken(tmp_path):
    """The loss column of a scored file is used, unless it is for other labels or has class weights.

    Without it, a probability that float16 rounds to 0 has an infinite loss.
    """
    logits, labels, _ = random_case(300, scale=8.0)
    path, out = tmp_path / "a.parquet", str(tmp_path / "s.parquet")
    pq.write_table(table_of(logits, labels, other=labels[::-1]), path)
    want = batchmax.evaluate(str(path))
    batchmax.score(str(path), out, dtype="float16")
    found = batchmax.evaluate(out)
    assert found.mean_loss == pytest.approx(want.mean_loss, rel=1e-6)
    assert (found.infinite_losses, found.status_counts) == (0, {"ok": 300})
    assert batchmax.evaluate(out, label="other").infinite_losses > 0
    weighted = str(tmp_path / "w.parquet")
    batchmax.score(str(path), weighted, dtype="float16", class_weights=[2.0] * 12)
    assert batchmax.evaluate(weighted).infinite_losses > 0
    assert batchmax.evaluate([out, weighted]).infinite_losses > 0
    again = shutil.copy(out, tmp_path / "again.parquet")
    assert batchmax.evaluate([out, again]).mean_loss == found.mean_loss


def test_rows_that_look_odd_are_said():
    """Logits that look like probabilities, and probabilities that don't sum to 1, give a warning."""
    logits, labels, _ = random_case(20)
    assert "look like probabilities" in batchmax.evaluate(table_of(probs_of(logits), labels)).warnings[0]
    found = batchmax.evaluate(table_of(np.abs(logits), labels), input="probs")
    assert "divided by its sum" in found.warnings[0]


def test_groups_by_nanosecond(tmp_path):
    """Timestamps that differ by 1 ns are separate groups; they keep their type in the table and are text in JSON."""
    logits, labels, _ = random_case(6)
    keys = pa.array([1, 2, None, 1, 2, 1], pa.timestamp("ns"))
    out = tmp_path / "m.parquet"
    found = batchmax.evaluate(table_of(logits, labels, key=keys), by="key", out=str(out))
    assert [(one["value"], one["n_rows"]) for one in found.slices["key"]] == [
        ("1970-01-01 00:00:00.000000001", 3),
        ("1970-01-01 00:00:00.000000002", 2),
        (None, 1),
    ]
    assert pq.read_table(out)["key"].combine_chunks().equals(keys.slice(0, 3))


def test_several_columns_of_groups_are_one_table(tmp_path, monkeypatch):
    """With several group columns the table has one row per group and metric, even for groups too many to list."""
    monkeypatch.setattr(evaluate, "MOST_LISTED", 10)
    logits, labels, _ = random_case(44)
    table = table_of(logits, labels, a=np.arange(44) % 2, b=np.arange(44) % 11)
    found = batchmax.evaluate(table, by="a,b", out=str(tmp_path / "m.parquet"))
    assert (len(found.slices["a"]), found.slices["b"]) == (2, [])
    assert "11 groups by 'b'" in found.warnings[0]
    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    written = {row["name"]: row["value"] for row in rows if (row["scope"], row["figure"]) == ("b", "n_rows")}
    assert written == {str(number): 4.0 for number in range(11)}
    assert "-o groups.parquet" in batchmax.evaluate(table, by="b").warnings[0]


def by_hand(logits, labels, keys):
    probs = probs_of(logits)
    losses = -np.log(probs[np.arange(len(labels)), labels])
    hits = probs.argmax(1) == labels
    found = {}
    for key in dict.fromkeys(keys):
        mine = np.array([other == key for other in keys])
        found[key] = (int(mine.sum()), losses[mine].mean(), hits[mine].mean())
    return found


def test_more_groups_than_are_worked_on_at_once(tmp_path, monkeypatch):
    """More groups than ``PIECE`` are all in the result and in the table."""
    monkeypatch.setattr(groups, "PIECE", 16)
    logits, labels, _ = random_case(100, k=4)
    names = np.arange(100) * 7 % 50
    found = batchmax.evaluate(table_of(logits, labels, key=names), by="key", out=str(tmp_path / "m.parquet"))
    want = by_hand(logits, labels, names.tolist())
    assert {one["value"]: one["mean_loss"] for one in found.slices["key"]} == pytest.approx(
        {key: loss for key, (_, loss, _) in want.items()}, rel=1e-6
    )
    assert pq.read_table(tmp_path / "m.parquet")["key"].to_pylist() == list(want)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_the_figures_of_a_group_are_those_of_its_rows_alone(weighted):
    """The metrics of a group, including ECE, equal those of its rows evaluated alone."""
    logits, labels, weights = random_case(900)
    keys = np.random.default_rng(1).integers(0, 4, 900)
    given = {"bins": 7} | ({"sample_weight": "w"} if weighted else {})
    found = batchmax.evaluate(table_of(logits, labels, w=weights, key=keys), by="key", **given)
    for one in found.slices["key"]:
        mine = keys == one["value"]
        want = batchmax.evaluate(table_of(logits[mine], labels[mine], w=weights[mine]), **given)
        for name in ("n_rows", "mean_loss", "perplexity", "accuracy", "brier", "ece"):
            assert one[name] == pytest.approx(getattr(want, name), rel=1e-12), name


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.int64(), pa.float64(), pa.bool_(), pa.date32()]
)
def test_groups_of_any_plain_type(kind, tmp_path):
    """Groups of every plain type, including nulls, combine their rows over row groups."""
    logits, labels, _ = random_case(400)
    numbers = [None if row % 11 == 0 else row * 7 % 5 for row in range(400)]
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    cast = {pa.string(): str, pa.bool_(): lambda number: number > 2}.get(value_type, lambda number: number)
    keys = pa.array([None if one is None else cast(one) for one in numbers], value_type).cast(kind)
    path = tmp_path / "a.parquet"
    pq.write_table(table_of(logits, labels, key=keys), path, row_group_size=64)
    found = batchmax.evaluate(str(path), by="key", out=str(tmp_path / "m.parquet"))
    want = by_hand(logits, labels, keys.to_pylist())
    written = pq.read_table(tmp_path / "m.parquet")
    assert written.schema.field("key").type == value_type
    assert written["key"].to_pylist() == list(want)
    for row in written.to_pylist():
        assert (row["n_rows"], row["mean_loss"], row["accuracy"]) == pytest.approx(want[row["key"]], rel=1e-6)
    assert [one["n_rows"] for one in found.slices["key"]] == sorted((n for n, _, _ in want.values()), reverse=True)


@pytest.mark.parametrize("order", ["ascending", "together"])
def test_any_number_of_groups_that_come_together(order, tmp_path, monkeypatch):
    """With little memory, groups of adjacent rows are written as soon as they end, each once.

    A group that comes again later, or too many groups without a table, raises DataError.
    """
    monkeypatch.setattr(groups, "PIECE", 16)
    monkeypatch.setattr(groups, "VALUE_BYTES", 2**28 // 3 // 11)  # memory for ten groups
    logits, labels, _ = random_case(600, k=4)
    names = np.repeat(np.arange(120), 5)
    if order == "together":
        names = (names * 77) % 127
    path = tmp_path / "a.parquet"
    pq.write_table(table_of(logits, labels, key=names), path, row_group_size=32)
    found = batchmax.evaluate(str(path), by="key", out=str(tmp_path / "m.parquet"), memory_limit="256MiB")
    written = pq.read_table(tmp_path / "m.parquet").to_pylist()
    want = by_hand(logits, labels, names.tolist())
    assert [row["key"] for row in written] == list(want)
    for row in written:
        assert (row["n_rows"], row["mean_loss"], row["accuracy"]) == pytest.approx(want[row["key"]], rel=1e-6)
    assert found.slices == {"key": []}
    assert "120 groups by 'key' are too many to list; they are in the table" in found.warnings[0]
    with pytest.raises(DataError, match="groups"):
        batchmax.evaluate(str(path), by="key", memory_limit="256MiB")
    pq.write_table(table_of(logits, labels, key=np.arange(600) % 120), path, row_group_size=32)
    with pytest.raises(DataError, match="occurs again"):
        batchmax.evaluate(str(path), by="key", out=str(tmp_path / "n.parquet"), memory_limit="256MiB")
    assert not (tmp_path / "n.parquet").exists()
    falling = np.r_[np.arange(576)[::-1], 575]
    pq.write_table(table_of(logits[:577], labels[:577], key=falling), path, row_group_size=32)
    with pytest.raises(DataError, match="575 occurs again"):
        batchmax.evaluate(str(path), by="key", out=str(tmp_path / "n.parquet"), memory_limit="256MiB")


def test_an_input_without_rows_has_no_groups(tmp_path):
    """Without rows, there are no groups, and the table of groups has no rows."""
    rows = pa.table({"logits": pa.array([], pa.list_(pa.float32(), 3)), "label": pa.array([], pa.int64())})
    rows = rows.append_column("kind", pa.array([], pa.string()))
    assert batchmax.evaluate(rows, by="kind", out=str(tmp_path / "out.parquet")).slices == {"kind": []}
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_the_table_of_figures(tmp_path):
    """Without groups the table has one row per metric; an existing file is replaced only with ``overwrite``."""
    out = tmp_path / "m.parquet"
    found = batchmax.evaluate(str(DIGITS), out=str(out))
    rows = {(row["scope"], row["name"], row["figure"]): row["value"] for row in pq.read_table(out).to_pylist()}
    assert rows["all", None, "accuracy"] == found.accuracy
    assert rows["class", "seven", "f1"] == found.per_class[7]["f1"]
    assert rows["bin", "0-0.0666667", "accuracy"] is None
    with pytest.raises(OutputError, match=r"exists|is there"):
        batchmax.evaluate(str(DIGITS), out=str(out))
    batchmax.evaluate(str(DIGITS), out=str(out), if_exists="overwrite")
    with pytest.raises(UsageError, match="one file"):
        batchmax.evaluate(str(DIGITS), out=str(tmp_path / "folder"))


def test_a_gate_that_is_true_writes_nothing(tmp_path):
    """If ``fail_if`` is true no table is written; a condition may name every headline metric."""
    out = tmp_path / "m.parquet"
    with pytest.raises(GateError, match=r"ece is 0\.0099"):
        batchmax.evaluate(str(DIGITS), out=str(out), fail_if="ece > 0.001 or mce > 2 or rmsce > 2 or brier > 2")
    assert not out.exists()
    batchmax.evaluate(str(DIGITS), out=str(out), fail_if="top_k_accuracy < 0.99 or accuracy < 0.9")
    assert out.exists()


def test_the_figures_depend_on_neither_threads_nor_row_groups(tmp_path):
    """Metrics are bit-identical for every number of threads and row group size."""
    logits, labels, weights = random_case(3000, k=40)
    table = table_of(logits, labels, w=weights)
    found = []
    for size, threads in ((64, 1), (1000, 2), (3000, 2)):
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=size)
        one = batchmax.evaluate(str(tmp_path / "a.parquet"), sample_weight="w", threads=threads).as_dict()
        found.append({name: value for name, value in one.items() if name not in {"seconds", "bytes_read", "notes"}})
    assert found[0] == found[1] == found[2]

"""Tests the values of every output of ``score_batch`` against their definitions and PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from batchmax import BadRowError, UsageError, score_batch
from tests.support import oracle
from tests.support.batches import batch_of
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.requirements import optional
from tests.support.rows import INF, NAN, columns_of, expected, lists, some_logits

torch = optional("torch")

ALL = tuple(name for name in SOFTMAX_OUTPUTS if name != "sample")
"""All outputs that depend only on the row; draws are tested in test_sampling."""
NEED_LABEL = ("loss", "rank", "correct", "el2n")
EXACT = ("pred", "rank", "correct", "status", "top_k_classes")
TO_ULPS = ("probs", "log_probs", "loss", "confidence", "top_k_probs")
CLOSE = ("margin", "entropy", "el2n")


def check_outputs(got, want, dtype, logits, temperature=1.0):
    """Compare every output that is there with its expected value."""
    loss_dtype = np.promote_types(dtype, np.float32)
    for name in (name for name in got.schema.names if name in want):
        values = columns_of(got, name)
        if name in EXACT:
            assert_array_equal(values, want[name], err_msg=name)
            continue
        kind = dtype if name in {"probs", "log_probs", "top_k_probs"} else loss_dtype
        assert values.dtype == kind, name
        if name in TO_ULPS:
            assert oracle.ulp_error(values, want[name], kind).max() <= 3, name
        elif name in CLOSE:
            assert_allclose(values, want[name].astype(kind), rtol=32 * np.finfo(kind).eps, atol=1e-18, err_msg=name)
        else:
            assert name == "logsumexp"
            scale = np.abs(logits.max(axis=1)) / temperature + np.log(logits.shape[1])
            assert (np.abs(values - want[name]) <= 2 * np.finfo(kind).eps * scale).all()


# Values of the outputs


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 10, 32, 33, 200])
def test_outputs_agree_with_exact_arithmetic(n_classes, dtype, temperature):
    """All outputs and the top classes agree with exact arithmetic, for both kernels (few and many classes)."""
    logits = some_logits(150, n_classes, dtype)
    labels = np.random.default_rng(1).integers(0, n_classes, len(logits))
    top_k = min(5, n_classes)
    got = score_batch(batch_of(logits, labels), outputs=ALL, top_k=top_k, temperature=temperature)
    assert got.schema.names == ["label", *ALL, "top_k_classes", "top_k_probs"]
    check_outputs(got, expected(logits, labels, temperature, top_k), dtype, logits, temperature)


@pytest.mark.parametrize(
    ("given", "asked", "written", "losses"),
    [
        (np.float32, None, np.float32, np.float32),
        (np.float32, "float64", np.float64, np.float64),
        (np.float32, "float16", np.float16, np.float32),
        (np.float64, None, np.float64, np.float64),
        (np.float64, "float32", np.float32, np.float32),
        (np.float16, None, np.float32, np.float32),
        (np.int32, None, np.float64, np.float64),
    ],
)
@pytest.mark.parametrize("n_classes", [7, 70])
def test_dtype_sets_the_types(given, asked, written, losses, n_classes):
    """``--dtype`` sets the type of probabilities; losses are at least float32, and as accurate as their type allows."""
    logits = np.clip(some_logits(40, n_classes, np.float64), -100, 100).astype(given)
    labels = np.arange(40) % n_classes
    got = score_batch(batch_of(logits, labels), outputs=ALL, top_k=3, dtype=asked)
    assert columns_of(got, "probs").dtype == written
    assert columns_of(got, "loss").dtype == losses
    check_outputs(got, expected(logits, labels, top_k=3), np.dtype(written), logits.astype(np.float64))


@pytest.mark.parametrize("top_k", [1, 64, 65, 200])
def test_top_k_is_a_stable_sort(top_k):
    """The top classes are those of a stable sort, largest first, for any k."""
    logits = np.rint(some_logits(30, 200))
    got = score_batch(batch_of(logits), outputs="pred", top_k=top_k)
    check_outputs(got, expected(logits, np.zeros(30, int), top_k=top_k), np.float32, logits)


@pytest.mark.parametrize("n_classes", [5, 50])
def test_ties_go_to_the_lower_index(n_classes):
    """With equal logits, pred is the first of them, rank counts the earlier ones, and only the first is correct."""
    logits = np.zeros((n_classes, n_classes), np.float32)
    got = score_batch(batch_of(logits, np.arange(n_classes)), outputs="pred,rank,correct,margin", top_k=n_classes)
    assert got["pred"].to_pylist() == [0] * n_classes
    assert got["rank"].to_pylist() == list(range(1, n_classes + 1))
    assert got["correct"].to_pylist() == [True] + [False] * (n_classes - 1)
    assert got["margin"].to_pylist() == [0.0] * n_classes
    assert got["top_k_classes"].to_pylist() == [list(range(n_classes))] * n_classes


def test_order_is_that_of_logits_not_of_probabilities():
    """Logits whose probabilities round to the same number are still ordered."""
    logits = np.array([[100.0, np.nextafter(np.float32(100.0), np.float32(101.0), dtype=np.float32)]], np.float32)
    got = score_batch(batch_of(logits, [0]), outputs="pred,rank", temperature=1e6, top_k=2)
    assert got.to_pylist() == [{"label": 0, "pred": 1, "rank": 2, "top_k_classes": [1, 0], "top_k_probs": [0.5, 0.5]}]


def test_extreme_beta_overflows_without_a_warning():
    """If beta times a logit overflows float64, logsumexp is infinite, and the other outputs are as usual."""
    got = score_batch(batch_of(np.array([[1e20, 2.0]], np.float32), [0]), outputs=ALL, beta=1e300)
    row = got.to_pylist()[0]
    assert (row["logsumexp"], row["probs"], row["loss"], row["entropy"]) == (INF, [1.0, 0.0], 0.0, 0.0)


def test_the_margin_of_a_tie_has_no_sign():
    """The margin of two equal largest logits is 0.0, not -0.0."""
    got = score_batch(pa.record_batch({"logits": [[1.0, 1.0, 0.0]]}), outputs="margin")
    assert str(got["margin"][0].as_py()) == "0.0"


# Labels, weights, names


def torch_losses(logits, labels, **options):
    weights = options.pop("weight", None)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(logits, np.float64)), torch.tensor(labels), weight=weight, reduction="none", **options
    ).numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["index", "distribution"])
@pytest.mark.parametrize("n_classes", [6, 60])
def test_losses_are_those_of_pytorch(n_classes, kind, weighted, smoothing):
    """Weights, smoothing and target distributions mean the same as in torch.nn.functional.cross_entropy."""
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((50, n_classes)).astype(np.float32)
    weights = tuple(rng.random(n_classes)) if weighted else None
    if kind == "index":
        labels = column = rng.integers(0, n_classes, 50)
    else:
        labels = rng.dirichlet(np.ones(n_classes), 50)
        column = lists(labels)
    got = score_batch(
        batch_of(logits, column), outputs="loss", class_weights=weights, label_smoothing=smoothing, dtype="float64"
    )
    want = torch_losses(logits, labels, weight=weights, label_smoothing=smoothing)
    assert_allclose(columns_of(got, "loss"), want, rtol=1e-13)


def test_weights_by_name_are_weights_by_class():
    """A dictionary of weights is ordered by the class names, or by the class numbers if there are no names."""
    logits, labels = some_logits(20, 3), np.arange(20) % 3
    plain = score_batch(batch_of(logits, labels), outputs="loss", class_weights=(1.0, 2.0, 0.5))
    named = score_batch(
        batch_of(logits, labels), outputs="loss", classes="a,b,c", class_weights={"c": 0.5, "a": 1.0, "b": 2.0}
    )
    numbered = score_batch(batch_of(logits, labels), outputs="loss", class_weights={"2": 0.5, "0": 1.0, "1": 2.0})
    assert plain["loss"].equals(named["loss"])
    assert plain["loss"].equals(numbered["loss"])


@pytest.mark.parametrize(
    ("weights", "says"),
    [((1.0,), "1 weight for 3"), ({"a": 1.0, "b": 1.0}, "'c' has no"), ({"x": 1.0}, "no class 'x'")],
)
def test_wrong_number_of_weights_is_refused(weights, says):
    """There must be one weight for each class, and none for other classes."""
    with pytest.raises(UsageError, match=says):
        score_batch(batch_of(some_logits(2, 3), [0, 1]), classes="a,b,c", class_weights=weights)


def test_predictions_are_class_names():
    """With class names, pred and top_k_classes are names, labels are looked up, and unknown names are bad labels."""
    logits = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, NAN]], np.float32)
    got = score_batch(
        batch_of(logits, ["dog", "fish", None, "cat"]),
        classes="cat,dog,cow",
        outputs="pred,rank,correct,status",
        top_k=2,
        on_bad_row="null",
    )
    assert got["pred"].to_pylist() == ["dog", "cat", "cow", None]
    assert got["rank"].to_pylist() == [1, None, None, None]
    assert got["correct"].to_pylist() == [True, None, None, None]
    assert got["top_k_classes"].to_pylist() == [["dog", "cat"], ["cat", "dog"], ["cow", "cat"], None]
    assert got["status"].to_pylist() == ["ok", "bad_label", "unlabelled", "nan_logit"]
    assert got.schema.field("pred").type == pa.string()


@pytest.mark.parametrize("ignored", [-100, 0, 2, 255])
def test_ignored_rows_have_probabilities_and_no_loss(ignored):
    """A row whose label is ``--ignore-index`` is ignored, even if it is a class; a null label is unlabelled."""
    batch = batch_of(some_logits(4, 3), pa.array([ignored, 1, None, 1]))
    got = score_batch(batch, outputs="probs,loss,status", ignore_index=ignored)
    assert got["status"].to_pylist() == ["ignored", "ok", "unlabelled", "ok"]
    assert got["loss"].is_valid().to_pylist() == [False, True, False, True]
    assert got["probs"].null_count == 0


def test_bad_distributions_are_bad_labels():
    """A target that is negative, doesn't sum to 1, is too short or has nulls is bad; a null target is unlabelled."""
    targets = [[0.5, 0.5], [0.7, 0.5], [1.5, -0.5], [1.0], [None, 1.0], [NAN, 1.0], None, [0.5004, 0.5]]
    batch = batch_of(np.zeros((8, 2), np.float32), pa.array(targets, pa.list_(pa.float64())))
    got = score_batch(batch, outputs="probs,loss,status", on_bad_row="null")
    assert got["status"].to_pylist() == ["ok", *["bad_label"] * 5, "unlabelled", "ok"]
    assert [loss is None for loss in got["loss"].to_pylist()] == [False, *[True] * 6, False]
    assert got["probs"].to_pylist() == [[0.5, 0.5]] * 8


def test_target_on_a_masked_class_is_a_masked_label():
    """Weight on a masked class gives an infinite loss; smoothing doesn't change the status."""
    logits = np.array([[1.0, 1.0, -INF]] * 2, np.float32)
    batch = batch_of(logits, pa.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]))
    got = score_batch(batch, outputs="loss,status")
    assert_allclose(got["loss"].to_pylist(), [math.log(2), INF], rtol=1e-7)
    assert got["status"].to_pylist() == ["ok", "masked_label"]
    smooth = score_batch(batch, outputs="loss,status", label_smoothing=0.1)
    assert smooth["loss"].to_pylist() == [INF, INF]
    assert smooth["status"].to_pylist() == ["ok", "masked_label"]


@pytest.mark.parametrize("name", ["rank", "correct", "el2n"])
def test_outputs_of_class_labels_refuse_distributions(name):
    """Outputs that need a class label refuse distributions."""
    with pytest.raises(UsageError, match=f"{name} needs class labels"):
        score_batch(batch_of(np.zeros((1, 2), np.float32), [[0.5, 0.5]]), outputs=name)


@pytest.mark.parametrize("name", NEED_LABEL)
def test_outputs_of_labels_need_labels(name):
    """Outputs that need a label are refused without one; the defaults are probs, and loss if there are labels."""
    with pytest.raises(UsageError, match=f"{name} needs labels"):
        score_batch(batch_of(np.zeros((1, 2), np.float32)), outputs=name)
    assert score_batch(batch_of(np.zeros((1, 2), np.float32))).schema.names == ["probs"]
    assert score_batch(batch_of(np.zeros((1, 2), np.float32), [0])).schema.names == ["label", "probs", "loss"]


# Probabilities as input


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_probabilities_as_input_are_unchanged(kind):
    """Probabilities or their logarithms as input give the same probabilities; losses are minus the logarithm."""
    probs = np.random.default_rng(0).dirichlet(np.ones(12), 30)
    probs[0] = np.eye(12)[3]
    with np.errstate(divide="ignore"):
        given_as = probs if kind == "probs" else np.log(probs)
    labels = probs.argmax(axis=1)
    got = score_batch(batch_of(given_as, labels), input=kind, outputs="probs,loss,status")
    assert_allclose(columns_of(got, "probs"), probs, rtol=1e-14)
    assert_allclose(columns_of(got, "loss"), -np.log(probs.max(axis=1)), rtol=1e-13, atol=2e-16)
    assert set(got["status"].to_pylist()) == {"ok"}


def test_invalid_probabilities_are_bad():
    """With ``--input probs``, a negative number is nan_logit, zeros only are all_masked; the error names the value."""
    logits = pa.array([[0.5, 0.5], [-0.5, 1.5], [0.0, 0.0], None], pa.list_(pa.float32()))
    got = score_batch(batch_of(logits), input="probs", outputs="probs,status", on_bad_row="null")
    assert got["status"].to_pylist() == ["ok", "nan_logit", "all_masked", "null_logits"]
    with pytest.raises(BadRowError, match=r"row 1 of the batch: -0\.5 at class 0 is not a probability"):
        score_batch(batch_of(logits), input="probs")

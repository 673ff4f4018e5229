"""Every output of ``score_batch`` has its defined value, for valid and for flagged rows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from batchmax import BadRowError, DataError, UsageError, score_batch
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import OUTPUTS
from tests.support import oracle
from tests.support.requirements import optional
from tests.support.rows import (
    BAD,
    INF,
    NAN,
    ODD_LABELS,
    PRECEDENCE,
    WITHOUT_LOSS,
    WITHOUT_PROBS,
    columns_of,
    expected,
    lists,
    odd_rows,
    some_logits,
)

torch = optional("torch")

ALL = tuple(name for name in OUTPUTS if name != "sample")
"""All outputs that depend only on the row; draws are tested in test_sampling."""
NEED_LABEL = ("loss", "rank", "correct", "el2n")
EXACT = ("pred", "rank", "correct", "status", "top_k_classes")
TO_ULPS = ("probs", "log_probs", "loss", "confidence", "top_k_probs")
CLOSE = ("margin", "entropy", "el2n")


def batch_of(logits, labels=None, **more):
    columns = {"logits": lists(logits) if isinstance(logits, np.ndarray) else logits}
    if labels is not None:
        columns["label"] = labels
    return pa.record_batch({**columns, **more})


def odd_batch():
    logits, labels, statuses = odd_rows()
    return batch_of(pa.array(logits, pa.list_(pa.float32())), pa.array(labels, pa.int64())), statuses


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
def test_every_output_is_what_it_is_defined_as(n_classes, dtype, temperature):
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
def test_types_are_as_asked(given, asked, written, losses, n_classes):
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
    [((1.0,), "1 weights for 3"), ({"a": 1.0, "b": 1.0}, "'c' has no"), ({"x": 1.0}, "called 'x'")],
)
def test_weights_that_do_not_fit_are_refused(weights, says):
    """There must be one weight for each class, and none for other classes."""
    with pytest.raises(UsageError, match=says):
        score_batch(batch_of(some_logits(2, 3), [0, 1]), classes="a,b,c", class_weights=weights)


def test_class_names_are_what_is_predicted():
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


def test_a_distribution_over_masked_classes_is_a_masked_label():
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
    with pytest.raises(UsageError, match=f"{name} needs a label"):
        score_batch(batch_of(np.zeros((1, 2), np.float32)), outputs=name)
    assert score_batch(batch_of(np.zeros((1, 2), np.float32))).schema.names == ["probs"]
    assert score_batch(batch_of(np.zeros((1, 2), np.float32), [0])).schema.names == ["label", "probs", "loss"]


# Probabilities as input


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_probabilities_come_out_as_they_went_in(kind):
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


def test_what_is_no_probability_is_bad():
    """With ``--input probs``, a negative number is nan_logit, zeros only are all_masked; the error names the value."""
    logits = pa.array([[0.5, 0.5], [-0.5, 1.5], [0.0, 0.0], None], pa.list_(pa.float32()))
    got = score_batch(batch_of(logits), input="probs", outputs="probs,status", on_bad_row="null")
    assert got["status"].to_pylist() == ["ok", "nan_logit", "all_masked", "null_logits"]
    with pytest.raises(BadRowError, match=r"row 1 of the batch: -0\.5 is no probability at class 0"):
        score_batch(batch_of(logits), input="probs")


# Flagged rows


def test_statuses_take_precedence_as_listed():
    """If a row has several defects, its status is the one that comes first in the list."""
    batch, statuses = odd_batch()
    got = score_batch(batch, outputs="status", on_bad_row="null")
    assert got["status"].to_pylist() == statuses
    assert set(statuses) == set(PRECEDENCE)


@pytest.mark.parametrize("options", [{}, {"layout": "fixed"}, {"layout": "wide"}, {"dtype": "float64"}])
def test_policy_null_nulls_what_has_no_value(options):
    """With ``null``, rows without probabilities have only a status; rows without a loss have nulls in label outputs."""
    batch, statuses = odd_batch()
    got = score_batch(batch, outputs=ALL, top_k=2, on_bad_row="null", **options)
    assert got.num_rows == batch.num_rows
    assert got["label"].equals(batch["label"])
    for name in got.schema.names[1:]:
        if name == "status":
            assert got[name].null_count == 0
            continue
        without = WITHOUT_LOSS if name in NEED_LABEL else WITHOUT_PROBS
        assert got[name].is_null().to_pylist() == [status in without for status in statuses], name


def test_rows_that_are_not_bad_are_scored_beside_bad_ones():
    """Bad rows don't change the results of other rows."""
    batch, statuses = odd_batch()
    got = score_batch(batch, outputs=ALL, top_k=2, on_bad_row="null")
    for row, status in enumerate(statuses):
        if status not in BAD:
            alone = score_batch(batch.slice(row, 1), outputs=ALL, top_k=2)
            assert alone.to_pylist() == got.slice(row, 1).to_pylist()


def test_masked_labels_have_an_infinite_loss():
    """A masked label has loss +inf, the last rank, and probability 0."""
    got = score_batch(batch_of(np.array([[-INF, 0.0, 1.0]], np.float32), [0]), outputs=ALL)
    row = got.to_pylist()[0]
    assert (row["loss"], row["rank"], row["probs"][0], row["log_probs"][0]) == (INF, 3, 0.0, -INF)
    assert (row["status"], row["correct"]) == ("masked_label", False)


def test_policy_drop_leaves_out_bad_rows_alone():
    """With ``drop``, bad rows are removed; the others are the same as with ``null``, in the same order."""
    batch, statuses = odd_batch()
    kept = [row for row, status in enumerate(statuses) if status not in BAD]
    for layout in ("list", "fixed", "wide"):
        options = {"outputs": ALL, "top_k": 2, "layout": layout}
        nulled = score_batch(batch, on_bad_row="null", **options).to_pylist()
        dropped = score_batch(batch, on_bad_row="drop", **options)
        assert dropped.to_pylist() == [nulled[row] for row in kept]


@pytest.mark.parametrize(
    ("logits", "label", "says"),
    [
        (None, 0, "the logits are null"),
        ([1.0, None, 2.0], 0, "the logits are null"),
        ([1.0, 2.0], 0, "2 logits, where rows have 3"),
        ([], 0, "0 logits, where rows have 3"),
        ([1.0, NAN, 2.0], 0, "NaN at class 1"),
        ([1.0, 2.0, INF], 0, "+inf at class 2"),
        ([-INF, -INF, -INF], 0, "every logit is -inf"),
        ([1.0, 2.0, 3.0], 4, "label 4 is not a class: valid labels are 0 to 2"),
        ([1.0, 2.0, 3.0], -1, "label -1 is not a class: valid labels are 0 to 2"),
        ([1.0, 2.0, 3.0], 3, "if labels count from 1, name them: --classes 1,2,3"),
    ],
)
def test_policy_error_names_the_first_bad_row(logits, label, says):
    """With ``error``, the first bad row is named, with what is wrong and the remedy."""
    good = [0.0, 1.0, 2.0]
    batch = batch_of(pa.array([good, good, logits, None], pa.list_(pa.float32())), pa.array([0, 1, label, 0]))
    with pytest.raises(BadRowError) as caught:
        score_batch(batch)
    assert str(caught.value).startswith("row 2 of the batch: ")
    assert says in str(caught.value)
    assert str(caught.value).endswith("go on: --on-bad-row null")


@pytest.mark.parametrize("odd", [name for name in ODD_LABELS if name != "bad_label"])
def test_policy_error_lets_pass_what_is_not_bad(odd):
    """Ignored, unlabelled and masked labels aren't errors."""
    batch = batch_of(pa.array([[-INF, 1.0], [0.0, 1.0]]), pa.array([ODD_LABELS[odd], 1]))
    assert score_batch(batch).num_rows == 2


def test_labels_do_not_matter_where_nobody_asks():
    """Bad labels are accepted if no output needs labels."""
    batch = batch_of(np.zeros((2, 2), np.float32), [7, -3])
    assert score_batch(batch, outputs="probs,entropy").num_rows == 2
    with pytest.raises(BadRowError, match="label 7"):
        score_batch(batch, outputs="status")


# Columns


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed", "wide"])
def test_layouts_hold_the_same_numbers(kind, layout):
    """Results are bit-identical for all layouts of logits and probabilities."""
    logits, labels = some_logits(20, 4), np.arange(20) % 4
    kinds = {"large_list": pa.large_list(pa.float32()), "fixed": pa.list_(pa.float32(), 4)}
    if kind == "wide":
        batch = pa.record_batch({f"logit_{j}": logits[:, j].copy() for j in range(4)} | {"label": labels})
    else:
        batch = batch_of(lists(logits, kinds.get(kind)), labels)
    plain = score_batch(batch_of(logits, labels), outputs="probs,log_probs,loss")
    got = score_batch(batch, outputs="probs,log_probs,loss", layout=layout)
    for name in ("probs", "log_probs"):
        if layout == "wide":
            values = np.column_stack([columns_of(got, f"{name[:-1]}_{j}") for j in range(4)])
        else:
            values = columns_of(got, name)
            assert pa.types.is_fixed_size_list(got.schema.field(name).type) == (layout == "fixed")
        assert_array_equal(values, columns_of(plain, name))
    assert got["loss"].equals(plain["loss"])


def test_the_layout_is_the_inputs_unless_asked():
    """By default, probabilities have the layout of the logits; suffixes of wide columns are the class names."""
    wide = pa.record_batch({"logit_cat": [1.0, 0.0], "logit_dog": [0.0, 1.0], "label": ["dog", "dog"]})
    got = score_batch(wide, outputs="probs,pred,loss")
    assert got.schema.names == ["label", "prob_cat", "prob_dog", "pred", "loss"]
    assert got["pred"].to_pylist() == ["cat", "dog"]
    large = score_batch(batch_of(lists(np.zeros((1, 2), np.float32), pa.large_list(pa.float32()))))
    assert large.schema.field("probs").type == pa.large_list(pa.float32())


def test_carried_columns_are_chosen_by_name():
    """All columns but the logits are carried; ``--columns`` and ``--exclude`` change that; ``*`` keeps the logits."""
    batch = pa.record_batch({"id": [1], "logits": [[1.0, 2.0]], "label": [0], "x": ["a"]})
    names = lambda **options: score_batch(batch, outputs="loss", **options).schema.names
    assert names() == ["id", "label", "x", "loss"]
    assert names(columns="x,id") == ["id", "x", "loss"]
    assert names(exclude="label,x") == ["id", "loss"]
    assert names(columns="*") == ["id", "logits", "label", "x", "loss"]
    assert names(columns="*", exclude="id") == ["logits", "label", "x", "loss"]
    assert names(columns=("logits",), prefix="new_") == ["logits", "new_loss"]
    for option in ("columns", "exclude"):
        with pytest.raises(UsageError, match=r"no column 'labl'.*did you mean 'label'"):
            names(**{option: "labl"})


def test_a_taken_name_is_refused_and_a_prefix_helps():
    """A new column never replaces a carried one."""
    batch = pa.record_batch({"logits": [[1.0, 2.0]], "probs": [0.5]})
    with pytest.raises(UsageError, match=r"a column 'probs' already.*--prefix.*--exclude probs"):
        score_batch(batch)
    assert score_batch(batch, prefix="my_").schema.names == ["probs", "my_probs"]
    assert score_batch(batch, exclude="probs").schema.names == ["probs"]
    wide = pa.record_batch({"logit_0": [1.0], "logit_1": [2.0], "prob_1": [0.5]})
    with pytest.raises(UsageError, match="a column 'prob_1' already"):
        score_batch(wide)


def test_two_columns_of_one_name_are_refused():
    """A name that occurs twice can't be carried, but can be excluded."""
    batch = pa.RecordBatch.from_arrays([lists(np.zeros((1, 2))), pa.array([1]), pa.array([2])], ["logits", "x", "x"])
    with pytest.raises(UsageError, match="two columns 'x'"):
        score_batch(batch)
    assert score_batch(batch, exclude="x").schema.names == ["probs"]


def test_nested_logits_leave_their_struct():
    """Logits inside a struct are removed from it; its other fields and its nulls stay."""
    inner = pa.StructArray.from_arrays(
        [lists(np.zeros((3, 2), np.float32)), pa.array([1, 2, 3])], ["z", "n"], mask=pa.array([False, True, False])
    )
    batch = pa.record_batch({"out": inner, "label": [0, 1, 1]})
    got = score_batch(batch, logits="out.z", outputs="probs,status", on_bad_row="null")
    assert got["out"].to_pylist() == [{"n": 1}, None, {"n": 3}]
    assert got["status"].to_pylist() == ["ok", "null_logits", "ok"]
    alone = pa.record_batch({"out": pa.StructArray.from_arrays([lists(np.zeros((1, 2)))], ["z"])})
    assert score_batch(alone, logits="out.z").schema.names == ["probs"]


def test_top_k_above_the_classes_is_refused():
    """A top_k greater than the number of classes is refused."""
    with pytest.raises(UsageError, match="3 is more than the 2 classes"):
        score_batch(batch_of(np.zeros((1, 2))), top_k=3)


# Properties of the function


def test_scoring_is_pure():
    """The same batch gives the same bytes again, and isn't changed."""
    batch, _ = odd_batch()
    before = batch.serialize().to_pybytes()
    for options in ({"on_bad_row": "null"}, {"on_bad_row": "drop"}, {"input": "probs", "on_bad_row": "null"}):
        first = score_batch(batch, outputs=ALL, top_k=2, **options)
        kept = first.serialize().to_pybytes()
        assert score_batch(batch, outputs=ALL, top_k=2, **options).equals(first)
        assert first.serialize().to_pybytes() == kept
    assert batch.serialize().to_pybytes() == before


@pytest.mark.parametrize("policy", ["error", "null", "drop"])
def test_an_empty_batch_keeps_its_schema(policy):
    """Zero rows give zero rows with the same schema, if the number of classes is known."""
    batch = batch_of(some_logits(5, 4), np.zeros(5, np.int64))
    full = score_batch(batch, outputs=ALL, top_k=2, on_bad_row=policy)
    empty = score_batch(batch.slice(0, 0), outputs=ALL, top_k=2, on_bad_row=policy, n_classes=4)
    assert empty.num_rows == 0
    assert empty.schema.equals(full.schema)
    with pytest.raises(DataError, match="--n-classes"):
        score_batch(batch.slice(0, 0))


SLICED, _ = odd_batch()
SLICED = pa.concat_batches([SLICED, batch_of(lists(some_logits(200, 3)), np.arange(200) % 3)])
WHOLE = {
    (policy, layout): score_batch(SLICED, outputs=ALL, top_k=2, on_bad_row=policy, layout=layout)
    for policy, layout in itertools.product(["null"], ["list", "fixed", "wide"])
}


@given(st.integers(0, SLICED.num_rows), st.integers(1, SLICED.num_rows), st.sampled_from(["list", "fixed", "wide"]))
def test_a_slice_is_scored_as_in_the_whole(start, length, layout):
    """The position of a row in a batch doesn't change its results."""
    rows = SLICED.slice(start, length)
    got = score_batch(rows, outputs=ALL, top_k=2, on_bad_row="null", layout=layout, n_classes=3)
    assert got.to_pylist() == WHOLE["null", layout].slice(start, length).to_pylist()


def test_limit_takes_the_first_rows():
    """``limit=N`` takes the first N rows."""
    batch = batch_of(some_logits(9, 3))
    assert score_batch(batch, limit=4).equals(score_batch(batch.slice(0, 4)))


def test_wide_columns_counted_from_one():
    """If columns are numbered from 1, so are labels, predictions and new columns."""
    logits = np.array([[3, 1, 0], [0, 1, 2], [1, 3, 0]], np.float32)
    columns = {f"logit_{i + 1}": logits[:, i] for i in range(3)}
    batch = pa.record_batch({**columns, "label": pa.array([1, 3, 1])})
    got = score_batch(batch, outputs="probs,loss,pred,correct")
    assert got.schema.names == ["label", "prob_1", "prob_2", "prob_3", "loss", "pred", "correct"]
    assert got["pred"].to_pylist() == ["1", "3", "2"]
    assert got["correct"].to_pylist() == [True, True, False]
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[[0, 1, 2], [0, 2, 0]]
    np.testing.assert_allclose(got["loss"].to_numpy(), expected, rtol=1e-6)
    with pytest.raises(BadRowError, match="row 0 of the batch: label 0"):
        score_batch(pa.record_batch({**columns, "label": pa.array([0, 1, 2])}))


@pytest.mark.parametrize("given", [{"fail_if": "bad_rows > 0"}, {"on_bad_row": "drop", "rejects": "r.parquet"}])
def test_what_a_batch_cannot_do(given):
    """Options that need files or the end of the input are refused."""
    with pytest.raises(UsageError, match="one batch cannot do that; leave it out, or use score"):
        score_batch(pa.record_batch({"logits": [[1.0, 2.0]]}), **given)


def test_a_batch_is_a_batch_or_a_table():
    """Other input types are refused with a remedy, and so is an options object together with keyword arguments."""
    table = pa.table({"logits": [[1.0, 2.0]]})
    with pytest.raises(UsageError, match=r"not a dict; use batchmax\.scan"):
        score_batch({"logits": [[1.0, 2.0]]})
    with pytest.raises(UsageError, match="both options and 'temperature'"):
        score_batch(table.to_batches()[0], ScoreOptions(), temperature=100, typo=3)


def test_a_table_is_scored_as_one_batch():
    """The chunks of a table don't change classes, draws, limits or the numbers of bad rows."""
    logits = [None, None, [1.0, 2.0, 0.5], [0.3, 0.1, 0.2], [2.0, 0.0, 1.0]]
    batch = pa.record_batch({"logits": pa.array(logits, pa.list_(pa.float32())), "label": [0, 0, 0, 1, 7]})
    table = pa.Table.from_batches([batch.slice(0, 1), batch.slice(1, 2), batch.slice(3)])
    given = {"outputs": "probs,loss,sample,status", "on_bad_row": "null"}
    for limit in (None, 4, 1, 0):
        got = score_batch(table, limit=limit, **given)
        assert isinstance(got, pa.Table)
        assert got.to_pylist() == score_batch(batch, limit=limit, **given).to_pylist()
    with pytest.raises(BadRowError, match="row 4 of the batch: label 7"):
        score_batch(pa.concat_tables([table.slice(2, 2), table.slice(2)]))
    empty = score_batch(table.slice(0, 0), n_classes=3)
    assert (empty.num_rows, empty.schema.names) == (0, ["label", "probs", "loss"])


def test_the_margin_of_a_tie_has_no_sign():
    """The margin of two equal largest logits is 0.0, not -0.0."""
    got = score_batch(pa.record_batch({"logits": [[1.0, 1.0, 0.0]]}), outputs="margin")
    assert str(got["margin"][0].as_py()) == "0.0"

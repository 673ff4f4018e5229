"""Labels of multi-label rows: every kind of column, and how lists of integers are read."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from batchmax.columns.job import plan_scoring
from batchmax.columns.labels import read_labels
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.statuses import Status

OK, BAD, NONE = Status.OK, Status.BAD_LABEL, Status.UNLABELLED
NAN = np.nan
NAMES = ("cat", "dog", "emu")


def plan(columns, n_classes=3, metadata=None, **options):
    """Return the planned job of some columns, with logits of ``n_classes`` classes added, and the batch."""
    n = len(next(iter(columns.values())))
    logits = pa.array([[0.0] * n_classes] * n, pa.list_(pa.float32()))
    batch = pa.record_batch({**({} if "logits" in columns else {"logits": logits}), **columns})
    batch = batch.replace_schema_metadata(metadata)
    job = plan_scoring(batch.schema, ScoreOptions(**options), n_classes)
    return job.with_label_format(batch.slice(0, 1000) if n else None), batch


def read(columns, n_classes=3, **options):
    """Return the kind of the labels, their targets, and their statuses."""
    columns = columns if isinstance(columns, dict) else {"labels": columns}
    job, batch = plan(columns, n_classes, **options)
    labels = read_labels(batch, job.label, n_classes, np.dtype("f8"), job.options.ignore_index)
    assert labels.indices is None
    assert job.options.activation_name == "sigmoid"
    assert not labels.targets.flags.writeable
    status = np.full(batch.num_rows, OK) if labels.status is None else labels.status
    return job.label.kind, labels.targets, status.tolist()


def check(columns, kind, targets, status=None, **options):
    """Check what labels are read as; rows that aren't OK have targets of 0."""
    found = read(columns, **options)
    status = [OK] * len(targets) if status is None else status
    assert (found[0], found[2]) == (kind, status)
    np.testing.assert_array_equal(found[1][np.array(status) == OK], [row for row in targets if row is not None])


TYPES = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]


@pytest.mark.parametrize("make", TYPES)
@pytest.mark.parametrize("item", [pa.int8(), pa.int64(), pa.uint8(), pa.uint64()])
def test_lists_of_0_and_1_for_each_class_are_k_hot(make, item):
    """Lists of integers are K-hot if the first rows have only 0 and 1 for each class; nulls are unlabelled."""
    rows = [[1, 0, 1], [0, 0, 0], None, [1, 1, 1]]
    for start in (0, 1):
        array = pa.array([[0, 1, 0]] * start + rows, make(item)).slice(start)
        check(array, "khot", [[1, 0, 1], [0, 0, 0], None, [1, 1, 1]], [OK, OK, NONE, OK])


@pytest.mark.parametrize("make", TYPES)
@pytest.mark.parametrize("item", [pa.int8(), pa.int64(), pa.uint8(), pa.uint64()])
def test_other_lists_of_integers_are_indices(make, item):
    """Otherwise they are indices; an empty list is a row without any right class."""
    rows = [[2], [], None, [1, 0], [0]]
    for start in (0, 1):
        array = pa.array([[1]] * start + rows, make(item)).slice(start)
        check(array, "indices", [[0, 0, 1], [0, 0, 0], None, [1, 1, 0], [1, 0, 0]], [OK, OK, NONE, OK, OK])


def test_bool_and_fixed_sizes_are_k_hot():
    """Lists of bool and lists of a fixed size have a value for each class; a missing one has no target."""
    rows = [[True, None, False], None, [None, None, None], [True, True, True]]
    targets = [[1, NAN, 0], None, None, [1, 1, 1]]
    for kind in (pa.list_(pa.bool_()), pa.large_list(pa.bool_()), pa.list_(pa.bool_(), 3), pa.list_(pa.int16(), 3)):
        values = (
            rows
            if pa.types.is_boolean(kind.value_type)
            else [r and [b if b is None else int(b) for b in r] for r in rows]
        )
        check(pa.array(values, kind), "khot", targets, [OK, NONE, NONE, OK])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1, 0, 1], [0, 0, 1]]))
    check(tensors, "khot", [[1, 0, 1], [0, 0, 1]])
    check(pa.array([[0, -100, -100], [1, 0, -100]], pa.list_(pa.int8(), 3)), "indices", [[1, 0, 0], [1, 1, 0]],
          label_format="indices")  # fmt: skip


@pytest.mark.parametrize("item", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_names(item):
    """Lists of text are class names, also dictionary-encoded; nulls in them don't count."""
    rows = [["emu"], [], None, ["dog", "cat"], ["yak"], ["cat", "cat"], ["cat", None]]
    if item == pa.binary():
        rows = [row and [name and name.encode() for name in row] for row in rows]
    targets = [[0, 0, 1], [0, 0, 0], None, [1, 1, 0], None, None, [1, 0, 0]]
    check(pa.array(rows, pa.list_(item)), "names", targets, [OK, OK, NONE, OK, BAD, BAD, OK], classes=NAMES)


def test_numbers_that_are_names():
    """If all class names are numbers, lists of other integers than 0 and 1 are looked up as names."""
    array = pa.array([[30], [10, 20], [0], [-100, 10]])
    check(array, "indices", [[0, 0, 1], [1, 1, 0], None, [1, 0, 0]], [OK, OK, BAD, OK], classes=("10", "20", "30"))
    check(pa.array([[1, 0, 0]] * 2), "khot", [[1, 0, 0]] * 2, classes=("10", "20", "30"))


def test_class_labels_are_indices():
    """The items of a Hugging Face ClassLabel are indices, and their names are the names of the classes."""
    for feature in ([{"_type": "ClassLabel", "names": NAMES}],
                    {"_type": "List", "feature": {"_type": "ClassLabel", "names": NAMES}}):  # fmt: skip
        metadata = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
        job, _ = plan({"labels": pa.array([[0, 1], [1]])}, metadata=metadata)
        assert (job.label.kind, job.classes, job.options.label_format) == ("indices", NAMES, "indices")


@pytest.mark.parametrize(
    ("row", "given", "status"),
    [
        ([1, 0], "khot", BAD),
        ([1, 0, 2], "khot", BAD),
        ([], "khot", BAD),
        ([1, 0, -1], "khot", BAD),
        ([1, -100, None], "khot", OK),
        ([-100, -100, None], "khot", NONE),
        ([3], "indices", BAD),
        ([-1], "indices", BAD),
        ([1, 1], "indices", BAD),
        ([0, 0, 1], "indices", BAD),
        ([2**63], "indices", BAD),
        ([0, -100, None], "indices", OK),
        ([-100], "indices", OK),
    ],
)
def test_rows_that_contradict_the_format_are_bad(row, given, status):
    """Other lengths and values, indices out of range, and classes twice are bad labels; ignored entries don't count."""
    if 2**63 in row:
        assert read(pa.array([row], pa.list_(pa.uint64())), label_format=given)[2] == [status]
        return
    assert read(pa.array([row], pa.list_(pa.int64())), label_format=given)[2] == [status]


def test_no_row_is_valid_in_both_formats():
    """For three classes and more, no complete list is valid as K-hot and as indices."""
    for k in (3, 4, 7):
        rows = pa.array([[int(bit) for bit in f"{number:0{k}b}"] for number in range(2**k)])
        assert set(read(rows, k, label_format="khot")[2]) == {OK}
        assert set(read(rows, k, label_format="indices")[2]) == {BAD}


def test_the_first_1000_rows_decide():
    """A list after the first 1,000 rows doesn't change how lists are read."""
    array = pa.array([[1, 0, 0]] * 1000 + [[2]])
    kind, _, status = read(array)
    assert (kind, status[-1]) == ("khot", BAD)
    kind, _, status = read(array.slice(1))
    assert (kind, set(status[:-1]), status[-1]) == ("indices", {BAD}, OK)
    assert read(pa.array([None, None], pa.list_(pa.int8())))[0] == "khot"
    assert read(pa.array([], pa.list_(pa.int8())))[0] == "khot"


def test_targets_of_floats():
    """With sigmoid, lists of floats have a target from 0 to 1 for each class; null and NaN are missing."""
    rows = [[0.25, 1, 0], [None, NAN, 0.5], [1.5, 0, 0], [-0.5, 0, 0], [0.5], None, [NAN, NAN, NAN], [-100, 1, 1]]
    targets = [[0.25, 1, 0], [NAN, NAN, 0.5], None, None, None, None, None, [NAN, 1, 1]]
    for item in (pa.float16(), pa.float32(), pa.float64()):
        array = pa.array([None if row is None else [x if x is None else np.float16(x) for x in row] for row in rows],
                         pa.list_(item))  # fmt: skip
        check(array, "distribution", targets, [OK, OK, BAD, BAD, BAD, NONE, NONE, OK], activation="sigmoid")
    job, _ = plan({"labels": pa.array([[0.25, 0.75, 0]])})
    assert (job.label.kind, job.label.sums_to_1, job.options.activation) == ("distribution", True, None)


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64()])
def test_columns_of_classes(kind):
    """One column per class is matched with the classes by its name; nulls, NaN and ignored labels are missing."""
    values = {"label_b": [0, 1, None, None], "label_a": [1, 1, 0, None], "label_c": [0, 0, 1, None]}
    columns = {name: pa.array(column, pa.int8()).cast(kind) for name, column in values.items()}
    targets = [[1, 0, 0], [1, 1, 0], [0, NAN, 1], None]
    check(columns, "khot", targets, [OK, OK, OK, NONE], label="label_*", classes=("a", "b", "c"))
    logits = {f"logit_{name}": pa.array([0.0] * 4, pa.float32()) for name in "abc"}
    check({**columns, **logits, "logits": pa.nulls(4)}, "khot", targets, [OK, OK, OK, NONE], label="label_*",
          logits="logit_*")  # fmt: skip
    numbered = {f"y{number:02}": column for number, column in enumerate(columns.values())}
    check(numbered, "khot", [[0, 1, 0], [1, 1, 0], [NAN, 0, 1], None], [OK, OK, OK, NONE], label="y*")
    if kind != pa.bool_():
        bad = {**columns, "label_c": pa.array([2, 0, 100, 1], kind)}
        assert read(bad, label="label_*", classes=("a", "b", "c"), ignore_index=100)[2] == [BAD, OK, OK, OK]


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"labels": [[1, 0]]}, {"n": 2}, ["--label-format", "K-hot or class indices", "--label-format khot"]),
        ({"labels": [[0, None, -100]]}, {}, ["--label-format", "can be K-hot or class indices"]),
        ({"labels": [["a"]]}, {}, ["holds text", "--classes A,B,C"]),
        ({"labels": [[1]]}, {"activation": "softmax"}, ["--activation", "multi-label", "lists of floats"]),
        ({"labels": [[1]]}, {"activation": "taylor"}, ["--activation", "activation taylor has one class"]),
        ({"labels": [1]}, {"label_format": "khot"}, ["--label-format", "not lists of integers", "leave it out"]),
        ({"labels": [[True]]}, {"label_format": "indices"}, ["--label-format", "not lists of integers"]),
        ({"labels": [[0.5]]}, {"label_format": "khot"}, ["--label-format", "not lists of integers"]),
        ({"labels": pa.array([[1, 0]], pa.list_(pa.int8(), 2))}, {}, ["2 values", "3 classes", "indices"]),
        ({"y_a": [1], "y_b": [0]}, {"label": "y_*", "classes": NAMES}, ["2 columns", "class 'cat' has no column"]),
        ({"y_0": [1], "y_1": [0], "y_2": [0], "y_02": [0]}, {"label": "y_*"}, ["4 columns", "of the same class"]),
        ({"y_0": [1], "y_1": [0], "y_2": [0], "y_x": [0]}, {"label": "y_*"}, ["'y_x' is not of a class"]),
        ({"y_0": ["a"], "y_1": ["b"], "y_2": ["c"]}, {"label": "y_*"}, ["column 'y_0' (string) cannot hold"]),
        ({"y": [1]}, {"label": "z_*"}, ["no column matches 'z_*'", "--label 'label_*'"]),
        ({"labels": [[1]]}, {"outputs": ("pred",)}, ["--outputs", "sigmoid has no pred", "preds"]),
        ({"labels": [[1]]}, {"top_k": 2}, ["--top-k", "sigmoid has no most probable classes"]),
        ({"labels": [[1]]}, {"loss": "cross_entropy"}, ["--loss", "'sigmoid' does not support loss"]),
        ({"labels": [[1]]}, {"label_smoothing": 0.1}, ["--loss", "binary_cross_entropy supports no label smoothing"]),
        ({"labels": [1]}, {"pos_weight": (1.0,) * 3}, ["--pos-weight", "cross_entropy has no positive weights"]),
        ({"labels": [[1]]}, {"pos_weight": (1.0, 2.0)}, ["--pos-weight", "2 weights for 3 classes"]),
        ({"labels": [[1]]}, {"input": "probs"}, ["--activation", "computed from logits, not from probs"]),
        ({"labels": [1]}, {"outputs": ("losses",)}, ["--outputs", "softmax has no losses", "multi-label"]),
        ({"labels": [1]}, {"loss": "binary_cross_entropy"}, ["--loss", "'softmax' does not support loss"]),
    ],
)
def test_refusals(columns, options, words):
    """What contradicts the type of the labels is an error that names the option and a remedy."""
    columns = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    with pytest.raises(UsageError) as caught:
        plan(columns, options.pop("n", 3), **options)
    assert caught.value.remedy
    for word in words:
        assert word in str(caught.value)


def test_tokens_of_sequences_have_one_label():
    """Lists of labels for each token of a sequence are refused."""
    columns = {"logits": pa.array([[[0.0, 1.0, 2.0]]]), "labels": pa.array([[[1, 2]]])}
    with pytest.raises(UsageError, match="tokens of sequences can't have several labels"):
        plan(columns)
    columns = {"logits": columns["logits"], "labels": pa.array([[1]])}
    with pytest.raises(UsageError, match="tokens of sequences have no preds"):
        plan(columns, activation="sigmoid", outputs=("preds",))

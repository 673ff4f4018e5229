"""Tests the reading of labels of every type, and the source of class names."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.columns.class_names import check_classes, find_classes
from batchmax.columns.find_logits import find_logits
from batchmax.columns.labels import find_label, read_labels
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.statuses import Status
from tests.support.paths import DATA

OK, BAD, NONE = Status.OK, Status.BAD_LABEL, Status.UNLABELLED
NAMES = ("cat", "dog", "emu")
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.uint32(), pa.large_string()),
]


def read(array, classes=None, n_classes=3, dtype="f4", ignore_index=-100, **options):
    batch = pa.record_batch({"label": array})
    label = find_label(batch.schema, ScoreOptions(**options), classes, n_classes)
    labels = read_labels(batch, label, n_classes, np.dtype(dtype), ignore_index)
    if labels.indices is not None:
        assert labels.targets is None
        assert labels.indices.dtype == np.int64
        assert labels.indices.shape == (len(array),)
        assert labels.indices.flags.aligned
        if labels.status is not None:
            assert not labels.indices[labels.status != OK].any()
    if labels.status is not None:
        assert labels.status.dtype == np.uint8
        assert (labels.status != OK).any()
    return labels


def refusal(fields, classes=None, **options):
    with pytest.raises(UsageError) as caught:
        find_label(pa.schema(list(fields.items())), ScoreOptions(**options), classes, 3)
    assert caught.value.remedy
    return str(caught.value)


def halves(values, arrow_type):
    """Return an Arrow array; pyarrow makes float16 only from NumPy's numbers."""
    if arrow_type == pa.float16():
        values = [None if value is None else np.float16(value) for value in values]
    return pa.array(values, arrow_type)


@pytest.mark.parametrize("arrow_type", [*INTEGERS, *FLOATS, pa.dictionary(pa.int8(), pa.int64())], ids=str)
@pytest.mark.parametrize("start", [0, 1])
def test_indices(arrow_type, start):
    """Labels of every numeric type are indices, and null has the status UNLABELLED; the range isn't checked."""
    labels = read(halves([2, 0, 1, 99], arrow_type).slice(start))
    assert labels.status is None
    np.testing.assert_array_equal(labels.indices, [2, 0, 1, 99][start:])
    labels = read(halves([2, None, 1, None], arrow_type).slice(start))
    np.testing.assert_array_equal(labels.status, [OK, NONE, OK, NONE][start:])
    np.testing.assert_array_equal(labels.indices, [2, 0, 1, 0][start:])
    assert read(halves([], arrow_type)).indices.shape == (0,)


def test_dictionary_codes_are_no_indices():
    """Labels in a dictionary array are its values, numbers or strings, not its codes."""
    codes = pa.array([0, 1, 0, None], pa.int8())
    labels = read(pa.DictionaryArray.from_arrays(codes, pa.array([2, 1])))
    np.testing.assert_array_equal(labels.indices, [2, 1, 2, 0])
    np.testing.assert_array_equal(labels.status, [OK, OK, OK, NONE])
    labels = read(pa.DictionaryArray.from_arrays(codes, pa.array(["emu", "cat"])), NAMES)
    np.testing.assert_array_equal(labels.indices, [2, 0, 2, 0])
    labels = read(pa.DictionaryArray.from_arrays(codes, pa.array(["yak", None])), NAMES)
    np.testing.assert_array_equal(labels.status, [BAD, NONE, BAD, NONE])


def test_int64_is_a_view():
    """Int64 labels without nulls are a view of Arrow's memory."""
    array = pa.array([2, 0, 1])
    assert read(array).indices.ctypes.data == array.buffers()[1].address


def test_odd_floats():
    """A NaN label is UNLABELLED; a float that isn't an integer or doesn't fit int64 is BAD_LABEL."""
    labels = read(pa.array([1.0, np.nan, 0.5, np.inf, -np.inf, 2.0**63, -100.0, -0.0, None]))
    np.testing.assert_array_equal(labels.status, [OK, NONE, BAD, BAD, BAD, BAD, OK, OK, NONE])
    np.testing.assert_array_equal(labels.indices, [1, 0, 0, 0, 0, 0, -100, 0, 0])


def test_large_unsigned():
    """A uint64 label above the int64 range is BAD_LABEL; it doesn't wrap around to the ignore index."""
    labels = read(pa.array([2**64 - 100, 2**63, 2**63 - 1, 1, None], pa.uint64()))
    np.testing.assert_array_equal(labels.status, [BAD, BAD, OK, OK, NONE])
    np.testing.assert_array_equal(labels.indices, [0, 0, 2**63 - 1, 1, 0])


def test_booleans_and_nulls():
    """Boolean labels are 1 and 0; in a column of type null all rows are UNLABELLED."""
    labels = read(pa.array([True, False, None, True]).slice(1))
    np.testing.assert_array_equal(labels.indices, [0, 0, 1])
    np.testing.assert_array_equal(labels.status, [OK, NONE, OK])
    np.testing.assert_array_equal(read(pa.nulls(2)).status, [NONE, NONE])


@pytest.mark.parametrize("arrow_type", TEXTS, ids=str)
@pytest.mark.parametrize("start", [0, 2])
def test_names(arrow_type, start):
    """String labels are looked up in the class names; an unknown name is BAD_LABEL, a null UNLABELLED."""
    rows = ["dog", "cat", "emu", None, "yak", "dog", ""]
    if "binary" in str(arrow_type):
        rows = [None if row is None else row.encode() for row in rows]
    labels = read(pa.array(rows, arrow_type).slice(start), NAMES)
    np.testing.assert_array_equal(labels.indices, [1, 0, 2, 0, 0, 1, 0][start:])
    np.testing.assert_array_equal(labels.status, [OK, OK, OK, NONE, BAD, OK, BAD][start:])
    labels = read(pa.array(rows[:3], arrow_type), NAMES)
    assert labels.status is None
    np.testing.assert_array_equal(labels.indices, [1, 0, 2])
    assert labels.ignore_index == -100
    assert read(pa.array([], arrow_type), NAMES).indices.shape == (0,)


@pytest.mark.parametrize("arrow_type", [pa.int64(), pa.uint8(), pa.float32(), pa.string()], ids=str)
def test_names_that_are_numbers(arrow_type):
    """If all class names are integers, numeric and string labels are looked up as names."""
    classes = ("3", "07", "1")
    rows = [7, 3, 1, None, 2, 0]
    if arrow_type == pa.string():
        rows = ["07", "3", "1", None, "2", "0"]
    labels = read(pa.array(rows, arrow_type), classes)
    np.testing.assert_array_equal(labels.indices, [1, 0, 2, 0, 0, 0])
    np.testing.assert_array_equal(labels.status, [OK, OK, OK, NONE, BAD, BAD])


def test_ignored_number_among_names():
    """If class names are integers, the ignore index is a name, not the index of a class."""
    labels = read(pa.array([1, 0, 2, 9, None]), ("1", "2", "3"), ignore_index=0)
    np.testing.assert_array_equal(labels.status, [OK, OK, OK, BAD, NONE])
    np.testing.assert_array_equal(labels.indices == labels.ignore_index, [False, True, False, False, False])
    np.testing.assert_array_equal(labels.indices[[0, 2]], [0, 1])


def test_names_that_are_not_all_numbers():
    """If any class name isn't an integer, integer labels are indices."""
    np.testing.assert_array_equal(read(pa.array([1, 0]), ("3", "7", "none")).indices, [1, 0])


@pytest.mark.parametrize(
    "arrow_type",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 3)],
    ids=str,
)
def test_distributions(arrow_type):
    """Labels in lists are soft targets, read in the dtype of the logits."""
    rows = [[0.25, 0.5, 0.25], [0, 1, 0]]
    for dtype in ("f4", "f8"):
        labels = read(pa.array(rows, arrow_type), dtype=dtype)
        assert labels.indices is None
        assert labels.status is None
        assert labels.targets.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(labels.targets, rows)
    labels = read(pa.array([None, *rows, None], arrow_type))
    np.testing.assert_array_equal(labels.status, [NONE, OK, OK, NONE])
    assert read(pa.array([], arrow_type)).targets.shape == (0, 3)


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ([0.5, 0.5, 0.0009], OK),
        ([0.5, 0.4991, 0], OK),
        ([0.5, 0.5, 0.0011], BAD),
        ([0.5, 0.4989, 0], BAD),
        ([1.5, -0.5, 0], BAD),
        ([0, 0, 0], BAD),
        ([np.nan, 0.5, 0.5], BAD),
        ([np.inf, 0, 0], BAD),
        ([-np.inf, np.inf, 1], BAD),
        ([1e300, 0, 0], BAD),
        ([0.5, 0.5], BAD),
        ([0.25] * 4, BAD),
        ([0.5, None, 0.5], BAD),
        ([], BAD),
        (None, NONE),
    ],
)
def test_bad_distributions(row, status):
    """A soft target must be finite, not negative, of length K, and sum to 1 within 0.001; otherwise it is BAD_LABEL."""
    good = [0.5, 0.25, 0.25]
    labels = read(pa.array([good, row, good], pa.list_(pa.float64())))
    if status == OK:
        assert labels.status is None
    else:
        np.testing.assert_array_equal(labels.status, [OK, status, OK])
    np.testing.assert_array_equal(labels.targets[[0, 2]], [good, good])


def test_which_column():
    """The default label column is 'label', 'labels' or 'target', in this order, unless it is the logits column."""
    every = {"target": pa.int8(), "labels": pa.int8(), "label": pa.int8(), "y": pa.int8()}

    def name(fields, **options):
        label = find_label(pa.schema(list(fields.items())), ScoreOptions(**options), None, 3)
        return label and label.name

    assert name(every) == "label"
    del every["label"]
    assert name(every) == "labels"
    assert name({"target": pa.int8()}) == "target"
    assert name({"y": pa.int8()}) is None
    assert name(every, label="y") == "y"
    assert name(every, label="none") is None
    assert name(every, logits="labels") == "target"
    assert name({"m": pa.struct([("y", pa.int8())])}, label="m.y") == "m.y"


def test_nested_labels():
    """A label column may be a field of a struct; a null struct or field is UNLABELLED."""
    batch = pa.record_batch({"m": pa.array([{"y": 2}, None, {"y": None}])})
    label = find_label(batch.schema, ScoreOptions(label="m.y"), None, 3)
    labels = read_labels(batch, label, 3, np.dtype("f4"), -100)
    np.testing.assert_array_equal(labels.status, [OK, NONE, NONE])


def test_why():
    """``why`` says which label column was chosen, and whether by its name or by --label."""
    schema = pa.schema([("label", pa.int64())])
    assert find_label(schema, ScoreOptions(), None, 3).why == "column 'label' (int64), by its name"
    assert find_label(schema, ScoreOptions(label="label"), None, 3).why == (
        "column 'label' (int64), named with --label"
    )


@pytest.mark.parametrize(
    ("fields", "classes", "options", "words"),
    [
        (
            {"labels": pa.int8()},
            None,
            {"label": "lables"},
            ["--label: there is no column 'lables'", "'labels'?"],
        ),
        (
            {"label": pa.string()},
            None,
            {},
            ["column 'label' (string) holds text", "--classes A,B,C", "--label none"],
        ),
        ({"label": pa.dictionary(pa.int8(), pa.string())}, None, {}, ["holds text"]),
        (
            {"label": pa.timestamp("us")},
            None,
            {},
            ["'label' (timestamp[us]) cannot hold labels", "--label none"],
        ),
        ({"label": pa.list_(pa.list_(pa.int8()))}, None, {}, ["--label: column 'label'", "lists of lists"]),
        ({"label": pa.list_(pa.string())}, None, {}, ["holds text", "--classes A,B,C"]),
        ({"label": pa.int8()}, ("3", "03"), {}, ["two class names are the same number"]),
    ],
)
def test_refusals(fields, classes, options, words):
    """An invalid label column raises UsageError with what was found and a remedy, on one line."""
    message = refusal(fields, classes, **options)
    assert "\n" not in message
    for word in words:
        assert word in message


def hugging_face(names, column="label", **fields):
    feature = {"names": names, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {column: feature}}})}
    fields = {"logits": pa.list_(pa.float32()), "label": pa.int64(), **fields}
    return pa.schema(list(fields.items()), metadata=metadata)


def classes_of(schema, **options):
    options = ScoreOptions(**options)
    return find_classes(schema, options, find_logits(schema, options))


def test_where_classes_come_from():
    """Class names are from --classes, else the logits columns' names, else the ClassLabel of the label column."""
    schema = hugging_face(["a", "b"])
    assert classes_of(schema) == (("a", "b"), "the Hugging Face ClassLabel of column 'label'")
    assert classes_of(schema, classes=("x", "y")) == (("x", "y"), "--classes")
    assert classes_of(schema, label="none") == (None, "")
    assert classes_of(hugging_face(["a", "b"], "other")) == (None, "")
    wide = hugging_face(["a", "b"], p_u=pa.float32(), p_v=pa.float32())
    assert classes_of(wide, logits="p_*") == (("u", "v"), "the names of the logits columns")
    assert classes_of(schema.remove_metadata()) == (None, "")


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{", b"[]", b"null", b'{"info": {"features": {"label": {"_type": "Value", "names": ["a"]}}}}'],
)
def test_metadata_of_another_make(metadata):
    """Hugging Face metadata of another form is ignored."""
    assert classes_of(hugging_face([]).with_metadata({b"huggingface": metadata})) == (None, "")
    assert classes_of(hugging_face([1, 2])) == (None, "")


def test_names_twice_in_the_metadata():
    """Duplicate class names in Hugging Face metadata raise UsageError."""
    with pytest.raises(UsageError, match=r"has the name 'a' twice.*--classes"):
        classes_of(hugging_face(["a", "b", "a"]))


def test_class_labels_are_indices():
    """Labels of a Hugging Face ClassLabel are indices even if the class names are integers."""
    schema = hugging_face(["1990", "1991"])
    classes, _ = classes_of(schema)
    assert find_label(schema, ScoreOptions(), classes, 3).kind == "index"
    assert find_label(schema, ScoreOptions(), ("1991", "1990"), 3).kind == "name"


def test_check_classes():
    """If the numbers of class names and classes differ, UsageError gives both."""
    check_classes(None, 3)
    check_classes(NAMES, 3)
    with pytest.raises(UsageError, match="--classes: 3 class names, but the logits have 1,000 classes; "):
        check_classes(NAMES, 1000)
    with pytest.raises(UsageError, match="1 class name, but the logits have 2 classes; "):
        check_classes(("a",), 2)


@pytest.mark.parametrize("kind", ["dictionary", "string", "distribution"])
def test_files(kind):
    """Digit labels stored as strings or a dictionary equal the integer labels; soft ones agree for over 90% of rows."""
    path = DATA / "labels" / f"digits_{kind}.parquet"
    classes = tuple((DATA / "labels" / "classes.txt").read_text().split())
    plain = pq.read_table(DATA / "layouts" / "digits_list.parquet")["label"].to_numpy()
    table = pq.read_table(path).combine_chunks()
    label = find_label(table.schema, ScoreOptions(), classes, 3)
    labels = read_labels(table.to_batches()[0], label, 10, np.dtype("f4"), -100)
    if kind == "distribution":
        found = None if labels.status is None else np.unique(labels.status)
        assert found is None
        assert (labels.targets.argmax(axis=1) == plain[: len(labels.targets)]).mean() > 0.9
    else:
        assert labels.status is None
        np.testing.assert_array_equal(labels.indices, plain[: len(labels.indices)])


def test_another_number_of_names_than_classes_asked_for():
    """If --n-classes differs from the number of class names, UsageError says where the names are from."""
    schema = pa.schema([("logits", pa.list_(pa.float32()))])
    options = ScoreOptions(classes=tuple("abcdefghij"), n_classes=9)
    with pytest.raises(
        UsageError,
        match=r"^--n-classes: 9 given, but there are 10 class names, from --classes; leave it out, or give 10",
    ):
        find_classes(schema, options, find_logits(schema, options))
    options = ScoreOptions(classes=tuple("abcdefghij"), n_classes=10)
    assert find_classes(schema, options, find_logits(schema, options)) == (options.classes, "--classes")


def test_class_label_names_go_before_numbers_of_columns():
    """ClassLabel names are preferred to numbers in column names, and names that are words to ClassLabel names.

    Labels stay indices from 0, whatever number the columns start at.
    """
    feature = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}}
    metadata = {b"huggingface": json.dumps(feature).encode()}
    for suffixes, names in ((("1", "2"), ("a", "b")), (("x", "y"), ("x", "y"))):
        fields = [*((f"logit_{suffix}", pa.float32()) for suffix in suffixes), ("label", pa.int64())]
        schema = pa.schema(fields, metadata)
        classes, _ = find_classes(schema, ScoreOptions(), find_logits(schema, ScoreOptions()))
        assert classes == names
        assert find_label(schema, ScoreOptions(), classes, 3).kind == "index"

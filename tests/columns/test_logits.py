"""Finding the columns of logits in a schema, and the errors if they can't be found."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchmax.columns.find_logits import find_logits
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions

F4 = pa.list_(pa.float32())
SPARK = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)


def find(fields, **options):
    return find_logits(pa.schema(list(fields.items())), ScoreOptions(**options))


def refusal(fields, **options):
    with pytest.raises(UsageError) as caught:
        find(fields, **options)
    assert caught.value.remedy, "every message ends in something to do"
    return str(caught.value)


@pytest.mark.parametrize(
    ("arrow_type", "options", "layout", "n_classes", "dtype", "output"),
    [
        (pa.list_(pa.float16()), {}, "list", None, "f4", "list"),
        (pa.list_(pa.float32()), {}, "list", None, "f4", "list"),
        (pa.list_(pa.float64()), {}, "list", None, "f8", "list"),
        (pa.list_(pa.int8()), {}, "list", None, "f8", "list"),
        (pa.list_(pa.uint64()), {}, "list", None, "f8", "list"),
        (pa.list_view(pa.float32()), {}, "list", None, "f4", "list"),
        (pa.large_list(pa.float32()), {}, "large_list", None, "f4", "large_list"),
        (pa.list_(pa.float32(), 7), {}, "fixed", 7, "f4", "fixed"),
        (pa.fixed_shape_tensor(pa.float64(), [7]), {}, "tensor", 7, "f8", "fixed"),
        (pa.binary(), {"logits_dtype": "float32"}, "binary", None, "f4", "list"),
        (pa.large_binary(), {"logits_dtype": "bfloat16"}, "binary", None, "f4", "list"),
        (pa.binary(28), {"logits_dtype": "float32"}, "binary", 7, "f4", "list"),
        (pa.binary(28), {"logits_dtype": "float16"}, "binary", 14, "f4", "list"),
        (pa.list_(pa.uint16()), {"logits_dtype": "bfloat16"}, "uint16", None, "f4", "list"),
        (pa.large_list(pa.uint16()), {"logits_dtype": "float16"}, "uint16", None, "f4", "list"),
        (pa.list_(pa.uint16(), 3), {"logits_dtype": "float16"}, "uint16", 3, "f4", "list"),
        (SPARK, {}, "spark", None, "f8", "list"),
        (pa.dictionary(pa.int32(), F4), {}, "list", None, "f4", "list"),
    ],
)
def test_types(arrow_type, options, layout, n_classes, dtype, output):
    """Every accepted type has its layout, number of classes, computed type and default output layout."""
    found = find({"id": pa.int64(), "logits": arrow_type}, **options)
    assert found.names == ("logits",)
    assert (found.layout, found.n_classes, found.output_layout) == (layout, n_classes, output)
    assert found.dtype == np.dtype(dtype)
    assert found.why.startswith("column 'logits' (")
    assert found.why.endswith(", by its name")


def test_why_is_readable():
    """The note about the choice of columns shows types without names of nested fields."""
    assert find({"logits": pa.list_(pa.field("element", pa.float32()))}).why == (
        "column 'logits' (list<float>), by its name"
    )


def test_order_of_search():
    """A column 'logits' is preferred to 'logit_*', and that to the only list of floats."""
    wide = {"logit_0": pa.float32(), "logit_1": pa.float32()}
    assert find({"scores": F4, **wide, "logits": F4}).names == ("logits",)
    assert find({"scores": F4, **wide}).names == ("logit_0", "logit_1")
    assert find({"scores": F4, "ids": pa.list_(pa.int64()), "id": pa.int64()}).names == ("scores",)
    assert find({"scores": F4, "other": F4}, logits="other").names == ("other",)


def test_targets_are_not_taken_for_logits():
    """The label column isn't taken for logits, even if it is a list of floats."""
    assert find({"scores": F4, "labels": F4}).names == ("scores",)
    assert find({"scores": F4, "soft": F4}, label="soft").names == ("scores",)


def test_nested():
    """Fields of structs are named with dots; a top-level column with a dot in its name is preferred."""
    outputs = pa.struct([("logits", F4), ("deep", pa.struct([("z", pa.list_(pa.float64(), 3))]))])
    assert find({"outputs": outputs}, logits="outputs.logits").names == ("outputs.logits",)
    assert find({"outputs": outputs}, logits="outputs.deep.z").n_classes == 3
    assert (
        find({"outputs": outputs, "outputs.logits": pa.list_(pa.float32(), 5)}, logits="outputs.logits").n_classes == 5
    )
    fields = pa.struct([("logit_1", pa.float32()), ("logit_0", pa.float32())])
    assert find({"o": fields}, logits="o.logit_*").names == ("o.logit_0", "o.logit_1")


def test_wide_is_sorted_by_number():
    """Columns of the wide layout are sorted by number, with or without leading zeros."""
    found = find({f"logit_{i}": pa.float32() for i in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)})
    assert found.names == tuple(f"logit_{i}" for i in range(11))
    assert found.suffixes == tuple(str(i) for i in range(11))
    assert (found.class_names, found.n_classes, found.output_layout) == ((), 11, "wide")
    assert found.why == "11 columns 'logit_0' … 'logit_10' (float), one per class"
    assert find({f"z{i:02}": pa.float64() for i in range(3)}, logits="z*").suffixes == ("00", "01", "02")


def test_wide_numbers_from_one_are_names():
    """Numbers that don't start at 0 are sorted too, but are taken as class names, and the note says so."""
    found = find({f"logit_{i}": pa.float32() for i in (10, 9, 8)})
    assert found.names == ("logit_8", "logit_9", "logit_10")
    assert found.class_names == found.suffixes == ("8", "9", "10")
    assert found.why == (
        "3 columns 'logit_8' … 'logit_10' (float), one per class; the numbers start at 8, "
        "so they are used as class names"
    )


def test_wide_named():
    """Suffixes that aren't numbers keep the schema's order and are the class names."""
    found = find({"p_dog_z": pa.float16(), "p_cat_z": pa.float32(), "id": pa.int64()}, logits="p_*_z")
    assert found.names == ("p_dog_z", "p_cat_z")
    assert found.class_names == found.suffixes == ("dog", "cat")
    assert found.dtype == np.dtype("f4")
    assert find({"a_x": pa.float32(), "a_y": pa.int8()}, logits="a_x,a_y").dtype == np.dtype("f8")


def test_one_number_a_row():
    """A single numeric column named by ``logits`` is one class."""
    found = find({"z": pa.float32()}, logits="z")
    assert (found.layout, found.names, found.suffixes, found.n_classes) == ("wide", ("z",), ("0",), 1)


def test_pattern_of_one_list():
    """A pattern that matches a single list column selects it."""
    assert find({"logits_v2": F4, "id": pa.int64()}, logits="logits*").layout == "list"


def test_n_classes_asked_for():
    """``n_classes`` is used if the schema doesn't have the number, and must agree with it otherwise."""
    assert find({"logits": F4}, n_classes=5).n_classes == 5
    assert find({"logits": pa.list_(pa.float32(), 5)}, n_classes=5).n_classes == 5
    message = refusal({"logits": pa.list_(pa.float32(), 5)}, n_classes=6)
    assert message.startswith("--n-classes: 6 given, but the logits have 5 classes: column 'logits'")


@pytest.mark.parametrize(
    ("fields", "options", "words"),
    [
        (
            {"logits": F4},
            {"logits": "logit"},
            ["--logits: there is no column 'logit'", "did you mean 'logits'?"],
        ),
        ({"id": pa.int64()}, {"logits": "z"}, ["no column 'z'", "'id'"]),
        ({"a": F4, "b": F4}, {}, ["2 columns could be the logits: 'a', 'b'", "--logits NAME"]),
        ({"id": pa.int64(), "s": pa.string()}, {}, ["no column can hold logits", "'id', 's'"]),
        ({"o": pa.struct([("z", F4)])}, {}, ["candidates: 'o.z'", "--logits NAME"]),
        ({"raw": SPARK}, {}, ["candidates: 'raw'"]),
        ({}, {}, ["no column can hold logits; the columns are none"]),
        ({"logits": pa.string()}, {}, ["column 'logits' (string) cannot hold logits"]),
        ({"logits": pa.list_(pa.string())}, {}, ["(list<string>) does not hold numbers"]),
        ({"logits": pa.list_(pa.bool_())}, {}, ["(list<bool>) does not hold numbers"]),
        ({"logits": pa.list_(pa.list_(F4))}, {}, ["(list<list<float>>) holds lists of lists", "flatten"]),
        ({"o": pa.struct([("z", pa.list_(F4))])}, {"logits": "o.z"}, ["lists of lists", "a top-level column"]),
        ({"logits": pa.fixed_shape_tensor(pa.float32(), [2, 3])}, {}, ["tensors of shape (2, 3)", "flatten"]),
        ({"logits": pa.list_(pa.float32(), 0)}, {}, ["'logits' have length 0"]),
        ({"logits": pa.binary()}, {}, ["bytes of an unknown type", "--logits-dtype float32, float16 or bfloat16"]),
        ({"logits": pa.binary(7)}, {"logits_dtype": "float16"}, ["rows of 7 bytes", "float16"]),
        ({"logits": F4}, {"logits_dtype": "float16"}, ["--logits-dtype: column 'logits'", "leave it out"]),
        ({"logits": SPARK}, {"logits_dtype": "float16"}, ["--logits-dtype", "leave it out"]),
        ({"logit_0": pa.float32()}, {"logits_dtype": "float16"}, ["--logits-dtype", "leave it out"]),
        ({"logits": pa.list_(pa.uint16())}, {"logits_dtype": "float32"}, ["2 bytes", "float16 or bfloat16"]),
        (
            {"logits": pa.list_(pa.uint16())},
            {},
            [
                "column 'logits' (list<uint16>)",
                "--logits-dtype bfloat16 or float16",
                "if these are integers, cast them to int32",
            ],
        ),
        ({"z": pa.large_list(pa.uint16())}, {"logits": "z"}, ["--logits-dtype bfloat16 or float16"]),
        ({"z": pa.list_(pa.uint16(), 3)}, {"logits": "z*"}, ["--logits-dtype bfloat16 or float16"]),
        ({"a": F4}, {"logits": "z_*"}, ["no column matches 'z_*'", "'a'", "--logits 'logit_*'"]),
        (
            {"logit_0": pa.float32(), "logit_2": pa.float32()},
            {},
            ["class 1 is missing between 'logit_0' and 'logit_2'"],
        ),
        ({"l5": pa.float32(), "l9": pa.float32()}, {"logits": "l*"}, ["class 6 to 8 is missing"]),
        (
            {"logit_1": pa.float32(), "logit_01": pa.float32()},
            {},
            ["'logit_1' and 'logit_01' are both class 1"],
        ),
        ({"logit_1": pa.float32(), "logit_max": pa.float32()}, {}, ["'logit_max'", "narrower pattern"]),
        (
            {"logit_1": pa.float32(), "logit_s": pa.string()},
            {},
            ["'logit_s' (string) isn't numeric", "narrower"],
        ),
    ],
)
def test_refusals(fields, options, words):
    """Errors name the columns that were found and have a remedy, on one line."""
    message = refusal(fields, **options)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_duplicate_columns():
    """A duplicate column name is rejected."""
    with pytest.raises(UsageError, match="two columns 'logits'"):
        find_logits(pa.schema([("logits", F4), ("logits", F4)]), ScoreOptions())


def test_many_candidates_are_cut():
    """An error about a thousand columns is shortened."""
    message = refusal({f"c{i}": F4 for i in range(1000)})
    assert "'c9' and 990 more" in message
    assert len(message) < 200

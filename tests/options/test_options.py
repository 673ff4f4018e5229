"""Tests options: the limits of every domain, and how text, files and iterables become values."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from batchmax.errors import UsageError
from batchmax.options.input_options import MIN_MEMORY, InputOptions
from batchmax.options.parsing import parse_bytes, read_class_weights, read_classes
from batchmax.options.score_options import ConvertOptions, ScoreOptions, resolve_options, score_options


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("n_classes", 1, 0),
        ("top_k", 1, 0),
        ("limit", 0, -1),
        ("row_group_size", 1, 0),
        ("threads", 1, 0),
        ("beta", 1e300, 1.1e300),
        ("beta", 1e-300, 1e-301),
        ("beta", 5.0, 0.0),
        ("beta", 5.0, -1.0),
        ("beta", 5.0, math.nan),
        ("beta", 5.0, math.inf),
        ("label_smoothing", 0.0, -1e-9),
        ("label_smoothing", 1.0, 1 + 1e-9),
        ("label_smoothing", 0.5, math.nan),
        ("memory_limit", MIN_MEMORY, MIN_MEMORY - 1),
        ("input", "probs", "prob"),
        ("logits_dtype", "bfloat16", "float64"),
        ("layout", "wide", "large_list"),
        ("dtype", "float16", "bfloat16"),
        ("compression", "none", "lzo"),
        ("on_bad_row", "null", "skip"),
        ("if_exists", "overwrite", "append"),
        ("outputs", ("probs", "loss"), ("prob",)),
        ("outputs", ("probs",), ("probs", "probs")),
        ("classes", ("a", "b"), ("a", "a")),
        ("class_weights", (0.0, 1.0), (1.0, -1e-9)),
        ("class_weights", {"a": 0.0}, {"a": math.inf}),
        ("class_weights", {"a": 2.0}, {"a": math.nan}),
    ],
)
def test_each_domain_ends_where_it_should(name, good, bad):
    """The last valid value is accepted; the first invalid one is refused, with the option's name and a remedy."""
    assert getattr(ScoreOptions(**{name: good}), name) == good
    with pytest.raises(UsageError) as caught:
        ScoreOptions(**{name: bad})
    assert caught.value.where == "--" + name.replace("_", "-")
    assert caught.value.remedy or "is less than" in caught.value.what  # the command line adds how to get help


def test_options_that_contradict_each_other():
    """Rejects need dropped rows, loss needs a label, and temperature and beta exclude each other."""
    with pytest.raises(UsageError, match="only if bad rows are dropped; add --on-bad-row drop"):
        ScoreOptions(rejects="r.parquet", on_bad_row="null")
    with pytest.raises(UsageError, match="loss needs labels"):
        ScoreOptions(outputs=("probs", "loss"), label="none")
    with pytest.raises(UsageError, match="both --temperature and --beta"):
        score_options(temperature=2.0, beta=0.5)
    assert ScoreOptions(rejects="r.parquet", on_bad_row="drop").rejects == "r.parquet"
    assert ScoreOptions(outputs=("probs",), label="none").label == "none"


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e-301, 1e301, 5e-324])
def test_temperatures_that_cannot_be(temperature):
    """A temperature must be finite and above 0, and its inverse from 1e-300 to 1e300."""
    with pytest.raises(UsageError):
        score_options(temperature=temperature)


def test_temperature_is_one_over_beta():
    """Beta is the float64 that is nearest to 1 / temperature."""
    assert score_options(temperature=3.0).beta == 1.0 / 3.0
    assert score_options(temperature=2).beta == 0.5


def test_none_is_the_default():
    """An option that is None has its default."""
    assert score_options(beta=None, outputs=None, classes=None, memory_limit=None) == ScoreOptions()


def test_lists_are_text_with_commas_or_iterables():
    """Spaces and empty items between commas are ignored; an empty list of columns carries no column."""
    assert score_options(outputs=" probs, loss,,").outputs == ("probs", "loss")
    assert score_options(outputs=iter(["probs", "loss"])).outputs == ("probs", "loss")
    assert score_options(columns="").columns == ()
    assert score_options(exclude="a,b").exclude == ("a", "b")


def test_nothing_asked_for_is_refused():
    """An empty list of outputs is an error, except with ``top_k``."""
    with pytest.raises(UsageError, match="no output is selected"):
        score_options(outputs=",")
    assert score_options(outputs=",", top_k=2).outputs == ()


def test_unknown_options_are_refused():
    """The error for a misspelled keyword argument names it and lists the options."""
    with pytest.raises(UsageError, match=r"unknown option 'temprature'; choose from .*beta.*temperature.*top_k"):
        score_options(temprature=2.0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1073741824", 2**30),
        ("512MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        (" 2 GB ", 2 * 10**9),
        ("2g", 2 * 10**9),
        ("1.5KiB", 1536),
        (".5k", 500),
        ("3TiB", 3 * 2**40),
        ("7B", 7),
        (12, 12),
    ],
)
def test_sizes(text, size):
    """Decimal units are powers of 1000, and units with an ``i`` powers of 1024; case doesn't matter."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "1..5M", "1.2.3", ".", "-1", "1e9", "5PB", "GB", "1 2", "٣", "9" * 400])
def test_what_is_no_size(text):
    """Anything else is refused, with an example; hundreds of digits don't overflow."""
    with pytest.raises(UsageError, match=r"^--memory-limit: .* is not a size; write it like 512MiB"):
        parse_bytes(text)


def test_classes_from_text_and_iterables():
    """Class names are comma-separated text or an iterable; items are converted to text."""
    assert read_classes("cat, dog") == ("cat", "dog")
    assert read_classes(["cat", 3]) == ("cat", "3")


def test_classes_from_a_file(tmp_path):
    """A file has one name per line, in UTF-8 with or without a byte order mark; blank lines are ignored."""
    path = tmp_path / "names"
    path.write_bytes("\ufeffcat\r\n\r\nchien égaré, noir \r\n".encode())
    assert read_classes(path) == read_classes(str(path)) == ("cat", "chien égaré, noir")


def test_classes_from_a_config(tmp_path):
    """The names in ``id2label`` of a config.json are ordered by number, not by line."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": 1, "id2label": {str(i): f"c{i}" for i in (10, 2, 0, 1, *range(3, 10))}}))
    assert read_classes(path) == tuple(f"c{i}" for i in range(11))


@pytest.mark.parametrize(
    "text",
    [
        '{"id2label": {"0": "a", "2": "b"}}',
        '{"id2label": {"1": "a", "2": "b"}}',
        '{"id2label": {"zero": "a"}}',
        '{"id2label": ["a"]}',
        '{"label2id": {"a": 0}}',
        '{"id2label": ',
    ],
)
def test_configs_without_names(tmp_path, text):
    """A config.json that doesn't name the classes 0, 1, 2, … is refused, and the error names the file."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"^--classes: .*config\.json has no id2label"):
        read_classes(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"{}", b"\xff\xfe\x00"])
@pytest.mark.parametrize(("read", "option"), [(read_classes, "--classes"), (read_class_weights, "--class-weights")])
def test_files_without_content(tmp_path, content, read, option):
    """A file that is empty or isn't text is refused; the error names the option and the file, and has a remedy."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.where == option
    assert str(path) in caught.value.what
    assert caught.value.remedy


def test_class_weights_from_numbers_and_names():
    """Class weights are numbers in the order of the classes, or a dictionary by name."""
    assert read_class_weights([1, 2.5]) == (1.0, 2.5)
    assert read_class_weights({"a": 1, 2: 3}) == {"a": 1.0, "2": 3.0}


def test_class_weights_from_files(tmp_path):
    """Each line is a number, or a name and a number separated by the last comma."""
    path = tmp_path / "weights"
    path.write_text("1\n\n 2.5 \n1e-3\n")
    assert read_class_weights(path) == (1.0, 2.5, 1e-3)
    path.write_text("cat, 1\nwolf, grey,2\n")
    assert read_class_weights(str(path)) == {"cat": 1.0, "wolf, grey": 2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nthree\n", "line 3 of .* is 'three'"),
        ("a,1\na,2\n", "names 'a' twice"),
        ("a,1\n2\n", "mixes numbers with and without names"),
        ("a,\n", "line 1 of .* is 'a,'"),
    ],
)
def test_class_weights_that_cannot_be_read(tmp_path, text, message):
    """The error for invalid class weights names the line, the repeated name, or the mixed formats."""
    path = tmp_path / "weights"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_class_weights(path)


def test_class_weights_need_a_file(tmp_path):
    """Text is the path of a file; a missing file is an error."""
    with pytest.raises(UsageError, match="there is no file"):
        read_class_weights(str(tmp_path / "nothing"))


def test_bad_weights_in_a_file_are_refused(tmp_path):
    """Weights from a file must be finite and nonnegative, as others must."""
    path = tmp_path / "weights"
    path.write_text("1\nnan\n")
    with pytest.raises(UsageError, match="weights must be finite and not negative"):
        score_options(class_weights=path)


def wrong_types():
    """Yield names and values of the wrong type: one for each option except ``memory_limit``, and some more."""
    for field in fields(ScoreOptions):
        if field.name != "memory_limit":
            yield field.name, object()
    yield from {
        "threads": "2",
        "temperature": "1",
        "beta": "1",
        "top_k": 2.0,
        "limit": True,
        "classes": 5,
        "outputs": 5,
        "columns": [5],
        "exclude": b"id",
        "fail_if": 5,
        "logits": 5,
        "layout": 5,
        "class_weights": 5,
        "memory_limit": 2.0**30,
        "label_smoothing": [0.1],
    }.items()
    yield "class_weights", ["1", "2"]
    yield "class_weights", {"a": None}


@pytest.mark.parametrize(("name", "value"), list(wrong_types()))
def test_wrong_types_are_refused(name, value):
    """The error for a value of the wrong type names the option, the type, and what to give."""
    with pytest.raises(UsageError) as caught:
        score_options(**{name: value})
    assert caught.value.where == "--" + name.replace("_", "-")
    assert caught.value.what.startswith("invalid type ")
    assert caught.value.remedy.startswith(("give ", "choose "))


def test_made_directly_types_count_too():
    """``ScoreOptions`` checks types, too: it doesn't accept text as a list of names."""
    with pytest.raises(UsageError, match="--outputs: invalid type str; give tuple"):
        ScoreOptions(outputs="probs")
    with pytest.raises(UsageError, match="--class-weights: invalid type dict"):
        ScoreOptions(class_weights={"a": "1"})


def test_numbers_of_numpy_and_paths_become_plain():
    """NumPy numbers and arrays become plain Python types, so that options can be written as JSON."""
    options = score_options(n_classes=np.int64(3), beta=np.float32(0.5), temperature=None, threads=np.uint8(1))
    assert json.dumps([options.n_classes, options.beta, options.threads]) == "[3, 0.5, 1]"
    assert score_options(class_weights=np.ones(2)).class_weights == (1.0, 1.0)


def test_options_or_keyword_arguments():
    """Options are a ``ScoreOptions`` or keyword arguments, never both; the wrong type is refused."""
    made = ScoreOptions(beta=2.0)
    assert resolve_options(ScoreOptions, made, {}) is made
    assert resolve_options(ScoreOptions, None, {"beta": 2.0}) == made
    with pytest.raises(UsageError, match=r"both options and 'temperature' are given; pass it to score_options\(...\)"):
        resolve_options(ScoreOptions, made, {"temperature": 100, "typo": 3})
    with pytest.raises(UsageError, match="options is of type dict; make it with"):
        resolve_options(ScoreOptions, {"beta": 2.0}, {})


def test_each_command_takes_the_options_that_it_needs():
    """Of a ``ScoreOptions``, a command takes its own options; as keyword arguments, others are unknown."""
    made = score_options(temperature=2.0, limit=5, top_k=3, prefix="x", on_bad_row="drop", rejects="r.parquet")
    assert resolve_options(InputOptions, made, {}) == InputOptions(beta=0.5, limit=5, on_bad_row="drop")
    assert resolve_options(ConvertOptions, made, {}) == ConvertOptions(limit=5, on_bad_row="drop", rejects="r.parquet")
    assert resolve_options(InputOptions, None, {"temperature": 2.0, "limit": 5}) == InputOptions(beta=0.5, limit=5)
    for kind, name in ((InputOptions, "prefix"), (InputOptions, "rejects"), (ConvertOptions, "temperature")):
        with pytest.raises(UsageError, match=f"unknown option '{name}'; choose from .*classes, columns"):
            resolve_options(kind, None, {name: "x"})
    with pytest.raises(UsageError, match="options is of type ConvertOptions"):
        resolve_options(InputOptions, ConvertOptions(), {})


def test_many_names_are_checked_in_a_moment():
    """Duplicate class names are found in linear time."""

    class Counted(str):
        __slots__ = ()
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = tuple(Counted(f"class {i}") for i in range(1000))
    ScoreOptions(classes=names)
    assert Counted.compared < 5000
    with pytest.raises(UsageError, match="'class 999' is named twice"):
        ScoreOptions(classes=(*names, "class 999"))


@pytest.mark.parametrize("given", ["zzz.txt", "names.json", "some/where", "n.csv", "./names"])
def test_a_file_of_classes_that_is_not_there(given, tmp_path, monkeypatch):
    """A single class name that looks like a path must be an existing file.

    Several names, and names in a list, may look like paths.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^--classes: there is no file {given}"):
        read_classes(given)
    assert read_classes(f"{given},other") == (given, "other")
    assert read_classes([given]) == (given,)
    with pytest.raises(UsageError, match="there is no file"):
        read_classes(tmp_path / "names")
    with pytest.raises(UsageError, match="there is no file"):
        score_options(classes=Path("names"))
    assert read_classes("names") == ("names",)

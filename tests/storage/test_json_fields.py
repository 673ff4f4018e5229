"""Tests the JSON parser for metadata: too deep, large or invalid values are refused, and no command crashes on them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import main
from batchmax.storage.json_fields import MAX_DEPTH, JsonError, parse_json
from tests.support import crafted

REFUSED = {
    "brackets": b"[" * 3000,
    "brackets that are closed": b"[" * 3000 + b"]" * 3000,
    "objects": b'{"info":' * 3000 + b"1" + b"}" * 3000,
    "a little too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "a hundred thousand brackets": b"[" * 100_000 + b"]" * 100_000,
    "a million digits": b'{"info": ' + b"1" * 1_000_000 + b"}",
    "an integer of 65 bits": b'{"info": 18446744073709551616}',
    "a negative integer of 65 bits": b'{"info": -9223372036854775809}',
    "half of a surrogate pair": b'{"info": "\\ud800"}',
    "half of a surrogate pair in a name": b'{"\\udfff": 1}',
    "half of a surrogate pair as bytes": b'{"info": "\xed\xa0\x80"}',
    "UTF-16": '{"info": 1}'.encode("utf-16"),
    "not UTF-8": b'{"info": "\xff"}',
    "nothing": b"",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind):
    """Invalid JSON of any kind raises JsonError."""
    with pytest.raises(JsonError):
        parse_json(REFUSED[kind])


def test_what_is_read():
    """Values at the limits of depth and size are parsed as by Python's parser."""
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(text) == json.loads(text)
    text = '{"a": [18446744073709551615, -9223372036854775808, 1e400, "\\ud83d\\ude00", "\\\\ud800"], "\\u00e9": null}'
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("key", ["huggingface", "batchmax", "pandas", "batchmax.summary"])
def test_commands_over_metadata_that_make_no_sense(key, tmp_path, capsys):
    """Invalid metadata is ignored by commands that don't need it; verify fails, but not with a bug."""
    path = tmp_path / "x.parquet"
    names = b'{"info":{"features":{"label":{"_type":"ClassLabel","names":["\\ud800"]}}}}'
    some = "objects", "a hundred thousand brackets", "a million digits", "half of a surrogate pair as bytes"
    values = {kind: REFUSED[kind] for kind in some} | {"NaN": b'{"info": NaN}', "names": names}
    for kind, value in values.items():
        pq.write_table(crafted.table().replace_schema_metadata({key: value}), path)
        for words in (
            ["show", str(path), "--row", "0"],
            ["evaluate", str(path)],
            ["inspect", str(path)],
            ["score", str(path), "-o", str(tmp_path / "o.parquet"), "--if-exists", "overwrite", "-q"],
        ):
            assert main(words) == 0, (kind, words, capsys.readouterr().err)
        assert main(["verify", str(path)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert "is a bug" not in lines[-1], (kind, lines)


def test_depth_is_counted_whatever_the_stack():
    """The depth limit doesn't depend on the depth of the call stack, unlike that of Python's parser."""

    def deeper(levels):
        return parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) if not levels else deeper(levels - 1)

    assert deeper(700) == parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_names_of_classes_with_half_a_surrogate(tmp_path, capsys):
    """A class names file with half a surrogate pair is refused with one line and exit code 2."""
    path, names = tmp_path / "x.parquet", tmp_path / "config.json"
    pq.write_table(pa.table({"logits": [[1.0, 2.0]], "label": [0]}), path)
    names.write_text('{"id2label": {"0": "\\ud800", "1": "b"}}')
    assert main(["evaluate", str(path), "--classes", str(names)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_features_of_any_type(tmp_path):
    """Hugging Face metadata with members of unexpected types is ignored."""
    path = tmp_path / "x.parquet"
    for feature in ({"_type": {"a": 1}}, {"_type": []}, {"_type": "List", "feature": 3}, [], [[]], 7, None):
        value = json.dumps({"info": {"features": {"label": feature}}})
        pq.write_table(crafted.table().replace_schema_metadata({"huggingface": value}), path)
        assert main(["evaluate", str(path), "-q"]) == 0

"""Tests names that could be misread: columns that aren't classes, paths that look like URIs, other file formats.

Also tests encrypted files, and columns with dots in their names.
"""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

import batchmax
from batchmax.cli.app import main
from batchmax.columns.find_logits import find_logits
from batchmax.errors import DataError, UsageError
from batchmax.options.score_options import score_options
from batchmax.storage.output_paths import OTHER_FORMATS, refuse_other_formats

TABLE = pa.table({"id": [7, 8], "logits": [[0.0, 1.0], [3.0, 1.0]], "label": [0, 1]})
PROBS = [[1 / (1 + np.e), np.e / (1 + np.e)], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Change to an empty folder and return it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, table=TABLE):
    """Write a Parquet file; its name may look like a URI."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:  # noqa: PTH123 - pyarrow reads some paths as URIs
        pq.write_table(table, stream)


# Columns that aren't classes


def schema(**columns):
    """Return a schema of numeric columns: f for float64, i for int64."""
    return pa.schema([(name, pa.float64() if kind == "f" else pa.int64()) for name, kind in columns.items()])


MIXED = schema(id="i", weight="f", label="i", logit_a="f", logit_b="f", lot="f")


@pytest.mark.parametrize("pattern", ["*", "**", "?*", "*?*", "?????"])
def test_a_pattern_of_nothing_but_wildcards_is_refused(pattern):
    """A pattern of wildcards only, which also matches ids and labels, raises UsageError with alternatives."""
    with pytest.raises(
        UsageError, match=r"matches every column.*--logits 'logit_\*'; or list them: --logits A,B,C"
    ) as caught:
        find_logits(MIXED, score_options(logits=pattern))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("pattern", "options", "want"),
    [
        ("l*", {}, ("logit_a", "logit_b", "lot")),
        ("lo*t*", {"label": "lot"}, ("logit_a", "logit_b")),
        ("l*", {"label": "none"}, ("logit_a", "logit_b", "lot")),
        ("l*", {"label": "lot", "bytes": "logit_b"}, ("logit_a",)),
        ("*l*", {}, ("logit_a", "logit_b", "lot")),
        ("logit_?", {}, ("logit_a", "logit_b")),
    ],
)
def test_columns_with_another_role_are_no_classes(pattern, options, want):
    """A logits pattern doesn't match the label column, by default or by option, and the ``bytes`` column."""
    assert find_logits(MIXED, score_options(logits=pattern, **options)).names == want


def test_integers_among_floats_are_doubtful():
    """A pattern that matches integer and float columns is refused, unless the columns are numbered."""
    with pytest.raises(UsageError, match=r"the pattern matches columns of floats, and of integers: 'id'"):
        find_logits(schema(id="i", is_a="f", is_b="f"), score_options(logits="i*"))
    found = find_logits(schema(z_1="i", z_0="f"), score_options(logits="z_*"))
    assert found.names == ("z_0", "z_1")
    assert find_logits(schema(a="i", b="i"), score_options(logits="[ab]")).names == ("a", "b")


def test_classes_named_one_by_one(here):
    """``logits="A,B"`` names one column per class, in this order; the column names are the class names."""
    del here
    columns = {"id": [1, 2], "dog": [0.0, 3.0], "cat": [1.0, 1.0], "label": ["cat", "dog"]}
    write("in.parquet", pa.table(columns))
    batchmax.score("in.parquet", "out.parquet", logits="dog, cat", outputs="probs,loss,pred", layout="list")
    table = pq.read_table("out.parquet")
    assert_allclose(np.array(table["probs"].to_pylist()), PROBS, rtol=1e-15)
    assert table["pred"].to_pylist() == ["cat", "dog"]
    assert table.column_names == ["id", "label", "probs", "loss", "pred"]
    assert batchmax.verify("out.parquet", "in.parquet", logits="dog,cat").sampled_rows == 2
    numbered = schema(z_0="f", z_1="f")
    assert find_logits(numbered, score_options(logits="z_0,z_1")).class_names == ()
    assert find_logits(numbered, score_options(logits="z_1,z_0")).class_names == ("z_1", "z_0")
    for names, message in (
        ("dog,cow", "there is no column 'cow'"),
        ("dog,dog", "listed twice"),
        ("dog,label", "isn't numeric"),
    ):
        with pytest.raises(UsageError, match=message):
            batchmax.score("in.parquet", "no.parquet", logits=names)
    comma = pa.schema([("a,b", pa.list_(pa.float64()))])
    assert find_logits(comma, score_options(logits="a,b")).names == ("a,b",)


def test_weights_groups_and_keys_are_no_classes(here):
    """A sample weight, group or key column that the logits pattern also matches raises UsageError."""
    del here
    columns = {"s_0": [0.0, 1.0], "s_1": [1.0, 0.0], "s_2": [1.0, 2.0], "label": [0, 1]}
    write("in.parquet", pa.table(columns))
    for options in ({"sample_weight": "s_2"}, {"by": "s_2"}):
        with pytest.raises(UsageError, match=r"column 's_2' is also one of the logits"):
            batchmax.evaluate("in.parquet", logits="s_*", **options)
    write("key.parquet", pa.table(columns | {"s_2": [1, 2]}))
    with pytest.raises(UsageError, match=r"--key: column 's_2' is also one of the logits"):
        batchmax.compare("key.parquet", "key.parquet", logits="s_*", key="s_2")


# Names of files


@pytest.mark.parametrize(
    "name", ["run:1/x.parquet", "~/x.parquet", "~", "s3:x.parquet", "file:x.parquet", "a?b=1#c/x%20.parquet"]
)
def test_a_file_is_what_its_path_says(here, name, capsys):
    """Colons, tildes and characters with a meaning in URIs are literal in paths of inputs and outputs."""
    write(here / name)
    out = f"{name.removesuffix('.parquet')}_out.parquet"
    batchmax.score(name, out)
    with open(out, "rb") as stream:  # noqa: PTH123 - as above
        assert_allclose(np.array(pq.read_table(stream)["probs"].to_pylist()), PROBS, rtol=1e-15)
    batchmax.score(name, out, if_exists="resume")
    batchmax.score(name, out, if_exists="overwrite")
    assert batchmax.verify(out, name).sampled_rows == 2
    assert batchmax.evaluate(name).n_rows == 2
    for command in (["inspect", name], ["show", name, "--row", "1"], ["compare", name, name]):
        assert main([*command, "--json"]) == 0
        json.loads(capsys.readouterr().out)


def test_an_output_of_another_format_is_refused(here):
    """An output or rejects path with the file extension of another format raises UsageError with the formats."""
    write("in.parquet")
    for ending in sorted(OTHER_FORMATS):
        with pytest.raises(UsageError, match=r"outputs are Parquet files or Arrow streams, not \.") as caught:
            batchmax.score("in.parquet", f"x.{ending}")
        assert "x.parquet; or a folder: x." in caught.value.remedy
    for name in ("x.CSV", "a.b/x.csv", "x.parquet.gz", "x.parqet", "x.parket", "s3://bucket/x.csv"):
        with pytest.raises(UsageError, match="outputs are Parquet files"):
            batchmax.score("in.parquet", name)
        with pytest.raises(UsageError, match=r"outputs are Parquet files, not \."):
            batchmax.convert("in.parquet", name, "fixed")
    with pytest.raises(UsageError, match=r"^r\.csv: outputs are Parquet files, not \."):
        batchmax.score("in.parquet", "out", on_bad_row="drop", rejects="r.csv")
    assert main(["score", "in.parquet", "-o", "x.csv", "--dry-run"]) == 2
    assert sorted(path.name for path in here.iterdir()) == ["in.parquet"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("x.csv", "x.parquet"),
        ("dir/x.csv", "dir/x.parquet"),
        ("s3://bucket/a.b/x.csv", "s3://bucket/a.b/x.parquet"),
        ("x.parquet.gz", "x.parquet"),
        ("dir/x.PQ.GZ", "dir/x.parquet"),
        ("x.csv.gz", "x.parquet"),
        ("x.v2.parqet", "x.v2.parquet"),
    ],
)
@pytest.mark.usefixtures("here")
def test_remedies_of_an_output_of_another_format_are_possible(name, file):
    """The remedy is a path in the same folder with one suffix; a stream is a remedy only for the output of score."""
    write("in.parquet")
    drop = {"on_bad_row": "drop", "rejects": name}
    remedy = f"name a file: {file}; or a folder: {name}/"
    for job, more in (
        (lambda: batchmax.score("in.parquet", name), "; or an Arrow stream on stdout: -"),
        (lambda: batchmax.convert("in.parquet", name, "fixed"), ""),
        (lambda: batchmax.score("in.parquet", "out", **drop), ""),
    ):
        with pytest.raises(UsageError) as caught:
            job()
        assert caught.value.remedy == remedy + more


@pytest.mark.usefixtures("here")
def test_the_remedy_for_the_suffix_of_a_text_file_keeps_the_folder():
    """The path that is suggested for a file of calibrate has the folder of the path that was given."""
    write("in.parquet")
    with pytest.raises(UsageError, match=r"name it dir/c\.json$"):
        batchmax.calibrate("in.parquet", "dir/c.txt")


@pytest.mark.parametrize(
    "name", ["out", "out.v2", "run-1.5", "2026.11.30", "x.csv/", ".hidden", "csv", "checkpoint.100"]
)
def test_names_of_folders_may_have_dots(here, name):
    """Folder names may contain dots; with a slash at the end, a folder may have any extension."""
    refuse_other_formats(name)
    write("in.parquet")
    batchmax.score("in.parquet", name)
    assert (here / name / "part-00000.parquet").is_file()


# Encrypted files


@pytest.fixture
def encrypted(here):
    """Return a function that writes the table with some columns, and optionally the footer, encrypted."""
    keys = importlib.import_module("pyarrow.parquet.encryption")
    del here

    class Kms(keys.KmsClient):
        def __init__(self, _):
            super().__init__()

        def wrap_key(self, key, _):
            return base64.b64encode(key)

    factory = keys.CryptoFactory(Kms)

    def make(path, columns, *, plain_footer=True):
        settings = keys.EncryptionConfiguration(
            footer_key="footer", plaintext_footer=plain_footer, column_keys={"column": columns}
        )
        properties = factory.file_encryption_properties(keys.KmsConnectionConfig(), settings)
        with pq.ParquetWriter(path, TABLE.schema, encryption_properties=properties) as writer:
            writer.write_table(TABLE)

    return make


def test_an_encrypted_footer(encrypted, capsys):
    """Every command says that a file with an encrypted footer is encrypted, not damaged."""
    encrypted("in.parquet", ["label"], plain_footer=False)
    commands = (
        ["score", "in.parquet", "-o", "out.parquet"],
        ["inspect", "in.parquet"],
        ["show", "in.parquet", "--row", "0"],
        ["evaluate", "in.parquet"],
        ["verify", "in.parquet"],
        ["convert", "in.parquet", "-o", "out.parquet", "--layout", "wide"],
    )
    for command in commands:
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "in.parquet: the footer is encrypted, and encrypted Parquet files are not supported" in said
        assert "damaged" not in said


def test_an_encrypted_column(encrypted, capsys):
    """A job that reads an encrypted column fails with its name; other jobs and inspect work."""
    encrypted("in.parquet", ["id"])
    with pytest.raises(DataError, match=r"^in\.parquet: column 'id' is encrypted.*leave the column out: --exclude id$"):
        batchmax.score("in.parquet", "out.parquet")
    batchmax.score("in.parquet", "out.parquet", exclude="id")
    assert_allclose(np.array(pq.read_table("out.parquet")["probs"].to_pylist()), PROBS, rtol=1e-15)
    assert batchmax.evaluate("in.parquet").n_rows == 2
    with pytest.raises(DataError, match=r"with a program that has its keys$"):
        batchmax.evaluate("in.parquet", by="id")
    assert main(["inspect", "in.parquet"]) == 0
    shown = capsys.readouterr().out
    assert "id      int64" in shown
    assert "batchmax score in.parquet -o scored.parquet --exclude id" in shown
    encrypted("in.parquet", ["label"])
    assert main(["inspect", "in.parquet", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)["command"]
    assert command == "batchmax score in.parquet -o scored.parquet --label none --exclude label"
    assert main([*command.split()[1:], "-q"]) == 0
    encrypted("in.parquet", ["logits.list.element"])
    assert main(["inspect", "in.parquet", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["command"] is None
    assert "column 'logits' is encrypted" in facts["problem"]
    for columns in (["logits.list.element"], ["label"]):
        encrypted("in.parquet", columns)
        with pytest.raises(DataError, match=rf"^in\.parquet: column '{columns[0].split('.')[0]}' is encrypted"):
            batchmax.score("in.parquet", "out.parquet", exclude="id", if_exists="overwrite")


# Columns with dots


def test_a_column_with_a_dot_is_no_struct(here, capsys, monkeypatch):
    """A column named ``a.b`` is distinct from the field ``b`` of the struct ``a``; both are shown and copied."""
    del here
    struct = pa.array([{"b": "x", "c": 1.5}, {"b": "y", "c": 2.5}])
    table = (
        TABLE.append_column("a.b", pa.array([1, 2]))
        .append_column("a", struct)
        .append_column("x.y", pa.array(["p", "q"]))
    )
    write("in.parquet", table)
    assert main(["inspect", "in.parquet", "--json"]) == 0
    columns = [(one["name"], one["type"]) for one in json.loads(capsys.readouterr().out)["columns"]]
    assert columns == [
        ("id", "int64"),
        ("logits", "list<double>"),
        ("label", "int64"),
        ("a.b", "int64"),
        ("a.b", "struct<b: string, c: double>"),
        ("a.c", "struct<b: string, c: double>"),
        ("x.y", "string"),
    ]
    for reader in ("batchmax", "pyarrow"):
        monkeypatch.setenv("BATCHMAX_PARQUET", reader)
        batchmax.score("in.parquet", "out.parquet", if_exists="overwrite")
        found = pq.read_table("out.parquet")
        assert found.select(["a.b", "a", "x.y"]).equals(table.select(["a.b", "a", "x.y"]))
        batchmax.score("in.parquet", "few.parquet", columns="a.b,x.y", if_exists="overwrite")
        assert pq.read_table("few.parquet").select(["a.b", "x.y"]).equals(table.select(["a.b", "x.y"]))

"""Tests unusual input files, and inputs whose files differ."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax import BadRowError, DataError, UsageError
from batchmax.jobs.score import score
from tests.support.files import group_sizes, names_in
from tests.support.layouts import digits
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.rows import lists, some_logits, table_of

ALL = SOFTMAX_OUTPUTS


def test_names_with_dots_are_names(tmp_path):
    """A dot in a column's name isn't a path into a struct, neither in input names nor in new ones."""
    inner = pa.array([{"c": 1, "d.e": 2}] * 5)
    table = table_of(5, **{"a.b": pa.array(range(5)), "a": inner})
    pq.write_table(table, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", prefix="new.")
    got = pq.read_table(tmp_path / "out.parquet")
    assert got.column_names == ["id", "label", "a.b", "a", "new.probs", "new.loss"]
    assert got.select(["a.b", "a"]).to_pylist() == table.select(["a.b", "a"]).to_pylist()


def test_sparse_vectors_are_named_by_file_and_row(tmp_path):
    """A sparse Spark vector is an error that names file and row, whether or not it's in the first row."""
    kind = pq.read_schema(digits("spark")).field("logits").type
    dense = {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0]}
    sparse = {"type": 0, "size": 2, "indices": [0], "values": [1.0]}
    for row in (0, 5):
        vectors = [sparse if number == row else dense for number in range(8)]
        table = pa.table({"logits": pa.array(vectors, kind)})
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
        with pytest.raises(
            DataError, match=rf"in\.parquet: row {row}\b.*a sparse Spark vector.*convert the column to arrays"
        ):
            score(tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_suggested_command_has_the_options_of_the_job(tmp_path):
    """The command that an error suggests has the job's options for columns and classes."""
    table = table_of(5).append_column("other", pa.array([0, 1, 9, 0, 0]))
    pq.write_table(table, tmp_path / "a b.parquet")
    with pytest.raises(BadRowError) as caught:
        score(tmp_path / "a b.parquet", tmp_path / "o.parquet", label="other", ignore_index=7, classes="k,l,m,n")
    file = str(tmp_path / "a b.parquet")
    assert f"to see the row: batchmax show '{file}' --row 2 --label other --ignore-index 7 --classes k,l,m,n" in str(
        caught.value
    )


def test_files_without_rows(tmp_path):
    """Empty files among others add nothing.

    Alone, they need ``n_classes``, and the output has its columns.
    """
    pq.write_table(table_of(0), tmp_path / "0.parquet")
    pq.write_table(table_of(5), tmp_path / "1.parquet")
    pq.write_table(table_of(0), tmp_path / "2.parquet")
    summary = score(str(tmp_path / "?.parquet"), tmp_path / "out.pq", outputs=ALL)
    assert (summary.n_rows, group_sizes(tmp_path / "out.pq")) == (5, [5])
    with pytest.raises(DataError, match="--n-classes"):
        score(tmp_path / "0.parquet", tmp_path / "none.pq")
    for out in ("empty.pq", "empty"):
        summary = score(tmp_path / "0.parquet", tmp_path / out, outputs=ALL, n_classes=4)
        assert pq.read_table(tmp_path / out).num_rows == 0
        assert pq.read_schema(
            tmp_path / out / "part-00000.parquet" if out == "empty" else tmp_path / out
        ).names == ["id", "label", *ALL]  # fmt: skip
        assert (summary.mean_loss, summary.bad_rate, summary.accuracy) == (None, None, None)


@pytest.mark.parametrize("as_fixed", [False, True])
def test_files_that_differ_in_classes_are_refused(as_fixed, tmp_path):
    """Inputs with different numbers of classes are refused, and the error names the files."""
    for name, n_classes in (("1", 4), ("2", 5)):
        table = table_of(5, n_classes)
        if as_fixed:
            column = lists(some_logits(5, n_classes), pa.list_(pa.float32(), n_classes))
            table = table.set_column(1, "logits", column)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(UsageError) as caught:
        score(tmp_path, tmp_path / "out.pq")
    assert caught.value.where == str(tmp_path / "2.parquet")
    assert str(tmp_path / "1.parquet") in caught.value.what
    assert names_in(tmp_path) == ["1.parquet", "2.parquet"]


@pytest.mark.parametrize("column", ["label", "id"])
def test_files_that_differ_in_columns_are_refused(column, tmp_path):
    """Files with incompatible types of a column, and files with two columns of one name, are refused.

    The error names the file.
    """
    table = table_of(5)
    other = table[column].cast(pa.string())
    pq.write_table(table, tmp_path / "1.parquet")
    pq.write_table(table.drop([column]).append_column(column, other), tmp_path / "3.parquet")
    pq.write_table(table.append_column(column, other), tmp_path / "4.parquet")
    with pytest.raises(UsageError, match=f"3.parquet: column '{column}' is string, but int64 in .*1.parquet"):
        score([tmp_path / "1.parquet", tmp_path / "3.parquet"], tmp_path / "out.pq")
    with pytest.raises(UsageError, match=f"4.parquet: there are two columns '{column}'"):
        score([tmp_path / "1.parquet", tmp_path / "4.parquet"], tmp_path / "out.pq")


def test_files_may_differ_in_nullability_and_child_names(tmp_path):
    """Files may differ in the nullability of values and in the name of a list's child field."""
    table = table_of(8)
    pq.write_table(table, tmp_path / "a.parquet")
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False))
    position = table.schema.get_field_index("logits")
    other = table.set_column(position, pa.field("logits", kind), table["logits"].cast(kind))
    pq.write_table(other, tmp_path / "b.parquet", use_compliant_nested_type=False)
    score(tmp_path / "*.parquet", tmp_path / "out.parquet", columns="*")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["logits"].to_pylist() == table["logits"].to_pylist() * 2


def test_column_with_nulls_only_in_a_later_file(tmp_path):
    """A column is nullable in the output if it is in any file, not only in the first."""
    for name, nullable, ids in (("a", False, [1, 2]), ("b", True, [3, None])):
        schema = pa.schema([pa.field("id", pa.int64(), nullable=nullable), pa.field("logits", pa.list_(pa.float32()))])
        pq.write_table(pa.table({"id": ids, "logits": [[1.0, 2.0]] * 2}, schema=schema), tmp_path / f"{name}.parquet")
    for out in (tmp_path / "out.parquet", tmp_path / "out"):
        batchmax.score([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], str(out))
        found = pq.read_table(out)
        assert found["id"].to_pylist() == [1, 2, 3, None]
        assert found.schema.field("id").nullable


def named(path, names):
    """Write a file with ClassLabel names in its metadata."""
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table_of(6, 3).replace_schema_metadata(metadata), path)


def test_class_names_must_agree(tmp_path):
    """Class names that differ between files are refused, unless ``classes`` is given."""
    named(tmp_path / "a.parquet", ["cat", "dog", "fox"])
    named(tmp_path / "b.parquet", ["fox", "dog", "cat"])
    with pytest.raises(UsageError, match=r"b\.parquet: the class names differ from those in .*a\.parquet"):
        score(tmp_path / "*.parquet", tmp_path / "out", outputs="pred")
    score(tmp_path / "*.parquet", tmp_path / "out", outputs="pred", classes="x,y,z")
    assert set(pq.read_table(tmp_path / "out")["pred"].to_pylist()) <= {"x", "y", "z"}

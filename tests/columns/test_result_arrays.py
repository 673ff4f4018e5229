"""Results as Arrow columns: types, nulls and shared memory."""

from __future__ import annotations

import gc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.columns.result_arrays import (
    STATUS_TYPE,
    matrix_columns,
    matrix_fields,
    pred_column,
    status_column,
    vector_column,
)
from batchmax.statuses import STATUS_NAMES, Status
from tests.support.requirements import optional

pl = optional("polars")

LAYOUTS = ["list", "large_list", "fixed", "wide"]
MATRIX = np.array([[1, 2, 3], [4, np.nan, 6], [-np.inf, 8, 9]], "f4")
MISSING = np.array([False, True, False])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_fields_are_known_before_the_data(layout, dtype):
    """The fields from ``matrix_fields`` are those of the columns, which are valid Arrow."""
    matrix = np.arange(6, dtype=dtype).reshape(2, 3)
    columns = matrix_columns("probs", matrix, layout, prefix="x_")
    assert [field for field, _ in columns] == matrix_fields("probs", 3, layout, matrix.dtype, prefix="x_")
    for field, array in columns:
        array.validate(full=True)
        assert array.type == field.type


def test_names():
    """Wide columns have singular names with the class suffixes, or with numbers from 0."""
    assert [f.name for f in matrix_fields("probs", 2, "wide", np.dtype("f4"))] == ["prob_0", "prob_1"]
    assert [f.name for f in matrix_fields("log_probs", 2, "wide", np.dtype("f4"), ("a", "b"), "p_")] == [
        "p_log_prob_a",
        "p_log_prob_b",
    ]
    assert [f.name for f in matrix_fields("probs", 2, "fixed", np.dtype("f4"), ("a", "b"), "p_")] == ["p_probs"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_nulls(layout):
    """Missing rows are null in every column; other values are unchanged, including NaN and infinity."""
    for missing in (None, np.zeros(3, np.bool_), MISSING, np.ones(3, np.bool_)):
        columns = matrix_columns("probs", MATRIX, layout, missing=missing)
        gone = np.zeros(3, np.bool_) if missing is None else missing
        if layout == "wide":
            rows = list(zip(*(array.to_pylist() for _, array in columns), strict=True))
            rows = [None if row == (None,) * 3 else row for row in rows]
        else:
            rows = columns[0][1].to_pylist()
        for row, expected, is_gone in zip(rows, MATRIX, gone, strict=True):
            assert (row is None) == is_gone
            if row is not None:
                np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("missing", [None, MISSING, np.ones(3, np.bool_)])
def test_parquet(layout, missing, tmp_path):
    """Columns with and without missing rows survive a Parquet round trip, and Polars reads the same values."""
    columns = matrix_columns("probs", MATRIX, layout, missing=missing)
    table = pa.Table.from_arrays([array for _, array in columns], schema=pa.schema([field for field, _ in columns]))
    pq.write_table(table, tmp_path / "t.parquet")
    back = pq.read_table(tmp_path / "t.parquet")
    assert str(back.to_pylist()) == str(table.to_pylist())
    assert str(pl.read_parquet(tmp_path / "t.parquet").rows()) == str(pl.from_arrow(table).rows())


@pytest.mark.parametrize("layout", ["list", "large_list", "fixed"])
def test_no_copy(layout):
    """List columns share the matrix's memory and keep it alive, also with missing rows in the fixed layout."""
    matrix = np.arange(300_000, dtype="f4").reshape(-1, 3)
    address = matrix.ctypes.data
    missing = np.arange(100_000) % 2 == 0 if layout == "fixed" else None
    ((_, array),) = matrix_columns("probs", matrix, layout, missing=missing)
    assert array.values.buffers()[1].address == address
    del matrix
    gc.collect()
    np.testing.assert_array_equal(array.values.to_numpy(), np.arange(300_000))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 1)])
def test_edges(layout, shape):
    """Zero rows and a single class are accepted."""
    columns = matrix_columns("probs", np.ones(shape, "f4"), layout, missing=np.zeros(shape[0], np.bool_))
    assert len(columns) == (shape[1] if layout == "wide" else 1)
    assert all(len(array) == shape[0] for _, array in columns)


def test_read_only_matrix():
    """A read-only matrix is accepted."""
    matrix = MATRIX.copy()
    matrix.flags.writeable = False
    assert len(matrix_columns("probs", matrix, "list")[0][1]) == 3


def test_too_many_for_a_list():
    """A matrix with more values than 32-bit offsets can count raises ValueError."""
    matrix = np.lib.stride_tricks.as_strided(np.zeros(1, "f4"), (2**21, 2**10), (0, 0))
    with pytest.raises(ValueError, match="exceed the offsets"):
        matrix_columns("probs", matrix, "list")


def test_vectors():
    """Numbers and booleans keep their type and NaN; missing values are null."""
    values = np.array([1, np.nan, 3], "f4")
    assert str(vector_column(values, MISSING).to_pylist()) == "[1.0, None, 3.0]"
    assert vector_column(values).null_count == 0
    assert vector_column(values).type == pa.float32()
    assert vector_column(values).buffers()[1].address == values.ctypes.data
    assert vector_column(np.array([True, False, True]), MISSING).to_pylist() == [True, None, True]
    assert vector_column(np.arange(6, dtype="i4")[::2]).to_pylist() == [0, 2, 4]


def test_statuses():
    """A status column is a dictionary of all status names."""
    codes = np.array([Status.OK, Status.NULL_LOGITS, Status.BAD_LABEL], np.uint8)
    column = status_column(codes)
    assert column.type == STATUS_TYPE
    assert column.to_pylist() == ["ok", "null_logits", "bad_label"]
    assert column.dictionary.to_pylist() == list(STATUS_NAMES)
    column.validate(full=True)


def test_predictions():
    """Predicted classes are int32, or names; the value of a missing one doesn't matter."""
    pred = np.array([2, -1, 0])
    assert pred_column(pred).type == pa.int32()
    assert pred_column(pred, missing=MISSING).to_pylist() == [2, None, 0]
    named = pred_column(pred, ("a", "b", "c"), MISSING)
    assert named.type == pa.string()
    assert named.to_pylist() == ["c", None, "a"]

"""Tests the reading of logits as matrices: every layout, sliced or not, with every kind of bad row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchmax.columns.find_logits import find_logits
from batchmax.columns.matrices import column_array, first_row_length, read_matrix
from batchmax.columns.result_arrays import matrix_columns
from batchmax.errors import DataError, UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.statuses import Status
from tests.support.paths import DATA

DATA = DATA / "layouts"
OK, NULL, LENGTH = Status.OK, Status.NULL_LOGITS, Status.BAD_LENGTH
SPARK = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)


def as_batch(array, name="logits"):
    return pa.record_batch({name: array})


def vector(row):
    return None if row is None else {"type": 1, "size": None, "indices": None, "values": row}


def bits(row, dtype="<f4"):
    return None if row is None else np.array(row, dtype).tobytes()


LAYOUTS = {
    "list": lambda rows: as_batch(pa.array(rows, pa.list_(pa.float32()))),
    "list64": lambda rows: as_batch(pa.array(rows, pa.list_(pa.float64()))),
    "list16": lambda rows: as_batch(
        pa.array([None if r is None else list(np.array(r, "f2")) for r in rows], pa.list_(pa.float16()))
    ),
    "list_int": lambda rows: as_batch(pa.array(rows, pa.list_(pa.int16()))),
    "list_view": lambda rows: as_batch(pa.array(rows, pa.list_view(pa.float32()))),
    "large_list": lambda rows: as_batch(pa.array(rows, pa.large_list(pa.float32()))),
    "fixed": lambda rows: as_batch(pa.array(rows, pa.list_(pa.float32(), 3))),
    "fixed64": lambda rows: as_batch(pa.array(rows, pa.list_(pa.float64(), 3))),
    "tensor": lambda rows: as_batch(
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [3]), pa.array(rows, pa.list_(pa.float32(), 3))
        )
    ),
    "dictionary": lambda rows: as_batch(
        pa.DictionaryArray.from_arrays(pa.array(range(len(rows)), pa.int32()), pa.array(rows, pa.list_(pa.float32())))
    ),
    "spark": lambda rows: as_batch(pa.array([vector(row) for row in rows], SPARK)),
    "nested": lambda rows: as_batch(
        pa.array([None if r is None else {"z": r} for r in rows], pa.struct([("z", pa.list_(pa.float32()))])),
        "o",
    ),
    "wide": lambda rows: pa.record_batch(
        {f"logit_{j}": pa.array([None if r is None else r[j] for r in rows], pa.float32()) for j in range(3)}
    ),
    "binary": lambda rows: as_batch(pa.array([bits(r) for r in rows], pa.binary())),
    "large_binary": lambda rows: as_batch(pa.array([bits(r) for r in rows], pa.large_binary())),
    "binary_view": lambda rows: as_batch(pa.array([bits(r) for r in rows], pa.binary_view())),
    "fixed_binary": lambda rows: as_batch(pa.array([bits(r) for r in rows], pa.binary(12))),
    "uint16": lambda rows: as_batch(
        pa.array(
            [None if r is None else (np.array(r, "f4").view(np.uint32) >> 16).astype("u2") for r in rows],
            pa.list_(pa.uint16()),
        )
    ),
}
OPTIONS = {name: {"logits_dtype": "float32"} for name in LAYOUTS if "binary" in name}
OPTIONS |= {"uint16": {"logits_dtype": "bfloat16"}, "nested": {"logits": "o.z"}}
RAGGED = sorted(set(LAYOUTS) - {"fixed", "fixed64", "tensor", "wide", "fixed_binary"})
VIEWS = {"list", "list64", "large_list", "fixed", "fixed64", "tensor", "spark", "nested", "binary"}
VIEWS |= {"large_binary", "fixed_binary"}


def read(batch, n_classes=3, take=np.empty, **options):
    column = find_logits(batch.schema, ScoreOptions(**options))
    matrix, statuses = read_matrix(batch, column, n_classes, take)
    assert matrix.shape == (batch.num_rows, n_classes)
    assert matrix.dtype == column.dtype
    assert matrix.flags.c_contiguous
    assert matrix.flags.aligned
    assert not matrix.flags.writeable
    if statuses is not None:
        assert statuses.dtype == np.uint8
        assert (statuses != OK).any()
        assert not matrix[statuses != OK].any()
    return matrix, statuses


def dirty(shape, dtype):
    """Return an array of 77s, like memory that was used before."""
    return np.full(shape, 77, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [(0, 7), (2, 4), (5, 2), (3, 0), (0, 0)])
def test_whole_rows(layout, window):
    """Every layout, sliced or not, gives its numbers, and no statuses if all rows are good."""
    rows = [[i, -i, i + 0.5 if layout != "list_int" else i] for i in range(7)]
    batch = LAYOUTS[layout](rows).slice(*window)
    matrix, statuses = read(batch, take=dirty, **OPTIONS.get(layout, {}))
    assert statuses is None
    start, length = window
    np.testing.assert_array_equal(matrix, np.array(rows, "f8")[start : start + length])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("start", [0, 1, 2])
def test_null_rows(layout, start):
    """A null row has the status NULL_LOGITS and zeros; other rows are unchanged."""
    rows = [None, [1, 2, 3], None, [4, 5, 6], [7, 8, 9], None]
    batch = LAYOUTS[layout](rows).slice(start)
    matrix, statuses = read(batch, take=dirty, **OPTIONS.get(layout, {}))
    expected = [[0, 0, 0] if row is None else row for row in rows]
    np.testing.assert_array_equal(statuses, [NULL if row is None else OK for row in rows][start:])
    np.testing.assert_array_equal(matrix, expected[start:])


@pytest.mark.parametrize("layout", RAGGED)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_ragged_rows(layout, start):
    """Rows of another length have the status BAD_LENGTH and zeros; other rows are unchanged."""
    rows = [[1, 2, 3], [1, 2], [4, 5, 6, 7], [], None, [7, 8, 9]]
    batch = LAYOUTS[layout](rows).slice(start)
    matrix, statuses = read(batch, take=dirty, **OPTIONS.get(layout, {}))
    np.testing.assert_array_equal(statuses, [OK, LENGTH, LENGTH, LENGTH, NULL, OK][start:])
    zeros = [0, 0, 0]
    np.testing.assert_array_equal(matrix, [[1, 2, 3], zeros, zeros, zeros, zeros, [7, 8, 9]][start:])


@pytest.mark.parametrize("layout", ["list", "list64", "list_int", "large_list", "fixed", "tensor", "spark", "wide"])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_null_elements(layout, start):
    """A row with a null element has the status NULL_LOGITS."""
    rows = [[1, None, 3], [4, 5, 6], None, [None, None, None], [7, 8, 9]]
    matrix, statuses = read(LAYOUTS[layout](rows).slice(start), take=dirty)
    np.testing.assert_array_equal(statuses, [NULL, OK, NULL, NULL, OK][start:])
    np.testing.assert_array_equal(matrix, [[0] * 3, [4, 5, 6], [0] * 3, [0] * 3, [7, 8, 9]][start:])


def test_null_elements_in_ragged_rows():
    """A row of another length with a null element has the status BAD_LENGTH; other rows are unchanged."""
    rows = [[None], [1, 2, 3], [4, None, 6], [None] * 4, [7, 8, 9]]
    matrix, statuses = read(LAYOUTS["list"](rows))
    np.testing.assert_array_equal(statuses, [LENGTH, OK, NULL, LENGTH, OK])
    np.testing.assert_array_equal(matrix[[1, 4]], [[1, 2, 3], [7, 8, 9]])


def test_numbers_under_null_rows():
    """Values that a list array stores under a null row are ignored, whatever their number and nulls."""
    values = pa.array([1, 2, 3, None, 5, 6, 7, 8, 9], pa.float32())
    mask = pa.array([False, True, False])
    array = pa.ListArray.from_arrays(pa.array([0, 3, 6, 9], pa.int32()), values, mask=mask)
    matrix, statuses = read(as_batch(array))
    np.testing.assert_array_equal(statuses, [OK, NULL, OK])
    np.testing.assert_array_equal(matrix, [[1, 2, 3], [0, 0, 0], [7, 8, 9]])
    array = pa.ListArray.from_arrays(pa.array([0, 3, 7, 9], pa.int32()), values, mask=mask)
    np.testing.assert_array_equal(read(as_batch(array))[1], [OK, NULL, LENGTH])


def test_views_in_any_order():
    """List views that overlap or aren't in order are read."""
    values = pa.array([1, 2, 3, 4], pa.float32())
    array = pa.ListViewArray.from_arrays(pa.array([1, 0, 0], pa.int32()), pa.array([3, 3, 2], pa.int32()), values)
    matrix, statuses = read(as_batch(array))
    np.testing.assert_array_equal(statuses, [OK, OK, LENGTH])
    np.testing.assert_array_equal(matrix, [[2, 3, 4], [1, 2, 3], [0, 0, 0]])


def test_another_width():
    """All rows of a fixed-size list of another size than the number of classes have the status BAD_LENGTH."""
    matrix, statuses = read(LAYOUTS["fixed"]([[1, 2, 3], None]), n_classes=4)
    np.testing.assert_array_equal(statuses, [LENGTH, NULL])
    assert not matrix.any()


@pytest.mark.parametrize("layout", sorted(VIEWS))
def test_no_copy(layout):
    """If no conversion is needed the matrix is a view of Arrow's memory, sliced or not."""
    batch = LAYOUTS[layout]([[i, -i, 0.5] for i in range(9)])
    name = find_logits(batch.schema, ScoreOptions(**OPTIONS.get(layout, {}))).names[0]
    array = column_array(batch, name)
    if layout == "tensor":
        array = array.storage
    if layout == "spark":
        array = array.field("values")
    buffer = array.buffers()[-1]
    for start in (0, 2):
        matrix, _ = read(batch.slice(start, 5), take=None, **OPTIONS.get(layout, {}))
        assert matrix.ctypes.data == buffer.address + start * 3 * matrix.itemsize


def test_a_view_keeps_its_memory_alive():
    """A view keeps the memory of its batch alive, and is read-only."""
    source = np.arange(300_000, dtype="f4")
    matrix, _ = read(as_batch(pa.FixedSizeListArray.from_arrays(pa.array(source), 3)), take=None)
    np.testing.assert_array_equal(matrix.reshape(-1), source)
    with pytest.raises(ValueError, match="read-only"):
        matrix[0] = 0


def test_bad_rows_are_written_into_the_given_memory():
    """If rows must be copied, the memory is from ``take``."""
    given_memory = []

    def take(shape, dtype):
        given_memory.append(dirty(shape, dtype))
        return given_memory[-1]

    for rows in ([[1, 2, 3], None], [[1, 2, 3], [1]]):
        matrix, _ = read(LAYOUTS["list"](rows), take=take)
        assert np.shares_memory(matrix, given_memory[-1])
    assert len(given_memory) == 2


def test_unaligned_bytes_are_copied():
    """Binary rows at an unaligned address are copied into aligned memory."""
    batch = as_batch(pa.array([b"x", bits([1, 2, 3]), bits([4, 5, 6])], pa.binary())).slice(1)
    matrix, statuses = read(batch, logits_dtype="float32")
    assert statuses is None
    np.testing.assert_array_equal(matrix, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half(dtype):
    """All 65,536 values of float16 and bfloat16 are converted to float32 exactly."""
    halves = np.arange(2**16, dtype=np.uint16)
    exact = halves.view(np.float16).astype("f4") if dtype == "float16" else (halves.astype("u4") << 16).view("f4")
    for array in (
        pa.array(list(halves.reshape(-1, 4)), pa.list_(pa.uint16())),
        pa.array([row.tobytes() for row in halves.reshape(-1, 4)], pa.binary()),
        pa.array([row.tobytes() for row in halves.reshape(-1, 4)], pa.binary(8)),
    ):
        matrix, _ = read(as_batch(array), n_classes=4, logits_dtype=dtype)
        np.testing.assert_array_equal(matrix.reshape(-1), exact)


def test_integers_are_converted():
    """uint64 logits become float64, rounded if they aren't exact."""
    rows = [[0, 2**64 - 1, 2**53 + 1]]
    matrix, _ = read(as_batch(pa.array(rows, pa.list_(pa.uint64()))))
    np.testing.assert_array_equal(matrix, [[0.0, float(2**64), float(2**53)]])


def test_wide_tiles():
    """A wide batch larger than one tile is read completely, also if column types differ."""
    numbers = np.random.default_rng(0).normal(size=(100_003, 3)).astype("f4")
    arrays = {f"logit_{j}": pa.array(numbers[:, j]) for j in range(3)}
    np.testing.assert_array_equal(read(pa.record_batch(arrays))[0], numbers)
    arrays["logit_1"] = arrays["logit_1"].cast(pa.float64())
    arrays["logit_2"] = pa.array(np.arange(100_003))
    matrix, _ = read(pa.record_batch(arrays))
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix[:, 2], np.arange(100_003))


def test_nested_nulls():
    """A row whose struct is null at any depth has the status NULL_LOGITS, even if the field has values."""
    inner = pa.array([[1.0, 2.0, 3.0]] * 3, pa.list_(pa.float32()))
    middle = pa.StructArray.from_arrays([inner], ["z"], mask=pa.array([False, True, False]))
    outer = pa.StructArray.from_arrays([middle], ["m.m"], mask=pa.array([False, False, True]))
    for start in (0, 1):
        matrix, statuses = read(as_batch(outer, "o").slice(start), logits="o.m.m.z")
        np.testing.assert_array_equal(statuses, [OK, NULL, NULL][start:])
        np.testing.assert_array_equal(matrix, [[1, 2, 3], [0] * 3, [0] * 3][start:])


def test_sparse_vectors():
    """A sparse Spark vector raises DataError with its row in the batch and a remedy."""
    sparse = {"type": 0, "size": 10, "indices": [1, 4], "values": [0.5, 2.0]}
    batch = as_batch(pa.array([sparse, None, vector([1, 2, 3]), sparse], SPARK)).slice(1)
    column = find_logits(batch.schema, ScoreOptions())
    with pytest.raises(DataError, match="row 2 of the batch: column 'logits' has a sparse Spark vector") as caught:
        read_matrix(batch, column, 3)
    assert caught.value.row == 2
    assert "2 of 10 values stored" in str(caught.value)
    assert "vector_to_array" in caught.value.remedy
    with pytest.raises(DataError, match="sparse"):
        first_row_length(batch, column)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_row_length(layout):
    """``first_row_length`` is the length of the first row that is neither null nor empty, or None."""
    options = ScoreOptions(**OPTIONS.get(layout, {}))
    batch = LAYOUTS[layout]([None, [1, 2, 3], [4, 5, 6]])
    column = find_logits(batch.schema, options)
    assert first_row_length(batch, column) == 3
    assert first_row_length(batch.slice(2), column) == 3
    if layout in RAGGED:
        batch = LAYOUTS[layout]([None, [], [1, 2], [4, 5, 6]])
        assert first_row_length(batch, column) == 2
        assert first_row_length(batch.slice(3), column) == 3
        assert first_row_length(batch.slice(0, 2), column) is None
        assert first_row_length(batch.slice(0, 0), column) is None


def test_broken_bytes():
    """Binary rows that aren't a whole number of values raise UsageError if the first row is one, else BAD_LENGTH."""
    batch = as_batch(pa.array([b"12345", bits([1, 2, 3])], pa.binary()))
    column = find_logits(batch.schema, ScoreOptions(logits_dtype="float32"))
    with pytest.raises(UsageError, match="--logits-dtype: a row of column 'logits' has 5 bytes"):
        first_row_length(batch, column)
    np.testing.assert_array_equal(read(batch, logits_dtype="float32")[1], [LENGTH, OK])


def test_missing_column():
    """A batch without the logits column raises UsageError with its name."""
    column = find_logits(LAYOUTS["nested"]([]).schema, ScoreOptions(logits="o.z"))
    with pytest.raises(UsageError, match=r"no column 'o\.z'"):
        read_matrix(LAYOUTS["list"]([]), column, 3)


def test_a_thousand_wide_columns_with_nulls():
    """A null in the last of 1,000 wide columns gives the status NULL_LOGITS."""
    arrays = {f"logit_{j}": pa.array([1.0, None if j == 999 else 2.0], pa.float32()) for j in range(1000)}
    np.testing.assert_array_equal(read(pa.record_batch(arrays), n_classes=1000)[1], [OK, NULL])


@given(
    data=st.data(),
    layout=st.sampled_from(["list", "large_list", "fixed", "wide"]),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
)
def test_round_trip(data, layout, dtype):
    """A matrix written in any layout is read back unchanged, and missing rows as null."""
    shape = (data.draw(st.integers(0, 20)), data.draw(st.integers(1, 9)))
    matrix = data.draw(hnp.arrays(np.dtype(dtype), shape, elements=st.floats(width=8 * int(dtype[1]))))
    missing = data.draw(hnp.arrays(np.bool_, shape[0]))
    columns = matrix_columns("logits", matrix, layout, missing=missing)
    batch = pa.record_batch([array for _, array in columns], schema=pa.schema([field for field, _ in columns]))
    batch.validate(full=True)
    start = data.draw(st.integers(0, shape[0]))
    got, statuses = read(batch.slice(start), n_classes=shape[1], take=dirty, logits=None)
    expected = np.where(missing[:, None], 0, matrix.astype(got.dtype))[start:]
    np.testing.assert_array_equal(got, expected)
    if statuses is None:
        assert not missing[start:].any()
    else:
        np.testing.assert_array_equal(statuses == NULL, missing[start:])


@pytest.mark.parametrize("path", sorted(DATA.glob("*.parquet")), ids=lambda path: path.stem)
def test_files(path):
    """The digits' logits are equal in every layout, within the layout's precision."""
    layout = path.stem.removeprefix("digits_")
    options = {
        "bfloat16": {"logits_dtype": "bfloat16"},
        "binary": {"logits_dtype": "float32"},
        "nested": {"logits": "outputs.logits"},
    }.get(layout, {})
    plain = np.array(pq.read_table(DATA / "digits_list.parquet")["logits"].to_pylist())
    rtol, atol = {"bfloat16": (2**-7, 0), "list_float16": (2**-10, 0), "list_int": (0, 1)}.get(layout, (0, 0))
    matrices = [read(batch, 10, **options) for batch in pq.ParquetFile(path).iter_batches(batch_size=37)]
    assert all(statuses is None for _, statuses in matrices)
    got = np.concatenate([matrix for matrix, _ in matrices])
    np.testing.assert_allclose(got, plain, rtol, atol)

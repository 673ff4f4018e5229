"""``convert`` changes the layout of logits and nothing else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from batchmax import BadRowError, DataError, OutputError, UsageError
from batchmax.jobs.convert import convert
from batchmax.jobs.score import score
from batchmax.options.score_options import score_options
from batchmax.sources import chunks
from tests.support.paths import DATA
from tests.support.rows import INF, NAN, columns_of, lists, some_logits

DATA = DATA / "layouts"
INPUTS = ["list", "large_list", "fixed", "tensor", "wide", "nested", "binary", "spark", "list_float64"]
READ_AS = {"nested": {"logits": "outputs.logits"}, "binary": {"logits_dtype": "float32"}}


def matrix_of(table, name, layout):
    if layout == "wide":
        return np.column_stack(
            [columns_of(table, column) for column in table.column_names if column.startswith("logit_")]
        )
    return columns_of(table, name)


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize("kind", INPUTS)
def test_every_layout_becomes_every_other(kind, layout, tmp_path):
    """Values, their type and other columns are unchanged, and the converted file has the same losses."""
    options = READ_AS.get(kind, {})
    path, out = DATA / f"digits_{kind}.parquet", tmp_path / "out.parquet"
    summary = convert(path, out, layout, score_options(**options))
    got, plain = pq.read_table(out), pq.read_table(DATA / "digits_list.parquet")
    values = matrix_of(got, "logits", layout)
    assert_array_equal(values, columns_of(plain, "logits"))
    assert values.dtype == (np.float64 if kind in {"spark", "list_float64"} else np.float32)
    rest = [name for name in got.column_names if not name.startswith("logit")]
    assert rest == ["id", "label"]
    assert got.select(rest).equals(plain.select(rest))
    assert summary.n_rows == 60
    score(out, tmp_path / "after.parquet", outputs="loss,pred")
    score(path, tmp_path / "before.parquet", outputs="loss,pred", **options)
    assert pq.read_table(tmp_path / "after.parquet").equals(pq.read_table(tmp_path / "before.parquet"))


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
def test_nan_infinity_and_minus_zero_are_numbers(layout, tmp_path):
    """The bits of logits don't change; NaN and infinity aren't bad rows here."""
    logits = np.array([[NAN, INF], [-INF, -INF], [-0.0, 1e-45]], np.float32)
    pq.write_table(pa.table({"logits": lists(logits)}), tmp_path / "in.parquet")
    summary = convert(tmp_path / "in.parquet", tmp_path / "out.parquet", layout)
    got = matrix_of(pq.read_table(tmp_path / "out.parquet"), "logits", layout)
    assert_array_equal(got.view(np.uint32), logits.view(np.uint32))
    assert summary.bad_rows == 0


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
def test_rows_that_cannot_be_laid_out_follow_the_policy(layout, tmp_path):
    """Null rows and rows of the wrong length follow ``on_bad_row``: an error, null, or dropped."""
    rows = [[1.0, 2.0], None, [3.0], [4.0, 5.0]]
    table = pa.table({"id": [0, 1, 2, 3], "logits": pa.array(rows, pa.list_(pa.float32()))})
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table, path, row_group_size=2)
    with pytest.raises(BadRowError, match=r"in\.parquet: row 1 \(row group 0\): the logits are null"):
        convert(path, out, layout)
    assert not out.exists()
    summary = convert(path, out, layout, score_options(on_bad_row="null"))
    name = "logit_0" if layout == "wide" else "logits"
    assert pq.read_table(out)[name].is_null().to_pylist() == [False, True, True, False]
    assert summary.status_counts == {"null_logits": 1, "bad_length": 1, "ok": 2}
    convert(path, out, layout, score_options(on_bad_row="drop", if_exists="overwrite"))
    assert pq.read_table(out)["id"].to_pylist() == [0, 3]


def test_wide_columns_keep_their_names(tmp_path):
    """Wide columns with class names keep their names in the wide layout; as a list they are one column 'logits'."""
    pq.write_table(pa.table({"logit_cat": [1.0], "logit_dog": [2.0]}), tmp_path / "in.parquet")
    convert(tmp_path / "in.parquet", tmp_path / "out.parquet", "wide")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [{"logit_cat": 1.0, "logit_dog": 2.0}]
    convert(tmp_path / "in.parquet", tmp_path / "list.parquet", "list")
    assert pq.read_table(tmp_path / "list.parquet").to_pylist() == [{"logits": [1.0, 2.0]}]


def test_a_taken_name_is_refused(tmp_path):
    """A new column never replaces a carried one."""
    pq.write_table(pa.table({"z": lists(np.zeros((1, 2))), "logit_1": [1]}), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match=r"already has a column 'logit_1'; --exclude logit_1"):
        convert(tmp_path / "in.parquet", tmp_path / "out.parquet", "wide", score_options(logits="z"))
    convert(tmp_path / "in.parquet", tmp_path / "out.parquet", "wide", score_options(logits="z", exclude="logit_1"))
    assert pq.read_schema(tmp_path / "out.parquet").names == ["logit_0", "logit_1"]


def test_files_row_groups_and_order_are_kept(tmp_path, monkeypatch):
    """Several files, read in small chunks, become one file with the same rows and row groups in order."""
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 256)
    logits = some_logits(50, 6)
    for number in range(2):
        rows = logits[number * 25 : (number + 1) * 25]
        pq.write_table(pa.table({"logits": lists(rows)}), tmp_path / f"{number}.parquet", row_group_size=20)
    convert(str(tmp_path / "?.parquet"), tmp_path / "out.pq", "fixed")
    footer = pq.read_metadata(tmp_path / "out.pq")
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [20, 5, 20, 5]
    assert_array_equal(columns_of(pq.read_table(tmp_path / "out.pq"), "logits"), logits)
    convert(tmp_path / "out.pq", tmp_path / "few.pq", "list", score_options(limit=22))
    assert_array_equal(columns_of(pq.read_table(tmp_path / "few.pq"), "logits"), logits[:22])


def test_an_output_that_exists_is_refused(tmp_path):
    """``convert`` doesn't replace an existing output, and never its input, like ``score``."""
    path = DATA / "digits_list.parquet"
    (tmp_path / "out.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match="the output exists"):
        convert(path, tmp_path / "out.parquet", "fixed")
    pq.write_table(pq.read_table(path), tmp_path / "in.parquet")
    with pytest.raises(OutputError, match="also an input"):
        convert(tmp_path / "in.parquet", tmp_path / "in.parquet", "fixed", score_options(if_exists="overwrite"))
    assert (tmp_path / "out.parquet").read_bytes() == b"mine"
    assert pq.read_table(tmp_path / "in.parquet").num_rows == 60


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int64()], ids=str)
@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
def test_numbers_keep_their_type(kind, layout, tmp_path):
    """Only the layout changes: float16 stays float16, and integers stay integers."""
    rows = pa.array([[1, 2], [3, 4]], pa.list_(pa.int8())).cast(pa.list_(kind))
    pq.write_table(pa.table({"logits": rows}), tmp_path / "in.parquet")
    convert(tmp_path / "in.parquet", str(tmp_path / "out.parquet"), layout)
    field = pq.read_schema(tmp_path / "out.parquet").field(0)
    assert (field.type if layout == "wide" else field.type.value_type) == kind


def test_integers_that_floats_cannot_hold_are_refused(tmp_path):
    """Integers beyond 2**53 are rejected, because a conversion would change them."""
    rows = pa.array([[2**60 + 1, 2]], pa.list_(pa.int64()))
    pq.write_table(pa.table({"logits": rows}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"2\*\*53"):
        convert(tmp_path / "in.parquet", str(tmp_path / "out.parquet"), "fixed")


def test_rejects_of_a_conversion(tmp_path):
    """Dropped rows are written to the rejects with their status."""
    rows = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": [1, 2, 3], "logits": rows}), tmp_path / "in.parquet")
    options = score_options(on_bad_row="drop", rejects=str(tmp_path / "r.parquet"))
    convert(tmp_path / "in.parquet", str(tmp_path / "out.parquet"), "fixed", options)
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [1, 3]
    assert pq.read_table(tmp_path / "r.parquet").select(["id", "status"]).to_pylist() == [
        {"id": 2, "status": "null_logits"}
    ]


def test_probabilities_of_score_are_refused(tmp_path):
    """``convert`` takes logits; probabilities that ``score`` computed would lose their description."""
    score(DATA.parent / "digits.parquet", tmp_path / "scored.parquet", activation="sigmoid")
    with pytest.raises(UsageError, match=r"column .probs. has probabilities that score computed.*--layout wide"):
        convert(tmp_path / "scored.parquet", tmp_path / "out.parquet", layout="wide")
    assert not (tmp_path / "out.parquet").exists()

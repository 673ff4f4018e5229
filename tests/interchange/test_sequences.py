"""Sequences from other writers give the same rows as ours, and other readers read our output with the same values."""

from __future__ import annotations

import functools
import re

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.parquet_readers import READERS, hugging_face
from tests.support.progress import Recorder
from tests.support.requirements import optional

duckdb = optional("duckdb")
pl = optional("polars")

K = 11
OUTPUTS = "probs,log_probs,loss,pred,confidence,rank,correct,status"
LENGTHS = [5, 0, 31, 1, 0, 12, 90, 2, 7]
READ_NESTED = [name for name in READERS if name != "fastparquet"]
"""Readers that support lists of lists; fastparquet doesn't."""
LABELS, NUMBERS = pa.list_(pa.int32()), pa.list_(pa.list_(pa.float32()))


def sequences(*, odd=False, n_copies=1, k=K):
    """Return a table of sequences; with ``odd``, it has a null row, a null token, null labels, NaN and infinities."""
    random = np.random.default_rng(8)
    rows, labels = [], []
    for length in LENGTHS * n_copies:
        rows.append((3 * random.standard_normal((length, k))).astype(np.float32).tolist())
        labels.append(random.integers(0, k, length).tolist())
    if odd:
        rows[2][3], rows[2][4][1], rows[5][0][0] = None, float("nan"), float("-inf")
        labels[6][7], labels[6][8] = None, -100
        rows[8] = None
    return pa.table({"id": range(len(rows)), "logits": pa.array(rows, NUMBERS), "labels": pa.array(labels, LABELS)})


def scored(path, **options):
    """Return the scored file, and how many chunks of logits were read as matrices and how many by pyarrow."""
    out, recorder = path.with_name("scored.parquet"), Recorder()
    options = {"label": "labels", "outputs": OUTPUTS, "top_k": 3, "on_bad_row": "null"} | options
    batchmax.score(path, out, if_exists="overwrite", progress=recorder, **options)
    ways = re.search(r"read as matrices: ([\d,]+), by pyarrow: ([\d,]+)", "".join(recorder.details)).groups()
    return out, tuple(int(number.replace(",", "")) for number in ways)


def without_dictionaries(kind):
    """Return a type with dictionaries replaced by their value types, at any depth."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(without_dictionaries(kind.value_type)) if pa.types.is_list(kind) else kind


def rows_of(table):
    """Return rows as text, in which NaN equals itself."""
    return [repr(row) for row in table.to_pylist()]


# Our files, other readers


@pytest.mark.parametrize("reader", READ_NESTED)
@pytest.mark.parametrize("how", ["snappy", "none", "zstd", "odd rows"])
def test_everyone_reads_what_we_write(how, reader, tmp_path):
    """Other readers get the same values for nested probabilities, lists of token values, and scalars."""
    odd = how == "odd rows"
    pq.write_table(sequences(odd=odd, n_copies=3), tmp_path / "in.parquet", row_group_size=10)
    out, _ = scored(tmp_path / "in.parquet", compression="snappy" if odd else how)
    want = pq.read_table(out)
    assert {"probs", "losses", "preds", "statuses", "top_k_classes", "mean_loss", "n_tokens"} < set(want.column_names)
    schema = pa.schema([(field.name, without_dictionaries(field.type)) for field in want.schema])
    found = READERS[reader](out, schema)
    for name in schema.names:
        assert rows_of(found.select([name])) == rows_of(want.select([name])), name


# Other writers, our reader


def with_polars(table, path):
    pl.from_arrow(table).write_parquet(path, row_group_size=7)


def with_polars_streaming(table, path):
    pl.from_arrow(table).lazy().sink_parquet(path, compression="snappy", row_group_size=7)


def with_polars_arrays(table, path):
    token = pl.List(pl.Array(pl.Float32, K))
    pl.from_arrow(table).with_columns(pl.col("logits").cast(token)).write_parquet(path, data_page_size=200)


def with_duckdb(table, path, version="v1"):
    with duckdb.connect() as connection:
        connection.register("sequences", table)
        connection.sql(f"COPY sequences TO '{path}' (FORMAT parquet, PARQUET_VERSION {version}, ROW_GROUP_SIZE 2048)")


def with_pandas(table, path):
    table.to_pandas().to_parquet(path)


def with_hugging_face(table, path):
    datasets = hugging_face(str(path.parent / ".hugging_face"))
    datasets.Dataset(table).to_parquet(path)


def with_pyarrow_dataset(table, path):
    ds.write_dataset(table, path.parent / "folder", format="parquet")
    (path.parent / "folder" / "part-0.parquet").rename(path)


WRITERS = {
    "polars": with_polars,
    "polars streaming": with_polars_streaming,
    "polars arrays": with_polars_arrays,
    "duckdb": with_duckdb,
    "duckdb version 2": functools.partial(with_duckdb, version="v2"),
    "pandas": with_pandas,
    "hugging face": with_hugging_face,
    "pyarrow dataset": with_pyarrow_dataset,
}


@pytest.mark.parametrize(
    ("writer", "odd"),
    # pandas reads NaN as null, and converts integers with nulls to floats.
    [(writer, odd) for writer in WRITERS for odd in (False, True) if not (odd and writer == "pandas")],
)
def test_what_others_write_is_scored_as_ours(writer, odd, tmp_path, monkeypatch):
    """Every writer's file gives the same rows as pyarrow's, and only chunks with null tokens are read by pyarrow."""
    table = sequences(odd=odd, n_copies=4)
    (tmp_path / "ours").mkdir()
    pq.write_table(table, tmp_path / "ours" / "in.parquet", row_group_size=9)
    want, _ = scored(tmp_path / "ours" / "in.parquet")
    path = tmp_path / "in.parquet"
    WRITERS[writer](table, path)
    assert pq.read_table(path).num_rows == table.num_rows
    for way in ("", "pyarrow"):
        monkeypatch.setenv("BATCHMAX_PARQUET", way)
        out, ways = scored(path)
        assert odd or ways[way != "pyarrow"] == 0, (way, ways)
        found = pq.read_table(out)
        assert found.column_names == pq.read_schema(want).names
        assert rows_of(found) == rows_of(pq.read_table(want))

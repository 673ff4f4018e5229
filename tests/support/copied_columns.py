"""Columns of every type that ``score`` copies, and what each reader must find in the output."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest

from tests.support.interchange import matrix_of, null_rows
from tests.support.parquet_readers import READERS, as_type, same
from tests.support.requirements import is_older
from tests.support.rows import lists

UNREADABLE = {
    # It returns the leaves of structs, and strips trailing zeros from fixed-size binary values
    "fastparquet": {"nest", "code", "points"},
    # Integers with nulls become float64
    "pandas": {"huge"},
    # Booleans with nulls in data pages V2, and pages without a value
    ("fastparquet", "second version"): {"flag"},
    ("fastparquet", "page index"): {"nothing"},
}
"""Columns that a reader changes or doesn't support, whatever wrote them."""
REFUSING_READERS = set()
"""Readers that refuse a file with a column of every type."""
if is_older("datasets", "5.1"):
    REFUSING_READERS = {"load_dataset", "Dataset.from_parquet"}  # they don't support fixed-size binary

INPUTS = {
    "plain": {"row_group_size": 100, "compression": "snappy"},
    "one group": {"compression": "zstd", "data_page_size": 400, "write_batch_size": 20},
    "page index": {
        "row_group_size": 60,
        "write_page_index": True,
        "data_page_size": 200,
        "write_batch_size": 10,
        "compression": "none",
    },
    "second version": {"row_group_size": 90, "data_page_version": "2.0", "version": "2.6", "data_page_size": 300},
    "no statistics": {"row_group_size": 100, "write_statistics": False, "use_dictionary": False, "compression": "gzip"},
    "many groups": {"row_group_size": 3, "compression": "lz4"},
    "no Arrow schema": {"row_group_size": 100, "store_schema": False},
    "old types": {
        "row_group_size": 80,
        "version": "1.0",
        "use_deprecated_int96_timestamps": True,
        "use_compliant_nested_type": False,
    },
    "checksums": {"row_group_size": 50, "write_page_checksum": True, "compression": "brotli"},
}


def all_types(n_rows):
    """Return a column of each type, with nulls, empty values and repeated values."""
    some = lambda values: [None if number % 7 == 3 else value for number, value in enumerate(values)]
    rows = range(n_rows)
    noon = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    return {
        "count": pa.array(some(rows), pa.int64()),
        "small": pa.array(some(row % 200 - 100 for row in rows), pa.int8()),
        "huge": pa.array(some(2**63 + row for row in rows), pa.uint64()),
        "real": pa.array(some(row / 8 for row in rows), pa.float64()),
        "flag": pa.array(some(row % 3 == 0 for row in rows), pa.bool_()),
        "text": pa.array(some("" if row % 5 == 0 else f"row {row} ü" for row in rows), pa.string()),
        "kind": pa.array(some("abc"[row % 3] for row in rows)).dictionary_encode(),
        "blob": pa.array(some(bytes([row % 256, 0, 255][: row % 4]) for row in rows), pa.binary()),
        "code": pa.array(some(bytes([row % 256] * 4) for row in rows), pa.binary(4)),
        "when": pa.array(some(noon + dt.timedelta(seconds=row) for row in rows), pa.timestamp("us", "UTC")),
        "day": pa.array(some(noon.date() + dt.timedelta(row % 99) for row in rows), pa.date32()),
        "price": pa.array(some(decimal.Decimal(row) / 4 for row in rows), pa.decimal128(12, 2)),
        "words": pa.array(some([f"w{word}" for word in range(row % 4)] for row in rows), pa.list_(pa.string())),
        "nest": pa.array(
            some({"a": row, "b": {"c": [f"x{row}"] * (row % 3)}} for row in rows),
            pa.struct({"a": pa.int32(), "b": pa.struct({"c": pa.list_(pa.string())})}),
        ),
        "points": pa.array(
            some([{"x": row, "y": None}] * (row % 3) for row in rows),
            pa.list_(pa.struct({"x": pa.int16(), "y": pa.float32()})),
        ),
        "nothing": pa.nulls(n_rows, pa.string()),
    }


def table_of_all_types(n_rows=250, n_classes=5, nulls="few"):
    """Return a table with columns of all types, its logits, and which rows are null."""
    matrix = matrix_of(n_rows, n_classes)
    missing = null_rows(nulls, n_rows, n_classes)
    matrix[missing, 0] = np.nan
    columns = list(all_types(n_rows).items())
    head, tail = dict(columns[:4]), dict(columns[4:])
    label = pa.array(np.arange(n_rows) % n_classes)
    columns = {**head, "logits": lists(matrix), "id": pa.array(range(n_rows)), **tail, "label": label}
    return pa.table(columns), matrix, missing


def check_copied_columns(out, source, keep=slice(None), readers=READERS, how=""):
    """Check that every reader finds the source's columns, or the rows ``keep`` of them, in an output."""
    names = [name for name in source.column_names if name != "logits"]
    rows = pa.array(np.arange(source.num_rows)[keep])
    want = source.select(names).take(rows)
    for reader, read in readers.items():
        if (
            reader in REFUSING_READERS
            and "code" in names
            and pa.types.is_fixed_size_binary(want.schema.field("code").type)
        ):
            with pytest.raises(ValueError, match="does not have a datasets dtype equivalent"):
                read(out, want.schema.remove_metadata())
            continue
        unreadable = UNREADABLE.get(reader, set()) | UNREADABLE.get((reader, how), set())
        mine = [name for name in names if name not in unreadable]
        schema = want.select(mine).schema.remove_metadata()
        found = read(out, schema)
        for name in mine:
            assert same(found[name].combine_chunks(), as_type(want[name], schema.field(name).type)), (reader, name)

"""Tests statistics of carried columns, and filters, which use them.

The rows that filters find are compared with what the same reader finds when it first reads all of the input, so that it
uses no statistics. Statistics are compared with the values.
"""

from __future__ import annotations

import operator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.column_types import CARRIED, DEFAULT, FLAT, GRID, KNOWN_TO_POLARS, NAN, SOME, rows_in
from tests.support.parquet_anatomy import check_file, chunks_of
from tests.support.requirements import optional
from tests.support.rows import lists

duckdb = optional("duckdb")
pl = optional("polars")

pytestmark = pytest.mark.usefixtures("no_sync")


# Statistics


def leaf_values(array, path):
    """Return the values of a leaf of a column, inside any lists, structs and maps."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if pa.types.is_struct(array.type):
        at = next(place for place, name in enumerate(path) if array.type.get_field_index(name) >= 0)
        return leaf_values(pc.struct_field(array, path[at]), path[at + 1 :])
    if pa.types.is_map(array.type):
        return leaf_values(array.keys if "key" in path else array.items, path)
    return leaf_values(array.flatten(), path) if pa.types.is_nested(array.type) else array


@SOME
@GRID
def test_statistics_are_right(how, what, files):
    """Null counts are exact, and every value lies between minimum and maximum.

    Columns that contain NaN, and INT96 columns, have neither minimum nor maximum.
    """
    out = files(how, what)
    check_file(out)
    file = pq.ParquetFile(out)
    for number in range(file.num_row_groups):
        group, table = file.metadata.row_group(number), file.read_row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            name = column.path_in_schema.split(".")[0]
            if name not in CARRIED:
                continue
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                continue
            assert "int96" not in name
            values = leaf_values(table[name].combine_chunks(), column.path_in_schema.split(".")[1:])
            if pa.types.is_floating(values.type):
                assert not np.isnan(values.drop_null().to_numpy()).any(), column.path_in_schema


def test_right_statistics_are_kept(files):
    """Copied columns keep minimum and maximum, except those with NaN, of INT96, or with only nulls.

    In every output these exceptions have no minimum and maximum.
    """
    for how, what in (("1.0 with statistics", "copied"), ("2.0 without statistics", "copied"), *DEFAULT):
        without = {
            chunk.path
            for chunk in chunks_of(files(how, what))
            if chunk.path in CARRIED and 5 not in chunk.meta.get(12, {})
        }
        nan = {"float16", "float32", "float64", "float32 ones", "float64 nan"}
        unset = nan | {"nothing", "int96"}
        if (how, what) == ("1.0 with statistics", "copied"):
            assert without == unset
        assert without >= unset


# Filters


OPERATORS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
MOST_VALUES = 3
COMPARED_BY_PYARROW = set(FLAT) - {
    *("float16", "decimal32", "decimal64", "uuid", "json", "nothing", "int96"),
    *("dictionary", "ordered", "dictionary of numbers"),
}
"""The columns whose types pyarrow has comparison kernels for."""


def some_value(scalar):
    """Return a scalar's value in a form from which pyarrow makes the same scalar."""
    return scalar.value if pa.types.is_temporal(scalar.type) and scalar.is_valid else scalar.as_py()


@SOME
@GRID
def test_duckdb_filters_find_the_same_rows(how, what, files):
    """DuckDB finds the same rows with =, !=, <, >, and by null, in the output as in the input.

    Literals are values that occur, NaN, and numbers that may not occur.
    """
    path, out = files(how), files(how, what)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.sql(f"CREATE TABLE rows AS SELECT * FROM read_parquet('{path}') ORDER BY id LIMIT {rows_in(what)}")
        for name in FLAT:
            conditions = [f'"{name}" IS NULL', f'"{name}" IS NOT NULL']
            if name.startswith("float"):
                conditions += [f"\"{name}\" {sign} 'nan'" for sign in OPERATORS]
                conditions += [f'"{name}" {sign} {value}' for sign in OPERATORS for value in ("0.0", "-0.0", "1.0")]
            values = connection.sql(
                f'SELECT DISTINCT typeof("{name}"), "{name}"::VARCHAR FROM rows WHERE "{name}" IS NOT NULL ORDER BY 2'
            ).fetchall()
            for kind, text in values[:: max(1, len(values) // MOST_VALUES)]:
                conditions += [f"\"{name}\" {sign} '{text}'::{kind}" for sign in OPERATORS]
            for condition in conditions:
                where = f"WHERE {condition} ORDER BY id"
                want = connection.sql(f"SELECT id FROM rows {where}").fetchall()
                assert connection.sql(f"SELECT id FROM read_parquet('{out}') {where}").fetchall() == want, condition
        for field in ("x", "z.f"):
            for test in ("= 'nan'", "!= 1.0", "> 1.0", "IS NULL"):
                where = f"WHERE struct.{field} {test} ORDER BY id"
                want = connection.sql(f"SELECT id FROM rows {where}").fetchall()
                assert connection.sql(f"SELECT id FROM read_parquet('{out}') {where}").fetchall() == want, where


@SOME
@GRID
def test_polars_filters_find_the_same_rows(how, what, files):
    """Polars finds the same rows with filters in the output as in the input."""
    frame = pl.read_parquet(files(how), columns=["id", *KNOWN_TO_POLARS]).head(rows_in(what))
    scan = pl.scan_parquet(files(how, what)).select("id", *KNOWN_TO_POLARS)
    for name in [name for name in FLAT if name in KNOWN_TO_POLARS]:
        column = pl.col(name)
        tests = [column.is_null(), column.is_not_null()]
        if name.startswith("float"):
            tests += [
                column.is_nan(),
                *(sign(column, value) for sign in OPERATORS.values() for value in (NAN, 0.0, 1.0)),
            ]
        values = frame[name].drop_nulls().unique(maintain_order=True)
        if frame.schema[name] not in {pl.Categorical, pl.Null}:
            for value in values.to_list()[:: max(1, len(values) // MOST_VALUES)]:
                tests += [sign(column, pl.lit(value, dtype=frame.schema[name])) for sign in OPERATORS.values()]
        want = [frame.filter(test)["id"].to_list() for test in tests]
        found = pl.collect_all([scan.filter(test).select("id") for test in tests])
        assert [rows["id"].to_list() for rows in found] == want, name


@SOME
@GRID
def test_pyarrow_filters_find_the_same_rows(how, what, files):
    """A pyarrow dataset, which skips row groups by statistics, finds the same rows with filters as in the input."""
    table = pq.read_table(files(how)).slice(0, rows_in(what))
    data = ds.dataset(files(how, what))
    for name in [name for name in FLAT if name not in {"uuid", "json"}]:  # pyarrow doesn't compare their statistics
        column = pc.field(name)
        tests = [column.is_null(), column.is_valid()]
        kind = table.schema.field(name).type
        values = [np.nan, 0.0, 1.0] if pa.types.is_floating(kind) else list(dict.fromkeys(map(some_value, table[name])))
        values = [value for value in values[:: max(1, len(values) // MOST_VALUES)] if value is not None]
        if pa.types.is_floating(kind):
            tests.append(column.is_null(nan_is_null=True))
        if name in COMPARED_BY_PYARROW:
            tests += [sign(column, pa.scalar(value, kind)) for value in values for sign in OPERATORS.values()]
        for test in tests:
            want = table.filter(test)["id"].to_pylist()
            assert data.to_table(columns=["id"], filter=test)["id"].to_pylist() == want, (name, str(test))


def test_duckdb_counts_nan_in_a_column_without_statistics(tmp_path):
    """DuckDB counts 80 ones and 10 NaN correctly in a copied column with version 2 pages and no statistics."""
    path, out = tmp_path / "x.parquet", tmp_path / "out.parquet"
    values = pa.array([1.0] * 80 + [NAN] * 10, pa.float32())
    table = pa.table({"b": values, "logits": lists(np.zeros((90, 2), np.float32))})
    pq.write_table(table, path, data_page_version="2.0", write_statistics=False)
    batchmax.score(path, out)
    counts = [
        duckdb.sql(f"SELECT count(*) FROM read_parquet('{out}') WHERE b {test}").fetchall()[0][0]
        for test in ("= 1.0", "!= 1.0", "= 'nan'")
    ]
    assert counts == [80, 10, 10]

"""Carried columns of every type, copied or re-encoded: each reader finds what it finds in the input.

Values, schemas and the rows that filters find are compared with what the same reader finds when it first reads all of
the input, so that it uses no statistics. Statistics are compared with the values.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import functools
import itertools
import operator
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError
from batchmax.parquet.thrift import I32, Field
from batchmax.sources.parquet_source import open_source
from tests.faults import forge
from tests.support.parquet_anatomy import check_file, chunks_of
from tests.support.requirements import optional
from tests.support.rows import lists

duckdb = optional("duckdb")
pl = optional("polars")

pytestmark = pytest.mark.usefixtures("no_sync")

N = 24
GROUP = 12
NAN = float("nan")
NOON = dt.datetime(2024, 2, 29, 12)  # noqa: DTZ001 - used for columns with and without a time zone
EPOCH = 2_440_588
LAST_DAY = 2_932_896
"""Days from 1970-01-01 to 9999-12-31."""


def int96(day, nanoseconds=0):
    return nanoseconds.to_bytes(8, "little") + (EPOCH + day).to_bytes(4, "little")


def some(values):
    """Return the values with the fourth of every seven replaced by null."""
    return [None if row % 7 == 3 else value for row, value in enumerate(values)]


def flat_columns():
    """Return columns of every type without nesting, unsorted and with repeated values."""
    rows = [row * 7 % N for row in range(N)]
    of = lambda kind, values: pa.array(some(values), kind)
    when = [NOON + dt.timedelta(hours=row) for row in rows]
    days = [when_.date() for when_ in when]
    times = [dt.time(row, row, row, row * 1000) for row in rows]
    floats = [NAN if row % 5 == 2 else row / 4 for row in rows]
    one_float = [1.0 if row % 4 else NAN for row in range(N)]
    zeros = [(-0.0, 0.0)[row % 2] for row in rows]
    texts = [f"text {row % 9} ü" if row % 5 else "" for row in rows]
    numbers = {
        f"{sign}int{bits}": of(f"{sign}int{bits}", [row - (N // 2 if not sign else 0) for row in rows])
        for sign, bits in itertools.product(("", "u"), (8, 16, 32, 64))
    }
    numbers["uint64 large"] = of(pa.uint64(), [2**63 + row for row in rows])
    numbers["uint32 large"] = of(pa.uint32(), [2**31 + row * (-1) ** row for row in rows])
    return numbers | {
        "bool": of(pa.bool_(), [row % 3 == 0 for row in rows]),
        "float16": of(pa.float16(), np.array(floats, np.float16)),
        "float32": of(pa.float32(), floats),
        "float64": of(pa.float64(), floats),
        "float32 ones": of(pa.float32(), one_float),
        "float32 zeros": of(pa.float32(), zeros),
        "float64 zeros": of(pa.float64(), zeros),
        "float64 finite": of(pa.float64(), [row / 8 for row in rows]),
        "float64 infinite": of(pa.float64(), [float("inf") if row % 3 else -float("inf") for row in rows]),
        "float64 nan": of(pa.float64(), [NAN] * N),
        "decimal32": of(pa.decimal32(7, 2), [decimal.Decimal(row - 12) / 4 for row in rows]),
        "decimal64": of(pa.decimal64(15, 2), [decimal.Decimal(row - 12) / 4 for row in rows]),
        "decimal128": of(pa.decimal128(30, 4), [decimal.Decimal(row - 12) * 10**20 for row in rows]),
        "decimal256": of(pa.decimal256(50, 5), [decimal.Decimal(row - 12) * 10**40 for row in rows]),
        "date32": of(pa.date32(), days),
        "date64": of(pa.date64(), days),
        "time32 s": of(pa.time32("s"), [time.replace(microsecond=0) for time in times]),
        "time32 ms": of(pa.time32("ms"), times),
        "time64 us": of(pa.time64("us"), times),
        "time64 ns": of(pa.time64("ns"), times),
        "timestamp s": of(pa.timestamp("s"), when),
        "timestamp ms": of(pa.timestamp("ms"), when),
        "timestamp us": of(pa.timestamp("us"), [NOON.replace(year=4), *when[1:-1], NOON.replace(year=9996)]),
        "timestamp ns": of(pa.timestamp("ns"), when),
        "timestamp us utc": of(pa.timestamp("us", "UTC"), [time.replace(tzinfo=dt.UTC) for time in when]),
        "timestamp ms zone": of(pa.timestamp("ms", "Asia/Tokyo"), [time.replace(tzinfo=dt.UTC) for time in when]),
        "duration us": of(pa.duration("us"), [dt.timedelta(row) for row in rows]),
        "string": of(pa.string(), texts),
        "large_string": of(pa.large_string(), texts),
        "dictionary": of(pa.string(), texts).dictionary_encode(),
        "ordered": pa.DictionaryArray.from_arrays([row % 3 for row in rows], ["low", "mid", "high"], ordered=True),
        "dictionary of numbers": of(pa.int64(), [row % 3 for row in rows]).dictionary_encode(),
        "binary": of(pa.binary(), [bytes([255 - row, 0])[: row % 3] for row in rows]),
        "large_binary": of(pa.large_binary(), [bytes([row, 200]) for row in rows]),
        "fixed": of(pa.binary(3), [bytes([200 - row, 0, 0]) for row in rows]),
        "uuid": pa.ExtensionArray.from_storage(
            pa.uuid(), of(pa.binary(16), [uuid.UUID(int=row).bytes for row in rows])
        ),
        "json": pa.ExtensionArray.from_storage(pa.json_(), of(pa.string(), [f'{{"a": {row}}}' for row in rows])),
        "nothing": pa.nulls(N, pa.string()),
        "int96": of(pa.binary(12), [int96(LAST_DAY if row % 3 else -row, row) for row in rows]),
    }


def nested_columns():
    """Return columns of lists, structs and maps that contain NaN and types without a Parquet equivalent."""
    rows = [row * 7 % N for row in range(N)]
    of = lambda kind, values: pa.array(some(values), kind)
    days = [(NOON + dt.timedelta(row)).date() for row in rows]
    floats = [NAN if row % 5 == 2 else row / 4 for row in rows]
    return {
        "list of text": of(pa.list_(pa.string()), [["a", None, "b"][: row % 4] for row in rows]),
        "large_list": of(pa.large_list(pa.float64()), [[floats[row]] * (row % 3) for row in rows]),
        "fixed list": of(pa.list_(pa.float32(), 2), [[floats[row], row] for row in rows]),
        "list of date64": of(pa.list_(pa.date64()), [[day] for day in days]),
        "list of lists": of(pa.list_(pa.list_(pa.int16())), [[[row], [], None][: row % 4] for row in rows]),
        "struct": of(
            pa.struct({"x": pa.float64(), "y": pa.date64(), "z": pa.struct({"u": pa.uint32(), "f": pa.float16()})}),
            [
                {"x": floats[row], "y": days[row], "z": {"u": 2**31 + row, "f": np.float16(floats[row])}}
                for row in range(N)
            ],
        ),
        "list of structs": of(
            pa.list_(pa.struct({"a": pa.int8(), "b": pa.list_(pa.float32())})),
            [[{"a": row, "b": [floats[row]]}] * (row % 3) for row in rows],
        ),
        "map": of(pa.map_(pa.string(), pa.float64()), [[("k", floats[row])] * (row % 2) for row in rows]),
        "list of int96": of(pa.list_(pa.binary(12)), [[int96(LAST_DAY), None, int96(-row)][: row % 4] for row in rows]),
    }


def with_metadata(field, ids):
    """Return a field in which it and every nested field have metadata and a field id of their own."""
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([with_metadata(child, ids) for child in kind])
    elif pa.types.is_list(kind):
        kind = pa.list_(with_metadata(kind.value_field, ids))
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(with_metadata(kind.value_field, ids))
    return field.with_type(kind).with_metadata({"about": f"the field {field.name}", "PARQUET:field_id": str(next(ids))})


@functools.cache
def source():
    """Return a table of all columns, an id and logits."""
    columns = flat_columns() | nested_columns()
    schema = pa.schema([pa.field(name, array.type) for name, array in columns.items()])
    ids = itertools.count(1)
    schema = pa.schema([with_metadata(field, ids) for field in schema])
    table = pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)
    logits = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    return table.append_column("id", pa.array(range(N))).append_column("logits", lists(logits))


def write_input(path, table=None, **options):
    """Write a table, storing 12-byte binary columns as INT96."""
    table = source() if table is None else table
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, row_group_size=GROUP, **options)
    data = stream.getvalue().to_pybytes()
    names = [chunk_path(column) for column in leaves_of(data) if column.physical_type == "FIXED_LEN_BYTE_ARRAY"]
    raw = {name for name in names if "int96" in name}

    def edit(fields):
        elements = fields[2].value.values
        for element in elements:
            if 2 in element and element[2].value == 12 and element[1].value == 7:
                element[1] = Field(I32, 3)
                del element[2]
        for group in fields[4].value.values:
            for chunk in group[1].value.values:
                metadata = chunk[3].value
                if b".".join(metadata[3].value.values).decode() in raw:
                    metadata[1] = Field(I32, 3)
                    metadata.pop(12, None)
        for pair in fields[5].value.values:
            if pair[1].value == b"ARROW:schema":
                pair[2].value = base64.b64encode(declared_by(table.schema).serialize().to_pybytes())

    path.write_bytes(forge.edited(data, edit))


def declared_by(schema):
    """Return a schema with timestamps in place of the 12-byte binary columns."""
    for number, field in enumerate(schema):
        if field.type == pa.binary(12):
            schema = schema.set(number, field.with_type(pa.timestamp("ns")))
        elif pa.types.is_list(field.type) and field.type.value_type == pa.binary(12):
            inner = field.type.value_field.with_type(pa.timestamp("ns"))
            schema = schema.set(number, field.with_type(pa.list_(inner)))
    return schema


def leaves_of(data):
    schema = pq.read_metadata(pa.BufferReader(data)).schema
    return [schema.column(number) for number in range(len(schema))]


def chunk_path(column):
    return column.path


INPUTS = {
    f"{version} {'with' if statistics else 'without'} statistics": {
        "data_page_version": version,
        "write_statistics": statistics,
        "use_dictionary": version == "1.0",
        "compression": "snappy" if statistics else "none",
    }
    for version, statistics in itertools.product(("1.0", "2.0"), (True, False))
}
OUTPUTS = {"copied": {}, "sliced": {"row_group_size": 7}, "limited": {"limit": 17}} | {
    codec: {"compression": codec} for codec in ("none", "snappy", "zstd", "gzip", "lz4", "brotli")
}
DEFAULT = {
    ("1.0 with statistics", "copied"),
    ("2.0 without statistics", "copied"),
    ("2.0 with statistics", "sliced"),
    ("1.0 without statistics", "zstd"),
}
GRID = pytest.mark.parametrize(("how", "what"), list(itertools.product(INPUTS, OUTPUTS)))
SOME = pytest.mark.sweep(keep=lambda how, what: (how, what) in DEFAULT)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a function that gives the path of an input, or of an output scored from it; each is made once."""
    folder = tmp_path_factory.mktemp("types")

    @functools.cache
    def made(how, what=None):
        path = folder / f"{how} {what}.parquet"
        if what is None:
            write_input(path, **INPUTS[how])
        else:
            batchmax.score(made(how), path, **OUTPUTS[what])
        return path

    return made


def rows_in(what):
    return OUTPUTS[what].get("limit", N)


CARRIED = [*flat_columns(), *nested_columns()]
KNOWN_TO_POLARS = [name for name in CARRIED if name != "decimal256"]


@SOME
@GRID
def test_every_reader_sees_the_schema_and_the_values_of_the_input(how, what, files):
    """Types, metadata of all fields and all values are unchanged for pyarrow, Polars and DuckDB.

    This includes INT96 values beyond the range of nanoseconds.
    """
    path, out = files(how), files(how, what)
    before, after = pq.ParquetFile(path), pq.ParquetFile(out)
    for name in CARRIED:
        assert after.schema_arrow.field(name).equals(before.schema_arrow.field(name), check_metadata=True), name
    assert declared_types(out) == declared_types(path)
    assert parquet_types(out) == parquet_types(path)
    microseconds = {"coerce_int96_timestamp_unit": "us"}
    want = pq.read_table(path, columns=CARRIED, **microseconds).slice(0, rows_in(what))
    assert bits(pq.read_table(out, columns=CARRIED, **microseconds)) == bits(want)
    frame, theirs = (pl.read_parquet(file, columns=KNOWN_TO_POLARS) for file in (out, path))
    assert frame.schema == theirs.schema
    assert frame.equals(theirs.head(rows_in(what)))
    query = "SELECT {} FROM read_parquet('{}') ORDER BY id LIMIT {}"
    columns = ", ".join(f'typeof("{name}"), "{name}"::VARCHAR' for name in CARRIED)
    with duckdb.connect(config={"threads": 1}) as connection:
        got, read = (connection.sql(query.format(columns, file, rows_in(what))).fetchall() for file in (out, path))
    assert got == read


def declared_types(path):
    """Return the types that a file's Arrow schema declares for the carried columns."""
    text = pq.read_metadata(path).metadata[b"ARROW:schema"]
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
    return {name: str(schema.field(name).type).replace("item: ", "element: ") for name in CARRIED}


def parquet_types(path):
    """Return the Parquet types of the leaves of the carried columns."""
    return [
        (leaf.path, leaf.physical_type, str(leaf.logical_type), leaf.converted_type, leaf.length)
        for leaf in leaves_of(path.read_bytes())
        if leaf.path.split(".")[0] in CARRIED
    ]


def bits(table):
    """Return rows in a form in which NaN equals itself and -0.0 differs from 0.0."""
    return repr([column.to_pylist() for column in table.columns])


@SOME
@GRID
def test_statistics_are_never_wrong(how, what, files):
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


def test_statistics_survive_where_they_are_right(files):
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


OPERATORS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
FLAT = [*flat_columns()]
MOST_VALUES = 3
COMPARED_BY_PYARROW = set(FLAT) - {
    *("float16", "decimal32", "decimal64", "uuid", "json", "nothing", "int96"),
    *("dictionary", "ordered", "dictionary of numbers"),
}
"""The columns whose types pyarrow has comparison kernels for."""


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


def some_value(scalar):
    """Return a scalar's value in a form from which pyarrow makes the same scalar."""
    return scalar.value if pa.types.is_temporal(scalar.type) and scalar.is_valid else scalar.as_py()


def test_the_float_column_without_statistics_keeps_its_nan(tmp_path):
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


@pytest.mark.parametrize("name", [b"id", b"item"])
def test_a_declared_schema_with_damaged_names_is_ignored(name, tmp_path):
    """An Arrow schema with a name that isn't UTF-8 is ignored; as in pyarrow, the Parquet schema is used instead."""
    path, out = tmp_path / "x.parquet", tmp_path / "out.parquet"
    nested = pa.array([[1], [2]], pa.list_(pa.field("item", pa.int64())))
    pq.write_table(pa.table({"id": [1, 2], "logits": [[1.0, 2.0]] * 2, "nested": nested}), path)

    def damage(fields):
        for pair in fields[5].value.values:
            if pair[1].value == b"ARROW:schema":
                declared = base64.b64decode(pair[2].value)
                assert name in declared
                pair[2].value = base64.b64encode(declared.replace(name, b"\xff" + name[1:]))

    path.write_bytes(forge.edited(path.read_bytes(), damage))
    batchmax.score(path, out)
    assert pq.read_table(out)["id"].to_pylist() == [1, 2]
    assert pq.read_table(out)["nested"].to_pylist() == [[1], [2]]


def test_rejected_rows_keep_types_as_well(tmp_path):
    """Rejected rows keep all columns and types, including INT96 and declared types, and have no statistics with NaN."""
    table = source()
    logits = np.full((N, 3), NAN, np.float32)
    table = table.set_column(table.column_names.index("logits"), "logits", lists(logits))
    path, out, rejects = tmp_path / "x.parquet", tmp_path / "out.parquet", tmp_path / "rejects.parquet"
    write_input(path, table)
    batchmax.score(path, out, on_bad_row="drop", rejects=rejects, columns="id", n_classes=3)
    assert declared_types(rejects) == declared_types(path)
    assert parquet_types(rejects) == parquet_types(path)
    read = functools.partial(pq.read_table, columns=CARRIED, coerce_int96_timestamp_unit="us")
    assert bits(read(rejects)) == bits(read(path))
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{rejects}') WHERE \"float64\" = 'nan'").fetchall()[0][0] > 0


def test_a_timestamp_that_does_not_fit_is_an_error_where_it_is_needed(files, tmp_path):
    """An INT96 timestamp that doesn't fit into 64-bit nanoseconds raises DataError if it goes to an Arrow stream.

    The error names the column and the timestamp. If the column is excluded or its values fit, rows are read.
    """
    path = files("1.0 with statistics")
    with pytest.raises(
        DataError, match=r"column 'int96': the timestamp 9999-12-31T00:00:00 doesn't fit into timestamp"
    ):
        batchmax.scan(path).read_all()
    names = ",".join(name for name in CARRIED if "int96" in name)
    assert batchmax.scan(path, exclude=names).read_all().num_rows == N
    few = pa.table({"int96": pa.array([int96(0, 5), None, int96(1)], pa.binary(12))})
    few = few.append_column("logits", lists(np.zeros((3, 2), np.float32)))
    write_input(tmp_path / "few.parquet", few)
    found = batchmax.scan(tmp_path / "few.parquet").read_all()["int96"]
    assert found.cast(pa.int64()).to_pylist() == [5, None, 86_400_000_000_000]


def test_files_with_int96_and_other_timestamps_are_one_output(tmp_path):
    """The first file decides how a timestamp column is stored; the values of all files are kept."""
    logits = lists(np.zeros((2, 2), np.float32))
    times = pa.array([1704067200 * 10**9, None], pa.timestamp("ns"))
    raw = pa.array([int96(19723), int96(19723, 1)], pa.binary(12))
    for order in ("ab", "ba"):
        folder = tmp_path / order
        folder.mkdir()
        write_input(folder / f"{order[0]}.parquet", pa.table({"int96": raw, "logits": logits}))
        pq.write_table(pa.table({"int96": times, "logits": logits}), folder / f"{order[1]}.parquet")
        batchmax.score(folder, tmp_path / f"{order}.parquet")
        got = pq.read_table(tmp_path / f"{order}.parquet")["int96"].cast(pa.int64()).to_pylist()
        one = 1704067200 * 10**9
        assert sorted(got, key=repr) == sorted([one, one + 1, one, None], key=repr)


def test_verify_and_show_accept_timestamps_of_any_year(files):
    """``verify`` compares INT96 columns as they are stored.

    A single row is read with timestamps of any year, in microseconds if it needs them.
    """
    path, out = files("1.0 with statistics"), files("1.0 with statistics", "zstd")
    assert batchmax.verify(out, inputs=[str(path)], sample=N).sampled_rows == N
    _, row = open_source(str(path), batchmax.score_options()).row(1)
    assert str(row["int96"][0]).startswith("9999-12-31 00:00:00")
    _, row = open_source(str(path), batchmax.score_options(exclude="id")).row(0)
    assert row["int96"].type == pa.timestamp("ns")

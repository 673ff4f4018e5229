"""Columns of every type, files with them, and the outputs that are scored from these files."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import functools
import itertools
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.parquet.thrift import I32, Field
from tests.support import crafted
from tests.support.requirements import optional
from tests.support.rows import NAN, lists

duckdb = optional("duckdb")

N = 24
GROUP = 12
NOON = dt.datetime(2024, 2, 29, 12)  # noqa: DTZ001 - used for columns with and without a time zone
EPOCH = 2_440_588
LAST_DAY = 2_932_896
"""Days from 1970-01-01 to 9999-12-31."""

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
                pair[2].value = base64.b64encode(declared_schema(table.schema).serialize().to_pybytes())

    path.write_bytes(crafted.edited(data, edit))


def declared_schema(schema):
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


def rows_in(what):
    return OUTPUTS[what].get("limit", N)


def bits(table):
    """Return rows in a form in which NaN equals itself and -0.0 differs from 0.0."""
    return repr([column.to_pylist() for column in table.columns])


FLAT = [*flat_columns()]

CARRIED = [*flat_columns(), *nested_columns()]
KNOWN_TO_POLARS = [name for name in CARRIED if name != "decimal256"]


def declared_types(path, names=CARRIED):
    """Return the types that a file's Arrow schema declares for columns."""
    text = pq.read_metadata(path).metadata[b"ARROW:schema"]
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
    return {name: str(schema.field(name).type).replace("item: ", "element: ") for name in names}


def parquet_types(path):
    """Return the Parquet types of the leaves of the carried columns."""
    return [
        (leaf.path, leaf.physical_type, str(leaf.logical_type), leaf.converted_type, leaf.length)
        for leaf in leaves_of(path.read_bytes())
        if leaf.path.split(".")[0] in CARRIED
    ]

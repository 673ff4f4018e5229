"""Common types: no value is lost, compared with pyarrow's casts and Python's values."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools

import pyarrow as pa
import pytest

from batchmax.columns.type_union import common_type, common_type_of, read_as
from batchmax.errors import UsageError
from batchmax.sources.schemas.file_columns import file_columns_of, merge_schemas

D = decimal.Decimal
UTC = dt.UTC

PAIRS = [
    # integers
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.int8(), pa.int16(), pa.int16()),
    (pa.uint8(), pa.uint32(), pa.uint32()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint16(), pa.int64(), pa.int64()),
    (pa.uint32(), pa.int32(), pa.int64()),
    (pa.uint64(), pa.int64(), None),
    (pa.uint64(), pa.int8(), None),
    # floats, and integers that they represent exactly
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.float16(), pa.float32(), pa.float32()),
    (pa.int16(), pa.float32(), pa.float32()),
    (pa.uint16(), pa.float16(), pa.float32()),
    (pa.int8(), pa.float16(), pa.float16()),
    (pa.int32(), pa.float32(), pa.float64()),
    (pa.uint32(), pa.float64(), pa.float64()),
    (pa.int64(), pa.float64(), None),
    # decimals
    (pa.decimal128(5, 2), pa.decimal128(10, 4), pa.decimal128(10, 4)),
    (pa.decimal128(10, 0), pa.decimal128(5, 4), pa.decimal128(14, 4)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.decimal128(5, 2), pa.decimal256(40, 1), pa.decimal256(41, 2)),
    (pa.int32(), pa.decimal128(4, 2), pa.decimal128(12, 2)),
    (pa.decimal256(76, 0), pa.decimal256(76, 76), None),
    (pa.decimal128(5, 2), pa.float64(), None),
    # text and bytes
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.string(), pa.string_view(), pa.large_string()),
    (pa.binary(), pa.large_binary(), pa.large_binary()),
    (pa.binary(3), pa.binary(4), pa.binary()),
    (pa.binary(3), pa.binary(), pa.binary()),
    (pa.binary(3), pa.large_binary(), pa.large_binary()),
    (pa.string(), pa.binary(), None),
    (pa.string(), pa.int64(), None),
    (pa.bool_(), pa.int8(), None),
    # dictionaries
    (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
    (pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.large_string()),
    (
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
    ),
    (
        pa.dictionary(pa.int8(), pa.string(), ordered=True),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int8(), pa.string()),
    ),
    (
        pa.dictionary(pa.uint16(), pa.int32()),
        pa.dictionary(pa.int16(), pa.int64()),
        pa.dictionary(pa.int32(), pa.int64()),
    ),
    (pa.dictionary(pa.int8(), pa.int32()), pa.string(), None),
    # time
    (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), pa.timestamp("ns", "UTC")),
    (pa.timestamp("us", "UTC"), pa.timestamp("us", "+00:00"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us", "UTC"), pa.timestamp("us"), None),
    (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin"), None),
    (pa.duration("s"), pa.duration("us"), pa.duration("us")),
    (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
    (pa.time32("ms"), pa.time64("ns"), pa.time64("ns")),
    (pa.date32(), pa.date64(), pa.date64()),
    (pa.date32(), pa.timestamp("us"), None),
    # null
    (pa.null(), pa.int64(), pa.int64()),
    (pa.list_(pa.null()), pa.list_(pa.float32()), pa.list_(pa.float32())),
    # lists
    (pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.large_list(pa.float32())),
    (pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float64())),
    (pa.list_(pa.float32(), 3), pa.list_(pa.float32()), pa.list_(pa.float32())),
    (pa.list_(pa.float32(), 3), pa.large_list(pa.float64()), pa.large_list(pa.float64())),
    (pa.list_(pa.float32(), 3), pa.list_(pa.float64(), 3), pa.list_(pa.float64(), 3)),
    (pa.list_(pa.float32(), 3), pa.list_(pa.float32(), 4), pa.list_(pa.float32())),
    (pa.list_(pa.list_(pa.int32())), pa.list_(pa.large_list(pa.int64())), pa.list_(pa.large_list(pa.int64()))),
    (pa.list_(pa.string()), pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.list_(pa.string())),
    (pa.list_(pa.int32()), pa.int32(), None),
    (pa.list_(pa.string()), pa.list_(pa.int32()), None),
    (pa.fixed_shape_tensor(pa.float32(), [3]), pa.list_(pa.float64()), pa.list_(pa.float64())),
    # structs and maps
    (
        pa.struct({"a": pa.int32(), "b": pa.string()}),
        pa.struct({"c": pa.bool_(), "a": pa.int64()}),
        pa.struct({"a": pa.int64(), "b": pa.string(), "c": pa.bool_()}),
    ),
    (
        pa.list_(pa.struct({"a": pa.int32()})),
        pa.list_(pa.struct({"b": pa.struct({"x": pa.bool_()})})),
        pa.list_(pa.struct({"a": pa.int32(), "b": pa.struct({"x": pa.bool_()})})),
    ),
    (pa.struct({"a": pa.int32()}), pa.struct({"a": pa.string()}), None),
    (pa.map_(pa.string(), pa.int32()), pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.int64())),
    (pa.map_(pa.string(), pa.int32()), pa.map_(pa.int32(), pa.int32()), None),
]


@pytest.mark.parametrize(("first", "second", "want"), PAIRS, ids=str)
def test_the_common_type(first, second, want):
    """The common type is the expected one, or None; the order matters only for nested types and time zones."""
    assert common_type(first, second) == want
    other = common_type(second, first)
    assert (other is None) == (want is None)
    if want is not None and not pa.types.is_nested(want) and not pa.types.is_timestamp(want):
        assert other == want
    assert common_type(first, first) == first


VALUES = {
    "int8": [-128, 127, None],
    "uint8": [0, 255, None],
    "int16": [-(2**15), 2**15 - 1],
    "uint16": [0, 2**16 - 1],
    "int32": [-(2**31), 2**31 - 1, None],
    "uint32": [0, 2**32 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint64": [0, 2**64 - 1],
    "halffloat": [0.5, -65504.0, None],
    "float": [0.1, -3.4028234663852886e38, 2**-149, None],
    "double": [0.1, 5e-324, 1.7976931348623157e308],
    "string": ["", "ä", None],
    "large_string": ["x", None],
    "string_view": ["a long text that is not kept in the view", None],
    "binary": [b"", b"\xff", None],
    "large_binary": [b"\x00", None],
    "bool": [True, None],
    "null": [None, None],
}


def values_of(kind):
    """Return extreme values of a type, and null."""
    if str(kind) in VALUES:
        found = VALUES[str(kind)]
        # pyarrow rounds a Python float to the type; the rounded value must be preserved.
        return pa.array(found, kind).to_pylist() if pa.types.is_floating(kind) else found
    if isinstance(kind, pa.BaseExtensionType):
        return values_of(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return values_of(kind.value_type)
    if pa.types.is_decimal(kind):
        return [D((0, (9,) * kind.precision, -kind.scale)), D((1, (1,) * kind.precision, -kind.scale)), None]
    if pa.types.is_fixed_size_binary(kind):
        return [b"x" * kind.byte_width, None]
    if pa.types.is_timestamp(kind):
        zone = None if kind.tz is None else UTC
        return [dt.datetime(1970, 1, 2, tzinfo=zone), dt.datetime(2200, 2, 3, 4, 5, 6, tzinfo=zone), None]
    if pa.types.is_duration(kind):
        return [dt.timedelta(days=-3, seconds=1), None]
    if pa.types.is_time(kind):
        return [dt.time(23, 59, 59), None]
    if pa.types.is_date(kind):
        return [dt.date(1, 1, 1), dt.date(9999, 12, 31), None]
    if pa.types.is_map(kind):
        return [list(zip(["a", "b"], values_of(kind.item_type), strict=False)), [], None]
    if pa.types.is_struct(kind):
        return [
            *(dict(zip(kind.names, one, strict=True)) for one in zip(*map(values_of, map(_type, kind)), strict=False)),
            None,
        ]
    items = values_of(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return [list(itertools.islice(itertools.cycle(items), kind.list_size)), None]
    return [items, [], None, items[:1]]


def _type(field):
    return field.type


def with_fields(value, kind):
    """Return a value with nulls for missing fields of structs."""
    if isinstance(kind, pa.BaseExtensionType):
        return with_fields(value, kind.storage_type)
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: with_fields(value.get(field.name), field.type) for field in kind}
    if not pa.types.is_map(kind) and pa.types.is_nested(kind) and isinstance(value, list):
        return [with_fields(one, kind.value_type) for one in value]
    return value


@pytest.mark.parametrize(("first", "second", "want"), [pair for pair in PAIRS if pair[2] is not None], ids=str)
def test_values_stay_as_they_are(first, second, want):
    """Arrays of both types, whole and sliced, have the same Python values in the common type."""
    for kind in (first, second):
        values = values_of(kind)
        array = (
            pa.array(values, kind)
            if not isinstance(kind, pa.BaseExtensionType)
            else kind.wrap_array(pa.array(values, kind.storage_type))
        )
        wanted = [with_fields(value, want) for value in values]
        found = read_as(array, want)
        found.validate(full=True)
        assert found.type == want
        assert plain(found.to_pylist()) == plain(wanted)
        for start, size in itertools.product(range(len(values)), range(1, 3)):
            part = read_as(array.slice(start, size), want)
            part.validate(full=True)
            assert plain(part.to_pylist()) == plain(wanted[start : start + size])


def plain(value):
    """Return a value with lists instead of tuples, and times without a time zone, in UTC."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None) if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    return value


def test_several_types_in_any_order():
    """The common type doesn't depend on the order of three types."""
    types = [pa.uint32(), pa.int32(), pa.float64()]
    assert {common_type_of(order) for order in itertools.permutations(types)} == {pa.float64()}
    assert common_type_of([pa.int8(), pa.string(), pa.int8()]) is None


def test_a_time_that_a_finer_unit_cannot_express():
    """A time that overflows the finer unit is an error that names the files and the types."""
    own = pa.schema({"at": pa.timestamp("us")})
    columns = file_columns_of(pa.schema({"at": pa.timestamp("ns")}), own)
    batch = pa.record_batch({"at": pa.array([253402214400000000], pa.timestamp("us"))})
    with pytest.raises(UsageError, match=r"^b: column 'at' is timestamp\[us\], but timestamp\[ns\] in other files"):
        columns.conform(batch, "b")
    kinds = [pa.schema({"at": pa.timestamp(unit)}) for unit in ("us", "ms", "ns")]
    for columns, path in zip(merge_schemas(["us", "ms", "ns"], kinds).files[:2], ("us", "ms"), strict=True):
        array = pa.array([253402214400], pa.timestamp("s")).cast(pa.timestamp(path))
        with pytest.raises(UsageError, match=rf"^{path}: column 'at' is .*\[{path}\], but timestamp\[ns\] in ns, and"):
            columns.conform(pa.record_batch({"at": array}), path)


# Schemas


def test_columns_are_united_by_name():
    """The columns of the first file come first, then those that only other files have; missing ones are nullable."""
    schemas = [
        pa.schema([pa.field("id", pa.int32(), nullable=False), pa.field("b", pa.string())], metadata={b"k": b"1"}),
        pa.schema([pa.field("new", pa.bool_(), nullable=False), pa.field("id", pa.int64(), nullable=False)]),
        pa.schema([pa.field("b", pa.string()), pa.field("id", pa.int32(), nullable=False)]),
    ]
    union = merge_schemas(["a", "b", "c"], schemas)
    assert union.schema == pa.schema(
        [pa.field("id", pa.int64(), nullable=False), pa.field("b", pa.string()), pa.field("new", pa.bool_())]
    )
    assert union.schema.metadata == {b"k": b"1"}
    assert union.differences({"id", "b", "new"}) == [
        {"column": "id", "type": "int64", "types": {"int32": 2, "int64": 1}, "missing": 0},
        {"column": "b", "type": "string", "types": {"string": 2}, "missing": 1},
        {"column": "new", "type": "bool", "types": {"bool": 1}, "missing": 2},
    ]
    batch = pa.record_batch({"id": pa.array([1], pa.int32()), "b": ["x"]})
    assert union.files[0].conform(batch, "a").to_pylist() == [{"id": 1, "b": "x", "new": None}]
    assert union.files[0].conform(batch, "a", ["id", "b"]).to_pylist() == [{"id": 1, "b": "x"}]
    assert union.files[0].conform(batch, "a").schema.field("id").type == pa.int64()


def test_equal_files_are_left_alone():
    """Files with the same columns share one description, and their batches are returned unchanged."""
    schema = pa.schema([("id", pa.int64()), ("id", pa.int64())])
    union = merge_schemas(["a", "b"], [schema, schema.with_metadata({"other": "pandas"})])
    assert union.schema is schema
    assert union.files[0] is union.files[1]
    batch = pa.record_batch({"id": [1]})
    assert union.files[0].conform(batch, "a") is batch


def test_names_that_are_there_twice():
    """If files differ, duplicate column names are refused."""
    twice = pa.schema([("id", pa.int64()), ("id", pa.int64())])
    with pytest.raises(UsageError, match=r"^b: there are two columns 'id', and the files have different columns"):
        merge_schemas(["a", "b"], [pa.schema([("id", pa.int64())]), twice])


def test_a_column_without_a_common_type():
    """A column without a common type is a conflict that names two files, and stays as it is in each."""
    union = merge_schemas(["a", "b"], [pa.schema([("x", pa.int64())]), pa.schema([("x", pa.string())])])
    conflict = union.conflicts["x"]
    assert (conflict.file, conflict.kind, conflict.other_file, conflict.other_kind) == (
        "a",
        pa.int64(),
        "b",
        pa.string(),
    )
    batch = pa.record_batch({"x": ["text"]})
    assert union.files[1].conform(batch, "b").column("x").to_pylist() == ["text"]


def test_structs_that_were_read_in_part():
    """A struct field that isn't requested is left out; one that the file lacks is null."""
    own = pa.schema({"s": pa.struct({"a": pa.int32(), "b": pa.string()})})
    columns = file_columns_of(pa.schema({"s": pa.struct({"a": pa.int64(), "b": pa.string(), "c": pa.bool_()})}), own)
    batch = pa.record_batch({"s": pa.array([{"a": 1}, None], pa.struct({"a": pa.int32()}))})
    found = columns.conform(batch, "x", ["s.a"])
    assert found.column("s").to_pylist() == [{"a": 1, "c": None}, None]
    assert found.column("s").type == pa.struct({"a": pa.int64(), "c": pa.bool_()})

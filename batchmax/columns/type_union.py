"""Finds a type that represents every value of two Arrow types, and casts arrays to it.

Only lossless conversions are allowed: to a wider integer or float, large offsets, a finer time unit, a decimal with
more digits, lists of a common item type, structs with the fields of both. The meaning of a value never changes: numbers
don't become text, text doesn't become bytes, booleans don't become numbers, and times keep their zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from batchmax.columns.arrow import is_list, plain_array

UNITS = ("s", "ms", "us", "ns")
UTC = frozenset({"UTC", "utc", "Etc/UTC", "+00:00", "Z", "GMT", "Etc/GMT"})
"""Names of UTC that are treated as the same time zone."""

_NOT_CAST = (pa.types.is_nested, pa.types.is_dictionary, pa.types.is_null)

EXACT_BITS = {16: 11, 32: 24, 64: 53}
"""For each width of a float in bits, the width of the integers that it represents exactly."""


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type that represents every value of both types; None if there is none.

    It is the first type if that represents all values of the second.
    """
    if first.equals(second):
        return first
    for rule in (_null, _wrapped, _number, _decimal, _time, _text, _lists, _structs):
        found = rule(first, second)
        if found is not None:
            return found
    return None


def common_field(first: pa.Field, second: pa.Field) -> pa.Field | None:
    """Return the common field of two with one name: nullable if one is, with the metadata that both share."""
    kind = common_type(first.type, second.type)
    if kind is None:
        return None
    ours, theirs = first.metadata or {}, second.metadata or {}
    metadata = {key: value for key, value in ours.items() if theirs.get(key) == value}
    return pa.field(first.name, kind, first.nullable or second.nullable, metadata or None)


def _null(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if pa.types.is_null(first):
        return second
    return first if pa.types.is_null(second) else None


def _wrapped(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return the common type of extension types by their storage, or of dictionary types by their values."""
    if isinstance(first, pa.BaseExtensionType) or isinstance(second, pa.BaseExtensionType):
        same = isinstance(first, pa.BaseExtensionType) and isinstance(second, pa.BaseExtensionType)
        if same and first.extension_name != second.extension_name:
            return None
        return common_type(
            *(one.storage_type if isinstance(one, pa.BaseExtensionType) else one for one in (first, second))
        )
    are = [pa.types.is_dictionary(first), pa.types.is_dictionary(second)]
    if not any(are):
        return None
    values = common_type(*(one.value_type if is_one else one for one, is_one in zip((first, second), are, strict=True)))
    if values is None or not all(are):
        return values
    index = max(first.index_type, second.index_type, key=lambda one: one.bit_width)
    if pa.types.is_signed_integer(first.index_type) != pa.types.is_signed_integer(second.index_type):
        index = pa.int64() if index.bit_width > 16 else pa.int32()
    return pa.dictionary(index, values, ordered=first.ordered and second.ordered)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    ours, theirs = _integer(first), _integer(second)
    floats = [one for one in (first, second) if pa.types.is_floating(one)]
    if ours is not None and theirs is not None:
        signed = ours[0] or theirs[0]
        # A signed integer has one value bit less than an unsigned one of the same width.
        needed = max(width - is_signed for is_signed, width in (ours, theirs)) + signed
        width = next((width for width in (8, 16, 32, 64) if width >= needed), None)
        return None if width is None else getattr(pa, f"{'' if signed else 'u'}int{width}")()
    if len(floats) == 2:
        return max(floats, key=lambda one: one.bit_width)
    integer = ours or theirs
    if len(floats) != 1 or integer is None:
        return None
    bits = max(EXACT_BITS[floats[0].bit_width], integer[1] - integer[0])
    width = next((width for width, exact in EXACT_BITS.items() if exact >= bits), None)
    return None if width is None else getattr(pa, f"float{width}")()


def _integer(kind: pa.DataType) -> tuple[bool, int] | None:
    """Return whether an integer type is signed, and its width in bits; None for other types."""
    return (bool(pa.types.is_signed_integer(kind)), kind.bit_width) if pa.types.is_integer(kind) else None


def _decimal(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if not (pa.types.is_decimal(first) or pa.types.is_decimal(second)):
        return None
    digits = [_digits(first), _digits(second)]
    if digits[0] is None or digits[1] is None:
        return None
    scale = max(one[1] for one in digits if one is not None)
    whole = max(one[0] - one[1] for one in digits if one is not None)
    makers = ((38, pa.decimal128), (76, pa.decimal256))
    kinds = [one.bit_width for one in (first, second) if pa.types.is_decimal(one)]
    for most, make in makers:
        if whole + scale <= most and (make is pa.decimal256 or max(kinds) <= 128):
            return make(whole + scale, scale)
    return None


def _digits(kind: pa.DataType) -> tuple[int, int] | None:
    """Return the precision and scale of a decimal type, or of one that represents an integer type."""
    if pa.types.is_decimal(kind):
        return kind.precision, kind.scale
    if pa.types.is_integer(kind):
        return {8: 3, 16: 5, 32: 10, 64: 20}[kind.bit_width], 0
    return None


def _time(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(first) and pa.types.is_timestamp(second):
        if first.tz != second.tz and not {first.tz, second.tz} <= UTC:
            return None
        return pa.timestamp(_finer(first, second), first.tz)
    if pa.types.is_duration(first) and pa.types.is_duration(second):
        return pa.duration(_finer(first, second))
    if pa.types.is_time(first) and pa.types.is_time(second):
        unit = _finer(first, second)
        return pa.time32(unit) if unit in {"s", "ms"} else pa.time64(unit)
    if pa.types.is_date(first) and pa.types.is_date(second):
        return pa.date64()
    return None


def _finer(first: pa.DataType, second: pa.DataType) -> Any:
    return max(first.unit, second.unit, key=UNITS.index)


def _text(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    for kinds, large in (
        ((pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view), pa.large_string()),
        (
            (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
            pa.large_binary(),
        ),
    ):
        if any(kind(first) for kind in kinds) and any(kind(second) for kind in kinds):
            small = all(pa.types.is_fixed_size_binary(one) or pa.types.is_binary(one) for one in (first, second))
            return pa.binary() if small else large
    return None


def _lists(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if pa.types.is_map(first) and pa.types.is_map(second):
        key, item = common_field(first.key_field, second.key_field), common_field(first.item_field, second.item_field)
        return None if key is None or item is None else pa.map_(key, item, first.keys_sorted and second.keys_sorted)
    if not (is_list(first) and is_list(second)):
        return None
    item = common_field(first.value_field, second.value_field)
    if item is None:
        return None
    if all(map(pa.types.is_fixed_size_list, (first, second))) and first.list_size == second.list_size:
        return pa.list_(item, first.list_size)
    return pa.large_list(item) if any(map(_is_large, (first, second))) else pa.list_(item)


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind))


def _structs(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if not (pa.types.is_struct(first) and pa.types.is_struct(second)):
        return None
    ours, theirs = ({field.name: field for field in one} for one in (first, second))
    if len(ours) < first.num_fields or len(theirs) < second.num_fields:
        return None
    fields = []
    for name, field in ours.items():
        both = common_field(field, theirs[name]) if name in theirs else field.with_nullable(True)
        if both is None:
            return None
        fields.append(both)
    return pa.struct([*fields, *(field.with_nullable(True) for name, field in theirs.items() if name not in ours)])


def common_type_of(types: Sequence[pa.DataType]) -> pa.DataType | None:
    """Return the common type of several types, independent of their order; None if there is none."""
    # Two integers widen to a type that a float which represents both may not represent: retry with floats first.
    for ordered in (types, sorted(types, key=str)):
        found: pa.DataType | None = ordered[0]
        for one in ordered[1:]:
            found = None if found is None else common_type(found, one)
        if found is not None:
            return found
    return None


def read_as(array: pa.Array, kind: pa.DataType, whole: pa.DataType | None = None) -> pa.Array:
    """Cast an array to a type that :func:`common_type` returned for its type and others.

    Parameters
    ----------
    array
        If it has structs, these may lack fields that weren't read.
    kind
        The type to cast to.
    whole
        The array's type with all fields; that of the array unless given. Fields that this type lacks become null.

    Raises
    ------
    pyarrow.ArrowInvalid
        A time can't be represented in a finer unit.
    """
    if array.type.equals(kind):
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if isinstance(array, pa.ExtensionArray):
        return read_as(array.storage, kind)
    if isinstance(array, pa.DictionaryArray):
        if not pa.types.is_dictionary(kind):
            return read_as(plain_array(array), kind)
        values = read_as(array.dictionary, kind.value_type)
        return pa.DictionaryArray.from_arrays(array.indices.cast(kind.index_type), values, ordered=kind.ordered)
    if pa.types.is_struct(array.type):
        return _read_struct(array, kind, array.type if whole is None else whole)
    if pa.types.is_map(array.type):
        keys, items = read_as(array.keys, kind.key_type), read_as(array.items, kind.item_type)
        mask = array.is_null() if array.null_count else None
        return pa.MapArray.from_arrays(_offsets(array), keys, items, kind, mask=mask)
    if is_list(array.type) and not _is_plain(array.type.value_type, kind.value_type):
        array = _with_items(plain_array(array), kind.value_field)
    return array.cast(kind)


def _is_plain(first: pa.DataType, second: pa.DataType) -> bool:
    """Return whether Arrow can cast lists with items of one type to lists with items of the other."""
    if isinstance(first, pa.BaseExtensionType):
        return False
    return not any(is_kind(one) for is_kind in _NOT_CAST for one in (first, second))


def _with_items(array: pa.Array, item: pa.Field) -> pa.Array:
    """Return lists with their items cast to the type of a field."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        values = read_as(array.values.slice(array.offset * size, len(array) * size), item.type)
        mask = array.is_null() if array.null_count else None
        return pa.FixedSizeListArray.from_arrays(values, type=pa.list_(item, size), mask=mask)
    is_large = pa.types.is_large_list(array.type)
    kind, make = (pa.large_list(item), pa.LargeListArray) if is_large else (pa.list_(item), pa.ListArray)
    mask = array.is_null() if array.null_count else None
    return make.from_arrays(_offsets(array), read_as(array.values, item.type), type=kind, mask=mask)


def _offsets(array: pa.Array) -> pa.Array:
    """Return a copy of the offsets of lists: Arrow doesn't accept a slice of offsets together with a mask."""
    return pa.array(array.offsets.to_numpy())


def _read_struct(array: pa.Array, kind: pa.DataType, whole: pa.DataType) -> pa.Array:
    own, read = {field.name: field for field in whole}, {field.name: at for at, field in enumerate(array.type)}
    fields, children = [], []
    for field in kind:
        if field.name in read:
            child = read_as(array.field(read[field.name]), field.type, own[field.name].type)
        elif field.name in own:
            continue
        else:
            child = pa.nulls(len(array), field.type)
        fields.append(field.with_type(child.type))
        children.append(child)
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(children, fields=fields, mask=mask)

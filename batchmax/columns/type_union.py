"""Finds a type that represents every value of two Arrow types, and casts arrays to it.

Only lossless conversions are allowed: to a wider integer or float, large offsets, a finer time unit, a decimal with
more digits, lists of a common item type, structs with the fields of both. The meaning of a value never changes: numbers
don't become text, text doesn't become bytes, booleans don't become numbers, and times keep their zone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from batchmax.columns.arrow import is_binary, is_large, is_list, is_text

UTC = frozenset({"UTC", "utc", "Etc/UTC", "+00:00", "Z", "GMT", "Etc/GMT"})
"""Names of UTC that are treated as the same time zone."""

INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
"""For each width of an integer in bits, the decimal digits of its largest value."""


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type that represents every value of both types; None if there is none.

    It is the first type if that represents all values of the second.
    """
    if first.equals(second):
        return first
    for rule in (_null, _wrapped, _number, _same_kind, _lists, _structs):
        found = rule(first, second)
        if found is not None:
            return found
    return None


def common_field(*fields: pa.Field) -> pa.Field | None:
    """Return the common field of several with one name: nullable if one is, with the metadata that all share."""
    kind = common_type_of([field.type for field in fields])
    if kind is None:
        return None
    shared = set.intersection(*({*(field.metadata or {}).items()} for field in fields))
    metadata = {key: value for key, value in (fields[0].metadata or {}).items() if (key, value) in shared}
    return pa.field(fields[0].name, kind, any(field.nullable for field in fields), metadata or None)


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


def _number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    kinds = first, second
    if not all(pa.types.is_integer(one) or pa.types.is_floating(one) for one in kinds):
        return None
    both = np.promote_types(*(one.to_pandas_dtype() for one in kinds))
    # NumPy promotes integers of 64 bits to float64, which doesn't represent all of them.
    is_rounded = both.kind == "f" and any(pa.types.is_integer(one) and one.bit_width == 64 for one in kinds)
    return None if is_rounded else pa.from_numpy_dtype(both)


def _same_kind(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return the common type of two decimal types, times, texts or binary types, by the rules of pyarrow."""
    kinds = [_widened(one) for one in (first, second)]
    if pa.types.is_decimal(first) or pa.types.is_decimal(second):
        kinds = [pa.decimal128(INTEGER_DIGITS[one.bit_width]) if pa.types.is_integer(one) else one for one in kinds]
    elif pa.types.is_timestamp(first) and pa.types.is_timestamp(second) and {first.tz, second.tz} <= UTC:
        kinds[1] = pa.timestamp(second.unit, first.tz)
    if not any(is_kind(kinds[0]) and is_kind(kinds[1]) for is_kind in _KINDS):
        return None
    schemas = [pa.schema([pa.field("", one)]) for one in kinds]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _widened(kind: pa.DataType) -> pa.DataType:
    """Return the wider type of a view or a short decimal, which pyarrow's rules don't cover."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    return pa.decimal128(kind.precision, kind.scale) if pa.types.is_decimal(kind) and kind.bit_width < 128 else kind


_KINDS = (pa.types.is_decimal, pa.types.is_temporal, is_text, is_binary)
"""Tests for types of one kind, whose common types in pyarrow are lossless."""


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
    return pa.large_list(item) if any(map(is_large, (first, second))) else pa.list_(item)


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
    if pa.types.is_struct(array.type):
        return _read_struct(array, kind, array.type if whole is None else whole)
    found = array.cast(kind)
    # pyarrow 26 casts lists of nulls within lists of structs to invalid arrays.
    found.validate()
    return found


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

"""Reads and writes Thrift's compact protocol without a schema; structs are written again byte for byte.

A struct is a dictionary from field numbers to :class:`Field`; a list is a :class:`List`. Parquet's footers and page
headers are such structs, and unknown fields survive.

See Also
--------
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.parquet.thrift_skip import find_structs

STOP: Final = 0
TRUE: Final = 1
FALSE: Final = 2
BYTE: Final = 3
I16: Final = 4
I32: Final = 5
I64: Final = 6
DOUBLE: Final = 7
BINARY: Final = 8
LIST: Final = 9
SET: Final = 10
MAP: Final = 11
STRUCT: Final = 12

MAX_DEPTH = 64
LONG_LIST = 15


class ThriftError(ValueError):
    """Bytes that are not a valid Thrift struct."""


@dataclass(slots=True)
class Field:
    """A value and its Thrift type."""

    kind: int
    value: Any


@dataclass
class List:
    """A list of values of one type."""

    kind: int
    values: list[Any] = field(default_factory=list)


@dataclass
class Map:
    """A map, as pairs of keys and values."""

    key_kind: int
    value_kind: int
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


Struct = dict[int, Field]


@dataclass
class UnparsedStructs:
    """An unparsed list of structs: the bytes that contain them, the start of each, and the end of the last."""

    data: Any
    starts: NDArray[np.int64]


def read_struct(data: Any, start: int = 0, unparsed: Collection[int] = ()) -> tuple[Struct, int]:
    """Read a struct and return it with the position after it.

    Parameters
    ----------
    data, start
        The bytes, and the position of the struct.
    unparsed
        Field numbers of lists of structs to keep as :class:`UnparsedStructs`.

    Raises
    ------
    ThriftError
        If unexpected end of data or are not a struct.
    """
    reader = _Reader(data, start)
    try:
        return reader.struct(0, unparsed), reader.at
    except (IndexError, struct.error) as error:
        raise ThriftError("unexpected end of data") from error


def write_struct(value: Struct) -> bytes:
    """Return the bytes of a struct."""
    out = bytearray()
    _write_struct(out, value)
    return bytes(out)


class _Reader:
    def __init__(self, data: Any, at: int) -> None:
        self._data = data
        self.at = at

    def _varint(self) -> int:
        data, at = self._data, self.at
        byte = data[at]
        at += 1
        if byte < 0x80:
            self.at = at
            return int(byte)
        value, shift = byte & 0x7F, 7
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise ThriftError("an integer is too long")
                self.at = at
                return int(value)
            shift += 7
            if shift > 63:
                raise ThriftError("an integer is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int, unparsed: Collection[int] = ()) -> Struct:
        if depth > MAX_DEPTH:
            raise ThriftError("structs are nested too deeply")
        fields: Struct = {}
        number = 0
        while True:
            head = self._data[self.at]
            self.at += 1
            if head == STOP:
                return fields
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            if number in fields:
                # Readers differ on which of the two they use.
                raise ThriftError("a field is duplicated")
            if I16 <= kind <= I64:  # the most common types, without a call
                value = self._varint()
                fields[number] = Field(kind, (value >> 1) ^ -(value & 1))
            elif number in unparsed and kind == LIST:
                fields[number] = Field(kind, self._skip_structs())
            else:
                fields[number] = Field(kind, self._value(kind, depth))

    def _skip_structs(self) -> UnparsedStructs:
        kind, size = self._list_head()
        starts = np.zeros(size + 1, np.int64)
        whole = np.frombuffer(self._data, np.uint8)
        if kind != STRUCT or not find_structs(whole, self.at, starts):
            raise ThriftError("a list of structs is invalid")
        self.at = int(starts[-1])
        return UnparsedStructs(self._data, starts)

    def _value(self, kind: int, depth: int, *, in_list: bool = False) -> Any:
        if kind in {TRUE, FALSE}:
            if not in_list:
                return kind == TRUE
            self.at += 1
            return self._data[self.at - 1] == TRUE
        if kind in {I16, I32, I64}:
            return self._zigzag()
        if kind == BINARY:
            size = self._varint()
            start, self.at = self.at, self.at + size
            if self.at > len(self._data):
                raise ThriftError("a string exceeds the data")
            return bytes(self._data[start : self.at])
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in {LIST, SET}:
            return self._list(depth + 1)
        if kind == MAP:
            return self._map(depth + 1)
        if kind == BYTE:
            self.at += 1
            return self._data[self.at - 1]
        if kind == DOUBLE:
            (value,) = struct.unpack_from("<d", self._data, self.at)
            self.at += 8
            return value
        raise ThriftError(f"unknown type {kind}")

    def _list(self, depth: int) -> List:
        if depth > MAX_DEPTH:
            raise ThriftError("lists are nested too deeply")
        kind, size = self._list_head()
        return List(kind, [self._value(kind, depth, in_list=True) for _ in range(size)])

    def _list_head(self) -> tuple[int, int]:
        head = self._data[self.at]
        self.at += 1
        kind, size = head & 0x0F, head >> 4
        if size == LONG_LIST:
            size = self._varint()
        if size > len(self._data) - self.at:
            raise ThriftError("a list exceeds the data")
        return kind, size

    def _map(self, depth: int) -> Map:
        if depth > MAX_DEPTH:
            raise ThriftError("maps are nested too deeply")
        size = self._varint()
        if not size:
            return Map(0, 0)
        if size > len(self._data) - self.at:
            raise ThriftError("a map exceeds the data")
        kinds = self._data[self.at]
        self.at += 1
        pairs = Map(kinds >> 4, kinds & 0x0F)
        for _ in range(size):
            key = self._value(pairs.key_kind, depth, in_list=True)
            pairs.pairs.append((key, self._value(pairs.value_kind, depth, in_list=True)))
        return pairs


def write_varint(out: bytearray, value: int) -> None:
    """Append a number as a varint: seven bits per byte, lowest first."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_zigzag(out: bytearray, value: int) -> None:
    write_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, item in sorted(fields.items()):
        kind = item.kind
        if kind in {TRUE, FALSE}:
            kind = TRUE if item.value else FALSE
        if 0 < number - before <= 15:
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_zigzag(out, number)
        before = number
        if kind not in {TRUE, FALSE}:
            _write_value(out, kind, item.value)
    out.append(STOP)


def _write_list_head(out: bytearray, kind: int, size: int) -> None:
    if size < LONG_LIST:
        out.append(size << 4 | kind)
    else:
        out.append(LONG_LIST << 4 | kind)
        write_varint(out, size)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in {TRUE, FALSE}:
        out.append(TRUE if value else FALSE)
    elif kind in {I16, I32, I64}:
        _write_zigzag(out, value)
    elif kind == BINARY:
        write_varint(out, len(value))
        out += value
    elif kind == STRUCT:
        _write_struct(out, value)
    elif kind in {LIST, SET} and isinstance(value, UnparsedStructs):
        _write_list_head(out, STRUCT, len(value.starts) - 1)
        out += memoryview(value.data)[value.starts[0] : value.starts[-1]]
    elif kind in {LIST, SET}:
        _write_list_head(out, value.kind, len(value.values))
        for one in value.values:
            _write_value(out, value.kind, one)
    elif kind == MAP:
        write_varint(out, len(value.pairs))
        if value.pairs:
            out.append(value.key_kind << 4 | value.value_kind)
        for key, one in value.pairs:
            _write_value(out, value.key_kind, key)
            _write_value(out, value.value_kind, one)
    elif kind == BYTE:
        out.append(value)
    elif kind == DOUBLE:
        out += struct.pack("<d", value)
    else:
        raise ThriftError(f"unknown type {kind}")

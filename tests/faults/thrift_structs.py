"""Reads, changes and writes Thrift structs.

A struct is a list of ``[number, type, value]``, in any order and with repetitions.
"""

from __future__ import annotations

import random
from typing import Any

from tests.faults.byte_changes import NUMBERS, TEXTS, change_bytes

TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12
OTHERS = [(TRUE, True), (BYTE, 7), (I64, 7), (DOUBLE, bytes(8)), (BINARY, b"text"), (LIST, (I64, [1, 2])), (STRUCT, [])]
"""Values of other types."""


def value(fields: list[Any] | None, number: int) -> Any:
    """Return the value of a field, or None if it is missing."""
    return next((field[2] for field in fields or () if field[0] == number), None)


def set_value(fields: list[Any], number: int, new: Any) -> None:
    """Set the value of a field that exists."""
    for field in fields:
        if field[0] == number:
            field[2] = new


def change_fields(fields: list[Any], choose: random.Random) -> None:
    """Change a field of a struct, or of a struct within it."""
    at = fields
    while True:
        field = choose.choice(at)
        inner = field[2]
        if field[1] == STRUCT and inner and choose.random() < 0.9:
            at = inner
            continue
        structs = [one for one in inner[1] if isinstance(one, list)] if field[1] in {LIST, SET} else []
        if structs and choose.random() < 0.85:
            at = choose.choice(structs)
            if at:
                continue
            return
        break
    match choose.randrange(8):
        case 0:
            at.remove(field)
        case 1:
            at.insert(choose.randrange(len(at) + 1), list(field))
        case 2:
            choose.shuffle(at)
        case 3:
            field[0] = choose.choice([field[0] + 1, field[0] + 20, -1, 32767])
        case 4:
            field[1], field[2] = choose.choice(
                [
                    (TRUE, True),
                    (BYTE, 7),
                    (I64, 7),
                    (BINARY, b"text"),
                    (LIST, (I64, [1, 2])),
                    (STRUCT, []),
                    (DOUBLE, bytes(8)),
                ]
            )
        case _:
            field[2] = _changed_value(field[1], inner, choose)


def _changed_value(kind: int, inner: Any, choose: random.Random) -> Any:
    if kind in {TRUE, FALSE}:
        return inner
    if kind == DOUBLE:
        return bytes(choose.randrange(256) for _ in range(8))
    if kind == BINARY:
        return choose.choice([*TEXTS, inner[::-1], inner * 50, change_bytes(inner, choose, len(inner))])
    if kind in {LIST, SET}:
        values = list(inner[1])
        if values and choose.random() < 0.5:
            values.pop(choose.randrange(len(values)))
        elif values:
            values.insert(choose.randrange(len(values)), choose.choice(values))
        return (inner[0], values)
    if isinstance(inner, int):
        return choose.choice([*NUMBERS, inner + 1, inner - 1, -inner])
    return inner


def read_struct(data: bytes, at: int) -> tuple[list[Any], int]:
    """Return the fields of a struct, and the position after it."""
    fields, number = [], 0
    while data[at]:
        kind, delta = data[at] & 15, data[at] >> 4
        at += 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        found, at = _read(data, at, kind)
        fields.append([number, kind, found])
    return fields, at + 1


def _read(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in {TRUE, FALSE}:
        return kind == TRUE, at
    if kind == BYTE:
        return data[at], at + 1
    if kind <= I64:
        return _zigzag(data, at)
    if kind == DOUBLE:
        return data[at : at + 8], at + 8
    if kind == BINARY:
        size, at = _varint(data, at)
        return data[at : at + size], at + size
    if kind in {LIST, SET}:
        head = data[at]
        size, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(data, at + 1)
        values = []
        for _ in range(size):
            found, at = (data[at] == 1, at + 1) if head & 15 in {TRUE, FALSE} else _read(data, at, head & 15)
            values.append(found)
        return (head & 15, values), at
    if kind == STRUCT:
        return read_struct(data, at)
    raise ValueError(f"a field of type {kind}")


def write_struct(fields: list[Any]) -> bytes:
    """Return a struct as bytes, with its fields in any order."""
    out, before = b"", 0
    for number, kind, inner in fields:
        head = (TRUE if inner else FALSE) if kind in {TRUE, FALSE} else kind
        delta = number - before
        out += (
            bytes([delta << 4 | head])
            if 0 < delta < 16
            else bytes([head]) + _to_varint((number << 1 ^ number >> 63) % (1 << 64))
        )
        out += b"" if kind in {TRUE, FALSE} else _write(kind, inner)
        before = number
    return out + b"\0"


def _write(kind: int, inner: Any) -> bytes:
    if kind in {TRUE, FALSE}:
        return bytes([TRUE if inner else FALSE])
    if kind == BYTE:
        return bytes([inner & 255])
    if kind <= I64:
        return _to_varint((inner << 1 ^ inner >> 63) & (1 << 64) - 1)
    if kind == DOUBLE:
        return bytes(inner)
    if kind == BINARY:
        return _to_varint(len(inner)) + b"".join([inner])
    if kind in {LIST, SET}:
        size = len(inner[1])
        head = bytes([size << 4 | inner[0]]) if size < 15 else bytes([0xF0 | inner[0]]) + _to_varint(size)
        return head + b"".join(_write(inner[0], one) for one in inner[1])
    return write_struct(inner)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        found |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return found, at


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    found, at = _varint(data, at)
    return (found >> 1) ^ -(found & 1), at


def _to_varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def split_footer(data: bytes) -> tuple[bytes, list[Any]]:
    """Return the bytes before the footer of a file, and the fields of the footer."""
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[:end], read_struct(data, end)[0]


def join_footer(body: bytes, fields: list[Any]) -> bytes:
    """Return a file with this body and footer."""
    footer = write_struct(fields)
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"

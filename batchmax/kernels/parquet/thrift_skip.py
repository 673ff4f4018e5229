"""Skips Thrift structs: finds where each item of a long list begins without parsing the items.

A footer has one struct for each column of each row group, tens of thousands in a wide file. Few of them are needed.

See Also
--------
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import interpretable
from batchmax.kernels.parquet.rle import varint

FALSE, BYTE, I16, I64, DOUBLE, BINARY, LIST, MAP, STRUCT = 2, 3, 4, 6, 7, 8, 9, 11, 12
INNER = 256
"""The factor of a struct's number in the numbers of its fields."""
IN_STRUCT = -1
"""The stack entry of a struct. The entry of a list is the type of its items, the entry of a map both types."""
MAX_DEPTH = 64
INTERPRETED = 1 << 15
"""Python needs about 0.2 ms for the footer of a small file, and one to four to load a kernel."""
MAX_SHIFT = 63
"""The largest shift of a byte in an integer: at most ten bytes."""


@kernel("in uint8[:], int64, out int64[:]", parallel=False, interpreted=INTERPRETED)
def find_structs(data, at, starts):
    """Find where consecutive structs begin.

    Parameters
    ----------
    data : (n_bytes,) uint8
    at
        The position of the first struct.
    starts : (n_structs + 1,) int64
        Filled with the start of each struct, and the end of the last.

    Returns
    -------
    whether all structs were found.
    """
    kinds = np.empty(MAX_DEPTH + 1, np.int64)
    left = np.empty(MAX_DEPTH + 1, np.int64)
    for i in range(starts.shape[0] - 1):
        starts[i] = at
        at = _skip(data, at, STRUCT, kinds, left)
        if at < 0:
            return False
    starts[-1] = at
    return True


@interpretable
def _skip(data, at, kind, kinds, left):
    """Return the position after a list item of a type; -1 if it is incomplete or invalid.

    ``kinds`` and ``left`` hold the stack.
    """
    end = data.shape[0]
    depth = 0
    kinds[0], left[0] = kind, 1
    while depth >= 0:
        in_list = kinds[depth] != IN_STRUCT
        if in_list:
            # Count down the items of a list. A map's key and value types alternate.
            if left[depth] == 0:
                depth -= 1
                continue
            left[depth] -= 1
            kind = kinds[depth] & 15
            if kinds[depth] >> 4:
                kinds[depth] = (kinds[depth] >> 4) | (kind << 4)
        else:
            if at >= end:
                return -1
            head = np.int64(data[at])
            at += 1
            if head == 0:
                depth -= 1
                continue
            kind = head & 15
            if head >> 4 == 0:
                _, at = varint(data, at, MAX_SHIFT)
                if at < 0:
                    return -1
        size = np.int64(0)
        if 1 <= kind <= FALSE:  # a boolean: its value is in the type within a struct, and a byte within a list
            size = np.int64(in_list)
        elif kind == BYTE:
            size = np.int64(1)
        elif kind == DOUBLE:
            size = np.int64(8)
        elif kind == BINARY:
            size, at = varint(data, at, MAX_SHIFT)
        elif LIST <= kind <= STRUCT:
            depth += 1
            if depth > MAX_DEPTH:
                return -1
            kinds[depth] = IN_STRUCT
            left[depth] = 0
            if kind == MAP:
                pairs, at = varint(data, at, MAX_SHIFT)
                left[depth] = 2 * pairs
                kinds[depth] = 0
                if at >= 0 and pairs:
                    if at >= end:
                        return -1
                    types = np.int64(data[at])
                    at += 1
                    if types >> 4 == 0 or types & 15 == 0:
                        return -1
                    kinds[depth] = (types >> 4) | ((types & 15) << 4)
            elif kind != STRUCT:
                if at >= end:
                    return -1
                head = np.int64(data[at])
                at += 1
                left[depth] = head >> 4
                kinds[depth] = head & 15
                if head >> 4 == 15:
                    left[depth], at = varint(data, at, MAX_SHIFT)
            if at < 0 or left[depth] < 0 or left[depth] > 2 * (end - at):
                return -1
        elif I16 <= kind <= I64:
            _, at = varint(data, at, MAX_SHIFT)
        else:
            return -1
        if at < 0 or size < 0 or size > end - at:
            return -1
        at += size
    return at


@kernel("in uint8[:], in int64[:], out int64[:], out int64[:], out int64[:,:]", parallel=False, interpreted=INTERPRETED)
def read_integers(data, starts, ends, fields, values):
    """Read some integer fields of structs, and of the structs directly in them.

    Parameters
    ----------
    data : (n_bytes,) uint8
    starts, ends : (n_structs,) int64
        The position of each struct; ``ends`` is filled with the positions after them, -1 for an invalid struct.
    fields : (n_fields,) int64
        The number of each field; for a field of an inner struct, plus ``INNER`` times the number of that struct.
    values : (n_structs, n_fields) int64
        Filled with the values of the fields, -1 for those that are missing or negative.
    """
    kinds = np.empty(MAX_DEPTH + 1, np.int64)
    left = np.empty(MAX_DEPTH + 1, np.int64)
    for i in range(starts.shape[0]):
        values[i] = -1
        at = starts[i]
        number = outer = np.int64(0)
        is_open = True
        while is_open and 0 <= at < data.shape[0]:
            head = np.int64(data[at])
            at += 1
            kind = head & 15
            number += head >> 4
            if head == 0:
                is_open = outer > 0
                number, outer = outer, np.int64(0)
            elif head >> 4 == 0:
                at = -1  # a field number that isn't relative to the previous one, which no writer uses here
            elif I16 <= kind <= I64:
                value, at = varint(data, at, MAX_SHIFT)
                if at >= 0 and value >= 0 and value & 1 == 0:
                    for j in range(fields.shape[0]):
                        if fields[j] == outer * INNER + number:
                            values[i, j] = value >> 1
            elif kind == STRUCT and not outer:
                number, outer = np.int64(0), number
            elif kind > FALSE:
                at = _skip(data, at, kind, kinds, left)
        ends[i] = -1 if is_open else at

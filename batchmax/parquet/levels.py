"""The levels of a page of equally long lists: made once for a shape and used for every page of it.

A level is how deep a value repeats (0 begins a row, 1 goes on with it) or how much of its path is there (the largest
level for a number, 0 for a row that is null). Both are written as runs of one value or as groups of eight packed bits,
whichever is shorter.

See Also
--------
https://github.com/apache/parquet-format/blob/master/Encodings.md (RLE / bit-packing hybrid)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG_ROW = 64
"""From this many values on, a row's repetition levels are shorter as two runs than as bits."""


@lru_cache(maxsize=64)
def full_levels(n_rows: int, n_classes: int, definition: int, *, repeated: bool = True) -> bytes:
    """Return what a page of rows without a null begins with: repetition levels, then definition levels.

    Each of the two follows its own length in four bytes, as in data pages of version 1; it is not there at all if the
    column has no such levels.
    """
    definitions = sized(run(n_rows * n_classes, definition)) if definition else b""
    if not repeated:
        return definitions
    if n_classes == 1:
        repetition = run(n_rows, 0)
    elif n_classes >= LONG_ROW:
        repetition = (run(1, 0) + run(n_classes - 1, 1)) * n_rows
    else:
        goes_on = np.ones((n_rows, n_classes), np.bool_)
        goes_on[:, 0] = False
        repetition = _packed(goes_on.reshape(-1))
    return sized(repetition) + definitions


def levels_with_nulls(missing: NDArray[np.bool_], n_classes: int, definition: int, *, repeated: bool = True) -> bytes:
    """Return the same where some rows are null.

    Parameters
    ----------
    missing : (n_rows,) bool
        The rows that are null: one level each, and no value.
    """
    lengths = np.where(missing, 1, n_classes)
    starts = np.cumsum(lengths) - lengths
    goes_on = np.ones(int(lengths.sum()), np.bool_)
    goes_on[starts] = False
    borders = np.flatnonzero(np.diff(missing)) + 1
    runs = [
        run(len(rows) if rows[0] else len(rows) * n_classes, 0 if rows[0] else definition)
        for rows in np.split(missing, borders)
    ]
    return (sized(_packed(goes_on)) if repeated else b"") + sized(b"".join(runs))


def run(count: int, level: int) -> bytes:
    """Return a run of one level."""
    return varint(count << 1) + bytes([level])


def _packed(bits: NDArray[Any]) -> bytes:
    packed = np.packbits(bits, bitorder="little").tobytes()
    return varint(len(packed) << 1 | 1) + packed


def packed_levels(levels: NDArray[np.uint8], width: int) -> bytes:
    """Return levels of some bits as groups of eight, the last filled up with zeros."""
    whole = np.zeros(-(-len(levels) // 8) * 8, np.uint8)
    whole[: len(levels)] = levels
    bits = whole[:, None] >> np.arange(width, dtype=np.uint8) & 1
    return varint(len(whole) // 8 << 1 | 1) + np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def sized(levels: bytes) -> bytes:
    """Return levels after their length in four bytes."""
    return len(levels).to_bytes(4, "little") + levels


def varint(value: int) -> bytes:
    """Return a number seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

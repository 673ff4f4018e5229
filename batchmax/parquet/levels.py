"""Encodes the repetition and definition levels of pages of equally long lists.

The repetition level of a value is 0 at the beginning of a row, and 1 in the rest of it. The definition level is the
largest one for a number, and 0 for a null row. Levels are written as runs of one value or as bit-packed groups of
eight, whichever is shorter.

See Also
--------
https://github.com/apache/parquet-format/blob/master/Encodings.md (RLE / bit-packing hybrid)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.parquet.thrift import write_varint

LONG_ROW = 64
"""From this row length on, the repetition levels of a row are shorter as two runs than as bits."""


@lru_cache(maxsize=64)
def full_levels(n_rows: int, n_classes: int, definition: int, *, repeated: bool = True) -> bytes:
    """Return the levels of a page of rows without nulls: repetition levels, then definition levels.

    Each is preceded by its length in four bytes, as in data pages of version 1, and is left out if the column has no
    such levels. Cached, because pages of one shape have the same levels.
    """
    definitions = sized(run(n_rows * n_classes, definition)) if definition else b""
    if not repeated:
        return definitions
    if n_classes == 1:
        repetition = run(n_rows, 0)
    elif n_classes >= LONG_ROW:
        repetition = (run(1, 0) + run(n_classes - 1, 1)) * n_rows
    else:
        continues = np.ones((n_rows, n_classes), np.uint8)
        continues[:, 0] = 0
        repetition = packed_levels(continues.reshape(-1), 1)
    return sized(repetition) + definitions


def levels_with_nulls(missing: NDArray[np.bool_], n_classes: int, definition: int, *, repeated: bool = True) -> bytes:
    """Return the levels of a page in which some rows are null, as :func:`full_levels` does.

    Parameters
    ----------
    missing : (n_rows,) bool
        The null rows, which have one level and no value each.
    n_classes, definition, repeated
        As for :func:`full_levels`.
    """
    lengths = np.where(missing, 1, n_classes)
    continues = np.ones(int(lengths.sum()), np.uint8)
    continues[np.cumsum(lengths) - lengths] = 0
    definitions = sized(level_runs(np.where(missing, 0, definition), lengths))
    return (sized(packed_levels(continues, 1)) if repeated else b"") + definitions


def run(count: int, level: int) -> bytes:
    """Return an encoded run of one level."""
    return varint(count << 1) + bytes([level])


def level_runs(levels: NDArray[Any], counts: NDArray[Any]) -> bytes:
    """Return levels, each of which is repeated ``counts`` times, as runs."""
    if not len(levels):
        return b""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(levels)) + 1])
    totals = np.add.reduceat(counts, starts)
    return b"".join(run(int(total), int(level)) for total, level in zip(totals, levels[starts], strict=True))


def packed_levels(levels: NDArray[np.uint8], width: int) -> bytes:
    """Return levels of ``width`` bits as bit-packed groups of eight; the last group is padded with zeros."""
    whole = np.zeros(-(-len(levels) // 8) * 8, np.uint8)
    whole[: len(levels)] = levels
    bits = whole[:, None] >> np.arange(width, dtype=np.uint8) & 1
    return varint(len(whole) // 8 << 1 | 1) + np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def sized(levels: bytes) -> bytes:
    """Return levels preceded by their length in four bytes."""
    return len(levels).to_bytes(4, "little") + levels


def varint(value: int) -> bytes:
    """Return a number as a varint: seven bits per byte, lowest first."""
    out = bytearray()
    write_varint(out, value)
    return bytes(out)

"""Bytes that snappy could not make smaller, found where they lie: every length checked before it is used.

See Also
--------
https://github.com/google/snappy/blob/main/format_description.txt
"""

import numpy as np

from batchmax.kernels.machine import compiled
from batchmax.kernels.pages import varint

LITERAL = 0
NEAR_COPY = 1
LONG_LITERAL = 60
MOST_SHIFT = 28
"""The length is of 32 bits: no more than five bytes."""

STORED = 1 << 10
"""A literal of so many bytes or more is one that the encoder gave up on."""


@compiled
def little_endian(data, at, n_bytes):
    """Return a number of some bytes, which must be there."""
    value = np.int64(0)
    for byte in range(n_bytes):
        value |= np.int64(data[at + byte]) << (8 * byte)
    return value


def stored(data, size, head, pieces):
    """Unpack what comes before the first long literal, and find that and all after it.

    Parameters
    ----------
    data : (n_bytes,) uint8
        What snappy made of ``size`` bytes.
    head : (n_head,) uint8
        Receives what comes first.
    pieces : (n_pieces, 2) int64
        Receives where in the data each of the literals begins and ends.

    Returns
    -------
    How many bytes are in the head, and how many pieces there are; -1 and 0 if there is no long literal, something else
    than literals after it, too much for the head or the pieces, or a length that is wrong.
    """
    length, at = varint(data, 0, MOST_SHIFT)
    if at < 0 or length != size:
        return -1, 0
    end = data.shape[0]
    filled = count = 0
    done = np.int64(0)
    while at < end:
        tag = np.int64(data[at])
        at += 1
        kind = tag & 3
        if kind == LITERAL:
            length = (tag >> 2) + 1
            if length > LONG_LITERAL:
                n_bytes = length - LONG_LITERAL
                if n_bytes > end - at:
                    return -1, 0
                length = little_endian(data, at, n_bytes) + 1
                at += n_bytes
            if length > end - at:
                return -1, 0
            if count or length >= STORED:
                if count == pieces.shape[0]:
                    return -1, 0
                pieces[count, 0] = at
                pieces[count, 1] = at + length
                count += 1
            else:
                if length > head.shape[0] - filled:
                    return -1, 0
                for byte in range(length):
                    head[filled + byte] = data[at + byte]
                filled += length
            at += length
        else:
            n_bytes = 1 if kind == NEAR_COPY else 2 * (kind - 1)
            if n_bytes > end - at or count:
                return -1, 0
            offset = little_endian(data, at, n_bytes)
            at += n_bytes
            length = (tag >> 2) + 1
            if kind == NEAR_COPY:
                length = ((tag >> 2) & 7) + 4
                offset |= (tag >> 5) << 8
            if offset == 0 or offset > filled or length > head.shape[0] - filled:
                return -1, 0
            for byte in range(length):
                head[filled + byte] = head[filled + byte - offset]
            filled += length
        done += length
    return (filled, count) if done == size and count else (-1, 0)

"""Unpacks and checks Snappy, and finds bytes that it stored uncompressed. Every length is checked before it is used.

See Also
--------
https://github.com/google/snappy/blob/main/format_description.txt
"""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.parquet.rle import little_endian, varint

LITERAL = 0
NEAR_COPY = 1
LONG_LITERAL = 60
MAX_SHIFT = 28
"""The largest shift of a byte in the varint of the uncompressed length, which has 32 bits: at most five bytes."""

LONGEST_TAG = 5
"""Bytes of an element's tag: the tag byte, and up to four bytes of a literal's length or a copy's offset."""

STORED = 1 << 10
"""A literal of at least this many bytes is treated as data that Snappy couldn't compress."""


@compiled
def open_element(data, at):
    """Read the tag of an element.

    Returns
    -------
    the number of uncompressed bytes; the offset of a copy, 0 for a literal; and the position after the tag, -1 if the
    tag is incomplete or invalid.
    """
    tag = np.int64(data[at])
    at += 1
    kind = tag & 3
    length = (tag >> 2) + 1
    n_bytes = max(0, length - LONG_LITERAL) if kind == LITERAL else 1 if kind == NEAR_COPY else 2 * (kind - 1)
    if n_bytes > data.shape[0] - at:
        return length, np.int64(0), -1
    number = little_endian(data, at, n_bytes)
    at += n_bytes
    if kind == LITERAL:
        return number + 1 if n_bytes else length, np.int64(0), at
    if kind == NEAR_COPY:
        length = ((tag >> 2) & 7) + 4
        number |= (tag >> 5) << 8
    return length, number, at if number else -1


@kernel("in uint8[:], int64, out uint8[:], out int64[:,:]", parallel=False)
def stored(data, size, head, pieces):
    """Unpack the data before the first long literal, and find that literal and all following ones.

    Parameters
    ----------
    data : (n_bytes,) uint8
        Snappy data.
    size
        The uncompressed size.
    head : (n_head,) uint8
        Filled with the uncompressed bytes before the first long literal.
    pieces : (n_pieces, 2) int64
        Filled with the start and end in the data of each literal from the first long one on.

    Returns
    -------
    The number of bytes in the head, and the number of pieces; -1 and 0 if there is no long literal, if copies follow
    it, if the head or the pieces are too small, or if a length is wrong.
    """
    length, at = varint(data, 0, MAX_SHIFT)
    if at < 0 or length != size:
        return -1, 0
    end = data.shape[0]
    filled = count = 0
    done = np.int64(0)
    while at < end:
        length, offset, at = open_element(data, at)
        if at < 0:
            return -1, 0
        if offset:
            if count or offset > filled or length > head.shape[0] - filled:
                return -1, 0
            for byte in range(length):
                head[filled + byte] = head[filled + byte - offset]
            filled += length
        else:
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
        done += length
    return (filled, count) if done == size and count else (-1, 0)


@kernel("in uint8[:], int64, out uint8[:]", parallel=False)
def check_snappy(data, size, head):
    """Check that the data can be unpacked, without unpacking more than the first bytes.

    Parameters
    ----------
    data : (n_bytes,) uint8
        Snappy data.
    size
        The uncompressed size, at least the size of ``head``.
    head : (n_head,) uint8
        Filled with the first uncompressed bytes.

    Returns
    -------
    whether the data are valid and have this uncompressed size.
    """
    length, at = varint(data, 0, MAX_SHIFT)
    if at < 0 or length != size:
        return False
    end = data.shape[0]
    done = np.int64(0)
    while at < end:
        # Like open_element, but nine times as fast on repeated patterns: with a branch for each kind of element, the
        # processor predicts where the next one begins.
        tag = np.int64(data[at])
        kind = tag & 3
        length = (tag >> 2) + 1
        start = offset = np.int64(0)
        at += 1
        if kind == LITERAL:
            if length > LONG_LITERAL:
                n_bytes = length - LONG_LITERAL
                if n_bytes > end - at:
                    return False
                length = little_endian(data, at, n_bytes) + 1
                at += n_bytes
            if length > end - at:
                return False
            start = at
            at += length
        else:
            n_bytes = np.int64(1)
            if kind == NEAR_COPY:
                if at == end:
                    return False
                length = ((tag >> 2) & 7) + 4
                offset = ((tag >> 5) << 8) | np.int64(data[at])
                at += 1
            else:
                n_bytes = 2 * (kind - 1)
                if n_bytes > end - at:
                    return False
                offset = little_endian(data, at, n_bytes)
                at += n_bytes
            if offset == 0 or offset > done:
                return False
        if done < head.shape[0]:
            for place in range(done, min(done + length, head.shape[0])):
                head[place] = head[place - offset] if offset else data[start + place - done]
        done += length
    return done == size


@kernel("in uint8[:], bool, out uint8[:], int64, out uint8[:], out int64[:]", parallel=False)
def decompress_snappy(data, last, out, filled, history, state):
    """Unpack as much Snappy data as is there and fits into the output; later calls continue.

    Parameters
    ----------
    data : (n_bytes,) uint8
        Elements from where the last call stopped; they may end anywhere.
    last
        Whether these are the last bytes.
    out : (n_out,) uint8
        Filled with uncompressed bytes, from ``filled`` on.
    filled
        The number of bytes of ``out`` that are filled already.
    history : (n_history,) uint8
        The last uncompressed bytes before ``out``.
    state : (3,) int64
        The current element: bytes left of a literal; bytes left of a copy, and its offset. Initially 0.

    Returns
    -------
    the number of bytes of the data that are used up, and the number of bytes of ``out`` that are filled; the first is
    -1 if the data are damaged, or refer to bytes before the history.
    """
    at = 0
    end = data.shape[0]
    while filled < out.shape[0]:
        if state[0] > 0:
            count = min(state[0], end - at, out.shape[0] - filled)
            if count == 0:
                break
            out[filled : filled + count] = data[at : at + count]
            at += count
            filled += count
            state[0] -= count
            continue
        if state[1] > 0:
            count = min(state[1], out.shape[0] - filled)
            away = state[2]
            if away > filled + history.shape[0]:
                return -1, filled
            for _ in range(count):
                source = filled - away
                out[filled] = out[source] if source >= 0 else history[history.shape[0] + source]
                filled += 1
            state[1] -= count
            continue
        if at == end or (end - at < LONGEST_TAG and not last):
            break
        length, offset, at = open_element(data, at)
        if at < 0:
            return -1, filled
        if offset:
            state[1], state[2] = length, offset
        else:
            state[0] = length
    return at, filled

"""Decodes and checks levels and dictionary indices of Parquet pages. Every length is checked before it is used.

Both are stored in the RLE / bit-packing hybrid: any sequence of runs of one value and bit-packed groups of eight.

See Also
--------
https://github.com/apache/parquet-format/blob/master/Encodings.md (RLE / bit-packing hybrid)
"""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled, interpretable

MAX_SHIFT = 35
"""The largest shift of a byte in a run header's varint: headers have at most six bytes."""

LENGTH_BYTES = 4

INTERPRETED = 1 << 12
"""Python needs some milliseconds for the levels of a small file, and two to load a kernel."""

PADDING = 8
"""Bytes after the data that kernels may read; their values don't matter."""

LONGEST_RUN_HEADER = 9
"""Bytes of a run's header and of its value."""


@interpretable
def varint(data, at, most_shift):
    """Return a varint (seven bits per byte) and the position after it; the position is -1 if the varint is damaged."""
    value = np.int64(0)
    shift = 0
    while at < data.shape[0] and shift <= most_shift:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    return np.int64(0), -1


@compiled
def little_endian(data, at, n_bytes):
    """Return the little-endian number in n_bytes bytes, all of which must be within the data."""
    value = np.int64(0)
    for byte in range(n_bytes):
        value |= np.int64(data[at + byte]) << (8 * byte)
    return value


@interpretable
def open_run(data, at, left, width):
    """Read the header of a run of levels.

    Returns
    -------
    the position of the run's value or packed bits, the number of levels (at most ``left``), whether they are
    bit-packed, the value if they are not, and the position after the run; the last is -1 if the run is damaged.
    """
    header, at = varint(data, at, MAX_SHIFT)
    if at < 0:
        return 0, 0, False, 0, -1
    count = header >> 1
    if header & 1:
        if count == 0 or count * width > data.shape[0] - at:
            return 0, 0, True, 0, -1
        return at, min(count * 8, left), True, 0, at + count * width
    if at >= data.shape[0] or count == 0 or count > left:
        return 0, 0, False, 0, -1
    return at, count, False, np.int64(data[at]), at + 1


@interpretable
def packed_level(data, at, place, width):
    """Return the level at index ``place`` of bit-packed levels of ``width`` bits."""
    bit = place * width
    at += bit >> 3
    two = np.int64(data[at])
    if (bit & 7) + width > 8:
        two |= np.int64(data[at + 1]) << 8
    return (two >> (bit & 7)) & ((1 << width) - 1)


@kernel("in uint8[:], int64, int64, int64, in uint8[:]", parallel=False, interpreted=INTERPRETED)
def check_repetition(data, n_values, n_classes, place, packed):
    """Check that the repetition levels of a page are those of lists of K values.

    Parameters
    ----------
    data : (n_bytes,) uint8
        The encoded levels, one bit each, without a length prefix.
    n_values
        The number of levels.
    n_classes
        K, the length of each row.
    place
        The index of the page's first value in its row.
    packed : (K,) uint8
        For each index in a row, the next eight levels from there on, packed into a byte.

    Returns
    -------
    the index in its row of the value after the page; -1 if the levels are not those of rows of K values.
    """
    at = 0
    done = 0
    while done < n_values:
        start, count, is_packed, level, at = open_run(data, at, n_values - done, 1)
        if at < 0:
            return -1
        if is_packed:
            for byte in range(start, at):
                # Bits after the last level, in its group of eight and in later groups, have no meaning.
                have = max(0, min(8, n_values - done))
                if ((data[byte] ^ packed[place]) & ((1 << have) - 1)) != 0:
                    return -1
                place = (place + have) % n_classes
                done += have
        else:
            if level == 1:
                if place == 0 or place + count > n_classes:
                    return -1
            elif level != 0 or place != 0 or (count > 1 and n_classes > 1):
                return -1
            place = (place + count) % n_classes
            done += count
    return place if at == data.shape[0] else -1


@interpretable
def _ones(byte):
    """Return the number of bits of a byte that are 1."""
    bits = np.int64(byte)
    bits -= (bits >> 1) & 0x55
    bits = (bits & 0x33) + ((bits >> 2) & 0x33)
    return (bits + (bits >> 4)) & 0x0F


@kernel("in uint8[:], int64, int64, int64", parallel=False, interpreted=INTERPRETED)
def count_levels(data, n_values, width, wanted):
    """Return the position after n_values levels of ``width`` bits, and how many of the levels equal ``wanted``.

    Levels are in runs and bit-packed groups; the last group may hold more levels than there are values. If the levels
    are damaged, the position is -1 and only the levels before the damage are counted.
    """
    at = 0
    done = 0
    count = 0
    while done < n_values:
        start, size, is_packed, level, after = open_run(data, at, n_values - done, width)
        if after < 0:
            return -1, count
        if is_packed:
            whole = size >> 3 if width == 1 else 0
            ones = 0
            for byte in range(start, start + whole):
                ones += _ones(data[byte])
            count += ones if wanted else 8 * whole - ones
            for place in range(8 * whole, size):
                count += packed_level(data, start, place, width) == wanted
        elif level == wanted:
            count += size
        at = after
        done += size
    return at, count


@compiled
def gather(data, at, bit, width, dictionary, out):
    """Fill out with the dictionary entries of bit-packed indices; return whether an index is out of range.

    The first index begins at a bit of the byte at ``at``. Up to ``PADDING`` bytes after the last index are read.
    """
    # Unsigned: for a signed index, Numba adds a check for negative values.
    bit = (np.uint64(at) << np.uint64(3)) + np.uint64(bit)
    width = np.uint64(width)
    last = np.uint64(dictionary.shape[0] - 1)
    mask = (np.uint64(1) << width) - np.uint64(1)
    beyond = False
    for i in range(out.shape[0]):
        place = bit >> np.uint64(3)
        # Eight bytes hold any 32 bits at any bit offset; LLVM turns this loop into one load.
        held = np.uint64(data[place])
        for byte in range(1, PADDING):
            held |= np.uint64(data[place + np.uint64(byte)]) << np.uint64(8 * byte)
        index = (held >> (bit & np.uint64(7))) & mask
        bit += width
        beyond |= index > last
        out[i] = dictionary[min(index, last)]
    return beyond


@kernel("in uint8[:], bool, int64, in real[:], out real[:], out int64[:]", parallel=False)
def look_up(data, last, width, dictionary, out, state):
    """Fill as much of out (n_values,) as the data allow with entries of a dictionary; later calls continue.

    Parameters
    ----------
    data : (n_bytes + PADDING,) uint8
        Indices in runs and bit-packed groups, from where the last call stopped; they may end anywhere. The padding has
        no meaning.
    last
        Whether these are the last bytes of the indices.
    width
        The number of bits of an index.
    dictionary : (size,)
    out : (n_values,)
    state : (4,) int64
        The current run: the number of indices left, whether they are bit-packed (1) or equal (0), the index if they are
        equal, and the number of bits of data[0] that are used up. Initially 0.

    Returns
    -------
    the number of bytes of the data that are used up, -1 if they are damaged; and the number of entries filled in.
    """
    at = 0
    done = 0
    end = data.shape[0] - PADDING
    n_values = out.shape[0]
    size = dictionary.shape[0]
    if size == 0:
        return -1, 0
    while done < n_values:
        if state[0] == 0:
            if end - at < LONGEST_RUN_HEADER and not last:
                break
            header, after = varint(data[:end], at, MAX_SHIFT)
            if after < 0 or header >> 1 == 0:
                return -1, done
            at = after
            state[0] = header >> 1
            state[1] = header & 1
            state[3] = 0
            if state[1]:
                state[0] *= 8
                continue
            n_bytes = (width + 7) // 8
            if n_bytes > end - at:
                return -1, done
            index = little_endian(data, at, n_bytes)
            at += n_bytes
            if index >= size:
                return -1, done
            state[2] = index
        count = min(state[0], n_values - done)
        if state[1] == 0:
            out[done : done + count] = dictionary[state[2]]
        else:
            # Only as many indices as the data have bits for; the bits of a run end at the end of a byte.
            bit = state[3]
            count = min(count, ((end - at) * 8 - bit) // width) if width else count
            if count == 0:
                if last:
                    return -1, done
                break
            if gather(data, at, bit, width, dictionary, out[done : done + count]):
                return -1, done
            bit += count * width
            at += bit >> 3
            state[3] = bit & 7
        done += count
        state[0] -= count
    return at, done


@kernel("in uint8[:]", parallel=False)
def count_texts(data):
    """Return the number of strings in the data, each after its length in four bytes; -1 if they don't fit exactly."""
    at = 0
    count = 0
    while at < data.shape[0]:
        if data.shape[0] - at < LENGTH_BYTES:
            return -1
        size = little_endian(data, at, LENGTH_BYTES)
        at += LENGTH_BYTES
        if size > data.shape[0] - at:
            return -1
        at += size
        count += 1
    return count


@kernel("in uint8[:], out float64[:]", parallel=False)
def text_lengths(data, lengths):
    """Fill lengths (n_texts,) with the sizes of strings, stored as in :func:`count_texts`; 0 for missing ones."""
    at = 0
    for i in range(lengths.shape[0]):
        size = np.int64(0)
        if data.shape[0] - at >= LENGTH_BYTES:
            size = little_endian(data, at, LENGTH_BYTES)
            at += LENGTH_BYTES + size
        lengths[i] = size

"""Loops over the levels and the dictionary indices of a Parquet page: bytes in, every length checked before it is used.

Both come as runs of one value and as bit-packed groups of eight, one after the other as the writer liked.

See Also
--------
https://github.com/apache/parquet-format/blob/master/Encodings.md (RLE / bit-packing hybrid)
"""

import numpy as np

from batchmax.kernels.intrinsics import compiled

MOST_SHIFT = 35
"""A header of more than five bytes would be a run of more than 2**34 values."""

MOST_WIDTH = 32
LENGTH_BYTES = 4

PADDING = 8
"""Bytes after some data that may be read, whatever they are."""

LONGEST_RUN_HEADER = 9
"""Bytes of a run's header and of the one value it may have."""


@compiled
def varint(data, at, most_shift):
    """Return an integer of seven bits a byte and the position after it; a position of -1 if there is none."""
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


def check_repetition(data, n_values, n_classes, place, packed):
    """Check repetition levels of one bit.

    Parameters
    ----------
    data : (n_bytes,) uint8
        The levels, and nothing else.
    n_values
        How many there are.
    n_classes
        K, the length of each row.
    place
        The place in its row of the first of them.
    packed : (K,) uint8
        The eight levels that begin at each place in a row.

    Returns
    -------
    the place in its row of the value after them; -1 if they are not those of rows of K values.
    """
    at = 0
    done = 0
    while done < n_values:
        header, at = varint(data, at, MOST_SHIFT)
        if at < 0:
            return -1
        count = header >> 1
        if header & 1:
            if count > data.shape[0] - at:
                return -1
            for _ in range(count):
                # After the last level, in its group of eight and in groups that follow, bits mean nothing.
                have = max(0, min(8, n_values - done))
                if ((data[at] ^ packed[place]) & ((1 << have) - 1)) != 0:
                    return -1
                place = (place + have) % n_classes
                done += have
                at += 1
        else:
            if at >= data.shape[0] or count == 0 or count > n_values - done:
                return -1
            level = data[at]
            at += 1
            if level == 1:
                if place == 0 or place + count > n_classes:
                    return -1
            elif level != 0 or place != 0 or (count > 1 and n_classes > 1):
                return -1
            place = (place + count) % n_classes
            done += count
    return place if at == data.shape[0] else -1


def check_definition(data, n_values, level, width):
    """Return whether n_values definition levels of ``width`` bits are there and all equal ``level``."""
    at = 0
    done = 0
    while done < n_values:
        header, at = varint(data, at, MOST_SHIFT)
        if at < 0:
            return False
        count = header >> 1
        if header & 1:
            if count * width > data.shape[0] - at:
                return False
            have = min(count * 8, n_values - done)
            for bit in range(have * width):
                if (data[at + (bit >> 3)] >> (bit & 7)) & 1 != (level >> (bit % width)) & 1:
                    return False
            at += count * width
            done += have
        else:
            if at >= data.shape[0] or count == 0 or count > n_values - done or data[at] != level:
                return False
            at += 1
            done += count
    return at == data.shape[0]


@compiled
def _ones(byte):
    """Return how many bits of a byte are 1."""
    bits = np.int64(byte)
    bits -= (bits >> 1) & 0x55
    bits = (bits & 0x33) + ((bits >> 2) & 0x33)
    return (bits + (bits >> 4)) & 0x0F


def count_levels(data, n_values, width, wanted):
    """Return where n_values levels of ``width`` bits end, and how many of them are ``wanted``.

    Levels are in runs and bit-packed groups, of which the last may hold more than there are values. They end at -1
    where they are damaged; then those before the damage are counted.
    """
    at = 0
    done = 0
    count = 0
    mask = (1 << width) - 1
    while done < n_values:
        header, after = varint(data, at, MOST_SHIFT)
        if after < 0:
            return -1, count
        at = after
        size = header >> 1
        if header & 1:
            if size == 0 or size * width > data.shape[0] - at:
                return -1, count
            have = min(size * 8, n_values - done)
            whole = have >> 3 if width == 1 else 0
            ones = 0
            for byte in range(at, at + whole):
                ones += _ones(data[byte])
            count += ones if wanted else 8 * whole - ones
            for place in range(8 * whole, have):
                bit = place * width
                two = np.int64(data[at + (bit >> 3)])
                if (bit & 7) + width > 8:
                    two |= np.int64(data[at + (bit >> 3) + 1]) << 8
                count += ((two >> (bit & 7)) & mask) == wanted
            at += size * width
            done += have
        else:
            if at >= data.shape[0] or size == 0 or size > n_values - done:
                return -1, count
            count += size if data[at] == wanted else 0
            at += 1
            done += size
    return at, count


def look_up(data, n_values, dictionary, out):
    """Fill out (n_values,) with entries of a dictionary; return whether the indices were what they must be.

    Parameters
    ----------
    data : (n_bytes,) uint8
        A byte that says how many bits an index has, then indices in runs and bit-packed groups.
    dictionary : (size,)
    """
    if data.shape[0] == 0 or data[0] > MOST_WIDTH:
        return n_values == 0
    width = np.int64(data[0])
    size = dictionary.shape[0]
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    at = 1
    done = 0
    while done < n_values:
        header, at = varint(data, at, MOST_SHIFT)
        if at < 0:
            return False
        count = header >> 1
        if header & 1:
            if count * width > data.shape[0] - at:
                return False
            have = min(count * 8, n_values - done)
            held = np.uint64(0)
            bits = 0
            source = at
            for i in range(done, done + have):
                while bits < width:
                    held |= np.uint64(data[source]) << np.uint64(bits)
                    source += 1
                    bits += 8
                index = np.int64(held & mask)
                held >>= np.uint64(width)
                bits -= width
                if index >= size:
                    return False
                out[i] = dictionary[index]
            at += count * width
            done += have
        else:
            n_bytes = (width + 7) // 8
            if n_bytes > data.shape[0] - at or count == 0 or count > n_values - done:
                return False
            index = 0
            for byte in range(n_bytes):
                index |= np.int64(data[at + byte]) << (8 * byte)
            at += n_bytes
            if index >= size:
                return False
            out[done : done + count] = dictionary[index]
            done += count
    return True


@compiled
def gather(data, at, bit, width, dictionary, out):
    """Fill out with the entries that bit-packed indices name; return whether one is beyond the dictionary.

    The first index begins at a bit of the byte at ``at``; ``PADDING`` bytes may be read behind the last one.
    """
    # Unsigned, for Numba asks of a signed place whether it counts from the end.
    bit = (np.uint64(at) << np.uint64(3)) + np.uint64(bit)
    width = np.uint64(width)
    last = np.uint64(dictionary.shape[0] - 1)
    mask = (np.uint64(1) << width) - np.uint64(1)
    beyond = False
    for i in range(out.shape[0]):
        place = bit >> np.uint64(3)
        # Eight bytes hold any 32 bits; written like this they are one load.
        held = np.uint64(data[place])
        for byte in range(1, PADDING):
            held |= np.uint64(data[place + np.uint64(byte)]) << np.uint64(8 * byte)
        index = (held >> (bit & np.uint64(7))) & mask
        bit += width
        beyond |= index > last
        out[i] = dictionary[min(index, last)]
    return beyond


def look_up_more(data, last, width, dictionary, out, state):
    """Fill some of out (n_values,) with entries of a dictionary, to be gone on with.

    Parameters
    ----------
    data : (n_bytes + PADDING,) uint8
        Indices in runs and bit-packed groups, from where the last call stopped, cut anywhere; and bytes that mean
        nothing.
    last
        Whether nothing follows the data.
    width
        How many bits an index has.
    dictionary : (size,)
    state : (4,) int64
        Of the run that was stopped in: how many indices are left, whether they are bit-packed (1) or all the same (0),
        which one that is, and how many bits of the first byte of the data are done with.

    Returns
    -------
    how many bytes of the data are done with, -1 if they are damaged; and how many numbers were filled in.
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
            header, after = varint(data[:end], at, MOST_SHIFT)
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
            index = np.int64(0)
            for byte in range(n_bytes):
                index |= np.int64(data[at + byte]) << (8 * byte)
            at += n_bytes
            if index >= size:
                return -1, done
            state[2] = index
        count = min(state[0], n_values - done)
        if state[1] == 0:
            out[done : done + count] = dictionary[state[2]]
        else:
            # As many as there are bits of; the last bits of a run end with a byte.
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


def count_texts(data):
    """Return how many texts, each after its own length in four bytes, fill some bytes; -1 if they do not."""
    at = 0
    count = 0
    while at < data.shape[0]:
        if data.shape[0] - at < LENGTH_BYTES:
            return -1
        size = np.int64(0)
        for byte in range(LENGTH_BYTES):
            size |= np.int64(data[at + byte]) << (8 * byte)
        at += LENGTH_BYTES
        if size > data.shape[0] - at:
            return -1
        at += size
        count += 1
    return count


def text_lengths(data, lengths):
    """Fill lengths (n_texts,) with how long each text is, as :func:`count_texts` finds them; with 0 where none is."""
    at = 0
    for i in range(lengths.shape[0]):
        size = np.int64(0)
        if data.shape[0] - at >= LENGTH_BYTES:
            for byte in range(LENGTH_BYTES):
                size |= np.int64(data[at + byte]) << (8 * byte)
            at += LENGTH_BYTES + size
        lengths[i] = size

"""Checks the levels of lists of lists: finds where rows begin, and whether every inner list has K numbers.

See Also
--------
https://github.com/apache/parquet-format/blob/master/Encodings.md (RLE / bit-packing hybrid)
"""

import numpy as np

from batchmax.kernels.intrinsics import compiled
from batchmax.kernels.parquet.rle import MAX_SHIFT, varint

BEGINS, CONTINUES, NULL, EMPTY = 0, 1, 2, 3
"""Events: a token that begins a row, a token that continues a row, a null row, an empty row."""

REPETITION_BITS = 2
"""Repetition levels have two bits: 0 (a row begins), 1 (a token begins) or 2 (another number of the token)."""


@compiled
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


@compiled
def packed_level(data, at, place, width):
    """Return the level at index ``place`` of bit-packed levels of ``width`` bits."""
    bit = place * width
    at += bit >> 3
    two = np.int64(data[at])
    if (bit & 7) + width > 8:
        two |= np.int64(data[at + 1]) << 8
    return (two >> (bit & 7)) & ((1 << width) - 1)


def walk_levels(repetition, definition, n_values, n_classes, place, level, width, optional, events):
    """Check the levels of a page of lists of lists of K numbers.

    Parameters
    ----------
    repetition, definition : (n_bytes,) uint8
        The encoded levels, without a length prefix.
    n_values
        The number of repetition levels, and of definition levels.
    n_classes
        K, the length of every inner list.
    place
        The index of the page's first value in its inner list.
    level, width
        The definition level of a number, and the bits of a definition level.
    optional
        Whether the outer list may be null.
    events : (n_events,) uint8
        Filled with ``BEGINS``, ``CONTINUES``, ``NULL`` or ``EMPTY`` for each token and each row without tokens.

    Returns
    -------
    the index in its inner list of the value after the page; the number of events; the number of numbers. The first is
    -1 if the levels don't describe such lists, or if there are more events than ``events`` holds.
    """
    done = n_events = n_numbers = 0
    rep_at = rep_base = def_at = def_base = 0
    rep_left = def_left = rep_place = def_place = 0
    rep_packed = def_packed = False
    rep_value = def_value = 0
    while done < n_values:
        if rep_left == 0:
            rep_base, rep_left, rep_packed, rep_value, rep_at = open_run(
                repetition, rep_at, n_values - done, REPETITION_BITS
            )
            rep_place = 0
            if rep_at < 0:
                return -1, 0, 0
        if def_left == 0:
            def_base, def_left, def_packed, def_value, def_at = open_run(definition, def_at, n_values - done, width)
            def_place = 0
            if def_at < 0:
                return -1, 0, 0
        if place == 0:
            if n_events == events.shape[0]:
                return -1, 0, 0
            again = packed_level(repetition, rep_base, rep_place, REPETITION_BITS) if rep_packed else rep_value
            found = packed_level(definition, def_base, def_place, width) if def_packed else def_value
            if found == level and again <= 1:
                events[n_events] = BEGINS if again == 0 else CONTINUES
                place = 1 % n_classes
                n_numbers += 1
            elif again == 0 and found == (1 if optional else 0):
                events[n_events] = EMPTY
            elif again == 0 and found == 0:
                events[n_events] = NULL
            else:
                return -1, 0, 0
            n_events += 1
            count = 1
        else:
            count = min(n_classes - place, rep_left, def_left)
            if rep_packed:
                for i in range(count):
                    if packed_level(repetition, rep_base, rep_place + i, REPETITION_BITS) != REPETITION_BITS:
                        return -1, 0, 0
            elif rep_value != REPETITION_BITS:
                return -1, 0, 0
            if def_packed:
                for i in range(count):
                    if packed_level(definition, def_base, def_place + i, width) != level:
                        return -1, 0, 0
            elif def_value != level:
                return -1, 0, 0
            n_numbers += count
            place = (place + count) % n_classes
        done += count
        rep_left -= count
        def_left -= count
        rep_place += count
        def_place += count
    if rep_at != repetition.shape[0] or def_at != definition.shape[0]:
        return -1, 0, 0
    return place, n_events, n_numbers


def inner_length(repetition, definition, n_values, level, width, begun):
    """Return the length of the first inner list that isn't empty, as far as this page shows it.

    Parameters
    ----------
    repetition, definition, n_values, level, width
        As for :func:`walk_levels`, but numbers may be null, which is one level less.
    begun
        The length of that list on the previous pages; 0 if it didn't begin there.

    Returns
    -------
    the length so far, and whether the list has ended; the length is -1 if the levels are damaged.
    """
    done = rep_at = rep_base = def_at = def_base = 0
    rep_left = def_left = rep_place = def_place = 0
    rep_packed = def_packed = False
    rep_value = def_value = 0
    while done < n_values:
        if rep_left == 0:
            rep_base, rep_left, rep_packed, rep_value, rep_at = open_run(
                repetition, rep_at, n_values - done, REPETITION_BITS
            )
            rep_place = 0
            if rep_at < 0:
                return -1, False
        if def_left == 0:
            def_base, def_left, def_packed, def_value, def_at = open_run(definition, def_at, n_values - done, width)
            def_place = 0
            if def_at < 0:
                return -1, False
        again = packed_level(repetition, rep_base, rep_place, REPETITION_BITS) if rep_packed else rep_value
        found = packed_level(definition, def_base, def_place, width) if def_packed else def_value
        if begun > 0 and again < REPETITION_BITS:
            return begun, True
        count = 1
        if begun > 0 and not rep_packed:
            count = min(rep_left, def_left) if not def_packed else 1
        if begun > 0 or found >= level - 1:
            begun += count
        done += count
        rep_left -= count
        def_left -= count
        rep_place += count
        def_place += count
    return begun, False

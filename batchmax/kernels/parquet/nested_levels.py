"""Checks the levels of lists of lists: finds where rows begin, and whether every inner list has K numbers.

See Also
--------
https://github.com/apache/parquet-format/blob/master/Encodings.md (RLE / bit-packing hybrid)
"""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled, interpretable
from batchmax.kernels.parquet.rle import open_run, packed_level

BEGINS, CONTINUES, NULL, EMPTY = 0, 1, 2, 3
"""Events: a token that begins a row, a token that continues a row, a null row, an empty row."""

INTERPRETED = 1 << 14
"""A list ends after a few levels of a small page, which Python reads in less time than it takes to load a kernel."""

REPETITION_BITS = 2
"""Repetition levels have two bits: 0 (a row begins), 1 (a token begins) or 2 (another number of the token)."""


@interpretable
def _level(data, run, place, width):
    """Return the level at index ``place`` of a run of :func:`open_run`."""
    return packed_level(data, run[0], place, width) if run[2] else run[3]


@compiled
def _all_equal(data, run, place, count, width, level):
    """Return whether ``count`` levels of a run, from index ``place`` on, are this level."""
    if not run[2]:
        return run[3] == level
    is_equal = True
    for i in range(place, place + count):
        is_equal &= packed_level(data, run[0], i, width) == level
    return is_equal


@kernel("in uint8[:], in uint8[:], int64, int64, int64, int64, int64, bool, out uint8[:]", parallel=False)
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
    rep_run = def_run = (0, 0, False, np.int64(0), 0)
    rep_place = def_place = 0
    while done < n_values:
        if rep_place == rep_run[1]:
            rep_run, rep_place = open_run(repetition, rep_run[4], n_values - done, REPETITION_BITS), 0
        if def_place == def_run[1]:
            def_run, def_place = open_run(definition, def_run[4], n_values - done, width), 0
        if rep_run[4] < 0 or def_run[4] < 0:
            return -1, 0, 0
        if place == 0:
            if n_events == events.shape[0]:
                return -1, 0, 0
            again = _level(repetition, rep_run, rep_place, REPETITION_BITS)
            found = _level(definition, def_run, def_place, width)
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
            count = min(n_classes - place, rep_run[1] - rep_place, def_run[1] - def_place)
            if not _all_equal(repetition, rep_run, rep_place, count, REPETITION_BITS, REPETITION_BITS):
                return -1, 0, 0
            if not _all_equal(definition, def_run, def_place, count, width, level):
                return -1, 0, 0
            n_numbers += count
            place = (place + count) % n_classes
        done += count
        rep_place += count
        def_place += count
    if rep_run[4] != repetition.shape[0] or def_run[4] != definition.shape[0]:
        return -1, 0, 0
    return place, n_events, n_numbers


@kernel("in uint8[:], in uint8[:], int64, int64, int64, int64, int64", parallel=False, interpreted=INTERPRETED)
def inner_length(repetition, definition, n_values, most, filled, width, length):
    """Return the length of the first innermost list that isn't empty, as far as this page shows it.

    Parameters
    ----------
    repetition, definition, n_values, width
        As for :func:`walk_levels`, for lists at any depth.
    most
        The maximum repetition level, which is also the number of bits of one: 1 for lists, 2 for lists of lists.
    filled
        The definition level from which on there is a number, or a null in place of one.
    length
        The length of that list on the previous pages; 0 if it didn't start there.

    Returns
    -------
    the length so far, and whether the list is complete; the length is -1 if the levels are damaged.
    """
    done = rep_place = def_place = 0
    rep_run = def_run = (0, 0, False, np.int64(0), 0)
    while done < n_values:
        if rep_place == rep_run[1]:
            rep_run, rep_place = open_run(repetition, rep_run[4], n_values - done, most), 0
        if def_place == def_run[1]:
            def_run, def_place = open_run(definition, def_run[4], n_values - done, width), 0
        if rep_run[4] < 0 or def_run[4] < 0:
            return -1, False
        if length > 0 and _level(repetition, rep_run, rep_place, most) < most:
            return length, True
        count = 1
        if length > 0 and not rep_run[2] and not def_run[2]:
            count = min(rep_run[1] - rep_place, def_run[1] - def_place)
        if length > 0 or _level(definition, def_run, def_place, width) >= filled:
            length += count
        done += count
        rep_place += count
        def_place += count
    return length, False

"""The most probable classes of a row, and the probability of all others.

Logits are compared instead of probabilities, and ties go to the lower index, as in :mod:`.ranking`. Rows without
probabilities (whose ``rests`` is NaN) get class -1 and NaN.
"""

import numpy as np
from numba import prange, types
from numba.extending import overload

from batchmax.kernels.compensated_sums import new_terms, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, maximum, plain
from batchmax.kernels.compiler.lanes import below, first_lane, with_lane
from batchmax.kernels.compiler.simd import (
    WIDTH,
    address,
    at_least,
    largest_number,
    load,
    store,
)
from batchmax.kernels.exp import shifted_exp
from batchmax.kernels.ranking import MOST_CLASSES_IN_TILE
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import FEW_CLASSES, LANES, fill_tile

GROUP = 64
"""Classes whose largest logit is known while the top classes of a row are searched for."""


@kernel("in real[:,:], float64, in float64[:], in float64[:], out int32[:,:], out float64[:,:]")
def top_k_rows(z, beta, maxima, rests, classes, probs):
    """Fill classes (n, k) int32 and probs (n, k) float64 with the k most probable classes, most probable first."""
    n, k = z.shape
    rows, top = block_rows(z), classes.shape[1]
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        first, end = block * rows, min(n, (block + 1) * rows)
        logits = np.zeros((end - first, top), z.dtype)
        if k <= (FEW_CLASSES if z.itemsize == 4 else MOST_CLASSES_IN_TILE):
            _top_across_rows(z, first, end, classes, logits)
        else:
            _top_along_rows(z, first, end, rests, classes, logits)
        ms, totals = np.empty((end - first, top), z.dtype), np.empty((end - first, top))
        for i in range(first, end):
            for place in range(top):
                ms[i - first, place] = maxima[i]
                totals[i - first, place] = 1.0 + rests[i]
                classes[i, place] = classes[i, place] if rests[i] == rests[i] else -1
        flat, flat_logits, flat_ms, flat_totals = probs[first:end].ravel(), logits.ravel(), ms.ravel(), totals.ravel()
        for t in range(flat.shape[0]):
            flat[t] = plain(shifted_exp(flat_logits[t], flat_ms[t], beta) / flat_totals[t])
        exchange_float_mode(before)


@compiled
def _top_across_rows(z, first, end, classes, logits):
    """Search each tile for the largest logits that are below the last found ones, or equal and at a higher index."""
    k, top = z.shape[1], classes.shape[1]
    tile = np.zeros((k, LANES), z.dtype)
    best, at = np.empty((top + 1, LANES), z.dtype), np.empty((top + 1, LANES), z.dtype)
    for r in range(LANES):
        best[0, r] = np.inf
        at[0, r] = -1
    for tile_first in range(first, end, LANES):
        count = min(LANES, end - tile_first)
        fill_tile(z, tile_first, count, tile)
        for place in range(1, top + 1):
            for r in range(LANES):
                best[place, r] = -np.inf
                at[place, r] = k
            for i in range(k):
                j = k - 1 - i
                index = tile.dtype.type(j)
                for r in range(LANES):
                    x, last, last_at = tile[j, r], best[place - 1, r], at[place - 1, r]
                    is_left = (x < last) | ((x == last) & (index > last_at))
                    is_best = is_left & (x >= best[place, r])
                    best[place, r] = x if is_best else best[place, r]
                    at[place, r] = index if is_best else at[place, r]
        for r in range(count):
            for place in range(top):
                classes[tile_first + r, place] = np.int32(at[place + 1, r])
                logits[tile_first + r - first, place] = best[place + 1, r]


def _top_along_rows(z, first, end, rests, classes, logits):
    """Fill classes for rows from first to before end, and logits with theirs, from row 0 on; skip bad rows."""


@overload(_top_along_rows, inline="never")
def _overload_top_along_rows(z, first, end, rests, classes, logits):
    if z.dtype == types.float32:
        return lambda z, first, end, rests, classes, logits: _top_of_singles(z, first, end, rests, classes, logits)
    return lambda z, first, end, rests, classes, logits: _top_of_doubles(z, first, end, rests, classes, logits)


@compiled
def _top_of_singles(z, first, end, rests, classes, logits):
    # For each of 16 rows, a vector has the largest logits that are left of up to 16 groups of classes. What is found
    # decides what is read next, so the CPU waits unless it has several rows.
    k = z.shape[1]
    size = ((k + WIDTH - 1) // WIDTH + WIDTH - 1) // WIDTH * WIDTH
    groups = (k + size - 1) // size
    nothing = np.full((1, WIDTH), -np.inf, z.dtype)
    tops = np.empty((WIDTH, WIDTH), z.dtype)
    # The last logit that was taken from each group.
    taken, taken_at = np.empty((WIDTH, groups), z.dtype), np.empty((WIDTH, groups), np.int64)
    for tile in range(first, end, WIDTH):
        rows = min(WIDTH, end - tile)
        for r in range(rows):
            row, maxima = address(z, tile + r), load(address(nothing, 0), 0)
            for group in range(groups - 1):
                maxima = with_lane(maxima, group, _largest(row, group * size, size))
                taken[r, group] = np.inf
            taken[r, groups - 1] = np.inf
            last = _largest_below(row, k, (groups - 1) * size, size, np.float32(np.inf), k)
            store(address(tops, r), 0, with_lane(maxima, groups - 1, last))
        for place in range(classes.shape[1]):
            for r in range(rows):
                i, row, maxima = tile + r, address(z, tile + r), load(address(tops, r), 0)
                m = largest_number(maxima)
                if m > -np.inf:
                    group = first_lane(maxima, m)
                    start = group * size
                    j = _index_below(row, k, start, size, m, taken_at[r, group] if taken[r, group] == m else -1)
                    left = _largest_below(row, k, start, size, m, j)
                    store(address(tops, r), 0, with_lane(maxima, group, left))
                    taken[r, group], taken_at[r, group] = m, j
                else:
                    j = _next_masked(z, i, classes, place) if rests[i] == rests[i] else -1
                classes[i, place] = j
                logits[i - first, place] = m


@compiled
def _next_masked(z, i, classes, place):
    """Return the first class with a logit of -inf that is not in the row's classes before ``place``."""
    j = 0
    if place > 0 and z[i, classes[i, place - 1]] == -np.inf:
        j = classes[i, place - 1] + 1
    while z[i, j] > -np.inf:
        j += 1
    return j


@compiled
def _largest(row, start, size):
    m = load(row, start)
    for at in range(start + WIDTH, start + size, WIDTH):
        m = at_least(load(row, at), m)
    return largest_number(m)


# The vectors at the end of a row may begin before their group, and overlap.


@compiled
def _largest_below(row, k, start, size, value, j):
    """Return the largest logit of a group that is below a value, or equal and at an index after j; -inf if none is."""
    at = min(start, k - WIDTH)
    m = below(load(row, at), value, j - at, start - at)
    for step in range(WIDTH, size, WIDTH):
        at = min(start + step, k - WIDTH)
        m = at_least(below(load(row, at), value, j - at, start - at), m)
    return largest_number(m)


@compiled
def _index_below(row, k, start, size, value, j):
    """Return the first index after j of a group that has a value."""
    index = k
    for step in range(0, size, WIDTH):
        at = min(start + step, k - WIDTH)
        lane = first_lane(below(load(row, at), value, j - at, start - at), value)
        index = min(index, at + lane if lane < WIDTH else k)
    return index


@compiled
def _top_of_doubles(z, first, end, rests, classes, logits):
    k = z.shape[1]
    tops = np.empty((k + GROUP - 1) // GROUP, z.dtype)
    row = np.empty(len(tops) * GROUP, z.dtype)
    for i in range(first, end):
        if rests[i] == rests[i]:
            _fill_largest(z, i, row, tops, classes)
            for place in range(classes.shape[1]):
                logits[i - first, place] = z[i, classes[i, place]]


@kernel("in real[:,:], float64, in float64[:], in float64[:], in int32[:,:], out float64[:]")
def tail_rows(z, beta, maxima, rests, classes, tail):
    """Fill tail (n,) float64 with the probability of all classes but the top k, as a sum, not as 1 minus the others.

    Parameters
    ----------
    z, beta, maxima, rests
        As for :func:`top_k_rows`.
    classes
        The result of :func:`top_k_rows`.
    """
    n = z.shape[0]
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        terms = new_terms(z.shape[1])
        for i in range(block * rows, min(n, (block + 1) * rows)):
            if rests[i] != rests[i]:
                tail[i] = np.nan
                continue
            m = z.dtype.type(maxima[i])
            # Ties go to the lower index, so comparing with the last of the top classes separates them from the others.
            last = classes[i, classes.shape[1] - 1]
            least = z[i, last]
            for j in range(z.shape[1]):
                is_rest = (z[i, j] < least) | ((z[i, j] == least) & (j > last))
                terms[0, j] = shifted_exp(z[i, j], m, beta) if is_rest else 0.0
            tail[i] = sum_terms(terms) / (1.0 + rests[i])
        exchange_float_mode(before)


@compiled
def _fill_largest(z, i, row, tops, classes):
    """Fill row i of classes with its top classes. ``row`` and ``tops`` are memory, see :func:`top_k_rows`."""
    # The largest of each group of classes is known, so that the next class is found without reading the whole row.
    k = z.shape[1]
    for j in range(k):
        row[j] = z[i, j]
    for j in range(k, row.shape[0]):
        row[j] = -np.inf
    for group in range(tops.shape[0]):
        tops[group] = _largest_of_group(row, group)
    masked = 0
    for place in range(classes.shape[1]):
        m = tops[0]
        for group in range(tops.shape[0]):
            m = maximum(m, tops[group])
        if m == -np.inf:  # all other logits are -inf, in a row that is no longer complete
            while z[i, masked] > -np.inf:
                masked += 1
            classes[i, place] = masked
            masked += 1
        else:
            group = 0
            while tops[group] != m:
                group += 1
            j = group * GROUP
            while row[j] != m:
                j += 1
            classes[i, place] = j
            row[j] = -np.inf
            tops[group] = _largest_of_group(row, group)


@compiled
def _largest_of_group(row, group):
    m = row[group * GROUP]
    for j in range(GROUP):
        m = maximum(m, row[group * GROUP + j])
    return m

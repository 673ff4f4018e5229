"""Results that depend on the order of a row's logits: predicted class, margin, rank of the label, top k.

Logits are compared instead of probabilities, because different logits may round to the same probability. Ties go to the
lower index everywhere. Rows without probabilities (whose ``rests`` is NaN) get class -1, rank 0 and NaN.
"""

import numpy as np
from numba import prange, types
from numba.extending import overload

from batchmax.kernels.compensated_sums import new_terms, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, maximum, plain
from batchmax.kernels.compiler.simd import WIDTH, address, first_lane, load
from batchmax.kernels.exp import expm1, shifted_exp, shifted_logit
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import LANES, fill_tile

GROUP = 64
"""Classes whose largest logit is known while the top classes of a row are searched for."""

MOST_CLASSES_IN_TILE = 128
"""Rows with up to this many classes are ranked in tiles."""


@kernel("in real[:,:], in int64[:], float64, in float64[:], in float64[:], out int32[:], out float64[:], out int32[:]")
def order_rows(z, labels, beta, maxima, rests, pred, margin, rank):
    """Fill pred, margin and rank.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    labels : (n,) int64, or (0,) for none
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        Results of the softmax kernels.
    pred : (n,) int32
        The index of the largest logit.
    margin : (n,) float64, or (0,) if not needed
        The difference of the two largest probabilities; with one class, its probability.
    rank : (n,) int32, or (0,) if labels is
        The label's rank, 1 for the largest logit; 0 if the label is not a class.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        end = min(n, (block + 1) * rows)
        if k <= MOST_CLASSES_IN_TILE:
            tile, rows_of_tile = np.zeros((k, LANES), z.dtype), np.empty((5, LANES), z.dtype)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                _order_tile(tile, first, count, labels, beta, maxima, rests, rows_of_tile, pred, margin, rank)
        else:
            for i in range(block * rows, end):
                _order_row(z, i, labels, beta, maxima, rests, pred, margin, rank)
        exchange_float_mode(before)


@compiled
def _order_row(z, i, labels, beta, maxima, rests, pred, margin, rank):
    k = z.shape[1]
    if rests[i] != rests[i]:
        pred[i] = -1
        if margin.shape[0] != 0:
            margin[i] = np.nan
        if rank.shape[0] != 0:
            rank[i] = 0
        return
    m = z.dtype.type(maxima[i])
    best = _first_index(z, i, m)
    pred[i] = best
    if margin.shape[0] != 0:
        margin[i] = _margin(_runner_up(z, i, best), m, beta, rests[i])
    if rank.shape[0] != 0:
        y = labels[i]
        rank[i] = _rank(z, i, y) if 0 <= y < k else 0


# In a tile, indices and counts are numbers of the logits' type: a loop over numbers of one size fills the registers.


@compiled
def _order_tile(tile, first, count, labels, beta, maxima, rests, rows, pred, margin, rank):
    ms, best = rows[0], rows[1]
    predict_tile(tile, first, count, maxima, ms, best)
    for r in range(count):
        i = first + r
        pred[i] = np.int32(best[r]) if rests[i] == rests[i] else np.int32(-1)
    if margin.shape[0] != 0:
        _margins_of_tile(tile, first, count, beta, rests, ms, best, rows[2], margin)
    if rank.shape[0] != 0:
        rank_tile(tile, first, count, labels, rests, rows[2], rows[3], rows[4], rank)


@compiled
def _margins_of_tile(tile, first, count, beta, rests, ms, best, second, margin):
    nothing = tile.dtype.type(-np.inf)
    for r in range(LANES):
        second[r] = nothing
    for j in range(tile.shape[0]):
        index = tile.dtype.type(j)
        for r in range(LANES):
            x = nothing if best[r] == index else tile[j, r]
            second[r] = x if x > second[r] else second[r]
    for r in range(count):
        i = first + r
        margin[i] = _margin(second[r], ms[r], beta, rests[i])


@compiled
def predict_tile(tile, first, count, maxima, ms, best):
    """Fill ms with the maxima of a tile's rows, and best with the index of the first class that has it, else K."""
    k = tile.shape[0]
    for r in range(count):
        ms[r] = maxima[first + r]
    for r in range(LANES):
        best[r] = k
    for i in range(k):
        j = k - 1 - i
        index = tile.dtype.type(j)
        for r in range(LANES):
            best[r] = index if tile[j, r] == ms[r] else best[r]


@compiled
def rank_tile(tile, first, count, labels, rests, places, chosen, above, rank):
    """Fill rank for the rows of a tile; places, chosen and above are memory for a number per row."""
    k = tile.shape[0]
    for r in range(count):
        y = labels[first + r]
        is_class = 0 <= y < k
        places[r] = y if is_class else 0
        chosen[r] = tile[y if is_class else 0, r]
    nothing, one = tile.dtype.type(0), tile.dtype.type(1)
    for r in range(LANES):
        above[r] = one
    for j in range(k):
        index = tile.dtype.type(j)
        for r in range(LANES):
            is_above = (tile[j, r] > chosen[r]) | ((tile[j, r] == chosen[r]) & (index < places[r]))
            above[r] += one if is_above else nothing
    for r in range(count):
        y = labels[first + r]
        has_rank = (y >= 0) & (y < k) & (rests[first + r] == rests[first + r])
        rank[first + r] = np.int32(above[r]) if has_rank else np.int32(0)


@compiled
def _margin(second, m, beta, rest):
    """Return the difference of the two largest probabilities of a row; NaN if rest is."""
    high, low = shifted_logit(second, m, beta)
    # 0.0 - x instead of -x: a tie has x = 0.0, and its negative is -0.0.
    return plain((0.0 - expm1(high + low)) / (1.0 + rest))


@kernel("in real[:,:], float64, in float64[:], in float64[:], out int32[:,:], out float64[:,:]")
def top_k_rows(z, beta, maxima, rests, classes, probs):
    """Fill classes (n, k) int32 and probs (n, k) float64 with the k most probable classes, most probable first."""
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        end = min(n, (block + 1) * rows)
        if k <= MOST_CLASSES_IN_TILE:
            tile, rows_of_tile = np.zeros((k, LANES), z.dtype), np.empty((2, LANES), z.dtype)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                _top_of_tile(tile, first, count, beta, maxima, rests, rows_of_tile[0], rows_of_tile[1], classes, probs)
        else:
            tops = np.empty((k + GROUP - 1) // GROUP, z.dtype)
            row = np.empty(len(tops) * GROUP, z.dtype)
            for i in range(block * rows, end):
                if rests[i] == rests[i]:
                    _largest(z, i, row, tops, classes)
                    for place in range(classes.shape[1]):
                        e = shifted_exp(z[i, classes[i, place]], z.dtype.type(maxima[i]), beta)
                        probs[i, place] = e / (1.0 + rests[i])
        for i in range(block * rows, end):
            if rests[i] != rests[i]:
                for place in range(classes.shape[1]):
                    classes[i, place] = -1
                    probs[i, place] = np.nan
        exchange_float_mode(before)


@compiled
def _top_of_tile(tile, first, count, beta, maxima, rests, best, at, classes, probs):
    """Take the largest logit of each row, as often as wanted; a logit that is taken becomes NaN."""
    k = tile.shape[0]
    nothing, taken = tile.dtype.type(-np.inf), tile.dtype.type(np.nan)
    for place in range(classes.shape[1]):
        for r in range(LANES):
            best[r] = nothing
            at[r] = k
        for i in range(k):
            j = k - 1 - i
            index = tile.dtype.type(j)
            for r in range(LANES):
                is_best = tile[j, r] >= best[r]
                best[r] = tile[j, r] if is_best else best[r]
                at[r] = index if is_best else at[r]
        for j in range(k):
            index = tile.dtype.type(j)
            for r in range(LANES):
                tile[j, r] = taken if at[r] == index else tile[j, r]
        for r in range(count):
            classes[first + r, place] = np.int32(at[r])
        for r in range(count):
            i = first + r
            e = shifted_exp(best[r], tile.dtype.type(maxima[i]), beta)
            probs[i, place] = plain(e / (1.0 + rests[i]))


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
def first_index(row, k, value):
    """Return the first index of a value in a row of at least 16 float32, which contains it."""
    start = 0
    lane = first_lane(load(row, start), value)
    while lane == WIDTH:
        start = min(start + WIDTH, k - WIDTH)
        lane = first_lane(load(row, start), value)
    return start + lane


def _first_index(z, i, value):
    """Return the first class of row i with this logit."""


@overload(_first_index, inline="never")
def _overload_first_index(z, i, value):
    if z.dtype == types.float32:
        return lambda z, i, value: first_index(address(z, i), z.shape[1], value)
    return lambda z, i, value: _first_index_double(z, i, value)


@compiled
def _first_index_double(z, i, value):
    k = z.shape[1]
    best = k
    for j in range(k):
        best = min(best, j if z[i, j] == value else k)
    return best


@compiled
def _runner_up(z, i, best):
    second = z.dtype.type(-np.inf)
    for j in range(z.shape[1]):
        second = maximum(second, z.dtype.type(-np.inf) if j == best else z[i, j])
    return second


@compiled
def _rank(z, i, y):
    above = 1
    for j in range(z.shape[1]):
        above += (z[i, j] > z[i, y]) | ((z[i, j] == z[i, y]) & (j < y))
    return above


@compiled
def _largest(z, i, row, tops, classes):
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

"""Results that depend on the order of a row's logits: predicted class, margin, rank of the label.

Logits are compared instead of probabilities, because different logits may round to the same probability. Ties go to the
lower index everywhere. Rows without probabilities (whose ``rests`` is NaN) get class -1, rank 0 and NaN.
"""

import numpy as np
from numba import prange, types
from numba.extending import overload

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, maximum, plain
from batchmax.kernels.compiler.lanes import first_lane
from batchmax.kernels.compiler.simd import (
    WIDTH,
    address,
    lanes_from,
    load,
    total,
    where_less,
    widened,
)
from batchmax.kernels.exp import expm1, shifted_logit
from batchmax.kernels.softmax.exp_float32 import ONE
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import LANES, fill_tile

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
        rank[i] = label_rank(z, i, y) if 0 <= y < k else 0


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


def label_rank(z, i, y):
    """Return 1 + the number of logits that are larger than the label's, or equal and at a lower index."""


@overload(label_rank, inline="never")
def _overload_label_rank(z, i, y):
    if z.dtype == types.float32:
        return lambda z, i, y: _rank_of_single(address(z, i), z.shape[1], y, z[i, y])
    return lambda z, i, y: _rank_of_double(z, i, y)


@compiled
def _rank_of_double(z, i, y):
    above = 1
    for j in range(z.shape[1]):
        above += (z[i, j] > z[i, y]) | ((z[i, j] == z[i, y]) & (j < y))
    return above


@compiled
def _rank_of_single(row, k, y, label):
    # Numbers of a lane are below 2**24 and therefore exact.
    here = y // WIDTH * WIDTH
    zeros = load(row, 0)
    zeros = where_less(zeros, zeros, zeros)
    counts = zeros
    for j in range(0, here, WIDTH):
        counts = counts + where_less(load(row, j), label, ONE)
    above = 1 + here - int(total(widened(counts)))
    counts = zeros
    for j in range(here + WIDTH, k - WIDTH, WIDTH):
        counts = counts + where_less(label, load(row, j), ONE)
    if here + WIDTH < k:
        shared = (WIDTH - k) % WIDTH
        counts = counts + lanes_from(shared, where_less(label, load(row, k - WIDTH), ONE))
    above += int(total(widened(counts)))
    for j in range(here, min(here + WIDTH, k)):
        above += (row[j] > label) | ((row[j] == label) & (j < y))
    return above

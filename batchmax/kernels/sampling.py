"""Random draws of one class per row from its probabilities, with a counter-based random number generator.

A draw inverts the cumulative distribution: it is the first class whose cumulative sum of exponentials is above u times
the sum of all. u = (b >> 11) / 2**53, and the 64 bits b are output r of SplitMix64 (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators") seeded with output 0 of SplitMix64 seeded with the seed. r is the row's
number; for token t of a sequence, r = 2**32 * row + t. All numbers count from 0. A draw therefore depends only on the
seed, the row's number and the row's logits. :func:`split_mix` computes any output directly. Its state isn't 0 for small
seeds and rows, so no stream begins with an extreme number.

The classes are added up in an order that lets vectors of 16 classes be added up; see :func:`_cumulative_order`.
Rejected: the Gumbel-max trick, which takes a random number and a logarithm for each class.
"""

import numpy as np
from numba import prange, types
from numba.extending import overload

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import WIDTH, address, lanes_from, load, store, widened
from batchmax.kernels.exp import shifted_exp
from batchmax.kernels.exp_sums import fill_tile_exps
from batchmax.kernels.softmax.exp_float32 import is_ordinary, scale_parts, scaled_exp
from batchmax.kernels.softmax.softmax_float32 import prepare
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import FEW_CLASSES, LANES, fill_tile

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
UNIT = 2.0**-53

TILE_BYTES = 1 << 17
"""Up to 16 rows of many classes are processed together if their sums fit into this many bytes."""


@kernel("in real[:,:], float64, in float64[:], in float64[:], uint64, uint64, out int32[:]")
def sample_rows(z, beta, maxima, rests, seed, first_row, classes):
    """Fill classes with random draws.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        Results of the softmax kernels.
    seed, first_row : uint64
        The random seed, and the number of z's first row in the input.
    classes : (n,) int32
        The drawn class; -1 if the row has no probabilities.
    """
    n, k = z.shape
    rows = block_rows(z)
    stream = split_mix(seed, np.uint64(0))
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        first, end = block * rows, min(n, (block + 1) * rows)
        limits = np.empty(end - first)
        for r in range(end - first):
            bits = split_mix(stream, first_row + np.uint64(first + r))
            limits[r] = np.float64(np.int64(bits >> np.uint64(11))) * UNIT
        if k <= FEW_CLASSES:
            _draw_across_rows(z, first, end, maxima, beta, limits, classes)
        else:
            _draw_along_rows(z, first, end, maxima, beta, limits, classes)
        for i in range(first, end):
            classes[i] = classes[i] if rests[i] == rests[i] else -1
        exchange_float_mode(before)


@compiled
def _draw_across_rows(z, first, end, maxima, beta, limits, classes):
    k = z.shape[1]
    tile, ms = np.zeros((k, LANES), z.dtype), np.zeros((1, LANES), z.dtype)
    sums, units = np.empty((k, LANES)), np.empty(LANES)
    targets, counts = np.zeros(LANES), np.empty(LANES, np.int64)
    order = _cumulative_order(k)
    for tile_first in range(first, end, LANES):
        count = min(LANES, end - tile_first)
        fill_tile(z, tile_first, count, tile)
        for r in range(count):
            ms[0, r] = maxima[tile_first + r]
        fill_tile_exps(tile, ms, beta, sums, units)
        for place in range(1, k):
            here, before = order[place], order[place - 1]
            for r in range(LANES):
                sums[here, r] += sums[before, r]
        last = order[k - 1]
        for r in range(count):
            targets[r] = limits[tile_first - first + r] * sums[last, r]
        for r in range(LANES):
            counts[r] = 0
        for j in range(k):
            for r in range(LANES):
                counts[r] += sums[j, r] <= targets[r]
        for r in range(count):
            classes[tile_first + r] = order[min(counts[r], k - 1)]


@compiled
def _draw_along_rows(z, first, end, maxima, beta, limits, classes):
    k = z.shape[1]
    whole = (k - 1) // WIDTH * WIDTH
    lanes, target, before, total = np.zeros(WIDTH, np.int64), np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH)
    rows_per_tile = min(WIDTH, max(1, TILE_BYTES // (k * 8)))
    sums, totals = np.zeros((rows_per_tile, whole + WIDTH)), np.zeros((WIDTH, WIDTH))
    for tile in range(first, end, rows_per_tile):
        rows = min(rows_per_tile, end - tile)
        _fill_sums(z, tile, rows, maxima, beta, sums)
        for r in range(rows):
            target[r] = limits[tile - first + r]
            for lane in range(WIDTH):
                totals[lane, r] = sums[r, whole + lane]
        # Find the lanes of 16 rows at a time, and then the vectors. Without branches, rows are processed at once.
        total[:] = 0.0
        for lane in range(WIDTH):
            for r in range(WIDTH):
                total[r] += totals[lane, r]
        for r in range(WIDTH):
            target[r] *= total[r]
            lanes[r], before[r], total[r] = 0, 0.0, 0.0
        for lane in range(WIDTH):
            for r in range(WIDTH):
                total[r] += totals[lane, r]
                is_before = total[r] <= target[r]
                lanes[r] += is_before
                before[r] = total[r] if is_before else before[r]
        for r in range(rows):
            lane = min(lanes[r], WIDTH - 1)
            # The lane's sum may be a rounding error below the rest, which must not lead past its last class.
            rest, of_lane = target[r] - before[r], totals[lane, r]
            vectors = 0
            for start in range(0, whole, WIDTH):
                one = sums[r, start + lane]
                vectors += (one <= rest) & (one < of_lane)
            start = vectors * WIDTH
            classes[tile + r] = lane + (start if start < whole else k - WIDTH)


@compiled
def _cumulative_order(k):
    """Return the classes, (k,) int32, in the order in which they are added up.

    A row is split into vectors of 16 classes, from its start; the last is aligned with the end of the row. All classes
    of a lane are added up before those of the next lane.
    """
    order = np.empty(k, np.int32)
    whole = (k - 1) // WIDTH * WIDTH
    place = 0
    for lane in range(WIDTH):
        for j in range(lane, whole, WIDTH):
            order[place] = j
            place += 1
        if k - WIDTH + lane >= whole:
            order[place] = k - WIDTH + lane
            place += 1
    return order


def _fill_sums(z, first, rows, maxima, beta, sums):
    """Fill each row of sums, (16, K rounded up to 16), with the cumulative sums of exponentials in each of 16 lanes."""


@overload(_fill_sums, inline="never")
def _overload_fill_sums(z, first, rows, maxima, beta, sums):
    if z.dtype == types.float32:
        return lambda z, first, rows, maxima, beta, sums: _sum_singles(z, first, rows, maxima, beta, sums)
    return lambda z, first, rows, maxima, beta, sums: _sum_doubles(z, first, rows, maxima, beta, sums)


@compiled
def _sum_singles(z, first, rows, maxima, beta, sums):
    c, high, low = scale_parts(beta)
    known = np.zeros((4, WIDTH), z.dtype)
    for r in range(rows):
        known[0, r] = maxima[first + r]
    prepare(known, high, low)
    for r in range(rows):
        if is_ordinary(known[0, r], c):
            _sum_row(address(z, first + r), z.shape[1], high, low, known[1, r], known[2, r], address(sums, r))
        else:
            _sum_row_double(z, first + r, known[0, r], beta, sums, r)


@compiled
def _sum_row(row, k, high, low, lowest, rounder, out):
    lanes = widened(scaled_exp(load(row, 0), high, low, lowest, rounder))
    store(out, 0, lanes)
    for j in range(WIDTH, k - WIDTH, WIDTH):
        lanes = lanes + widened(scaled_exp(load(row, j), high, low, lowest, rounder))
        store(out, j, lanes)
    e = lanes_from((WIDTH - k) % WIDTH, scaled_exp(load(row, k - WIDTH), high, low, lowest, rounder))
    store(out, (k - 1) // WIDTH * WIDTH, lanes + widened(e))


@compiled
def _sum_doubles(z, first, rows, maxima, beta, sums):
    for r in range(rows):
        _sum_row_double(z, first + r, z.dtype.type(maxima[first + r]), beta, sums, r)


@compiled
def _sum_row_double(z, i, m, beta, sums, r):
    k, whole = z.shape[1], sums.shape[1] - WIDTH
    for j in range(whole):
        sums[r, j] = shifted_exp(z[i, j], m, beta)
    for lane in range(WIDTH):
        sums[r, whole + lane] = 0.0
    for j in range(whole, k):
        sums[r, j - k + WIDTH + whole] = shifted_exp(z[i, j], m, beta)
    for start in range(WIDTH, whole + WIDTH, WIDTH):
        for lane in range(WIDTH):
            sums[r, start + lane] += sums[r, start - WIDTH + lane]


@compiled
def split_mix(seed, n):
    """Return output n, from 0, of SplitMix64 with a seed; both are uint64."""
    x = seed + (n + np.uint64(1)) * GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""The softmax kernel for float32 and many classes, 16 at a time.

With c = beta / ln 2, and c * z split into the nearest integer n and the remainder r, |r| <= 1/2,

    exp(beta * (z - m)) = 2**(n - n_m) * 2**r / 2**r_m        (m is the largest logit, n_m and r_m are its parts)

so the logits need not be shifted: the maximum only keeps exponents in range, and 2**r_m cancels when a probability is
divided by the sum. r = c * z - n is computed by two fused multiply-adds, with c in two float32; its only errors are the
two roundings, however far z is from m. This is the range reduction of the two-pass softmax (Dukhan and Ablavatski 2020,
arXiv 2001.04438). Rejected: the difference of two float32, which needs its rounding error carried along, and float64,
which has half the lanes and as many operations. The sum is float64.

Until they are divided by their sum, exponentials are scaled by 2**64, so that neither they nor their factors are
subnormal. n is exact if the absolute value of the largest logit is below 2**16 / c. Other rows, and those with NaN or
infinity, are computed in float64.
"""

import numpy as np
from numba import prange

from batchmax.kernels.dispatch import kernel
from batchmax.kernels.exp import LOG2_E, exp2_single
from batchmax.kernels.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.intrinsics import compiled, fma, plain
from batchmax.kernels.simd import (
    WIDTH,
    add_exponents,
    address,
    at_least,
    fma_lanes,
    larger,
    largest,
    load,
    load_some,
    prefetch,
    store,
    store_some,
    total,
    where_less,
    widened,
)
from batchmax.kernels.softmax import LANES, block_count, block_losses, block_rows, row_exp, row_log, row_scale, why_nan

TILE_BYTES = 1 << 14
"""Up to 16 rows are processed together if they fit into this many bytes."""

FARTHEST = 2.0**16
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**100
"""Between these limits, c and its second part are float32 with full precision."""

SHIFT = np.float32(64)
SCALE = 2.0**64
UNSHIFT = np.float32(2.0**-64)
LOWEST_EXP2 = np.float32(-250.0)
"""2**this * 2**SHIFT rounds to 0. Exponentials are kept down to 2**-190; a million smaller ones don't change a loss."""

# Adding 1.5 * 2**23 rounds to an integer and leaves that integer in the low bits of the sum.
SINGLE_ROUNDER = np.float32(1.5 * 2.0**23)
SMALL_REST = 2.0**-10

NO_LOGIT = np.float32(-np.inf)
# The Chebyshev fit of (2**r - 1) / r, degree 5, so that 2**0 is exactly 1; the relative error of 2**r is 2**-27.5.
Q0 = np.float32(0.6931471882073744)
Q1 = np.float32(0.24022650762136585)
Q2 = np.float32(0.055503562479538596)
Q3 = np.float32(0.009618081807260493)
Q4 = np.float32(0.0013391323592631223)
Q5 = np.float32(0.00015453561402005238)
ONE = np.float32(1.0)


@kernel(
    "in float32[:,:], in int64[:], float64, int64, out float32[:,:], out float32[:,:], out float64[:], "
    "out float64[:], out float64[:], out bool[:], out uint8[:]"
)
def softmax_single(z, labels, beta, ignore_index, probs, log_probs, maxima, rests, nll, hits, status):
    """Do the same as :func:`batchmax.kernels.softmax.softmax_wide`, for float32 and any number of classes."""
    n, k = z.shape
    c = beta * LOG2_E
    high = np.float32(c)
    low = np.float32(c - high)
    wanted = probs.shape[0] != 0
    rows_per_tile = min(WIDTH, max(1, TILE_BYTES // (k * z.itemsize)))
    rows_per_block = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        first = block * rows_per_block
        after = min(n, first + rows_per_block)
        lanes = np.empty((2, LANES), np.float64)
        spare = np.empty((0 if wanted else 1, k), z.dtype)
        known = np.zeros((4, WIDTH), z.dtype)
        added = np.zeros(WIDTH)
        ends = np.zeros((WIDTH, WIDTH), z.dtype)
        # The distance to prefetch, in numbers: while one tile is computed, the next is fetched. Without prefetching,
        # the CPU waits for memory.
        ahead = rows_per_tile * k
        for tile in range(first, after, rows_per_tile):
            rows = min(rows_per_tile, after - tile)
            for r in range(rows):
                known[0, r] = _maximum(address(z, tile + r), k)
            prepare(known, high, low)
            for r in range(rows):
                i = tile + r
                m, lowest, rounder, top = known[0, r], known[1, r], known[2, r], known[3, r]
                maxima[i] = plain(np.float64(m))
                if is_ordinary(m, c):
                    out = address(probs, i) if wanted else address(spare, 0)
                    row = address(z, i)
                    end = address(ends, r)
                    added[r], rests[i] = exponentials(row, k, ahead, m, high, low, lowest, rounder, top, out, end)
                elif wanted:
                    rests[i] = row_exp(z, i, m, beta, probs, i, lanes)
                    row_scale(probs, i, rests[i])
                else:
                    rests[i] = row_exp(z, i, m, beta, spare, 0, lanes)
            if wanted:
                for r in range(rows):
                    if is_ordinary(known[0, r], c):
                        _scale(address(probs, tile + r), k, added[r], address(ends, r))
        _divide_by_maxima(rests[first:after], maxima[first:after], c, high)
        for i in range(first, after):
            if rests[i] != rests[i]:
                status[i] = min(status[i], why_nan(z, i))
            if log_probs.shape[0] != 0:
                row_log(z, i, np.float32(maxima[i]), beta, rests[i], log_probs)
        if labels.shape[0] != 0:
            block_losses(z, labels, beta, ignore_index, first, after, maxima, rests, nll, hits, status)
        exchange_float_mode(before)


@compiled
def _maximum(row, k):
    # The last vector of a row holds 1 to 16 logits.
    last = (k - 1) // WIDTH * WIDTH
    m = load_some(row, last, k - last, NO_LOGIT)
    j = 0
    while j + 4 * WIDTH <= last:
        two = larger(load(row, j), load(row, j + WIDTH))
        m = larger(m, larger(two, larger(load(row, j + 2 * WIDTH), load(row, j + 3 * WIDTH))))
        j += 4 * WIDTH
    for at in range(j, last, WIDTH):
        m = larger(m, load(row, at))
    return largest(m)


@compiled
def prepare(known, high, low):
    """Given 16 maxima in row 0 of known, fill rows 1 to 3: logits below which exp is 0, rounders, exp of the maxima."""
    m = load(address(known, 0), 0)
    lowest = m + LOWEST_EXP2 / high
    rounder = (fma_lanes(m, high, SINGLE_ROUNDER) - SINGLE_ROUNDER) * -ONE + (SINGLE_ROUNDER + SHIFT)
    store(address(known, 1), 0, lowest)
    store(address(known, 2), 0, rounder)
    store(address(known, 3), 0, _scaled_exp(m, high, low, lowest, rounder))


@compiled
def exponentials(row, k, ahead, m, high, low, lowest, rounder, top, out, end):
    """Fill out with a row's exponentials; return their sum, and the sum without one maximum.

    The last 1 to 16 exponentials are stored in ``end``, which has room for a whole vector.
    """
    last = (k - 1) // WIDTH * WIDTH
    z = load_some(row, last, k - last, NO_LOGIT)
    e = _scaled_exp(z, high, low, lowest, rounder)
    store(end, 0, e)
    sums = widened(e)
    for j in range(0, last, WIDTH):
        prefetch(row, j + ahead)
        part = _scaled_exp(load(row, j), high, low, lowest, rounder)
        store(out, j, part)
        sums = sums + widened(part)
    added = total(sums)
    rest = added - top
    if rest < SMALL_REST * top:  # no ties, and the maximum would absorb the others
        sums = widened(where_less(z, m, e))
        for j in range(0, last, WIDTH):
            sums = sums + widened(where_less(load(row, j), m, load(out, j)))
        rest = total(sums)
    return added, rest


@compiled
def _scale(out, k, added, end):
    """Divide a row's exponentials by their sum. All but the last vector are in ``out``, the last is in ``end``."""
    # 1 / sum in two float32, so that the product is rounded once. It is scaled by 2**64, so that its smaller part isn't
    # subnormal if the probability isn't.
    inverse = SCALE / added
    factor = np.float32(inverse)
    correction = np.float32(fma(-np.float64(factor), added, SCALE) * (inverse / SCALE))
    last = (k - 1) // WIDTH * WIDTH
    e = load(end, 0)
    store_some(out, last, k - last, fma_lanes(e, factor, e * correction) * UNSHIFT)
    # Backwards: the end was written last and is still in the cache.
    for j in range(last - WIDTH, -1, -WIDTH):
        e = load(out, j)
        store(out, j, fma_lanes(e, factor, e * correction) * UNSHIFT)


@compiled
def _divide_by_maxima(rests, maxima, c, high):
    """Divide rests by the exponentials of their maxima, in float64; those computed in float64 are right already."""
    for r in range(rests.shape[0]):
        n = fma(np.float32(maxima[r]), high, SINGLE_ROUNDER) - SINGLE_ROUNDER
        unit = exp2_single(c * maxima[r] - n + SHIFT)
        rests[r] /= unit if is_ordinary(maxima[r], c) else 1.0


@compiled
def is_ordinary(m, c):
    """Return whether a row with this maximum can be computed in float32."""
    return abs(m) * c < FARTHEST and SMALLEST_SCALE < c < LARGEST_SCALE


@compiled
def _scaled_exp(z, high, low, lowest, rounder):
    """Return exp(beta * (z - m)) * 2**r_m * 2**SHIFT for 16 logits z; 0 below 2**-190."""
    z = at_least(z, lowest)
    rounded = fma_lanes(z, high, rounder)
    negative_n = (rounded - rounder) * -ONE
    r = fma_lanes(z, low, fma_lanes(z, high, negative_n))
    q = fma_lanes(r, Q5, Q4)
    q = fma_lanes(r, q, Q3)
    q = fma_lanes(r, q, Q2)
    q = fma_lanes(r, q, Q1)
    q = fma_lanes(r, q, Q0)
    return add_exponents(fma_lanes(r, q, ONE), rounded)

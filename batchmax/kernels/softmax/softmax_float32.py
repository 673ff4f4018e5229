"""The softmax kernel for float32 and many classes, along a row: 16 classes at a time; see :mod:`.exp_float32`.

A row of at least 16 classes ends in a vector that overlaps the one before it. The classes that it has in common with
that one are computed twice, and summed once. Masked loads and stores would do without, but only CPUs with AVX-512 have
fast ones.
"""

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, plain
from batchmax.kernels.compiler.simd import (
    WIDTH,
    address,
    fma_lanes,
    lanes_from,
    larger,
    largest,
    load,
    narrowed,
    prefetch,
    store,
    total,
    where_less,
    widened,
)
from batchmax.kernels.exp import log1p
from batchmax.kernels.softmax.exp_float32 import (
    SCALE,
    UNSHIFT,
    bounds,
    is_ordinary,
    scale_parts,
    scaled_exp,
    scaled_unit,
)
from batchmax.kernels.softmax.row_losses import SOME_TIE, block_losses, prefetch_losses, why_nan
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows, row_exp, row_log, row_scale
from batchmax.kernels.tiles import LANES

TILE_BYTES = 1 << 14
"""Up to 16 rows are processed together if they fit into this many bytes."""

SMALL_REST = 2.0**-10


@kernel(
    "in float32[:,:], in int64[:], float64, int64, out float32[:,:], out float32[:,:], out float64[:], "
    "out float64[:], out float64[:], out bool[:], out uint8[:]"
)
def softmax_float32(z, labels, beta, ignore_index, probs, log_probs, maxima, rests, nll, hits, status):
    """Do the same as :func:`.softmax_float64.softmax_float64` for float32 and at least 16 classes."""
    n, k = z.shape
    _, high, low = scale_parts(beta)
    label_lines, nll_lines = labels.reshape(-1, 1), nll.reshape(-1, 1)
    wanted = probs.shape[0] != 0
    rows_per_tile = min(WIDTH, max(1, TILE_BYTES // (k * z.itemsize)))
    rows_per_block = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        first = block * rows_per_block
        end = min(n, first + rows_per_block)
        spare = np.empty((1, k), z.dtype)
        known = np.zeros((6, WIDTH), z.dtype)
        added = np.ones((1, WIDTH))
        lasts = np.empty((WIDTH, WIDTH), z.dtype)
        ms, sums = np.empty(rows_per_block, z.dtype), np.empty(rows_per_block)
        # The distance to prefetch, in numbers: while one tile is computed, the next is fetched. Without prefetching,
        # the CPU waits for memory.
        ahead = rows_per_tile * k
        for tile in range(first, end, rows_per_tile):
            rows = min(rows_per_tile, end - tile)
            if labels.shape[0] != 0:
                prefetch_losses(label_lines, nll_lines, tile, tile + rows)
            for r in range(rows):
                known[0, r] = _maximum(address(z, tile + r), k)
            prepare(known, high, low)
            for r in range(rows):
                m, lowest, rounder, top = known[0, r], known[1, r], known[2, r], known[3, r]
                out = address(probs, tile + r) if wanted else address(spare, 0)
                added[0, r], sums[tile - first + r] = exponentials(
                    address(z, tile + r), k, ahead, m, high, low, lowest, rounder, top, out, address(lasts, r)
                )
                ms[tile - first + r] = m
            if wanted:
                factor, correction = inverse_parts(load(address(added, 0), 0))
                store(address(known, 4), 0, factor)
                store(address(known, 5), 0, correction)
                for r in range(rows):
                    _scale(address(probs, tile + r), k, known[4, r], known[5, r], address(lasts, r))
        finish_rows(z, beta, first, end, ms, sums, probs, log_probs, spare, maxima, rests, status)
        if labels.shape[0] != 0:
            ties = rests[first:end]
            block_losses(z, labels, beta, ignore_index, first, end, ties, SOME_TIE, maxima, rests, nll, hits, status)
        exchange_float_mode(before)


@compiled
def finish_rows(z, beta, first, end, ms, sums, probs, log_probs, spare, maxima, rests, status):
    """Fill maxima, rests and log_probs for the rows from first to before end, and compute rows that aren't ordinary.

    ``ms`` and ``sums`` have the maxima of these rows, and their sums of exponentials without one maximum as computed in
    float32. ``spare`` is an array of (1, K) or more.
    """
    c, high, _ = scale_parts(beta)
    some_maxima, some_rests = maxima[first:end], rests[first:end]
    for r in range(some_rests.shape[0]):
        some_maxima[r] = plain(np.float64(ms[r]))
        some_rests[r] = sums[r] / scaled_unit(ms[r], c, high)
    wanted = probs.shape[0] != 0
    for r in range(some_rests.shape[0]):
        if not is_ordinary(ms[r], c):
            i = first + r
            lanes = np.empty((2, LANES), np.float64)
            if wanted:
                rests[i] = row_exp(z, i, ms[r], beta, probs, i, lanes)
                row_scale(probs, i, rests[i])
            else:
                rests[i] = row_exp(z, i, ms[r], beta, spare, np.int64(0), lanes)
            if rests[i] != rests[i]:
                status[i] = min(status[i], why_nan(z, i))
    if log_probs.shape[0] != 0:
        log_sums = np.empty(end - first)
        for r in range(log_sums.shape[0]):
            log_sums[r] = log1p(some_rests[r])
        for r in range(log_sums.shape[0]):
            row_log(z, first + r, ms[r], beta, log_sums[r], log_probs)


# The last vector of a row begins at k - 16. Its first ``shared`` classes are also in the vector before it.


@compiled
def _maximum(row, k):
    m = load(row, k - WIDTH)
    j = 0
    while j + 4 * WIDTH < k:
        two = larger(load(row, j), load(row, j + WIDTH))
        m = larger(m, larger(two, larger(load(row, j + 2 * WIDTH), load(row, j + 3 * WIDTH))))
        j += 4 * WIDTH
    for at in range(j, k - WIDTH, WIDTH):
        m = larger(m, load(row, at))
    return largest(m)


@compiled
def prepare(known, high, low):
    """Given 16 maxima in row 0 of known, fill rows 1 to 3: logits below which exp is 0, rounders, exp of the maxima."""
    m = load(address(known, 0), 0)
    lowest, rounder = bounds(m, high)
    store(address(known, 1), 0, lowest)
    store(address(known, 2), 0, rounder)
    store(address(known, 3), 0, scaled_exp(m, high, low, lowest, rounder))


@compiled
def exponentials(row, k, ahead, m, high, low, lowest, rounder, top, out, end):
    """Fill out with a row's exponentials; return their sum, and the sum without one maximum.

    The last 16 exponentials are stored in ``end``; those of them that ``out`` lacks are not stored there.
    """
    shared = (WIDTH - k) % WIDTH
    e = scaled_exp(load(row, k - WIDTH), high, low, lowest, rounder)
    store(end, 0, e)
    sums = widened(lanes_from(shared, e))
    for j in range(0, k - WIDTH, WIDTH):
        prefetch(row, j + ahead)
        prefetch(out, j + ahead)
        part = scaled_exp(load(row, j), high, low, lowest, rounder)
        store(out, j, part)
        sums = sums + widened(part)
    added = total(sums)
    rest = added - top
    if rest < SMALL_REST * top:  # no ties, and the maximum would absorb the others
        sums = widened(lanes_from(shared, where_less(load(row, k - WIDTH), m, e)))
        for j in range(0, k - WIDTH, WIDTH):
            sums = sums + widened(where_less(load(row, j), m, load(out, j)))
        rest = total(sums)
    return added, rest


@compiled
def inverse_parts(added):
    """Return 1 / sum of 16 rows in two vectors of float32, scaled by 2**64, so that a product is rounded once.

    The smaller part isn't subnormal if the probability isn't.
    """
    inverse = SCALE / added
    factor = narrowed(inverse)
    return factor, narrowed(fma_lanes(0.0 - widened(factor), added, SCALE) * (inverse * (1.0 / SCALE)))


@compiled
def _scale(out, k, factor, correction, end):
    """Divide a row's exponentials by their sum. All but the last vector are in ``out``, the last is in ``end``."""
    # Backwards: the end was written last and is still in the cache. The last vector overwrites what it shares.
    for j in range((k - 1) // WIDTH * WIDTH - WIDTH, -1, -WIDTH):
        e = load(out, j)
        store(out, j, fma_lanes(e, factor, e * correction) * UNSHIFT)
    e = load(end, 0)
    store(out, k - WIDTH, fma_lanes(e, factor, e * correction) * UNSHIFT)

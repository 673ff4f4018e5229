"""The softmax kernel for float32 and few classes, across rows: 16 rows at a time; see :mod:`.exp_float32`.

A row of few classes does not fill a vector. The kernel transposes 16 rows into columns, a vector for each class, with
shuffles that every CPU does in one instruction, and transposes the probabilities back. Rejected: moving the numbers one
by one, which takes as long as the exponentials, and float64, which has half the lanes.

The last tile of a matrix is padded, so that all rows take the same instructions, wherever they are.
"""

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import (
    WIDTH,
    address,
    any_above,
    at_least,
    fma_lanes,
    load,
    load_columns,
    marked_nan,
    prefetch,
    store,
    store_columns,
    where_less,
    widened,
)
from batchmax.kernels.softmax.exp_float32 import (
    ONE,
    UNSHIFT,
    bounds,
    scale_parts,
    scaled_exp,
)
from batchmax.kernels.softmax.row_losses import block_losses, prefetch_losses
from batchmax.kernels.softmax.softmax_float32 import finish_rows, inverse_parts

QUAD = 4
"""Columns that are loaded and stored together."""

BLOCK_BYTES = 1 << 15


@kernel(
    "in float32[:,:], in int64[:], float64, int64, out float32[:,:], out float32[:,:], out float64[:], "
    "out float64[:], out float64[:], out bool[:], out uint8[:]"
)
def softmax_few_float32(z, labels, beta, ignore_index, probs, log_probs, maxima, rests, nll, hits, status):
    """Do the same as :func:`.softmax_float64.softmax_float64` for float32 and few classes."""
    n, k = z.shape
    _, high, low = scale_parts(beta)
    label_lines, nll_lines = labels.reshape(-1, 1), nll.reshape(-1, 1)
    wanted = probs.shape[0] != 0
    numbers, results = z.reshape(-1), probs.reshape(-1)
    size = WIDTH * k
    tiles = (n + WIDTH - 1) // WIDTH
    tiles_per_block = max(1, BLOCK_BYTES // (size * z.itemsize))
    for block in prange((tiles + tiles_per_block - 1) // tiles_per_block):
        before = exchange_float_mode(STANDARD)
        first = block * tiles_per_block * WIDTH
        end = min(n, first + tiles_per_block * WIDTH)
        columns, exps = np.empty((k + QUAD, WIDTH), z.dtype), np.empty((k + QUAD, WIDTH), z.dtype)
        padded, padded_probs = np.zeros((1, size + QUAD), z.dtype), np.empty((1, size + QUAD), z.dtype)
        ms, ties = np.empty((1, tiles_per_block * WIDTH), z.dtype), np.empty((1, tiles_per_block * WIDTH), z.dtype)
        sums = np.empty((1, tiles_per_block * WIDTH))
        for tile in range(first, end, WIDTH):
            source, target = address(z, tile), address(probs, tile)
            count = min(size, (n - tile) * k)
            is_writable = count == size and k >= QUAD
            if (n - tile) * k < size - k + QUAD:  # reading the last row would read past the end of the matrix
                for t in range(count):
                    padded[0, t] = numbers[tile * k + t]
                source = address(padded, 0)
            if not is_writable:  # storing the last row would overwrite what follows the tile
                target = address(padded_probs, 0)
            after = tile + WIDTH
            if labels.shape[0] != 0:
                prefetch_losses(label_lines, nll_lines, tile, after)
            m = _fill_columns(source, k, address(columns, 0))
            m, n_ties, rest, added = _fill_exps(
                address(columns, 0), k, m, high, low, address(exps, 0), address(z, after), address(probs, after)
            )
            store(address(ms, 0), tile - first, m)
            store(address(ties, 0), tile - first, n_ties)
            store(address(sums, 0), tile - first, rest)
            if wanted:
                _store_scaled(address(exps, 0), k, added, target)
                if not is_writable:
                    for t in range(count):
                        results[tile * k + t] = padded_probs[0, t]
        finish_rows(z, beta, first, end, ms[0], sums[0], probs, log_probs, padded, maxima, rests, status)
        if labels.shape[0] != 0:
            block_losses(z, labels, beta, ignore_index, first, end, ties[0], 1.0, maxima, rests, nll, hits, status)
        exchange_float_mode(before)


@compiled
def _fill_columns(source, k, columns):
    """Transpose 16 rows into columns, and return the rows' maxima; they are wrong for rows with NaN."""
    # The last four columns may overlap the ones before; with fewer than four, some aren't part of the rows.
    last = max(0, k - QUAD)
    a, b, c, d = load_columns(source, k, last)
    _store_four(columns, last, a, b, c, d)
    m = a
    m = at_least(m, b) if k > 1 else m
    m = at_least(m, c) if k > 2 else m
    m = at_least(m, d) if k > 3 else m
    for j in range(0, last, QUAD):
        a, b, c, d = load_columns(source, k, j)
        _store_four(columns, j, a, b, c, d)
        m = at_least(m, at_least(at_least(a, b), at_least(c, d)))
    return m


@compiled
def _store_four(columns, j, a, b, c, d):
    store(columns, j * WIDTH, a)
    store(columns, (j + 1) * WIDTH, b)
    store(columns, (j + 2) * WIDTH, c)
    store(columns, (j + 3) * WIDTH, d)


@compiled
def _fill_exps(columns, k, m, high, low, exps, next_source, next_target):
    """Fill exps; return the maxima, NaN for rows with NaN, how often each occurs, and the sums without and with one.

    Meanwhile, fetch the memory of the next tile. Without prefetching, the CPU waits for memory.
    """
    lowest, rounder = bounds(m, high)
    z = load(columns, 0)
    e = scaled_exp(z, high, low, lowest, rounder)
    store(exps, 0, e)
    others = widened(where_less(z, m, e))
    n_less = where_less(z, m, ONE)
    for j in range(1, k):
        prefetch(next_source, j * WIDTH)
        prefetch(next_target, j * WIDTH)
        z = load(columns, j * WIDTH)
        e = scaled_exp(z, high, low, lowest, rounder)
        store(exps, j * WIDTH, e)
        others = others + widened(where_less(z, m, e))
        n_less = n_less + where_less(z, m, ONE)
    n_ties = np.float32(k) - n_less
    unit = widened(scaled_exp(m, high, low, lowest, rounder))
    if any_above(n_ties, ONE):  # a NaN is not less than the maximum either
        for j in range(k):
            m = marked_nan(m, load(columns, j * WIDTH))
    n_units = widened(n_ties)
    return m, n_ties, others + (n_units - 1.0) * unit, others + n_units * unit


@compiled
def _store_scaled(exps, k, added, target):
    """Divide exponentials by their sums, and store them as rows."""
    factor, correction = inverse_parts(added)
    last = max(0, k - QUAD)
    for j in range(0, last, QUAD):
        _store_four_scaled(exps, j, factor, correction, target, k)
    _store_four_scaled(exps, last, factor, correction, target, k)


@compiled
def _store_four_scaled(exps, j, factor, correction, target, k):
    a, b = load(exps, j * WIDTH), load(exps, (j + 1) * WIDTH)
    c, d = load(exps, (j + 2) * WIDTH), load(exps, (j + 3) * WIDTH)
    a = fma_lanes(a, factor, a * correction) * UNSHIFT
    b = fma_lanes(b, factor, b * correction) * UNSHIFT
    c = fma_lanes(c, factor, c * correction) * UNSHIFT
    d = fma_lanes(d, factor, d * correction) * UNSHIFT
    store_columns(target, k, j, a, b, c, d)

"""The KL divergence of two distributions over the same classes, row by row, from their logits.

For float32 logits, the differences d_j of log-probabilities are float64, and everything else is float32, in vectors of
16 rows with few classes or 16 classes of a row. The rounding errors of the sums of exponentials shift all d_j by the
same s. Because sum_j p_j exp(d_j) has to be 1, s is known from the sum of p_j (exp(d_j) - 1), and its effect on the
divergence is subtracted. The relative error is about 1e-6 at most. Rows with masked or huge logits are computed in
float64.
"""

import math
from typing import Any

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, fma, maximum, plain
from batchmax.kernels.compiler.lanes import choose_less
from batchmax.kernels.compiler.simd import (
    WIDTH,
    address,
    at_most,
    fma_lanes,
    lanes_from,
    larger,
    largest,
    load,
    narrowed,
    smallest,
    store,
    total,
    widened,
)
from batchmax.kernels.exp import log, log1p, shifted_exp, shifted_logit
from batchmax.kernels.softmax.exp_float32 import bounds, is_ordinary, scale_parts, scaled_exp, scaled_unit
from batchmax.kernels.softmax.softmax_float32 import prepare
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import FEW_CLASSES, LANES, fill_tile

SMALL = 0.5
"""Up to this d, exp(d) - 1 - d is a Taylor series, which loses no digits.

Above, the difference loses at most four bits.
"""

SMALL_SQUARE = np.float32(SMALL * SMALL)
E2, E3, E4, E5, E6, E7, E8 = (np.float32(1 / math.factorial(n)) for n in range(2, 9))
"""The Taylor series of exp(d) - 1 - d to d**8 / 8!, with a relative error below 2**-24 for a small d."""

TILE_BYTES = 1 << 15
"""Up to 16 rows of many classes are processed together if their exponentials fit into this many bytes."""

FARTHEST = 1e30
"""A logit that is farther below the maximum, in units of 1/beta, may not be a float32 when it is scaled."""


def divergence_rows(a: Any, *arguments: Any) -> None:
    """Compute KL divergences with the kernel for these logits; see :func:`divergence_double`."""
    if a.dtype != np.float32:
        divergence_double(a, *arguments)
    elif a.shape[1] <= FEW_CLASSES:
        divergence_few(a, *arguments)
    else:
        divergence_single(a, *arguments)


@kernel("in float32[:,:], in float32[:,:], float64, float64, out float64[:]")
def divergence_few(a, b, beta_a, beta_b, kl):
    """Do the same as :func:`divergence_double` for float32 logits with few classes, across rows."""
    n, k = a.shape
    rows = block_rows(a)
    for block in prange(block_count(a)):
        before = exchange_float_mode(STANDARD)
        first, end = block * rows, min(n, (block + 1) * rows)
        tile_a, tile_b = np.zeros((k, LANES), a.dtype), np.zeros((k, LANES), a.dtype)
        exps_a, exps_b = np.empty((k, LANES), a.dtype), np.empty((k, LANES), a.dtype)
        # For each side: maxima, smallest logits, factors of the exponentials.
        known_a, known_b = np.empty((3, LANES), a.dtype), np.empty((3, LANES), a.dtype)
        # Sums of both sides, ratios, divergences, sums of p * d.
        sums, terms = np.empty((5, LANES)), new_terms(k)
        for tile in range(first, end, LANES):
            count = min(LANES, end - tile)
            fill_tile(a, tile, count, tile_a)
            fill_tile(b, tile, count, tile_b)
            for start in range(0, LANES, WIDTH):
                _sum_tile(tile_a, exps_a, known_a, start, beta_a, sums, 0)
                _sum_tile(tile_b, exps_b, known_b, start, beta_b, sums, 1)
            _finish_sums(known_a, known_b, beta_a, beta_b, sums)
            for start in range(0, LANES, WIDTH):
                _add_tile(tile_a, tile_b, exps_a, exps_b, known_a, known_b, start, beta_a, beta_b, sums)
            _finish_rows(a, b, tile, count, beta_a, beta_b, known_a, known_b, sums, terms, kl)
        exchange_float_mode(before)


@compiled
def _sum_tile(tile, exps, known, start, beta, sums, side):
    """Fill exps, maxima and smallest logits, and row ``side`` of sums, for 16 rows of a tile."""
    _, high, low = scale_parts(beta)
    m = load(address(tile, 0), start)
    least = m
    for j in range(1, tile.shape[0]):
        z = load(address(tile, j), start)
        m, least = larger(m, z), at_most(z, least)
    store(address(known, 0), start, m)
    store(address(known, 1), start, least)
    lowest, rounder = bounds(m, high)
    e = scaled_exp(load(address(tile, 0), start), high, low, lowest, rounder)
    store(address(exps, 0), start, e)
    added = widened(e)
    for j in range(1, tile.shape[0]):
        e = scaled_exp(load(address(tile, j), start), high, low, lowest, rounder)
        store(address(exps, j), start, e)
        added = added + widened(e)
    store(address(sums, side), start, added)


@compiled
def _finish_sums(known_a, known_b, beta_a, beta_b, sums):
    """Fill the factors that make exponentials probabilities, and the logarithms of the ratios of sums."""
    c_a, high_a, _ = scale_parts(beta_a)
    c_b, high_b, _ = scale_parts(beta_b)
    for r in range(sums.shape[1]):
        known_a[2, r] = 1.0 / sums[0, r]
        known_b[2, r] = 1.0 / sums[1, r]
        sum_a = sums[0, r] / scaled_unit(known_a[0, r], c_a, high_a)
        sum_b = sums[1, r] / scaled_unit(known_b[0, r], c_b, high_b)
        sums[2, r] = log(sum_b) - log(sum_a)


@compiled
def _add_tile(tile_a, tile_b, exps_a, exps_b, known_a, known_b, start, beta_a, beta_b, sums):
    max_a, max_b = widened(load(address(known_a, 0), start)), widened(load(address(known_b, 0), start))
    factor_a, factor_b = load(address(known_a, 2), start), load(address(known_b, 2), start)
    ratio = load(address(sums, 2), start)
    divergence = ratio * 0.0
    shift = divergence
    for j in range(tile_a.shape[0]):
        term, weighted = _terms(
            load(address(tile_a, j), start),
            load(address(tile_b, j), start),
            load(address(exps_a, j), start) * factor_a,
            load(address(exps_b, j), start) * factor_b,
            max_a,
            max_b,
            beta_a,
            beta_b,
            ratio,
        )
        divergence, shift = divergence + widened(term), shift + widened(weighted)
    store(address(sums, 3), start, divergence)
    store(address(sums, 4), start, shift)


@compiled
def _terms(a, b, p, q, max_a, max_b, beta_a, beta_b, ratio):
    """Return p (exp(d) - 1 - d) and p d of 16 classes."""
    d = narrowed(((widened(b) - max_b) * beta_b - (widened(a) - max_a) * beta_a) - ratio)
    series = fma_lanes(d, E8, E7)
    series = fma_lanes(d, series, E6)
    series = fma_lanes(d, series, E5)
    series = fma_lanes(d, series, E4)
    series = fma_lanes(d, series, E3)
    series = fma_lanes(d, series, E2)
    weighted = p * d
    square = d * d
    return choose_less(square, SMALL_SQUARE, p * (square * series), (q - p) - weighted), weighted


@compiled
def _finish_rows(a, b, first, count, beta_a, beta_b, known_a, known_b, sums, terms, kl):
    """Fill kl for some rows; compute those in float64 that float32 isn't enough for."""
    for r in range(count):
        shift = sums[3, r] + sums[4, r]
        kl[first + r] = max(0.0, sums[3, r] - shift * shift * (0.5 - shift * (1.0 / 3.0)))
    for r in range(count):
        if not (_is_single(known_a, r, beta_a) and _is_single(known_b, r, beta_b)):
            kl[first + r] = _row_divergence(a, b, first + r, beta_a, beta_b, terms)


@compiled
def _is_single(known, r, beta):
    c, _, _ = scale_parts(beta)
    m, least = known[0, r], known[1, r]
    return is_ordinary(m, c) and (np.float64(m) - np.float64(least)) * beta < FARTHEST


@kernel("in float32[:,:], in float32[:,:], float64, float64, out float64[:]")
def divergence_single(a, b, beta_a, beta_b, kl):
    """Do the same as :func:`divergence_double` for float32 logits with many classes, along rows."""
    n, k = a.shape
    rows = block_rows(a)
    _, high_a, low_a = scale_parts(beta_a)
    _, high_b, low_b = scale_parts(beta_b)
    for block in prange(block_count(a)):
        before = exchange_float_mode(STANDARD)
        first, end = block * rows, min(n, (block + 1) * rows)
        rows_per_tile = min(WIDTH, max(1, TILE_BYTES // (2 * k * a.itemsize)))
        size = (k + WIDTH - 1) // WIDTH * WIDTH
        exps_a, exps_b = np.empty((rows_per_tile, size), a.dtype), np.empty((rows_per_tile, size), a.dtype)
        known_a, known_b = np.zeros((4, WIDTH), a.dtype), np.zeros((4, WIDTH), a.dtype)
        factors_a, factors_b = np.zeros((3, WIDTH), a.dtype), np.zeros((3, WIDTH), a.dtype)
        sums, terms = np.ones((5, WIDTH)), new_terms(k)
        for tile in range(first, end, rows_per_tile):
            count = min(rows_per_tile, end - tile)
            for r in range(count):
                known_a[0, r], factors_a[1, r] = _extremes(address(a, tile + r), k)
                known_b[0, r], factors_b[1, r] = _extremes(address(b, tile + r), k)
            prepare(known_a, high_a, low_a)
            prepare(known_b, high_b, low_b)
            for r in range(WIDTH):
                factors_a[0, r], factors_b[0, r] = known_a[0, r], known_b[0, r]
            for r in range(count):
                sums[0, r] = _fill_exps(
                    address(a, tile + r), k, high_a, low_a, known_a[1, r], known_a[2, r], address(exps_a, r)
                )
                sums[1, r] = _fill_exps(
                    address(b, tile + r), k, high_b, low_b, known_b[1, r], known_b[2, r], address(exps_b, r)
                )
            _finish_sums(factors_a, factors_b, beta_a, beta_b, sums)
            for r in range(count):
                sums[3, r], sums[4, r] = _add_row(
                    address(a, tile + r),
                    address(b, tile + r),
                    k,
                    address(exps_a, r),
                    address(exps_b, r),
                    factors_a[2, r],
                    factors_b[2, r],
                    np.float64(factors_a[0, r]),
                    np.float64(factors_b[0, r]),
                    beta_a,
                    beta_b,
                    sums[2, r],
                )
            _finish_rows(a, b, tile, count, beta_a, beta_b, factors_a, factors_b, sums, terms, kl)
        exchange_float_mode(before)


@compiled
def _extremes(row, k):
    """Return the largest and the smallest logit of a row; the largest is NaN if a logit is."""
    m = load(row, k - WIDTH)
    least = m
    for j in range(0, k - WIDTH, WIDTH):
        z = load(row, j)
        m, least = larger(m, z), at_most(z, least)
    return largest(m), smallest(least)


@compiled
def _fill_exps(row, k, high, low, lowest, rounder, out):
    """Fill out with the exponentials of a row, and return their sum. The last 16 are 0 where they repeat others."""
    e = lanes_from((WIDTH - k) % WIDTH, scaled_exp(load(row, k - WIDTH), high, low, lowest, rounder))
    store(out, (k - 1) // WIDTH * WIDTH, e)
    sums = widened(e)
    for j in range(0, k - WIDTH, WIDTH):
        e = scaled_exp(load(row, j), high, low, lowest, rounder)
        store(out, j, e)
        sums = sums + widened(e)
    return total(sums)


@compiled
def _add_row(a, b, k, exps_a, exps_b, factor_a, factor_b, max_a, max_b, beta_a, beta_b, ratio):
    last = (k - 1) // WIDTH * WIDTH
    p, q = load(exps_a, last) * factor_a, load(exps_b, last) * factor_b
    term, weighted = _terms(load(a, k - WIDTH), load(b, k - WIDTH), p, q, max_a, max_b, beta_a, beta_b, ratio)
    divergence, shift = widened(term), widened(weighted)
    for j in range(0, last, WIDTH):
        p, q = load(exps_a, j) * factor_a, load(exps_b, j) * factor_b
        term, weighted = _terms(load(a, j), load(b, j), p, q, max_a, max_b, beta_a, beta_b, ratio)
        divergence, shift = divergence + widened(term), shift + widened(weighted)
    return total(divergence), total(shift)


@kernel("in float64[:,:], in float64[:,:], float64, float64, out float64[:]")
def divergence_double(a, b, beta_a, beta_b, kl):
    """Fill kl with KL(p || q) = sum_j p_j log(p_j / q_j) in nats, where p is the softmax of a's row and q of b's.

    Computed as sum_j p_j (exp(d_j) - 1 - d_j) with d_j = log q_j - log p_j, which is equal because both sum to 1. No
    term is negative, so nothing cancels: the result is precise for rows that are almost equal, and 0 for equal rows.

    Parameters
    ----------
    a, b : (n, K) float64, C-contiguous, read-only; the other kernels take float32
    beta_a, beta_b
        The inverse temperatures.
    kl : (n,) float64
        +inf if b masks a class (a logit of -inf) that a doesn't; 0 log 0 is 0. NaN if a row has no probabilities.
    """
    rows = block_rows(a)
    for block in prange(block_count(a)):
        before = exchange_float_mode(STANDARD)
        terms = new_terms(a.shape[1])
        for i in range(block * rows, min(a.shape[0], (block + 1) * rows)):
            kl[i] = _row_divergence(a, b, i, beta_a, beta_b, terms)
        exchange_float_mode(before)


@compiled
def _row_divergence(a, b, i, beta_a, beta_b, terms):
    k = a.shape[1]
    max_a = _largest(a, i)
    max_b = _largest(b, i)
    if not (abs(max_a) < np.inf and abs(max_b) < np.inf):
        return np.nan
    rest_a = _sum(a, i, max_a, beta_a, terms) - 1.0
    rest_b = _sum(b, i, max_b, beta_b, terms) - 1.0
    # At least 0 except for rounding: the largest logit adds exactly 1.
    log_ratio = log1p(max(rest_b, 0.0)) - log1p(max(rest_a, 0.0))
    scale_a = 1.0 / (1.0 + rest_a)
    scale_b = 1.0 / (1.0 + rest_b)
    for j in range(k):
        high_a, low_a = shifted_logit(np.float64(a[i, j]), max_a, beta_a)
        high_b, low_b = shifted_logit(np.float64(b[i, j]), max_b, beta_b)
        p = shifted_exp(np.float64(a[i, j]), max_a, beta_a) * scale_a
        q = shifted_exp(np.float64(b[i, j]), max_b, beta_b) * scale_b
        d = (high_b - high_a) + (low_b - low_a) - log_ratio
        term = p * excess(d) if abs(d) <= SMALL else (q - p) - p * d
        # If a masks the class, d is infinite or NaN, and 0 log 0 is 0. If only b masks it, d is infinite and so is the
        # sum.
        term = q if high_a == -np.inf else term
        term = np.inf if high_b == -np.inf and high_a > -np.inf else term
        terms[0, j] = term
    return plain(sum_terms(terms))


@compiled
def _largest(z, i):
    m = np.float64(z[i, 0])
    for j in range(1, z.shape[1]):
        m = maximum(m, np.float64(z[i, j]))
    return m


@compiled
def _sum(z, i, m, beta, terms):
    for j in range(z.shape[1]):
        terms[0, j] = shifted_exp(np.float64(z[i, j]), m, beta)
    return sum_terms(terms)


@compiled
def excess(d):
    """Return exp(d) - 1 - d for a small d: the Taylor series to d**15 / 15!, with a relative error below 2**-55."""
    q = fma(d, 1 / 1307674368000, 1 / 87178291200)
    q = fma(d, q, 1 / 6227020800)
    q = fma(d, q, 1 / 479001600)
    q = fma(d, q, 1 / 39916800)
    q = fma(d, q, 1 / 3628800)
    q = fma(d, q, 1 / 362880)
    q = fma(d, q, 1 / 40320)
    q = fma(d, q, 1 / 5040)
    q = fma(d, q, 1 / 720)
    q = fma(d, q, 1 / 120)
    q = fma(d, q, 1 / 24)
    q = fma(d, q, 1 / 6)
    q = fma(d, q, 1 / 2)
    return d * d * q

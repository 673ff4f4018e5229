"""Entropy of a row's probabilities, and their distance to the one-hot label.

The exponentials are recomputed instead of read from the probabilities, which may not be requested, may have a narrower
type, and have lost the digits of classes near zero.
"""

import math

import numpy as np
from numba import prange, types
from numba.extending import overload

from batchmax.kernels.compensated_sums import new_terms, sum_squares, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, plain
from batchmax.kernels.compiler.simd import WIDTH, address
from batchmax.kernels.exp import log1p, shifted_exp, shifted_logit
from batchmax.kernels.exp_sums import fill_tile_exps, sum_others
from batchmax.kernels.softmax.exp_float32 import is_ordinary, scale_parts, scaled_unit
from batchmax.kernels.softmax.softmax_float32 import prepare
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import FEW_CLASSES, LANES, fill_tile

NEGLIGIBLE = -745.0

SMALL_DISTANCE = 2.0**-400
SCALE = 2.0**600
"""Below a distance of ``SMALL_DISTANCE``, probabilities are scaled by this, so that their squares don't underflow."""


@kernel("in real[:,:], in int64[:], float64, in float64[:], in float64[:], out float64[:], out float64[:]")
def row_moments(z, labels, beta, maxima, rests, entropy, el2n):
    """Fill entropy and el2n, which are NaN if the row has no probabilities.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    labels : (n,) int64, or (0,) for none
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        Results of the softmax kernels.
    entropy : (n,) float64, or (0,) if not needed
        -sum p log p in nats, with 0 log 0 = 0.
    el2n : (n,) float64, or (0,) if not needed
        The Euclidean norm of p minus the one-hot label (Paul et al. 2021, arXiv 2107.07075); NaN if the label is not a
        class.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        end = min(n, (block + 1) * rows)
        terms = new_terms(k)
        if k <= FEW_CLASSES:
            tile, ms = np.zeros((k, LANES), z.dtype), np.zeros((1, LANES), z.dtype)
            es, units = np.empty((k, LANES)), np.empty(LANES)
            sums, squares = np.empty(LANES), np.empty(LANES)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                for r in range(count):
                    ms[0, r] = maxima[first + r]
                if entropy.shape[0] != 0:
                    _entropy_of_tile(tile, first, count, beta, ms, rests, sums, entropy)
                if el2n.shape[0] != 0:
                    fill_tile_exps(tile, ms, beta, es, units)
                    _distance_of_tile(es, units, first, count, labels, sums, squares, el2n)
        else:
            for i in range(block * rows, end):
                if entropy.shape[0] != 0:
                    entropy[i] = _entropy(_mean_shift(z, i, z.dtype.type(maxima[i]), beta, terms), rests[i])
            if el2n.shape[0] != 0:
                _distances_of_rows(z, block * rows, end, labels, beta, maxima, el2n)
        if el2n.shape[0] != 0:
            for i in range(block * rows, end):
                if el2n[i] < SMALL_DISTANCE:  # not computed yet, or with squares that underflow
                    y = labels[i]
                    el2n[i] = _distance(z, i, z.dtype.type(maxima[i]), beta, y, terms)
            for i in range(block * rows, end):
                y = labels[i]
                is_class = (y >= 0) & (y < k) & (rests[i] == rests[i])
                el2n[i] = el2n[i] / (1.0 + rests[i]) if is_class else np.nan
        exchange_float_mode(before)


@compiled
def _entropy_of_tile(tile, first, count, beta, ms, rests, sums, entropy):
    for r in range(LANES):
        sums[r] = 0.0
    for j in range(tile.shape[0]):
        for r in range(LANES):
            sums[r] += _shift_term(tile[j, r], ms[0, r], beta)
    for r in range(count):
        entropy[first + r] = _entropy(sums[r], rests[first + r])


@compiled
def _distance_of_tile(es, units, first, count, labels, others, squares, el2n):
    # 1 - p_y is computed as the sum of the other probabilities, which doesn't cancel if p_y is near 1.
    for r in range(LANES):
        others[r] = 0.0
        squares[r] = 0.0
    for r in range(count):
        y = labels[first + r]
        if 0 <= y < es.shape[0]:
            es[y, r] = 0.0
    for j in range(es.shape[0]):
        for r in range(LANES):
            others[r] += es[j, r]
            squares[r] += es[j, r] * es[j, r]
    for r in range(count):
        el2n[first + r] = math.sqrt(others[r] * others[r] + squares[r]) / units[r]


def _distances_of_rows(z, first, end, labels, beta, maxima, el2n):
    """Fill el2n for rows of many classes, times the sum of exponentials; with 0 where float32 isn't enough."""


@overload(_distances_of_rows, inline="never")
def _overload_distances_of_rows(z, first, end, labels, beta, maxima, el2n):
    if z.dtype == types.float32:
        return lambda z, first, end, labels, beta, maxima, el2n: _distances_of_singles(
            z, first, end, labels, beta, maxima, el2n
        )
    return lambda z, first, end, labels, beta, maxima, el2n: _fill_zeros(el2n, first, end)


@compiled
def _fill_zeros(el2n, first, end):
    for i in range(first, end):
        el2n[i] = 0.0


@compiled
def _distances_of_singles(z, first, end, labels, beta, maxima, el2n):
    c, high, low = scale_parts(beta)
    known = np.zeros((4, WIDTH), z.dtype)
    for tile in range(first, end, WIDTH):
        rows = min(WIDTH, end - tile)
        for r in range(rows):
            known[0, r] = maxima[tile + r]
        prepare(known, high, low)
        for r in range(rows):
            i = tile + r
            others, squares = sum_others(address(z, i), z.shape[1], labels[i], high, low, known[1, r], known[2, r])
            el2n[i] = math.sqrt(others * others + squares)
        for r in range(rows):
            m = known[0, r]
            el2n[tile + r] = el2n[tile + r] / scaled_unit(m, c, high) if is_ordinary(m, c) else 0.0


@compiled
def _entropy(shift, rest):
    return plain(log1p(rest) + shift / (1.0 + rest))


@compiled
def _shift_term(z, m, beta):
    """Return -x exp(x) of the shifted logit x."""
    high, _ = shifted_logit(z, m, beta)
    return 0.0 if high < NEGLIGIBLE else -high * shifted_exp(z, m, beta)


@compiled
def _mean_shift(z, i, m, beta, terms):
    """Return the sum of -x exp(x) over the row's shifted logits x."""
    for j in range(z.shape[1]):
        terms[0, j] = _shift_term(z[i, j], m, beta)
    return sum_terms(terms)


@compiled
def _distance(z, i, m, beta, y, terms):
    for j in range(z.shape[1]):
        terms[0, j] = 0.0 if j == y else shifted_exp(z[i, j], m, beta)
    others = sum_terms(terms)
    if others >= SMALL_DISTANCE:
        return math.sqrt(others * others + sum_squares(terms))
    for j in range(z.shape[1]):
        terms[0, j] *= SCALE
    others *= SCALE
    return math.sqrt(others * others + sum_squares(terms)) / SCALE

"""Entropy of a row's probabilities, and their distance to the one-hot label.

The exponentials are recomputed instead of read from the probabilities, which may not be requested, may have a narrower
type, and have lost the digits of classes near zero.
"""

import math

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_squares, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, plain
from batchmax.kernels.exp import log1p, shifted_exp, shifted_logit
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
            tile, ms = np.zeros((k, LANES), z.dtype), np.zeros(LANES, z.dtype)
            sums, squares = np.empty(LANES), np.empty(LANES)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                for r in range(count):
                    ms[r] = maxima[first + r]
                if entropy.shape[0] != 0:
                    _entropy_of_tile(tile, first, count, beta, ms, rests, sums, entropy)
                if el2n.shape[0] != 0:
                    _distance_of_tile(tile, first, count, labels, beta, ms, sums, squares, el2n)
        else:
            for i in range(block * rows, end):
                if entropy.shape[0] != 0:
                    entropy[i] = _entropy(_mean_shift(z, i, z.dtype.type(maxima[i]), beta, terms), rests[i])
                if el2n.shape[0] != 0:
                    el2n[i] = 0.0
        if el2n.shape[0] != 0:
            for i in range(block * rows, end):
                y = labels[i]
                if not (0 <= y < k and rests[i] == rests[i]):
                    el2n[i] = np.nan
                elif el2n[i] < SMALL_DISTANCE:  # from a row of many classes, or with squares that underflow
                    el2n[i] = _distance(z, i, z.dtype.type(maxima[i]), beta, y, terms)
                el2n[i] /= 1.0 + rests[i]
        exchange_float_mode(before)


@compiled
def _entropy_of_tile(tile, first, count, beta, ms, rests, sums, entropy):
    for r in range(LANES):
        sums[r] = 0.0
    for j in range(tile.shape[0]):
        for r in range(LANES):
            sums[r] += _shift_term(tile[j, r], ms[r], beta)
    for r in range(count):
        entropy[first + r] = _entropy(sums[r], rests[first + r])


@compiled
def _distance_of_tile(tile, first, count, labels, beta, ms, others, squares, el2n):
    # 1 - p_y is computed as the sum of the other probabilities, which doesn't cancel if p_y is near 1.
    for r in range(LANES):
        others[r] = 0.0
        squares[r] = 0.0
    for r in range(count):
        y = labels[first + r]
        if 0 <= y < tile.shape[0]:
            tile[y, r] = -np.inf
    for j in range(tile.shape[0]):
        for r in range(LANES):
            e = shifted_exp(tile[j, r], ms[r], beta)
            others[r] += e
            squares[r] += e * e
    for r in range(count):
        el2n[first + r] = math.sqrt(others[r] * others[r] + squares[r])


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

"""Entropy of a row's probabilities, and their distance to the one-hot label.

The exponentials are recomputed instead of read from the probabilities, which may not be requested, may have a narrower
type, and have lost the digits of classes near zero.
"""

import math

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_squares, sum_terms
from batchmax.kernels.dispatch import kernel
from batchmax.kernels.exp import log1p, shifted_exp, shifted_logit
from batchmax.kernels.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.intrinsics import compiled
from batchmax.kernels.softmax import block_count, block_rows

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
        terms = new_terms(k)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            m = z.dtype.type(maxima[i])
            rest = rests[i]
            if entropy.shape[0] != 0:
                found = log1p(rest) + _mean_shift(z, i, m, beta, terms) / (1.0 + rest)
                entropy[i] = found if rest == rest else np.nan
            if el2n.shape[0] != 0:
                y = labels[i]
                has_distance = 0 <= y < k and rest == rest
                el2n[i] = _distance(z, i, m, beta, y, terms) / (1.0 + rest) if has_distance else np.nan
        exchange_float_mode(before)


@compiled
def _mean_shift(z, i, m, beta, terms):
    """Return the sum of -x exp(x) over the row's shifted logits x."""
    for j in range(z.shape[1]):
        high, _ = shifted_logit(z[i, j], m, beta)
        terms[0, j] = 0.0 if high < NEGLIGIBLE else -high * shifted_exp(z[i, j], m, beta)
    return sum_terms(terms)


@compiled
def _distance(z, i, m, beta, y, terms):
    # 1 - p_y is computed as the sum of the other probabilities, which doesn't cancel if p_y is near 1.
    for j in range(z.shape[1]):
        terms[0, j] = 0.0 if j == y else shifted_exp(z[i, j], m, beta)
    others = sum_terms(terms)
    if others >= SMALL_DISTANCE:
        return math.sqrt(others * others + sum_squares(terms))
    for j in range(z.shape[1]):
        terms[0, j] *= SCALE
    others *= SCALE
    return math.sqrt(others * others + sum_squares(terms)) / SCALE

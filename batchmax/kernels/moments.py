"""Sums over a row's probabilities: entropy, and the distance to the one-hot label.

The exponentials are computed again instead of read from the probabilities, which may not be wanted, may be narrower,
and have lost the digits of classes near zero.
"""

import math

import numpy as np
from numba import prange

from batchmax.kernels.exponential import log1p, shifted_exp, shifted_logit
from batchmax.kernels.machine import add_any_order, compiled

NEGLIGIBLE = -745.0


def moments(z, labels, beta, maxima, rests, entropy, el2n):
    """Fill entropy and el2n.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    labels : (n,) int64, or (0,) for none
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        As left by the softmax kernels.
    entropy : (n,) float64, or (0,) where not wanted
        -sum p log p in nats, with 0 log 0 = 0.
    el2n : (n,) float64, or (0,) where not wanted
        The Euclidean norm of p minus the one-hot label (Paul et al. 2021, arXiv 2107.07075); NaN where the label is not
        a class. NaN for both where the row has no probabilities.
    """
    n, k = z.shape
    for i in prange(n):
        m = z.dtype.type(maxima[i])
        rest = rests[i]
        if entropy.shape[0] != 0:
            entropy[i] = log1p(rest) + _mean_shift(z, i, m, beta) / (1.0 + rest)
        if el2n.shape[0] != 0:
            y = labels[i]
            el2n[i] = _distance(z, i, m, beta, y) / (1.0 + rest) if 0 <= y < k else np.nan


@compiled
def _mean_shift(z, i, m, beta):
    """Return the sum of -x exp(x) over the row's shifted logits x."""
    total = 0.0
    for j in range(z.shape[1]):
        high, _ = shifted_logit(z[i, j], m, beta)
        total = add_any_order(total, 0.0 if high < NEGLIGIBLE else -high * shifted_exp(z[i, j], m, beta))
    return total


@compiled
def _distance(z, i, m, beta, y):
    # 1 - p_y is the sum of the others' probabilities: no cancellation when p_y is near 1.
    others = 0.0
    squares = 0.0
    for j in range(z.shape[1]):
        e = 0.0 if j == y else shifted_exp(z[i, j], m, beta)
        others = add_any_order(others, e)
        squares = add_any_order(squares, e * e)
    return math.sqrt(others * others + squares)

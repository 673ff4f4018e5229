"""The KL divergence of two distributions over the same classes, row by row, from their logits."""

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, fma, maximum, plain
from batchmax.kernels.exp import log1p, shifted_exp, shifted_logit
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows

SMALL = 0.5
"""Up to this d, exp(d) - 1 - d is a Taylor series, which loses no digits.

Above, the difference loses at most four bits.
"""


@kernel("in real[:,:], in real[:,:], float64, float64, out float64[:]")
def divergence_rows(a, b, beta_a, beta_b, kl):
    """Fill kl with KL(p || q) = sum_j p_j log(p_j / q_j) in nats, where p is the softmax of a's row and q of b's.

    Computed as sum_j p_j (exp(d_j) - 1 - d_j) with d_j = log q_j - log p_j, which is equal because both sum to 1. No
    term is negative, so nothing cancels: the result is precise for rows that are almost equal, and 0 for equal rows.

    Parameters
    ----------
    a, b : (n, K) both float32 or both float64, C-contiguous, read-only
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
        term = p * _excess(d) if abs(d) <= SMALL else (q - p) - p * d
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
def _excess(d):
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

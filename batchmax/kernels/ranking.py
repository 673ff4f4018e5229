"""Results that depend on the order of a row's logits: predicted class, margin, rank of the label, top k.

Logits are compared instead of probabilities, because different logits may round to the same probability. Ties go to the
lower index everywhere. Rows without probabilities (whose ``rests`` is NaN) get class -1, rank 0 and NaN.
"""

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_terms
from batchmax.kernels.dispatch import kernel
from batchmax.kernels.exp import expm1, shifted_exp, shifted_logit
from batchmax.kernels.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.intrinsics import compiled, maximum
from batchmax.kernels.softmax import block_count, block_rows

MAX_INSERTED = 64
"""Up to this many top classes are found by insertion; more by a stable sort."""


@kernel("in real[:,:], in int64[:], float64, in float64[:], in float64[:], out int32[:], out float64[:], out int32[:]")
def order_rows(z, labels, beta, maxima, rests, pred, margin, rank):
    """Fill pred, margin and rank.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    labels : (n,) int64, or (0,) for none
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        Results of the softmax kernels.
    pred : (n,) int32
        The index of the largest logit.
    margin : (n,) float64
        The difference of the two largest probabilities; with one class, its probability.
    rank : (n,) int32, or (0,) if labels is
        The label's rank, 1 for the largest logit; 0 if the label is not a class.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            if rests[i] != rests[i]:
                pred[i] = -1
                margin[i] = np.nan
                if rank.shape[0] != 0:
                    rank[i] = 0
                continue
            m = z.dtype.type(maxima[i])
            best = _first_index(z, i, m)
            high, low = shifted_logit(_runner_up(z, i, best), m, beta)
            pred[i] = best
            # 0.0 - x instead of -x: a tie has x = 0.0, and its negative is -0.0.
            margin[i] = (0.0 - expm1(high + low)) / (1.0 + rests[i])
            if rank.shape[0] != 0:
                y = labels[i]
                rank[i] = _rank(z, i, y) if 0 <= y < k else 0
        exchange_float_mode(before)


@kernel("in real[:,:], float64, in float64[:], in float64[:], out int32[:,:], out float64[:,:]")
def top_k_rows(z, beta, maxima, rests, classes, probs):
    """Fill classes (n, k) int32 and probs (n, k) float64 with the k most probable classes, most probable first."""
    n = z.shape[0]
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            if rests[i] != rests[i]:
                classes[i] = -1
                probs[i] = np.nan
                continue
            m = z.dtype.type(maxima[i])
            _largest(z, i, classes)
            for place in range(classes.shape[1]):
                probs[i, place] = shifted_exp(z[i, classes[i, place]], m, beta) / (1.0 + rests[i])
        exchange_float_mode(before)


@kernel("in real[:,:], float64, in float64[:], in float64[:], in int32[:,:], out float64[:]")
def tail_rows(z, beta, maxima, rests, classes, tail):
    """Fill tail (n,) float64 with the probability of all classes but the top k, as a sum, not as 1 minus the others.

    Parameters
    ----------
    z, beta, maxima, rests
        As for :func:`top_k_rows`.
    classes
        The result of :func:`top_k_rows`.
    """
    n = z.shape[0]
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        terms = new_terms(z.shape[1])
        for i in range(block * rows, min(n, (block + 1) * rows)):
            if rests[i] != rests[i]:
                tail[i] = np.nan
                continue
            m = z.dtype.type(maxima[i])
            # Ties go to the lower index, so comparing with the last of the top classes separates them from the others.
            last = classes[i, classes.shape[1] - 1]
            least = z[i, last]
            for j in range(z.shape[1]):
                is_rest = (z[i, j] < least) | ((z[i, j] == least) & (j > last))
                terms[0, j] = shifted_exp(z[i, j], m, beta) if is_rest else 0.0
            tail[i] = sum_terms(terms) / (1.0 + rests[i])
        exchange_float_mode(before)


@compiled
def _first_index(z, i, value):
    k = z.shape[1]
    best = k
    for j in range(k):
        best = min(best, j if z[i, j] == value else k)
    return best


@compiled
def _runner_up(z, i, best):
    second = z.dtype.type(-np.inf)
    for j in range(z.shape[1]):
        second = maximum(second, z.dtype.type(-np.inf) if j == best else z[i, j])
    return second


@compiled
def _rank(z, i, y):
    above = 1
    for j in range(z.shape[1]):
        above += (z[i, j] > z[i, y]) | ((z[i, j] == z[i, y]) & (j < y))
    return above


@compiled
def _largest(z, i, classes):
    k = classes.shape[1]
    if k > MAX_INSERTED:
        classes[i] = np.argsort(-z[i], kind="mergesort")[:k]
        return
    found = 0
    for j in range(z.shape[1]):
        if found == k and not z[i, j] > z[i, classes[i, k - 1]]:
            continue
        place = min(found, k - 1)
        found = min(found + 1, k)
        while place > 0 and z[i, j] > z[i, classes[i, place - 1]]:
            classes[i, place] = classes[i, place - 1]
            place -= 1
        classes[i, place] = j

"""What follows from the order of a row's logits: the predicted class, the runner-up, the label's rank, the top k.

Logits are compared, never probabilities, because different logits may round to the same probability. Ties go to the
lower index everywhere. Rows without probabilities (their ``rests`` is NaN) get class -1, rank 0 and NaN.
"""

import math

import numpy as np
from numba import prange

from batchmax.kernels.exponential import shifted_exp, shifted_logit
from batchmax.kernels.machine import compiled, maximum

MOST_INSERTED = 64
"""Up to this many top classes are found by insertion, more by a stable sort."""


def order(z, labels, beta, maxima, rests, pred, margin, rank):
    """Fill pred, margin and rank.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    labels : (n,) int64, or (0,) for none
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        As left by the softmax kernels.
    pred : (n,) int32
        The index of the largest logit.
    margin : (n,) float64
        The difference of the two largest probabilities; the largest itself where there is one class.
    rank : (n,) int32, or (0,) when labels is
        1 for the largest logit; 0 where the label is not a class.
    """
    n, k = z.shape
    for i in prange(n):
        row = z[i]
        if rests[i] != rests[i]:
            pred[i] = -1
            margin[i] = np.nan
            if rank.shape[0] != 0:
                rank[i] = 0
            continue
        m = z.dtype.type(maxima[i])
        best = _first_index(row, m)
        high, low = shifted_logit(_runner_up(row, best), m, beta)
        pred[i] = best
        margin[i] = -math.expm1(high + low) / (1.0 + rests[i])
        if rank.shape[0] != 0:
            y = labels[i]
            rank[i] = _rank(row, y) if 0 <= y < k else 0


def top_k(z, beta, maxima, rests, classes, probs):
    """Fill classes (n, k) int32 and probs (n, k) float64 with the k largest logits' classes, largest first."""
    n = z.shape[0]
    for i in prange(n):
        if rests[i] != rests[i]:
            classes[i] = -1
            probs[i] = np.nan
            continue
        row = z[i]
        m = z.dtype.type(maxima[i])
        _largest(row, classes[i])
        for place in range(classes.shape[1]):
            probs[i, place] = shifted_exp(row[classes[i, place]], m, beta) / (1.0 + rests[i])


@compiled
def _first_index(row, value):
    best = row.shape[0]
    for j in range(row.shape[0]):
        best = min(best, j if row[j] == value else row.shape[0])
    return best


@compiled
def _runner_up(row, best):
    second = row.dtype.type(-np.inf)
    for j in range(row.shape[0]):
        second = maximum(second, row.dtype.type(-np.inf) if j == best else row[j])
    return second


@compiled
def _rank(row, y):
    above = 1
    for j in range(row.shape[0]):
        above += (row[j] > row[y]) | ((row[j] == row[y]) & (j < y))
    return above


@compiled
def _largest(row, classes):
    k = classes.shape[0]
    if k > MOST_INSERTED:
        classes[:] = np.argsort(-row, kind="mergesort")[:k]
        return
    found = 0
    for j in range(row.shape[0]):
        if found == k and not row[j] > row[classes[k - 1]]:
            continue
        place = min(found, k - 1)
        found = min(found + 1, k)
        while place > 0 and row[j] > row[classes[place - 1]]:
            classes[place] = classes[place - 1]
            place -= 1
        classes[place] = j

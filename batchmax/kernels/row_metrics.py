"""Metrics of a row: predicted class, rank of the label and Brier score, in one pass.

The square of a softmax numerator is the numerator at twice beta: exp(2 beta (z - m)). The sum of the squares, and
therefore the score, has a relative error below 1e-6.
"""

from typing import Any

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import WIDTH, address, lanes_from, largest, load, total, where_less, widened
from batchmax.kernels.exp import expm1, shifted_exp
from batchmax.kernels.ranking import predict_tile, rank_tile
from batchmax.kernels.softmax.exp_float32 import is_ordinary, scale_parts, scaled_unit
from batchmax.kernels.softmax.softmax_float32 import exponentials, prepare
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows
from batchmax.kernels.tiles import FEW_CLASSES, LANES, fill_tile


def metric_rows(logits: Any, *arguments: Any) -> None:
    """Compute row metrics with the kernel for these logits; see :func:`metrics`."""
    is_wide = logits.dtype == np.float32 and logits.shape[1] > FEW_CLASSES
    (metrics_single if is_wide else metrics)(logits, *arguments)


@kernel(
    "in float32[:,:], in int64[:], float64, in float64[:], in float64[:], in float64[:], out int32[:], "
    "out int32[:], out float64[:]"
)
def metrics_single(z, labels, beta, maxima, rests, nll, pred, rank, brier):
    """Do the same as :func:`metrics` along rows of float32 logits with many classes."""
    n, k = z.shape
    c, high, low = scale_parts(2.0 * beta)
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        terms = new_terms(k)
        spare = np.empty((1, k), z.dtype)
        known = np.zeros((4, WIDTH), z.dtype)
        ones = np.ones((1, WIDTH), z.dtype)
        end = np.zeros((1, WIDTH), z.dtype)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            m = np.float32(maxima[i])
            y = labels[i]
            if rests[i] != rests[i]:
                pred[i], rank[i], brier[i] = -1, 0, np.nan
                continue
            row = address(z, i)
            rank[i] = _rank(z, i, y, row, load(address(ones, 0), 0)) if 0 <= y < k else 0
            pred[i] = y if rank[i] == 1 else _first(z, i, row, m)
            if is_ordinary(m, c):
                known[0, 0] = m
                prepare(known, high, low)
                _, rest = exponentials(
                    row, k, k, m, high, low, known[1, 0], known[2, 0], known[3, 0], address(spare, 0), address(end, 0)
                )
                brier[i] = _brier(1.0 + rest / scaled_unit(m, c, high), rests[i], nll[i])
            else:
                brier[i] = _brier(_squares(z, i, m, beta, terms), rests[i], nll[i])
        exchange_float_mode(before)


@kernel(
    "in real[:,:], in int64[:], float64, in float64[:], in float64[:], in float64[:], out int32[:], "
    "out int32[:], out float64[:]"
)
def metrics(z, labels, beta, maxima, rests, nll, pred, rank, brier):
    """Fill pred, rank and brier.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    labels : (n,) int64
    beta
        The inverse temperature.
    maxima, rests, nll : (n,) float64
        Results of the softmax kernels.
    pred : (n,) int32
        The index of the largest logit, ties to the lower index; -1 if the row has no probabilities.
    rank : (n,) int32
        The label's rank by logit, from 1, ties to the lower index; 0 if the label is not a class or the row has no
        probabilities.
    brier : (n,) float64
        The sum over classes of (p - y)**2; NaN if the row has no probabilities or no loss.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        end = min(n, (block + 1) * rows)
        if k <= FEW_CLASSES:
            tile, rows_of_tile = np.zeros((k, LANES), z.dtype), np.empty((5, LANES), z.dtype)
            squares = np.empty(LANES)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                _metrics_of_tile(
                    tile, first, count, labels, beta, maxima, rests, nll, rows_of_tile, squares, pred, rank, brier
                )
        else:
            terms = new_terms(k)
            for i in range(block * rows, end):
                _metrics_of_row(z, i, labels, beta, maxima, rests, nll, terms, pred, rank, brier)
        exchange_float_mode(before)


@compiled
def _metrics_of_row(z, i, labels, beta, maxima, rests, nll, terms, pred, rank, brier):
    k = z.shape[1]
    if rests[i] != rests[i]:
        pred[i], rank[i], brier[i] = -1, 0, np.nan
        return
    m = z.dtype.type(maxima[i])
    y = labels[i]
    is_class = 0 <= y < k
    threshold = z[i, y] if is_class else m
    best = k
    above = 1
    for j in range(k):
        best = min(best, j if z[i, j] == m else k)
        above += (z[i, j] > threshold) | ((z[i, j] == threshold) & (j < y))
    pred[i] = best
    rank[i] = above if is_class else 0
    brier[i] = _brier(_squares(z, i, m, beta, terms), rests[i], nll[i])


@compiled
def _metrics_of_tile(tile, first, count, labels, beta, maxima, rests, nll, rows, squares, pred, rank, brier):
    ms, best = rows[0], rows[1]
    predict_tile(tile, first, count, maxima, ms, best)
    rank_tile(tile, first, count, labels, rests, rows[2], rows[3], rows[4], rank)
    for r in range(LANES):
        squares[r] = 0.0
    for j in range(tile.shape[0]):
        for r in range(LANES):
            squares[r] += shifted_exp(tile[j, r], ms[r], 2.0 * beta)
    for r in range(count):
        i = first + r
        pred[i] = np.int32(best[r]) if rests[i] == rests[i] else np.int32(-1)
    for r in range(count):
        i = first + r
        brier[i] = _brier(squares[r], rests[i], nll[i])


@kernel("in real[:,:], in real[:,:], float64, in float64[:], in float64[:], out float64[:]")
def soft_metric_rows(z, targets, beta, maxima, rests, brier):
    """Fill brier, (n,) float64, as :func:`metrics` does, for (n, K) targets that are distributions over the classes."""
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        terms = new_terms(k)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            m = z.dtype.type(maxima[i])
            for j in range(k):
                lacking = shifted_exp(z[i, j], m, beta) / (1.0 + rests[i]) - targets[i, j]
                terms[0, j] = lacking * lacking
            brier[i] = sum_terms(terms) if rests[i] == rests[i] else np.nan
        exchange_float_mode(before)


@compiled
def _squares(z, i, m, beta, terms):
    """Return the sum of exp(2 beta (z - m))."""
    for j in range(z.shape[1]):
        terms[0, j] = shifted_exp(z[i, j], m, 2.0 * beta)
    return sum_terms(terms)


@compiled
def _brier(squares, rest, nll):
    # 1 - p of the label is computed from the loss, which keeps its digits if p is near 1.
    lacking = 0.0 - expm1(-nll)
    others = squares / ((1.0 + rest) * (1.0 + rest)) - (1.0 - lacking) * (1.0 - lacking)
    others = others if others > 0.0 else 0.0
    return others + lacking * lacking if nll == nll else np.nan


@compiled
def _rank(z, i, y, row, ones):
    """Return 1 + the number of logits that are larger than the label's, or equal and at a lower index."""
    k = z.shape[1]
    label = z[i, y]
    here = y // WIDTH * WIDTH
    counts = widened(where_less(label, label, ones))
    for j in range(0, here, WIDTH):
        counts = counts + widened(where_less(load(row, j), label, ones))
    above = 1 + here - int(total(counts))
    counts = widened(where_less(label, label, ones))
    for j in range(here + WIDTH, k - WIDTH, WIDTH):
        counts = counts + widened(where_less(label, load(row, j), ones))
    if here + WIDTH < k:
        shared = (WIDTH - k) % WIDTH
        counts = counts + widened(lanes_from(shared, where_less(label, load(row, k - WIDTH), ones)))
    above += int(total(counts))
    for j in range(here, min(here + WIDTH, k)):
        above += (z[i, j] > label) | ((z[i, j] == label) & (j < y))
    return above


@compiled
def _first(z, i, row, m):
    k = z.shape[1]
    start = 0
    while start + WIDTH < k and largest(load(row, start)) != m:
        start += WIDTH
    while z[i, start] != m:
        start += 1
    return start

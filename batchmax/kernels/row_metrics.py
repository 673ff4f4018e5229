"""Metrics of a row: predicted class, rank of the label and Brier score.

The Brier score is the sum of the squares of all probabilities but the label's, and of the square of their sum, which is
what the label's lacks from 1. Nothing cancels, and the relative error is below 1e-6.
"""

from typing import Any

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import new_terms, sum_squares, sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import WIDTH, address
from batchmax.kernels.exp import shifted_exp
from batchmax.kernels.exp_sums import fill_tile_exps, sum_others
from batchmax.kernels.ranking import first_index, label_rank, predict_tile, rank_tile
from batchmax.kernels.softmax.exp_float32 import is_ordinary, scale_parts, scaled_unit
from batchmax.kernels.softmax.softmax_float32 import prepare
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
    c, high, low = scale_parts(beta)
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        first, end = block * rows, min(n, (block + 1) * rows)
        terms = new_terms(k)
        known = np.zeros((4, WIDTH), z.dtype)
        others, squares = np.empty(WIDTH), np.empty(WIDTH)
        for tile in range(first, end, WIDTH):
            count = min(WIDTH, end - tile)
            for r in range(count):
                known[0, r] = maxima[tile + r]
            prepare(known, high, low)
            for r in range(count):
                i, y, row = tile + r, labels[tile + r], address(z, tile + r)
                is_class = (y >= 0) & (y < k)
                others[r], squares[r] = sum_others(row, k, y, high, low, known[1, r], known[2, r])
                if rests[i] == rests[i]:
                    rank[i] = label_rank(z, i, y) if is_class else 0
                    pred[i] = y if rank[i] == 1 else first_index(row, k, known[0, r])
                else:
                    pred[i], rank[i] = -1, 0
            for r in range(count):
                i, m = tile + r, known[0, r]
                brier[i] = _brier(others[r], squares[r], scaled_unit(m, c, high), rests[i], nll[i])
            for r in range(count):
                i, m = tile + r, known[0, r]
                if not is_ordinary(m, c):
                    brier[i] = _brier_of_row(z, i, m, beta, labels[i], rests[i], nll[i], terms)
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
            es, units = np.empty((k, LANES)), np.empty(LANES)
            others, squares = np.empty(LANES), np.empty(LANES)
            ys, tile_maxima = np.zeros(LANES, np.int64), np.zeros((1, LANES), z.dtype)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                for r in range(count):
                    tile_maxima[0, r] = maxima[first + r]
                fill_tile_exps(tile, tile_maxima, beta, es, units)
                _briers_of_tile(es, units, first, count, labels, rests, nll, ys, others, squares, brier)
                ms, best = rows_of_tile[0], rows_of_tile[1]
                predict_tile(tile, first, count, maxima, ms, best)
                for r in range(count):
                    i = first + r
                    pred[i] = np.int32(best[r]) if rests[i] == rests[i] else np.int32(-1)
                rank_tile(tile, first, count, labels, rests, rows_of_tile[2], rows_of_tile[3], rows_of_tile[4], rank)
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
    brier[i] = _brier_of_row(z, i, m, beta, y, rests[i], nll[i], terms)


@compiled
def _briers_of_tile(es, units, first, count, labels, rests, nll, ys, others, squares, brier):
    for r in range(count):
        ys[r] = labels[first + r]
    for r in range(LANES):
        others[r] = 0.0
        squares[r] = 0.0
    for j in range(es.shape[0]):
        for r in range(LANES):
            e = es[j, r]
            other = 0.0 if ys[r] == j else e
            others[r] += other
            squares[r] += other * other
    for r in range(count):
        i = first + r
        brier[i] = _brier(others[r], squares[r], units[r], rests[i], nll[i])


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
def _brier_of_row(z, i, m, beta, y, rest, nll, terms):
    for j in range(z.shape[1]):
        terms[0, j] = 0.0 if j == y else shifted_exp(z[i, j], m, beta)
    return _brier(sum_terms(terms), sum_squares(terms), 1.0, rest, nll)


@compiled
def _brier(others, squares, unit, rest, nll):
    """Return the score, given the sums of all exponentials but the label's, and of their squares."""
    total = unit * (1.0 + rest)
    return (others * others + squares) / (total * total) if nll == nll else np.nan

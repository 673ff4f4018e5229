"""Cross-entropy with a weight per class, for target distributions and for the uniform part of label smoothing."""

import numpy as np
from numba import prange

from batchmax.kernels.compensated_sums import sum_terms
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, plain
from batchmax.kernels.exp import log1p, shifted_logit
from batchmax.kernels.softmax.softmax_float64 import add_exactly, block_count, block_rows, sum_lanes
from batchmax.kernels.tiles import FEW_CLASSES, LANES, fill_tile


@kernel("in real[:,:], in real[:,:], in float64[:], float64, float64, in float64[:], in float64[:], out float64[:]")
def soft_cross_entropy(z, targets, class_weights, smoothing, beta, maxima, rests, losses):
    """Fill losses with sum_j t_j * (-log p_j), where t_j = w_j * ((1 - smoothing) * y_j + smoothing / K).

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    targets : (n, K) of z's type
        The distributions y; or (0, K) for none, which computes the uniform part alone.
    class_weights : (K,) float64
    smoothing, beta
        The share of the uniform distribution, and the inverse temperature.
    maxima, rests : (n,) float64
        Results of the softmax kernels.
    losses : (n,) float64
        In nats. For a logit of -inf, a class with t_j = 0 adds 0, and any other adds +inf. NaN if the row has no
        probabilities.
    """
    n, k = z.shape
    rows = block_rows(z)
    parts = (1.0 - smoothing) * class_weights, smoothing / k * class_weights
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        end = min(n, (block + 1) * rows)
        terms, lanes = np.empty((1, (k + LANES - 1) // LANES * LANES)), np.zeros((4, LANES))
        if k <= FEW_CLASSES:
            tile, tile_targets = np.zeros((k, LANES), z.dtype), np.zeros((k, LANES), z.dtype)
            for first in range(block * rows, end, LANES):
                count = min(LANES, end - first)
                fill_tile(z, first, count, tile)
                if targets.shape[0] != 0:
                    fill_tile(targets, first, count, tile_targets)
                _losses_of_tile(tile, tile_targets, first, count, parts, beta, maxima, rests, lanes, losses)
        else:
            for i in range(block * rows, end):
                losses[i] = _row_loss(z, targets, i, parts, beta, z.dtype.type(maxima[i]), rests[i], terms, lanes)
        exchange_float_mode(before)


@compiled
def _term(x, m, target, weight, uniform, beta, log_sum):
    t = weight * target + uniform
    high, low = shifted_logit(x, m, beta)
    return 0.0 if t == 0.0 else t * ((log_sum - low) - high)


@compiled
def _losses_of_tile(tile, targets, first, count, parts, beta, maxima, rests, rows, losses):
    weights, uniforms = parts
    sums, lost, ms, log_sums = rows[0], rows[1], rows[2], rows[3]
    for r in range(count):
        ms[r] = maxima[first + r]
        log_sums[r] = log1p(rests[first + r])
    for r in range(LANES):
        sums[r] = 0.0
        lost[r] = 0.0
    for j in range(tile.shape[0]):
        weight, uniform = weights[j], uniforms[j]
        for r in range(LANES):
            m = tile.dtype.type(ms[r])
            term = _term(tile[j, r], m, np.float64(targets[j, r]), weight, uniform, beta, log_sums[r])
            sums[r], lost[r] = add_exactly(sums[r], lost[r], term)
    for r in range(count):
        losses[first + r] = _sum(sums[r], lost[r], rests[first + r])


@compiled
def _row_loss(z, targets, i, parts, beta, m, rest, terms, lanes):
    weights, uniforms = parts
    k = z.shape[1]
    log_sum = log1p(rest)
    # Each loop does one thing, so that it vectorizes. Terms are padded with zeros to whole groups of 64.
    for j in range(k, terms.shape[1]):
        terms[0, j] = 0.0
    if targets.shape[0] != 0:
        for j in range(k):
            terms[0, j] = _term(z[i, j], m, np.float64(targets[i, j]), weights[j], uniforms[j], beta, log_sum)
    else:
        for j in range(k):
            terms[0, j] = _term(z[i, j], m, 0.0, weights[j], uniforms[j], beta, log_sum)
    if z.itemsize == 4:  # the terms aren't negative, so a plain sum in float64 is exact enough for a float32 loss
        return _sum(sum_terms(terms), 0.0, rest)
    for lane in range(LANES):
        lanes[0, lane] = 0.0
        lanes[1, lane] = 0.0
    for start in range(0, k, LANES):
        for lane in range(LANES):
            lanes[0, lane], lanes[1, lane] = add_exactly(lanes[0, lane], lanes[1, lane], terms[0, start + lane])
    total, lost = sum_lanes(lanes)
    return _sum(total, lost, rest)


@compiled
def _sum(total, lost, rest):
    whole = total + lost if total - total == 0.0 else total
    return plain(whole if rest == rest else np.nan)

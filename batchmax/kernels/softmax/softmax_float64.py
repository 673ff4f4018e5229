"""The softmax kernels for float64, and what all four softmax kernels share.

``softmax_few_float64`` and ``softmax_few_float32`` work *across rows*: they transpose rows of few classes into a small
tile and fill the vector registers with rows. ``softmax_float64`` and ``softmax_float32`` work *along a row*: they take
one row after another and fill the registers with classes. The choice depends only on the type and the number of
classes, so a row's result never depends on its neighbors.

For each row the kernels also return the largest logit and ``rest``, the sum of the exponentials without one maximum:
softmax = exp(beta * (z - max)) / (1 + rest), and log(1 + rest) keeps its digits when rest is tiny. Other kernels of a
row need only these two numbers and the logits.

Threads process blocks of rows. Each block begins by setting the CPU's floating-point mode.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, fma, maximum, plain
from batchmax.kernels.exp import log1p, shifted_exp, shifted_logit
from batchmax.kernels.softmax.row_losses import SOME_TIE, block_losses, why_nan
from batchmax.kernels.tiles import LANES

SOFTMAX_FEW_CLASSES = {"float32": 56, "float64": 32}
"""Rows with up to this many classes are processed across rows; the limits were measured."""

BLOCK_BYTES = 1 << 17


@kernel(
    "in float64[:,:], in int64[:], float64, int64, out float64[:,:], out float64[:,:], out float64[:], "
    "out float64[:], out float64[:], out bool[:], out uint8[:]"
)
def softmax_float64(z, labels, beta, ignore_index, probs, log_probs, maxima, rests, nll, hits, status):
    """Fill probs, log_probs, maxima, rests, nll, hits and status.

    Parameters
    ----------
    z : (n, K) float64, C-contiguous, read-only
    labels : (n,) int64, or (0,) for none
    beta
        The inverse temperature.
    ignore_index
        The label of rows that have no loss.
    probs, log_probs : (n, K) of z's type, or (0, K) if not needed
    maxima : (n,) float64
        The largest logit; NaN if a logit is NaN.
    rests : (n,) float64
        The sum of exp(beta * (z - max)) without one maximum. NaN if the row contains NaN or +inf, or only -inf; the
        probabilities of such a row are NaN.
    nll : (n,) float64, or (0,) if labels is
        The cross-entropy in nats: +inf if the label's logit is -inf, 0 if the label is ignored, NaN if the label is not
        a class or the row has no probabilities.
    hits : (n,) bool, or (0,) if labels is
        Whether the label is the predicted class: the largest logit, ties to the lower index.
    status : (n,) uint8
        Initial statuses; replaced by the minimum of themselves and what the kernel finds.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        spare = np.empty((1 if probs.shape[0] == 0 else 0, k), z.dtype)
        lanes = np.empty((2, LANES), np.float64)
        first = block * rows
        end = min(n, first + rows)
        for i in range(first, end):
            m = _row_maximum(z, i)
            if probs.shape[0] != 0:
                rest = row_exp(z, i, m, beta, probs, i, lanes)
                row_scale(probs, i, rest)
            else:
                rest = row_exp(z, i, m, beta, spare, 0, lanes)
            if log_probs.shape[0] != 0:
                row_log(z, i, m, beta, log1p(rest), log_probs)
            maxima[i] = plain(np.float64(m))
            rests[i] = rest
            if rest != rest:
                status[i] = min(status[i], why_nan(z, i))
        if labels.shape[0] != 0:
            ties = rests[first:end]
            block_losses(z, labels, beta, ignore_index, first, end, ties, SOME_TIE, maxima, rests, nll, hits, status)
        exchange_float_mode(before)


@kernel(
    "in float64[:,:], in int64[:], float64, int64, out float64[:,:], out float64[:,:], out float64[:], "
    "out float64[:], out float64[:], out bool[:], out uint8[:]"
)
def softmax_few_float64(z, labels, beta, ignore_index, probs, log_probs, maxima, rests, nll, hits, status):
    """Do the same as :func:`softmax_float64` for float64, across rows: fast for few classes."""
    n, k = z.shape
    tiles_per_block = max(1, BLOCK_BYTES // (LANES * k * z.itemsize))
    tiles = (n + LANES - 1) // LANES
    for block in prange((tiles + tiles_per_block - 1) // tiles_per_block):
        before = exchange_float_mode(STANDARD)
        zs = np.zeros((k, LANES), z.dtype)
        es = np.empty((k, LANES), np.float64)
        ms = np.empty(LANES, z.dtype)
        sums = np.empty(LANES, np.float64)
        losts = np.empty(LANES, np.float64)
        spare = np.empty(LANES, np.float64)
        for tile in range(block * tiles_per_block, min(tiles, (block + 1) * tiles_per_block)):
            first = tile * LANES
            rows = min(LANES, n - first)
            for r in range(rows):
                for j in range(k):
                    zs[j, r] = z[first + r, j]
            _tile_exp(zs, beta, ms, es, sums, losts)
            for r in range(rows):
                maxima[first + r] = plain(np.float64(ms[r]))
                rests[first + r] = sums[r]
                if sums[r] != sums[r]:
                    status[first + r] = min(status[first + r], why_nan(z, first + r))
            if log_probs.shape[0] != 0:
                _tile_log(zs, beta, ms, sums, losts, log_probs, first, rows)
            if probs.shape[0] != 0:
                _tile_scale(es, sums, losts, spare, zs)
                for r in range(rows):
                    for j in range(k):
                        probs[first + r, j] = zs[j, r]
            for r in range(rows):
                if sums[r] != sums[r]:
                    _fill_nan(probs, log_probs, first + r)
        if labels.shape[0] != 0:
            first = block * tiles_per_block * LANES
            end = min(n, first + tiles_per_block * LANES)
            ties = rests[first:end]
            block_losses(z, labels, beta, ignore_index, first, end, ties, SOME_TIE, maxima, rests, nll, hits, status)
        exchange_float_mode(before)


@compiled
def block_rows(z):
    """Return the number of rows in a block."""
    return max(1, BLOCK_BYTES // (z.shape[1] * z.itemsize))


@compiled
def block_count(z):
    """Return the number of blocks of a matrix."""
    rows = block_rows(z)
    return (z.shape[0] + rows - 1) // rows


# Functions get a matrix and a row number instead of a slice: a slice is an object, and its atomic reference counting
# costs as much as the exponentials of a short row.


@compiled
def _row_maximum(z, i):
    m = z[i, 0]
    for j in range(z.shape[1]):
        m = maximum(m, z[i, j])
    return m


@compiled
def row_exp(z, i, m, beta, out, o, lanes):
    """Store exp(beta * (row i of z - m)) in row o of out and return its sum without one maximum."""
    # Lane l sums the classes l, l + 64, l + 128, ... and keeps the rounding error of each addition. The sum is as exact
    # as its terms, and its order depends only on the number of classes.
    k = z.shape[1]
    lanes[:] = 0.0
    ties = 0
    for start in range(0, k, LANES):
        for lane in range(min(LANES, k - start)):
            x = z[i, start + lane]
            e = shifted_exp(x, m, beta)
            out[o, start + lane] = e
            ties += x == m
            lanes[0, lane], lanes[1, lane] = add_exactly(lanes[0, lane], lanes[1, lane], 0.0 if x == m else e)
    total, lost = sum_lanes(lanes)
    rest, lost = add_exactly(np.float64(ties - 1), lost, total)
    return rest + lost if m - m == 0.0 else np.nan


@compiled
def sum_lanes(lanes):
    """Return the sum of (2, 64) lanes and what it lacks: row 0 has sums, row 1 what they lack. Overwrites the lanes."""
    half = LANES
    while half > 1:
        half //= 2
        for lane in range(half):
            lost = lanes[1, lane] + lanes[1, lane + half]
            lanes[0, lane], lanes[1, lane] = add_exactly(lanes[0, lane], lost, lanes[0, lane + half])
    return lanes[0, 0], lanes[1, 0]


@compiled
def add_exactly(total, lost, term):
    """Return total + term, and lost plus the rounding error of that addition (Knuth's two-sum)."""
    new = total + term
    back = new - total
    return new, lost + ((total - (new - back)) + (term - back))


@compiled
def row_scale(out, i, rest):
    """Divide row i of out by 1 + rest; fill it with NaN if rest is NaN."""
    if rest != rest:
        out[i] = np.nan
        return
    # 1 / sum in two parts of out's type, so that the product is rounded once.
    inverse = 1.0 / (1.0 + rest)
    high = out.dtype.type(inverse)
    low = out.dtype.type(_inverse_error(inverse, high, rest))
    for j in range(out.shape[1]):
        out[i, j] = fma(out[i, j], high, out[i, j] * low)


@compiled
def _fill_nan(probs, log_probs, i):
    for j in range(probs.shape[1]):
        if probs.shape[0] != 0:
            probs[i, j] = np.nan
        if log_probs.shape[0] != 0:
            log_probs[i, j] = np.nan


@compiled
def _inverse_error(inverse, high, rest):
    """Return 1 / (1 + rest) - high, to first order; 1 + rest is carried with its rounding error."""
    total = 1.0 + rest
    back = total - 1.0
    lost = (1.0 - (total - back)) + (rest - back)
    residue = fma(-np.float64(high), total, 1.0) - np.float64(high) * lost
    return residue * inverse


@compiled
def row_log(z, i, m, beta, log_sum, out):
    """Fill row i of out with the log-softmax of row i of z, given log(1 + rest); with NaN if that is NaN."""
    if log_sum != log_sum:
        out[i] = np.nan
        return
    for j in range(out.shape[1]):
        high, low = shifted_logit(z[i, j], m, beta)
        out[i, j] = high + (low - log_sum)


@compiled
def _tile_exp(zs, beta, ms, es, sums, losts):
    """Fill ms with the maxima, es with exp(beta * (zs - ms)), and sums with their sums without one maximum."""
    for r in range(LANES):
        ms[r] = zs[0, r]
    for j in range(1, zs.shape[0]):
        for r in range(LANES):
            ms[r] = maximum(ms[r], zs[j, r])
    for r in range(LANES):
        sums[r] = -1.0
        losts[r] = 0.0
    for j in range(zs.shape[0]):
        for r in range(LANES):
            tie = zs[j, r] == ms[r]
            sums[r] += 1.0 if tie else 0.0
    for j in range(zs.shape[0]):
        for r in range(LANES):
            e = shifted_exp(zs[j, r], ms[r], beta)
            es[j, r] = e
            sums[r], losts[r] = add_exactly(sums[r], losts[r], 0.0 if zs[j, r] == ms[r] else e)
    for r in range(LANES):
        sums[r] = sums[r] + losts[r] if ms[r] - ms[r] == 0.0 else np.nan


@compiled
def _tile_scale(es, sums, highs, lows, out):
    for r in range(LANES):
        highs[r] = 1.0 / (1.0 + sums[r])
        lows[r] = _inverse_error(highs[r], highs[r], sums[r])
    for j in range(es.shape[0]):
        for r in range(LANES):
            out[j, r] = fma(es[j, r], highs[r], es[j, r] * lows[r])


@compiled
def _tile_log(zs, beta, ms, sums, log_sums, out, first, rows):
    for r in range(LANES):
        log_sums[r] = log1p(sums[r])
    for r in range(rows):
        for j in range(zs.shape[0]):
            high, low = shifted_logit(zs[j, r], ms[r], beta)
            out[first + r, j] = high + (low - log_sums[r])

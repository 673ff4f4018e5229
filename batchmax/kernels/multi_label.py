"""Sigmoid probabilities, and the losses of multi-label rows: one loss per class, and their sum.

The classes of a row are independent. With x = beta z and s(x) = max(x, 0) + log1p(exp(-|x|)), the binary cross-entropy
of a class is w y s(-x) + (1 - y) s(x). Each term is computed from x, carried with the rounding error of the product, so
that a loss near 0 keeps its digits.

See Also
--------
``torch.nn.BCEWithLogitsLoss``: the same loss, with the same weights.
"""

import numpy as np
from numba import prange

from batchmax.activations import LOSSES
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, fma, plain
from batchmax.kernels.exp import exp_of_sum, log1p
from batchmax.kernels.softmax.softmax_float64 import add_exactly, block_count, block_rows, sum_lanes
from batchmax.kernels.tiles import LANES

MSE = LOSSES["mse"].number

FLAT = 2048
"""Number of classes, over several rows, that are computed in one loop: a row of few classes can't fill registers."""


@kernel("in float64[:,:], float64, out float64[:,:], out bool[:]")
def sigmoid_rows(z, beta, probs, defined):
    """Compute the sigmoid of beta z.

    Parameters
    ----------
    z : (n, K) float64, C-contiguous
    beta
        The factor on z.
    probs : (n, K) float64, or (0, K) if not needed
        Filled with the probabilities; NaN in rows that have a NaN.
    defined : (n,) bool
        Filled with whether a row has no NaN.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        first, end = block * rows, min(n, (block + 1) * rows)
        if probs.shape[0] != 0:
            flat, found = z[first:end].reshape(-1), probs[first:end].reshape(-1)
            for t in range(flat.shape[0]):
                high, low = _scaled(flat[t], beta)
                found[t] = plain(_sigmoid(high, low))
        for i in range(first, end):
            nans = 0
            for j in range(k):
                nans += z[i, j] != z[i, j]
            defined[i] = nans == 0
            if nans != 0 and probs.shape[0] != 0:
                probs[i] = plain(np.nan)
        exchange_float_mode(before)


@kernel(
    "in float64[:,:], in int64[:], in float64[:,:], float64, int64, in float64[:], in float64[:], "
    "out float64[:,:], out float64[:], out int64[:]"
)
def multi_label_losses(z, labels, targets, beta, loss, weights, positive_weights, entries, losses, counts):
    """Compute the loss of each class of each row, and the sum over the classes that have a target.

    Parameters
    ----------
    z : (n, K) float64, C-contiguous
    labels : (n,) int64, or (0,) if there are targets
        The only class of each row with target 1; a number that isn't a class stands for none.
    targets : (n, K) float64 between 0 and 1, or (0, K)
        NaN where the target is missing.
    beta
        The factor on z.
    loss
        The number of ``mse`` or ``binary_cross_entropy`` in :mod:`batchmax.activations`.
    weights, positive_weights : (K,) float64, finite and not negative
        The factors of a class: on the whole loss, and on the part of the target. ``mse`` has the first only.
    entries : (n, K) float64, or (0, K) if not needed
        Filled with the losses of the classes; NaN where the target is missing. A logit of +-inf that agrees with its
        target has loss 0; otherwise the loss is +inf, unless the weight is 0.
    losses : (n,) float64
        Filled with the sums; undefined in rows that have a NaN. 0 for a row without targets.
    counts : (n,) int64
        Filled with the number of classes with target 1.
    """
    n, k = z.shape
    rows, step = block_rows(z), max(1, FLAT // k)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        end = min(n, (block + 1) * rows)
        scratch, lanes = np.empty((6, step * k)), np.zeros((2, LANES))
        wanted, on, off = scratch[0], scratch[1], scratch[2]
        for r in range(step):
            for j in range(k):
                on[r * k + j] = weights[j] * positive_weights[j]
                off[r * k + j] = weights[j]
        for first in range(block * rows, end, step):
            last = min(end, first + step)
            size = (last - first) * k
            _fill_targets(labels, targets, first, last, wanted, counts)
            flat = z[first:last].reshape(-1)
            if loss == MSE:
                _squared_errors(flat, beta, wanted, off, scratch[3])
            else:
                _cross_entropies(flat, beta, wanted, on, off, scratch)
            for i in range(first, last):
                losses[i] = plain(_sum(scratch[3], (i - first) * k, k, lanes))
            if entries.shape[0] != 0:
                found = entries[first:last].reshape(-1)
                for t in range(size):
                    found[t] = plain(scratch[3, t] if wanted[t] == wanted[t] else np.nan)
        exchange_float_mode(before)


@compiled
def _fill_targets(labels, targets, first, last, wanted, counts):
    """Fill wanted with the targets of some rows, and counts with the number of classes with target 1."""
    k = targets.shape[1]
    if targets.shape[0] != 0:
        flat = targets[first:last].reshape(-1)
        for t in range(flat.shape[0]):
            wanted[t] = flat[t]
        for i in range(first, last):
            count = 0
            for j in range(k):
                count += targets[i, j] == 1.0
            counts[i] = count
        return
    wanted[:] = 0.0
    for i in range(first, last):
        is_class = 0 <= labels[i] < k
        counts[i] = is_class
        if is_class:
            wanted[(i - first) * k + labels[i]] = 1.0


# Each loop does one thing, so that it vectorizes.


@compiled
def _cross_entropies(flat, beta, wanted, on, off, scratch):
    """Fill row 3 of scratch with the losses of classes, 0 where the target is missing; rows 4 and 5 are overwritten."""
    terms, ones, zeros = scratch[3], scratch[4], scratch[5]
    for t in range(flat.shape[0]):
        high, low = _scaled(flat[t], beta)
        rest = log1p(_small_exp(high, low))
        # Of -|x| and |x|: the sum of the two parts is rounded once.
        far = abs(high) + (rest + (low if high >= 0.0 else -low))
        ones[t] = rest if high >= 0.0 else far
        zeros[t] = far if high >= 0.0 else rest
    for t in range(flat.shape[0]):
        y = wanted[t]
        a, b = on[t] * y, off[t] * (1.0 - y)
        one, zero = a * ones[t], b * zeros[t]
        found = (one if a != 0.0 else 0.0) + (zero if b != 0.0 else 0.0)
        terms[t] = found if y == y else 0.0


@compiled
def _squared_errors(flat, beta, wanted, weights, terms):
    """Fill terms with the squared errors of classes, 0 where the target is missing."""
    for t in range(flat.shape[0]):
        y = wanted[t]
        high, low = _scaled(flat[t], beta)
        # 1 - p of a large p is computed as the probability of -x.
        miss = _sigmoid(-high, -low)
        error = miss if y == 1.0 else _sigmoid(high, low) - y
        found = weights[t] * (error * error)
        terms[t] = found if y == y else 0.0


@compiled
def _scaled(z, beta):
    """Return beta z as the unevaluated sum of two float64."""
    high = beta * z
    low = fma(beta, z, -high)
    return high, low if low - low == 0.0 else 0.0


@compiled
def _small_exp(high, low):
    """Return exp(-|x|) of x = high + low."""
    return exp_of_sum(-abs(high), -low if high >= 0.0 else low)


@compiled
def _sigmoid(high, low):
    e = _small_exp(high, low)
    return (1.0 if high >= 0.0 else e) / (1.0 + e)


@compiled
def _sum(terms, first, k, lanes):
    """Return the sum of k terms, of which none is negative, with the rounding errors added at the end."""
    total, lost = 0.0, 0.0
    whole = k // LANES * LANES
    if whole:
        for lane in range(LANES):
            lanes[0, lane] = 0.0
            lanes[1, lane] = 0.0
        for start in range(first, first + whole, LANES):
            for lane in range(LANES):
                lanes[0, lane], lanes[1, lane] = add_exactly(lanes[0, lane], lanes[1, lane], terms[start + lane])
        total, lost = sum_lanes(lanes)
    for j in range(first + whole, first + k):
        total, lost = add_exactly(total, lost, terms[j])
    return total + lost if total - total == 0.0 else total

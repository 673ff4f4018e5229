"""Activations and losses beyond softmax with cross-entropy, and their gradients, row by row in float64.

An activation that is normalized by a sum is given by three short loops: the numerators f(x) with x = beta z, their
logarithms, and their derivatives with respect to z. Probabilities, losses and gradients are derived from these in the
same way for all such activations. To add one, write such a function, call it in :func:`_numerators`, and add it to the
table in :mod:`batchmax.activations`.
"""

import numpy as np
from numba import prange

from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, plain
from batchmax.kernels.exp import exp, log, log1p
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows

SOFTMAX, ARGMAX, SIGMOID, SUM, TAYLOR, SPHERICAL = (activation.number for activation in ACTIVATIONS.values())
CROSS_ENTROPY, HINGE, SQUARED_HINGE, MSE, BINARY_CROSS_ENTROPY, _ = (loss.number for loss in LOSSES.values())

SMALL, LARGE = 1e-100, 1e100
"""Numbers between these limits can be squared and summed without overflow or underflow."""
FAR = 1e300
"""Replaces infinity where a value must be finite."""


@kernel("in float64[:,:], int64, float64, out float64[:,:], out float64[:,:]")
def activate_rows(z, activation, beta, probs, logs):
    """Compute an activation and its logarithms.

    Parameters
    ----------
    z : (n, K) float64, C-contiguous
    activation
        The number of an :class:`batchmax.activations.Activation`.
    beta
        The factor on z.
    probs : (n, K) float64
        Filled with the activation; NaN in rows that have no result.
    logs : (n, K) float64, or (0, K) if not needed
        Filled with the logarithms, which are more exact than log(probs) for small probabilities. For sigmoid, filled
        with beta z clipped to finite values, which has the order of the probabilities even where they round to 1.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        scratch = np.empty((3, k))
        for i in range(block * rows, min(n, (block + 1) * rows)):
            answered = _probs(z, i, activation, beta, scratch, probs[i])
            for j in range(k):
                probs[i, j] = plain(probs[i, j])
            for j in range(k if logs.shape[0] != 0 else 0):
                logs[i, j] = plain(scratch[1, j] if answered else np.nan)
        exchange_float_mode(before)


@kernel("in float64[:,:], in int64[:], in float64[:,:], int64, int64, float64, out float64[:], out float64[:,:]")
def loss_rows(z, labels, targets, activation, loss, beta, out, gradients):
    """Compute losses and their gradients with respect to z.

    Parameters
    ----------
    z : (n, K) float64, C-contiguous
    labels : (n,) int64, or (0,) if there are targets
    targets : (n, K) float64, or (0, K)
    activation, loss
        Numbers of an :class:`batchmax.activations.Activation` and of one of its losses.
    beta
        The factor on z.
    out : (n,) float64
        Filled with the losses; NaN in rows that have no result.
    gradients : (n, K) float64, or (0, K) if not needed
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        scratch = np.empty((5, k))
        probs, wanted, gradient = scratch[3], scratch[4], np.empty(k)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            answered = _probs(z, i, activation, beta, scratch, probs)
            if targets.shape[0] != 0:
                for j in range(k):
                    wanted[j] = targets[i, j]
            else:
                wanted[:] = 0.0
                wanted[labels[i]] = 1.0
            found = np.nan
            if not answered:
                gradient[:] = np.nan
            elif loss == CROSS_ENTROPY:
                found = _cross_entropy(scratch, wanted, gradient)
            elif loss == MSE:
                found = _mse(z, i, beta, probs, wanted, scratch[2], activation, gradient)
            elif loss == BINARY_CROSS_ENTROPY:
                found = _binary_cross_entropy(z, i, beta, probs, wanted, gradient)
            else:
                found = _hinge(z, i, beta, labels[i], loss == SQUARED_HINGE, gradient)
            out[i] = plain(found)
            if gradients.shape[0] != 0:
                for j in range(k):
                    gradients[i, j] = plain(gradient[j])
        exchange_float_mode(before)


@compiled
def _probs(z, i, activation, beta, scratch, probs):
    """Fill probs, and scratch with numerators, logarithms and derivatives; return False if the row has no result."""
    k = z.shape[1]
    if activation == SIGMOID:
        for j in range(k):
            x = beta * z[i, j]
            e = exp(-abs(x))
            probs[j] = 1.0 / (1.0 + e) if x >= 0 else e / (1.0 + e)
            scratch[1, j] = min(max(x, -FAR), FAR)
            scratch[2, j] = beta * e / ((1.0 + e) * (1.0 + e))
            if x != x:
                return _none(probs)
        return True
    if not _numerators(z, i, activation, beta, scratch[0], scratch[1], scratch[2]):
        return _none(probs)
    total = 0.0
    for j in range(k):
        total += scratch[0, j]
    if not 0.0 < abs(total) < np.inf:
        return _none(probs)
    # Divided by the sum, the derivatives of the numerators are the derivatives of log(sum).
    log_total = log(abs(total))
    for j in range(k):
        if not (scratch[0, j] == 0.0 or (scratch[0, j] > 0.0) == (total > 0.0)):
            return _none(probs)
        probs[j] = scratch[0, j] / total
        scratch[1, j] -= log_total
        scratch[2, j] /= total
    return True


@compiled
def _none(probs):
    probs[:] = np.nan
    return False


@compiled
def _numerators(z, i, activation, beta, f, logs, slopes):
    if activation == SOFTMAX:
        return _softmax(z, i, beta, f, logs, slopes)
    if activation == ARGMAX:
        return _argmax(z, i, f, logs, slopes)
    if activation == SUM:
        return _sum(z, i, f, logs, slopes)
    if activation == TAYLOR:
        return _taylor(z, i, beta, f, logs, slopes)
    return _spherical(z, i, f, logs, slopes)


@compiled
def _softmax(z, i, beta, f, logs, slopes):
    m = z[i, 0]
    for j in range(z.shape[1]):
        m = z[i, j] if z[i, j] > m or z[i, j] != z[i, j] else m
    for j in range(z.shape[1]):
        logs[j] = beta * (z[i, j] - m)
        f[j] = exp(logs[j])
        slopes[j] = beta * f[j]
    return abs(m) < np.inf


@compiled
def _argmax(z, i, f, logs, slopes):
    best = 0
    for j in range(z.shape[1]):
        if not abs(z[i, j]) < np.inf and z[i, j] != -np.inf:
            return False
        best = j if z[i, j] > z[i, best] else best
        f[j] = 0.0
        logs[j] = -np.inf
        slopes[j] = 0.0
    f[best] = 1.0
    logs[best] = 0.0
    return z[i, best] > -np.inf


@compiled
def _sum(z, i, f, logs, slopes):
    unit = _unit(_largest(z, i))
    for j in range(z.shape[1]):
        f[j] = z[i, j] / unit
        logs[j] = log(abs(f[j]))
        slopes[j] = 1.0 / unit
    return 0.0 < unit < np.inf


@compiled
def _taylor(z, i, beta, f, logs, slopes):
    unit = _unit(max(1.0, beta * _largest(z, i)))
    for j in range(z.shape[1]):
        x = (1.0 + beta * z[i, j]) / unit
        f[j] = 0.5 * (1.0 / (unit * unit) + x * x)
        logs[j] = log(f[j])
        slopes[j] = beta * x / unit
    return unit < np.inf


@compiled
def _spherical(z, i, f, logs, slopes):
    unit = _unit(_largest(z, i))
    for j in range(z.shape[1]):
        x = z[i, j] / unit
        f[j] = x * x
        logs[j] = 2.0 * log(abs(x))
        slopes[j] = 2.0 * x / unit
    return 0.0 < unit < np.inf


@compiled
def _unit(largest):
    """Return a divisor that keeps squares from overflowing and from all underflowing; 1 for ordinary rows."""
    return 1.0 if SMALL < largest < LARGE else largest


@compiled
def _largest(z, i):
    """Return the largest absolute value of a row's logits, NaN if a logit is NaN."""
    found = 0.0
    for j in range(z.shape[1]):
        size = abs(z[i, j])
        found = size if size > found or size != size else found
    return found


@compiled
def _cross_entropy(scratch, wanted, gradient):
    f, logs, slopes = scratch[0], scratch[1], scratch[2]
    total = 0.0
    for j in range(wanted.shape[0]):
        total += wanted[j]
    loss = 0.0
    for j in range(wanted.shape[0]):
        gradient[j] = total * slopes[j]
        if wanted[j] != 0.0:
            loss -= wanted[j] * logs[j]
            # Derivative of the log numerator: (slope / sum) / (numerator / sum).
            gradient[j] -= wanted[j] * slopes[j] / scratch[3, j]
    return loss if f.shape[0] else 0.0


@compiled
def _mse(z, i, beta, probs, wanted, slopes, activation, gradient):
    loss = 0.0
    shared = 0.0
    for j in range(probs.shape[0]):
        off = probs[j] - wanted[j]
        if wanted[j] == 1.0:
            # 1 - p is computed as the sum of the other probabilities: subtracting p from 1 would lose all digits if p
            # is near 1.
            if activation == SIGMOID:
                off = -1.0 / (1.0 + exp(beta * z[i, j]))
            else:
                off = 0.0
                for other in range(probs.shape[0]):
                    off -= probs[other] if other != j else 0.0
        gradient[j] = off
        loss += off * off
        shared += off * probs[j]
    for j in range(probs.shape[0]):
        gradient[j] = 2.0 * slopes[j] * (gradient[j] if activation == SIGMOID else gradient[j] - shared)
    return loss


@compiled
def _binary_cross_entropy(z, i, beta, probs, wanted, gradient):
    loss = 0.0
    for j in range(probs.shape[0]):
        x = beta * z[i, j]
        # log(1 + exp(x)) - y x without overflow or cancellation. An infinite x that agrees with its target adds 0.
        loss += log1p(exp(-abs(x)))
        if x > 0.0:
            loss += (1.0 - wanted[j]) * x if wanted[j] != 1.0 else 0.0
        else:
            loss -= wanted[j] * x if wanted[j] != 0.0 else 0.0
        gradient[j] = beta * (probs[j] - wanted[j])
    return loss


@compiled
def _hinge(z, i, beta, y, squared, gradient):
    gradient[:] = 0.0
    other = -1
    for j in range(z.shape[1]):
        if j != y and (other < 0 or z[i, j] > z[i, other]):
            other = j
    if other < 0:
        return 0.0
    margin = 1.0 + beta * (z[i, other] - z[i, y])
    if not margin > 0.0:
        return 0.0 if margin == margin else np.nan
    slope = beta * (2.0 * margin if squared else 1.0)
    gradient[other] = slope
    gradient[y] = -slope
    return margin * margin if squared else margin

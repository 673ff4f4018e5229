"""Cross-entropy with a weight per class, for target distributions and for the uniform part of label smoothing."""

import numpy as np
from numba import prange

from batchmax.kernels.dispatch import kernel
from batchmax.kernels.exp import log1p, shifted_logit
from batchmax.kernels.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.intrinsics import compiled, plain
from batchmax.kernels.softmax import LANES, add_exactly, block_count, block_rows


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
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        for i in range(block * rows, min(z.shape[0], (block + 1) * rows)):
            m = z.dtype.type(maxima[i])
            losses[i] = _row_loss(z, targets, i, class_weights, smoothing, beta, m, rests[i])
        exchange_float_mode(before)


@compiled
def _row_loss(z, targets, i, class_weights, smoothing, beta, m, rest):
    if rest != rest:
        return np.nan
    k = z.shape[1]
    log_sum = log1p(rest)
    lanes = np.zeros((2, LANES), np.float64)
    for start in range(0, k, LANES):
        for lane in range(min(LANES, k - start)):
            j = start + lane
            y = np.float64(targets[i, j]) if targets.shape[0] != 0 else 0.0
            t = class_weights[j] * ((1.0 - smoothing) * y + smoothing / k)
            high, low = shifted_logit(z[i, j], m, beta)
            term = 0.0 if t == 0.0 else t * ((log_sum - low) - high)
            lanes[0, lane], lanes[1, lane] = add_exactly(lanes[0, lane], lanes[1, lane], term)
    total = 0.0
    lost = 0.0
    for lane in range(LANES):
        total, lost = add_exactly(total, lost + lanes[1, lane], lanes[0, lane])
    return plain(total + lost if total - total == 0.0 else total)

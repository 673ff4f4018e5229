"""The KL divergence of two multi-label predictions: the sum over the classes of a row, which are independent."""

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled, plain
from batchmax.kernels.exp import exp, log1p
from batchmax.kernels.kl_divergence import SMALL, excess
from batchmax.kernels.softmax.softmax_float64 import add_exactly, block_count, block_rows


@kernel("in float64[:,:], in float64[:,:], float64, float64, out float64[:]")
def class_divergence_rows(a, b, beta_a, beta_b, kl):
    """Fill kl with the sum over classes of KL(p || q) in nats, p and q the sigmoids of a's and b's scaled logits.

    As in :func:`batchmax.kernels.kl_divergence.divergence_double`, no term is negative: the result is precise for rows
    that are almost equal, and 0 for equal rows.

    Parameters
    ----------
    a, b : (n, K) float64, C-contiguous
    beta_a, beta_b
        The inverse temperatures.
    kl : (n,) float64
        +inf if b has probability 0 or 1 for a class, and a another one. NaN in rows with a NaN.
    """
    rows = block_rows(a)
    for block in prange(block_count(a)):
        before = exchange_float_mode(STANDARD)
        for i in range(block * rows, min(a.shape[0], (block + 1) * rows)):
            total, lost = 0.0, 0.0
            for j in range(a.shape[1]):
                total, lost = add_exactly(total, lost, _of_class(beta_a * a[i, j], beta_b * b[i, j]))
            kl[i] = plain(total + lost if total - total == 0.0 else total)
        exchange_float_mode(before)


@compiled
def _of_class(x, y):
    """Return the divergence of a class with log-odds x from one with y."""
    if x == y:
        return 0.0
    if abs(y) == np.inf:
        return np.nan if x != x else np.inf
    # The divergence is the same if both classes are exchanged.
    x, y = (x, y) if x >= 0.0 else (-x, -y)
    rest_x, rest_y = exp(-abs(x)), exp(-abs(y))
    p, other_p = 1.0 / (1.0 + rest_x), rest_x / (1.0 + rest_x)
    q, other_q = 1.0 / (1.0 + rest_y), rest_y / (1.0 + rest_y)
    # The differences of the logarithms of the probabilities, of x >= 0.
    difference = log1p(rest_x) - log1p(rest_y)
    if y >= 0.0:
        return _term(p, q, difference) + _term(other_p, other_q, (x - y) + difference)
    return _term(p, other_q, y + difference) + _term(other_p, q, x + difference)


@compiled
def _term(p, q, d):
    """Return p (exp(d) - 1 - d), where d = log(q / p)."""
    if p == 0.0:
        return q
    return p * excess(d) if abs(d) <= SMALL else (q - p) - p * d

"""exp, expm1, log and log1p of arrays, with the same bits on every CPU; NumPy's differ in the last bits."""

from numba import prange, types
from numba.extending import overload

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.exp import exp, expm1, log, log1p, log_single


@kernel("in float64[:], out float64[:]", parallel=False)
def exp_values(values, out):
    """Fill out with exp(values), both (n,) float64."""
    for i in range(values.shape[0]):
        out[i] = exp(values[i])


@kernel("in float64[:], out float64[:]", parallel=False)
def expm1_values(values, out):
    """Fill out with exp(values) - 1, both (n,) float64."""
    for i in range(values.shape[0]):
        out[i] = expm1(values[i])


@kernel("in float64[:], out float64[:]", parallel=False)
def log1p_values(values, out):
    """Fill out with log(1 + values), both (n,) float64; values are >= 0 or NaN."""
    for i in range(values.shape[0]):
        out[i] = log1p(values[i])


BLOCK = 1 << 15
"""Numbers that a thread computes at a time."""


@kernel("in real[:,:], out real[:,:]")
def log_matrix(values, out):
    """Fill out with log(values), both (n, K) float32 or float64, C-contiguous; -inf for 0, NaN for negative values."""
    # Rows don't matter, and the end of a short row takes as long as the row.
    numbers, logs = values.reshape(-1), out.reshape(-1)
    for block in prange((numbers.shape[0] + BLOCK - 1) // BLOCK):
        before = exchange_float_mode(STANDARD)
        some, some_logs = numbers[block * BLOCK : (block + 1) * BLOCK], logs[block * BLOCK : (block + 1) * BLOCK]
        for j in range(some.shape[0]):
            some_logs[j] = _log(some[j])
        exchange_float_mode(before)


def _log(x):
    """Return log(x) as a number of x's type."""


@overload(_log, inline="never")
def _log_of_type(x):
    return (lambda x: log_single(x)) if x == types.float32 else (lambda x: log(x))

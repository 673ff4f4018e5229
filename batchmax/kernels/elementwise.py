"""exp, log and log1p of arrays, with the same bits on every CPU; NumPy's differ in the last bits."""

from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.exp import exp, log, log1p
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows


@kernel("in float64[:], out float64[:]", parallel=False)
def exp_values(values, out):
    """Fill out with exp(values), both (n,) float64."""
    for i in range(values.shape[0]):
        out[i] = exp(values[i])


@kernel("in float64[:], out float64[:]", parallel=False)
def log1p_values(values, out):
    """Fill out with log(1 + values), both (n,) float64; values are >= 0 or NaN."""
    for i in range(values.shape[0]):
        out[i] = log1p(values[i])


@kernel("in real[:,:], out real[:,:]")
def log_matrix(values, out):
    """Fill out with log(values), both (n, K) float32 or float64, C-contiguous; -inf for 0, NaN for negative values."""
    n, k = values.shape
    rows = block_rows(values)
    for block in prange(block_count(values)):
        before = exchange_float_mode(STANDARD)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            for j in range(k):
                out[i, j] = log(values[i, j])
        exchange_float_mode(before)

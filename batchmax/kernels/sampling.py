"""Random draws of one class per row from its probabilities, with a counter-based random number generator.

Classes are drawn with the Gumbel-max trick in the form of an exponential race: if the E_j are exponentially
distributed, the class of the smallest E_j / p_j is j with probability p_j (Maddison et al. 2014, arXiv 1411.0030, use
the equivalent maximum of log p_j - log E_j).

E_j = -log u_j with u_j = ((b_j >> 11) + 0.5) / 2**53. The 64 bits b_j are output j of SplitMix64 (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators") seeded with output r of SplitMix64 seeded with output 0 of
SplitMix64 seeded with the seed. r is the row's number; for token t of a sequence, r = 2**32 * row + t. All numbers
count from 0. A draw therefore depends only on the seed, the row's number and the row's logits. :func:`split_mix`
computes any output directly. Its state isn't 0 for small seeds, rows and classes, so no stream begins with an extreme
number.
"""

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.exp import log, shifted_exp
from batchmax.kernels.softmax.softmax_float64 import block_count, block_rows

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
UNIT = 2.0**-53


@kernel("in real[:,:], float64, in float64[:], in float64[:], uint64, uint64, out int32[:]")
def sample_rows(z, beta, maxima, rests, seed, first_row, classes):
    """Fill classes with random draws.

    Parameters
    ----------
    z : (n, K) float32 or float64, C-contiguous, read-only
    beta
        The inverse temperature.
    maxima, rests : (n,) float64
        Results of the softmax kernels.
    seed, first_row : uint64
        The random seed, and the number of z's first row in the input.
    classes : (n,) int32
        The drawn class; -1 if the row has no probabilities.
    """
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        times = np.empty(z.shape[1])
        for i in range(block * rows, min(z.shape[0], (block + 1) * rows)):
            classes[i] = -1
            if rests[i] == rests[i]:
                row_seed = split_mix(split_mix(seed, np.uint64(0)), first_row + np.uint64(i))
                classes[i] = _first_of_race(z, i, z.dtype.type(maxima[i]), beta, row_seed, times)
        exchange_float_mode(before)


@compiled
def _first_of_race(z, i, m, beta, row_seed, times):
    k = z.shape[1]
    for j in range(k):
        bits = split_mix(row_seed, np.uint64(j))
        # u is above 0 and below 1, so E_j is neither 0 nor infinite.
        u = (np.float64(np.int64(bits >> np.uint64(11))) + 0.5) * UNIT
        times[j] = -log(u) / shifted_exp(z[i, j], m, beta)
    least = times[0]
    for j in range(k):
        least = times[j] if times[j] < least else least
    best = k
    for j in range(k):
        best = min(best, j if times[j] == least else k)
    return best


@compiled
def split_mix(seed, n):
    """Return output n, from 0, of SplitMix64 with a seed; both are uint64."""
    x = seed + (n + np.uint64(1)) * GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""exp(beta * (z - m)) of 16 float32 logits at a time, in float32.

With c = beta / ln 2, and c * z split into the nearest integer n and the remainder r, |r| <= 1/2,

    exp(beta * (z - m)) = 2**(n - n_m) * 2**r / 2**r_m        (m is the largest logit, n_m and r_m are its parts)

so the logits need not be shifted: the maximum only keeps exponents in range, and 2**r_m cancels when a probability is
divided by the sum. r = c * z - n is computed by two fused multiply-adds, with c in two float32, ``high`` and ``low``;
its only errors are the two roundings, however far z is from m. This is the range reduction of the two-pass softmax
(Dukhan and Ablavatski 2020, arXiv 2001.04438). Rejected: the difference of two float32, which needs its rounding error
carried along, and float64, which has half the lanes and as many operations. Sums of exponentials are float64.

Until they are divided by their sum, exponentials are scaled by 2**64, so that neither they nor their factors are
subnormal. n is exact if the absolute value of the largest logit is below 2**16 / c. Rows with a larger one, NaN or
infinity are not *ordinary*, and are computed in float64.
"""

import numpy as np

from batchmax.kernels.compiler.intrinsics import compiled, fma
from batchmax.kernels.compiler.simd import add_exponents, at_least, fma_lanes
from batchmax.kernels.exp import LOG2_E, exp2_single

FARTHEST = 2.0**16
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**100
"""Between these limits, c and its second part are float32 with full precision."""

SHIFT = np.float32(64)
SCALE = 2.0**64
UNSHIFT = np.float32(2.0**-64)
LOWEST_EXP2 = np.float32(-250.0)
"""2**this * 2**SHIFT rounds to 0. Exponentials are kept down to 2**-190; a million smaller ones don't change a loss."""

# Adding 1.5 * 2**23 rounds to an integer and leaves that integer in the low bits of the sum.
SINGLE_ROUNDER = np.float32(1.5 * 2.0**23)

# The Chebyshev fit of (2**r - 1) / r, degree 5, so that 2**0 is exactly 1; the relative error of 2**r is 2**-27.5.
Q0 = np.float32(0.6931471882073744)
Q1 = np.float32(0.24022650762136585)
Q2 = np.float32(0.055503562479538596)
Q3 = np.float32(0.009618081807260493)
Q4 = np.float32(0.0013391323592631223)
Q5 = np.float32(0.00015453561402005238)
ONE = np.float32(1.0)


@compiled
def scale_parts(beta):
    """Return c = beta / ln 2, and its two float32 parts."""
    c = beta * LOG2_E
    high = np.float32(c)
    return c, high, np.float32(c - high)


@compiled
def is_ordinary(m, c):
    """Return whether a row whose largest logit is m can be computed in float32."""
    return abs(m) * c < FARTHEST and SMALLEST_SCALE < c < LARGEST_SCALE


@compiled
def bounds(m, high):
    """Return two vectors for rows with these maxima: logits below which exp is 0, and what rounds c * z to n - n_m."""
    rounder = (SINGLE_ROUNDER - fma_lanes(m, high, SINGLE_ROUNDER)) + (SINGLE_ROUNDER + SHIFT)
    return m + LOWEST_EXP2 / high, rounder


@compiled
def scaled_exp(z, high, low, lowest, rounder):
    """Return exp(beta * (z - m)) * 2**r_m * 2**SHIFT for 16 logits z; 0 below 2**-190."""
    z = at_least(z, lowest)
    rounded = fma_lanes(z, high, rounder)
    r = fma_lanes(z, low, fma_lanes(z, high, rounder - rounded))
    q = fma_lanes(r, Q5, Q4)
    q = fma_lanes(r, q, Q3)
    q = fma_lanes(r, q, Q2)
    q = fma_lanes(r, q, Q1)
    q = fma_lanes(r, q, Q0)
    return add_exponents(fma_lanes(r, q, ONE), rounded)


@compiled
def scaled_unit(m, c, high):
    """Return exp(0) * 2**r_m * 2**SHIFT as a float64, for the largest logit m: the unit of a row's exponentials."""
    n = fma(m, high, SINGLE_ROUNDER) - SINGLE_ROUNDER
    return exp2_single(c * np.float64(m) - n + SHIFT)

"""Scalar functions: shifted logits and their exponentials, exp, expm1, log and log1p.

Shifted logits and their exponentials have two versions, chosen by the type of the logit. A float32 logit is computed in
float64, where the difference to the maximum, the product with beta, and the sum over a million classes each lose less
than a thousandth of a float32 ULP; the polynomial is only as exact as float32 needs. For float64 logits there is no
wider type, so the difference and the product are unevaluated sums of two float64 (Knuth's two-sum; a product and its
fused remainder), and the exponential takes both parts.

Loops that call these functions vectorize, because the functions have no branches, tables or calls. The results have the
same bits on every system. ``math.exp`` calls the C library, whose results depend on its version and on the CPU.

See Also
--------
Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., chapters 4 (two-sum) and 11 (range reduction).
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from batchmax.kernels.compiler.intrinsics import bits_of, compiled, float_of, fma

LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has 33 significant bits, so that its product with an exponent of 11 bits is exact.
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
# Adding 1.5 * 2**52 rounds to an integer and leaves that integer in the low bits of the sum.
ROUNDER = 6755399441055744.0
ROUNDER_BITS = 0x4338000000000000
# exp2 of this is far below the smallest float32 but still a normal float64, so its exponent bits need no range check.
LOWEST_EXP2 = -1000.0
# exp of this is below half the smallest subnormal float64.
LOWEST_EXP = -746.0
# exp of this is far below half an ULP of 1.
LOWEST_EXPM1 = -60.0
# exp of this is above the largest float64.
HIGHEST_EXP = 710.0
HUGE = 2.0**1021
SMALLEST_NORMAL = 2.0**-1022
LN_2 = 0.6931471805599453
SMALLEST_NORMAL_SINGLE = np.float32(2.0**-126)
TO_NORMAL_SINGLE = np.float32(2.0**23)


def shifted_logit(z, m, beta):
    """Return beta * (z - m) as the unevaluated sum of two float64; -inf if z is -inf.

    Parameters
    ----------
    z, m
        A logit and the largest logit of its row, both float32 or both float64.
    beta
        The inverse temperature, float64.
    """


@overload(shifted_logit, inline="never")
def _shifted_logit(z, m, beta):
    if z == types.float32:
        return lambda z, m, beta: (beta * (np.float64(z) - np.float64(m)), 0.0)
    return lambda z, m, beta: _shifted_logit_double(z, m, beta)


@compiled
def _shifted_logit_double(z, m, beta):
    # The difference of two numbers near the largest float64 overflows. Their quarters are exact, and their difference
    # doesn't.
    huge = abs(z) > HUGE or abs(m) > HUGE
    z = 0.25 * z if huge else z
    m = 0.25 * m if huge else m
    beta = 4.0 * beta if huge else beta
    difference = z - m
    back = difference - z
    lost = (z - (difference - back)) - (m + back)
    high = beta * difference
    low = fma(beta, difference, -high) + beta * lost
    # The remainder doesn't matter far below any exponential that counts, and it is NaN for infinities.
    low = 0.0 if high < LOWEST_EXP else low
    return high, low


def shifted_exp(z, m, beta):
    """Return exp(beta * (z - m)) as a float64 for z <= m; NaN if an argument is NaN or m is infinite.

    For float32 logits the relative error is below 2**-27; for float64 logits the error is below 0.8 ULP, including
    subnormal results.
    """


@overload(shifted_exp, inline="never")
def _shifted_exp(z, m, beta):
    if z == types.float32:
        return lambda z, m, beta: exp2_single((beta * LOG2_E) * (np.float64(z) - np.float64(m)))
    return lambda z, m, beta: exp_of_sum(*_shifted_logit_double(z, m, beta))


@compiled
def exp2_single(x):
    """Return 2**x of a float64 x < 1000, exact enough for float32; NaN for NaN."""
    # 2**x = 2**n * 2**r with |r| <= 1/2. The polynomial is the Chebyshev fit of (2**r - 1) / r, degree 5, so that 2**0
    # is exactly 1; its relative error is 2**-27.5. The comparison is written so that NaN stays NaN.
    x = LOWEST_EXP2 if x < LOWEST_EXP2 else x
    rounded = x + ROUNDER
    r = x - (rounded - ROUNDER)
    p = fma(r, 0.0001545316294512069, 0.0013390863364671234)
    p = fma(r, p, 0.009618082557277852)
    p = fma(r, p, 0.05550357114219078)
    p = fma(r, p, 0.24022650760568126)
    p = fma(r, p, 0.6931471880262288)
    p = fma(r, p, 1.0)
    return float_of(bits_of(p) + (bits_of(rounded) << 52))


@compiled
def exp_of_sum(high, low):
    """Return exp(high + low) to 0.8 ULP, also if subnormal, for a sum of at most 710 and a far smaller low."""
    # exp(x) = 2**n * exp(r) with |r| <= ln(2)/2, where r is in two parts.
    low = 0.0 if high < LOWEST_EXP else low
    high = LOWEST_EXP if high < LOWEST_EXP else high
    rounded = fma(high, LOG2_E, ROUNDER)
    n = rounded - ROUNDER
    near = fma(-n, LN2_HIGH, high)
    rest = fma(-n, LN2_LOW, low)
    r = near + rest
    rest = (near - r) + rest
    e = 1.0 + (r + fma(r * r, _second_order(r), fma(r, rest, rest)))
    # 2**n is applied as two factors: n reaches -1077, and a subnormal result must be rounded only once, by the second
    # product.
    whole = bits_of(rounded) - ROUNDER_BITS
    half = whole >> 1
    return e * float_of((half + 1023) << 52) * float_of((whole - half + 1023) << 52)


@compiled
def _second_order(r):
    """Return (exp(r) - 1 - r) / r**2 for |r| <= ln(2)/2."""
    # The Taylor series of exp(r) to r**13 / 13! has a truncation error of 2**-57.
    q = fma(r, 1 / 6227020800, 1 / 479001600)
    q = fma(r, q, 1 / 39916800)
    q = fma(r, q, 1 / 3628800)
    q = fma(r, q, 1 / 362880)
    q = fma(r, q, 1 / 40320)
    q = fma(r, q, 1 / 5040)
    q = fma(r, q, 1 / 720)
    q = fma(r, q, 1 / 120)
    q = fma(r, q, 1 / 24)
    q = fma(r, q, 1 / 6)
    return fma(r, q, 1 / 2)


@compiled
def exp(x):
    """Return exp(x) of a float64 to 0.8 ULP, also if subnormal; +inf above the largest float64, NaN for NaN."""
    return exp_of_sum(HIGHEST_EXP if x > HIGHEST_EXP else x, 0.0)


@compiled
def expm1(x):
    """Return exp(x) - 1 of a float64 x <= 0 to about one ULP; NaN for NaN."""
    # 2**n * (exp(r) - 1) + (2**n - 1). With n = 0 the second part is 0, and otherwise nothing cancels.
    x = LOWEST_EXPM1 if x < LOWEST_EXPM1 else x
    rounded = fma(x, LOG2_E, ROUNDER)
    n = rounded - ROUNDER
    near = fma(-n, LN2_HIGH, x)
    rest = fma(-n, LN2_LOW, 0.0)
    r = near + rest
    rest = (near - r) + rest
    scale = float_of((bits_of(rounded) - ROUNDER_BITS + 1023) << 52)
    return fma(scale, r + fma(r * r, _second_order(r), fma(r, rest, rest)), scale - 1.0)


@compiled
def log(x):
    """Return log(x) of a float64 to about one ULP; -inf for 0, NaN for negative numbers and NaN."""
    # Subnormal numbers are scaled to normal ones first.
    is_small = x < SMALLEST_NORMAL
    found = _log_of(x * 2.0**54 if is_small else x, 0.0, -54.0 if is_small else 0.0)
    found = found if x < np.inf else x
    found = found if x != 0.0 else -np.inf
    return found if x >= 0.0 else np.nan


@compiled
def log_single(x):
    """Return log(x) of a float32, as a float32, to 0.6 ULP; -inf for 0, NaN for negative numbers and NaN."""
    # log(1 + f) = f - f**2 / 2 + f**3 q(f), where q is a float32 polynomial (Cephes, ``logf.c``), and the rest float64.
    is_small = x < SMALLEST_NORMAL_SINGLE
    bits = bits_of(x * TO_NORMAL_SINGLE if is_small else x)
    k = ((bits + np.int32(0x3F800000 - 0x3F3504F3)) >> np.int32(23)) - np.int32(127)
    f = float_of(np.int32(bits - np.int32(k << np.int32(23)))) - np.float32(1.0)
    q = fma(f, np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1))
    q = fma(f, q, np.float32(1.1676998740e-1))
    q = fma(f, q, np.float32(-1.2420140846e-1))
    q = fma(f, q, np.float32(1.4249322787e-1))
    q = fma(f, q, np.float32(-1.6668057665e-1))
    q = fma(f, q, np.float32(2.0000714765e-1))
    q = fma(f, q, np.float32(-2.4999993993e-1))
    q = fma(f, q, np.float32(3.3333331174e-1))
    n = np.float64(k) - (23.0 if is_small else 0.0)
    wide = np.float64(f)
    found = np.float32(fma(n, LN_2, fma(wide * wide, fma(wide, np.float64(q), -0.5), wide)))
    found = found if x < np.float32(np.inf) else x
    found = found if x != np.float32(0.0) else np.float32(-np.inf)
    return found if x >= np.float32(0.0) else np.float32(np.nan)


@compiled
def log1p(x):
    """Return log(1 + x) of a float64 x >= 0 to about one ULP; NaN for NaN."""
    # 1 + x is carried with its rounding error.
    u = 1.0 + x
    back = u - 1.0
    lost = (1.0 - (u - back)) + (x - back)
    return _log_of(u, lost / u, 0.0)


@compiled
def _log_of(u, rest, exponent):
    """Return log(u) + exponent * log(2) + rest, for a normal number u > 0 and a rest far smaller than the logarithm.

    u is split into 2**k * (1 + f) with 1 + f between sqrt(1/2) and sqrt(2). log(1 + f) is the series of
    2 artanh(f / (2 + f)), arranged as in FreeBSD's ``e_log.c``.
    """
    bits = bits_of(u)
    # Adding the bits of 1 minus those of sqrt(1/2) moves the boundary between two exponents to sqrt(2).
    k = ((bits + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)) >> 52) - 1023
    f = float_of(bits - (k << 52)) - 1.0
    s = f / (2.0 + f)
    t = s * s
    q = fma(t, 2 / 21, 2 / 19)
    q = fma(t, q, 2 / 17)
    q = fma(t, q, 2 / 15)
    q = fma(t, q, 2 / 13)
    q = fma(t, q, 2 / 11)
    q = fma(t, q, 2 / 9)
    q = fma(t, q, 2 / 7)
    q = fma(t, q, 2 / 5)
    q = fma(t, q, 2 / 3)
    half_square = 0.5 * f * f
    n = np.float64(k) + exponent
    small = fma(n, LN2_LOW, rest) + s * fma(t, q, half_square)
    return fma(n, LN2_HIGH, f - (half_square - small))

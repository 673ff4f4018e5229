"""One row in exact arithmetic: decimal numbers with 34 digits, and the distance of a float from them in ULP.

Recomputes by their definitions what the kernels compute, with Python's ``decimal`` and without any of the kernels'
code, to check the kernels' results. Works on numbers; doesn't know columns or files.

See Also
--------
``tests/support/oracle.py``: the same values computed in wide floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, InvalidOperation
from functools import cached_property
from typing import Any

import numpy as np

MOST_ULPS = 3.0
"""Tolerance in ULP of a probability or a loss."""

# Operators such as + would use the caller's decimal context, so this module always calls methods of EXACT.
EXACT = Context(prec=34, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation, DivisionByZero])
# With 34 digits, an exponent of -745 has 31 digits after the point, so exp of it has about 31 correct digits; float64
# has 16.
_ZERO, _ONE, _INFINITE = Decimal(0), Decimal(1), Decimal("Infinity")
_NEGLIGIBLE = Decimal(-12_000)
"""exp of this is below the range of every float type, even summed over a million classes."""


class ExactRow:
    """Exact probabilities and losses of one row. The logits and beta are converted to decimals without rounding.

    Parameters
    ----------
    logits
        The K logits: finite or -inf, not all -inf.
    beta
        The inverse temperature.
    """

    def __init__(self, logits: Sequence[float], beta: float) -> None:
        largest, factor = Decimal(max(logits)), Decimal(beta)
        # Logits of few bits repeat, and computing exp takes a hundred times as long as a look-up.
        known: dict[float, tuple[Decimal, Decimal]] = {}
        for logit in logits:
            if logit not in known:
                # Decimal operands are exact, and each result is rounded once.
                shifted = EXACT.multiply(factor, EXACT.subtract(Decimal(logit), largest))
                known[logit] = shifted, EXACT.exp(shifted) if shifted > _NEGLIGIBLE else _ZERO
        terms = [known[logit] for logit in logits]
        self._set([shifted for shifted, _ in terms], [power for _, power in terms])
        self._largest = EXACT.multiply(factor, largest)

    def _set(self, shifted: list[Decimal], powers: list[Decimal]) -> None:
        """Set the numerators, scaled so that the largest is 1, and their logarithms."""
        self._shifted, self._powers = shifted, powers
        others = list(powers)
        others[max(range(len(powers)), key=powers.__getitem__)] = _ZERO
        self._rest = _sum(others)

    @cached_property
    def probs(self) -> list[Decimal]:
        """The K probabilities."""
        total = EXACT.add(_ONE, self._rest)
        return [EXACT.divide(power, total) for power in self._powers]

    @cached_property
    def log_probs(self) -> list[Decimal]:
        """The K log-probabilities."""
        return [EXACT.subtract(shifted, self._log_sum) for shifted in self._shifted]

    @property
    def logsumexp(self) -> Decimal:
        """The logarithm of the sum of the exponentials of beta times the logits."""
        return EXACT.add(self._largest, self._log_sum)

    @property
    def largest(self) -> Decimal:
        """Beta times the largest logit."""
        return self._largest

    def loss(
        self, target: int | Sequence[float], weights: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> Decimal:
        """Return the cross-entropy in nats against a class or a distribution, as ``torch`` defines it.

        Classes with a target of 0 contribute 0, even where the log-probability is -inf.
        """
        n_classes = len(self._shifted)
        smoothing = Decimal(label_smoothing)
        uniform = EXACT.divide(smoothing, Decimal(n_classes))
        left = EXACT.subtract(_ONE, smoothing)
        if isinstance(target, int):
            shares = {target: left}
        else:
            shares = {index: EXACT.multiply(left, Decimal(share)) for index, share in enumerate(target) if share}
        parts = []
        for index in range(n_classes) if uniform else shares:
            share = EXACT.add(shares.get(index, _ZERO), uniform)
            if weights is not None:
                share = EXACT.multiply(share, Decimal(weights[index]))
            if share:
                # A sum of two non-negative terms: no cancellation.
                parts.append(EXACT.multiply(share, EXACT.subtract(self._log_sum, self._shifted[index])))
        return _sum(parts)

    @cached_property
    def _log_sum(self) -> Decimal:
        """log(1 + rest), accurate also where ``rest`` is tiny."""
        rest = self._rest
        if rest.adjusted() < -EXACT.prec // 2:
            # The terms of x - x**2/2 + x**3/3 … after the second are smaller than the last digit.
            return EXACT.subtract(rest, EXACT.divide(EXACT.multiply(rest, rest), Decimal(2)))
        context = EXACT.copy()
        context.prec += EXACT.prec // 2
        return EXACT.plus(context.ln(context.add(_ONE, rest)))


def ulps(got: float, exact: Decimal, dtype: np.dtype[Any], unit_at: Decimal | None = None) -> float:
    """Return the distance of a number from its exact value in units in the last place (ULP) of its type.

    One unit is the distance between neighboring floats at the exact value, or at ``unit_at``, and at least the smallest
    subnormal. Infinity has error 0 if the exact value is infinite or too large for the type. In float64, an exact value
    in the subnormal range has error 0 if the number is at most the smallest normal one.
    """
    info = np.finfo(dtype)
    if got == exact:
        return 0.0
    if math.isnan(got) or exact.is_infinite():
        return math.inf
    if math.isinf(got):
        too_large = exact.copy_abs() > Decimal(float(info.max) * (1 - 2 * float(info.eps)))
        return 0.0 if too_large and (got > 0) == (exact > 0) else math.inf
    tiny = float(info.tiny)
    if info.dtype == np.float64 and exact.copy_abs() < Decimal(tiny) and abs(got) <= tiny:
        return 0.0
    off = EXACT.subtract(Decimal(got), exact).copy_abs()
    return float(EXACT.divide(off, _unit(exact if unit_at is None else unit_at, info)))


def loss_ulps(got: float, exact: Decimal, dtype: np.dtype[Any], n_classes: int) -> float:
    """Return the distance of a loss from its exact value in ULP.

    A loss near 0 is a sum of exponentials. Where those are subnormal in float64, the loss is no more accurate than they
    are, so the unit is taken at K times the smallest normal number or more.
    """
    least = Decimal(n_classes * float(np.finfo(np.float64).tiny))
    return ulps(got, exact, dtype, max(exact.copy_abs(), least))


def _unit(value: Decimal, info: np.finfo[Any]) -> Decimal:
    """Return the distance between neighboring floats of a type at a value."""
    about = min(abs(float(value)), float(np.finfo(np.float64).max))
    exponent = math.frexp(about)[1] if about else -(2**31)
    if about and value.copy_abs() < Decimal(math.ldexp(0.5, exponent)):
        exponent -= 1  # the float was rounded up to a power of two
    smallest = math.frexp(float(info.smallest_subnormal))[1] - 1
    return Decimal(math.ldexp(1.0, max(exponent - (int(info.nmant) + 1), smallest)))


def _sum(terms: Sequence[Decimal]) -> Decimal:
    total = _ZERO
    for term in terms:
        total = EXACT.add(total, term)
    return total

"""One row in exact arithmetic: decimal numbers of 34 digits, and the distance of a float from them in ULP.

What the kernels compute in nanoseconds is worked out here again by the definitions, one class after another, by
Python's ``decimal`` and nothing of theirs, to judge them by. Knows numbers; knows neither columns nor files.

See Also
--------
``tests/oracle.py``: the same answers from wide floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, InvalidOperation
from functools import cached_property
from typing import Any

import numpy as np

MOST_ULPS = 3.0
"""How far a probability or a loss may be from its exact value."""

# Operators such as + would use the context of whoever calls; nothing here does.
EXACT = Context(prec=34, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation, DivisionByZero])
# An exponent of -745 keeps 31 digits behind the point in 34, so its power has about as many: float64 shows 16.
_ZERO, _ONE, _INFINITE = Decimal(0), Decimal(1), Decimal("Infinity")
_NEGLIGIBLE = Decimal(-12_000)
"""The power of this exponent is no number of any float type, and neither are a million of them."""


class ExactRow:
    """A row's probabilities and losses, from its logits and beta as they are: floats are taken at their exact value.

    Parameters
    ----------
    logits
        The K logits: finite or -inf, and not all -inf.
    beta
        The inverse temperature.
    """

    def __init__(self, logits: Sequence[float], beta: float) -> None:
        largest, factor = Decimal(max(logits)), Decimal(beta)
        # Logits of few bits repeat, and a power takes a hundred times as long as to look it up.
        known: dict[float, tuple[Decimal, Decimal]] = {}
        for logit in logits:
            if logit not in known:
                # Decimal numbers are exact operands, and each result is rounded once.
                shifted = EXACT.multiply(factor, EXACT.subtract(Decimal(logit), largest))
                known[logit] = shifted, EXACT.exp(shifted) if shifted > _NEGLIGIBLE else _ZERO
        terms = [known[logit] for logit in logits]
        self._set([shifted for shifted, _ in terms], [power for _, power in terms])
        self._largest = EXACT.multiply(factor, largest)

    def _set(self, shifted: list[Decimal], powers: list[Decimal]) -> None:
        """Take what is divided by its sum, the largest of it 1, and its logarithms."""
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
        """Their logarithms."""
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

        A share of 0 takes nothing from its class, whatever the log-probability there.
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
                # Two terms that are not negative: nothing cancels.
                parts.append(EXACT.multiply(share, EXACT.subtract(self._log_sum, self._shifted[index])))
        return _sum(parts)

    @cached_property
    def _log_sum(self) -> Decimal:
        """The logarithm of one plus the rest, which keeps its digits where the rest is tiny."""
        rest = self._rest
        if rest.adjusted() < -EXACT.prec // 2:
            # Of the series x - x**2/2 + x**3/3 …, what follows is smaller than the last digit.
            return EXACT.subtract(rest, EXACT.divide(EXACT.multiply(rest, rest), Decimal(2)))
        context = EXACT.copy()
        context.prec += EXACT.prec // 2
        return EXACT.plus(context.ln(context.add(_ONE, rest)))


def ulps(got: float, exact: Decimal, dtype: np.dtype[Any], unit_at: Decimal | None = None) -> float:
    """Return the distance of a number from its exact value in units in the last place of its type.

    The unit is the distance between neighbours at the exact value, or at ``unit_at``, and never below the smallest
    subnormal. An infinity is right where the exact value is infinite, or too large for the type. In float64, exact
    values that are subnormal count as right where the number is no larger than the smallest normal one.
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
    """Return the distance of a loss from its exact value in units in the last place.

    A loss near 0 is a sum of exponentials; where those are subnormal in float64, it is no better than they are.
    """
    least = Decimal(n_classes * float(np.finfo(np.float64).tiny))
    return ulps(got, exact, dtype, max(exact.copy_abs(), least))


def _unit(value: Decimal, info: np.finfo[Any]) -> Decimal:
    """Return the distance between neighbours of a type at a value."""
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

"""One row in exact arithmetic: decimal numbers with 34 digits, and the distance of a float from them in ULP.

Recomputes activations and losses by their definitions, with Python's ``decimal`` and without any of the kernels' code,
to check the kernels' results. Works on numbers; doesn't know columns or files.

See Also
--------
``tests/support/oracle.py``: the same values computed in wide floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, InvalidOperation
from functools import cache, cached_property, reduce
from heapq import nlargest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ActivationName, LossName

Array = NDArray[Any]

# Operators such as + would use the caller's decimal context, so this module always calls methods of EXACT.
EXACT = Context(prec=34, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation, DivisionByZero])
# With 34 digits, an exponent of -745 has 31 digits after the point, so exp of it has about 31 correct digits; float64
# has 16.
_ZERO, _ONE, _TWO, _INFINITE = Decimal(0), Decimal(1), Decimal(2), Decimal("Infinity")
_NEGLIGIBLE = Decimal(-12_000)
"""exp of this is below the range of every float type, even summed over a million classes."""


class ExactRow:
    """Exact probabilities and losses of one row under softmax. Logits and beta become decimals without rounding.

    Parameters
    ----------
    logits
        The K logits, at least two: finite or -inf, not all -inf.
    beta
        The inverse temperature.

    Attributes
    ----------
    largest
        Beta times the largest logit.
    """

    def __init__(self, logits: Sequence[float], beta: float) -> None:
        largest, factor = Decimal(max(logits)), Decimal(beta)

        # Logits of few bits repeat, and computing exp takes a hundred times as long as a look-up.
        @cache
        def scaled(logit: float) -> tuple[Decimal, Decimal]:
            # Decimal operands are exact, and each result is rounded once.
            shifted = EXACT.multiply(factor, EXACT.subtract(Decimal(logit), largest))
            return shifted, EXACT.exp(shifted) if shifted > _NEGLIGIBLE else _ZERO

        logs, numerators = zip(*map(scaled, logits), strict=True)
        self._set(logs, numerators)
        self.largest = EXACT.multiply(factor, largest)

    def _set(self, logs: Sequence[Decimal], numerators: Sequence[Decimal]) -> None:
        """Set the numerators of the probabilities, scaled so that the largest is 1, and their logarithms."""
        self._shifted, self._powers = logs, numerators
        others = list(numerators)
        others[max(range(len(numerators)), key=numerators.__getitem__)] = _ZERO
        self._rest = _sum(others)
        self._total = EXACT.add(_ONE, self._rest)

    @cached_property
    def probs(self) -> list[Decimal]:
        """The K probabilities."""
        return [EXACT.divide(power, self._total) for power in self._powers]

    @cached_property
    def log_probs(self) -> list[Decimal]:
        """The K log-probabilities."""
        return [EXACT.subtract(shifted, self._log_sum) for shifted in self._shifted]

    @property
    def logsumexp(self) -> Decimal:
        """The logarithm of the sum of the exponentials of beta times the logits."""
        return EXACT.add(self.largest, self._log_sum)

    @property
    def confidence(self) -> Decimal:
        """The largest probability."""
        return EXACT.divide(_ONE, self._total)

    @cached_property
    def margin(self) -> Decimal:
        """The difference of the two largest probabilities."""
        second, power = (nlargest(2, values)[1] for values in (self._shifted, self._powers))
        # 1 - exp(x) is -x if x is tiny, and would lose all its digits.
        gap = second.copy_abs() if second.adjusted() < -EXACT.prec // 2 else EXACT.subtract(_ONE, power)
        return EXACT.divide(gap, self._total)

    @cached_property
    def entropy(self) -> Decimal:
        """The entropy of the probabilities in nats: log(sum) minus the mean shifted logit."""
        pairs = zip(self._shifted, self._powers, strict=True)
        parts = _sum(EXACT.multiply(shifted.copy_abs(), power) for shifted, power in pairs if power)
        return EXACT.add(self._log_sum, EXACT.divide(parts, self._total))

    def distance(self, label: int) -> Decimal:
        """Return the Euclidean distance of the probabilities to the one-hot label."""
        others = [power for index, power in enumerate(self._powers) if index != label]
        total = _sum(others)  # 1 minus the label's probability would lose digits
        squares = EXACT.add(EXACT.multiply(total, total), _sum(EXACT.multiply(power, power) for power in others))
        return EXACT.divide(EXACT.sqrt(squares), self._total)

    def loss(
        self, target: Sequence[float], weights: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> Decimal:
        """Return the cross-entropy in nats against a distribution, as ``torch`` defines it.

        Classes with a target of 0 contribute 0, even where the log-probability is -inf.
        """
        smoothing = Decimal(label_smoothing)
        uniform, left = EXACT.divide(smoothing, Decimal(len(target))), EXACT.subtract(_ONE, smoothing)
        parts = []
        for share, weight, shifted in zip(target, weights or [1.0] * len(target), self._shifted, strict=True):
            if share or uniform:
                part = EXACT.add(EXACT.multiply(left, Decimal(share)), uniform)
                part = EXACT.multiply(part, Decimal(weight))
                if part:
                    # A sum of two non-negative terms: no cancellation.
                    parts.append(EXACT.multiply(part, EXACT.subtract(self._log_sum, shifted)))
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


class NormalizedRow(ExactRow):
    """The same for numerators that are divided by their sum; they're not negative, and not all 0."""

    def __init__(self, numerators: Sequence[Decimal]) -> None:
        largest = max(numerators)
        scaled = [EXACT.divide(numerator, largest) for numerator in numerators]
        self._set([EXACT.ln(numerator) for numerator in scaled], scaled)


class SigmoidRow:
    """Exact probabilities and losses of one row under the sigmoid: each class is independent."""

    def __init__(self, logits: Sequence[float], beta: float) -> None:
        self._logits, self._beta = logits, beta

    @cached_property
    def probs(self) -> list[Decimal]:
        """The K probabilities."""
        return [_ZERO if z == -math.inf else _ONE if z == math.inf else self._binary(z).probs[0] for z in self._logits]

    def losses(
        self,
        target: Sequence[float],
        weights: Sequence[float] | None = None,
        pos_weights: Sequence[float] | None = None,
    ) -> list[Decimal | None]:
        """Return the binary cross-entropy of each class in nats; None where the target is NaN.

        ``weights`` are factors on the whole loss of a class, ``pos_weights`` on the part of its target, as ``torch``
        defines them.
        """
        ones = [1.0] * len(target)
        found: list[Decimal | None] = []
        for z, share, weight, positive in zip(self._logits, target, weights or ones, pos_weights or ones, strict=True):
            if math.isnan(share):
                found.append(None)
                continue
            parts = []
            on = EXACT.multiply(Decimal(positive), Decimal(share))
            for part, logit in ((on, -z), (EXACT.subtract(_ONE, Decimal(share)), z)):
                factor = EXACT.multiply(Decimal(weight), part)
                if factor:
                    loss = _INFINITE if logit == math.inf else self._binary(logit).logsumexp
                    parts.append(EXACT.multiply(factor, loss))
            found.append(_sum(parts))
        return found

    def _binary(self, logit: float) -> ExactRow:
        return ExactRow([logit, 0.0], self._beta)


@dataclass(frozen=True)
class Definition:
    """An activation by its definition.

    Attributes
    ----------
    row
        Returns the exact row of K logits and beta, if it's defined for them.
    is_defined
        Returns which rows of (n, K) logits it's defined for, given beta; (n,).
    zero
        The logit of a class with probability 0, whose loss is infinite.
    """

    row: Callable[[Sequence[float], float], Any]
    is_defined: Callable[[Array, float], Array]
    zero: float = -math.inf


def _argmax(logits: Sequence[float], beta: float) -> NormalizedRow:  # noqa: ARG001 - does not depend on it
    best = max(range(len(logits)), key=logits.__getitem__)
    return NormalizedRow([_ONE if index == best else _ZERO for index in range(len(logits))])


def _taylor(logits: Sequence[float], beta: float) -> NormalizedRow:
    scaled = [EXACT.multiply(Decimal(beta), Decimal(logit)) for logit in logits]
    squares = [EXACT.divide(EXACT.multiply(x, x), _TWO) for x in scaled]
    return NormalizedRow([EXACT.add(EXACT.add(_ONE, x), square) for x, square in zip(scaled, squares, strict=True)])


def _has_largest(matrix: Array, _: float) -> Array:
    return np.asarray((matrix < np.inf).all(axis=1) & (matrix > -np.inf).any(axis=1))


def _is_finite(matrix: Array, beta: float = 1.0) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.isfinite(matrix * beta).all(axis=1))


def _has_one_sign(matrix: Array) -> Array:
    return np.asarray((matrix >= 0).all(axis=1) | (matrix <= 0).all(axis=1))


DEFINITIONS: dict[ActivationName, Definition] = {
    "softmax": Definition(ExactRow, _has_largest),
    "argmax": Definition(_argmax, _has_largest),
    "sigmoid": Definition(SigmoidRow, lambda matrix, _: np.asarray(~np.isnan(matrix).any(axis=1))),
    "sum": Definition(
        lambda logits, _: NormalizedRow([Decimal(logit).copy_abs() for logit in logits]),
        lambda matrix, _: _is_finite(matrix) & (matrix != 0).any(axis=1) & _has_one_sign(matrix),
        zero=0.0,
    ),
    "taylor": Definition(_taylor, _is_finite),
    "spherical": Definition(
        lambda logits, _: NormalizedRow([EXACT.multiply(Decimal(logit), Decimal(logit)) for logit in logits]),
        lambda matrix, _: _is_finite(matrix) & (matrix != 0).any(axis=1),
        zero=0.0,
    ),
}
"""The definitions of the activations, by name."""


@dataclass(frozen=True)
class OtherLoss:
    """A loss that isn't the negative log-likelihood.

    Attributes
    ----------
    value
        Returns the exact loss, given the exact row, the logits, beta and the (K,) target.
    digits_from
        The ULP of smaller losses is taken at this value: the loss is a difference of larger numbers, so it has fewer
        correct digits.
    """

    value: Callable[[Any, Sequence[float], float, Sequence[float]], Decimal]
    digits_from: Decimal = Decimal("1e-12")


def squared_errors(probs: Sequence[Decimal], target: Sequence[float]) -> list[Decimal | None]:
    """Return the squared error of each class; None where the target is NaN."""
    pairs = zip(probs, target, strict=True)
    errors = [None if math.isnan(share) else EXACT.subtract(prob, Decimal(share)) for prob, share in pairs]
    return [None if error is None else EXACT.multiply(error, error) for error in errors]


def total(terms: Iterable[Decimal | None]) -> Decimal:
    """Return the sum of the terms that aren't None."""
    return _sum(term for term in terms if term is not None)


def _squared_error(row: Any, _logits: Sequence[float], _beta: float, target: Sequence[float]) -> Decimal:
    return total(squared_errors(row.probs, target))


def _hinge(_row: Any, logits: Sequence[float], beta: float, target: Sequence[float]) -> Decimal:
    """1 plus beta times the difference of the largest other logit and the label's, at least 0; for a one-hot target."""
    label = target.index(1.0)
    largest = max(logit for index, logit in enumerate(logits) if index != label)
    difference = EXACT.subtract(Decimal(largest), Decimal(logits[label]))
    return max(_ZERO, EXACT.add(_ONE, EXACT.multiply(Decimal(beta), difference)))


def _squared_hinge(row: Any, logits: Sequence[float], beta: float, target: Sequence[float]) -> Decimal:
    hinge = _hinge(row, logits, beta, target)
    return EXACT.multiply(hinge, hinge)


OTHER_LOSSES: dict[LossName, OtherLoss] = {
    "mse": OtherLoss(_squared_error),
    "brier": OtherLoss(_squared_error),
    "hinge": OtherLoss(_hinge, Decimal("1e-6")),
    "squared_hinge": OtherLoss(_squared_hinge),
}
"""The definitions of losses other than cross-entropies, by name."""


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


def loss_ulps(got: float, exact: Decimal, dtype: np.dtype[Any], n_classes: int, digits_from: Decimal = _ZERO) -> float:
    """Return the distance of a loss from its exact value in ULP, taken at ``digits_from`` or above.

    A loss near 0 is a sum of exponentials. Where those are subnormal in float64, the loss is no more accurate than they
    are, so the unit is taken at K times the smallest normal number or more.
    """
    least = Decimal(n_classes * float(np.finfo(np.float64).tiny))
    return ulps(got, exact, dtype, max(exact.copy_abs(), least, digits_from))


def _unit(value: Decimal, info: np.finfo[Any]) -> Decimal:
    """Return the distance between neighboring floats of a type at a value."""
    about = min(abs(float(value)), float(np.finfo(np.float64).max))
    exponent = math.frexp(about)[1] if about else -(2**31)
    if about and value.copy_abs() < Decimal(math.ldexp(0.5, exponent)):
        exponent -= 1  # the float was rounded up to a power of two
    smallest = math.frexp(float(info.smallest_subnormal))[1] - 1
    return Decimal(math.ldexp(1.0, max(exponent - (int(info.nmant) + 1), smallest)))


def _sum(terms: Iterable[Decimal]) -> Decimal:
    return reduce(EXACT.add, terms, _ZERO)

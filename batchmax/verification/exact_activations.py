"""One row in exact arithmetic under an activation or a loss other than softmax and cross-entropy.

See Also
--------
batchmax.verification.exact : softmax and cross-entropy, and the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.verification.exact import EXACT, ExactRow

ZERO, ONE, TWO = Decimal(0), Decimal(1), Decimal(2)


class ActivatedRow(ExactRow):
    """A row's exact probabilities and cross-entropies under an activation whose outputs sum to 1.

    Parameters
    ----------
    logits
        The K logits, for which the activation is defined (:func:`has_answer`).
    beta
        The inverse temperature.
    activation
        The activation's name.
    """

    def __init__(self, logits: Sequence[float], beta: float, activation: str) -> None:
        if activation == "softmax":
            super().__init__(logits, beta)
            return
        parts = _numerators([Decimal(logit) for logit in logits], Decimal(beta), activation)
        largest = max(parts)
        powers = [EXACT.divide(part, largest) for part in parts]
        self._set([EXACT.ln(power) for power in powers], powers)


class SigmoidRow:
    """A row's exact probabilities under the sigmoid: each class is independent."""

    def __init__(self, logits: Sequence[float], beta: float) -> None:
        self._logits, self._beta = logits, beta

    @cached_property
    def probs(self) -> list[Decimal]:
        """The K probabilities."""
        return [ZERO if z == -math.inf else ONE if z == math.inf else self._beside(z).probs[0] for z in self._logits]

    def loss(self, shares: Sequence[float]) -> Decimal:
        """Return the binary cross-entropy in nats against the target of each class."""
        total = ZERO
        for z, share in zip(self._logits, map(Decimal, shares), strict=True):
            for part, logit in ((share, -z), (EXACT.subtract(ONE, share), z)):
                if part:
                    loss = Decimal("Infinity") if logit == math.inf else self._beside(logit).logsumexp
                    total = EXACT.add(total, EXACT.multiply(part, loss))
        return total

    def _beside(self, logit: float) -> ExactRow:
        return ExactRow([logit, 0.0], self._beta)


def squared_error(probs: Sequence[Decimal], shares: Sequence[float]) -> Decimal:
    """Return the sum of squared differences of probabilities and targets."""
    total = ZERO
    for prob, share in zip(probs, shares, strict=True):
        off = EXACT.subtract(prob, Decimal(share))
        total = EXACT.add(total, EXACT.multiply(off, off))
    return total


def margin(logits: Sequence[float], beta: float, label: int) -> Decimal:
    """Return the hinge loss: 1 plus the largest other logit minus the label's logit (both times beta), at least 0."""
    others = [logit for index, logit in enumerate(logits) if index != label]
    if not others:
        return ZERO
    apart = EXACT.subtract(Decimal(max(others)), Decimal(logits[label]))
    return max(ZERO, EXACT.add(ONE, EXACT.multiply(Decimal(beta), apart)))


def has_answer(matrix: NDArray[np.float64], beta: float, activation: str) -> NDArray[np.bool_]:
    """Return which rows of (n, K) logits the activation is defined for."""
    with np.errstate(invalid="ignore", over="ignore"):
        if not ACTIVATIONS[activation].is_distribution:
            return np.asarray(~np.isnan(matrix).any(axis=1))
        if activation in {"softmax", "argmax"}:
            return np.asarray((matrix < np.inf).all(axis=1) & (matrix > -np.inf).any(axis=1))
        scaled = matrix * beta if activation == "taylor" else matrix
        finite = np.isfinite(scaled).all(axis=1)
        if activation == "taylor":
            return np.asarray(finite)
        some = (matrix != 0).any(axis=1)
        one_sign = (matrix >= 0).all(axis=1) | (matrix <= 0).all(axis=1)
        return np.asarray(finite & some & (one_sign if activation == "sum" else True))


def _numerators(logits: list[Decimal], beta: Decimal, activation: str) -> list[Decimal]:
    if activation == "argmax":
        best = max(range(len(logits)), key=logits.__getitem__)
        return [ONE if index == best else ZERO for index in range(len(logits))]
    if activation == "sum":
        return [logit.copy_abs() for logit in logits]
    if activation == "spherical":
        return [EXACT.multiply(logit, logit) for logit in logits]
    scaled = [EXACT.multiply(beta, logit) for logit in logits]
    return [EXACT.add(EXACT.add(ONE, x), EXACT.divide(EXACT.multiply(x, x), TWO)) for x in scaled]

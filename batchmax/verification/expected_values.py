"""Compute the expected outputs of one row: the status by its definition, the numbers in exact arithmetic.

Uses no kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS, OF_A_MARGIN
from batchmax.columns.job import Job
from batchmax.columns.labels import Labels
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import Status
from batchmax.verification.exact import EXACT, ExactRow, loss_ulps, ulps
from batchmax.verification.exact_activations import ActivatedRow, SigmoidRow, has_answer, margin, squared_error

Array = NDArray[Any]

MEASURED = frozenset({"probs", "log_probs", "loss", "confidence", "logsumexp", "top_k_probs"})
"""Outputs whose error is measured in ULP; the others are right or wrong."""

TIE = Decimal("1e-12")
"""Relative difference up to which two probabilities computed in float64 count as equal, in either order."""

DIGITS_FROM = {
    "mse": Decimal("1e-12"),
    "brier": Decimal("1e-12"),
    "hinge": Decimal("1e-6"),
    "squared_hinge": Decimal("1e-12"),
}
"""By loss: the value at which the ULP of smaller losses is taken. Such a loss is a difference of larger numbers, so it
has fewer correct digits."""


def row_statuses(matrix: Array, labels: Labels, known: Array | None, options: ScoreOptions) -> NDArray[np.uint8]:
    """Return the statuses of rows by their definition, (n,); ``known`` are statuses of the input, None for none."""
    n, k = matrix.shape
    status = np.full(n, Status.OK, np.uint8)
    if labels.indices is not None:
        indices, ok = labels.indices, np.ones(n, np.bool_) if labels.status is None else labels.status == Status.OK
        ignored = indices == labels.ignore_index
        inside = (indices >= 0) & (indices < k)
        masked = _is_masked(matrix, np.where(inside, indices, 0), None, options)
        status[ok & inside & masked] = Status.MASKED_LABEL
        status[ok & ~inside] = Status.BAD_LABEL
        status[ok & ignored] = Status.IGNORED
    elif labels.targets is not None:
        status[_is_masked(matrix, None, labels.targets, options)] = Status.MASKED_LABEL
    odd = {
        Status.ALL_MASKED: (matrix == -np.inf).all(axis=1),
        Status.INF_LOGIT: (matrix == np.inf).any(axis=1),
        Status.NAN_LOGIT: np.isnan(matrix).any(axis=1),
    }
    if labels.status is not None:
        np.minimum(status, labels.status, out=status)
    without = ~has_answer(matrix, options.beta, options.activation)
    status[without] = Status.NO_ANSWER
    for number, rows in odd.items():
        status[rows & without] = number
    return status if known is None else np.minimum(status, known)


def _is_masked(matrix: Array, indices: Array | None, targets: Array | None, options: ScoreOptions) -> Array:
    """Return which rows have an infinite loss, or would have one under softmax, without regard to class weights."""
    lost = matrix == (0.0 if options.activation in {"sum", "spherical"} else -np.inf)
    is_sigmoid = not ACTIVATIONS[options.activation].is_distribution
    if options.activation != "softmax" and options.loss_name in {"mse", "brier"}:
        return np.zeros(len(matrix), np.bool_)
    if targets is not None:
        with np.errstate(invalid="ignore"):
            wrong = lost & (targets > 0)
            return np.asarray((wrong | (is_sigmoid & (matrix == np.inf) & (targets < 1))).any(axis=1))
    at = np.arange(len(matrix)), indices
    others = (matrix == np.inf).sum(axis=1) > (matrix[at] == np.inf)
    return np.asarray(lost[at] | (is_sigmoid & others))


def exact_answer(logits: Array, labels: Labels | None, job: Job) -> Answer:
    """Return the expected outputs of a row of (K,) logits; ``labels`` is None if the row has no loss."""
    return (Answer if job.options.is_usual else OtherAnswer)(logits, labels, job)


class Answer:
    """The exact values of one row of logits, to compare outputs with."""

    def __init__(self, logits: Array, labels: Labels | None, job: Job) -> None:
        self._logits: list[float] = logits.tolist()
        self._label = None if labels is None or labels.indices is None else int(labels.indices[0])
        self._target = None if labels is None or labels.targets is None else labels.targets[0].tolist()
        self._job = job
        self._dtype, self._loss_dtype = job.dtype, job.loss_dtype
        self._order = np.argsort(-logits.astype(np.float64), kind="stable").tolist()

    @cached_property
    def _exact(self) -> ExactRow:
        return ExactRow(self._logits, self._job.options.beta)

    @property
    def _probs(self) -> list[Decimal]:
        return self._exact.probs

    def compare(self, name: str, value: Any) -> tuple[float, str]:
        """Return the error of a value in ULP, and the message to show if it exceeds the tolerance."""
        match name:
            case "probs" | "log_probs":
                return self._most(value, self._probs if name == "probs" else self._exact.log_probs)
            case "top_k_probs":
                return self._most(value, [self._probs[index] for index in self._order[: self._job.options.top_k]])
            case "loss":
                return self._compare_loss(value)
            case "confidence":
                wanted = self._probs[self._order[0]]
                return _told(ulps(float(value), wanted, self._loss_dtype), value, wanted)
            case "logsumexp":
                exact = self._exact
                at = max(exact.logsumexp.copy_abs(), exact.largest.copy_abs())
                return _told(ulps(float(value), exact.logsumexp, self._loss_dtype, at), value, exact.logsumexp)
            case _:
                return self._compare_order(name, value)

    def _compare_loss(self, value: Any) -> tuple[float, str]:
        job = self._job
        target = self._label if self._label is not None else self._target or ()
        weights = None if job.class_weights is None else job.class_weights.tolist()
        wanted = self._exact.loss(target, weights, job.options.label_smoothing)
        return _told(loss_ulps(float(value), wanted, self._loss_dtype, job.n_classes), value, wanted)

    def _compare_order(self, name: str, value: Any) -> tuple[float, str]:
        """Compare outputs that are right or wrong; those checked against the probabilities already count as right."""
        order = self._order
        wanted: dict[str, Any] = {"pred": order[0], "top_k_classes": order[: self._job.options.top_k]}
        if self._label is not None:
            wanted |= {"rank": order.index(self._label) + 1, "correct": order[0] == self._label}
        if name not in wanted:
            return 0.0, ""
        found = np.asarray(value).tolist()
        right = found == wanted[name]
        return (0.0 if right else math.inf), f"is {found}, and by the logits {wanted[name]}"

    def _most(self, values: Array, wanted: Sequence[Any]) -> tuple[float, str]:
        errors = [ulps(value, exact, self._dtype) for value, exact in zip(values.tolist(), wanted, strict=True)]
        worst = max(range(len(errors)), key=errors.__getitem__)
        error, text = _told(errors[worst], values[worst], wanted[worst])
        return error, f"at {worst} {text}"


class OtherAnswer(Answer):
    """The same for other activations and losses, which are computed in float64 and checked to float32 accuracy."""

    def __init__(self, logits: Array, labels: Labels | None, job: Job) -> None:
        super().__init__(logits, labels, job)
        single = np.dtype(np.float32)
        self._dtype, self._loss_dtype = min(job.dtype, single, key=lambda one: one.itemsize), single
        self._order = sorted(range(job.n_classes), key=lambda index: -self._probs[index])

    @cached_property
    def _exact(self) -> ExactRow:
        return ActivatedRow(self._logits, self._job.options.beta, self._job.options.activation)

    @cached_property
    def _sigmoid(self) -> SigmoidRow:
        return SigmoidRow(self._logits, self._job.options.beta)

    @property
    def _probs(self) -> list[Decimal]:
        is_distribution = ACTIVATIONS[self._job.options.activation].is_distribution
        return self._exact.probs if is_distribution else self._sigmoid.probs

    def _compare_loss(self, value: Any) -> tuple[float, str]:
        options, label = self._job.options, self._label
        if options.loss_name == "cross_entropy":
            return super()._compare_loss(value)
        shares = self._target or [float(index == label) for index in range(self._job.n_classes)]
        if options.loss_name == "binary_cross_entropy":
            wanted = self._sigmoid.loss(shares)
        elif options.loss_name in OF_A_MARGIN and label is not None:
            wanted = margin(self._logits, options.beta, label)
            wanted = EXACT.multiply(wanted, wanted) if options.loss_name == "squared_hinge" else wanted
        else:
            wanted = squared_error(self._probs, shares)
        at = max(wanted.copy_abs(), DIGITS_FROM.get(options.loss_name, wanted))
        return _told(ulps(float(value), wanted, self._loss_dtype, at), value, wanted)

    def _compare_order(self, name: str, value: Any) -> tuple[float, str]:
        """Compare outputs that are right or wrong; classes with equal probabilities may be in any order."""
        probs, found = self._probs, np.asarray(value).tolist()
        ranked = [probs[index] for index in self._order]
        if name in {"pred", "top_k_classes"}:
            chosen = [found] if name == "pred" else found
            right = all(_near(probs[index], prob) for index, prob in zip(chosen, ranked, strict=False))
        elif name in {"rank", "correct"} and self._label is not None:
            places = [place for place, prob in enumerate(ranked, 1) if _near(prob, probs[self._label])]
            right = found in places if name == "rank" else not found or 1 in places
            right = right and (name == "rank" or found or places != [1])
        else:
            return 0.0, ""
        return (0.0 if right else math.inf), f"is {found}, and by the probabilities it should not be"


def _near(one: Decimal, other: Decimal) -> bool:
    apart = EXACT.subtract(one, other).copy_abs()
    return apart <= EXACT.multiply(TIE, max(one, other))


def _told(error: float, value: Any, exact: Any) -> tuple[float, str]:
    return error, f"is {float(value):.17g}, {error:.3g} ULP from the exact {exact:.17g}"

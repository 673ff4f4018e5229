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

from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.columns.job import Job
from batchmax.columns.label_column import Labels
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import OUTPUTS
from batchmax.statuses import Status
from batchmax.verification.column_reader import label_statuses
from batchmax.verification.exact import (
    DEFINITIONS,
    EXACT,
    OTHER_LOSSES,
    loss_ulps,
    squared_errors,
    total,
    ulps,
)

Array = NDArray[Any]

MEASURED = {"top_k_probs", *(name for name, output in OUTPUTS.items() if output.kind in {"matrix", "float"})}
"""Outputs whose error is measured in ULP; the others are right or wrong."""

TIE = Decimal("1e-12")
"""Relative difference up to which two probabilities computed in float64 count as equal, in either order."""


def row_statuses(matrix: Array, labels: Labels, known: Array | None, options: ScoreOptions) -> NDArray[np.uint8]:
    """Return the statuses of rows by their definition, (n,); ``known`` are statuses of the input, None for none."""
    n, k = matrix.shape
    status = label_statuses(labels, n, k)
    targets = labels.targets if labels.indices is None else np.arange(k) == labels.indices[:, None]
    if targets is not None:
        status[(status == Status.OK) & _is_masked(matrix, targets, options)] = Status.MASKED_LABEL
    with np.errstate(invalid="ignore"):
        undefined = ~DEFINITIONS[options.activation_name].is_defined(matrix, options.beta)
        reasons = {
            Status.ALL_MASKED: (matrix == -np.inf).all(axis=1),
            Status.INF_LOGIT: (matrix == np.inf).any(axis=1),
            Status.NAN_LOGIT: np.isnan(matrix).any(axis=1),
        }
    status[undefined] = Status.NO_ANSWER
    for number, rows in reasons.items():
        status[rows & undefined] = number
    return status if known is None else np.minimum(status, known)


def _is_masked(matrix: Array, targets: Array, options: ScoreOptions) -> Array:
    """Return which rows have an infinite loss, or for softmax an infinite cross-entropy, without class weights."""
    activation = ACTIVATIONS[options.activation_name]
    if LOSSES[options.loss_name].is_bounded and not activation.is_log_linear:
        return np.zeros(len(matrix), np.bool_)
    with np.errstate(invalid="ignore"):
        masked = (matrix == DEFINITIONS[activation.name].zero) & (targets > 0)
        if not activation.is_distribution:
            masked |= (matrix == np.inf) & (targets < 1)
    return np.asarray(masked.any(axis=1))


class ExpectedRow:
    """The exact values of one row of logits, to compare outputs with.

    Activations and losses other than softmax with cross-entropy, and sigmoid with binary cross-entropy, are computed in
    float64 and compared at the accuracy of float32.

    Parameters
    ----------
    matrix : (n, K)
    labels
        The labels of these rows.
    row
        The index of the row.
    status
        Its status. If it has no probabilities, no value can be compared, if it has no loss, none that needs a label.
    job
        The job that computed the outputs.
    """

    def __init__(self, matrix: Array, labels: Labels, row: int, status: Status, job: Job) -> None:
        self.status = status
        self._logits: list[float] = matrix[row].tolist()
        self._label = None if labels.indices is None else int(labels.indices[row])
        self._target = [float(index == self._label) for index in range(len(self._logits))]
        if labels.targets is not None:
            self._target = labels.targets[row].tolist()
        self._job = job
        self._activation = ACTIVATIONS[job.options.activation_name]
        self._dtype, self._loss_dtype = job.dtype, job.loss_dtype
        if job.options.loss_name != self._activation.likelihood or not self._is_precise:
            single = np.dtype(np.float32)
            self._dtype, self._loss_dtype = min(job.dtype, single, key=lambda one: one.itemsize), single

    @property
    def _is_precise(self) -> bool:
        """Whether the probabilities have the full accuracy of their type."""
        return self._activation.is_log_linear or not self._activation.is_distribution

    @cached_property
    def _row(self) -> Any:
        return DEFINITIONS[self._activation.name].row(self._logits, self._job.options.beta)

    @cached_property
    def _order(self) -> list[int]:
        """The classes from the most to the least probable one, the first of equal ones first."""
        values = self._logits if self._activation.is_log_linear else self._row.probs
        return sorted(range(len(values)), key=values.__getitem__, reverse=True)

    def compare(self, name: str, value: Any) -> tuple[float, str]:
        """Return the error of a value in ULP, and the message to show if it exceeds the tolerance."""
        match name:
            case "probs" | "log_probs":
                # One value is that of the second of two classes.
                exact = self._row.probs if name == "probs" else self._row.log_probs
                return self._largest_error(value, exact[-len(value) :])
            case "top_k_probs":
                return self._largest_error(value, [self._row.probs[index] for index in self._order[: len(value)]])
            case "loss":
                return self._compare_loss(value)
            case "losses":
                return self._compare_class_losses(np.asarray(value))
            case "preds":
                given = np.flatnonzero(value).tolist()
                expected = [index for index, logit in enumerate(self._logits) if logit > 0]
                return (0.0 if given == expected else math.inf), f"is {given}, expected {expected}"
            case "el2n" if self._label is not None:
                return self._compare_number(value, self._row.distance(self._label))
            case "logsumexp":
                expected = self._row.logsumexp
                unit_at = max(expected.copy_abs(), self._row.largest.copy_abs())
                return _error(ulps(float(value), expected, self._loss_dtype, unit_at), value, expected)
            case "entropy":
                # Its terms are exponentials times up to 745 nats, so it is less accurate where those are subnormal.
                least = Decimal(745 * self._job.n_classes * float(np.finfo(np.float64).tiny))
                return self._compare_number(value, self._row.entropy, least)
            case _ if hasattr(self._row, name):
                return self._compare_number(value, getattr(self._row, name))
            case _:
                return self._compare_order(name, np.asarray(value).tolist())

    def _compare_number(self, value: Any, expected: Decimal, digits_from: Decimal = Decimal(0)) -> tuple[float, str]:
        error = loss_ulps(float(value), expected, self._loss_dtype, self._job.n_classes, digits_from)
        return _error(error, value, expected)

    def _compare_loss(self, value: Any) -> tuple[float, str]:
        options = self._job.options
        if options.loss_name in OTHER_LOSSES:
            loss = OTHER_LOSSES[options.loss_name]
            expected = loss.value(self._row, self._logits, options.beta, self._target)
            return self._compare_number(value, expected, loss.digits_from)
        if not self._activation.is_distribution:
            return self._compare_number(value, total(self._class_losses))
        if LOSSES[options.loss_name].has_weights:
            weights = None if self._job.label_weights is None else self._job.label_weights.tolist()
            return self._compare_number(value, self._row.loss(self._target, weights, options.label_smoothing))
        return self._compare_number(value, self._row.loss(self._target))

    @cached_property
    def _class_losses(self) -> list[Decimal | None]:
        """The loss of each class; None where it has no target."""
        if self._job.options.loss_name in OTHER_LOSSES:
            return squared_errors(self._row.probs, self._target)
        weights, pos_weights = (
            None if one is None else one.tolist() for one in (self._job.class_weights, self._job.pos_weights)
        )
        found: list[Decimal | None] = self._row.losses(self._target, weights, pos_weights)
        return found

    def _compare_class_losses(self, values: Array) -> tuple[float, str]:
        worst, text = 0.0, ""
        for at, (value, expected) in enumerate(zip(values.tolist(), self._class_losses, strict=True)):
            if (expected is None) != math.isnan(value):
                return math.inf, f"at {at} is {value}, expected {'null' if expected is None else 'a number'}"
            if expected is not None:
                error, what = self._compare_number(value, expected)
                if not error <= worst or not text:
                    worst, text = error, f"at {at} {what}"
        return worst, text

    def _compare_order(self, name: str, given: Any) -> tuple[float, str]:
        """Compare an output that is right or wrong; others, such as ``sample``, count as right."""
        if name in {"pred", "top_k_classes"}:
            classes = [given] if name == "pred" else given
            expected: Any = self._order[0] if name == "pred" else self._order[: len(classes)]
            is_right = all(rank in self._ranks(index) for rank, index in enumerate(classes, 1))
        elif name in {"rank", "correct"} and self._label is not None:
            ranks = self._ranks(self._label)
            expected = ranks[0] if name == "rank" else ranks[0] == 1
            is_right = given in ranks if name == "rank" else given in {rank == 1 for rank in ranks}
        else:
            return 0.0, ""
        return (0.0 if is_right else math.inf), f"is {given}, expected {expected}"

    def _ranks(self, index: int) -> list[int]:
        """Return the ranks that a class may have; several if other classes have nearly the same probability."""
        if self._activation.is_log_linear:
            return [self._order.index(index) + 1]
        probs = self._row.probs
        return [rank for rank, other in enumerate(self._order, 1) if _is_near(probs[other], probs[index])]

    def _largest_error(self, values: Array, expected: Sequence[Any]) -> tuple[float, str]:
        errors = [ulps(value, exact, self._dtype) for value, exact in zip(values.tolist(), expected, strict=True)]
        worst = max(range(len(errors)), key=errors.__getitem__)
        error, text = _error(errors[worst], values[worst], expected[worst])
        return error, f"at {worst} {text}"


def _is_near(one: Decimal, other: Decimal) -> bool:
    return EXACT.subtract(one, other).copy_abs() <= EXACT.multiply(TIE, max(one, other))


def _error(error: float, value: Any, exact: Any) -> tuple[float, str]:
    return error, f"is {float(value):.17g}, {error:.3g} ULP from the exact {exact:.17g}"

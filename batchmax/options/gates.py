"""Conditions such as ``--fail-if 'mean_loss > 1.2'``, and the metrics that they compare.

A :class:`Figure` without a value has a reason, and a comparison with it is true: a missing value fails the gate. Knows
conditions and numbers; the result of each command has the metrics.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batchmax.errors import UsageError
from batchmax.runtime.text import quantity
from batchmax.statuses import STATUS_NAMES, Status

COUNTS = ("bad_rows", "infinite_losses")
"""Metrics that can only grow: the run stops once one exceeds its limit."""


SCORE_FIGURES = (
    "n_rows",
    "n_classes",
    "mean_loss",
    "log_likelihood",
    "accuracy",
    "perplexity",
    "bad_rows",
    "bad_rate",
    "infinite_losses",
    "n_tokens",
    "bits_per_token",
    "bits_per_byte",
    "bytes_read",
    "bytes_written",
    "seconds",
)
"""Metrics in the summary of ``score``, in the order in which they are listed."""

TOKEN_FIGURES = ("n_tokens", "bits_per_token", "bits_per_byte")
"""Metrics that only sequences have."""

LABEL_FIGURES = frozenset({"mean_loss", "log_likelihood", "accuracy", "perplexity", "infinite_losses", *TOKEN_FIGURES})
"""Metrics that have no value without labels."""

OPERATORS: dict[type[ast.cmpop], tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    ast.Lt: (operator.lt, operator.gt),
    ast.LtE: (operator.le, operator.ge),
    ast.Gt: (operator.gt, operator.lt),
    ast.GtE: (operator.ge, operator.le),
    ast.Eq: (operator.eq, operator.eq),
    ast.NotEq: (operator.ne, operator.ne),
}
"""How a condition compares a metric with a number, and a number with a metric."""

NAME = ast.Name | ast.Attribute
"""Nodes of names of metrics, such as ``accuracy`` and ``macro.f1``."""

BOUNDS = (".lower", ".upper")
"""The ends of the names of bounds of confidence intervals."""

NO_ROWS = "there are no rows"
NO_LABELS = "the rows have no labels"


@dataclass(frozen=True)
class Figure:
    """The value of a metric that a condition may name, or the reason why it has none."""

    value: float | None
    missing: str = ""


def figure(value: float | None, *reasons: str) -> Figure:
    """Return a metric's value; without one if a reason is given, or if the value is None or not finite."""
    reason = next(filter(None, reasons), "")
    if reason:
        return Figure(None, reason)
    return Figure(value) if _is_finite(value) else Figure(None, "it is not a finite number")


def without_loss(counts: Mapping[str, int], of: str = "row") -> str:
    """Return why no row has a loss, or an empty string if one has; ``counts`` has rows by status."""
    if any(counts.get(STATUS_NAMES[status]) for status in (Status.MASKED_LABEL, Status.OK)):
        return ""
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"no {of} has a loss: {listed}" if listed else f"there are no {of}s"


def infinite_losses(count: int, of: str = "row") -> str:
    """Return that some losses are infinite, or an empty string if none is."""
    if not count:
        return ""
    return f"{quantity(count, f'{of} has', f'{of}s have')} an infinite loss"


@dataclass(frozen=True)
class Threshold:
    """A comparison of a metric with a number."""

    name: str
    compare: Callable[[Any, Any], Any]
    number: float


Expression = Threshold | tuple[Callable[[Iterable[bool]], bool], list["Expression"]]
"""A comparison, or ``any`` or ``all`` of several expressions."""


class Gate:
    """A condition such as ``mean_loss > 1.2 or bad_rows > 100``; the job fails if it is true.

    It compares names of metrics with numbers, combined by ``and`` and ``or``. A comparison with a metric that has no
    value is true.

    Parameters
    ----------
    condition
        The condition as it was typed.
    names
        The metrics that it may name.

    Raises
    ------
    UsageError
        The condition has anything else.
    """

    def __init__(self, condition: str, names: Collection[str]) -> None:
        self.condition = condition
        self._known = names
        try:
            tree = ast.parse(condition.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise self._invalid() from None
        self._expression = self._parsed(tree)
        self.names = list(dict.fromkeys(_names(self._expression)))

    @property
    def metrics(self) -> list[str]:
        """The metrics that the condition names, or of whose intervals it names a bound."""
        return list(dict.fromkeys(name.removesuffix(".lower").removesuffix(".upper") for name in self.names))

    def failure(self, figures: Mapping[str, Figure]) -> str:
        """Return why the condition is true, with the value of each metric in it; an empty string if it is false."""
        if not self.is_true({name: one.value for name, one in figures.items()}):
            return ""
        return f"--fail-if {self.condition!r} is true: {', '.join(_text(name, figures[name]) for name in self.names)}"

    def is_true(self, values: Mapping[str, float | None]) -> bool:
        """Return whether the condition is true for final values."""
        return self._holds(self._expression, values, early=False)

    def is_decided(self, values: Mapping[str, float | None]) -> bool:
        """Return whether the condition is already true, whatever the remaining rows contain."""
        return self._holds(self._expression, values, early=True)

    def _holds(self, expression: Expression, values: Mapping[str, float | None], *, early: bool) -> bool:
        if isinstance(expression, tuple):
            combine, parts = expression
            return combine(self._holds(part, values, early=early) for part in parts)
        if early and (expression.name not in COUNTS or expression.compare not in {operator.gt, operator.ge}):
            return False
        value = values.get(expression.name)
        return not _is_finite(value) or expression.compare(value, expression.number)

    def _parsed(self, node: ast.expr) -> Expression:
        match node:
            case ast.BoolOp():
                return any if isinstance(node.op, ast.Or) else all, [self._parsed(part) for part in node.values]
            case ast.Compare(left=left, ops=[kind], comparators=[right]) if type(kind) in OPERATORS:
                is_left = isinstance(left, NAME)
                named, other = (left, right) if is_left else (right, left)
                compare = OPERATORS[type(kind)][0 if is_left else 1]
            case _:
                raise self._invalid()
        if not isinstance(named, NAME):
            raise self._invalid()
        name = ast.unparse(named)
        try:
            number = ast.literal_eval(other)
        except (ValueError, TypeError, SyntaxError):
            raise self._invalid() from None
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise self._invalid()
        if name not in self._known:
            raise self.unknown(name, f"unknown metric {name!r}")
        return Threshold(name, compare, number)

    def unknown(self, name: str, what: str, remedy: str = "") -> UsageError:
        """Return the error for a name that is unknown, or has no value for these rows in principle."""
        known = ", ".join(one for one in self._known if one != name and not one.endswith(BOUNDS))
        if any(one.endswith(BOUNDS) for one in self._known):
            known += ", or bounds of intervals, such as accuracy.lower"
        return UsageError(f"{self.condition!r}: {what}", where="--fail-if", remedy=remedy or f"choose from {known}")

    def _invalid(self) -> UsageError:
        return UsageError(
            f"{self.condition!r} is an invalid condition: expected NAME < NUMBER",
            where="--fail-if",
            remedy="write it like: mean_loss > 1.2 or bad_rows > 100",
        )


def _names(expression: Expression) -> Iterable[str]:
    """Return the names in an expression, in its order."""
    if isinstance(expression, Threshold):
        return [expression.name]
    return [name for part in expression[1] for name in _names(part)]


def _text(name: str, one: Figure) -> str:
    return f"{name} has no value ({one.missing})" if one.value is None else f"{name} is {one.value}"


def _is_finite(value: float | None) -> bool:
    return value is not None and (isinstance(value, int) or math.isfinite(value))

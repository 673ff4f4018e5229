"""Conditions such as ``--fail-if 'mean_loss > 1.2'``, and the metrics that they compare.

A :class:`Figure` without a value has a reason, and a comparison with it is true: a missing value fails the gate. Knows
conditions and numbers; the result of each command has the metrics.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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

    _COMPARE: ClassVar[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
        ast.Lt: operator.lt,
        ast.LtE: operator.le,
        ast.Gt: operator.gt,
        ast.GtE: operator.ge,
        ast.Eq: operator.eq,
        ast.NotEq: operator.ne,
    }

    def __init__(self, condition: str, names: Collection[str]) -> None:
        self.condition = condition
        self._known = names
        try:
            self._tree = ast.parse(condition.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise self._invalid() from None
        self._check(self._tree)

    @property
    def names(self) -> list[str]:
        """The names in the condition, each once."""
        names = (node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))
        return list(dict.fromkeys(names))

    def failure(self, figures: Mapping[str, Figure]) -> str:
        """Return why the condition is true, with the value of each metric in it; an empty string if it is false."""
        if not self.is_true({name: one.value for name, one in figures.items()}):
            return ""
        return f"--fail-if {self.condition!r} is true: {', '.join(_text(name, figures[name]) for name in self.names)}"

    def is_true(self, values: Mapping[str, float | None]) -> bool:
        """Return whether the condition is true for final values."""
        return self._holds(self._tree, values, early=False)

    def is_decided(self, values: Mapping[str, float | None]) -> bool:
        """Return whether the condition is already true, whatever the remaining rows contain."""
        return self._holds(self._tree, values, early=True)

    def _holds(self, node: ast.expr, values: Mapping[str, float | None], *, early: bool) -> bool:
        if isinstance(node, ast.BoolOp):
            combine = any if isinstance(node.op, ast.Or) else all
            return combine(self._holds(part, values, early=early) for part in node.values)
        assert isinstance(node, ast.Compare)  # noqa: S101 - checked by the constructor
        kind = type(node.ops[0])
        left, right = node.left, node.comparators[0]
        if early:
            name, grows = (
                (left, kind in {ast.Gt, ast.GtE}) if isinstance(left, ast.Name) else (right, kind in {ast.Lt, ast.LtE})
            )
            if not (isinstance(name, ast.Name) and name.id in COUNTS and grows):
                return False
        a, b = self._value(left, values), self._value(right, values)
        return a is None or b is None or bool(self._COMPARE[kind](a, b))

    @staticmethod
    def _value(node: ast.expr, values: Mapping[str, float | None]) -> Any:
        """Return a number, or the value of a metric; None if it has none."""
        if not isinstance(node, ast.Name):
            return ast.literal_eval(node)
        value = values.get(node.id)
        return value if _is_finite(value) else None

    def _check(self, node: ast.expr) -> None:
        if isinstance(node, ast.BoolOp):
            for part in node.values:
                self._check(part)
            return
        if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in self._COMPARE:
            raise self._invalid()
        sides = (node.left, node.comparators[0])
        names = [side.id for side in sides if isinstance(side, ast.Name)]
        numbers = [side for side in sides if not isinstance(side, ast.Name)]
        if len(names) != 1 or not all(_is_number(side) for side in numbers):
            raise self._invalid()
        if names[0] not in self._known:
            raise self.unknown(names[0], f"unknown metric {names[0]!r}")

    def unknown(self, name: str, what: str, remedy: str = "") -> UsageError:
        """Return the error for a name that is unknown, or has no value for these rows in principle."""
        known = ", ".join(one for one in self._known if one != name)
        return UsageError(f"{self.condition!r}: {what}", where="--fail-if", remedy=remedy or f"choose from {known}")

    def _invalid(self) -> UsageError:
        return UsageError(
            f"{self.condition!r} is an invalid condition: expected NAME < NUMBER",
            where="--fail-if",
            remedy="write it like: mean_loss > 1.2 or bad_rows > 100",
        )


def _text(name: str, one: Figure) -> str:
    return f"{name} has no value ({one.missing})" if one.value is None else f"{name} is {one.value}"


def _is_finite(value: float | None) -> bool:
    return value is not None and (isinstance(value, int) or math.isfinite(value))


def _is_number(node: ast.expr) -> bool:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)

"""What a threshold is chosen for: a metric to maximize, or a constraint that it has to meet. Parses both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from batchmax.errors import UsageError

Maximized = Literal["f1", "f0.5", "f2", "accuracy", "balanced_accuracy", "mcc"]

MAXIMIZED = ("f1", "f0.5", "f2", "accuracy", "balanced_accuracy", "mcc")

OPERATORS = {"precision": ">=", "recall": ">=", "fpr": "<=", "alert_rate": "<=", "accuracy": ">="}
"""The metrics that can be constrained, with the operator of each; the last one is that of several classes."""

OF_POSITIVE = ("precision", "recall", "fpr", "alert_rate")
OF_CLASSES = ("accuracy",)


@dataclass(frozen=True)
class Constraint:
    """A bound that a metric has to meet, with a confidence level."""

    metric: str
    op: str
    target: float
    level: float

    @property
    def text(self) -> str:
        """The constraint as in ``--at``."""
        return f"{self.metric}{self.op}{self.target:.12g}"

    @property
    def is_lower(self) -> bool:
        """Whether the metric has to be large."""
        return self.op == ">="


def parse_constraint(text: str, level: float) -> Constraint:
    """Parse a constraint such as ``precision>=0.95``.

    Raises
    ------
    UsageError
        It isn't one, or the target or the confidence level isn't between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        what, remedy = f"{level:g} is out of range", "give a level between 0 and 1, such as 0.95"
        raise UsageError(what, where="--confidence-level", remedy=remedy)
    match = re.fullmatch(r"\s*(\w+)\s*([<>]=?|==?)\s*([-+.\deE]{1,30})\s*", text)
    remedy = "write it like 'precision>=0.95', 'recall>=0.9', 'fpr<=0.01', 'alert_rate<=0.01' or 'accuracy>=0.98'"
    if match is None or match[1] not in OPERATORS:
        raise UsageError(f"{text!r} is not a constraint", where="--at", remedy=remedy)
    metric, op, number = match.groups()
    if op != OPERATORS[metric]:
        what = f"{metric} has no constraint with {op}"
        raise UsageError(what, where="--at", remedy=f"write it like '{metric}{OPERATORS[metric]}{number}'")
    try:
        target = float(number)
    except ValueError:
        raise UsageError(f"{number!r} is not a number", where="--at", remedy=remedy) from None
    if not 0.0 < target < 1.0:
        what = f"{number} is out of range, as no rows can show that a rate is 0 or 1"
        raise UsageError(what, where="--at", remedy="give a share between 0 and 1, such as 0.95")
    return Constraint(metric, op, target, level)

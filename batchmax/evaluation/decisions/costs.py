"""Costs of decisions: reads them from a CSV file, and finds the thresholds with the least mean cost."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.errors import UsageError
from batchmax.evaluation.decisions.score_counts import LARGEST, ScoreCounts
from batchmax.options.decision_file import ABSTAIN
from batchmax.scoring.decisions import expected_costs
from batchmax.storage.text_input import read_text

Array = NDArray[Any]

OPTION = "--costs"


@dataclass(frozen=True, eq=False)
class Costs:
    """The cost of each decision for each true class.

    Attributes
    ----------
    decisions
        The names of the decisions; ``abstain`` may be one of them.
    matrix : (n_classes, n_decisions) float64
    """

    decisions: tuple[str, ...]
    matrix: Array

    def as_dict(self) -> dict[str, Any]:
        """Return the costs as in the JSON."""
        return {"decisions": list(self.decisions), "matrix": self.matrix.tolist()}

    def of(self, decision: str) -> Array:
        """Return the costs of a decision by class, (n_classes,)."""
        return np.asarray(self.matrix[:, self.decisions.index(decision)])

    def expected(self, probs: Array) -> Array:
        """Return the expected cost of each decision, (n, n_decisions), from probabilities, (n, n_classes)."""
        return expected_costs(probs, self.matrix)


def read_costs(path: str | os.PathLike[str], classes: Sequence[str], storage: Sequence[str] = ()) -> Costs:
    """Read costs from a CSV file: a header ``true`` and decisions, and a line for each class.

    Raises
    ------
    UsageError
        The file doesn't exist, or a line isn't valid; the message names the line and the column.
    """
    name = os.fspath(path)
    text = read_text(path, OPTION, storage)
    remedy = "write a CSV file with a header 'true' and the decisions, and a line for each class"
    if text is None:
        raise UsageError(f"there is no file {name}", where=OPTION, remedy=remedy)
    reader = csv.reader(text.splitlines(), skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num} of {name}: {error}", where=OPTION, remedy=remedy) from error
    if not rows or rows[0][1][0] != "true":
        what = f"the first column of {name} is {rows[0][1][0]!r}, not 'true'" if rows else f"{name} is empty"
        raise UsageError(what, where=OPTION, remedy=remedy)
    (line, (_, *decisions)), *lines = rows
    for at, decision in enumerate(decisions, 2):
        if not decision or decision in decisions[: at - 2]:
            what = f"decision {decision!r} occurs twice" if decision else "the decision has no name"
            raise UsageError(f"line {line}, column {at} of {name}: {what}", where=OPTION, remedy="name each once")
    if len(decisions) < 2:
        raise UsageError(f"{name} has fewer than two decisions", where=OPTION, remedy=remedy)
    found: dict[str, list[float]] = {}
    for number, row in lines:
        where = f"line {number} of {name}"
        if len(row) != len(decisions) + 1:
            what = f"{where} has {len(row)} values, and the header {len(decisions) + 1}"
            raise UsageError(what, where=OPTION, remedy="give a cost for each decision")
        if row[0] not in classes:
            shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
            raise UsageError(
                f"{where}, column 1: {row[0]!r} is not a class", where=OPTION, remedy=f"classes are: {shown}"
            )
        if row[0] in found:
            raise UsageError(f"{where}, column 1: class {row[0]!r} occurs twice", where=OPTION, remedy="name it once")
        found[row[0]] = [
            _cost(cell, f"line {number}, column {at} ({decisions[at - 2]!r}) of {name}")
            for at, cell in enumerate(row[1:], 2)
        ]
    missing = [name for name in classes if name not in found]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UsageError(f"{name} has no line for class {missing[0]!r}{more}", where=OPTION, remedy=remedy)
    return Costs(tuple(decisions), np.array([found[one] for one in classes]))


def _cost(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e100:
        raise UsageError(f"{where}: {text!r} is not a cost", where=OPTION, remedy="give a finite number")
    return value


@dataclass(frozen=True, eq=False)
class BinaryCosts:
    """The costs of the decisions of two classes, as (cost of a negative row, cost of a positive row) each.

    ``abstain`` is None if it isn't a decision.
    """

    negative: tuple[float, float]
    positive: tuple[float, float]
    abstain: tuple[float, float] | None

    def mean(self, counts: ScoreCounts, high: float | None, low: float | None) -> float | None:
        """Return the mean cost of rows that are positive from ``high`` on, and negative below ``low``, or ``high``."""
        total = counts.positives + counts.negatives
        if not total:
            return None
        tp, fp = _counts(counts, high)
        below = (tp, fp) if low is None else _counts(counts, low)
        fn, tn = counts.positives - below[0], counts.negatives - below[1]
        between = below[0] - tp, below[1] - fp
        cost = tn * self.negative[0] + fn * self.negative[1] + fp * self.positive[0] + tp * self.positive[1]
        if self.abstain is not None:
            cost += between[1] * self.abstain[0] + between[0] * self.abstain[1]
        return cost / total


def binary_costs(costs: Costs, classes: Sequence[str], positive: int) -> BinaryCosts:
    """Return the costs of two classes.

    Raises
    ------
    UsageError
        The decisions aren't the two classes and perhaps ``abstain``.
    """
    names = {ABSTAIN: "abstain", classes[positive]: "positive", classes[1 - positive]: "negative"}
    other = [name for name in costs.decisions if name not in names]
    missing = [name for name in classes if name not in costs.decisions]
    if other or missing:
        what = f"{other[0]!r} is not one of the decisions" if other else f"there is no decision {missing[0]!r}"
        remedy = f"with two classes, decisions are {classes[0]!r}, {classes[1]!r} and, if wanted, 'abstain'"
        raise UsageError(what, where=OPTION, remedy=remedy)
    columns = {names[name]: (float(of[1 - positive]), float(of[positive])) for name in names
               if name in costs.decisions for of in [costs.of(name)]}  # fmt: skip
    return BinaryCosts(columns["negative"], columns["positive"], columns.get("abstain"))


def least_cost(counts: ScoreCounts, costs: BinaryCosts) -> tuple[float | None, float | None]:
    """Return the thresholds ``high`` and ``low`` with the least mean cost; ``low`` is None without abstention.

    ``high`` is None if no row should be positive. Of equal costs, those with the fewest positive rows, and then with
    the most negative ones, are chosen.
    """
    tp, fp = counts.tp, counts.fp
    if costs.abstain is None:
        cost = tp * (costs.positive[1] - costs.negative[1]) + fp * (costs.positive[0] - costs.negative[0])
        return _threshold(counts, int(np.argmin(cost))), None
    abstain = costs.abstain
    # A threshold h has the cost of its positive rows, and a threshold l that of its negative ones, both relative to
    # abstention; h isn't below l.
    upper = tp * (costs.positive[1] - abstain[1]) + fp * (costs.positive[0] - abstain[0])
    lower = (counts.positives - tp) * (costs.negative[1] - abstain[1])
    lower += (counts.negatives - fp) * (costs.negative[0] - abstain[0])
    best = np.minimum.accumulate(upper)
    # Rows with a score of +inf can't be below a threshold.
    first = int(bool(len(counts.thresholds)) and counts.thresholds[0] == LARGEST)
    at_low = first + int(np.argmin((best + lower)[first:]))
    at_high = int(np.argmin(upper[: at_low + 1]))
    low = _threshold(counts, at_low)
    return _threshold(counts, at_high), LARGEST if low is None else low


def _threshold(counts: ScoreCounts, at: int) -> float | None:
    if at == len(counts.thresholds) > 0:
        # Lower scores than those of all rows shouldn't be decided otherwise.
        return -LARGEST
    return None if at == 0 else float(counts.thresholds[at - 1])


def _counts(counts: ScoreCounts, threshold: float | None) -> tuple[float, float]:
    if threshold is None:
        return 0.0, 0.0
    tp, fp = counts.at(np.array([threshold]))
    return float(tp[0]), float(fp[0])

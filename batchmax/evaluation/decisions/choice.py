"""Chooses the rule of one set of rows: a group, or a label of multi-label rows. Knows scores, not files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchmax.evaluation.class_metrics import ratio
from batchmax.evaluation.decisions.costs import BinaryCosts, least_cost
from batchmax.evaluation.decisions.decision_rows import DecisionRows
from batchmax.evaluation.decisions.rules import Constraint
from batchmax.evaluation.decisions.score_counts import ScoreCounts, best_threshold, listed, metrics_at
from batchmax.evaluation.decisions.threshold_tests import TestedPart, find_threshold, groups_of_clusters

NOTHING: dict[str, Any] = {
    **dict.fromkeys(("threshold", "logit", "logit_low", "logit_high", "constraint", "fitted", "held_out", "optimism")),
    "thresholds": [],
}
"""The members of a group without a rule of its own."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The rule of a set of rows.

    Attributes
    ----------
    members
        Those of the decision file, as of a group.
    n_fitted, n_held_out
        The numbers of rows of the two parts.
    has_both
        Whether the fitted rows have positives and negatives.
    failed
        Whether no threshold meets the constraint.
    bound
        Then the best confidence bound of the metric, or None.
    """

    members: dict[str, Any]
    n_fitted: int
    n_held_out: int
    has_both: bool
    failed: bool = False
    bound: float | None = None


@dataclass(frozen=True, eq=False)
class Chooser:
    """How rules are chosen: one of ``maximize``, ``constraint`` and ``costs`` is given.

    Attributes
    ----------
    maximize, constraint, costs
        The metric to maximize, the constraint to meet, or the costs of two classes.
    is_confidence
        Whether scores are confidences, and rows below the threshold aren't decided.
    holds_out
        Whether rows are held out; otherwise, all rows are both parts.
    convert
        Returns the log-odds and the probability of a score.
    """

    maximize: str | None
    constraint: Constraint | None
    costs: BinaryCosts | None
    is_confidence: bool
    holds_out: bool
    convert: Callable[[float], tuple[float, float]]

    def choose(self, rows: DecisionRows) -> Choice:
        """Choose the rule of rows with one score each."""
        fitted = self._part(rows, ~rows.held_out) if self.holds_out else self._part(rows, np.ones_like(rows.held_out))
        held_out = self._part(rows, rows.held_out) if self.holds_out else fitted
        low: float | None = None
        constraint, failed, bound = None, False, None
        if self.constraint is not None:
            tested = find_threshold(self.constraint, fitted, held_out)
            high, failed, bound = tested.threshold, tested.threshold is None, tested.bound
            one = self.constraint
            constraint = {"metric": one.metric, "op": one.op, "target": one.target}
            constraint |= {"confidence_level": one.level, "p_value": tested.p_value}
        elif self.maximize is not None:
            high = best_threshold(fitted.counts, self.maximize)
        else:
            assert self.costs is not None  # noqa: S101 - one of the three is given
            high, low = least_cost(fitted.counts, self.costs)
        parts = [self._metrics(part.counts, high, low) for part in (fitted, held_out)]
        members = NOTHING | self._thresholds(high, low)
        members |= {"constraint": constraint, "fitted": parts[0], "held_out": parts[1]}
        members["optimism"] = self._optimism(*parts)
        counts = fitted.counts
        has_both = counts.positives > 0 and counts.negatives > 0
        return Choice(members, counts.n_rows, held_out.counts.n_rows, has_both, failed, bound)

    def _part(self, rows: DecisionRows, which: Any) -> TestedPart:
        some = rows.select(which)
        scores, right = np.ascontiguousarray(some.scores[:, 0]), some.right[:, 0] == 1
        groups = np.zeros(0, np.int64)
        if len(some.hashes) and self.constraint is not None:
            groups = groups_of_clusters(some.hashes)
        return TestedPart(ScoreCounts(scores, right, some.weights), scores, right, groups)

    def _thresholds(self, high: float | None, low: float | None) -> dict[str, Any]:
        """Return the members with thresholds."""
        logit, threshold = (None, None) if high is None else self.convert(high)
        if low is None:
            return {"threshold": threshold, "logit": logit}
        return {"logit_low": self.convert(low)[0], "logit_high": logit}

    def _metrics(self, counts: ScoreCounts, high: float | None, low: float | None) -> dict[str, Any]:
        found = metrics_at(counts, high, low)
        if self.is_confidence:
            # Positive rows are those that are decided; the share of right ones is the accuracy.
            found = listed({"n_rows": found["n_rows"], "coverage": found["alert_rate"], "accuracy": found["precision"]})
        if self.costs is not None:
            mean = self.costs.mean(counts, high, low)
            found["mean_cost"] = None if mean is None else ratio(mean, 1.0)
        return found

    def _optimism(self, fitted: dict[str, Any], held_out: dict[str, Any]) -> float | None:
        name = "mean_cost" if self.costs is not None else self.maximize
        if name is None or fitted[name] is None or held_out[name] is None:
            return None
        return float(fitted[name] - held_out[name])

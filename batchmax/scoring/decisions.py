"""Applies decision rules to rows: arrays in, arrays out.

A row is compared with a rule by its log-odds, computed exactly as when the rule was chosen: a row with the score of a
threshold is on the same side of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.result_arrays import ABSTAINED, DECIDED, FIRST_STATUS, UNKNOWN_GROUP
from batchmax.columns.row_values import number_texts
from batchmax.functional.log_odds import difference, log_odds_of_logarithms
from batchmax.functional.losses import softmax_rows
from batchmax.kernels.curves import log_odds
from batchmax.options.decision_file import ABSTAIN, AppliedRule
from batchmax.runtime.buffers import Take
from batchmax.statuses import LAST_WITHOUT_PROBS

Array = NDArray[Any]


def are_stored(job: Job, positive: int | None) -> bool:
    """Return whether rows are ordered by the probabilities that the file stores; otherwise, by log-odds."""
    options = job.options
    return options.input != "logits" and options.scale is None and (positive is not None or options.beta == 1.0)


def expected_costs(probs: Array, costs: Array) -> Array:
    """Return the expected cost of each decision, (n, n_decisions), from probabilities, (n, n_classes).

    ``costs`` are (n_classes, n_decisions). Classes are added in their order, so that the result has the same bits on
    every machine.
    """
    total = np.zeros((len(probs), costs.shape[1]))
    for at, of_class in enumerate(costs):
        total += probs[:, at : at + 1] * of_class
    return total


def decision_values(logits: Array, status: Array, groups: pa.Array | None, job: Job, take: Take) -> dict[str, Array]:
    """Return the outputs of the rule of a job for (n, K) logits.

    ``groups`` are the values of the column of groups, or None. ``decision`` are class numbers, or positions in the
    names of the decisions, (n,) int32, and -1 for rows without a decision; ``decisions`` are (n, K) bool.
    ``expected_cost`` is NaN for bad rows, and those of unknown groups.
    """
    rule = job.rule
    assert rule is not None  # noqa: S101 - only called for jobs with a rule
    reason = np.full(len(logits), DECIDED, np.uint8)
    numbers = np.zeros(len(logits), np.int64)
    if groups is not None:
        n_groups = len(rule.groups)
        numbers = np.minimum(number_texts(groups, {value: at for at, value in enumerate(rule.groups)}), n_groups)
        reason[numbers == n_groups] = UNKNOWN_GROUP
    np.copyto(reason, status + np.uint8(FIRST_STATUS), where=status <= LAST_WITHOUT_PROBS)
    found: dict[str, Array] = {"decision_reason": reason}
    if rule.task == "multilabel":
        with np.errstate(over="ignore"):
            scores = logits.astype(np.float64) * job.options.beta
        return found | {"decisions": scores >= _per_row([one.logits for one in rule.thresholds], numbers)}
    high = _per_row([one.logit for one in rule.thresholds], numbers)
    if rule.task == "binary":
        low = _per_row([one.logit_low for one in rule.thresholds], numbers)
        decision = _of_two(logits, low, high, rule, job)
    elif not rule.decisions:
        decision = np.where(row_log_odds(logits, job, None) >= high, logits.argmax(axis=1), -1)
    if rule.decisions:
        expected = _expected(logits, rule, job, take)
        if rule.task == "binary":
            # The thresholds have the least cost of the rows that the rule was chosen on.
            names = (*rule.class_names, ABSTAIN)
            chosen = np.array([rule.decisions.index(one) if one in rule.decisions else 0 for one in names])[decision]
        else:
            chosen = expected.argmin(axis=1)
            names = rule.other_decisions or rule.class_names
            decision = np.array([-1 if one == ABSTAIN else names.index(one) for one in rule.decisions])[chosen]
        cost = np.take_along_axis(expected, chosen[:, np.newaxis], axis=1)[:, 0]
        found["expected_cost"] = np.where(reason == DECIDED, cost, np.nan)
    reason[(reason == DECIDED) & (decision < 0)] = ABSTAINED
    return found | {"decision": np.where(reason == DECIDED, decision, -1).astype(np.int32)}


def row_log_odds(logits: Array, job: Job, positive: int | None) -> Array:
    """Return the log-odds of the positive class, or of the most probable class of several, (n,) float64."""
    beta = job.options.beta
    if are_stored(job, positive):
        # These are logarithms of probabilities.
        if positive is None:
            return log_odds_of_logarithms(logits.max(axis=1))[0]
        if positive == 0 and job.logits.is_one_logit:
            return -log_odds_of_logarithms(logits[:, 1])[0]
        return log_odds_of_logarithms(logits[:, positive])[0]
    if positive is not None:
        with np.errstate(over="ignore"):
            return difference(logits, positive, np.dtype(np.float64)) * beta
    out = np.empty((logits.shape[1], len(logits)))
    log_odds(np.ascontiguousarray(logits, np.float64), beta, out)
    best: Array = out.max(axis=0)
    return best


def _of_two(logits: Array, low: Array, high: Array, rule: AppliedRule, job: Job) -> Array:
    """Return the class of each row, or -1 if the rule abstains; thresholds are (n,)."""
    positive = rule.positive
    assert positive is not None  # noqa: S101 - of two classes, one is positive
    scores = row_log_odds(logits, job, positive)
    is_positive = scores >= high
    is_negative = np.where(np.isnan(low), ~is_positive, scores < low)
    return np.where(is_negative, 1 - positive, np.where(is_positive, positive, -1))


def _expected(logits: Array, rule: AppliedRule, job: Job, take: Take) -> Array:
    """Return the expected cost of each decision, (n, n_decisions)."""
    matrix = np.ascontiguousarray(logits, np.float64)
    if matrix is not logits:
        matrix.flags.writeable = False
    probs = take(matrix.shape, np.float64)
    softmax_rows(matrix, job.options.beta, probs=probs)
    return expected_costs(probs, np.array(rule.costs))


def _per_row(thresholds: Sequence[Any], numbers: Array) -> Array:
    """Return the thresholds of the group of each row; NaN, which comparisons never reach, for None."""
    of_groups = np.array(thresholds, np.float64)
    # The last number is that of unknown groups.
    of_groups = np.concatenate([of_groups, np.full_like(of_groups[:1], np.nan)])
    found: Array = of_groups[numbers]
    return found

"""Thresholds that meet a constraint with a confidence level: fixed-sequence testing ("Learn then Test").

The best threshold of some rows meets its constraint on these rows, and misses it on others in about half of all files.
So candidates are taken from one part of the rows, and tested on the other. They are tested in an order that the first
part determines, and testing stops at the first candidate that fails. Then the probability that any tested threshold
that passes misses its constraint is at most 1 minus the level, without a correction for their number.

See Also
--------
Angelopoulos et al. 2021, "Learn then Test: calibrating predictive algorithms to achieve risk control", arXiv
2110.01052, section 3.2; Clopper and Pearson 1934, Biometrika 26, 404-413.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.decisions.rules import Constraint
from batchmax.evaluation.decisions.score_counts import ScoreCounts
from batchmax.evaluation.distributions import log_binomial_tails, t_tail
from batchmax.evaluation.intervals import FEWEST_GROUPS, effective_degrees
from batchmax.kernels.jackknife_sums import GROUPS, groups_of_hashes

Array = NDArray[Any]

MOST_CANDIDATES = 4_000
BISECTIONS = 40


@dataclass(frozen=True, eq=False)
class TestedPart:
    """A part of the rows.

    Attributes
    ----------
    counts
        The rows in descending order of scores.
    scores, positive : (n,)
        As for :class:`ScoreCounts`, in any order.
    groups : (n,) int64, or (0,)
        The group of each row's cluster; empty if rows are independent.
    """

    counts: ScoreCounts
    scores: Array
    positive: Array
    groups: Array


@dataclass(frozen=True, eq=False)
class TestedThreshold:
    """The result of the tests.

    Attributes
    ----------
    threshold
        The last threshold that passed; None if none did.
    p_value
        Its p-value on the second part.
    bound
        If none passed: the best confidence bound of the metric that a single candidate has, or None if there is none.
    """

    threshold: float | None
    p_value: float | None
    bound: float | None


def groups_of_clusters(hashes: Array) -> Array:
    """Return a group of each row from the hash of its cluster; up to 256 clusters are a group each."""
    distinct, numbers = np.unique(hashes, return_inverse=True)
    if len(distinct) <= GROUPS:
        return numbers.astype(np.int64)
    groups = np.empty(len(hashes), np.uint8)
    groups_of_hashes(hashes, groups)
    return groups.astype(np.int64)


def find_threshold(constraint: Constraint, fitted: TestedPart, held_out: TestedPart) -> TestedThreshold:
    """Choose candidates and their order by the first part, and test them on the second."""
    candidates = _candidates(fitted.counts)
    if not len(candidates):
        return TestedThreshold(None, None, None)
    order = _log_p_values(constraint, fitted, candidates)
    if constraint.metric == "recall":
        # The recall grows with the alerts: start at the smallest p-value with the most alerts.
        candidates, order = candidates[::-1], order[::-1]
    path = candidates[int(np.argmin(order)) :]
    p_values = _log_p_values(constraint, held_out, path)
    passes = p_values <= math.log(1.0 - constraint.level)
    n_passed = len(passes) if passes.all() else int(np.argmin(passes))
    if not n_passed:
        return TestedThreshold(None, None, _best_bound(constraint, held_out, candidates))
    return TestedThreshold(float(path[n_passed - 1]), math.exp(p_values[n_passed - 1]), None)


def _candidates(counts: ScoreCounts) -> Array:
    """Return the scores at log-spaced ranks, in descending order, each once."""
    if not len(counts.thresholds):
        return np.zeros(0)
    n = counts.n_rows
    steps = [n ** (at / (MOST_CANDIDATES - 1)) for at in range(MOST_CANDIDATES)]
    ranks = np.unique(np.clip(np.round(steps).astype(np.int64), 1, n))
    scores = counts.scores[ranks - 1]
    scores = scores[scores > -np.inf]
    return np.asarray(np.unique(scores)[::-1])


def _log_p_values(constraint: Constraint, part: TestedPart, thresholds: Array, target: float | None = None) -> Array:
    """Return the logarithms of the p-values of the hypotheses that the metric misses the target."""
    share = constraint.target if target is None else target
    if len(part.groups):
        hits, trials = _counts_of_groups(constraint, part, thresholds)
    else:
        hits, trials = _hits(constraint, *part.counts.at(thresholds), part.counts.positives, part.counts.negatives)
    if not constraint.is_lower:
        hits, share = trials - hits, 1.0 - share
    if len(part.groups):
        return np.array([_log_t_test(one, of, share) for one, of in zip(hits, trials, strict=True)])
    return log_binomial_tails(hits, trials, share)


def _hits(constraint: Constraint, tp: Array, fp: Array, positives: Any, negatives: Any) -> tuple[Array, Array]:
    """Return the numbers of hits and trials of a metric."""
    match constraint.metric:
        case "recall":
            return tp, np.broadcast_to(positives, tp.shape)
        case "fpr":
            return fp, np.broadcast_to(negatives, tp.shape)
        case "alert_rate":
            return tp + fp, np.broadcast_to(positives + negatives, tp.shape)
        case _:
            return tp, tp + fp


def _counts_of_groups(constraint: Constraint, part: TestedPart, thresholds: Array) -> tuple[Array, Array]:
    """Return hits and trials of each group of clusters, (t, g); thresholds are ascending or descending."""
    is_ascending = len(thresholds) > 1 and thresholds[0] < thresholds[-1]
    descending = thresholds[::-1] if is_ascending else thresholds
    n, g = len(thresholds), int(part.groups.max()) + 1
    first = np.searchsorted(-descending, -np.minimum(part.scores, np.finfo(np.float64).max), side="left")
    places = first * g + part.groups
    counted = [
        np.bincount(places[which], minlength=(n + 1) * g).reshape(n + 1, g).astype(np.float64)
        for which in (part.positive, ~part.positive)
    ]
    tp, fp = (np.cumsum(one[:n], axis=0) for one in counted)
    hits, trials = _hits(constraint, tp, fp, *(one.sum(axis=0) for one in counted))
    return (hits[::-1], trials[::-1]) if is_ascending else (hits, trials)


def _log_t_test(hits: Array, trials: Array, share: float) -> float:
    """Return the logarithm of the p-value of a rate of at most ``share``, by the delete-a-group jackknife.

    The test is on the logit scale. A rate of 1 has no variance: it is tested as if each cluster were one row.
    """
    used = trials > 0
    hits, trials = hits[used], trials[used]
    g = len(trials)
    if g < FEWEST_GROUPS:
        return 0.0
    total = trials.sum()
    rate = float(hits.sum() / total)
    if rate <= share:
        return 0.0
    if rate == 1.0:
        return g * math.log(share)
    left_out = (hits.sum() - hits) / (total - trials)
    distances = left_out - left_out.mean()
    error = math.sqrt((g - 1) / g * float((distances * distances).sum()))
    if error == 0.0:
        return -math.inf
    t = rate * (1.0 - rate) * (math.log(rate / (1.0 - rate)) - math.log(share / (1.0 - share))) / error
    tail = t_tail(t, effective_degrees(left_out))
    return math.log(tail) if tail > 0.0 else -math.inf


def _best_bound(constraint: Constraint, part: TestedPart, candidates: Array) -> float | None:
    """Return the best confidence bound of the metric at a candidate, of those that have rows; by bisection."""
    low, high = 0.0, 1.0
    wanted = math.log(1.0 - constraint.level)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        passes = bool((_log_p_values(constraint, part, candidates, middle) <= wanted).any())
        if passes == constraint.is_lower:
            low = middle
        else:
            high = middle
    bound = low if constraint.is_lower else high
    return bound if 0.0 < bound < 1.0 else None

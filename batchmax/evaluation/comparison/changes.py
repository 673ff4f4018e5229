"""Changes of metrics from a to b over pairs of rows, with intervals and p-values.

Mean losses and Brier scores of independent rows are compared by the differences of pairs, as in a paired t-test, and
accuracy, recall and specificity by the numbers of flips. Everything else has the delete-a-group jackknife of the
difference: both metrics are computed without the same group of pairs. Knows sums over pairs; doesn't know how pairs
were read.

See Also
--------
Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.comparison.paired_tests import Differences, mcnemar
from batchmax.evaluation.distributions import normal_quantile, t_quantile, t_tail
from batchmax.evaluation.intervals import effective_degrees, standard_errors
from batchmax.evaluation.metric_intervals import ROUNDING

Array = NDArray[Any]
Change = dict[str, Any]
Both = tuple[float | None, float | None]
"""A metric in a and in b."""

FIELDS = ("a", "b", "change", "lower", "upper", "p_value", "p_adjusted", "mde")
POWER_FACTOR = 2.80
"""Quantiles 0.975 and 0.8 of the normal distribution, added: a test at 5 % detects 80 % of such differences."""


class PairedMetrics(Protocol):
    """The metrics of both inputs over some pairs of rows."""

    @property
    def n_pairs(self) -> int:
        """The number of pairs."""

    def values(self) -> dict[str, Both]:
        """Return the metrics by name."""

    def left_out(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the metrics of a and of b without each group of pairs, (g,), by name.

        Without those that can't be computed, and without any if there are too few groups.
        """

    def flips_of(self, name: str) -> tuple[int, int, int] | None:
        """Return the numbers of pairs, and of those that are right in b alone, and in a alone.

        None if the metric isn't a proportion of independent pairs.
        """

    def differences_of(self, name: str) -> Differences | None:
        """Return the differences of independent pairs; None if the metric isn't a mean over such pairs."""


def changes_of(pairs: PairedMetrics, level: float) -> dict[str, Change]:
    """Return the change of each metric by its name, such as ``macro.f1``; without those that rows don't have.

    A change has the ``FIELDS``: the metric in a and in b, the difference b - a with its interval and the p-value of the
    hypothesis that it is 0, and the smallest difference that 80 % of such comparisons would detect at 5 %. What isn't
    defined is None.
    """
    left_a, left_b = pairs.left_out()
    found = {}
    for name, (a, b) in pairs.values().items():
        found[name] = _change(a, b)
        if a is None or b is None:
            continue
        size = max(abs(a), abs(b))
        if (flips := pairs.flips_of(name)) is not None:
            found[name] |= _of_flips(*flips, level) if pairs.n_pairs > 1 else {}
        elif (differences := pairs.differences_of(name)) is not None:
            found[name] |= _of_differences(differences, pairs.n_pairs, size, level) if pairs.n_pairs > 1 else {}
        elif name in left_a:
            left_out = left_b[name] - left_a[name]
            error = float(standard_errors(left_out[:, np.newaxis])[0])
            found[name] |= _tested(b - a, error, float(effective_degrees(left_out)), level, size)
    return found


def adjust(groups: Sequence[dict[str, Change]]) -> None:
    """Set the adjusted p-values of the changes of groups, for each metric over the groups that have a p-value."""
    for name in dict.fromkeys(name for changes in groups for name in changes):
        some = [changes[name] for changes in groups if changes.get(name, {}).get("p_value") is not None]
        for change, p in zip(some, holm([change["p_value"] for change in some]), strict=True):
            change["p_adjusted"] = p


def holm(p_values: Iterable[float]) -> list[float]:
    """Return p-values of m tests that are adjusted so that a false rejection of any has at most the chosen probability.

    The i-th smallest is multiplied by m - i + 1; none is smaller than one before it, or larger than 1.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = list(p_values)
    adjusted = [0.0] * len(values)
    largest = 0.0
    for place, at in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[at]))
        adjusted[at] = largest
    return adjusted


def _change(a: float | None, b: float | None) -> Change:
    change = None if a is None or b is None else b - a
    return dict.fromkeys(FIELDS) | {"a": a, "b": b, "change": change}


def _tested(change: float, error: float, degrees: float, level: float, size: float) -> Change:
    """Return the fields of a change that need its standard error; ``size`` is that of the metrics."""
    if not math.isfinite(error) or not degrees:
        return {}
    if error <= ROUNDING * size:
        # There is no variation: either nothing changed in any group, or everything did by the same amount.
        return {"p_value": 1.0} if abs(change) <= ROUNDING * size else {}
    half = t_quantile(0.5 + 0.5 * level, degrees) * error
    p = 2.0 * t_tail(abs(change) / error, degrees)
    return {"lower": change - half, "upper": change + half, "p_value": min(float(p), 1.0), "mde": POWER_FACTOR * error}


def _of_differences(differences: Differences, n_pairs: int, size: float, level: float) -> Change:
    """Return the fields of a change of a mean over independent pairs."""
    mean, error = differences.mean_and_error()
    if mean == 0.0 and error <= ROUNDING * size:
        return {"change": 0.0, "lower": 0.0, "upper": 0.0, "p_value": 1.0}
    return {"change": mean} | _tested(mean, error, n_pairs - 1, level, size)


def _of_flips(n: int, one_way: int, other_way: int, level: float) -> Change:
    """Return the fields of a change of a proportion of n pairs, given the numbers of flips.

    The interval is that of two more pairs with a flip each way (Bonett and Price 2012, Journal of Educational and
    Behavioral Statistics 37, 479-488). Otherwise it would be too short if there are few flips, and a point if there are
    none.
    """
    if not n:
        return {}
    change = (one_way - other_way) / n
    center = (one_way - other_way) / (n + 2)
    half = normal_quantile(0.5 + 0.5 * level) * math.sqrt(((one_way + other_way + 2) / (n + 2) - center**2) / (n + 2))
    error = math.sqrt(max(0.0, (one_way + other_way) / n - change * change) / (n - 1)) if n > 1 else 0.0
    return {
        "change": change,
        "lower": max(center - half, -1.0),
        "upper": min(center + half, 1.0),
        "p_value": mcnemar(other_way, one_way)[0],
        "mde": POWER_FACTOR * error or None,
    }

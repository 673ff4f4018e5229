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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import AREAS, AVERAGES, OF_ALL, OF_CLASS, OF_POSITIVE, class_values
from batchmax.evaluation.comparison.change_sums import ChangeSums
from batchmax.evaluation.comparison.paired_tests import mcnemar
from batchmax.evaluation.curves.area_intervals import is_near
from batchmax.evaluation.distributions import normal_quantile, t_quantile, t_tail
from batchmax.evaluation.intervals import FEWEST_GROUPS, effective_degrees, standard_errors
from batchmax.evaluation.jackknife import MetricGroupSums
from batchmax.evaluation.metric_intervals import BLOCK, ROUNDING, without
from batchmax.evaluation.metrics import calibration_errors, group_metrics
from batchmax.kernels.metric_sums import HITS, WEIGHT
from batchmax.kernels.score_bins import AREAS as N_AREAS
from batchmax.kernels.score_bins import AUROC, PRECISION, areas_without_groups
from batchmax.scoring.tally import finite

Array = NDArray[Any]
Change = dict[str, Any]

OF_PAIRS = ("mean_loss", "brier", "accuracy")
"""The metrics that are means over rows."""
OF_FLIPS = {"accuracy": [0, 1], "specificity": [0], "recall": [1]}
"""Proportions of rows that are the same in both inputs, with the rows of :attr:`ChangeSums.flips` that they are of."""
OF_POSITIVE_CHANGE = tuple(name for name in OF_POSITIVE if name != "prevalence")
"""Prevalence is that of the labels, and the same in both inputs."""
CHANGED = (
    *OF_PAIRS,
    "ece",
    *OF_POSITIVE_CHANGE,
    *AREAS,
    *OF_ALL,
    *(f"{average}.{name}" for average in AVERAGES for name in OF_CLASS),
)
"""The metrics that may have a change."""
FIELDS = ("a", "b", "change", "lower", "upper", "p_value", "p_adjusted", "mde")
POWER_FACTOR = 2.80
"""Quantiles 0.975 and 0.8 of the normal distribution, added: a test at 5 % detects 80 % of such differences."""


def changes_of(sums: ChangeSums, positive: int | None, level: float) -> dict[str, Change]:
    """Return the change of each metric by its name, such as ``macro.f1``; without those that rows don't have.

    A change has the ``FIELDS``: the metric in a and in b, the difference b - a with its interval and the p-value of the
    hypothesis that it is 0, and the smallest difference that 80 % of such comparisons would detect at 5 %. What isn't
    defined is None.
    """
    both = sums.a, sums.b
    used = np.flatnonzero(sums.a.sums[:, WEIGHT] > 0)
    is_possible = len(used) >= FEWEST_GROUPS
    totals = [_values(one, np.zeros(0, np.int64), positive) for one in both]
    left_out = [_values(one, used, positive) for one in both] if is_possible else []
    found = {}
    for name in totals[0]:
        a, b = (finite(float(values[name][0])) for values in totals)
        if not sums.has_clusters and (name in OF_PAIRS or name in OF_FLIPS):
            found[name] = _of_pairs(name, a, b, sums, level)
            continue
        found[name] = _change(a, b)
        if left_out and a is not None and b is not None:
            differences = left_out[1][name] - left_out[0][name]
            error = float(standard_errors(differences[:, np.newaxis])[0])
            found[name] |= _tested(b - a, error, float(effective_degrees(differences)), level, max(abs(a), abs(b)))
    return found | _areas(sums, used if is_possible else None, level)


def _areas(sums: ChangeSums, used: Array | None, level: float) -> dict[str, Change]:
    """Return the changes of areas under curves, whose standard errors are those of bins of scores."""
    if not sums.scores:
        return {}
    exact, binned, left_out = [], [], []
    for one in sums.scores:
        one.curve.sort()
        exact.append(one.curve.areas(None))
        one.curve.close()
        if used is None:
            continue
        groups = np.ascontiguousarray(one.counts[used])
        total = np.ascontiguousarray(groups.sum(axis=0))
        binned.append(np.empty((1, N_AREAS)))
        left_out.append(np.empty((len(groups), N_AREAS)))
        areas_without_groups(total, np.zeros((1, *total.shape)), binned[-1])
        areas_without_groups(total, groups, left_out[-1])
    found = {}
    for name, which in (("auroc", AUROC), ("average_precision", PRECISION)):
        a, b = (getattr(one, name) for one in exact)
        found[name] = _change(a, b)
        if a is None or b is None or not left_out:
            continue
        if a != b and not all(is_near(float(one[0, which]), value) for one, value in zip(binned, (a, b), strict=True)):
            continue
        differences = left_out[1][:, which] - left_out[0][:, which]
        error = float(standard_errors(differences[:, np.newaxis])[0])
        found[name] |= _tested(b - a, error, float(effective_degrees(differences)), level, max(a, b))
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


def nested(changes: dict[str, Change]) -> dict[str, Any]:
    """Return changes with averages in a dictionary each."""
    found: dict[str, Any] = {}
    for name, change in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            found.setdefault(first, {})[rest] = change
        else:
            found[first] = change
    return found


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


def _of_pairs(name: str, a: float | None, b: float | None, sums: ChangeSums, level: float) -> Change:
    """Return the change of a mean over independent rows."""
    found = _change(a, b)
    if a is None or b is None or sums.n_pairs < 2:
        return found
    if name in OF_FLIPS:
        n, one_way, other_way = sums.flips[OF_FLIPS[name]].sum(axis=0).tolist()
        return found | _of_flips(n, one_way, other_way, level)
    mean, error = (sums.losses if name == "mean_loss" else sums.briers).mean_and_error()
    size = max(abs(a), abs(b))
    if mean == 0.0 and error <= ROUNDING * size:
        return found | {"change": 0.0, "lower": 0.0, "upper": 0.0, "p_value": 1.0}
    return found | {"change": mean} | _tested(mean, error, sums.n_pairs - 1, level, size)


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


def _values(sums: MetricGroupSums, used: Array, positive: int | None) -> dict[str, Array]:
    """Return metrics of all pairs, (1,), or, if numbers of groups are given, without each of these, (g,)."""
    totals = [array.sum(axis=0) for array in sums.arrays]

    def chosen(which: int, some: Array) -> Array:
        total = totals[which]
        return without(total, sums.arrays[which][some]) if len(used) else total[np.newaxis]

    rows = chosen(0, used)
    found = {name: value for name, value in group_metrics(rows).items() if name in OF_PAIRS}
    if not np.isfinite(totals[0][HITS]) or not totals[3][:, 0].any():
        del found["accuracy"]
        return found
    found["ece"] = calibration_errors(chosen(3, used)[..., :3])["ece"]
    if not len(totals[2]):
        return found
    some = max(1, BLOCK // len(totals[2]))
    blocks = [
        class_values(chosen(2, used[at : at + some]), found["mean_loss"][at : at + some], positive)
        for at in range(0, max(1, len(used)), some)
    ]
    return found | {name: np.concatenate([block[name] for block in blocks]) for name in CHANGED if name in blocks[0]}

"""Metrics of predicted classes, from the sums of each class: precision, recall, averages, agreement.

Names and defaults are those of scikit-learn. Knows arrays; a metric that isn't defined is None, and listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.elementwise import log_matrix
from batchmax.kernels.metric_sums import CLASS_LOSS, PREDICTED, RIGHT, SUPPORT
from batchmax.scoring.tally import finite

Array = NDArray[Any]

OF_CLASS = ("precision", "recall", "f1", "jaccard")
"""The metrics of each class, which also have averages."""

OF_POSITIVE = ("prevalence", "precision", "recall", "specificity", "f1")
"""The metrics of the positive class of a binary task."""

AREAS = ("auroc", "average_precision")
"""The areas under the curves of each class, which also have averages; see :mod:`batchmax.evaluation.curves`."""

OF_ALL = ("balanced_accuracy", "kappa", "mcc", "d2_log_loss")
"""The metrics of all classes together."""

AVERAGES = ("macro", "micro", "weighted")


def nested(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return values by metric with a dictionary for each average: ``macro.f1`` becomes ``f1`` of ``macro``."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        first, _, rest = name.partition(".")
        if rest:
            found.setdefault(first, {})[rest] = value
        else:
            found[first] = value
    return found


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """Metrics from the sums of K classes.

    Attributes
    ----------
    sums
        Shape (K, 4) float64, indexed by ``SUPPORT`` to ``CLASS_LOSS`` of :mod:`batchmax.kernels.metric_sums`.
    names
        The name of each class; None if classes have no names.
    mean_loss
        The mean loss of all rows, or None.
    positive
        The positive class of a binary task, or None.
    """

    sums: Array
    names: Sequence[str] | None
    mean_loss: float | None
    positive: int | None

    @cached_property
    def values(self) -> dict[str, Any]:
        """All metrics by name: ``OF_POSITIVE``, ``OF_ALL``, and a dictionary for each of ``AVERAGES``."""
        mean_loss = np.array(np.nan if self.mean_loss is None else self.mean_loss)
        found = {
            name: finite(float(value)) for name, value in class_values(self.sums, mean_loss, self.positive).items()
        }
        values: dict[str, Any] = {name: found.get(name) for name in (*OF_POSITIVE, *OF_ALL)}
        return values | {average: {name: found[f"{average}.{name}"] for name in OF_CLASS} for average in AVERAGES}

    def of_classes(self) -> list[dict[str, Any]]:
        """Return the metrics of each class, and its support, number of predictions and mean loss."""
        columns = {name: fractions(self.sums, name) for name in OF_CLASS}
        support, predicted, loss = (self.sums[:, at] for at in (SUPPORT, PREDICTED, CLASS_LOSS))
        return [
            {
                "class": self._name(at),
                "support": whole(support[at]),
                "predicted": whole(predicted[at]),
                **{metric: ratio(part[at], of[at]) for metric, (part, of) in columns.items()},
                "mean_loss": ratio(loss[at], support[at]),
            }
            for at in range(len(self.sums))
        ]

    def undefined(self) -> list[dict[str, Any]]:
        """Return the metrics that are 0 divided by 0: ``metric``, and ``class`` or None."""
        values = self.values
        names = (*(OF_POSITIVE if self.positive is not None else ()), *OF_ALL)
        found: list[dict[str, Any]] = [{"metric": name, "class": None} for name in names if values[name] is None]
        for name in OF_CLASS:
            _, of = fractions(self.sums, name)
            found += [{"metric": name, "class": self._name(int(at))} for at in np.flatnonzero(of == 0)]
        return found

    def _name(self, at: int) -> str | int:
        return at if self.names is None else self.names[at]


def fractions(sums: Array, name: str) -> tuple[Array, Array]:
    """Return numerators and denominators of a metric of ``OF_CLASS`` for each class: (..., K) of (..., K, 4)."""
    support, predicted, right = (sums[..., at] for at in (SUPPORT, PREDICTED, RIGHT))
    return {
        "precision": (right, predicted),
        "recall": (right, support),
        "f1": (2.0 * right, support + predicted),
        "jaccard": (right, support + predicted - right),
    }[name]


def class_values(sums: Array, mean_loss: Array, positive: int | None) -> dict[str, Array]:
    """Return the metrics of all classes together, from sums of one or several sets of rows; NaN where undefined.

    Parameters
    ----------
    sums
        Shape (..., K, 4), as of :class:`ClassMetrics`.
    mean_loss
        Shape (...), the mean losses of the sets.
    positive
        The positive class of a binary task, or None, without metrics of ``OF_POSITIVE``.

    Returns
    -------
    the metrics of ``OF_POSITIVE`` and ``OF_ALL``, and averages such as ``macro.f1``, each of shape (...).
    """
    found = {} if positive is None else _of_positive(sums, positive)
    found["balanced_accuracy"] = _balanced_accuracy(sums)
    total = sums[..., SUPPORT].sum(axis=-1)[..., np.newaxis]
    support, predicted, right = sums[..., SUPPORT], sums[..., PREDICTED], sums[..., RIGHT]
    missed, wrong = support - right, predicted - right
    with np.errstate(invalid="ignore"):
        # In each class, the share of right rows minus that by chance, and below 1 minus shares: without cancellation.
        chance = (missed / total) * (wrong / total)
        agreement = ((right / total) * ((total - support - wrong) / total) - chance).sum(axis=-1)
        spreads = [(one / total) * ((total - one) / total) for one in (support, predicted)]
        disagreement = ((support / total) * ((total - predicted) / total)).sum(axis=-1)
        shares = support / total
    found["kappa"] = quotient(agreement, disagreement)
    found["mcc"] = quotient(agreement, np.sqrt(spreads[0].sum(axis=-1) * spreads[1].sum(axis=-1)))
    found["d2_log_loss"] = 1.0 - quotient(mean_loss, _entropy(shares))
    return found | {f"{average}.{name}": _average(sums, name, average) for average in AVERAGES for name in OF_CLASS}


def _of_positive(sums: Array, at: int) -> dict[str, Array]:
    """Return the metrics of the positive class."""
    values = {name: quotient(part[..., at], of[..., at]) for name in OF_CLASS for part, of in [fractions(sums, name)]}
    return {
        "prevalence": quotient(sums[..., at, SUPPORT], sums[..., SUPPORT].sum(axis=-1)),
        "precision": values["precision"],
        "recall": values["recall"],
        "specificity": quotient(sums[..., 1 - at, RIGHT], sums[..., 1 - at, SUPPORT]),
        "f1": values["f1"],
    }


def _average(sums: Array, name: str, average: str) -> Array:
    """Return an average of a metric: 0/0 counts as 0, and ``macro`` is over the classes that occur."""
    part, of = fractions(sums, name)
    if average == "micro":
        return quotient(part.sum(axis=-1), of.sum(axis=-1))
    values = np.divide(part, of, out=np.zeros(part.shape), where=of != 0)
    occurs = (sums[..., SUPPORT] > 0) | (sums[..., PREDICTED] > 0)
    weights = occurs.astype(np.float64) if average == "macro" else sums[..., SUPPORT]
    return quotient((weights * values).sum(axis=-1), weights.sum(axis=-1))


def _balanced_accuracy(sums: Array) -> Array:
    """Return the mean recall of the classes that have rows."""
    right, support = fractions(sums, "recall")
    recalls = np.divide(right, support, out=np.zeros(right.shape), where=support > 0)
    return quotient(recalls.sum(axis=-1), np.count_nonzero(support > 0, axis=-1))


def _entropy(shares: Array) -> Array:
    """Return the loss of always predicting the shares of the classes, (..., K)."""
    # The kernel has the same bits on every CPU.
    rows = np.ascontiguousarray(shares, np.float64).reshape(-1, shares.shape[-1])
    logs = np.empty_like(rows)
    log_matrix(np.where(rows > 0, rows, 1.0), logs)
    return -np.asarray((shares * logs.reshape(shares.shape)).sum(axis=-1))


def quotient(part: Array, of: Array) -> Array:
    """Return quotients as float64; NaN where the divisor is 0."""
    part, of = np.asarray(part), np.asarray(of)
    found: Array = np.divide(part, of, out=np.full(part.shape, np.nan), where=of != 0, casting="same_kind")
    return found


def whole(value: float) -> float:
    """Return a sum of weights, as an int if it is integral."""
    return int(value) if float(value).is_integer() else float(value)


def ratio(part: float, of: float) -> float | None:
    """Return a quotient, or None if it isn't defined or not finite."""
    return finite(float(part) / float(of)) if of else None

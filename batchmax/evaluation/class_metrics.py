"""Metrics of predicted classes, from the sums of each class: precision, recall, averages, agreement.

Names and defaults are those of scikit-learn. Knows arrays; a metric that isn't defined is None, and listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    @property
    def _total(self) -> float:
        return float(self.sums[:, SUPPORT].sum())

    def values(self) -> dict[str, Any]:
        """Return all metrics by name: ``OF_POSITIVE``, ``OF_ALL``, and a dictionary for each of ``AVERAGES``."""
        found: dict[str, Any] = self._of_positive() if self.positive is not None else dict.fromkeys(OF_POSITIVE)
        found |= {name: getattr(self, f"_{name}")() for name in OF_ALL}
        return found | {average: self._averages(average) for average in AVERAGES}

    def of_classes(self) -> list[dict[str, Any]]:
        """Return the metrics of each class, and its support, number of predictions and mean loss."""
        columns = {name: self._of_class(name) for name in OF_CLASS}
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
        values = self.values()
        names = (*(OF_POSITIVE if self.positive is not None else ()), *OF_ALL)
        found: list[dict[str, Any]] = [{"metric": name, "class": None} for name in names if values[name] is None]
        for name in OF_CLASS:
            _, of = self._of_class(name)
            found += [{"metric": name, "class": self._name(int(at))} for at in np.flatnonzero(of == 0)]
        return found

    def _name(self, at: int) -> str | int:
        return at if self.names is None else self.names[at]

    def _of_class(self, name: str) -> tuple[Array, Array]:
        """Return the numerators and the denominators of a metric of each class, (K,)."""
        support, predicted, right = (self.sums[:, at] for at in (SUPPORT, PREDICTED, RIGHT))
        return {
            "precision": (right, predicted),
            "recall": (right, support),
            "f1": (2.0 * right, support + predicted),
            "jaccard": (right, support + predicted - right),
        }[name]

    def _averages(self, average: str) -> dict[str, float | None]:
        """Return an average of each metric: 0/0 counts as 0, and ``macro`` is over the classes that occur."""
        occurs = (self.sums[:, SUPPORT] > 0) | (self.sums[:, PREDICTED] > 0)
        found: dict[str, float | None] = {}
        for name in OF_CLASS:
            part, of = self._of_class(name)
            if average == "micro":
                found[name] = ratio(float(part.sum()), float(of.sum()))
                continue
            values = np.divide(part, of, out=np.zeros(len(part)), where=of != 0)
            weights = occurs.astype(np.float64) if average == "macro" else self.sums[:, SUPPORT]
            found[name] = ratio(float((weights * values).sum()), float(weights.sum()))
        return found

    def _of_positive(self) -> dict[str, float | None]:
        """Return the metrics of the positive class."""
        at = self.positive or 0
        other = self.sums[1 - at]
        found = {name: ratio(part[at], of[at]) for name in OF_CLASS for part, of in [self._of_class(name)]}
        return {
            "prevalence": ratio(self.sums[at, SUPPORT], self._total),
            "precision": found["precision"],
            "recall": found["recall"],
            "specificity": ratio(other[RIGHT], other[SUPPORT]),
            "f1": found["f1"],
        }

    def _balanced_accuracy(self) -> float | None:
        """Return the mean recall of the classes that have rows."""
        has_rows = self.sums[:, SUPPORT] > 0
        recalls = self.sums[has_rows, RIGHT] / self.sums[has_rows, SUPPORT]
        return ratio(float(recalls.sum()), len(recalls))

    def _kappa(self) -> float | None:
        """Return Cohen's kappa."""
        if not self._total:
            return None
        support, predicted, right = self._shares()
        # 1 minus the agreement by chance, without cancellation.
        return ratio((right - support * predicted).sum(), (support * (1 - predicted)).sum())

    def _mcc(self) -> float | None:
        """Return the Matthews correlation coefficient of several classes (Gorodkin 2004)."""
        if not self._total:
            return None
        support, predicted, right = self._shares()
        spreads = [(shares * (1 - shares)).sum() for shares in (support, predicted)]
        return ratio((right - support * predicted).sum(), np.sqrt(spreads[0] * spreads[1]))

    def _d2_log_loss(self) -> float | None:
        """Return the share of the loss that the model saves, compared with always predicting the shares of classes."""
        if not self._total or self.mean_loss is None:
            return None
        shares = self._shares()[0].astype(np.float64)
        entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
        saved = ratio(self.mean_loss, entropy)
        return None if saved is None else 1.0 - saved

    def _shares(self) -> tuple[Array, Array, Array]:
        """Return the shares of the rows that have each class, that are predicted to have it, and that are right."""
        shares = self.sums.astype(np.longdouble) / self.sums[:, SUPPORT].astype(np.longdouble).sum()
        return shares[:, SUPPORT], shares[:, PREDICTED], shares[:, RIGHT]


def whole(value: float) -> float:
    """Return a sum of weights, as an int if it is integral."""
    return int(value) if float(value).is_integer() else float(value)


def ratio(part: float, of: float) -> float | None:
    """Return a quotient, or None if it isn't defined or not finite."""
    return finite(float(part) / float(of)) if of else None

"""Metrics of multi-label rows, from their sums: of rows, of classes, and averages over classes, entries and rows.

Names and defaults are those of scikit-learn. An entry is a class of a row; only those with a label count. Knows arrays;
a metric that isn't defined is None, and listed.

See Also
--------
``sklearn.metrics.label_ranking_average_precision_score``; Tsoumakas, Katakis and Vlahavas 2010, "Mining multi-label
data" (the averages and losses).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.class_metrics import OF_CLASS, fractions, quotient, ratio, whole
from batchmax.functional.losses import perplexities
from batchmax.kernels import multi_label_metrics as of
from batchmax.kernels.metric_sums import BRIER, ENTRIES, FIGURES, INFINITE, LOSS, WEIGHT
from batchmax.scoring.tally import finite

Array = NDArray[Any]

OF_ROWS = ("subset_accuracy", "hamming_loss", "label_ranking_average_precision")
"""The metrics of predicted labels that only multi-label rows have."""

AVERAGES = ("macro", "micro", "weighted", "samples")

SAMPLES = {"precision": of.PRECISION, "recall": of.RECALL, "f1": of.F1, "jaccard": of.JACCARD}
SAMPLE_AREAS = {"auroc": (of.AUROC, of.HAS_AUROC), "average_precision": (of.AP, of.HAS_AP)}
"""The metrics of a row that ``samples`` averages: over all rows, and over those for which they are defined."""


def label_values(sums: Array, classes: Array) -> dict[str, Array]:
    """Return the metrics of one or several sets of rows; NaN where undefined.

    Parameters
    ----------
    sums
        Shape (n, SUMS), as in :func:`batchmax.kernels.multi_label_metrics.tally_label_rows`, without rounding errors.
    classes
        Shape (n, K, OF_CLASS), or (n, 0, OF_CLASS) without averages over classes.

    Returns
    -------
    ``mean_loss``, ``perplexity``, ``brier``, ``mean_label_loss``, the metrics of ``OF_ROWS``, and averages such as
    ``macro.f1``, each of shape (n,).
    """
    rows, entries = sums[..., WEIGHT], sums[..., ENTRIES]
    loss = np.where(sums[..., INFINITE] > 0, np.nan, sums[..., LOSS])
    mean_loss = quotient(loss, rows)
    found = {
        "mean_loss": mean_loss,
        "perplexity": perplexities(mean_loss),
        "mean_label_loss": quotient(loss, entries),
        "brier": quotient(sums[..., BRIER], entries),
    }
    # With targets between 0 and 1 there are no labels.
    soft = np.where(_of(sums, of.SOFT) > 0, np.nan, 1.0)
    support, predicted, right = (_of(sums, at) * soft for at in (of.SUPPORTS, of.PREDICTIONS, of.RIGHTS))
    found["subset_accuracy"] = quotient(_of(sums, of.EXACT) * soft, rows)
    found["hamming_loss"] = quotient((support - right) + (predicted - right), entries)
    found["label_ranking_average_precision"] = quotient(_of(sums, of.RANKING) * soft, rows)
    micro = np.stack([support, predicted, right], axis=-1)
    for name in OF_CLASS:
        found[f"micro.{name}"] = quotient(*fractions(micro, name))
        found[f"samples.{name}"] = quotient(_of(sums, SAMPLES[name]) * soft, rows)
        if classes.shape[-2]:
            part, whole_ = fractions(classes, name)
            values = np.divide(part, whole_, out=np.zeros(part.shape), where=whole_ != 0)
            supports = classes[..., of.SUPPORT]
            has_rows = np.where(rows > 0, soft, np.nan)
            found[f"macro.{name}"] = values.mean(axis=-1) * has_rows
            found[f"weighted.{name}"] = quotient((supports * values).sum(axis=-1), supports.sum(axis=-1)) * soft
    return found


def sample_areas(sums: Array) -> dict[str, Array]:
    """Return the averages over rows of AUROC and average precision of a row, of sums as for :func:`label_values`."""
    soft = np.where(_of(sums, of.SOFT) > 0, np.nan, 1.0)
    return {name: quotient(_of(sums, at), _of(sums, has)) * soft for name, (at, has) in SAMPLE_AREAS.items()}


def _of(sums: Array, at: int) -> Array:
    """Return the sums of a metric of rows."""
    return np.asarray(sums[..., FIGURES + at])


@dataclass(frozen=True, eq=False)
class LabelMetrics:
    """Metrics from the sums of all rows.

    Attributes
    ----------
    sums, classes
        Shapes (SUMS,) and (K, OF_CLASS), as for :func:`label_values`.
    names
        The name of each class; None if classes have no names.
    """

    sums: Array
    classes: Array
    names: Sequence[str] | None

    @property
    def has_labels(self) -> bool:
        """Whether all targets are 0 or 1."""
        return not _of(self.sums, of.SOFT)

    @cached_property
    def values(self) -> dict[str, Any]:
        """All metrics by name, with a dictionary for each of ``AVERAGES``."""
        values = label_values(self.sums[np.newaxis], self.classes[np.newaxis])
        found = {name: finite(float(value[0])) for name, value in values.items()}
        averages = {average: {name: found.pop(f"{average}.{name}") for name in OF_CLASS} for average in AVERAGES}
        return found | averages if self.has_labels else found

    @cached_property
    def of_classes(self) -> list[dict[str, Any]]:
        """The metrics of each class; empty without labels."""
        columns = {name: class_fractions(self.classes, name) for name in OF_EACH}
        support, predicted, rows = (self.classes[:, at] for at in (of.SUPPORT, of.PREDICTED, of.CLASS_ROWS))
        return [
            {
                "class": self._name(at),
                "n_rows": whole(rows[at]),
                "support": whole(support[at]),
                "predicted": whole(predicted[at]),
                **{name: ratio(part[at], whole_[at]) for name, (part, whole_) in columns.items()},
                "mean_loss": ratio(self.classes[at, of.CLASS_LOSS], rows[at]),
            }
            for at in (range(len(self.classes)) if self.has_labels else ())
        ]

    def undefined(self) -> list[dict[str, Any]]:
        """Return the metrics that are 0 divided by 0: ``metric``, and ``class`` or None."""
        if not self.has_labels:
            return []
        values = self.values
        names = [*OF_ROWS, *(f"{average}.{name}" for average in AVERAGES for name in OF_CLASS)]
        flat = values | {f"{one}.{name}": value for one in AVERAGES for name, value in values[one].items()}
        found: list[dict[str, Any]] = [{"metric": name, "class": None} for name in names if flat[name] is None]
        for name in OF_EACH:
            found += [{"metric": name, "class": one["class"]} for one in self.of_classes if one[name] is None]
        return found

    def _name(self, at: int) -> str | int:
        return at if self.names is None else self.names[at]


OF_EACH = ("prevalence", "precision", "recall", "specificity", "f1", "jaccard")
"""The metrics of predictions of each class."""


def class_fractions(classes: Array, name: str) -> tuple[Array, Array]:
    """Return numerators and denominators of a metric of ``OF_EACH`` for each class: (..., K) of (..., K, OF_CLASS)."""
    support, rows = classes[..., of.SUPPORT], classes[..., of.CLASS_ROWS]
    if name == "prevalence":
        return support, rows
    if name == "specificity":
        negatives = rows - support
        return negatives - (classes[..., of.PREDICTED] - classes[..., of.RIGHT]), negatives
    return fractions(classes, name)

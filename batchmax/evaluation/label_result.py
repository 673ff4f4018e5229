"""Adds the metrics of multi-label rows to the result of an evaluation."""

from __future__ import annotations

import numpy as np

from batchmax.columns.job import Job
from batchmax.columns.label_column import LABEL_SETS
from batchmax.evaluation.multi_label import EntrySums
from batchmax.evaluation.multi_label_metrics import LabelMetrics, sample_areas
from batchmax.evaluation.result import Evaluation
from batchmax.jobs.stage import ONE_LABEL
from batchmax.scoring.tally import finite

NOTE = "multi-label: the Brier score and calibration errors are over the classes of all rows"

SOFT_TARGETS = "some targets are neither 0 nor 1, so there are no metrics of predicted labels"


def add_label_metrics(result: Evaluation, counts: EntrySums, job: Job, n_with_one_label: int) -> None:
    """Add the metrics, except areas under curves; ``n_with_one_label`` is the number of rows with exactly one label."""
    of_labels = LabelMetrics(counts.totals, counts.classes[0], job.classes)
    vars(result).update(of_labels.values)
    result.per_class, result.undefined = of_labels.of_classes, of_labels.undefined()
    result.bins = counts.reliability()
    result.notes.append(NOTE)
    if not of_labels.has_labels:
        result.warnings.append(SOFT_TARGETS)
    elif job.label is not None and job.label.kind in LABEL_SETS and n_with_one_label == counts.n_counted > 0:
        result.warnings.append(ONE_LABEL)


def add_sample_areas(result: Evaluation, counts: EntrySums) -> None:
    """Add the averages of the areas of single rows, if there are curves."""
    if result.curves["method"] == "none" or not result.per_class:
        return
    for name, values in sample_areas(counts.totals[np.newaxis]).items():
        result.samples[name] = finite(float(values[0]))
        if result.samples[name] is None:
            result.undefined.append({"metric": f"samples.{name}", "class": None})

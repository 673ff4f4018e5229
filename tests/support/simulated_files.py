"""Simulates scored rows of two classes, and measures how often intervals contain the actual values of the metrics."""

from __future__ import annotations

import numpy as np

from batchmax.evaluation.class_metrics import class_values
from batchmax.evaluation.cluster_keys import hash_numbers
from batchmax.evaluation.curves.area_intervals import ScoreGroupSums, area_intervals
from batchmax.evaluation.curves.exact_curve import ExactCurve
from batchmax.evaluation.jackknife import Jackknife, MetricGroupSums, row_hashes
from batchmax.evaluation.metric_intervals import MetricIntervals
from batchmax.evaluation.metrics import MetricSums, RowMetrics, calibration_errors, group_metrics
from batchmax.functional.losses import Rows
from batchmax.runtime.spilled_array import SharedMemory

SPREAD = 2.5
"""Standard deviation of the logits; the AUROC is about 0.9."""
KNOWN, UNKNOWN = 0.7, 0.4
"""Standard deviations over clusters of the logits, and of what the logits don't know about the labels."""
N_BINS = 15
MODELS = {"calibrated": (0.0, 1.0), "nearly": (0.1, 1.15), "overconfident": (0.6, 1.7)}
"""The logits of a model: a + b times the calibrated ones."""
METRICS = (
    *("accuracy", "mean_loss", "brier", "ece", "prevalence", "precision", "recall", "specificity", "f1"),
    *("balanced_accuracy", "kappa", "mcc", "d2_log_loss", "macro.f1", "weighted.f1"),
    *("auroc", "average_precision"),
)


def sigmoid(z):
    """Return 1 / (1 + exp(-z))."""
    return 1.0 / (1.0 + np.exp(-z))


def shift_for(prevalence):
    """Return the mean of the calibrated logits at which positives have this share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        share = (weights * sigmoid(middle + SPREAD * nodes)).sum() / weights.sum()
        low, high = (low, middle) if share > prevalence else (middle, high)
    return low


def simulate(random, n, prevalence, model, n_clusters=None):
    """Return n logits, labels and clusters; clusters are None if rows are independent."""
    clusters = None
    if n_clusters is None:
        z = shift_for(prevalence) + SPREAD * random.normal(size=n)
        p = sigmoid(z)
    else:
        clusters = random.integers(0, n_clusters, n)
        known, unknown = KNOWN * random.normal(size=n_clusters), UNKNOWN * random.normal(size=n_clusters)
        z = shift_for(prevalence) + known[clusters] + np.sqrt(SPREAD**2 - KNOWN**2) * random.normal(size=n)
        # On average over clusters, the probability is that of the logit.
        p = sigmoid(z) * (1.0 + unknown[clusters] * (1.0 - sigmoid(z)))
    a, b = MODELS[model]
    return a + b * z, (random.random(n) < p).astype(np.int64), clusters


def row_metrics(z, labels, weights=None):
    """Return the metrics of rows of one logit."""
    pred, rests, none = (z > 0).astype(np.int32), np.exp(-np.abs(z)), np.empty(0)
    rank = np.where(pred == labels, 1, 2).astype(np.int32)
    losses = np.logaddexp(0.0, np.where(labels == 1, -z, z))
    brier = (sigmoid(z) - labels) ** 2
    weights = none if weights is None else weights
    return RowMetrics(
        Rows(none, rests, losses, none, none), labels, pred, rank, brier, weights, np.ones(len(z), np.bool_)
    )


def intervals_of(z, labels, clusters=None, level=0.95, pieces=1, scores=None):
    """Return the intervals of rows of one logit, added in pieces, with those of their scores, if asked for."""
    counts, groups = MetricSums(2, (), N_BINS, 1), MetricGroupSums(2, (), N_BINS, 1)
    sums = [groups] if scores is None else [groups, scores]
    jackknife = Jackknife(sums, counts_clusters=clusters is not None)
    hashes = None if clusters is None else hash_numbers(clusters.astype(np.int64))
    for part in np.array_split(np.arange(len(z)), pieces):
        some = row_metrics(z[part], labels[part])
        counts.add(some)
        if scores is not None:
            scores.prepare(some, z[part][np.newaxis])
        own = None if hashes is None else hashes[part]
        jackknife.add(some, row_hashes(part[0]) if own is None else lambda start, stop, own=own: own[start:stop])
    n_units = len(z) if clusters is None else jackknife.n_clusters
    return MetricIntervals(counts, groups, 1, level, n_units, clusters is None, clusters is not None)


def areas_of(z, labels):
    """Return the exact areas of rows of one logit."""
    curve = ExactCurve(np.float64, SharedMemory(2**32), is_weighted=False)
    curve.add(z, labels, np.ones(len(z), np.bool_), 1, np.zeros(0))
    curve.sort()
    return curve.areas(None)


def all_intervals(z, labels, clusters=None):
    """Return the intervals of all metrics by name, with areas under curves."""
    scores = ScoreGroupSums([1], are_odds=False)
    computed = intervals_of(z, labels, clusters, scores=scores)
    return computed.of_all() | area_intervals([areas_of(z, labels)], {}, scores, computed).of_all


def actual_values(prevalence, model, n_clusters, n=2_000_000):
    """Return the values of the metrics for all rows that could be drawn, from many rows."""
    random = np.random.default_rng(99)
    counts = MetricSums(2, (), N_BINS, 1)
    for _ in range(max(1, n // 1_000_000)):
        z, labels, _ = simulate(random, min(n, 1_000_000), prevalence, model, n_clusters and 1_000_000)
        counts.add(row_metrics(z, labels))
    means = group_metrics(counts.sums.sum(axis=1)[np.newaxis])
    found = means | class_values(counts.classes[np.newaxis], means["mean_loss"], 1)
    found |= calibration_errors(counts.bins[np.newaxis])
    values = {name: float(value[0]) for name, value in found.items()}
    areas = areas_of(z, labels)
    values |= {"auroc": areas.auroc, "average_precision": areas.average_precision}
    return values | ({"ece": 0.0} if model == "calibrated" else {})


def coverage(n_files, n, prevalence, model, n_clusters=None, seed=0):
    """Return for each metric the share of intervals that contain the actual value, and the share of files without."""
    actual = actual_values(prevalence, model, n_clusters)
    random = np.random.default_rng(seed)
    inside, missing = dict.fromkeys(METRICS, 0), dict.fromkeys(METRICS, 0)
    for _ in range(n_files):
        found = all_intervals(*simulate(random, n, prevalence, model, n_clusters))
        for name in METRICS:
            first, _, rest = name.partition(".")
            interval = found[first][rest] if rest else found[first]
            missing[name] += interval is None
            inside[name] += interval is not None and interval["lower"] <= actual[name] <= interval["upper"]
    return {name: (inside[name] / max(1, n_files - missing[name]), missing[name] / n_files) for name in METRICS}

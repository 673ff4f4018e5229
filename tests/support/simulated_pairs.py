"""Simulates pairs of scored rows of two classes, and measures how often intervals contain the actual changes."""

from __future__ import annotations

import numpy as np

from batchmax.evaluation.cluster_keys import hash_numbers
from batchmax.evaluation.comparison.change_sums import ChangeSums
from batchmax.evaluation.comparison.changes import changes_of
from batchmax.runtime.spilled_array import SharedMemory
from tests.support.simulated_files import row_metrics, simulate

METRICS = (
    *("mean_loss", "brier", "accuracy", "ece", "precision", "recall", "specificity", "f1", "balanced_accuracy"),
    *("kappa", "mcc", "macro.f1", "auroc", "average_precision"),
)
NOISE = 0.7
"""Standard deviation of the difference of the logits of the two models."""


def changes(random, n, prevalence, model, n_clusters, bins=4096):
    """Return the changes of one simulated file."""
    a, labels, clusters = simulate(random, n, prevalence, model, n_clusters)
    b = 0.9 * a + NOISE * random.normal(size=n)
    sums = ChangeSums(2, 1, bins, SharedMemory(2**30), has_clusters=n_clusters is not None)
    matrices = [np.stack([np.zeros(n), z], axis=1) for z in (a, b)]
    hashes = hash_numbers(np.arange(n) if clusters is None else clusters)
    sums.add(row_metrics(a, labels), row_metrics(b, labels), tuple(matrices), hashes)
    return changes_of(sums, 0.95)


def coverage(n_files, n, prevalence, model, n_clusters, seed=0):
    """Return, by metric, the share of intervals that contain the actual change, and the share of missing ones."""
    random = np.random.default_rng(seed)
    truth = [changes(random, 400_000, prevalence, model, None) for _ in range(8)]
    actual = {name: np.mean([one[name]["change"] for one in truth]) for name in METRICS}
    hits = {name: [] for name in METRICS}
    for _ in range(n_files):
        found = changes(random, n, prevalence, model, n_clusters, 512)
        for name in METRICS:
            one = found[name]
            if one["lower"] is not None:
                hits[name].append(one["lower"] <= actual[name] <= one["upper"])
    return {name: (float(np.mean(some)) if some else None, 1 - len(some) / n_files) for name, some in hits.items()}

"""Histograms of scores by group of rows, and the areas under curves without each group, for jackknife intervals.

A score is a log-odds z. Its bin is that of z / (|z| + HALF), of equal width from -1 to 1: bins are narrow where
probabilities differ, and reach to infinity.
"""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.exp import log

HALF = 4.0
"""The log-odds below which, in absolute value, half of the bins are."""
AUROC, PRECISION, OTHER_PRECISION, POSITIVES, OTHERS, AREAS = 0, 1, 2, 3, 4, 5
"""Positions of the results of :func:`areas_without_groups`."""


@kernel(
    "in real[:], bool, in int64[:], in bool[:], int64, in float64[:], in uint8[:], out float64[:,:,:]",
    parallel=False,
)
def count_group_bins(scores, are_odds, labels, counted, positive, weights, groups, counts):
    """Add the weights of rows to the bins of their scores, by group.

    Parameters
    ----------
    scores : (n,) float32 or float64
    are_odds
        Whether scores above 0 are odds, and those below 0 the negative inverse of odds; otherwise they are log-odds.
    labels : (n,) int64
    counted : (n,) bool
        Rows to use.
    positive
        The class of positives.
    weights : (n,) float64, or (0,) for 1 each
    groups : (n,) uint8
    counts : (256, 2, b) float64
        The weights of positives and of the others, in bins of ascending scores.
    """
    for i in range(scores.shape[0]):
        if not counted[i]:
            continue
        z = np.float64(scores[i])
        if are_odds and z != 0.0:
            z = log(z) if z > 0.0 else -log(-z)
        which = 0 if labels[i] == positive else 1
        counts[groups[i], which, _bin_of(z, counts.shape[2])] += weights[i] if weights.shape[0] != 0 else 1.0


@compiled
def _bin_of(z, n_bins):
    share = 1.0 if abs(z) == np.inf else abs(z) / (abs(z) + HALF)
    at = np.int64(share * 0.5 * n_bins)
    half = n_bins // 2
    at = min(at, half - 1)
    return half - 1 - at if z < 0.0 else half + at


@kernel("in float64[:,:], in float64[:,:,:], out float64[:,:]", parallel=False)
def areas_without_groups(total, groups, areas):
    """Fill areas with those under the curves of all rows but those of a group, scores of a bin taken as equal.

    Parameters
    ----------
    total : (2, b) float64
        The weights of positives and of the others in bins of ascending scores.
    groups : (g, 2, b) float64
        Those of each group.
    areas : (g, 5) float64
        Filled with the AUROC, the average precision, that of the others if small scores come first, and the weights
        of the positives and of the others. NaN where an area isn't defined.
    """
    for g in range(groups.shape[0]):
        positives = 0.0
        others = 0.0
        for b in range(total.shape[1]):
            positives += _left(total[0, b], groups[g, 0, b])
            others += _left(total[1, b], groups[g, 1, b])
        tp = positives
        fp = others
        pairs = 0.0
        precision = 0.0
        other_precision = 0.0
        for b in range(total.shape[1]):
            p = _left(total[0, b], groups[g, 0, b])
            n = _left(total[1, b], groups[g, 1, b])
            if p == 0.0 and n == 0.0:
                continue
            if p != 0.0:
                precision += p * (tp / (tp + fp))
                pairs += p * (others - fp + 0.5 * n)
            tp = max(tp - p, 0.0)
            fp = max(fp - n, 0.0)
            if n != 0.0:
                other_precision += n * ((others - fp) / ((others - fp) + (positives - tp)))
        areas[g, AUROC] = pairs / (positives * others) if positives > 0.0 and others > 0.0 else np.nan
        areas[g, PRECISION] = precision / positives if positives > 0.0 else np.nan
        areas[g, OTHER_PRECISION] = other_precision / others if others > 0.0 else np.nan
        areas[g, POSITIVES] = positives
        areas[g, OTHERS] = others


@compiled
def _left(total, part):
    """Return a sum without one of its parts; 0 if only a rounding error is left."""
    left = total - part
    return left if left > 1e-12 * total else 0.0

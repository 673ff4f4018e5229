"""Metrics of multi-label rows: those of each row, and sums over rows, classes and groups of rows.

An entry is a class of a row. It is known if its target isn't NaN, and only known entries count anywhere. A class is
predicted if its logit is above 0, and right if it is predicted and a label.

A class's sums are added up row by row by one thread, so results don't depend on threads or batches.
"""

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.metric_sums import BRIER, ENTRIES, FIGURES, LOSS, WEIGHT, bin_of
from batchmax.kernels.softmax.softmax_float64 import add_exactly, block_count, block_rows

ROW_BRIER, KNOWN, SUPPORTS, PREDICTIONS, RIGHTS, SOFT = 0, 1, 2, 3, 4, 5
"""Indices of the metrics of a row: the sum of (p - y)², and the numbers of known entries, of labels, predictions, right
predictions, and targets that are neither 0 nor 1."""
EXACT, PRECISION, RECALL, F1, JACCARD, RANKING, AUROC, HAS_AUROC, AP, HAS_AP = 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
"""More indices: whether all known entries are right; metrics of the row's predictions, where 0/0 is 0; its label
ranking average precision; AUROC and average precision of its logits, and whether they are defined: else they are 0."""
OF_ROW = 16
SUMS = FIGURES + OF_ROW
"""The number of sums: those of :mod:`batchmax.kernels.metric_sums` up to INFINITE, then the metrics of rows."""

SUPPORT, PREDICTED, RIGHT, CLASS_LOSS, CLASS_ROWS, OF_CLASS = 0, 1, 2, 3, 4, 5
"""Indices of the sums of a class; the last is the weight of the rows in which it is known."""
BIN_SUMS = 4
"""The sums of a bin: weights of entries, weighted probabilities, weighted targets, and the sum of w² p (1 - p)."""


@kernel(
    "in float64[:,:], in float64[:,:], in int64[:], in float64[:,:], in bool[:], out float64[:,:]",
)
def label_rows(z, probs, labels, targets, counted, figures):
    """Fill figures with the metrics of rows.

    Parameters
    ----------
    z, probs : (n, K) float64
        Logits, which may be infinite, and their probabilities.
    labels : (n,) int64
        The only class with target 1; or (0,) if there are targets.
    targets : (n, K) float64, or (0, K)
        NaN where the target of a class is missing.
    counted : (n,) bool
        Rows to compute.
    figures : (n, OF_ROW) float64
        Indexed by ROW_BRIER to HAS_AP.
    """
    n, k = z.shape
    rows = block_rows(z)
    for block in prange(block_count(z)):
        before = exchange_float_mode(STANDARD)
        scores, counts, wanted = np.empty(k), np.empty(k + 1, np.int64), np.empty(k)
        for i in range(block * rows, min(n, (block + 1) * rows)):
            if not counted[i]:
                continue
            for j in range(k):
                wanted[j] = targets[i, j] if targets.shape[0] != 0 else np.float64(labels[i] == j)
            _count_entries(z, probs, i, wanted, figures)
            _rank_labels(z, i, wanted, scores, counts, figures)
        exchange_float_mode(before)


@compiled
def _count_entries(z, probs, i, wanted, figures):
    """Fill the metrics of a row that don't depend on the order of its logits."""
    brier = 0.0
    known, support, predicted, right, soft = 0, 0, 0, 0, 0
    for j in range(z.shape[1]):
        y = wanted[j]
        is_known = y == y
        gap = probs[i, j] - y
        brier += gap * gap if is_known else 0.0
        is_label, is_predicted = y > 0.0, is_known & (z[i, j] > 0.0)
        known += is_known
        support += is_label
        predicted += is_predicted
        right += is_label & is_predicted
        soft += is_label & (y != 1.0)
    row = figures[i]
    row[ROW_BRIER] = brier
    row[KNOWN] = known
    row[SUPPORTS] = support
    row[PREDICTIONS] = predicted
    row[RIGHTS] = right
    row[SOFT] = soft
    row[EXACT] = 1.0 if support == right and predicted == right else 0.0
    row[PRECISION] = right / predicted if predicted else 0.0
    row[RECALL] = right / support if support else 0.0
    row[F1] = 2.0 * right / (support + predicted) if support + predicted else 0.0
    row[JACCARD] = right / (support + predicted - right) if support + predicted else 0.0


@compiled
def _rank_labels(z, i, wanted, scores, counts, figures):
    """Fill the metrics of a row that depend on the order of its logits; scores and counts are memory."""
    k, p = z.shape[1], np.int64(figures[i, SUPPORTS])
    negatives = np.int64(figures[i, KNOWN]) - p
    figures[i, HAS_AP] = 1.0 if p else 0.0
    figures[i, HAS_AUROC] = 1.0 if p and negatives else 0.0
    figures[i, AUROC] = 0.0
    if not (p and negatives):
        figures[i, RANKING] = 1.0
        figures[i, AP] = figures[i, HAS_AP]
        return
    at = 0
    for j in range(k):
        if wanted[j] > 0.0:
            scores[at] = z[i, j]
            at += 1
    _sort(scores, p)
    for at in range(p + 1):
        counts[at] = 0
    # For each known class, the number of labels with at most its logit; and the pairs of a label and a class below it.
    pairs = 0.0
    for j in range(k):
        if wanted[j] != wanted[j]:
            continue
        upper = _upper_bound(scores, p, z[i, j])
        counts[upper] += 1
        if wanted[j] <= 0.0:
            tied = upper
            while tied > 0 and scores[tied - 1] == z[i, j]:
                tied -= 1
            pairs += (p - upper) + 0.5 * (upper - tied)
    figures[i, AUROC] = pairs / (np.float64(p) * np.float64(negatives))
    total = 0.0
    rank, end = 0, p
    while end > 0:
        rank += counts[end]
        start = end - 1
        while start > 0 and scores[start - 1] == scores[end - 1]:
            start -= 1
        # In a tie, all have the lowest rank of them.
        total += (end - start) * ((p - start) / rank)
        end = start
    figures[i, RANKING] = total / p
    figures[i, AP] = figures[i, RANKING]


@compiled
def _upper_bound(scores, p, value):
    """Return how many of the first p ascending scores are at most a value."""
    low, high = 0, p
    while low < high:
        middle = (low + high) // 2
        if scores[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _sort(scores, p):
    """Sort the first p scores in ascending order: Shell's sort, which is an insertion sort of few."""
    gap = 1
    while gap < p // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for first in range(gap, p):
            value, at = scores[first], first
            while at >= gap and scores[at - gap] > value:
                scores[at] = scores[at - gap]
                at -= gap
            scores[at] = value
        gap //= 3


@kernel(
    "in float64[:], in float64[:,:], in float64[:], in bool[:], in int64[:], out float64[:,:,:], out int64[:]",
    parallel=False,
)
def tally_label_rows(nll, figures, weights, counted, groups, sums, losses):
    """Add the metrics of rows to the sums of their groups.

    Parameters
    ----------
    nll : (n,) float64
    figures : (n, OF_ROW) float64
        Results of :func:`label_rows`.
    weights : (n,) float64, or (0,) for 1 each
    counted : (n,) bool
    groups : (n,) int64, or (0,)
        The group of each row; empty if there is one.
    sums : (g, SUMS, 2) float64
        WEIGHT to INFINITE of :mod:`batchmax.kernels.metric_sums`, then FIGURES + ROW_BRIER to FIGURES + HAS_AP; each
        sum with its accumulated rounding error.
    losses : (l,) int64, or (0,)
        Numbers of rows by tenths of a nat; the last one includes all larger losses.
    """
    for i in range(nll.shape[0]):
        if not counted[i]:
            continue
        w = weights[i] if weights.shape[0] != 0 else 1.0
        g = groups[i] if groups.shape[0] != 0 else 0
        if losses.shape[0] != 0:
            losses[int(min(10.0 * nll[i], losses.shape[0] - 1.0))] += 1
        _add(sums, g, WEIGHT, w)
        _add(sums, g, BRIER, w * figures[i, ROW_BRIER])
        _add(sums, g, ENTRIES, w * figures[i, KNOWN])
        if nll[i] < np.inf:
            _add(sums, g, LOSS, w * nll[i])
        elif w != 0.0:
            sums[g, FIGURES - 1, 0] += 1.0
        for at in range(KNOWN, OF_ROW):
            _add(sums, g, FIGURES + at, w * figures[i, at])


@kernel(
    "in float64[:,:], in float64[:,:], in float64[:,:], in int64[:], in float64[:,:], in float64[:], in bool[:], "
    "in int64[:], out float64[:,:,:], out float64[:,:,:,:]",
)
def tally_entries(z, probs, entries, labels, targets, weights, counted, groups, classes, bins):
    """Add the entries of rows to the sums of their classes, of one or of several groups of rows.

    Parameters
    ----------
    z, probs, labels, targets
        As for :func:`label_rows`.
    entries : (n, K) float64
        The losses of known entries.
    weights, counted, groups
        As for :func:`tally_label_rows`.
    classes : (g, K, OF_CLASS) float64, or (g, 0, OF_CLASS)
        Indexed by SUPPORT to CLASS_ROWS; a class with an infinite loss has the sum +inf.
    bins : (t, g, b, BIN_SUMS) float64
        For each of t ranges of classes, and for each bin of probabilities of equal width: the four sums.
    """
    k, tasks, n_bins = z.shape[1], bins.shape[0], bins.shape[2]
    for task in prange(tasks):
        before = exchange_float_mode(STANDARD)
        first, end = task * k // tasks, (task + 1) * k // tasks
        for i in range(z.shape[0]):
            if not counted[i]:
                continue
            w = weights[i] if weights.shape[0] != 0 else 1.0
            g = groups[i] if groups.shape[0] != 0 else 0
            for j in range(first, end):
                y = targets[i, j] if targets.shape[0] != 0 else np.float64(labels[i] == j)
                if y != y:
                    continue
                p = probs[i, j]
                if classes.shape[1] != 0:
                    is_label, is_predicted = y > 0.0, z[i, j] > 0.0
                    classes[g, j, SUPPORT] += w if is_label else 0.0
                    classes[g, j, PREDICTED] += w if is_predicted else 0.0
                    classes[g, j, RIGHT] += w if is_label and is_predicted else 0.0
                    classes[g, j, CLASS_LOSS] += w * entries[i, j] if w != 0.0 else 0.0
                    classes[g, j, CLASS_ROWS] += w
                at = bin_of(p, n_bins)
                bins[task, g, at, 0] += w
                bins[task, g, at, 1] += w * p
                bins[task, g, at, 2] += w * y
                bins[task, g, at, 3] += w * w * p * (1.0 - p)
        exchange_float_mode(before)


@compiled
def _add(sums, g, place, value):
    sums[g, place, 0], sums[g, place, 1] = add_exactly(sums[g, place, 0], sums[g, place, 1], value)

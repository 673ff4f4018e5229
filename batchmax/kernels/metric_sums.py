"""The sums of an evaluation, added up row by row, so that they don't depend on threads or batches."""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.softmax.softmax_float64 import add_exactly

WEIGHT, LOSS, BRIER, HITS, INFINITE, FIGURES = 0, 1, 2, 3, 4, 5
"""Indices of the sums of an input or a group.

Weights; weighted losses, Brier scores and hits; the number of infinite losses in rows with a weight other than 0. Hits
are NaN if a row has a target distribution instead of a class.
"""
ENTRIES = HITS
"""Index of the weighted number of classes, summed over rows, if classes are independent: such rows have no hits."""
ROWS, BINS = 5, 6
"""Indices that only the sums of a group have: the number of rows, and the first of its bins."""
SUPPORT, PREDICTED, RIGHT, CLASS_LOSS = 0, 1, 2, 3
"""Indices of the sums of a class."""


@kernel(
    "in float64[:], in float64[:], in int32[:], in int32[:], in float64[:], in int64[:], in float64[:], "
    "in bool[:], int64, in int64[:], out float64[:,:], out float64[:], out float64[:,:], out float64[:,:], "
    "out float64[:,:], out int64[:], out int64[:,:]",
    parallel=False,
)
def tally_rows(
    nll,
    rests,
    pred,
    rank,
    brier,
    labels,
    weights,
    counted,
    positive,
    top_k,
    sums,
    tops,
    classes,
    confusion,
    bins,
    losses,
    confidences,
):
    """Add rows to the sums.

    Parameters
    ----------
    nll, rests, brier : (n,) float64
    pred, rank : (n,) int32
        Results of the softmax and :mod:`batchmax.kernels.row_metrics` kernels. Rank 0 means that the row has a target
        distribution instead of a class: then only its loss and Brier score are added.
    labels : (n,) int64
    weights : (n,) float64, or (0,) for 1 each
    counted : (n,) bool
        Rows that have a loss.
    positive
        The positive class of two; -1 if there are more.
    top_k : (t,) int64
    sums : (5, 2) float64
        Indexed by WEIGHT to INFINITE; each sum with its accumulated rounding error.
    tops : (t,) float64
        Weights of the rows whose label is among the first k.
    classes : (K, 4) float64
        Indexed by SUPPORT to CLASS_LOSS.
    confusion : (K, K) float64, or (0, 0)
        Weights by label and predicted class.
    bins : (b, 3) float64
        For each bin of equal width: weights, weighted probabilities, and weights of hits. The probability is that of
        the predicted class, or of the positive one; a hit is a row with this class.
    losses : (l,) int64
        Numbers of rows by tenths of a nat; the last one includes all larger losses.
    confidences : (2, c) int64
        Numbers of wrong and of correct rows for each confidence bin of equal width.
    """
    n_bins = bins.shape[0]
    n_widths = confidences.shape[1]
    for i in range(nll.shape[0]):
        if not counted[i]:
            continue
        w = weights[i] if weights.shape[0] != 0 else 1.0
        _add_loss(sums, losses, nll[i], w)
        _add(sums, BRIER, w * brier[i])
        _add(sums, HITS, weight_within(1, rank[i], w))
        for j in range(top_k.shape[0]):
            tops[j] += weight_within(top_k[j], rank[i], w)
        if rank[i] == 0:
            continue
        y = labels[i]
        p = pred[i]
        hit = rank[i] == 1
        confidence = 1.0 / (1.0 + rests[i])
        classes[y, SUPPORT] += w
        classes[p, PREDICTED] += w
        classes[y, RIGHT] += w if hit else 0.0
        classes[y, CLASS_LOSS] += w * nll[i] if w != 0.0 else 0.0
        if confusion.shape[0] != 0:
            confusion[y, p] += w
        probability, is_hit = binned(rests[i], p, y, hit, positive)
        at = bin_of(probability, n_bins)
        bins[at, 0] += w
        bins[at, 1] += w * probability
        bins[at, 2] += w if is_hit else 0.0
        confidences[1 if hit else 0, bin_of(confidence, n_widths)] += 1


@kernel(
    "in float64[:], in float64[:], in int32[:], in int32[:], in float64[:], in int64[:], in float64[:], "
    "in bool[:], int64, in int64[:], out float64[:,:]",
    parallel=False,
)
def tally_groups(nll, rests, pred, rank, brier, labels, weights, counted, positive, groups, sums):
    """Add rows to the sums of their groups.

    Parameters
    ----------
    nll, rests, pred, rank, brier, labels, weights, counted, positive
        As for :func:`tally_rows`.
    groups : (n,) int64
        The index of each row's group.
    sums : (n_groups, 6 + 3 b) float64
        Indexed by WEIGHT to ROWS, then for each of b bins the three sums of ``bins``.
    """
    n_bins = (sums.shape[1] - BINS) // 3
    for i in range(nll.shape[0]):
        g = groups[i]
        sums[g, ROWS] += 1.0
        if not counted[i]:
            continue
        w = weights[i] if weights.shape[0] != 0 else 1.0
        sums[g, WEIGHT] += w
        sums[g, BRIER] += w * brier[i]
        hit = weight_within(1, rank[i], w)
        sums[g, HITS] += hit
        if nll[i] < np.inf:
            sums[g, LOSS] += w * nll[i]
        elif w != 0.0:
            sums[g, INFINITE] += 1.0
        probability, is_hit = 1.0 / (1.0 + rests[i]), rank[i] == 1
        if rank[i] != 0:
            probability, is_hit = binned(rests[i], pred[i], labels[i], is_hit, positive)
        at = BINS + 3 * bin_of(probability, n_bins)
        sums[g, at] += w
        sums[g, at + 1] += w * probability
        sums[g, at + 2] += np.nan if rank[i] == 0 else w if is_hit else 0.0


@compiled
def _add_loss(sums, losses, loss, w):
    """Add the weight and the loss of a row to the sums, and the row to the histogram of losses."""
    _add(sums, WEIGHT, w)
    if loss < np.inf:
        _add(sums, LOSS, w * loss)
    elif w != 0.0:
        sums[INFINITE, 0] += 1.0
    losses[int(min(10.0 * loss, losses.shape[0] - 1.0))] += 1


@compiled
def _add(sums, place, value):
    sums[place, 0], sums[place, 1] = add_exactly(sums[place, 0], sums[place, 1], value)


@compiled
def binned(rest, pred, label, hit, positive):
    """Return the probability that decides the bin of a row, and whether the row has the class of this probability."""
    if positive < 0:
        return 1.0 / (1.0 + rest), hit
    return (1.0 if pred == positive else rest) / (1.0 + rest), label == positive


@compiled
def weight_within(k, rank, w):
    """Return the weight of a row if its label is among the first k, otherwise 0; NaN without a rank."""
    return np.nan if rank == 0 else w if rank <= k else 0.0


@compiled
def bin_of(value, count):
    """Return the index of the part of [0, 1], cut into ``count`` equal parts, that contains a value.

    Lower bounds are inclusive; 1 is in the last part.
    """
    at = int(value * count)
    # The product is rounded, so the index may be off by one.
    if at / count > value:
        at -= 1
    elif (at + 1) / count <= value:
        at += 1
    return min(max(at, 0), count - 1)

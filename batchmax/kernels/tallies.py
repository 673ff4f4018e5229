"""What an evaluation counts over rows: one row after another, so that sums do not depend on threads or batches."""

import numpy as np

from batchmax.kernels.machine import compiled
from batchmax.kernels.softmax import add_exactly

WEIGHT, LOSS, BRIER, HITS, INFINITE, FIGURES = 0, 1, 2, 3, 4, 5
"""Places in the sums of a whole, or of a group: of weights, of weighted losses, Brier scores and hits, and how many
losses were infinite."""
SUPPORT, PREDICTED, RIGHT, CLASS_LOSS = 0, 1, 2, 3
"""Places in the sums of a class."""


def tally_rows(
    nll,
    rests,
    pred,
    rank,
    brier,
    labels,
    weights,
    counted,
    top_k,
    sums,
    tops,
    classes,
    confusion,
    bins,
    losses,
    confidences,
):
    """Add rows to what is counted.

    Parameters
    ----------
    nll, rests, brier : (n,) float64
    pred, rank : (n,) int32
        What the softmax and the judging kernel leave of rows.
    labels : (n,) int64
    weights : (n,) float64, or (0,) for 1 each
    counted : (n,) bool
        Rows that have a loss.
    top_k : (t,) int64
    sums : (5, 2) float64
        As named above, each with what its roundings lost.
    tops : (t,) float64
        Weights of the rows whose label is among the first k.
    classes : (K, 4) float64
        As named above.
    confusion : (K, K) float64, or (0, 0)
        Weights by label and predicted class.
    bins : (b, 3) float64
        For equal widths of confidence: weights, and weighted confidences and hits.
    losses : (l,) int64
        Rows by tenths of a nat; the last are all that are larger.
    confidences : (2, c) int64
        Wrong and right rows, by equal widths of confidence.
    """
    n_bins = bins.shape[0]
    n_widths = confidences.shape[1]
    for i in range(nll.shape[0]):
        if not counted[i]:
            continue
        w = weights[i] if weights.shape[0] != 0 else 1.0
        y = labels[i]
        p = pred[i]
        hit = rank[i] == 1
        confidence = 1.0 / (1.0 + rests[i])
        _add(sums, WEIGHT, w)
        _add(sums, BRIER, w * brier[i])
        _add(sums, HITS, w if hit else 0.0)
        if nll[i] == np.inf:
            sums[INFINITE, 0] += 1.0
        else:
            _add(sums, LOSS, w * nll[i])
        for j in range(top_k.shape[0]):
            tops[j] += w if rank[i] <= top_k[j] else 0.0
        classes[y, SUPPORT] += w
        classes[p, PREDICTED] += w
        classes[y, RIGHT] += w if hit else 0.0
        classes[y, CLASS_LOSS] += w * nll[i] if w != 0.0 else 0.0
        if confusion.shape[0] != 0:
            confusion[y, p] += w
        at = _bin(confidence, n_bins)
        bins[at, 0] += w
        bins[at, 1] += w * confidence
        bins[at, 2] += w if hit else 0.0
        losses[int(min(10.0 * nll[i], losses.shape[0] - 1.0))] += 1
        confidences[1 if hit else 0, _bin(confidence, n_widths)] += 1


def tally_groups(nll, rests, rank, brier, weights, counted, groups, sums):
    """Add rows to the sums of their groups.

    Parameters
    ----------
    nll, rests, rank, brier, weights, counted
        As for :func:`tally_rows`.
    groups : (n,) int64
        The number of each row's group.
    sums : (n_groups, 6) float64
        As named above, and last how many rows there were.
    """
    for i in range(nll.shape[0]):
        g = groups[i]
        sums[g, FIGURES] += 1.0
        if not counted[i]:
            continue
        w = weights[i] if weights.shape[0] != 0 else 1.0
        sums[g, WEIGHT] += w
        sums[g, BRIER] += w * brier[i]
        sums[g, HITS] += w if rank[i] == 1 else 0.0
        if nll[i] == np.inf:
            sums[g, INFINITE] += 1.0
        else:
            sums[g, LOSS] += w * nll[i]


@compiled
def _add(sums, place, value):
    sums[place, 0], sums[place, 1] = add_exactly(sums[place, 0], sums[place, 1], value)


@compiled
def _bin(value, count):
    """Return which of ``count`` equal parts of 0 to 1 a value lies in, the lower border included, and 1 in the last."""
    at = int(value * count)
    # The product is rounded, so that a border may have been passed, or not reached.
    if at / count > value:
        at -= 1
    elif (at + 1) / count <= value:
        at += 1
    return min(max(at, 0), count - 1)

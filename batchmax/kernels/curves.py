"""Curves of a class against the others: ROC and precision against recall, and the areas under them.

A score is mapped to a key, an unsigned integer of the same order and the same size. Equal scores have equal keys, and
0.0 equals -0.0. The keys of positives and of negatives are in two arrays. All sums are compensated, so that counts are
exact up to 2**53.
"""

import numpy as np
from numba import prange

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.float_mode import STANDARD, exchange_float_mode
from batchmax.kernels.compiler.intrinsics import bits_of, compiled
from batchmax.kernels.exp import log1p, shifted_exp, shifted_logit
from batchmax.kernels.softmax.softmax_float64 import add_exactly
from batchmax.kernels.tiles import LANES

PAIRS, AP, OTHER_AP, SQUARES, OTHER_SQUARES, SUMS = 0, 1, 2, 3, 4, 5
"""Indices of the sums of :func:`curve_sums`."""

EXPONENTS = 64
"""Powers of 2 that bins distinguish, from 2**LOWEST on; smaller and larger scores share the bins at the ends."""
LOWEST = -16


@kernel(
    "in key[:], in int64[:], in bool[:], int64, in float64[:], out key[:], out float64[:], out key[:], out float64[:]",
    parallel=False,
)
def split_keys(bits, labels, counted, positive, weights, keys, key_weights, other_keys, other_weights):
    """Return how many rows of the positive class and how many others there are, and write their keys.

    Parameters
    ----------
    bits : (n,) uint32 or uint64
        The bits of the scores, float32 or float64.
    labels : (n,) int64
    counted : (n,) bool
        Rows to use.
    positive
        The class of positives.
    weights : (n,) float64, or (0,) for 1 each
        Rows of weight 0 aren't used.
    keys, other_keys : (n + 1,) uint32 or uint64
        Filled from the start with the keys of positives and of the other rows.
    key_weights, other_weights : (n + 1,) float64, or (0,) if weights are
        Filled with their weights.
    """
    one = bits.dtype.type(1)
    top = bits.dtype.type(bits.itemsize * 8 - 1)
    n_keys = 0
    n_others = 0
    for i in range(bits.shape[0]):
        u = bits[i]
        key = ~u if u >> top else u | (one << top)
        # -0.0
        key = one << top if u == one << top else key
        is_used = counted[i]
        is_positive = labels[i] == positive
        if weights.shape[0] != 0:
            is_used = is_used and weights[i] > 0.0
            key_weights[n_keys] = weights[i]
            other_weights[n_others] = weights[i]
        # Both are written, and one of them is kept: there is no branch to mispredict.
        keys[n_keys] = key
        other_keys[n_others] = key
        n_keys += is_used & is_positive
        n_others += is_used & (not is_positive)
    return n_keys, n_others


@kernel("in float64[:,:], float64, out float64[:,:]")
def log_odds(z, beta, out):
    """Fill out with the log-odds of each class against all others together.

    Those of class k are beta * z_k minus the logarithm of the sum of exp(beta * z_j) over the other classes j.

    Parameters
    ----------
    z : (n, K) float64
        Logits without NaN and +inf; not all of a row are -inf.
    beta
        The inverse temperature.
    out : (K, n) float64
        The error is about one ULP. Rows whose logits differ only in the order of the other classes are equal. -inf for
        masked classes, +inf if all others are masked.
    """
    n, k = z.shape
    for tile in prange((n + LANES - 1) // LANES):
        before = exchange_float_mode(STANDARD)
        terms = np.empty(k)
        found = np.empty((LANES, k))
        first = tile * LANES
        count = min(LANES, n - first)
        for r in range(count):
            _log_odds_of_row(z, first + r, beta, terms, found, r)
        # Row by row, each number would be written far from the one before.
        for j in range(k):
            for r in range(count):
                out[j, first + r] = found[r, j]
        exchange_float_mode(before)


@compiled
def _log_odds_of_row(z, i, beta, terms, found, r):
    k = z.shape[1]
    best = 0
    second = -np.inf
    for j in range(1, k):
        is_larger = z[i, j] > z[i, best]
        second = max(second, z[i, best] if is_larger else z[i, j])
        best = j if is_larger else best
    if second == -np.inf:
        for j in range(k):
            found[r, j] = np.inf if j == best else -np.inf
        return
    # The sum over all classes but the best, relative to the second best, is at least 1. It has its rounding errors, so
    # that it doesn't depend on the order of the classes.
    for j in range(k):
        terms[j] = shifted_exp(z[i, j], second, beta)
    terms[best] = 0.0
    total = 0.0
    lost = 0.0
    for j in range(k):
        total, lost = add_exactly(total, lost, terms[j])
    m = z[i, best]
    factor = shifted_exp(second, m, beta)
    for j in range(k):
        high, low = shifted_logit(z[i, j], m, beta)
        found[r, j] = high + (low - log1p(factor * ((total - terms[j]) + lost)))
    high, low = shifted_logit(second, m, beta)
    found[r, best] = -high - (low + log1p((total - 1.0) + lost))


@kernel(
    "in key[:], in key[:], in float64[:], in float64[:], in int64[:], in int64[:], in float64[:,:], "
    "out float64[:,:], out float64[:,:]"
)
def curve_sums(keys, others, key_weights, other_weights, ends, other_ends, above, sums, losts):
    """Fill the sums of ranges of scores, from which the areas under the curves follow.

    Parameters
    ----------
    keys, others : (p,) and (n,) uint32 or uint64
        The keys of positives and of negatives, in ascending order.
    key_weights, other_weights : (p,) and (n,) float64, or both (0,) for 1 each
    ends, other_ends : (r + 1,) int64
        Indices that cut both arrays into r ranges. Equal keys are in one range.
    above : (r + 1, 2) float64
        The weights of the positives and of the negatives above each range; the first row has those of all.
    sums, losts : (r, 5) float64
        Filled with sums over the thresholds of a range, and their rounding errors. PAIRS: the weight of positives
        times that of the negatives below, those of equal score counting half. AP: the weight of the positives with
        the score times the precision at this threshold. OTHER_AP: the same for the negatives if small scores come
        first. SQUARES: the weight of positives times the square of that of the negatives above, those of equal score
        counting half. OTHER_SQUARES: the same for negatives and the positives below.
    """
    is_weighted = key_weights.shape[0] != 0 or other_weights.shape[0] != 0
    for r in prange(ends.shape[0] - 1):
        before = exchange_float_mode(STANDARD)
        i = ends[r + 1]
        j = other_ends[r + 1]
        tp = above[r + 1, 0]
        fp = above[r + 1, 1]
        tp_lost = 0.0
        fp_lost = 0.0
        pairs = 0.0
        pairs_lost = 0.0
        ap = 0.0
        ap_lost = 0.0
        other_ap = 0.0
        other_ap_lost = 0.0
        squares = 0.0
        squares_lost = 0.0
        other_squares = 0.0
        other_squares_lost = 0.0
        n_positives = above[0, 0]
        n_negatives = above[0, 1]
        while i > ends[r] or j > other_ends[r]:
            is_positive = i > ends[r] and (j == other_ends[r] or keys[i - 1] >= others[j - 1])
            key = keys[i - 1] if is_positive else others[j - 1]
            p = 0.0
            n = 0.0
            while i > ends[r] and keys[i - 1] == key:
                i -= 1
                p += key_weights[i] if is_weighted else 1.0
            while j > other_ends[r] and others[j - 1] == key:
                j -= 1
                n += other_weights[j] if is_weighted else 1.0
            fn = n_positives - (tp + tp_lost)
            tn = n_negatives - (fp + fp_lost)
            tp, tp_lost = add_exactly(tp, tp_lost, p)
            fp, fp_lost = add_exactly(fp, fp_lost, n)
            if p != 0.0:
                pairs, pairs_lost = add_exactly(pairs, pairs_lost, p * (n_negatives - (fp + fp_lost) + 0.5 * n))
                ap, ap_lost = add_exactly(ap, ap_lost, p * ((tp + tp_lost) / ((tp + tp_lost) + (fp + fp_lost))))
                misplaced = fp + fp_lost - 0.5 * n
                squares, squares_lost = add_exactly(squares, squares_lost, p * misplaced * misplaced)
            if n != 0.0:
                other_ap, other_ap_lost = add_exactly(other_ap, other_ap_lost, n * (tn / (tn + fn)))
                misplaced = fn - 0.5 * p
                other_squares, other_squares_lost = add_exactly(
                    other_squares, other_squares_lost, n * misplaced * misplaced
                )
        sums[r, PAIRS] = pairs
        sums[r, AP] = ap
        sums[r, OTHER_AP] = other_ap
        sums[r, SQUARES] = squares
        sums[r, OTHER_SQUARES] = other_squares
        losts[r, PAIRS] = pairs_lost
        losts[r, AP] = ap_lost
        losts[r, OTHER_AP] = other_ap_lost
        losts[r, SQUARES] = squares_lost
        losts[r, OTHER_SQUARES] = other_squares_lost
        exchange_float_mode(before)


@kernel("in float64[:], float64", parallel=False)
def index_of_weight(weights, limit):
    """Return the largest index at which the weights from there to the end sum to more than the limit; else 0."""
    total = 0.0
    lost = 0.0
    at = weights.shape[0]
    while at > 0:
        at -= 1
        total, lost = add_exactly(total, lost, weights[at])
        if total + lost > limit:
            break
    return at


@kernel(
    "in key[:], in key[:], in float64[:], in float64[:], float64, float64, float64, out key[:], out float64[:,:]",
    parallel=False,
)
def thin_curve(keys, others, key_weights, other_weights, n_positives, n_negatives, tolerance, thresholds, counts):
    """Return how many points of a curve are enough, and fill them; the capacity plus 1 if there are more.

    Between two of the points, the true positive rate as a function of the false positive rate, and the precision as a
    function of the recall, differ from a line by at most the tolerance at every point of the exact curves, unless the
    line is vertical. A point is kept as soon as no line from the point before it meets this condition (the sleeve of
    Zhao and Saalfeld 1997, "Linear-time sleeve-fitting polyline simplification").

    Parameters
    ----------
    keys, others, key_weights, other_weights
        As for :func:`curve_sums`.
    n_positives, n_negatives
        Their weights.
    tolerance
        A rate.
    thresholds : (m,) uint32 or uint64
        The keys from which on a row is positive, in descending order.
    counts : (m, 2) float64
        The weights of true and of false positives.
    """
    i = keys.shape[0]
    j = others.shape[0]
    is_weighted = key_weights.shape[0] != 0 or other_weights.shape[0] != 0
    p_total = max(n_positives, 1e-300)
    n_total = max(n_negatives, 1e-300)
    roc = np.empty(5)
    precision = np.empty(5)
    n_points = 0
    tp = 0.0
    fp = 0.0
    tp_lost = 0.0
    fp_lost = 0.0
    last = keys.dtype.type(0)
    t = 0.0
    f = 0.0
    while i > 0 or j > 0:
        is_positive = i > 0 and (j == 0 or keys[i - 1] >= others[j - 1])
        key = keys[i - 1] if is_positive else others[j - 1]
        last_t = t
        last_f = f
        while i > 0 and keys[i - 1] == key:
            i -= 1
            tp, tp_lost = add_exactly(tp, tp_lost, key_weights[i] if is_weighted else 1.0)
        while j > 0 and others[j - 1] == key:
            j -= 1
            fp, fp_lost = add_exactly(fp, fp_lost, other_weights[j] if is_weighted else 1.0)
        t = tp + tp_lost
        f = fp + fp_lost
        if n_points == 0:
            n_points = _keep(thresholds, counts, n_points, key, t, f)
            _start(roc, f / n_total, t / p_total)
            _start(precision, t / p_total, t / (t + f))
        else:
            if not (
                _fits(roc, f / n_total, t / p_total, tolerance)
                and _fits(precision, t / p_total, t / (t + f), tolerance)
            ):
                n_points = _keep(thresholds, counts, n_points, last, last_t, last_f)
                if n_points > thresholds.shape[0]:
                    return n_points
                _start(roc, last_f / n_total, last_t / p_total)
                _start(precision, last_t / p_total, last_t / (last_t + last_f))
            _narrow(roc, f / n_total, t / p_total, tolerance)
            _narrow(precision, t / p_total, t / (t + f), tolerance)
        last = key
    if n_points > 0 and thresholds[n_points - 1] != last:
        n_points = _keep(thresholds, counts, n_points, last, t, f)
    return n_points


@compiled
def _keep(thresholds, counts, n_points, key, tp, fp):
    if n_points < thresholds.shape[0]:
        thresholds[n_points] = key
        counts[n_points, 0] = tp
        counts[n_points, 1] = fp
    return n_points + 1


X, Y, SLOPE, MOST_SLOPE, STEP = 0, 1, 2, 3, 4
"""The last kept point, the range of slopes of lines from it, and the largest distance of points above or below it."""


@compiled
def _start(line, x, y):
    """Begin a line at a point."""
    line[X] = x
    line[Y] = y
    line[SLOPE] = -np.inf
    line[MOST_SLOPE] = np.inf
    line[STEP] = 0.0


@compiled
def _fits(line, x, y, tolerance):
    """Return whether the line to a point, at x or to the right of the first, is near all points between them."""
    if x <= line[X]:
        return True
    slope = (y - line[Y]) / (x - line[X])
    return line[SLOPE] <= slope <= line[MOST_SLOPE] and line[STEP] <= tolerance


@compiled
def _narrow(line, x, y, tolerance):
    """Take a point into account that is between the first and the next point that is kept."""
    if x <= line[X]:
        line[STEP] = max(line[STEP], abs(y - line[Y]))
    else:
        line[SLOPE] = max(line[SLOPE], (y - line[Y] - tolerance) / (x - line[X]))
        line[MOST_SLOPE] = min(line[MOST_SLOPE], (y - line[Y] + tolerance) / (x - line[X]))


@kernel("in real[:], in int64[:], in bool[:], int64, in float64[:], int64, out float64[:,:]", parallel=False)
def count_bins(scores, labels, counted, positive, weights, digits, counts):
    """Add the weights of rows to the bins of their scores.

    Parameters
    ----------
    scores : (n,) float32 or float64
    labels, counted, positive, weights
        As for :func:`split_keys`.
    digits
        The binary digits of a score that bins distinguish after the first.
    counts : (2, 2 * EXPONENTS * 2**digits) float64
        The weights of positives and of the others, in bins of ascending scores.
    """
    half = EXPONENTS << digits
    lowest = (1023 + LOWEST) << digits
    for i in range(scores.shape[0]):
        if not counted[i]:
            continue
        score = np.float64(scores[i])
        at = (bits_of(abs(score)) >> (52 - digits)) - lowest
        at = min(max(at, 0), half - 1)
        at = half - 1 - at if score < 0.0 else half + at
        counts[0 if labels[i] == positive else 1, at] += weights[i] if weights.shape[0] != 0 else 1.0

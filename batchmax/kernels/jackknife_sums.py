"""The sums of groups of rows for jackknife intervals, and the assignment of rows and clusters to groups.

A row's cluster is a hash of 64 bits: of its row number, or of its key. Up to ``GROUPS`` clusters are a group each, and
beyond that, the first 8 bits of the hash are the group. Hashes are those of SplitMix64
(:func:`batchmax.kernels.sampling.split_mix` with seed 0), so groups don't depend on the process, threads or batches.
"""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.metric_sums import (
    BRIER,
    CLASS_LOSS,
    HITS,
    INFINITE,
    LOSS,
    PREDICTED,
    RIGHT,
    SUPPORT,
    WEIGHT,
    bin_of,
    binned,
    weight_within,
)
from batchmax.kernels.sampling import split_mix

GROUPS = 256
SLOTS = 4 * GROUPS
"""Size of the hash table of the first clusters."""
MOST_DISTINCT = 2**20
"""Largest number of hashes that are kept for counting clusters."""
BIN_SUMS = 4
"""The sums of a bin: those of :mod:`batchmax.kernels.metric_sums`, and the variance of its hits if p is right."""

NO_SEED = np.uint64(0)
FNV_START, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@kernel("in int64[:], out uint64[:]", parallel=False)
def hash_integers(values, hashes):
    """Fill hashes with those of int64 values, (n,)."""
    for i in range(values.shape[0]):
        hashes[i] = _not_empty(split_mix(NO_SEED, np.uint64(values[i])))


@kernel("in int64[:], in uint8[:], out uint64[:]", parallel=False)
def hash_texts(offsets, text, hashes):
    """Fill hashes with those of n texts: FNV-1a of 64 bits, mixed by SplitMix64.

    Parameters
    ----------
    offsets : (n + 1,) int64
        Where each text begins; the last one is where the last text ends.
    text : (m,) uint8
    hashes : (n,) uint64
    """
    for i in range(hashes.shape[0]):
        found = FNV_START
        for j in range(offsets[i], offsets[i + 1]):
            found = (found ^ np.uint64(text[j])) * FNV_PRIME
        hashes[i] = _not_empty(split_mix(NO_SEED, found))


@kernel("in uint64[:], out uint8[:]", parallel=False)
def groups_of_hashes(hashes, groups):
    """Fill groups with the first 8 bits of the hashes."""
    for i in range(hashes.shape[0]):
        groups[i] = np.uint8(hashes[i] >> np.uint64(56))


@kernel("in uint64[:], in bool[:], int64, out uint64[:], out int64[:], out uint8[:]", parallel=False)
def number_clusters(hashes, counted, known, slots, numbers, groups):
    """Fill groups with the number of each row's cluster, in order of first occurrence.

    Parameters
    ----------
    hashes : (n,) uint64
    counted : (n,) bool
        Rows that have a loss; others aren't numbered.
    known
        The number of clusters so far.
    slots : (SLOTS,) uint64, numbers : (SLOTS,) int64
        A hash table of the clusters, and their numbers; updated in place. 0 is an empty slot.
    groups : (n,) uint8

    Returns
    -------
    the number of clusters, and the number of rows up to the first of a cluster that is one too many.
    """
    for i in range(hashes.shape[0]):
        if not counted[i]:
            continue
        at = np.int64(hashes[i] % np.uint64(SLOTS))
        while slots[at] != 0 and slots[at] != hashes[i]:
            at = (at + 1) % SLOTS
        if slots[at] == 0:
            if known == GROUPS:
                return known, i
            slots[at] = hashes[i]
            numbers[at] = known
            known += 1
        groups[i] = np.uint8(numbers[at])
    return known, hashes.shape[0]


@kernel("in uint64[:], in bool[:], int64, int64, out uint64[:]", parallel=False)
def count_distinct(hashes, counted, kept, depth, table):
    """Count the distinct hashes of rows; exactly up to ``MOST_DISTINCT``, beyond that by adaptive sampling.

    Of all hashes, those that end in ``depth`` zero bits are kept, with the smallest depth at which they fit. The
    estimate kept · 2**depth has a relative standard error of about 0.1 %, and doesn't depend on the order of rows
    (Flajolet 1990, "On adaptive sampling", Computing 43, 391-400).

    Parameters
    ----------
    hashes : (n,) uint64
    counted : (n,) bool
    kept, depth
        Results of the call before; first 0.
    table : (m,) uint64
        A hash table of the hashes that are kept, up to 2 ``MOST_DISTINCT`` long; updated in place. 0 is an empty slot.

    Returns
    -------
    kept, depth, and the number of rows up to the first for which a larger table is needed.
    """
    most = table.shape[0] // 2
    before = np.uint64(0)
    for i in range(hashes.shape[0]):
        if not counted[i] or hashes[i] == before:
            continue
        before = hashes[i]
        if not _is_kept(before, depth):
            continue
        if kept == most and most < MOST_DISTINCT:
            return kept, depth, i
        kept += _insert(table, before)
        while kept > MOST_DISTINCT:
            depth += 1
            old = table.copy()
            table[:] = 0
            kept = 0
            for one in old:
                if one != 0 and _is_kept(one, depth):
                    kept += _insert(table, one)
    return kept, depth, hashes.shape[0]


@kernel(
    "in float64[:], in float64[:], in int32[:], in int32[:], in float64[:], in int64[:], in float64[:], "
    "in bool[:], int64, in int64[:], in uint8[:], out float64[:,:], out float64[:,:], out float64[:,:,:], "
    "out float64[:,:,:]",
    parallel=False,
)
def tally_jackknife(
    nll, rests, pred, rank, brier, labels, weights, counted, positive, top_k, groups, sums, tops, classes, bins
):
    """Add rows to the sums of their groups.

    Parameters
    ----------
    nll, rests, pred, rank, brier, labels, weights, counted, positive, top_k
        As for :func:`batchmax.kernels.metric_sums.tally_rows`.
    groups : (n,) uint8
        The group of each counted row.
    sums : (g, 5) float64
        Indexed by WEIGHT to INFINITE.
    tops : (g, t) float64
        Weights of the rows whose label is among the first k.
    classes : (g, K, 4) float64, or (g, 0, 4)
        Indexed by SUPPORT to CLASS_LOSS.
    bins : (g, b, 4) float64
        The three sums of a bin, and the sum of w² p (1 - p).
    """
    n_bins = bins.shape[1]
    for i in range(nll.shape[0]):
        if not counted[i]:
            continue
        w = weights[i] if weights.shape[0] != 0 else 1.0
        g = groups[i]
        sums[g, WEIGHT] += w
        sums[g, BRIER] += w * brier[i]
        sums[g, HITS] += weight_within(1, rank[i], w)
        if nll[i] < np.inf:
            sums[g, LOSS] += w * nll[i]
        elif w != 0.0:
            sums[g, INFINITE] += 1.0
        for j in range(top_k.shape[0]):
            tops[g, j] += weight_within(top_k[j], rank[i], w)
        if rank[i] == 0:
            continue
        y = labels[i]
        p = pred[i]
        hit = rank[i] == 1
        if classes.shape[1] != 0:
            classes[g, y, SUPPORT] += w
            classes[g, p, PREDICTED] += w
            classes[g, y, RIGHT] += w if hit else 0.0
            classes[g, y, CLASS_LOSS] += w * nll[i] if w != 0.0 else 0.0
        probability, is_hit = binned(rests[i], p, y, hit, positive)
        at = bin_of(probability, n_bins)
        bins[g, at, 0] += w
        bins[g, at, 1] += w * probability
        bins[g, at, 2] += w if is_hit else 0.0
        bins[g, at, 3] += w * w * rests[i] / ((1.0 + rests[i]) * (1.0 + rests[i]))


@compiled
def _not_empty(found):
    return found if found != 0 else np.uint64(1)


@compiled
def _is_kept(one, depth):
    return one & ((np.uint64(1) << np.uint64(depth)) - np.uint64(1)) == 0


@compiled
def _insert(table, one):
    """Insert a hash, and return 1 if it is new, otherwise 0."""
    mask = table.shape[0] - 1
    at = np.int64(one >> np.uint64(24)) & mask
    while table[at] != 0 and table[at] != one:
        at = (at + 1) & mask
    if table[at] == one:
        return 0
    table[at] = one
    return 1

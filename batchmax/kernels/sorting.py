"""Sort unsigned integers in place, with a weight for each.

Without weights, NumPy's sort is the fastest: it is in place and uses vector instructions. It can't permute weights, and
``argsort`` needs 8 bytes per key more. So keys with weights have a most-significant-digit radix sort of their own.

The keys of a bucket are cut into sub-buckets of equal width between the smallest and the largest of them, as in an
American flag sort (McIlroy, Bostic and McIlroy 1993). Keys of floating-point numbers share most of their leading bits,
which digits at fixed places would spend passes on. The first pass is serial; its buckets are sorted in parallel. The
result doesn't depend on threads: not even the order of the weights of equal keys.
"""

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled

Array = NDArray[Any]

SMALL = 24
"""Ranges of up to this many keys are sorted by insertion."""
FIRST_BITS = 14
"""log2 of the number of buckets of the first pass."""
MOST_BITS = 12
"""log2 of the largest number of buckets of later passes."""
DEPTH = 1 << 15
"""Ranges that a task may have waiting: each of at most 7 passes adds at most 4096."""
TASKS = 64
"""Shares of the keys that are sorted in parallel, fixed so that they don't depend on threads."""

SCRATCH = 1 << 16
"""Ranges of up to this many keys are split by copying them, which is faster in the cache than exchanging them."""


def sort_keys(keys: Array, weights: Array) -> None:
    """Sort keys in ascending order, and permute their weights in the same way, both in place.

    Parameters
    ----------
    keys
        Shape (n,), uint32 or uint64.
    weights
        Shape (n,), float64; (0,) for none.
    """
    if not len(weights):
        keys.sort()
        return
    if len(keys) < 2:
        return
    low, high = keys.min(), keys.max()
    if low == high:
        return
    shift = max(0, (int(high) - int(low)).bit_length() - FIRST_BITS)
    ends = np.zeros((1 << FIRST_BITS) + 1, np.int64)
    split_range(keys, weights, int(low), shift, ends)
    # Shares of about equal size, cut between buckets.
    shares = np.searchsorted(ends, np.linspace(0, len(keys), TASKS + 1)[1:-1], side="left")
    sort_buckets(keys, weights, ends, np.concatenate([[0], shares, [len(ends) - 1]]).astype(np.int64))


@kernel("out key[:], out float64[:], uint64, int64, out int64[:]", parallel=False)
def split_range(keys, weights, low, shift, ends):
    """Permute keys into buckets of ascending keys.

    Parameters
    ----------
    keys, weights
        As for :func:`sort_keys`.
    low, shift
        The bucket of a key is (key - low) >> shift.
    ends : (b + 1,) int64
        Filled with the first index of each bucket, and n.
    """
    heads = np.zeros(ends.shape[0], np.int64)
    _split_in_place(keys, weights, 0, keys.shape[0], keys.dtype.type(low), keys.dtype.type(shift), heads, ends)


@kernel("out key[:], out float64[:], in int64[:], in int64[:]")
def sort_buckets(keys, weights, ends, shares):
    """Sort each bucket.

    Parameters
    ----------
    keys, weights
        As for :func:`sort_keys`.
    ends : (b + 1,) int64
        The first index of each bucket, and n.
    shares : (t + 1,) int64
        The first bucket of each task, and b.
    """
    for task in prange(shares.shape[0] - 1):
        stack = np.empty((DEPTH, 2), np.int64)
        heads = np.zeros((1 << MOST_BITS) + 1, np.int64)
        limits = np.zeros((1 << MOST_BITS) + 1, np.int64)
        scratch = np.empty(SCRATCH, keys.dtype)
        spare = np.empty(SCRATCH, np.float64)
        for bucket in range(shares[task], shares[task + 1]):
            _sort_range(keys, weights, ends[bucket], ends[bucket + 1], stack, heads, limits, scratch, spare)


@compiled
def _sort_range(keys, weights, start, end, stack, heads, limits, scratch, spare):
    """Sort keys[start:end]; the last five arguments are memory."""
    if end - start <= SMALL:
        _insertion_sort(keys, weights, start, end)
        return
    depth = 1
    stack[0, 0] = start
    stack[0, 1] = end
    while depth > 0:
        depth -= 1
        start = stack[depth, 0]
        end = stack[depth, 1]
        low = keys[start]
        high = keys[start]
        for i in range(start, end):
            low = min(low, keys[i])
            high = max(high, keys[i])
        if low == high:
            continue
        bits = min(MOST_BITS, max(2, _bit_length(end - start) - 2))
        shift = keys.dtype.type(max(0, _bit_length(high - low) - bits))
        ends = limits[: (1 << bits) + 1]
        if end - start <= SCRATCH:
            _split_by_copy(keys, weights, start, end, low, shift, heads[: (1 << bits) + 1], ends, scratch, spare)
        else:
            _split_in_place(keys, weights, start, end, low, shift, heads[: (1 << bits) + 1], ends)
        for b in range(1 << bits):
            if ends[b + 1] - ends[b] > SMALL:
                stack[depth, 0] = ends[b]
                stack[depth, 1] = ends[b + 1]
                depth += 1
            else:
                _insertion_sort(keys, weights, ends[b], ends[b + 1])


@compiled
def _find_buckets(keys, start, end, low, shift, heads, ends):
    """Fill both heads and ends, (b + 1,), with the first index of each bucket, and the end of the last."""
    for b in range(heads.shape[0]):
        heads[b] = 0
    for i in range(start, end):
        heads[np.int64((keys[i] - low) >> shift)] += 1
    first = start
    for b in range(heads.shape[0]):
        ends[b] = first
        first += heads[b]
        heads[b] = ends[b]


@compiled
def _split_by_copy(keys, weights, start, end, low, shift, heads, ends, scratch, spare):
    """Do the same as :func:`_split_in_place` for few keys."""
    _find_buckets(keys, start, end, low, shift, heads, ends)
    for i in range(start, end):
        b = np.int64((keys[i] - low) >> shift)
        at = heads[b]
        heads[b] = at + 1
        scratch[at - start] = keys[i]
        spare[at - start] = weights[i]
    for i in range(start, end):
        keys[i] = scratch[i - start]
        weights[i] = spare[i - start]


@compiled
def _split_in_place(keys, weights, start, end, low, shift, heads, ends):
    """Permute keys[start:end] into buckets, and fill ends, (b + 1,); heads, of the same shape, is memory."""
    _find_buckets(keys, start, end, low, shift, heads, ends)
    for b in range(ends.shape[0] - 1):
        last = ends[b + 1]
        while heads[b] < last:
            at = heads[b]
            key = keys[at]
            weight = weights[at]
            to = np.int64((key - low) >> shift)
            while to != b:
                place = heads[to]
                heads[to] = place + 1
                key, keys[place] = keys[place], key
                weight, weights[place] = weights[place], weight
                to = np.int64((key - low) >> shift)
            keys[at] = key
            weights[at] = weight
            heads[b] = at + 1


@compiled
def _insertion_sort(keys, weights, start, end):
    for i in range(start + 1, end):
        key = keys[i]
        at = i
        weight = weights[i]
        while at > start and keys[at - 1] > key:
            keys[at] = keys[at - 1]
            weights[at] = weights[at - 1]
            at -= 1
        weights[at] = weight
        keys[at] = key


@compiled
def _bit_length(number):
    """Return the number of bits of a number, at least 1."""
    bits = 1
    while number > 1:
        number >>= 1
        bits += 1
    return bits

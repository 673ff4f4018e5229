"""Sums in a fixed order, with the same bits on every CPU and for every batch size."""

import numpy as np

from batchmax.kernels.compiler.dispatch import kernel
from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import WIDTH, address, load, total
from batchmax.kernels.softmax.softmax_float64 import add_exactly
from batchmax.statuses import LAST_WITHOUT_LOSS, Status

OK = int(Status.OK)

FEW = 4 * WIDTH
"""Up to this many terms are read one by one.

A vector load right after scalar stores to the same memory stalls.
"""


@compiled
def new_terms(k):
    """Return zeroed memory for k terms: (1, k rounded up to whole vectors) float64."""
    return np.zeros((1, (k + WIDTH - 1) // WIDTH * WIDTH))


@compiled
def sum_terms(terms):
    """Return the sum of the terms in an array of :func:`new_terms`, in an order that depends only on their number.

    Terms are added up in 4 or 16 partial sums, and these are added by halves. For a million terms between 0 and 1, each
    partial sum has a relative error of at most 2**-37, and the error of the total is an average of theirs.
    """
    n = terms.shape[1]
    if n <= FEW:
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for j in range(0, n, 4):
            a += terms[0, j]
            b += terms[0, j + 1]
            c += terms[0, j + 2]
            d += terms[0, j + 3]
        return (a + c) + (b + d)
    row = address(terms, 0)
    lanes = load(row, 0)
    for j in range(WIDTH, n, WIDTH):
        lanes = lanes + load(row, j)
    return total(lanes)


@compiled
def sum_squares(terms):
    """Return the sum of the squares of the terms, in the same order as :func:`sum_terms`."""
    row = address(terms, 0)
    lanes = load(row, 0)
    lanes = lanes * lanes
    for j in range(WIDTH, terms.shape[1], WIDTH):
        more = load(row, j)
        lanes = lanes + more * more
    return total(lanes)


@kernel("in float64[:], in bool[:], out float64[:]", parallel=False)
def sum_counted(values, counted, sums):
    """Add the counted values to sums: the sum, its accumulated rounding error, and the number of +inf.

    Parameters
    ----------
    values : (n,) float64
    counted : (n,) bool
        Which values to add.
    sums : (3,) float64
        Updated in place. Values of +inf are counted, not summed.
    """
    total = sums[0]
    lost = sums[1]
    infinite = 0
    for i in range(values.shape[0]):
        if counted[i]:
            if values[i] == np.inf:
                infinite += 1
            else:
                total, lost = add_exactly(total, lost, values[i])
    sums[0] = total
    sums[1] = lost
    sums[2] += infinite


@kernel("in uint8[:], in float64[:], in bool[:], out int64[:], out float64[:]", parallel=False)
def count_rows(status, losses, hits, statuses, sums):
    """Count rows by status, and add the losses of those that have one to sums, as :func:`sum_counted` does.

    Parameters
    ----------
    status : (n,) uint8
    losses : (n,) float64 or (0,)
        Empty without losses.
    hits : (n,) bool or (0,)
        Whether the prediction is correct; empty if unknown.
    statuses : (256,) int64
        The number of rows of each status; updated in place.
    sums : (3,) float64
        Updated in place.

    Returns
    -------
    the number of correct predictions among the rows that have a loss.
    """
    total = sums[0]
    lost = sums[1]
    infinite = 0
    correct = 0
    usual = 0
    has_losses = losses.shape[0] > 0
    has_hits = hits.shape[0] > 0
    for i in range(status.shape[0]):
        # Nearly all rows have this status. An increment of memory would wait for that of the row before.
        if status[i] == OK:
            usual += 1
        else:
            statuses[status[i]] += 1
        if has_losses and status[i] > LAST_WITHOUT_LOSS:
            if losses[i] == np.inf:
                infinite += 1
            else:
                total, lost = add_exactly(total, lost, losses[i])
            if has_hits:
                correct += hits[i]
    statuses[OK] += usual
    sums[0] = total
    sums[1] = lost
    sums[2] += infinite
    return correct


@kernel("in float64[:], in bool[:], in int64[:], out float64[:,:]", parallel=False)
def sum_lists(values, counted, lengths, sums):
    """Add the counted values of each list to its row of sums, as :func:`sum_counted` does.

    Parameters
    ----------
    values : (n,) float64
    counted : (n,) bool
    lengths : (n_lists,) int64
        The number of values in each list; they sum to n.
    sums : (n_lists, 3) float64
        Updated in place.
    """
    at = 0
    for i in range(lengths.shape[0]):
        end = at + lengths[i]
        for j in range(at, end):
            if counted[j]:
                if values[j] == np.inf:
                    sums[i, 2] += 1
                else:
                    sums[i, 0], sums[i, 1] = add_exactly(sums[i, 0], sums[i, 1], values[j])
        at = end

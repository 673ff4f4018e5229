"""Sums in an order that is written out, so that they have the same bits on every CPU and in every batch."""

import numpy as np

from batchmax.kernels.intrinsics import compiled
from batchmax.kernels.simd import WIDTH, address, load, total
from batchmax.kernels.softmax import add_exactly

FEW = 4 * WIDTH
"""Up to this many terms are read one by one: a vector that was written in pieces a moment ago is read with a delay."""


@compiled
def new_terms(k):
    """Return memory for k terms of a sum, (1, k rounded up to whole vectors) float64, all 0."""
    return np.zeros((1, (k + WIDTH - 1) // WIDTH * WIDTH))


@compiled
def sum_terms(terms):
    """Return the sum of what was written to :func:`new_terms`, in an order that the number of terms alone decides.

    In 4 or 16 partial sums, which are then added up by halves. Each partial sum of a million terms below 1 is good to
    2**-37, and the error of the whole is an average of theirs.
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
    """Return the sum of the squares of what was written to :func:`new_terms`, as :func:`sum_terms` does."""
    row = address(terms, 0)
    lanes = load(row, 0)
    lanes = lanes * lanes
    for j in range(WIDTH, terms.shape[1], WIDTH):
        more = load(row, j)
        lanes = lanes + more * more
    return total(lanes)


def sum_counted(values, counted, sums):
    """Add the values that count to sums (3,) float64: the sum, what its roundings lost, and how many were +inf.

    Parameters
    ----------
    values : (n,) float64
    counted : (n,) bool
    sums : (3,) float64
        Added to in place. Infinite values are counted, not summed.
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


def sum_lists(values, counted, lengths, sums):
    """Add the values that count of each list to sums (n_lists, 3) float64, as :func:`sum_counted` does.

    Parameters
    ----------
    values : (n,) float64
    counted : (n,) bool
    lengths : (n_lists,) int64
        How many of the values each list has; they sum to n.
    sums : (n_lists, 3) float64
        Added to in place.
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

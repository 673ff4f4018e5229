"""Sums over rows that do not depend on where a batch ends."""

import numpy as np

from batchmax.kernels.softmax import add_exactly


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

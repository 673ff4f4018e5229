"""How many rows the pages of a column chunk hold, which nothing in the metadata can be trusted for.

Readers stop when they have as many rows as the footer says, and ignore what follows. A column chunk with more rows than
its row group is therefore read without an error, as rows that may not be the ones that were meant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.parquet.reading.raw_pages import Bytes, NotAMatrix, cut_levels
from batchmax.storage.system_calls import read_into

HEAD = 256
"""Bytes of a page header of numbers."""


def levels_before(body: Sequence[Bytes], most: int) -> tuple[Bytes | None, Sequence[Bytes]]:
    """Return the levels at the beginning of what a data page of version 1 holds, and the rest.

    ``most`` is the largest level that the column has; without levels there is nothing to take off.

    Raises
    ------
    NotAMatrix
        The levels are longer than the page.
    """
    return cut_levels(body) if most else (None, body)


def rows_begun(repetition: Bytes | None, n_values: int, most: int) -> int:
    """Return how many rows begin in a page: how many of its repetition levels, the largest being ``most``, are 0.

    Raises
    ------
    NotAMatrix
        The levels are damaged.
    """
    if repetition is None:
        return n_values
    end, rows = kernels.count_levels(repetition, n_values, most.bit_length(), 0)
    if end < 0:
        raise NotAMatrix("the repetition levels of a page are damaged")
    return int(rows)


def count_values(descriptor: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the values in the pages of column chunks, by the pages' headers.

    Parameters
    ----------
    descriptor
        Of the open file.
    places : (n, 2) int64
        Where each chunk begins and ends; -1 where that is not known.

    Returns
    -------
    (n,) int64 the number of values; -1 where the headers are not as they usually are.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    counts = np.zeros(len(places), np.int64)
    counts[places[:, 0] < 0] = -1
    at, ends = places.T.copy()
    left = np.flatnonzero(at < ends)
    first = True
    while len(left):
        data = np.zeros((len(left), HEAD), np.uint8)
        for row, position in zip(data, at[left].tolist(), strict=True):
            read_into(descriptor, [row.data], position)
        heads = np.empty((len(left), 3), np.int64)
        kernels.page_heads(data, heads)
        # A dictionary comes first, or never.
        unknown = (heads[:, 0] < 0) | ((heads[:, 2] > 0) & (not first))
        first = False
        at[left] += heads[:, 0]
        counts[left] += heads[:, 1]
        counts[left[unknown]] = -1
        left = left[~unknown]
        left = left[at[left] < ends[left]]
    return counts

"""Counts rows and values in the pages of column chunks, because the metadata can't be trusted.

Readers stop at the footer's number of rows and ignore what follows. A column chunk with more rows than its row group is
therefore read without an error, possibly with the wrong rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.parquet.rle import count_levels
from batchmax.kernels.parquet.thrift_skip import INNER, read_integers
from batchmax.parquet.format import DICTIONARY_PAGE, OWN_HEADERS
from batchmax.parquet.reading.raw_pages import Bytes, PageError
from batchmax.storage.system_calls import read_into

HEAD = 256
"""Bytes read for a page header; those of number columns are short."""
HEADER_FIELDS = np.array([1, 3, *(field * INNER + 1 for field in OWN_HEADERS.values())])
"""Fields of a page header: its type, its compressed size, and in the header of each type the number of values."""


def count_rows(repetition: Bytes, n_values: int, max_level: int) -> int:
    """Return the number of rows that begin in a page, which is the number of its repetition levels that are 0.

    ``max_level`` is the column's maximum repetition level; if it is 0, each value is a row.

    Raises
    ------
    PageError
        If the levels are damaged.
    """
    if not max_level:
        return n_values
    end, rows = count_levels(repetition, n_values, max_level.bit_length(), 0)
    if end < 0:
        raise PageError("the repetition levels of a page are damaged")
    return int(rows)


def count_values(descriptor: int, ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the values of column chunks by their page headers.

    Parameters
    ----------
    descriptor
        The file descriptor.
    ranges : (n, 2) int64
        Start and end of each chunk; -1 if unknown.

    Returns
    -------
    (n,) int64 the number of values; -1 if the headers have an unusual form or the position is unknown.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    counts = np.zeros(len(ranges), np.int64)
    counts[ranges[:, 0] < 0] = -1
    at, ends = ranges.T.copy()
    left = np.flatnonzero(at < ends)
    first = True
    while len(left):
        data = np.zeros((len(left), HEAD), np.uint8)
        for row, position in zip(data, at[left].tolist(), strict=True):
            read_into(descriptor, [row.data], position)
        starts, after = np.arange(0, data.size, HEAD), np.empty(len(left), np.int64)
        fields = np.empty((len(left), len(HEADER_FIELDS)), np.int64)
        read_integers(data.reshape(-1), starts, after, HEADER_FIELDS, fields)
        kinds, packed, *numbers = fields.T
        is_dictionary = kinds == DICTIONARY_PAGE
        n_values = np.select([kinds == kind for kind in OWN_HEADERS], numbers, -1)
        # A dictionary is the first page or there is none.
        unknown = (after < 0) | (after > starts + HEAD) | (packed < 0) | (n_values < 0) | (is_dictionary & (not first))
        first = False
        at[left] += after - starts + packed
        counts[left] += np.where(is_dictionary, 0, n_values)
        counts[left[unknown]] = -1
        left = left[~unknown]
        left = left[at[left] < ends[left]]
    return counts

"""Chooses a sample of a Parquet file's data that tells apart files with the same size and footer.

A footer without statistics is the same for every file of uncompressed logits of one model, whatever the values are. The
sample covers the boundaries of the column chunks of the first and the last row group: the header of a chunk's first
page, with its checksum if it has one, its first values, and the last values of the previous chunk. In a column of
lists, the levels of a page come before its values, so the sample is longer there. Files whose data differ only outside
the sample aren't told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchmax.parquet import Footer, FooterError, ThriftError

MAX_PLACES = 32
"""Maximum number of sampled boundaries, and so of reads: their number determines the cost in an object store."""

MAX_COLUMNS = 16
"""Maximum number of columns whose chunks are sampled: the first, the last, and evenly spaced ones between."""

REACH = 256
"""Bytes read before and after each boundary."""

REACH_IN_LISTS = 64 << 10
"""Bytes read after the start of a chunk of lists: at a bit or less for each float, the levels of a page of 1 MiB take
up to half of this."""


def sampled_ranges(footer: Footer | None, size: int) -> list[tuple[int, int]]:
    """Return the byte ranges of a file's sample as (start, end) pairs that don't overlap.

    Parameters
    ----------
    footer
        Footer of the file. None if it can't be read: the sample is taken at the start, middle and end of the file.
    size
        Size of the file in bytes.
    """
    reaches = _reach_after(footer) or dict.fromkeys((0, size // 2, size), REACH)
    ranges: list[tuple[int, int]] = []
    for place in _evenly(sorted(reaches), MAX_PLACES):
        start, end = max(0, place - REACH), min(place + reaches[place], size)
        if ranges and start < ranges[-1][1]:
            start = ranges[-1][1]
        if start < end:
            ranges.append((start, end))
    return ranges


def _evenly(values: Sequence[int], most: int) -> Sequence[int]:
    """Return at most ``most`` of some values: the first, the last, and evenly spaced ones between."""
    if len(values) <= most:
        return values
    return [values[number * (len(values) - 1) // (most - 1)] for number in range(most)]


def _reach_after(footer: Footer | None) -> dict[int, int]:
    """Return the offsets at which column chunks of the first and last row group start and end, and the bytes to read.

    The bytes are those after the offset.
    """
    reaches: dict[int, int] = {}
    if footer is None:
        return reaches
    try:
        for group in {0, footer.n_row_groups - 1} if footer.n_row_groups else ():
            leaves = _evenly(range(len(footer.leaves)), MAX_COLUMNS)
            for leaf, (start, end) in zip(leaves, footer.row_group(group).ranges[leaves].tolist(), strict=True):
                if start >= 0:  # not encrypted
                    reach = REACH_IN_LISTS if footer.leaves[leaf].repetition else REACH
                    reaches[start] = max(reach, reaches.get(start, 0))
                    reaches.setdefault(end, REACH)
    except (FooterError, ThriftError):
        return {}
    return reaches

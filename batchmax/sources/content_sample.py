"""A sample of a Parquet file's data, for telling apart files of one size and one footer.

A footer without statistics is the same for every file of a model that writes uncompressed logits, whatever the values
are. The sample is what lies around the places where one column chunk ends and the next one begins, in the first and in
the last row group: the header of a chunk's first page, with its checksum if it has one, its first values, and the last
values of the chunk before. Data that differ nowhere in the sample are not told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchmax.parquet import Footer, FooterError, ThriftError
from batchmax.parquet.writing.column_chunk import METADATA, place_of

MOST_PLACES = 32
"""Places of a file that are sampled: so many reads at most, which is what counts in an object store."""

MOST_COLUMNS = 16
"""Columns whose chunks are sampled, where there are more: the first, the last, and some between."""

REACH = 256
"""Bytes that are read before and after each place."""


def sampled_ranges(footer: Footer | None, size: int) -> list[tuple[int, int]]:
    """Return the ranges of a file that are its sample, each as its start and its end; they do not overlap.

    Parameters
    ----------
    footer
        Of the file; None if it is not understood, and then the sample is taken at its start, middle and end.
    size
        Of the file, in bytes.
    """
    places = _chunk_ends(footer) or [0, size // 2, size]
    if len(places) > MOST_PLACES:
        last = len(places) - 1
        places = [places[number * last // (MOST_PLACES - 1)] for number in range(MOST_PLACES)]
    ranges: list[tuple[int, int]] = []
    for place in places:
        start, end = max(0, place - REACH), min(place + REACH, size)
        if ranges and start < ranges[-1][1]:
            start = ranges[-1][1]
        if start < end:
            ranges.append((start, end))
    return ranges


def _chunk_ends(footer: Footer | None) -> Sequence[int]:
    """Return where column chunks of the first and of the last row group begin and end, in their order."""
    if footer is None:
        return []
    places: set[int] = set()
    try:
        for group in {0, footer.n_row_groups - 1} if footer.n_row_groups else ():
            row_group = footer.row_group(group)
            leaves: Sequence[int] = range(len(footer.leaves))
            if len(leaves) > MOST_COLUMNS:
                leaves = [number * (len(leaves) - 1) // (MOST_COLUMNS - 1) for number in range(MOST_COLUMNS)]
            for leaf in leaves:
                chunk = row_group.chunk(leaf)
                if METADATA in chunk:
                    start, length = place_of(chunk[METADATA].value)
                    places |= {max(0, start), max(0, start + length)}
    except (FooterError, ThriftError):
        return []
    return sorted(places)

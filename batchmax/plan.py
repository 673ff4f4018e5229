"""Inputs as parts: whole row groups of one file, up to a gigabyte of logits, decided by the inputs alone.

A part is the unit of what a folder holds. It has a number, and the number decides the name of its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PART_BYTES = 1 << 30
"""Logits of a part, unless one row group alone has more."""


@dataclass(frozen=True)
class Part:
    """A run of row groups of one input file."""

    number: int
    file: int
    first_group: int
    end_group: int
    first_row: int
    rows: int

    @property
    def name(self) -> str:
        """The name of the part's file in an output folder."""
        return f"part-{self.number:05d}.parquet"


def plan_parts(group_rows: Sequence[Sequence[int]], row_bytes: int, part_bytes: int = PART_BYTES) -> list[Part]:
    """Cut inputs into parts.

    Parameters
    ----------
    group_rows
        The rows of each row group of each file.
    row_bytes
        The bytes of the logits of one row.

    Returns
    -------
    parts in the order of the rows; at least one, so that an input without rows makes an output without rows.
    """
    parts: list[Part] = []
    for file, groups in enumerate(group_rows):
        first_group, first_row, rows = 0, 0, 0
        for group, more in enumerate(groups):
            if rows and (rows + more) * row_bytes > part_bytes:
                parts.append(Part(len(parts), file, first_group, group, first_row, rows))
                first_group, first_row, rows = group, first_row + rows, 0
            rows += more
        if groups or (not parts and file == len(group_rows) - 1):
            parts.append(Part(len(parts), file, first_group, len(groups), first_row, rows))
    return parts

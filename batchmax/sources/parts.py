"""Inputs as parts: whole row groups of one file, up to a gigabyte of logits, decided by the inputs alone.

A part is the unit of what a folder holds, and of what a machine is given to do. Its number decides its place in the
order of rows; the number within its folder decides the name of its file.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

PART_BYTES = 1 << 30
"""Logits of a part, unless one row group alone has more."""


@dataclass(frozen=True)
class Part:
    """A run of row groups of one input file.

    Attributes
    ----------
    number
        Its place among all parts, from 0.
    file, first_group, end_group
        The number of the file among the inputs, and which of its row groups, the last not included.
    first_row, rows
        The row of the file that it begins with, and how many are read.
    start
        The row of all inputs that it begins with.
    name
        The path of its file in an output folder.
    """

    number: int
    file: int
    first_group: int
    end_group: int
    first_row: int
    rows: int
    start: int = 0
    name: str = "part-00000.parquet"


def plan_parts(
    group_rows: Sequence[Sequence[int]],
    row_bytes: int,
    part_bytes: int = PART_BYTES,
    *,
    limit: int | None = None,
    folders: Sequence[str] = (),
) -> list[Part]:
    """Cut inputs into parts.

    Parameters
    ----------
    group_rows
        The rows of each row group of each file.
    row_bytes
        The bytes of the logits of one row.
    part_bytes
        The bytes of logits that a part may have.
    limit
        How many rows are read at most. None: all.
    folders
        For each file the folder in the output that mirrors the input's, such as ``date=2026-11-20``; empty for none.

    Returns
    -------
    parts in the order of the rows; at least one, so that an input without rows makes an output without rows.
    """
    runs = list(_runs(group_rows, row_bytes, part_bytes)) or [Part(0, len(group_rows) - 1, 0, 0, 0, 0)]
    parts: list[Part] = []
    taken: Counter[str] = Counter()
    for run, start in zip(runs, itertools.accumulate((run.rows for run in runs), initial=0), strict=False):
        if parts and limit is not None and start >= limit:
            break
        folder = folders[run.file] if folders else ""
        name = f"{folder}/part-{taken[folder]:05d}.parquet" if folder else f"part-{taken[folder]:05d}.parquet"
        taken[folder] += 1
        rows = run.rows if limit is None else min(run.rows, limit - start)
        parts.append(replace(run, number=len(parts), rows=rows, start=start, name=name))
    return parts


def _runs(group_rows: Sequence[Sequence[int]], row_bytes: int, part_bytes: int) -> Iterator[Part]:
    for file, groups in enumerate(group_rows):
        first_group, first_row, rows = 0, 0, 0
        for group, more in enumerate(groups):
            if rows and (rows + more) * row_bytes > part_bytes:
                yield Part(0, file, first_group, group, first_row, rows)
                first_group, first_row, rows = group, first_row + rows, 0
            rows += more
        if groups:
            yield Part(0, file, first_group, len(groups), first_row, rows)

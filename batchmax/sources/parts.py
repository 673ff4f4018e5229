"""Parts: runs of whole row groups of one file with up to 1 GiB of logits, planned from the inputs alone.

A part becomes one file of an output folder, and is the unit of work that a shard or a Ray task gets. Its number
determines its place in the order of rows; its number within its folder determines the name of its file.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

PART_BYTES = 1 << 30
"""Bytes of logits in a part; a single row group may have more."""


@dataclass(frozen=True)
class Part:
    """A run of row groups of one input file.

    Attributes
    ----------
    number
        Index among all parts, from 0.
    file, first_group, end_group
        Index of the file among the inputs, and its range of row groups, ``end_group`` excluded.
    first_row, rows
        First row in the file, and the number of rows that are read.
    start
        First row, counted over all inputs.
    name
        Path of its file, relative to the output folder.
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
    """Divide inputs into parts.

    Parameters
    ----------
    group_rows
        Number of rows of each row group of each file.
    row_bytes
        Bytes of the logits of one row.
    part_bytes
        Maximum bytes of logits in a part; a part has at least one row group.
    limit
        Maximum number of rows that are read. None: all.
    folders
        For each file, the output folder that mirrors the input's, such as ``date=2026-11-20``; empty for none.

    Returns
    -------
    Parts in the order of the rows; at least one, so that an input without rows makes an output without rows.
    """
    runs = list(_runs(group_rows, row_bytes, part_bytes)) or [Part(0, len(group_rows) - 1, 0, 0, 0, 0)]
    parts: list[Part] = []
    n_parts: Counter[str] = Counter()
    for run, start in zip(runs, itertools.accumulate((run.rows for run in runs), initial=0), strict=False):
        if parts and limit is not None and start >= limit:
            break
        folder = folders[run.file] if folders else ""
        name = f"{folder}/part-{n_parts[folder]:05d}.parquet" if folder else f"part-{n_parts[folder]:05d}.parquet"
        n_parts[folder] += 1
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

"""Checks that a job fits into ``--memory-limit``."""

from __future__ import annotations

import math
import shlex

from batchmax.columns.scored_input import written_by_score
from batchmax.errors import UsageError
from batchmax.runtime.buffers import MIB, PROGRAM_BYTES
from batchmax.sources.parquet_source import ParquetSource, Source

SIZES = [1 << power for power in range(20, -1, -1)]
"""Numbers of rows per row group that an error suggests."""


def check_memory(
    *sources: Source, what: str = "the job needs", share: float = 1.0, writes_groups: bool = False
) -> None:
    """Check before anything is allocated that a job fits into its memory limit.

    Parameters
    ----------
    sources
        The inputs that are read at the same time.
    what
        What takes the memory, for the error.
    share
        The share of what each source needs by itself that the job takes.
    writes_groups
        Whether the job writes row groups, so that the command has ``--row-group-size``.

    Raises
    ------
    UsageError
        It doesn't; the error states the memory that it needs, and the size of row groups that fit, if any do.
    """

    def needed(rows: int | None = None) -> int:
        return PROGRAM_BYTES + int(sum(source.memory_needed(rows) for source in sources) * share)

    limit = sources[0].job.options.memory_limit
    if needed() <= limit:
        return
    remedy = f"allow at least {math.ceil(needed() / MIB)}MiB"
    rows = next((rows for rows in SIZES if needed(rows) <= limit), None)
    largest = max(sources, key=lambda source: source.memory_needed())
    if rows is not None and writes_groups:
        remedy += f", or make row groups smaller: --row-group-size {rows}"
    elif rows is not None and isinstance(largest, ParquetSource):
        remedy += f", or first make the row groups of the input smaller: {_rewriting(largest, rows)}"
    raise UsageError(
        f"{what} about {needed() / MIB:,.0f} MiB, and the limit is {limit / MIB:,.0f} MiB",
        where="--memory-limit",
        remedy=remedy,
    )


def _rewriting(source: ParquetSource, rows: int) -> str:
    """Return the command that writes the largest file with smaller row groups."""
    if written_by_score(source.schema) is not None:
        return f"batchmax score LOGITS -o SCORED --row-group-size {rows}"
    logits, layout = source.job.options.logits, source.job.logits.output_layout
    words = [source.largest_file.path, "-o", "smaller.parquet", "--layout", layout, "--row-group-size", str(rows)]
    return f"batchmax convert {shlex.join([*words, *(['--logits', logits] if logits is not None else [])])}"

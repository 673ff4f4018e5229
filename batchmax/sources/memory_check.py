"""Checks that a job fits into ``--memory-limit``."""

from __future__ import annotations

import math

from batchmax.errors import UsageError
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.streams.stream_source import StreamSource


def check_memory(source: ParquetSource | StreamSource) -> None:
    """Check before anything is allocated that a job fits into its memory limit.

    Raises
    ------
    UsageError
        It doesn't; the error states the memory that it needs.
    """
    needed = PROGRAM_BYTES + source.memory_needed()
    limit = source.job.options.memory_limit
    if needed > limit:
        raise UsageError(
            f"the job needs about {needed / 2**20:,.0f} MiB, and the limit is {limit / 2**20:,.0f} MiB",
            where="--memory-limit",
            remedy=f"allow at least {math.ceil(needed / 2**20)}MiB, or make row groups smaller: --row-group-size ROWS",
        )

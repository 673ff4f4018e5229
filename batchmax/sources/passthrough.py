"""Copies encoded column chunks of carried columns from the input to the output.

A chunk is copied if the output's row group is a whole row group of the input, the column is stored as the type that it
has in the output, and its pages agree with the footer. All other columns are decoded and encoded again by pyarrow,
which gives the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from batchmax.parquet import ChunkCopyError, CopiedColumns, EncodedChunk, FileSchema, copy_column, sorting_of
from batchmax.sources.chunks import ReadStatistics
from batchmax.sources.parquet_file import OpenFile


@dataclass(frozen=True, eq=False)
class ReadPlan:
    """How a source is read.

    Attributes
    ----------
    columns
        Names of the columns to read, dotted if nested; None for all.
    workers
        Executor that decompresses pages ahead of the reader; None for none.
    copy_plan
        What may be copied; None for nothing.
    int96
        Columns whose INT96 timestamps stay the 12 bytes of the file; see :mod:`batchmax.parquet.int96`.
    readers
        The number of threads that read row groups at the same time. With one, the calling thread reads.
    """

    columns: Sequence[str] | None = None
    workers: Executor | None = None
    copy_plan: CopyPlan | None = None
    int96: Collection[str] = ()
    readers: int = 1


@dataclass(frozen=True, eq=False)
class CopyPlan:
    """Which columns may be copied.

    Attributes
    ----------
    schema
        Schema of the output.
    names
        Names of the carried columns.
    skips_decoding
        Whether a copied column need not be decoded as well, because every row will be written.
    """

    schema: FileSchema
    names: Sequence[str]
    skips_decoding: bool


def copy_columns(
    opened: OpenFile, group: int, plan: CopyPlan, read_statistics: ReadStatistics, max_bytes: int, *, whole: bool
) -> CopiedColumns:
    """Return the column chunks of a row group that can be copied, and how its rows are sorted.

    Parameters
    ----------
    opened, group
        The file, and the number of the row group.
    plan
        What may be copied.
    read_statistics
        Read statistics, updated while copying.
    max_bytes
        The maximum size in bytes of chunks and pages.
    whole
        Whether all rows become one row group; if not, only the sort order is kept.
    """
    footer, recoded = opened.file.footer, opened.file.columns.recoded
    chunks: dict[str, list[EncodedChunk]] = {}
    for name in plan.names:
        column = footer.column(name) if whole and name not in recoded else None
        if column is None or not plan.schema.takes(column):
            continue
        try:
            chunks[name] = copy_column(opened.descriptor, footer, group, column, max_bytes)
        except ChunkCopyError as error:
            read_statistics.reasons[str(error)] += 1
    read_statistics.copied += len(chunks)
    try:
        sorting = sorting_of(footer, group, plan.schema)
    except ChunkCopyError:
        sorting = []
    return CopiedColumns(opened.parquet.metadata.row_group(group).num_rows, chunks, sorting)

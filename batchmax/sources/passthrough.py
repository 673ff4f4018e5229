"""Copies encoded column chunks of carried columns from the input to the output.

A chunk is copied if the output's row group is a whole row group of the input, the column is stored as the type that it
has in the output, and its pages agree with the footer. All other columns are decoded and encoded again by pyarrow,
which gives the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from batchmax.parquet import ChunkCopyError, CopiedColumns, EncodedChunk, FileSchema, Footer, copy_column, sorting_of
from batchmax.sources.chunks import ReadStatistics


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
    """

    columns: Sequence[str] | None = None
    workers: Executor | None = None
    copy_plan: CopyPlan | None = None
    int96: Collection[str] = ()

    @property
    def copied_names(self) -> Sequence[str]:
        """The columns that may be copied."""
        return () if self.copy_plan is None else self.copy_plan.names


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


@dataclass(frozen=True, eq=False)
class ChunkCopier:
    """Copies columns of one open file.

    Attributes
    ----------
    descriptor, footer
        The file.
    plan
        What may be copied.
    recoded
        Columns that can't be copied.
    read_statistics
        Read statistics, updated while copying.
    max_bytes
        The maximum size in bytes of chunks and pages.
    """

    descriptor: int
    footer: Footer
    plan: CopyPlan
    recoded: Collection[str]
    read_statistics: ReadStatistics
    max_bytes: int

    def copy(self, group: int, rows: int, *, whole: bool) -> CopiedColumns:
        """Return the column chunks of a row group with ``rows`` rows that can be copied, and how its rows are sorted.

        ``whole`` is whether all rows become one row group; if not, only the sort order is kept.
        """
        chunks: dict[str, list[EncodedChunk]] = {}
        for name in self.plan.names:
            column = self.footer.column(name) if whole and name not in self.recoded else None
            if column is None or not self.plan.schema.takes(column):
                continue
            try:
                chunks[name] = copy_column(self.descriptor, self.footer, group, column, self.max_bytes)
            except ChunkCopyError as error:
                self.read_statistics.reasons[str(error)] += 1
        self.read_statistics.copied += len(chunks)
        try:
            sorting = sorting_of(self.footer, group, self.plan.schema)
        except ChunkCopyError:
            sorting = []
        return CopiedColumns(rows, chunks, sorting)

"""Carried columns as the bytes they are: which of them a row group of the output may have from the input undecoded.

It may where the output's row group is one of the input's, the column is stored as it would be written, and its pages
are what the footer says. Everything else is decoded and encoded again by pyarrow, which gives the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from batchmax.parquet import CopiedColumns, EncodedChunk, FileSchema, Footer, NotCopyable, copy_column, sorting_of
from batchmax.sources.chunks import Ways


@dataclass(frozen=True, eq=False)
class Reading:
    """How a source is to be read.

    Attributes
    ----------
    columns
        The names that are needed, nested ones dotted; None for all.
    workers
        Who unpacks pages ahead of the reader; None for nobody.
    copying
        What may be copied; None for nothing.
    int96
        The columns whose INT96 timestamps stay the 12 bytes that the file has; see :mod:`batchmax.parquet.int96`.
    """

    columns: Sequence[str] | None = None
    workers: Executor | None = None
    copying: Copying | None = None
    int96: Collection[str] = ()

    @property
    def copied_names(self) -> Sequence[str]:
        """The columns that may be copied."""
        return () if self.copying is None else self.copying.names


@dataclass(frozen=True, eq=False)
class Copying:
    """What is asked of a reader.

    Attributes
    ----------
    schema
        Of the output.
    names
        The columns that are carried through.
    instead
        Whether a column that is copied need not be read as well, because every row will be written.
    """

    schema: FileSchema
    names: Sequence[str]
    instead: bool


class Copier:
    """Copies columns of one open file, chunks and pages of at most so many bytes."""

    def __init__(self, descriptor: int, footer: Footer, copying: Copying, ways: Ways, most: int) -> None:
        self._descriptor = descriptor
        self._footer = footer
        self._copying = copying
        self._ways = ways
        self._most = most

    def copy(self, group: int, rows: int, *, whole: bool) -> CopiedColumns:
        """Return what an output may have from a row group of so many rows.

        ``whole`` is whether all of them become one row group; if not, only how they are sorted stays true.
        """
        chunks: dict[str, list[EncodedChunk]] = {}
        for name in self._copying.names:
            column = self._footer.column(name) if whole else None
            if column is None or not self._copying.schema.takes(column):
                continue
            try:
                chunks[name] = copy_column(self._descriptor, self._footer, group, column, self._most)
            except NotCopyable as error:
                self._ways.refused(str(error))
        self._ways.copied += len(chunks)
        try:
            sorting = sorting_of(self._footer, group, self._copying.schema)
        except NotCopyable:
            sorting = []
        return CopiedColumns(rows, chunks, sorting)

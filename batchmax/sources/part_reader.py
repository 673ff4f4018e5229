"""Reads the row groups of parts in order, by one thread or by several.

Doesn't know how a row group is read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from batchmax.sources.chunks import Chunk, ReadStatistics, skipped
from batchmax.sources.concurrent_readers import RunEnd, Runs, in_order
from batchmax.sources.decode_budget import SharedBudgetError
from batchmax.sources.parquet_file import InputFile
from batchmax.sources.parts import Part
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.read_errors import read_errors
from batchmax.sources.row_group_reader import GroupReader
from batchmax.storage.hive import Partitions


@dataclass(frozen=True)
class _InputGroup:
    """A row group to read: its part, its number in the file, its first row in the file, and its number of rows."""

    part: Part
    number: int
    first_row: int
    rows: int


@dataclass(frozen=True, eq=False)
class PartReader:
    """Reads parts of files.

    Attributes
    ----------
    files
        All files of the input.
    partitions
        The columns from folder names.
    groups
        Reads a row group; its read statistics are updated.
    """

    files: Sequence[InputFile]
    partitions: Partitions
    groups: GroupReader

    def chunks(self, parts: Iterable[Part], plan: ReadPlan, skip: int = 0) -> Generator[Chunk, None, None]:
        """Return a generator of the chunks of parts, without the first ``skip`` rows."""
        groups = [group for part in parts for group in self._groups_of(part)]
        if plan.readers == 1:
            return skipped(self._runs(groups, plan, self.groups), skip)
        first = 0
        while first < len(groups) and skip >= groups[first].rows > 0:
            skip -= groups[first].rows
            first += 1
        return skipped([(0, self._chunks_of_readers(groups[first:], plan))], skip)

    def _groups_of(self, part: Part) -> Iterator[_InputGroup]:
        """Yield the row groups of a part that have any of its rows, or no rows."""
        metadata, row = self.files[part.file].metadata, part.first_row
        for number in range(part.first_group, part.end_group):
            rows = metadata.row_group(number).num_rows
            if rows > 0 and row >= part.first_row + part.rows:
                return
            yield _InputGroup(part, number, row, rows)
            row += rows

    def _runs(
        self, groups: Iterable[_InputGroup], plan: ReadPlan, reader: GroupReader
    ) -> Iterator[tuple[int, Iterator[Chunk]]]:
        """Yield the number of rows of each row group, and an iterator that reads its chunks when used."""
        for part, of_part in itertools.groupby(groups, key=lambda group: group.part):
            file = self.files[part.file]
            with read_errors(file.path), file.opened() as opened:
                for group in of_part:
                    chunks = opened.checked(reader.chunks(opened, group.number, group.first_row, self._stored(plan)))
                    yield group.rows, (self._with_partitions(chunk, part.file, plan) for chunk in chunks)

    def _chunks_of_readers(self, groups: Sequence[_InputGroup], plan: ReadPlan) -> Generator[Chunk, None, None]:
        """Yield the chunks of row groups that several threads read, each every nth row group.

        If a row group may take more than a reader's share of the memory limit, one thread reads it and all later ones.
        """
        n_read = rows = 0
        readers = [self._counted_runs(groups[first :: plan.readers], plan) for first in range(plan.readers)]
        with contextlib.suppress(SharedBudgetError), contextlib.closing(in_order(readers)) as items:
            for item in items:
                if isinstance(item, RunEnd):
                    self.groups.read_statistics.add(item.result)
                    n_read, rows = n_read + 1, 0
                else:
                    chunk, statistics = item
                    self.groups.read_statistics.add(statistics)
                    rows += chunk.rows_done
                    yield chunk
        yield from skipped(self._runs(groups[n_read:], replace(plan, readers=1), self.groups), rows)

    def _counted_runs(
        self, groups: Iterable[_InputGroup], plan: ReadPlan
    ) -> Runs[tuple[Chunk, ReadStatistics], ReadStatistics]:
        """Yield the chunks of each row group, with what was counted since the chunk before; the results have the rest.

        The counts are added when a chunk is consumed, so they don't depend on how far the reader is ahead.
        """
        reader = self.groups.with_statistics(ReadStatistics())

        def taken() -> ReadStatistics:
            statistics, reader.read_statistics = reader.read_statistics, ReadStatistics()
            return statistics

        def counted(run: Iterator[Chunk]) -> Generator[tuple[Chunk, ReadStatistics], None, ReadStatistics]:
            for chunk in run:
                yield chunk, taken()
            return taken()

        for _, run in self._runs(groups, plan, reader):
            yield counted(run)

    def _stored(self, plan: ReadPlan) -> ReadPlan:
        """Return how to read the columns that are stored in the files."""
        names = self.partitions.names
        if plan.columns is None or not names:
            return plan
        return replace(plan, columns=[name for name in plan.columns if name not in names])

    def _with_partitions(self, chunk: Chunk, file: int, plan: ReadPlan) -> Chunk:
        if not self.partitions.fields:
            return chunk
        return chunk.with_columns(lambda rows: self.partitions.added(rows, file, plan.columns))

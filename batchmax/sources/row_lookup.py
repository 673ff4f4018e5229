"""Reads single rows of Parquet files by number, in one pass over the row groups that contain one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import UsageError
from batchmax.runtime.text import quantity
from batchmax.sources.decode_budget import whole_batches
from batchmax.sources.parquet_file import InputFile
from batchmax.sources.read_errors import read_errors

BATCH_BYTES = 2 << 20
"""Uncompressed bytes of the rows that are decoded at once."""

MAX_ROWS = 4096


@dataclass(frozen=True, eq=False)
class FileRow:
    """A row: its number over all files, its file, its number in the file, and its columns as a batch of one row."""

    number: int
    file: str
    row: int
    batch: pa.RecordBatch

    @property
    def place(self) -> str:
        """The file and the row, for messages."""
        return f"{self.file}: row {self.row:,}"


def rows_by_number(
    files: Sequence[InputFile], numbers: Sequence[int], memory_limit: int | None = None
) -> Iterator[FileRow]:
    """Yield rows in ascending order of their numbers, which count from 0 over all files.

    INT96 timestamps are the 12 bytes of the file. ``memory_limit`` is None for commands without that option.

    Raises
    ------
    DataError
        A file can't be read.
    """
    for place, start, here in _by_run(numbers, [file.metadata.num_rows for file in files]):
        file = files[place]
        for row, batch in _rows(file, [number - start for number in here], memory_limit):
            yield FileRow(start + row, file.path, row, batch)


def place_of(files: Sequence[InputFile], number: int) -> tuple[str, int]:
    """Return the file of a row that is numbered over all files, and the row's number in it; for a stream, its own."""
    for file in files:
        if number < file.metadata.num_rows:
            return file.path, number
        number -= file.metadata.num_rows
    return "the stream", number


def check_row(number: int, n_rows: int) -> None:
    """Check the number of a row, which counts from 0.

    Raises
    ------
    UsageError
        There is no such row.
    """
    if not 0 <= number < n_rows:
        what = f"row {number:,} is out of range for {quantity(n_rows, 'row')}"
        raise UsageError(what, where="--row", remedy="rows count from 0")


def batch_rows(group: pq.RowGroupMetaData) -> int:
    """Return the number of rows of a row group to decode at once."""
    rows: int = BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)
    return max(1, min(MAX_ROWS, rows))


def _rows(file: InputFile, rows: Sequence[int], memory_limit: int | None) -> Iterator[tuple[int, pa.RecordBatch]]:
    with read_errors(file.path), file.opened() as opened:
        metadata = opened.parquet.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        for number, start, here in _by_run(rows, [group.num_rows for group in groups]):
            first = start
            for batch in whole_batches(opened, number, batch_rows(groups[number]), memory_limit):
                while here and here[0] < first + batch.num_rows:
                    row = here.pop(0)
                    yield row, file.conform(batch.slice(row - first, 1))
                first += batch.num_rows
                if not here:
                    break


def _by_run(numbers: Iterable[int], sizes: Iterable[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield the runs of rows that have some rows: the index of a run, its first row, and the rows in it, ascending."""
    starts = [0, *accumulate(sizes)]
    for place, here in groupby(sorted(numbers), lambda number: bisect_right(starts, number) - 1):
        yield place, starts[place], list(here)

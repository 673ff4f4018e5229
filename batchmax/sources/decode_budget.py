"""Decode budget: checks how much memory columns of a row group take before pyarrow decodes them.

A few bytes of a file can become gigabytes. Their decoded size is determined from the pages
(:mod:`batchmax.parquet.reading.decoded_size`); if it exceeds ``--memory-limit``, nothing is decoded, and the error
names the column.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from batchmax.errors import DataError
from batchmax.parquet import DecodedSize, FooterError, PageError, PageTooLargeError, ThriftError, fixed_row_bytes
from batchmax.parquet.footer import Leaf
from batchmax.parquet.format import CODECS
from batchmax.parquet.int96 import TimestampRangeError, converted
from batchmax.parquet.reading.page_rows import count_values
from batchmax.parquet.writing.column_chunk import ENCRYPTION, METADATA, UNCOMPRESSED_BYTES
from batchmax.runtime.buffers import MIB, PROGRAM_BYTES
from batchmax.sources.parquet_file import OpenFile
from batchmax.sources.read_errors import DAMAGED, encrypted, inspect_command, wrong_row_count

BATCHES_IN_MEMORY = 3
"""Batches in memory at a time: two read ahead, and one in progress."""
DEFAULT_LIMIT = 1 << 30
"""Maximum decoded bytes at a time in commands without ``--memory-limit``."""
UNLIMITED = 1 << 40
"""Limit for pages of which only the header is read: in effect, none."""
SAMPLED_ROW_FACTOR = 10
"""How many times the memory check before a job counts a row whose size is estimated from the first rows."""
GROUPS_IN_MEMORY = 2
"""Row groups of the output in memory at a time: one being filled, and one being written."""


class SharedBudgetError(Exception):
    """A row group may take more memory than the share of the limit that one of several readers has."""


class DecodeBudget:
    """The decode budget of some columns of a row group: their decoded size, and the limit.

    Parameters
    ----------
    opened, group
        The file, and the number of the row group.
    names
        Names of the columns, dotted if nested; None for all.
    limit
        Memory limit of the whole job in bytes; None for :data:`DEFAULT_LIMIT`, in commands without ``--memory-limit``.
    kept_rows
        Number of rows of an output row group, if its carried columns stay in memory until they are written.
    counted
        Names of columns whose pages are known to have the number of values that the footer says.
    readers
        The number of row groups that are read at the same time; each may take an equal share of the limit.

    Raises
    ------
    DataError
        A page is too large for the limit, a column is encrypted, or pages or the footer are damaged.
    SharedBudgetError
        The row group may take more than its share, with several readers.
    """

    def __init__(
        self,
        opened: OpenFile,
        group: int,
        names: Sequence[str] | None,
        limit: int | None,
        kept_rows: int | None = None,
        counted: Collection[str] = (),
        readers: int = 1,
    ) -> None:
        file, descriptor = opened.file, opened.descriptor
        self._is_adjustable = limit is not None
        limit = DEFAULT_LIMIT if limit is None else limit
        self._opened, self._file, self._group, self._names = opened, file, group, names
        self._limit, self._kept_rows = limit, kept_rows
        self._counted = {name.encode() for name in counted}
        self._decoded_sizes: dict[str, DecodedSize] = {}
        self._fixed_row_bytes = self._rows = self._kept = 0
        self._leaves: list[tuple[int, Leaf]] = []
        self._rows_left = 0
        share = limit // readers
        pages = whole = 0
        too_large: tuple[str, int] | None = None
        name = ""
        try:
            row_group = file.footer.row_group(group)
            wanted = None if names is None else set(names)
            sizes = row_group.sizes.tolist()
            for number, leaf in enumerate(file.footer.leaves):
                name = leaf.name
                if wanted is not None and wanted.isdisjoint(_prefixes(name)):
                    continue
                if file.footer.has_encrypted_columns and any(one in row_group.chunk(number) for one in ENCRYPTION):
                    raise encrypted(file.path, leaf.path[0].decode(errors="replace"))
                self._leaves.append((number, leaf))
                fixed = fixed_row_bytes(leaf, *sizes[number][:2])
                if fixed is not None:
                    self._fixed_row_bytes += fixed
                    continue
                chunk = row_group.chunk(number)
                if METADATA in chunk and sizes[number][0] not in CODECS:
                    # Its pages can't be read here, so the size that the footer states is spread over the rows.
                    n_bytes = max(0, chunk[METADATA].value[UNCOMPRESSED_BYTES].value)
                    self._fixed_row_bytes += -(-n_bytes // max(1, row_group.n_rows))
                    continue
                once = name in _dictionaries(file.schema)
                try:
                    decoded_size = DecodedSize(descriptor, chunk, leaf, row_group.n_rows, share, shares_texts=once)
                except PageTooLargeError as error:
                    too_large = too_large or (name, error.page)
                    pages, whole = pages + error.page, whole + error.whole
                    continue
                self._decoded_sizes[name] = decoded_size
                pages, whole = pages + decoded_size.page, whole + decoded_size.whole
        except (PageError, FooterError, ThriftError) as error:
            raise self._damage(name, error) from error
        whole += self._fixed_row_bytes * row_group.n_rows
        most = pages + (BATCHES_IN_MEMORY + GROUPS_IN_MEMORY) * whole
        self._sufficient_limit = PROGRAM_BYTES + most + SAMPLED_ROW_FACTOR * whole // max(row_group.n_rows, 1)
        if readers > 1 and (too_large is not None or most > share):
            raise SharedBudgetError
        if too_large is not None:
            # The size of rows is unknown without decoding pages that are too large to decode.
            raise self._refusal(*too_large, self._sufficient_limit)
        self._pages, self._rows_left = pages, row_group.n_rows
        self._is_small = most <= limit

    def needed(self, rows: int) -> int:
        """Return an upper bound of the decoded size in bytes of the next rows, and advance past them."""
        return self._fixed_row_bytes * rows + sum(self._decoded_bytes(rows).values())

    def take(self, rows: int) -> None:
        """Check that the next rows fit into the memory limit, and advance past them.

        Raises
        ------
        DataError
            They don't fit.
        """
        if self._is_small:
            return
        needed, name = self._next(rows)
        if needed <= self._limit:
            return
        # Only the job's own budget, the one with kept_rows, knows how many rows are decoded at a time.
        enough = needed if self._kept_rows is not None else self._sufficient_limit
        while self._rows_left > 0:
            enough = max(enough, self._next(rows)[0])
        raise self._refusal(name, needed, enough)

    def _next(self, rows: int) -> tuple[int, str]:
        """Advance past the next rows; return the bytes that decoding them needs, and the largest column."""
        self._rows_left -= max(rows, 1)
        sizes_by_column = self._decoded_bytes(rows)
        total = self._fixed_row_bytes * rows + sum(sizes_by_column.values())
        if self._kept_rows is not None:
            if self._rows >= self._kept_rows:
                self._rows = 0
            # A page that also has earlier rows of the row group is counted once.
            added = self._fixed_row_bytes * rows + sum(
                decoded_size.added for decoded_size in self._decoded_sizes.values()
            )
            self._kept = self._kept + added if self._rows else total
            self._rows += rows
        needed = self._pages + BATCHES_IN_MEMORY * total + GROUPS_IN_MEMORY * self._kept
        return needed, max(sizes_by_column, key=sizes_by_column.__getitem__, default="")

    def batches(self, rows: int, *, int96: Collection[str] = (), use_threads: bool = True) -> Iterator[pa.RecordBatch]:
        """Yield the row group in batches of up to ``rows`` rows, each checked against the limit before decoding.

        Parameters
        ----------
        rows
            The maximum number of rows of a batch.
        int96
            Columns whose INT96 timestamps stay the 12 bytes of the file.
        use_threads
            Whether columns are decoded in parallel.

        Raises
        ------
        DataError
            As :meth:`take`; the number of rows differs from the footer's; or an INT96 timestamp of another column
            doesn't fit into its type.
        """
        parquet, columns = self._opened.parquet, None if self._names is None else list(self._names)
        batches = parquet.iter_batches(rows, [self._group], columns, use_threads=use_threads)
        n_rows = left = parquet.metadata.row_group(self._group).num_rows
        while True:
            self.take(min(rows, left))
            batch = next(batches, None)
            left -= 0 if batch is None else batch.num_rows
            if left < 0 or (batch is None and left):
                raise wrong_row_count(self._file.path, self._group, n_rows - left, n_rows)
            if batch is None:
                self._check_rows()
                return
            yield self._file.with_timestamps(batch, self._file.int96_columns.difference(int96), self._timestamps)

    def _timestamps(self, array: pa.Array, field: pa.Field) -> pa.Array:
        try:
            return converted(array, field.type)
        except TimestampRangeError as error:
            name = field.name
            raise DataError(
                f"row group {self._group}, column {name!r}: the timestamp {error} is out of the range of {field.type}",
                where=self._file.path,
                remedy="write the column in microseconds",
                column=name,
            ) from error

    def _check_rows(self) -> None:
        """Compare the number of rows in each column's pages with the row group's: pyarrow ignores rows beyond it.

        Raises
        ------
        DataError
            They differ.
        """
        row_group = self._file.footer.row_group(self._group)
        leaves = [(number, leaf) for number, leaf in self._leaves if leaf.path[0] not in self._counted]
        if not leaves:
            return
        flat = np.array([not leaf.repetition and leaf.name not in self._decoded_sizes for _, leaf in leaves], np.bool_)
        numbers = [number for number, _ in leaves]
        # For codecs that only pyarrow decodes, only the counts in page headers can be compared.
        right = ~np.isin(row_group.sizes[numbers, 0], list(CODECS))
        counts = count_values(self._opened.descriptor, row_group.ranges[numbers][flat])
        right[flat] = (counts == row_group.n_rows) | (right[flat] & (counts < 0))
        for number, leaf in itertools.compress(leaves, ~right):
            try:
                decoded_size = self._decoded_sizes.get(leaf.name)
                if decoded_size is None:
                    chunk = row_group.chunk(number)
                    decoded_size = DecodedSize(
                        self._opened.descriptor, chunk, leaf, row_group.n_rows, UNLIMITED, shares_texts=True
                    )
                decoded_size.check_rows(row_group.n_rows)
            except (PageError, FooterError, ThriftError) as error:
                raise self._damage(leaf.name, error) from error

    def _decoded_bytes(self, rows: int) -> dict[str, int]:
        """Return the decoded bytes of the next rows by column, without columns of fixed width, and advance."""
        sizes_by_column: dict[str, int] = {}
        for name, decoded_size in self._decoded_sizes.items():
            try:
                sizes_by_column[name] = decoded_size.take(rows)
            except PageError as error:
                raise self._damage(name, error) from error
        return sizes_by_column

    def _refusal(self, name: str, needed: int, enough: int) -> DataError:
        """Return the error that a column takes ``needed`` bytes; a limit of ``enough`` bytes suffices."""
        what = f"column {name!r}" if name else "its columns"
        needed_mib, limit = math.ceil(needed / MIB), self._limit // MIB
        remedy = f"allow more: --memory-limit {math.ceil(enough / MIB)}MiB"
        if not self._is_adjustable:
            remedy = "write the file again with smaller pages and row groups"
        return DataError(
            f"row group {self._group}: decoding {what} takes up to {needed_mib:,} MiB, and the limit is {limit:,} MiB",
            where=self._file.path,
            remedy=f"{remedy}; see: {inspect_command(self._file.path)}",
        )

    def _damage(self, name: str, error: Exception) -> DataError:
        path = self._file.path
        where = f"row group {self._group}, column {name!r}: " if name else ""
        remedy = f"{DAMAGED}; see: {inspect_command(path)}"
        return DataError(f"cannot be read: {where}{error}", where=path, remedy=remedy)


def _prefixes(name: str) -> list[str]:
    """Return the dotted names of a column and of all columns that contain it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


@lru_cache(maxsize=8)
def _dictionaries(schema: pa.Schema) -> frozenset[str]:
    """Return the columns of dictionary type: they hold each distinct text once."""
    return frozenset(field.name for field in schema if pa.types.is_dictionary(field.type))


def whole_batches(opened: OpenFile, group: int, rows: int, limit: int | None = None) -> Iterator[pa.RecordBatch]:
    """Yield all columns of a row group in batches of ``rows`` rows, INT96 timestamps as the 12 bytes of the file.

    Raises
    ------
    DataError
        As :class:`DecodeBudget` and :meth:`DecodeBudget.batches`.
    """
    opened.need(group, ahead=False)
    file = opened.file
    return DecodeBudget(opened, group, None, limit).batches(rows, int96=file.read_as_stored(file.int96_columns))

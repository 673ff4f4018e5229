"""Memory that decoding may take: columns of a row group are looked at before pyarrow decodes them.

What a few bytes of a file become is known from its pages (:mod:`batchmax.parquet.reading.decoded_size`). Where that is
more than ``--memory-limit`` allows, nothing is decoded, and the file is refused in one line that names the column.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import DataError
from batchmax.parquet import Demand, FooterError, NotAMatrix, ThriftError, TooLarge, even_bytes
from batchmax.parquet.footer import Leaf
from batchmax.parquet.format import CODECS
from batchmax.parquet.int96 import TimestampRangeError, converted
from batchmax.parquet.reading.page_rows import count_values
from batchmax.parquet.writing.column_chunk import ENCRYPTION, METADATA, UNPACKED_BYTES
from batchmax.runtime.buffers import MIB, PROGRAM_BYTES
from batchmax.sources.parquet_file import InputFile, OpenFile, encrypted

IN_FLIGHT = 3
"""Batches in memory at a time: two that are read ahead, and one that is worked on."""
MOST_DECODED = 1 << 30
"""Bytes that may be decoded at a time where nobody said how many."""
MOST_PAGE = 1 << 40
"""Bytes of a page whose header alone is read."""
JUDGED = 10
"""How often a row is counted before a job begins, where its size is judged by the first rows."""
KEPT = 2
"""Row groups of the output in memory at a time: one that is filled, and one that is written."""


class Allowance:
    """What decoding some columns of a row group takes, beside what it may.

    Parameters
    ----------
    file, descriptor, group
        Which row group, and the file opened.
    schema
        The file's columns as they are read.
    names
        The columns, dotted where nested; None for all.
    limit
        Bytes that the whole job may take.
    kept_rows
        The rows of a row group of the output, if they stay in memory until they are written.

    Raises
    ------
    DataError
        They take too much, or their pages are damaged.
    """

    def __init__(
        self,
        file: InputFile,
        descriptor: int,
        group: int,
        schema: pa.Schema,
        names: Sequence[str] | None,
        limit: int,
        kept_rows: int | None = None,
    ) -> None:
        self._file, self._group, self._limit, self._kept_rows = file, group, limit, kept_rows
        self._schema = schema
        self._demands: dict[str, Demand] = {}
        self._even = self._rows = self._kept = 0
        self._descriptor = descriptor
        self._leaves: list[tuple[int, Leaf]] = []
        self._left = 0
        pages = whole = 0
        too_large: tuple[str, int] | None = None
        name = ""
        if file.footer is None:
            raise self._damage("", FooterError("the footer is damaged"))
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
                even = even_bytes(leaf, *sizes[number][:2])
                if even is not None:
                    self._even += even
                    continue
                chunk = row_group.chunk(number)
                if METADATA in chunk and sizes[number][0] not in CODECS:
                    # Its pages can't be looked at, so the size that the footer states is spread over the rows.
                    n_bytes = max(0, chunk[METADATA].value[UNPACKED_BYTES].value)
                    self._even += -(-n_bytes // max(1, row_group.n_rows))
                    continue
                once = name in _dictionaries(schema)
                try:
                    demand = Demand(descriptor, chunk, leaf, row_group.n_rows, limit, texts_once=once)
                except TooLarge as error:
                    too_large = too_large or (name, error.page)
                    pages, whole = pages + error.page, whole + error.whole
                    continue
                self._demands[name] = demand
                pages, whole = pages + demand.page, whole + demand.whole
        except (NotAMatrix, FooterError, ThriftError) as error:
            raise self._damage(name, error) from error
        whole += self._even * row_group.n_rows
        most = pages + (IN_FLIGHT + KEPT) * whole
        self._enough = PROGRAM_BYTES + most + JUDGED * whole // max(row_group.n_rows, 1)
        if too_large is not None:
            # What rows take is not known without decoding pages that are too large for it.
            raise self._refusal(*too_large, self._enough)
        self._pages, self._left = pages, row_group.n_rows
        self._is_small = most <= limit

    def needed(self, rows: int) -> int:
        """Return at most how many bytes the next rows take."""
        return self._even * rows + sum(self._taken(rows).values())

    def take(self, rows: int) -> None:
        """Take the memory of the next rows from what is allowed.

        Raises
        ------
        DataError
            It is not.
        """
        if self._is_small:
            return
        needed, name = self._next(rows)
        if needed <= self._limit:
            return
        # How many rows the job decodes at a time is only known of the job's own allowance.
        enough = needed if self._kept_rows is not None else self._enough
        while self._left > 0:
            enough = max(enough, self._next(rows)[0])
        raise self._refusal(name, needed, enough)

    def _next(self, rows: int) -> tuple[int, str]:
        """Return how many bytes are needed when the next rows are decoded, and the column that takes most of them."""
        self._left -= max(rows, 1)
        taken = self._taken(rows)
        total = self._even * rows + sum(taken.values())
        if self._kept_rows is not None:
            if self._rows >= self._kept_rows:
                self._rows = 0
            # A page that rows before these were in as well is counted once.
            added = self._even * rows + sum(demand.added for demand in self._demands.values())
            self._kept = self._kept + added if self._rows else total
            self._rows += rows
        needed = self._pages + IN_FLIGHT * total + KEPT * self._kept
        return needed, max(taken, key=taken.__getitem__, default="")

    def batches(
        self, parquet: pq.ParquetFile, rows: int, columns: Any, int96: Collection[str] = (), **how: Any
    ) -> Iterator[pa.RecordBatch]:
        """Read the row group in batches of so many rows, each after it was found to be small enough.

        ``int96`` are the columns whose INT96 timestamps stay the 12 bytes that the file has.

        Raises
        ------
        DataError
            As :meth:`take`; there are more or fewer rows than the footer says; or an INT96 timestamp of another column
            does not fit into its type.
        """
        batches = parquet.iter_batches(rows, [self._group], columns, **how)
        n_rows = left = parquet.metadata.row_group(self._group).num_rows
        while True:
            self.take(min(rows, left))
            batch = next(batches, None)
            left -= 0 if batch is None else batch.num_rows
            if left < 0 or (batch is None and left):
                raise DataError(
                    f"row group {self._group} holds {n_rows - left:,} rows, not {n_rows:,} as the footer says",
                    where=self._file.path,
                    remedy="the file is damaged: make it again",
                )
            if batch is None:
                self._check_rows()
                return
            yield self._with_timestamps(batch, int96)

    def _with_timestamps(self, batch: pa.RecordBatch, int96: Collection[str]) -> pa.RecordBatch:
        """Return a batch with timestamps in place of the bytes that pyarrow read of INT96 columns, but for some."""
        columns = list(zip(batch.schema, batch.columns, strict=True))
        if self._file.int96_columns.issubset(int96) or self._file.int96_columns.isdisjoint(batch.schema.names):
            return batch
        for number, (field, array) in enumerate(columns):
            if field.name in self._file.int96_columns and field.name not in int96:
                try:
                    found = converted(array, self._schema.field(field.name).type)
                except TimestampRangeError as error:
                    raise self._unrepresentable(field.name, error) from error
                columns[number] = field.with_type(found.type), found
        arrays = [array for _, array in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([field for field, _ in columns]))

    def _unrepresentable(self, name: str, error: TimestampRangeError) -> DataError:
        kind = self._schema.field(name).type
        return DataError(
            f"row group {self._group}, column {name!r}: the timestamp {error} doesn't fit into {kind}",
            where=self._file.path,
            remedy=f"write a Parquet file, which keeps it, or leave the column out: --exclude {shlex.quote(name)}",
        )

    def _check_rows(self) -> None:
        """Compare the rows in the pages of each column with those of the row group, at which pyarrow stops.

        Raises
        ------
        DataError
            They differ.
        """
        if self._file.footer is None:
            return
        row_group = self._file.footer.row_group(self._group)
        flat = np.array([not leaf.repetition and leaf.name not in self._demands for _, leaf in self._leaves], np.bool_)
        numbers = [number for number, _ in self._leaves]
        # Of codecs that pyarrow alone decodes, only what page headers say can be counted.
        right = ~np.isin(row_group.sizes[numbers, 0], list(CODECS))
        counts = count_values(self._descriptor, row_group.places[numbers][flat])
        right[flat] = (counts == row_group.n_rows) | (right[flat] & (counts < 0))
        for number, leaf in itertools.compress(self._leaves, ~right):
            try:
                demand = self._demands.get(leaf.name)
                if demand is None:
                    chunk = row_group.chunk(number)
                    demand = Demand(self._descriptor, chunk, leaf, row_group.n_rows, MOST_PAGE, texts_once=True)
                demand.check_rows(row_group.n_rows)
            except (NotAMatrix, FooterError, ThriftError) as error:
                raise self._damage(leaf.name, error) from error

    def _taken(self, rows: int) -> dict[str, int]:
        taken: dict[str, int] = {}
        for name, demand in self._demands.items():
            try:
                taken[name] = demand.take(rows)
            except NotAMatrix as error:
                raise self._damage(name, error) from error
        return taken

    def _refusal(self, name: str, needed: int, enough: int) -> DataError:
        """Return an error about a column that takes ``needed`` bytes; ``enough`` are enough for the row group."""
        what = f"column {name!r}" if name else "its columns"
        asked, most, limit = math.ceil(needed / MIB), math.ceil(enough / MIB), self._limit // MIB
        return DataError(
            f"row group {self._group}: decoding {what} takes up to {asked:,} MiB, and the job may use {limit:,}",
            where=self._file.path,
            remedy=f"allow more: --memory-limit {most}MiB is enough for it; "
            f"look: batchmax inspect {shlex.quote(self._file.path)}",
        )

    def _damage(self, name: str, error: Exception) -> DataError:
        path = self._file.path
        where = f"row group {self._group}, column {name!r}: " if name else ""
        remedy = f"the file is damaged: make it again; look: batchmax inspect {shlex.quote(path)}"
        return DataError(f"cannot be read: {where}{error}", where=path, remedy=remedy)


def _prefixes(name: str) -> list[str]:
    """Return the names of a column and of all that it lies in."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


@lru_cache(maxsize=8)
def _dictionaries(schema: pa.Schema) -> frozenset[str]:
    """Return the columns whose texts are held once, however often they are pointed to."""
    return frozenset(field.name for field in schema if pa.types.is_dictionary(field.type))


def whole_batches(file: InputFile, opened: OpenFile, group: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Read all columns of a row group in batches of so many rows, INT96 timestamps as the 12 bytes that the file has.

    Raises
    ------
    DataError
        As :class:`Allowance`.
    """
    opened.need(group, ahead=False)
    allowance = Allowance(file, opened.descriptor, group, file.schema, None, MOST_DECODED)
    yield from allowance.batches(opened.parquet, rows, None, file.read_as_stored(file.int96_columns))

"""Memory that decoding may take: columns of a row group are looked at before pyarrow decodes them.

What a few bytes of a file become is known from its pages (:mod:`batchmax.parquet.demands`). Where that is more than
``--memory-limit`` allows, nothing is decoded, and the file is refused in one line that says which column it is.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import DataError
from batchmax.parquet import Demand, FooterError, NotAMatrix, ThriftError, TooLarge, even_bytes
from batchmax.parquet.encoded import ENCRYPTION
from batchmax.parquet_files import InputFile, OpenFile, encrypted

IN_FLIGHT = 3
"""Batches in memory at a time: two that are read ahead, and one that is worked on."""
MOST_DECODED = 1 << 30
"""Bytes that may be decoded at a time where nobody said how many."""
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
        self._demands: dict[str, Demand] = {}
        self._even = self._rows = self._kept = 0
        name = ""
        if file.footer is None:
            raise self._damage("", FooterError("the footer is damaged"))
        try:
            row_group = file.footer.row_group(group)
            wanted = None if names is None else set(names)
            sizes = row_group.sizes().tolist()
            for number, leaf in enumerate(file.footer.leaves):
                name = leaf.name
                if wanted is not None and wanted.isdisjoint(_prefixes(name)):
                    continue
                if file.footer.has_encrypted_columns and any(one in row_group.chunk(number) for one in ENCRYPTION):
                    raise encrypted(file.path, leaf.path[0].decode(errors="replace"))
                even = even_bytes(leaf, *sizes[number])
                if even is not None:
                    self._even += even
                    continue
                chunk = row_group.chunk(number)
                once = name in _dictionaries(schema)
                self._demands[name] = Demand(descriptor, chunk, leaf, row_group.n_rows, limit, texts_once=once)
        except TooLarge as error:
            raise self._refusal(name, error.n_bytes) from error
        except (NotAMatrix, FooterError, ThriftError) as error:
            raise self._damage(name, error) from error
        self._pages = sum(demand.page for demand in self._demands.values())
        whole = self._even * row_group.n_rows + sum(demand.whole for demand in self._demands.values())
        self._is_small = self._pages + (IN_FLIGHT + KEPT) * whole <= limit

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
        if needed > self._limit:
            raise self._refusal(max(taken, key=taken.__getitem__, default=""), needed)

    def batches(self, parquet: pq.ParquetFile, rows: int, columns: Any, **how: Any) -> Iterator[pa.RecordBatch]:
        """Read the row group in batches of so many rows, each after it was found to be small enough.

        Raises
        ------
        DataError
            As :meth:`take`; or there are more or fewer rows than the footer says.
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
                return
            yield batch

    def _taken(self, rows: int) -> dict[str, int]:
        taken: dict[str, int] = {}
        for name, demand in self._demands.items():
            try:
                taken[name] = demand.take(rows)
            except NotAMatrix as error:
                raise self._damage(name, error) from error
        return taken

    def _refusal(self, name: str, needed: int) -> DataError:
        more = math.ceil(needed / 2**20)
        what = f"column {name!r}" if name else "its columns"
        return DataError(
            f"row group {self._group}: decoding {what} takes up to {more:,} MiB, and the job may use "
            f"{self._limit / 2**20:,.0f}",
            where=self._file.path,
            remedy=f"allow more: --memory-limit {more}MiB; look: batchmax inspect {shlex.quote(self._file.path)}",
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
    """Read all columns of a row group in batches of so many rows.

    Raises
    ------
    DataError
        As :class:`Allowance`.
    """
    opened.need(group, ahead=False)
    allowance = Allowance(file, opened.descriptor, group, file.schema, None, MOST_DECODED)
    yield from allowance.batches(opened.parquet, rows, None)

"""Rows by the values of a column: as many groups as there is memory for, or any number whose rows come together.

A group whose rows are over can be given away; that no row of it comes again is known from the order of the values, or
by remembering a hash of each.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.errors import DataError, UsageError
from batchmax.kernels.tallies import FIGURES
from batchmax.metrics import Judged, whole_figures

Array = NDArray[Any]

MOST_LISTED = 10_000
"""Groups that an answer lists."""
GROUP_BYTES = 400
"""What a group takes in memory: its value as a Python object twice, and its sums."""
HASH_BYTES = 16
SHARE = 4
"""The part of the memory that groups may take is one in so many."""
NAN = float("nan")

FIELDS = (
    pa.field("n_rows", pa.int64()),
    pa.field("mean_loss", pa.float64()),
    pa.field("perplexity", pa.float64()),
    pa.field("accuracy", pa.float64()),
    pa.field("brier", pa.float64()),
)
"""The figures of a group, in the order that tables have them."""


class Groups:
    """The groups of one column.

    Parameters
    ----------
    field
        The column.
    memory
        Bytes that the job may use.

    Attributes
    ----------
    schema
        Of the table of groups.
    give
        Takes rows of that table, when there are too many for memory; None if nobody does.
    given
        How many it took.

    Raises
    ------
    UsageError
        The column holds no plain values.
    """

    def __init__(self, field: pa.Field, memory: int) -> None:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind):
            raise UsageError(
                f"column {field.name!r} holds {field.type}", where="--by", remedy="name one of plain values"
            )
        self.field = field
        self.schema = pa.schema([pa.field(field.name, kind), *FIELDS])
        self.given = 0
        self._kind = kind
        self.give: Callable[[pa.RecordBatch], None] | None = None
        self._most = max(1, memory // SHARE // GROUP_BYTES)
        self._most_hashes = memory // SHARE // HASH_BYTES
        self._numbers: dict[Any, int] = {}
        self._sums = np.zeros((1024, FIGURES + 1))
        self._seen = np.zeros(0, np.int64)
        self._largest: Any = None
        self._ascending = True

    def add(self, column: pa.Array, some: Judged) -> None:
        """Count rows by this column's values."""
        if pa.types.is_dictionary(column.type):
            column = column.cast(self._kind)
        encoded = column.dictionary_encode(null_encoding="encode")
        values = [NAN if value != value else value for value in encoded.dictionary.to_pylist()]  # noqa: PLR0124 - NaN
        new = [value for value in values if value not in self._numbers]
        if new:
            self._meet(new)
        numbers = np.array([self._numbers[value] for value in values], np.int64)
        codes = numbers[encoded.indices.to_numpy()] if values else np.zeros(0, np.int64)
        kernels.tally_groups(
            some.rows.nll, some.rows.rests, some.rank, some.brier, some.weights, some.counted, codes, self._sums
        )
        if len(self._numbers) > self._most and len(codes):
            self._make_room(int(codes[-1]))

    def table(self) -> pa.RecordBatch:
        """Return the groups in memory as a table, in the order in which they came."""
        return self._batch(list(self._numbers))

    def figures(self) -> list[dict[str, Any]]:
        """Return the figures of each group, the largest first; of none if there are too many to list."""
        if self.given or len(self._numbers) > MOST_LISTED:
            return []
        rows = [
            {"value": _plain(value), "n_rows": int(self._sums[number, FIGURES]), **whole_figures(self._sums[number])}
            for value, number in self._numbers.items()
        ]
        return sorted(rows, key=lambda row: -row["n_rows"])

    def __len__(self) -> int:
        """Return how many groups there were."""
        return self.given + len(self._numbers)

    def _meet(self, values: list[Any]) -> None:
        if self.given:
            self._check_new(values)
        for value in values:
            self._numbers[value] = len(self._numbers)
        while len(self._numbers) > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])

    def _check_new(self, values: list[Any]) -> None:
        """Refuse a value whose group was given away."""
        if self._ascending and all(value is not None and value > self._largest for value in values):
            return
        again = np.isin(_hashes(values), self._seen)
        if not again.any() and len(self._seen) == self.given:
            return
        value = values[int(np.argmax(again))]
        raise DataError(
            f"its value {value!r} comes again after {self.given:,} other groups, too many to hold",
            where=f"column {self.field.name!r}",
            remedy="sort the rows by it, or allow more: --memory-limit SIZE",
        )

    def _make_room(self, last: int) -> None:
        """Give all groups away but the last row's, which may go on."""
        kept = next(value for value, number in self._numbers.items() if number == last)
        done = [value for value in self._numbers if value is not kept]
        if self.give is None:
            raise DataError(
                f"there are more than {self._most:,} groups",
                where=f"column {self.field.name!r}",
                remedy="write them as they come: -o groups.parquet; or allow more: --memory-limit SIZE",
            )
        self._remember(done)
        self.give(self._batch(done))
        self.given += len(done)
        sums = self._sums[last].copy()
        self._numbers = {kept: 0}
        self._sums = np.zeros((1024, FIGURES + 1))
        self._sums[0] = sums

    def _remember(self, done: list[Any]) -> None:
        in_order = [*([] if self._largest is None else [self._largest]), *done]
        if self._ascending:
            self._ascending = None not in done and all(a < b for a, b in pairwise(in_order))
        self._largest = done[-1]
        hashes = _hashes(done)
        if len(self._seen) + len(hashes) <= self._most_hashes:
            self._seen = np.concatenate([self._seen, hashes])
        elif not self._ascending:
            raise DataError(
                f"there are more than {self.given:,} groups, in no order",
                where=f"column {self.field.name!r}",
                remedy="sort the rows by it, or allow more: --memory-limit SIZE",
            )

    def _batch(self, values: list[Any]) -> pa.RecordBatch:
        sums = self._sums[[self._numbers[value] for value in values]] if values else np.zeros((0, FIGURES + 1))
        figures = [whole_figures(one) for one in sums]
        columns = [pa.array(values, self._kind), pa.array(sums[:, FIGURES].astype(np.int64))]
        columns += [pa.array([one[field.name] for one in figures], pa.float64()) for field in FIELDS[1:]]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _hashes(values: list[Any]) -> Array:
    # Those of the text: -1 and -2 have the same hash.
    return np.array([hash(repr(value)) for value in values], np.int64)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)

"""Metrics of groups of rows, by the values of a column.

The number of groups is limited by memory, unless the rows of a group are contiguous: then completed groups are written
and freed. That no row of a written group comes later is checked by the order of the values, or by a hash of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import plain_array, plain_type
from batchmax.columns.row_values import check_by, json_value, number_values
from batchmax.errors import DataError
from batchmax.evaluation.metrics import NO_POSITIVE, RowMetrics, calibration_errors, group_metrics
from batchmax.kernels.metric_sums import BINS, FIGURES, ROWS, tally_groups
from batchmax.runtime.text import quantity
from batchmax.scoring.sequence_totals import SequenceTotals

Array = NDArray[Any]

VALUE_BYTES = 300
"""Memory of a group apart from its sums: its value as a Python object, its number, and its row of the table."""
HASH_BYTES = 16
PIECE = 2**16
"""Rows or groups that are processed at a time."""
SHARE = 3
"""Groups may take 1/SHARE of the memory, and hashes of written groups as much again."""
NAN = float("nan")

METRIC_FIELDS = [pa.field(name, pa.float64()) for name in ("mean_loss", "perplexity", "accuracy", "brier", "ece")]
"""The metrics of a group, in the order of the table."""
N_ROWS, N_TOKENS = pa.field("n_rows", pa.int64()), pa.field("n_tokens", pa.int64())
BITS_PER_BYTE = pa.field("bits_per_byte", pa.float64())
"""Counts of a group; the last two only for sequences."""

SEQUENCES, TOKENS, BYTES, TEXT_NLL, OF_SEQUENCES = 0, 1, 2, 3, 4
"""Positions in the sums of a group of sequences: the number of sequences, the number of tokens with a loss, and, over
the sequences that have a loss as a whole, the bytes of text and the sum of losses."""

IntervalsOf = Callable[[str, pa.Array], list[dict[str, Any]] | None]

AS_INTEGERS = pa.types.is_timestamp, pa.types.is_duration, pa.types.is_date64, pa.types.is_time64
"""Types that are looked up as integers, because their Python objects may lose nanoseconds."""


class Groups:
    """Accumulates the groups of one column; :class:`batchmax.evaluation.label_groups.LabelGroups` those of labels.

    Parameters
    ----------
    name, kind
        The column's name and type.
    n_bins
        Number of confidence bins for the calibration error of each group.
    memory
        Bytes that the job may use.
    positive
        As for :class:`batchmax.evaluation.metrics.MetricSums`.
    nested
        Whether rows are sequences. Metrics are then over tokens, ``n_rows`` counts sequences, and ``n_tokens`` counts
        tokens with a loss.
    has_text
        Whether the bytes of text of each sequence are known, for ``bits_per_byte``.

    Attributes
    ----------
    schema
        The schema of the table of groups.
    give
        Callback that receives rows of that table when groups don't fit in memory; None if there is none.
    given
        The number of groups given to the callback.

    Raises
    ------
    UsageError
        The column's type is nested or an interval.
    """

    metric_fields: Sequence[pa.Field] = METRIC_FIELDS

    def __init__(
        self,
        name: str,
        kind: pa.DataType,
        n_bins: int,
        memory: int,
        *,
        positive: int | None = None,
        nested: bool = False,
        has_text: bool = False,
    ) -> None:
        check_by(name, kind)
        plain = plain_type(kind)
        self.name = name
        self._kind = _grouped_type(plain)
        self._key_kind = pa.int64() if any(is_kind(plain) for is_kind in AS_INTEGERS) else self._kind
        self._fields = (
            N_ROWS,
            *((N_TOKENS,) if nested else ()),
            *self.metric_fields,
            *((BITS_PER_BYTE,) if has_text else ()),
        )
        self.schema = pa.schema([pa.field(name, self._kind), *self._fields])
        self.given = 0
        self.give: Callable[[pa.RecordBatch], None] | None = None
        self._n_bins = n_bins
        self._positive = NO_POSITIVE if positive is None else positive
        shapes = self._shapes(n_bins, OF_SEQUENCES if nested else 0)
        self._most = max(1, memory // SHARE // (8 * sum(map(math.prod, shapes)) + VALUE_BYTES))
        self._most_hashes = memory // SHARE // HASH_BYTES
        self._numbers: dict[Any, int] = {}
        # Allocated for all groups at once: unused pages take no memory, and growing would need twice as much.
        self._sums, self._counts, *self._more = (np.zeros((self._most + PIECE, *shape)) for shape in shapes)
        self._hashes = np.zeros(0, np.int64)
        self._largest: Any = None
        self._ascending = True

    @staticmethod
    def _shapes(n_bins: int, n_counts: int) -> Iterable[tuple[int, ...]]:
        """Return the shapes of the sums of a group, and of the counts of its sequences."""
        return (BINS + 3 * n_bins,), (n_counts,)

    def add(
        self, column: pa.Array, some: RowMetrics, sequences: tuple[Array, SequenceTotals, Array] | None = None
    ) -> None:
        """Add rows, or sequences and their tokens, grouped by this column's values.

        Parameters
        ----------
        column
            One value per row.
        some
            The rows; of sequences, the tokens.
        sequences
            For sequences: the number of these tokens in each, the totals of the first sequences, which end with these
            tokens, and the bytes of their text.
        """
        column = self._plain(column)
        metrics = (
            *(some.rows.nll, some.rows.rests, some.pred, some.rank, some.brier, some.labels),
            *(some.weights, some.counted),
        )
        first = 0
        for start in range(0, len(column), PIECE):
            codes = self._codes(column[start : start + PIECE])
            units = codes if sequences is None else np.repeat(codes, sequences[0][start : start + PIECE])
            end = first + len(units)
            tally_groups(*(array[first:end] for array in metrics), self._positive, units, self._sums)
            first = end
            if sequences is not None:
                self._count_sequences(codes, start, *sequences[1:])
            self._limit(int(codes[-1]))

    def _plain(self, column: pa.Array) -> pa.Array:
        column = plain_array(column)
        return column if column.type == self._kind else column.cast(self._kind)

    def _count_sequences(self, codes: Array, start: int, totals: SequenceTotals, n_bytes: Array) -> None:
        """Count the sequences from ``start`` on that end; ``codes`` are their groups."""
        whole = slice(start, min(start + PIECE, len(totals.status)))
        scored = totals.is_scored[whole]
        values = np.stack([
            np.ones(len(scored)), totals.counts[whole], n_bytes[whole], np.where(scored, totals.sums[0, whole], 0.0)
        ], axis=1)  # fmt: skip
        np.add.at(self._counts, codes[: len(scored)], values)

    def _codes(self, column: pa.Array) -> Array:
        """Return the group number of each value."""
        return number_values(column, self._numbers, self._keys)

    def _keys(self, distinct: pa.Array) -> list[Any]:
        """Return the keys of distinct values, after a check of those that are new."""
        values: list[Any] = distinct.cast(self._key_kind).to_pylist()
        if pa.types.is_floating(self._kind):
            values = [NAN if value != value else value for value in values]  # noqa: PLR0124 - only NaN != itself
        if self.given and (new := [value for value in values if value not in self._numbers]):
            self._check_new(new)
        return values

    def table(self) -> pa.RecordBatch:
        """Return the groups in memory as a table, in order of first occurrence."""
        values = list(self._numbers)
        starts = range(0, max(1, len(values)), PIECE)
        return pa.concat_batches(self._batch(values[start : start + PIECE]) for start in starts)

    def metrics(self, intervals: IntervalsOf | None = None) -> list[dict[str, Any]]:
        """Return the metrics of each group in memory, as in the JSON, the largest group first.

        ``intervals`` returns those of the groups of some values, or None.
        """
        values = map(json_value, self._texts(list(self._numbers)))
        metrics = self.table().select(range(1, len(self.schema))).to_pylist()
        rows = [{"value": value, **row} for value, row in zip(values, metrics, strict=True)]
        found = None if intervals is None else intervals(self.name, self.table().column(0))
        for row, own in zip(rows, found or (), strict=found is not None):
            row["intervals"] = own
        return sorted(rows, key=lambda row: -row["n_rows"])

    def __len__(self) -> int:
        """Return the number of groups so far."""
        return self.given + len(self._numbers)

    def _check_new(self, values: list[Any]) -> None:
        """Raise if the group of a value was already written."""
        if self._ascending and all(value is not None and value > self._largest for value in values):
            return
        hashes = _hashes(values)
        places = np.searchsorted(self._hashes, hashes)
        again = places < len(self._hashes)
        again[again] = self._hashes[places[again]] == hashes[again]
        if not again.any() and len(self._hashes) == self.given:
            return
        value = self._texts(values[int(np.argmax(again)) :][:1])[0]
        raise DataError(
            f"value {value!r} occurs again after {quantity(self.given, 'other group')}, which don't fit in memory",
            where=f"column {self.name!r}",
            remedy="sort the rows by it, or raise the limit: --memory-limit SIZE",
        )

    def _limit(self, last: int) -> None:
        """Write groups if there are too many, except the last row's group, which may continue."""
        if len(self._numbers) <= self._most:
            return
        kept = next(value for value, number in self._numbers.items() if number == last)
        done = [value for value, number in self._numbers.items() if number != last]
        if self.give is None:
            raise DataError(
                f"more than {quantity(self._most, 'group')} don't fit in memory",
                where=f"column {self.name!r}",
                remedy=f"write the groups of one column to a file: batchmax evaluate INPUT --by {self.name} "
                "-o groups.parquet; "
                "or raise the limit: --memory-limit SIZE",
            )
        self._remember(done)
        for start in range(0, len(done), PIECE):
            self.give(self._batch(done[start : start + PIECE]))
        self.given += len(done)
        self._numbers = {kept: 0}
        for array in (self._sums, self._counts, *self._more):
            sums = array[last].copy()
            array[: len(done) + 1] = 0.0
            array[0] = sums

    def _remember(self, done: list[Any]) -> None:
        in_order = [*([] if self._largest is None else [self._largest]), *done]
        if self._ascending:
            self._ascending = None not in done and all(a < b for a, b in pairwise(in_order))
        self._largest = done[-1]
        hashes = _hashes(done)
        if len(self._hashes) + len(hashes) <= self._most_hashes:
            self._hashes = np.sort(np.concatenate([self._hashes, hashes]))
        elif not self._ascending:
            raise DataError(
                f"more than {quantity(self.given, 'group')} in no order don't fit in memory",
                where=f"column {self.name!r}",
                remedy="sort the rows by it, or raise the limit: --memory-limit SIZE",
            )

    def _counted(self, numbers: Array) -> dict[str, Array]:
        """Return the counts of some groups."""
        if N_TOKENS not in self._fields:
            return {"n_rows": self._sums[numbers, ROWS].astype(np.int64)}
        counts = self._counts[numbers]
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = counts[:, TEXT_NLL] / math.log(2) / counts[:, BYTES]
        rows, tokens = counts[:, SEQUENCES], counts[:, TOKENS]
        return {"n_rows": rows.astype(np.int64), "n_tokens": tokens.astype(np.int64), "bits_per_byte": bits}

    def _batch(self, values: list[Any]) -> pa.RecordBatch:
        """Return some groups as a table."""
        numbers = np.array([self._numbers[value] for value in values], np.int64)
        metrics = self._metrics(numbers) | self._counted(numbers)
        columns = [pa.array(values, self._key_kind).cast(self._kind)]
        for field in self._fields:
            column = metrics[field.name]
            columns.append(pa.array(column, field.type, mask=~np.isfinite(column)))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _metrics(self, numbers: Array) -> dict[str, Array]:
        """Return the metrics of some groups."""
        sums = self._sums[numbers]
        bins = sums[:, BINS:].reshape(len(sums), self._n_bins, 3)
        return group_metrics(sums[:, :FIGURES]) | calibration_errors(bins)

    def _texts(self, values: list[Any]) -> list[Any]:
        """Return values in a readable form: times as text."""
        if self._key_kind == self._kind or pa.types.is_duration(self._kind):
            return values
        texts: list[Any] = pa.array(values, self._key_kind).cast(self._kind).cast(pa.string()).to_pylist()
        return texts


def _grouped_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values are grouped: Arrow doesn't look up views and small decimals."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _hashes(values: list[Any]) -> Array:
    # Hashes of the text, because -1 and -2 have the same hash.
    return np.array([hash(repr(value)) for value in values], np.int64)

"""View the tokens of a scored output of sequences as rows, so that the checks of rows apply to them.

Checks that the lists of a row have equal lengths, and that the columns for whole rows follow from the tokens. The
tokens themselves are checked elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, is_list, plain_array, plain_type, valid_rows
from batchmax.columns.sequences import Nesting, Tokens, extents, token_labels
from batchmax.outputs import LAST_BAD, PLURALS, STATUS_NAMES, Status
from batchmax.runtime.text import quantity
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.verification.column_reader import WrongRowError, fail_at_first, status_codes
from batchmax.verification.scored_output import ScoredOutput

Array = NDArray[Any]

SLACK = 1e-6
"""Relative tolerance of sums of losses, which are rounded to float32."""

SMALLEST_LOSS = float(np.finfo(np.float32).smallest_subnormal)
"""Absolute error of a loss that float32 can't represent with all digits."""


class TokenView:
    """Converts batches of rows to batches of tokens.

    Parameters
    ----------
    output
        An output of sequences.

    Attributes
    ----------
    output
        The output viewed as one of tokens, without the columns for whole rows and those of ``top_k``.
    statuses
        The number of counted rows with each status code; zeros if the output has no status column.
    """

    def __init__(self, output: ScoredOutput) -> None:
        options = output.metadata.options
        label = options.label if options.label in output.schema.names else None
        kept = {name: columns for name, columns in output.columns.items() if name in PLURALS or name.endswith("probs")}
        kept = {name: columns for name, columns in kept.items() if not name.startswith("top_k") and name != "tail_mass"}
        names = {column for columns in kept.values() for column in columns}
        fields = [
            field.with_type(plain_type(field.type).value_type) if field.name in {*names, label} else field
            for field in output.schema
        ]
        self._lists = [columns[0] for columns in output.columns.values()]
        self._prefix = options.prefix
        self._nesting = Nesting(output.metadata.logits, label, pa.schema(fields), is_large=False, shift=options.shift)
        self._names = [field.name for field in fields if field.name in {*names, label}]
        schema = pa.schema([field for field in fields if field.name in self._names])
        metadata = replace(output.metadata, outputs=tuple(kept), options=replace(options, shift=False, top_k=None))
        self.output = replace(output, schema=schema, columns=kept, metadata=metadata)
        self.statuses = np.zeros(len(Status), np.int64)
        self._label = label
        self._weighted = options.class_weights is not None
        self._is_plain = options.is_usual and not options.label_smoothing

    def flatten(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the tokens of a batch of rows.

        Raises
        ------
        WrongRowError
            The lists of a row have different lengths, or a column for whole rows doesn't follow from them.
        """
        lists = {name: plain_array(column_array(batch, name)) for name in self._lists}
        first = next(iter(lists.values()))
        valid = valid_rows(first)
        lengths = _lengths(first, valid)
        for name, array in lists.items():
            others = valid_rows(array)
            wrong = (others != valid) | (_lengths(array, others) != lengths)
            fail_at_first(wrong, lambda _, n=name: f"{n} and {self._lists[0]} have different lengths")
        tokens = Tokens(batch, lengths, ~valid, 0, ends=True)
        self._check_rows(batch, lists, valid)
        columns = {name: _flat(lists[name], valid) for name in self._names if name in lists}
        if self._label is not None:
            labels, known = token_labels(tokens, self._nesting)
            columns[self._label] = labels if known is None else _with_wrong(labels, known != Status.OK)
        arrays = [columns[name] for name in self._names]
        return pa.RecordBatch.from_arrays(arrays, schema=self.output.schema)

    def count(self, batch: pa.RecordBatch) -> None:
        """Count the statuses of the rows."""
        if self._prefix + "statuses" in batch.schema.names:
            self.statuses += np.bincount(self._row_statuses(batch), minlength=len(Status))

    def check_row(self, batch: pa.RecordBatch, status: int, n_losses: int, *, is_null: bool) -> None:
        """Check the columns for whole rows of a batch of one row, given its status and number of tokens with a loss.

        Raises
        ------
        WrongRowError
            A column differs.
        """
        names, first = batch.schema.names, plain_array(column_array(batch, self._lists[0]))
        fail_at_first(
            valid_rows(first) == is_null,
            lambda _: f"{self._lists[0]} is {'not ' * is_null}null, but the logits are {'not ' * (not is_null)}null",
        )
        if self._prefix + "statuses" in names and (found := int(self._row_statuses(batch)[0])) != status:
            raise WrongRowError(f"status is {STATUS_NAMES[found]}, expected {STATUS_NAMES[status]}", 0)
        if self._prefix + "n_tokens" in names:
            number = batch.column(self._prefix + "n_tokens")[0].as_py()
            if number != (expected := None if status <= LAST_BAD else n_losses):
                raise WrongRowError(f"n_tokens is {number}, expected {expected}", 0)

    def _row_statuses(self, batch: pa.RecordBatch) -> Array:
        return status_codes(batch, self._prefix + "status")

    def row_of(self, batch: pa.RecordBatch, token: int) -> int:
        """Return the row of the batch that a token belongs to."""
        first = plain_array(column_array(batch, self._lists[0]))
        return int(np.searchsorted(np.cumsum(_lengths(first, valid_rows(first))), token, side="right"))

    def _check_rows(self, batch: pa.RecordBatch, lists: dict[str, pa.Array], valid: NDArray[np.bool_]) -> None:
        """Check the columns for whole rows."""
        losses = lists.get(self._prefix + "losses")
        if losses is not None and self._prefix + "n_tokens" in batch.schema.names:
            values = _flat(losses, valid)
            has_loss = valid_rows(values)
            given = values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
            numbers = np.where(has_loss & ~np.isnan(given), given, 0.0)
            row = np.repeat(np.arange(len(valid)), _lengths(losses, valid))
            counts = np.bincount(row, weights=has_loss, minlength=len(valid))
            sums = np.bincount(row, weights=numbers, minlength=len(valid))
            stored = column_array(batch, self._prefix + "n_tokens")
            present = valid_rows(stored)
            fail_at_first(
                present & (counts != stored.fill_null(0).to_numpy()),
                lambda at: (
                    f"n_tokens is {stored[at]}, but {quantity(int(counts[at]), 'token has', 'tokens have')} a loss"
                ),
            )
            total = column_array(batch, self._prefix + "sum_loss")
            given = total.fill_null(0).to_numpy()
            with np.errstate(invalid="ignore"):
                # A loss below the normal range has fewer digits.
                slack = SLACK * np.abs(sums) + counts * SMALLEST_LOSS
                off = ~((np.abs(given - sums) <= slack) | (given == sums))
            off &= present
            fail_at_first(off, lambda at: f"sum_loss is {given[at]:.9g}, but the losses sum to {sums[at]:.9g}")
            self._check_means(batch, counts, sums)
        statuses = lists.get(self._prefix + "statuses")
        if statuses is not None:
            codes = self._row_statuses(batch)
            contradicts = ~valid & (codes != Status.NULL_LOGITS)
            fail_at_first(contradicts, lambda _: "the row is null, but its status is not null_logits")
            worst = self._worst(statuses, valid)
            fail_at_first(
                valid & (codes != worst),
                lambda at: f"status is {STATUS_NAMES[codes[at]]}, but its tokens give {STATUS_NAMES[worst[at]]}",
            )

    def _check_means(self, batch: pa.RecordBatch, counts: Array, sums: Array) -> None:
        """Check ``mean_loss`` and ``perplexity`` against the losses, where the losses alone determine them."""
        if self._weighted:
            return
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            means = sums / counts
            expected = {"mean_loss": means} | ({"perplexity": np.exp(means)} if self._is_plain else {})
            for name, values in expected.items():
                array = column_array(batch, self._prefix + name)
                given = array.fill_null(0).to_numpy()
                slack = SLACK * (1.0 + (np.abs(means) if name == "perplexity" else 0.0))
                off = ~((np.abs(given - values) <= slack * np.abs(values) + SMALLEST_LOSS) | (given == values))
                fail_at_first(
                    valid_rows(array) & off,
                    lambda at, n=name, g=given, v=values: f"{n} is {g[at]:.9g}, but the losses give {v[at]:.9g}",
                )

    def _worst(self, statuses: pa.Array, valid: NDArray[np.bool_]) -> Array:
        """Return the status of each row that follows from the statuses of its tokens."""
        tokens = pc.index_in(plain_array(_flat(statuses, valid)).cast(pa.string()), value_set=pa.array(STATUS_NAMES))
        codes = tokens.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint8)
        lengths = _lengths(statuses, valid)
        rows = Tokens(pa.RecordBatch.from_pylist([]), lengths, np.zeros(len(lengths), np.bool_), 0, ends=True)
        return SequenceTally(shift=self._nesting.shift).add(rows, codes).status


def _lengths(array: pa.Array, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    _, counts = extents(array)
    return np.where(valid, counts, 0).astype(np.int64)


def _flat(array: pa.Array, valid: NDArray[np.bool_]) -> pa.Array:
    return (array if valid.all() else array.filter(pa.array(valid))).flatten()


def _with_wrong(labels: pa.Array, wrong: NDArray[np.bool_]) -> pa.Array:
    """Return labels with wrong ones replaced by -1, which is no class."""
    if is_list(labels.type):
        return labels
    return pa.array(np.where(wrong, -1, labels.fill_null(0).to_numpy()), labels.type, mask=~wrong & ~valid_rows(labels))

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
from batchmax.outputs import OUTPUTS
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.statuses import LAST_BAD, STATUS_NAMES, Status
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
    """

    def __init__(self, output: ScoredOutput) -> None:
        self._options = options = output.metadata.options
        self._label = options.label if options.label in output.schema.names else None
        self._columns = {name: columns[0] for name, columns in output.columns.items()}
        self._first = next(iter(self._columns.values()))
        kept = {name: columns for name, columns in output.columns.items() if name in OUTPUTS}
        names = {self._label, *(columns[0] for columns in kept.values())}
        fields = [field for field in output.schema if field.name in names]
        schema = pa.schema([field.with_type(plain_type(field.type).value_type) for field in fields])
        self._nesting = Nesting(options.logits or "", self._label, schema, is_large=False, shift=options.shift)
        metadata = replace(output.metadata, outputs=tuple(kept), options=replace(options, shift=False, top_k=None))
        self.output = replace(output, schema=schema, columns=kept, metadata=metadata)

    def flatten(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the tokens of a batch of rows.

        Raises
        ------
        WrongRowError
            The lists of a row have different lengths, or a column for whole rows doesn't follow from them.
        """
        lists = {name: plain_array(column_array(batch, name)) for name in self._columns.values()}
        valid, lengths = valid_rows(lists[self._first]), _lengths(lists[self._first])
        for name, array in lists.items():
            wrong = (valid_rows(array) != valid) | (_lengths(array) != lengths)
            fail_at_first(wrong, lambda _, n=name: f"{n} and {self._first} have different lengths")
        tokens = Tokens(batch, lengths, ~valid, 0, ends=True)
        if "loss" in self._columns:
            self._check_totals(tokens, lists[self._columns["loss"]].flatten())
        if "status" in self._columns:
            self._check_statuses(tokens, lists[self._columns["status"]].flatten())
        columns = {name: array.flatten() for name, array in lists.items()}
        if self._label is not None:
            labels, known = token_labels(tokens, self._nesting)
            if known is not None and labels is not None and not is_list(labels.type):
                # -1 is no class.
                labels = pc.if_else(pa.array(known != Status.OK), pa.scalar(-1, labels.type), labels)
            columns[self._label] = labels
        schema = self.output.schema
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def check_row(self, batch: pa.RecordBatch, status: int, n_losses: int, *, is_null: bool) -> None:
        """Check the columns for whole rows of a batch of one row, given its status and number of tokens with a loss.

        Raises
        ------
        WrongRowError
            A column differs.
        """
        fail_at_first(
            valid_rows(column_array(batch, self._first)) == is_null,
            lambda _: f"{self._first} is {'not ' * is_null}null, but the logits are {'not ' * (not is_null)}null",
        )
        codes = self.row_statuses(batch)
        if codes is not None and codes[0] != status:
            raise WrongRowError(f"status is {STATUS_NAMES[codes[0]]}, expected {STATUS_NAMES[status]}", 0)
        if "loss" in self._columns:
            number = batch.column(self._options.prefix + "n_tokens")[0].as_py()
            if number != (expected := None if status <= LAST_BAD else n_losses):
                raise WrongRowError(f"n_tokens is {number}, expected {expected}", 0)

    def row_statuses(self, batch: pa.RecordBatch) -> Array | None:
        """Return the status codes of the rows; None if the output has no status column."""
        return status_codes(batch, self._options.prefix + "status") if "status" in self._columns else None

    def row_of(self, batch: pa.RecordBatch, token: int) -> int:
        """Return the row of the batch that a token belongs to."""
        lengths = _lengths(plain_array(column_array(batch, self._first)))
        return int(np.searchsorted(np.cumsum(lengths), token, side="right"))

    def _check_totals(self, tokens: Tokens, losses: pa.Array) -> None:
        """Check the columns that aggregate the losses of a row, where the losses alone determine them."""
        has_loss = valid_rows(losses)
        numbers = losses.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
        row, n_rows = tokens.places()[0], tokens.n_rows
        counts = np.bincount(row, weights=has_loss, minlength=n_rows)
        sums = np.bincount(row, weights=np.where(np.isnan(numbers), 0.0, numbers), minlength=n_rows)
        is_scored = valid_rows(column_array(tokens.rows, self._options.prefix + "n_tokens")) & (counts > 0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            means = sums / counts
            # A loss below the normal range of float32 has fewer digits.
            expected: dict[str, tuple[Array, Array, str]] = {
                "n_tokens": (counts, np.zeros(n_rows), "{:.0f} tokens have a loss"),
                "sum_loss": (sums, SLACK * np.abs(sums) + counts * SMALLEST_LOSS, "the losses sum to {:.9g}"),
            }
            if self._options.class_weights is None:
                expected["mean_loss"] = means, SLACK * np.abs(means) + SMALLEST_LOSS, "the losses give {:.9g}"
                if self._options.is_usual and not self._options.label_smoothing:
                    values = np.exp(means)
                    slack = SLACK * (1.0 + np.abs(means)) * values + SMALLEST_LOSS
                    expected["perplexity"] = values, slack, "the losses give {:.9g}"
            for name, (values, slack, text) in expected.items():
                array = column_array(tokens.rows, self._options.prefix + name)
                given = array.fill_null(0).to_numpy()
                right = (given == values) | (np.isfinite(values) & (np.abs(given - values) <= slack))
                is_null = is_scored & ~valid_rows(array)
                fail_at_first(is_null, lambda at, n=name, v=values, t=text: f"{n} is null, but {t.format(v[at])}")
                fail_at_first(
                    valid_rows(array) & ~right,
                    lambda at, n=name, g=given, v=values, t=text: f"{n} is {g[at]:.9g}, but {t.format(v[at])}",
                )

    def _check_statuses(self, tokens: Tokens, statuses: pa.Array) -> None:
        """Check the statuses of rows, which follow from the statuses of their tokens."""
        found = pc.index_in(plain_array(statuses).cast(pa.string()), value_set=pa.array(STATUS_NAMES))
        codes = found.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint8)
        expected = SequenceTally(shift=self._nesting.shift).add(tokens, codes).status
        given = status_codes(tokens.rows, self._options.prefix + "status")
        fail_at_first(
            given != expected,
            lambda at: (
                "the row is null, but its status is not null_logits"
                if tokens.missing[at]
                else f"status is {STATUS_NAMES[given[at]]}, but its tokens give {STATUS_NAMES[expected[at]]}"
            ),
        )


def _lengths(array: pa.Array) -> NDArray[np.int64]:
    """Return the length of each list, 0 for null."""
    return np.where(valid_rows(array), extents(array)[1], 0).astype(np.int64)

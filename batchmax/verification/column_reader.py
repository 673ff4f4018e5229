"""Read the computed columns of a scored batch as arrays, and check that the columns agree on which rows are null.

A null marks a row without results: a bad row, or for loss columns a row without a label. Which rows may be null follows
from the bad-row policy, the statuses and the labels. The values themselves are checked in ``invariants``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, column_types, number_values, plain_array, plain_type, valid_rows
from batchmax.columns.labels import IGNORED_INDEX, LabelColumn, Labels, find_label, read_labels
from batchmax.columns.logits_column import LogitsColumn
from batchmax.columns.matrices import read_matrix
from batchmax.errors import DataError, UsageError
from batchmax.outputs import (
    CLASS_OUTPUTS,
    LAST_BAD,
    LAST_WITHOUT_LOSS,
    LAST_WITHOUT_PROBS,
    OUTPUTS,
    STATUS_NAMES,
    Status,
)
from batchmax.runtime.text import quantity
from batchmax.verification.scored_output import ScoredOutput

Array = NDArray[Any]


class WrongRowError(DataError):
    """A check failed for a row of a batch; ``row`` is its number in the batch."""

    def __init__(self, what: str, row: int) -> None:
        super().__init__(what, where=f"row {row:,} of the batch")
        self.row = row


@dataclass(frozen=True, eq=False)
class RowValues:
    """The computed columns of n rows.

    Attributes
    ----------
    status
        Status codes (:class:`batchmax.outputs.Status`), or None if the output has no status column.
    has_probs, has_loss
        Masks of the rows that have probabilities, and of the rows that have a loss.
    values
        The other outputs by name: (n,) or (n, K), floats as float64, unspecified values in null rows.
    labels
        The labels, or None if they aren't known.
    """

    status: Array | None
    has_probs: Array
    has_loss: Array
    values: dict[str, Array]
    labels: Labels | None


class RowReader:
    """Reads the computed columns of one output, one batch at a time.

    Attributes
    ----------
    label_note
        Why the labels can't be read; empty if they can, or if there are none.
    """

    def __init__(self, output: ScoredOutput) -> None:
        self._metadata = output.metadata
        self._options = output.metadata.options
        self._classes = pa.array(self._options.classes or (), pa.string())
        self._columns = output.columns
        self._types = column_types(output.schema)
        self._label, self.label_note = self._find_label(output.schema)

    def read(self, batch: pa.RecordBatch) -> RowValues:
        """Return the values of a batch.

        Raises
        ------
        WrongRowError
            A null, a status or a label contradicts another column.
        """
        status = self._status(batch)
        has_probs, has_loss = self._presence(batch, status)
        values = {name: self._values(batch, name, has_probs) for name in self._columns if name != "status"}
        labels = self._read_labels(batch, status, has_probs, has_loss)
        return RowValues(status, has_probs, has_loss, values, labels)

    def use_label(self, label: LabelColumn | None) -> None:
        """Use the label column as the inputs define it, if the output has that column."""
        if label is not None and label.name in self._types:
            self._label, self.label_note = label, ""

    def _find_label(self, schema: pa.Schema) -> tuple[LabelColumn | None, str]:
        """Return the label column and an empty text, or None and why the labels can't be read."""
        name = self._options.label
        if name == "none" or name is None:
            return None, ""
        if name not in self._types:
            return None, f"the output has no column {name!r}, so losses are not compared with the labels"
        try:
            found = find_label(schema, self._options, self._options.classes)
        except UsageError as error:
            return None, f"the labels are not checked: {error.what}"
        if found is not None and found.kind == "name" and not _is_text(self._types[name]):
            # A ClassLabel column of Hugging Face holds indices; the output doesn't keep its metadata.
            if found.lookup != {str(index): index for index in range(self._metadata.n_classes)}:
                what = "the labels and the class names are numbers, so the labels can be indices or names"
                return None, f"{what}; to check them, name the inputs"
            found = LabelColumn(found.name, "index", None, found.why)
        return found, ""

    def _status(self, batch: pa.RecordBatch) -> Array | None:
        if "status" not in self._columns:
            return None
        codes = status_codes(batch, self._columns["status"][0])
        if self._options.on_bad_row != "null":
            fail_at_first(
                codes <= LAST_BAD,
                lambda row: f"status is {STATUS_NAMES[codes[row]]}, but --on-bad-row was {self._options.on_bad_row}",
            )
        return codes

    def _presence(self, batch: pa.RecordBatch, status: Array | None) -> tuple[Array, Array]:
        """Return which rows have probabilities and which have a loss; all columns must agree."""
        found: dict[bool, tuple[str, Array]] = {}
        for output, names in self._columns.items():
            if output == "status":
                continue
            needs_label = output in OUTPUTS and OUTPUTS[output].needs_label
            for name in names:
                valid = valid_rows(column_array(batch, name))
                other, expected = found.setdefault(needs_label, (name, valid))
                fail_at_first(valid != expected, lambda _, a=name, b=other: f"only one of {a} and {b} is null")
        for needs_label, (name, valid) in found.items():
            if status is not None:
                last = LAST_WITHOUT_LOSS if needs_label else LAST_WITHOUT_PROBS
                fail_at_first(
                    valid != (status > last),
                    lambda row, n=name, v=valid: (
                        f"{n} is {'not ' * bool(v[row])}null, but the status is {STATUS_NAMES[status[row]]}"
                    ),
                )
            if not needs_label and self._options.on_bad_row != "null":
                what = f"{name} is null, but --on-bad-row was {self._options.on_bad_row}"
                fail_at_first(~valid, lambda _, w=what: w)
        everywhere = np.ones(batch.num_rows, np.bool_)
        has_loss = found[True][1] if True in found else everywhere
        has_probs = found[False][1] if False in found else has_loss
        if True in found:
            fail_at_first(
                has_loss & ~has_probs, lambda _: f"{found[False][0]} is null, but {found[True][0]} is not null"
            )
        return has_probs, has_loss

    def _values(self, batch: pa.RecordBatch, output: str, has_probs: Array) -> Any:
        """Return an output's values, 0 in null rows; floats as float64, other types unchanged."""
        names = self._columns[output]
        if output in {"top_k_classes", "top_k_probs"}:
            return self._top_k(batch, names[0], has_probs)
        kind = OUTPUTS[output].kind
        if kind == "matrix":
            form = LogitsColumn(names, self._metadata.layout, self._metadata.n_classes, np.dtype(np.float64))
            matrix, statuses = read_matrix(batch, form, self._metadata.n_classes)
            if statuses is not None:
                fail_at_first(
                    has_probs & (statuses != Status.OK),
                    lambda _: f"{names[0]} does not have {self._metadata.n_classes:,} numbers",
                )
            return matrix
        array = column_array(batch, names[0])
        if output in CLASS_OUTPUTS and self._options.classes is not None:
            found = pc.index_in(plain_array(array).cast(pa.string()), value_set=self._classes)
            fail_at_first(
                valid_rows(array) & ~valid_rows(found),
                lambda row: f"{names[0]} is {array[row].as_py()!r}, which is not a class",
            )
            array = found
        missing = pa.scalar(value=False) if kind == "bool" else pa.scalar(0, array.type)
        values = pc.fill_null(array, missing).to_numpy(zero_copy_only=False)
        return values.astype(np.float64) if kind == "float" else values

    def _top_k(self, batch: pa.RecordBatch, name: str, has_probs: Array) -> Array:
        array, k = column_array(batch, name), self._options.top_k or 0
        lengths = pc.fill_null(pc.list_value_length(array), k).to_numpy(zero_copy_only=False)
        fail_at_first(
            has_probs & (lengths != k), lambda row: f"{name} has {quantity(int(lengths[row]), 'value')}, not {k}"
        )
        flat = array.flatten()
        if pa.types.is_string(flat.type):
            flat = pc.index_in(flat, value_set=self._classes)
        numbers = number_values(flat).astype(np.float64)
        numbers[~valid_rows(flat)] = math.nan
        values: Array = np.zeros((batch.num_rows, k), np.float64)
        values[has_probs] = numbers.reshape(-1, k)
        fail_at_first(np.isnan(values).any(axis=1), lambda _: f"{name} has a null or an invalid value")
        return values

    def _read_labels(
        self, batch: pa.RecordBatch, status: Array | None, has_probs: Array, has_loss: Array
    ) -> Labels | None:
        """Return the labels after checking that they agree with which rows have a loss."""
        if self._label is None:
            return None
        k = self._metadata.n_classes
        labels = read_labels(batch, self._label, k, np.dtype(np.float64), self._options.ignore_index)
        found = np.full(batch.num_rows, Status.OK, np.uint8) if labels.status is None else labels.status.copy()
        if labels.indices is not None:
            is_index = found == Status.OK
            ignored = labels.indices == labels.ignore_index
            found[is_index & ignored] = Status.IGNORED
            found[is_index & ~ignored & ((labels.indices < 0) | (labels.indices >= k))] = Status.BAD_LABEL
        with_loss = any(OUTPUTS[name].needs_label for name in self._columns if name in OUTPUTS)
        if with_loss:
            fail_at_first(
                has_loss & (found != Status.OK),
                lambda row: f"the row has a loss, but its label is {STATUS_NAMES[found[row]]}",
            )
            if any(name not in OUTPUTS or not OUTPUTS[name].needs_label for name in self._columns if name != "status"):
                fail_at_first(
                    has_probs & ~has_loss & (found == Status.OK), lambda _: "the row has a label, but no loss"
                )
        if status is not None:
            differs = (status > LAST_WITHOUT_PROBS) & (
                np.where(status == Status.MASKED_LABEL, Status.OK, status) != found
            )
            fail_at_first(
                differs,
                lambda row: f"status is {STATUS_NAMES[status[row]]}, but the label is {STATUS_NAMES[found[row]]}",
            )
        # Rows without a valid label get class 0 as a placeholder, which is never read.
        indices = None if labels.indices is None else np.where(found == Status.OK, labels.indices, 0)
        return Labels(indices, labels.targets, found, IGNORED_INDEX)


def status_codes(batch: pa.RecordBatch, name: str) -> Array:
    """Return the codes of a column of statuses, (n,) uint8.

    Raises
    ------
    WrongRowError
        A value isn't a status.
    """
    texts = plain_array(column_array(batch, name))
    found = pc.fill_null(pc.index_in(texts, value_set=pa.array(STATUS_NAMES, texts.type)), len(Status))
    codes: Array = found.to_numpy(zero_copy_only=False).astype(np.uint8)
    fail_at_first(codes >= len(Status), lambda row: f"status {texts[row].as_py()!r} does not exist")
    return codes


def fail_at_first(wrong: Any, what: Any, rows: Array | None = None) -> None:
    """Raise :class:`WrongRowError` for the first wrong row, with the text that ``what`` returns for it.

    ``rows`` has the numbers of the checked rows in the batch if some aren't checked.
    """
    if wrong.any():
        row = int(np.argmax(wrong))
        raise WrongRowError(what(row), row if rows is None else int(rows[row]))


def _is_text(kind: pa.DataType) -> bool:
    plain = plain_type(kind)
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_binary(plain))

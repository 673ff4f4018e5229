"""Read the computed columns of a scored batch as arrays, and check that the columns agree on which rows are null.

A null marks a row without results: a bad row, or for loss columns a row without a label. Which rows may be null follows
from the bad-row policy, the statuses and the labels. The values themselves are checked in ``invariants``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array, column_types, number_values, plain_array, plain_type, valid_rows
from batchmax.columns.class_columns import is_pattern
from batchmax.columns.label_column import LabelColumn, Labels
from batchmax.columns.labels import find_label, read_labels
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.columns.matrices import read_matrix
from batchmax.errors import DataError, UsageError
from batchmax.outputs import CLASS_OUTPUTS, OUTPUTS
from batchmax.runtime.text import quantity
from batchmax.statuses import LAST_BAD, LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, STATUS_NAMES, Status
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
        Status codes (:class:`batchmax.statuses.Status`), or None if the output has no status column.
    has_probs, has_loss
        Masks of the rows that have probabilities, and of the rows that have a loss.
    values
        The other outputs by name: (n,) or (n, K), floats as float64, unspecified values in null rows.
    labels
        Class indices, undefined where there is no loss; None if the labels are distributions or aren't known.
    targets
        The labels as distributions, or the targets of classes, (n, K); None if they are indices or aren't known.
    numbers
        The numbers of the rows in their batch.
    """

    status: Array | None
    has_probs: Array
    has_loss: Array
    values: dict[str, Array]
    labels: Array | None
    targets: Array | None
    numbers: Array

    def present(self, output: str) -> Array:
        """Return the mask of the rows that have a value of an output."""
        return self.has_loss if needs_label(output) else self.has_probs

    def where(self, kept: Array) -> RowValues:
        """Return the values of some of the rows."""
        if kept.all():
            return self
        arrays: dict[str, Any] = {name: one[kept] for name, one in vars(self).items() if isinstance(one, np.ndarray)}
        return replace(self, values={name: array[kept] for name, array in self.values.items()}, **arrays)

    def fail_at_first(self, wrong: Any, what: Any) -> None:
        """Raise :class:`WrongRowError` for the first wrong row, with the text that ``what`` returns for it."""
        fail_at_first(wrong, what, self.numbers)


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
        self._columns = output.checked_columns
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
        labels, targets = self._read_labels(batch, status, has_probs, has_loss, values.get("losses"))
        return RowValues(status, has_probs, has_loss, values, labels, targets, np.arange(batch.num_rows))

    def use_label(self, label: LabelColumn | None) -> None:
        """Use the label column as the inputs define it, if the output has that column."""
        if label is not None and all(name in self._types for name in label.names):
            self._label, self.label_note = label, ""

    def _find_label(self, schema: pa.Schema) -> tuple[LabelColumn | None, str]:
        """Return the label column and an empty text, or None and why the labels can't be read."""
        name = self._options.label
        if name == "none" or name is None:
            return None, ""
        if name not in self._types and not is_pattern(name):
            return None, f"the output has no column {name!r}, so losses are not compared with the labels"
        try:
            found = find_label(schema, self._options, self._options.classes, self._metadata.n_classes)
        except UsageError as error:
            return None, f"the labels are not checked: {error.what}; to check them, name the inputs"
        # Outputs of earlier versions don't record whether labels are the indices of a Hugging Face ClassLabel.
        is_number = name in self._types and pa.types.is_primitive(plain_type(self._types[name]))
        indices = {str(index): index for index in range(self._metadata.n_classes)}
        if found is not None and found.kind == "name" and is_number and found.lookup != indices:
            what = "the labels and the class names are numbers, so the labels can be indices or names"
            return None, f"{what}; to check them, name the inputs"
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
        masks: dict[bool, tuple[str, Array]] = {}
        for output, names in self._columns.items():
            if output == "status":
                continue
            present = [(name, valid_rows(column_array(batch, name))) for name in names]
            if output == "losses" and self._metadata.is_split(output):
                # Each column is null where its class has no label; a row with a loss has a label of some class.
                present = [(names[0], np.any([valid for _, valid in present], axis=0))]
            for name, valid in present:
                other, expected = masks.setdefault(needs_label(output), (name, valid))
                fail_at_first(valid != expected, lambda _, a=name, b=other: f"only one of {a} and {b} is null")
        for with_label, (name, valid) in masks.items():
            if status is not None:
                fail_at_first(
                    valid != (status > (LAST_WITHOUT_LOSS if with_label else LAST_WITHOUT_PROBS)),
                    lambda row, n=name, v=valid: (
                        f"{n} is {'not ' * bool(v[row])}null, but the status is {STATUS_NAMES[status[row]]}"
                    ),
                )
            if not with_label and self._options.on_bad_row != "null":
                what = f"{name} is null, but --on-bad-row was {self._options.on_bad_row}"
                fail_at_first(~valid, lambda _, w=what: w)
        _, has_loss = masks.get(True, ("", np.ones(batch.num_rows, np.bool_)))
        name, has_probs = masks.get(False, ("", has_loss))
        if True in masks:
            fail_at_first(has_loss & ~has_probs, lambda _: f"{name} is null, but {masks[True][0]} is not null")
        return has_probs, has_loss

    def _values(self, batch: pa.RecordBatch, output: str, has_probs: Array) -> Any:
        """Return an output's values, 0 in null rows; floats as float64, other types unchanged."""
        names = self._columns[output]
        if output in {"top_k_classes", "top_k_probs"}:
            return self._top_k(batch, names[0], has_probs)
        if output == "preds":
            return self._classes_above_half(batch, names[0])
        if output == "losses":
            return self._losses(batch, names)
        kind = OUTPUTS[output].kind
        if kind == "matrix":
            n, layout = self._metadata.n_values, self._metadata.layout
            form = LogitsColumn(names, "wide" if layout == "single" else layout, n, np.dtype(np.float64))
            matrix, statuses = read_matrix(batch, form, n)
            if statuses is not None:
                fail_at_first(
                    has_probs & (statuses != Status.OK),
                    lambda _: f"{names[0]} does not have {n:,} numbers",
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
        values = pc.fill_null(array, pa.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)
        return values.astype(np.float64) if kind == "float" else values

    def _losses(self, batch: pa.RecordBatch, names: tuple[str, ...]) -> Array:
        """Return the losses of classes, (n, K) float64; NaN where they are null."""
        k, all_rows = self._metadata.n_classes, np.arange(batch.num_rows)
        if self._metadata.is_split("losses"):
            return np.stack([_with_nans(plain_array(column_array(batch, name)), all_rows) for name in names], axis=1)
        lists = plain_array(column_array(batch, names[0]))
        lengths = pc.fill_null(pc.list_value_length(lists), k).to_numpy(zero_copy_only=False)
        fail_at_first(lengths != k, lambda row: f"losses has {quantity(int(lengths[row]), 'value')}, not {k:,}")
        valid = valid_rows(lists)
        values = np.full((batch.num_rows, k), np.nan)
        values[valid] = _with_nans(lists.flatten(), np.repeat(all_rows[valid], k)).reshape(-1, k)
        return values

    def _classes_above_half(self, batch: pa.RecordBatch, name: str) -> Array:
        """Return which classes a column of lists of classes has, (n, K) bool."""
        array, k = plain_array(column_array(batch, name)), self._metadata.n_classes
        flat = plain_array(array.flatten())
        if self._options.classes is not None:
            flat = pc.index_in(flat, value_set=self._classes)
        indices = pc.fill_null(flat.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(array)), pc.fill_null(pc.list_value_length(array), 0).to_numpy())
        wrong = (indices < 0) | (indices >= k)
        wrong[1:] |= (indices[1:] <= indices[:-1]) & (rows[1:] == rows[:-1])
        bad = np.zeros(len(array), np.bool_)
        bad[rows[wrong]] = True
        fail_at_first(bad, lambda _: f"{name} is not a list of different classes in their order")
        found = np.zeros((len(array), k), np.bool_)
        found[rows, indices] = True
        return found

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
        self, batch: pa.RecordBatch, status: Array | None, has_probs: Array, has_loss: Array, losses: Array | None
    ) -> tuple[Array | None, Array | None]:
        """Return the labels as indices or distributions, and check that they agree with which rows have a loss.

        ``losses`` has those of classes, NaN where they are null; None if the output has none.
        """
        if self._label is None:
            return None, None
        k = self._metadata.n_classes
        labels = read_labels(batch, self._label, k, np.dtype(np.float64), self._options.ignore_index)
        expected = label_statuses(labels, batch.num_rows, k)
        if any(map(needs_label, self._columns)):
            fail_at_first(
                has_loss & (expected != Status.OK),
                lambda row: f"the row has a loss, but its label is {STATUS_NAMES[expected[row]]}",
            )
            fail_at_first(has_probs & ~has_loss & (expected == Status.OK), lambda _: "the row has a label, but no loss")
        if labels.targets is not None and losses is not None:
            differs = has_loss & (np.isnan(losses) != np.isnan(labels.targets)).any(axis=1)
            fail_at_first(differs, lambda _: "losses is not null where the label is missing, or the reverse")
        if status is not None:
            differs = (status > LAST_WITHOUT_PROBS) & (
                np.where(status == Status.MASKED_LABEL, Status.OK, status) != expected
            )
            fail_at_first(
                differs,
                lambda row: f"status is {STATUS_NAMES[status[row]]}, but the label is {STATUS_NAMES[expected[row]]}",
            )
        return labels.indices, labels.targets


def _with_nans(array: pa.Array, rows: Array) -> Array:
    """Return losses of rows as float64, NaN in place of nulls; raise if one is NaN."""
    valid, values = valid_rows(array), number_values(array).astype(np.float64)
    fail_at_first(valid & np.isnan(values), lambda _: "losses has a NaN", rows)
    return np.where(valid, values, np.nan)


def needs_label(output: str) -> bool:
    """Return whether an output exists only with labels."""
    return output in OUTPUTS and OUTPUTS[output].needs_label


def last_without(output: str) -> int:
    """Return the status up to which rows don't have an output."""
    return LAST_WITHOUT_LOSS if needs_label(output) else LAST_WITHOUT_PROBS


def label_statuses(labels: Labels, n_rows: int, n_classes: int) -> Array:
    """Return the statuses of rows as far as they follow from their labels, (n,) uint8."""
    status = np.full(n_rows, Status.OK, np.uint8) if labels.status is None else labels.status.copy()
    if labels.indices is not None:
        is_index = status == Status.OK
        status[is_index & ((labels.indices < 0) | (labels.indices >= n_classes))] = Status.BAD_LABEL
        status[is_index & (labels.indices == labels.ignore_index)] = Status.IGNORED
    return status


def status_codes(batch: pa.RecordBatch, name: str) -> Array:
    """Return the codes of a column of statuses, (n,) uint8.

    Raises
    ------
    WrongRowError
        A value isn't a status.
    """
    texts = plain_array(column_array(batch, name))
    indices = pc.fill_null(pc.index_in(texts, value_set=pa.array(STATUS_NAMES, texts.type)), len(Status))
    codes: Array = indices.to_numpy(zero_copy_only=False).astype(np.uint8)
    fail_at_first(codes >= len(Status), lambda row: f"status {texts[row].as_py()!r} does not exist")
    return codes


def fail_at_first(wrong: Any, what: Any, numbers: Array | None = None) -> None:
    """Raise :class:`WrongRowError` for the first wrong row, with the text that ``what`` returns for it.

    ``numbers`` are the numbers of the rows; None if they are in order from 0.
    """
    if wrong.any():
        row = int(np.argmax(wrong))
        raise WrongRowError(what(row), row if numbers is None else int(numbers[row]))

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
from batchmax.verification.scored_output import Scored

Array = NDArray[Any]

AMBIGUOUS = "the labels are numbers, and so are the class names: which of the two is meant, only the inputs say"


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
    """Reads the computed columns of one output, one batch at a time; ``notes`` lists what it can't read, and why."""

    def __init__(self, scored: Scored) -> None:
        self.notes: list[str] = []
        self._claims = scored.claims
        self._options = scored.claims.options
        self._columns = scored.columns
        self._types = column_types(scored.schema)
        self._label = self._find_label(scored.schema)

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
            self._label = label
            self.notes[:] = [note for note in self.notes if note != AMBIGUOUS]

    def _find_label(self, schema: pa.Schema) -> LabelColumn | None:
        """Return the label column if the output has it and its type of labels is known."""
        name, classes = self._options.label, self._options.classes
        if name == "none" or name is None:
            return None
        if name not in self._types:
            self.notes.append(f"there is no column {name!r}, so nothing is held against the labels")
            return None
        try:
            found = find_label(schema, self._options, classes)
        except UsageError as error:
            self.notes.append(f"the labels are not read: {error.what}")
            return None
        if found is not None and found.kind == "name" and not _is_text(self._types[name]):
            # A ClassLabel column of Hugging Face holds indices; the output doesn't keep its metadata.
            if found.lookup != {str(index): index for index in range(self._claims.n_classes)}:
                self.notes.append(AMBIGUOUS)
                return None
            return LabelColumn(found.name, "index", None, found.why)
        return found

    def _status(self, batch: pa.RecordBatch) -> Array | None:
        if "status" not in self._columns:
            return None
        texts = plain_array(column_array(batch, self._columns["status"][0]))
        found = pc.index_in(texts, value_set=pa.array(STATUS_NAMES, texts.type))
        codes: Array = pc.fill_null(found, 255).to_numpy(zero_copy_only=False).astype(np.uint8)
        refuse(codes == 255, lambda row: f"status is {texts[row].as_py()!r}, which is none")
        if self._options.on_bad_row != "null":
            refuse(
                codes <= LAST_BAD,
                lambda row: f"status is {STATUS_NAMES[codes[row]]}, but the policy was {self._options.on_bad_row}",
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
                refuse(valid != expected, lambda _, a=name, b=other: f"of {a} and {b} one is null and one is not")
        for needs_label, (name, valid) in found.items():
            if status is not None:
                last = LAST_WITHOUT_LOSS if needs_label else LAST_WITHOUT_PROBS
                refuse(
                    valid != (status > last),
                    lambda row, n=name, v=valid: (
                        f"{n} is {'there' if v[row] else 'null'}, but the status is {STATUS_NAMES[status[row]]}"
                    ),
                )
            if not needs_label and self._options.on_bad_row != "null":
                what = f"{name} is null, but the policy for bad rows was {self._options.on_bad_row}"
                refuse(~valid, lambda _, w=what: w)
        everywhere = np.ones(batch.num_rows, np.bool_)
        has_loss = found[True][1] if True in found else everywhere
        has_probs = found[False][1] if False in found else has_loss
        if True in found:
            refuse(has_loss & ~has_probs, lambda _: f"{found[True][0]} is there, and {found[False][0]} is null")
        return has_probs, has_loss

    def _values(self, batch: pa.RecordBatch, output: str, has_probs: Array) -> Any:
        """Return an output's values, 0 in null rows; floats as float64, other types unchanged."""
        names = self._columns[output]
        if output in {"top_k_classes", "top_k_probs"}:
            return self._top_k(batch, names[0], has_probs)
        kind = OUTPUTS[output].kind
        if kind == "matrix":
            form = LogitsColumn(names, self._claims.layout, self._claims.n_classes, np.dtype(np.float64))
            matrix, statuses = read_matrix(batch, form, self._claims.n_classes)
            if statuses is not None:
                refuse(
                    has_probs & (statuses != Status.OK),
                    lambda _: f"{names[0]} has not {self._claims.n_classes:,} numbers",
                )
            return matrix
        array = column_array(batch, names[0])
        if output in CLASS_OUTPUTS and self._options.classes is not None:
            known = pa.array(self._options.classes, pa.string())
            found = pc.index_in(plain_array(array).cast(pa.string()), value_set=known)
            refuse(
                valid_rows(array) & ~valid_rows(found), lambda row: f"{names[0]} is {array[row].as_py()!r}, no class"
            )
            array = found
        missing = pa.scalar(value=False) if kind == "bool" else pa.scalar(0, array.type)
        values = pc.fill_null(array, missing).to_numpy(zero_copy_only=False)
        return values.astype(np.float64) if kind == "float" else values

    def _top_k(self, batch: pa.RecordBatch, name: str, has_probs: Array) -> Array:
        array, k = column_array(batch, name), self._options.top_k or 0
        lengths = pc.fill_null(pc.list_value_length(array), k).to_numpy(zero_copy_only=False)
        refuse(has_probs & (lengths != k), lambda row: f"{name} has {lengths[row]} values, not {k}")
        flat = array.flatten()
        if pa.types.is_string(flat.type):
            flat = pc.index_in(flat, value_set=pa.array(self._options.classes, pa.string()))
        numbers = number_values(flat).astype(np.float64)
        numbers[~valid_rows(flat)] = math.nan
        whole: Array = np.zeros((batch.num_rows, k), np.float64)
        whole[has_probs] = numbers.reshape(-1, k)
        refuse(np.isnan(whole).any(axis=1), lambda _: f"{name} holds a null, or what is no class or number")
        return whole

    def _read_labels(
        self, batch: pa.RecordBatch, status: Array | None, has_probs: Array, has_loss: Array
    ) -> Labels | None:
        """Return the labels after checking that they agree with which rows have a loss."""
        if self._label is None:
            return None
        k = self._claims.n_classes
        labels = read_labels(batch, self._label, k, np.dtype(np.float64), self._options.ignore_index)
        found = np.full(batch.num_rows, Status.OK, np.uint8) if labels.status is None else labels.status.copy()
        if labels.indices is not None:
            usual = found == Status.OK
            ignored = labels.indices == labels.ignore_index
            found[usual & ignored] = Status.IGNORED
            found[usual & ~ignored & ((labels.indices < 0) | (labels.indices >= k))] = Status.BAD_LABEL
        with_loss = any(OUTPUTS[name].needs_label for name in self._columns if name in OUTPUTS)
        if with_loss:
            refuse(
                has_loss & (found != Status.OK),
                lambda row: f"has a loss, but its label is {STATUS_NAMES[found[row]]}",
            )
            if any(name not in OUTPUTS or not OUTPUTS[name].needs_label for name in self._columns if name != "status"):
                refuse(has_probs & ~has_loss & (found == Status.OK), lambda _: "has no loss, but a label")
        if status is not None:
            told = (status > LAST_WITHOUT_PROBS) & (np.where(status == Status.MASKED_LABEL, Status.OK, status) != found)
            refuse(
                told, lambda row: f"status is {STATUS_NAMES[status[row]]}, but its label is {STATUS_NAMES[found[row]]}"
            )
        # Rows without a valid label get class 0 as a placeholder, which is never read.
        indices = None if labels.indices is None else np.where(found == Status.OK, labels.indices, 0)
        return Labels(indices, labels.targets, found, IGNORED_INDEX)


def refuse(wrong: Any, what: Any, rows: Array | None = None) -> None:
    """Raise for the first wrong row; ``rows`` are the numbers of the checked rows in the batch, if not all."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise WrongRowError(what(row), row if rows is None else int(rows[row]))


def _is_text(kind: pa.DataType) -> bool:
    plain = plain_type(kind)
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_binary(plain))

"""Errors about bad rows: where the row is, what is wrong with it, and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from batchmax.columns.job import Job
from batchmax.columns.matrices import first_row_length, read_matrix
from batchmax.errors import BadRowError
from batchmax.outputs import Status
from batchmax.runtime.text import close_match

NO_ANSWER = {
    "sum": "the logits are all 0, or some are below 0 and some above, or one is -inf",
    "taylor": "a logit is -inf, or infinite over the temperature",
    "spherical": "the logits are all 0, or one is -inf",
}
"""Why an activation can't be computed for a row without NaN and +inf."""


def describe_bad_row(batch: pa.RecordBatch, row: int, status: int, job: Job) -> tuple[str, str]:
    """Return what is wrong with a bad row, and a hint for this kind of error (empty if there is none)."""
    if status == Status.BAD_LENGTH:
        length = first_row_length(batch.slice(row, 1), job.logits) or 0
        return f"{length:,} logits, where rows have {job.n_classes:,}", ""
    if status in {Status.NAN_LOGIT, Status.INF_LOGIT}:
        matrix, _ = read_matrix(batch.slice(row, 1), job.logits, job.n_classes)
        odd = np.isnan(matrix[0]) if status == Status.NAN_LOGIT else matrix[0] == np.inf
        what = "NaN" if status == Status.NAN_LOGIT else "+inf"
        if job.options.input == "probs":
            odd = matrix[0] < 0 if (matrix[0] < 0).any() else ~np.isfinite(matrix[0])
            what = f"{matrix[0][np.argmax(odd)]:g} is no probability"
        return f"{what} at class {int(np.argmax(odd))}", ""
    if status == Status.ALL_MASKED:
        return "every logit is -inf", ""
    if status == Status.NO_ANSWER:
        return f"{job.options.activation} has no answer: {NO_ANSWER[job.options.activation]}", ""
    if status == Status.BAD_LABEL and job.label is not None:
        value = batch.slice(row, 1)
        given = _plain_value(value, job.label.name)
        if job.nesting is not None and (given is None or (job.label.kind == "index" and 0 <= given < job.n_classes)):
            return "the row has not as many labels as tokens", ""
        if job.label.kind == "distribution":
            if not job.label.sums_to_1:
                return f"the labels are not {job.n_classes:,} numbers from 0 to 1", ""
            return f"the labels are no distribution over {job.n_classes:,} classes", ""
        if given == job.n_classes and job.label.kind == "index":
            return (
                f"label {given} is not a class: valid labels are 0 to {job.n_classes - 1:,}",
                f"if labels count from 1, name them: --classes {_names_from_1(job.n_classes)}",
            )
        if job.label.kind == "name":
            close = close_match(str(given), job.classes or ())
            return f"label {given!r} is no class name", close.rstrip("; ")
        ignored = isinstance(given, int | float) and given < 0
        hint = f"if it means that a row has no label: --ignore-index {given}" if ignored else ""
        return f"label {given} is not a class: valid labels are 0 to {job.n_classes - 1:,}", hint
    return "the logits are null", ""


def bad_row(where: str, what: str, hint: str = "", look: str = "") -> BadRowError:
    """Return the error for a bad row."""
    return BadRowError(
        what, where=where, remedy="; ".join(part for part in (hint, look, "go on: --on-bad-row null") if part)
    )


def _names_from_1(n_classes: int) -> str:
    if n_classes <= 10:
        return ",".join(str(number) for number in range(1, n_classes + 1))
    return f"FILE, with the lines 1 to {n_classes}"


def _plain_value(batch: pa.RecordBatch, name: str) -> Any:
    head, *inner = name.split(".") if name not in batch.schema.names else [name]
    value = batch.column(head)[0].as_py()
    for part in inner:
        value = None if value is None else value[part]
    return value

"""Errors about bad rows: where the row is, what is wrong with it, and the remedy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_array
from batchmax.columns.job import Job
from batchmax.columns.matrices import first_row_length, read_matrix
from batchmax.errors import BadRowError
from batchmax.runtime.text import close_match, quantity
from batchmax.statuses import Status


def describe_bad_row(batch: pa.RecordBatch, row: int, status: int, job: Job) -> tuple[str, str]:
    """Return what is wrong with a bad row, and a hint for this kind of error (empty if there is none)."""
    if status == Status.BAD_LENGTH:
        length = first_row_length(batch.slice(row, 1), job.logits) or 0
        return f"{quantity(length, 'logit')}, not {job.n_logits:,}", ""
    if status in {Status.NAN_LOGIT, Status.INF_LOGIT}:
        matrix, _ = read_matrix(batch.slice(row, 1), job.logits, job.n_classes)
        logits = matrix[0]
        if job.options.input == "probs":
            at = int(np.argmax(logits < 0 if (logits < 0).any() else ~np.isfinite(logits)))
            return f"{logits[at]:g} at class {at} is not a probability", ""
        is_nan = status == Status.NAN_LOGIT
        at = int(np.argmax(np.isnan(logits) if is_nan else logits == np.inf))
        if job.logits.is_one_logit:
            return "the logit is NaN", ""
        return f"{'NaN' if is_nan else '+inf'} at class {at}", ""
    if status == Status.ALL_MASKED:
        return "every logit is -inf", ""
    if status == Status.NO_ANSWER:
        activation = ACTIVATIONS[job.options.activation]
        return f"{activation.name} is undefined for this row: {activation.undefined}", ""
    if status == Status.BAD_LABEL and job.label is not None:
        given = column_array(batch, job.label.name)[row].as_py()
        if job.nesting is not None and (given is None or (job.label.kind == "index" and 0 <= given < job.n_classes)):
            return "the row does not have one label for each token", ""
        if job.label.kind == "distribution":
            if not job.label.sums_to_1:
                return f"the labels are not {job.n_classes:,} numbers from 0 to 1", ""
            what = f"the labels are not {job.n_classes:,} probabilities that sum to 1"
            return what, "if several classes can be right: --activation sigmoid"
        if given == job.n_classes and job.label.kind == "index":
            return (
                f"label {given} is not a class: valid labels are 0 to {job.n_classes - 1:,}",
                f"if labels start at 1: --classes {_names_from_1(job.n_classes)}",
            )
        if job.label.kind == "name":
            close = close_match(str(given), job.classes or ())
            return f"label {given!r} is not a class name", close.rstrip("; ")
        ignored = isinstance(given, int | float) and given < 0
        hint = f"if it marks rows without a label: --ignore-index {given}" if ignored else ""
        return f"label {given} is not a class: valid labels are 0 to {job.n_classes - 1:,}", hint
    return "the logits are null", ""


def bad_row(where: str, what: str, hint: str = "", command: str = "") -> BadRowError:
    """Return the error for a bad row."""
    remedies = (hint, command, "to write nulls instead: --on-bad-row null")
    return BadRowError(what, where=where, remedy="; ".join(remedy for remedy in remedies if remedy))


def _names_from_1(n_classes: int) -> str:
    if n_classes <= 10:
        return ",".join(str(number) for number in range(1, n_classes + 1))
    return f"FILE, a file with the lines 1 to {n_classes}"

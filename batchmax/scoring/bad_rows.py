"""Errors about bad rows: where the row is, what is wrong with it, and the remedy."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_array
from batchmax.columns.job import Job
from batchmax.columns.label_column import LabelColumn
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
        if job.logits.is_one_logit:
            what = {"probs": "a probability", "log_probs": "the logarithm of a probability"}.get(job.logits.holds)
            return ("the logit is NaN" if what is None else f"{logits[1]:g} is not {what}"), ""
        if job.options.input == "probs":
            at = int(np.argmax(logits < 0 if (logits < 0).any() else ~np.isfinite(logits)))
            return f"{logits[at]:g} at class {at} is not a probability", ""
        is_nan = status == Status.NAN_LOGIT
        at = int(np.argmax(np.isnan(logits) if is_nan else logits == np.inf))
        return f"{'NaN' if is_nan else '+inf'} at class {at}", ""
    if status == Status.ALL_MASKED:
        return "every logit is -inf", ""
    if status == Status.NO_ANSWER:
        activation = ACTIVATIONS[job.options.activation_name]
        return f"{activation.name} is undefined for this row: {activation.undefined}", ""
    if status == Status.BAD_LABEL and job.label is not None:
        if job.label.is_multi_label:
            return _describe_classes(batch.slice(row, 1), job, job.label)
        given = column_array(batch, job.label.name)[row].as_py()
        if job.nesting is not None and (given is None or (job.label.kind == "index" and 0 <= given < job.n_classes)):
            return "the row does not have one label for each token", ""
        if job.label.kind == "distribution":
            what = f"the labels are not {job.n_classes:,} probabilities that sum to 1"
            return what, "" if job.logits.is_one_logit else "if several classes can be right: --activation sigmoid"
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


def _describe_classes(row: pa.RecordBatch, job: Job, label: LabelColumn) -> tuple[str, str]:
    """Return what is wrong with the labels of a multi-label row, and a hint."""
    values = [column_array(row, name)[0].as_py() for name in label.columns]
    values = values or column_array(row, label.name)[0].as_py() or []
    values = [one.decode(errors="replace") if isinstance(one, bytes) else one for one in values]
    if label.kind in {"indices", "names"}:
        classes = label.lookup or range(job.n_classes)
        known = [value if value is None or label.kind == "names" else str(value) for value in values]
        names = [str(one) for one in classes]
        ignored = {None} if label.kind == "names" else {None, str(job.options.ignore_index)}
        left = [one for one in known if one not in ignored]
        hint = "if the lists have a 0 or 1 for each class: --label-format khot" if label.kind == "indices" else ""
        for value in left:
            text = repr(value) if label.lookup else value
            if value not in names:
                kind = "class name" if label.lookup else "class"
                close = close_match(value, names).rstrip("; ") if label.lookup else ""
                valid = "" if label.lookup else f": valid labels are 0 to {job.n_classes - 1:,}"
                return f"label {text} is not a {kind}{valid}", close or hint
            if left.count(value) > 1:
                return f"label {text} is listed twice", hint
    hint = "if the lists have class indices: --label-format indices" if job.options.label_format == "khot" else ""
    if len(values) != job.n_classes:
        return f"{quantity(len(values), 'label')}, not one for each of the {job.n_classes:,} classes", hint
    if label.kind == "distribution":
        return f"the labels are not {job.n_classes:,} numbers from 0 to 1", ""
    fit = {None, 0, 1, job.options.ignore_index}
    unfit = (at for at, one in enumerate(values) if one not in fit and not (isinstance(one, float) and math.isnan(one)))
    at = next(unfit, 0)
    value = values[at] if values else None
    name = f" (column {label.columns[at]!r})" if label.columns else ""
    return f"label {value} at class {at}{name} is not 0 or 1", hint


def bad_row(where: str, what: str, hint: str = "", command: str = "") -> BadRowError:
    """Return the error for a bad row."""
    remedies = (hint, command, "to write nulls instead: --on-bad-row null")
    return BadRowError(what, where=where, remedy="; ".join(remedy for remedy in remedies if remedy))


def _names_from_1(n_classes: int) -> str:
    if n_classes <= 10:
        return ",".join(str(number) for number in range(1, n_classes + 1))
    return f"FILE, a file with the lines 1 to {n_classes}"

"""Computes the output columns from logits.

:func:`score_rows` computes a batch with matrices; :func:`score_table` converts the results to Arrow columns. Doesn't
know files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.job import Job, computed_fields
from batchmax.columns.label_column import Labels
from batchmax.columns.labels import read_labels
from batchmax.columns.logits_layout import OutputLayout
from batchmax.columns.matrices import looks_like_probabilities, read_matrix
from batchmax.columns.result_arrays import (
    DECIDED,
    REASONS,
    classes_column,
    matrix_columns,
    null_nans,
    pred_column,
    status_column,
    vector_column,
)
from batchmax.columns.scored_input import unclear_content
from batchmax.columns.sequences import Tokens
from batchmax.functional.losses import Rows, dense_losses, index_losses, softmax_rows
from batchmax.kernels.elementwise import log_matrix
from batchmax.kernels.moments import row_moments
from batchmax.kernels.ranking import order_rows
from batchmax.kernels.sampling import sample_rows
from batchmax.kernels.top_k import tail_rows, top_k_rows
from batchmax.outputs import CLASS_OUTPUTS, DECISION_OUTPUTS, FLOAT_OUTPUTS, OUTPUTS
from batchmax.parquet.int96 import is_raw
from batchmax.runtime.buffers import Take
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.scoring.activations import activate, correct_statuses, other_losses
from batchmax.scoring.multi_label import activate_classes, check_indices, class_losses, has_one_label
from batchmax.statuses import LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, Status

pc = ImportedWhenUsed("pyarrow.compute")

Array = NDArray[Any]

ROWS_CHECKED = 1024
"""Number of rows of the first chunk that are checked for being probabilities."""


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Results of n rows: (n,) or (n, K) arrays by output name, and what a summary counts.

    ``rows`` is the result of the softmax kernel; without numbers if the classes are independent. Then
    ``n_with_one_label`` is the number of rows with a loss that have exactly one label.
    """

    values: dict[str, Array]
    rows: Rows
    status: NDArray[np.uint8]
    losses: NDArray[np.float64] | None
    nll: NDArray[np.float64] | None
    hits: NDArray[np.bool_] | None
    weights: NDArray[np.float64] | None
    n_with_one_label: int = 0


def read_rows(
    batch: pa.RecordBatch,
    job: Job,
    take: Take = np.empty,
    logits: Array | None = None,
    known: NDArray[np.uint8] | None = None,
) -> tuple[Array, Labels, Array | None]:
    """Return a batch's logits as a read-only matrix, its labels, and the statuses of its rows as far as known.

    ``logits`` is the matrix if it was already read; then the batch need not contain it. ``known`` has statuses that are
    already known.
    """
    matrix, status = read_matrix(batch, job.logits, job.n_classes, take) if logits is None else (logits, None)
    if job.options.input == "probs":
        probs, matrix = matrix, take(matrix.shape, matrix.dtype)
        log_matrix(probs, matrix)
        matrix.flags.writeable = False
    if job.options.scale is not None:
        matrix = np.multiply(matrix, np.array(job.options.scale), out=take(matrix.shape, np.float64))
        matrix += np.array(job.options.bias)
        matrix.flags.writeable = False
    if job.label is None:
        labels = Labels(None, None, None, job.options.ignore_index)
    else:
        labels = read_labels(batch, job.label, job.n_classes, job.logits.dtype, job.options.ignore_index, take)
    if known is not None:
        status = known if status is None else np.minimum(status, known)
    return matrix, labels, status


def score_rows(
    logits: Array,
    labels: Labels,
    row_status: Array | None,
    job: Job,
    take: Take = np.empty,
    first_row: int = 0,
    tokens: Tokens | None = None,
) -> ScoredRows:
    """Compute every output of a job for an (n, K) matrix of logits.

    ``first_row`` is the number of the first row, counted over the whole job; it determines random samples. If rows are
    tokens, ``tokens`` has their sequences.

    Results are in memory from ``take``. Bad rows have NaN or -1; their status is the reason.
    """
    options, activation = job.options, ACTIVATIONS[job.options.activation_name]
    status = take((len(logits),), np.uint8)
    status.fill(Status.OK)
    for known in (row_status, labels.status):
        if known is not None:
            np.minimum(status, known, out=status)
    if not activation.is_distribution:
        return _independent_classes(logits, labels, status, job, take)
    values: dict[str, Array] = {}
    if activation.is_log_linear:
        matrix, beta = logits, options.beta
        if "probs" in job.outputs:
            values["probs"] = take(matrix.shape, matrix.dtype)
    else:
        values["probs"], matrix = activate(logits, options, take)
        beta = 1.0
    if "log_probs" in job.outputs:
        values["log_probs"] = take(matrix.shape, matrix.dtype)
    rows = softmax_rows(
        matrix,
        beta,
        labels=labels.indices,
        ignore_index=labels.ignore_index,
        probs=values.get("probs") if activation.is_log_linear else None,
        log_probs=values.get("log_probs"),
        status=status,
        take=take,
    )
    if not activation.is_log_linear:
        correct_statuses(status, logits)
    nll = losses = hits = weights = None
    if labels.indices is not None:
        if labels.status is not None and labels.ignore_index == 0:
            # Rows without a label have index 0, which the kernel mistook for the ignored index.
            status[(status == Status.IGNORED) & (labels.status == Status.UNLABELLED)] = Status.UNLABELLED
        nll, hits = rows.nll, rows.hits
        losses = index_losses(
            matrix, rows, beta, labels.indices, job.label_weights, options.label_smoothing, labels.ignore_index, take
        )
        if job.class_weights is not None:
            # As in PyTorch, the mean loss is divided by class weights, not by positive weights.
            weights = job.class_weights[np.where(status > LAST_WITHOUT_LOSS, labels.indices, 0)]
        values["correct"] = hits
    elif labels.targets is not None:
        nll = losses = dense_losses(matrix, rows, beta, labels.targets, None, 0.0, take)
        if job.label_weights is not None or options.label_smoothing:
            losses = dense_losses(matrix, rows, beta, labels.targets, job.label_weights, options.label_smoothing, take)
    if nll is not None and losses is not None:
        if not options.is_usual:
            nll, losses = other_losses(logits, labels, status, options, (nll, losses), take)
        if labels.targets is not None or not activation.is_log_linear:
            # Without smoothing, which also puts weight on classes that the target excludes.
            is_plain = activation.is_log_linear or options.loss_name == activation.likelihood
            infinite = (nll if is_plain else losses) == np.inf
            status[infinite & (status == Status.OK)] = Status.MASKED_LABEL
        values["loss"] = losses
    _add_order(values, matrix, labels.indices, rows, job, beta, take)
    _add_moments(values, matrix, labels.indices, rows, job, beta, take)
    if "sample" in job.outputs:
        values["sample"] = take((len(logits),), np.int32)
        for run, number in [(slice(None), first_row)] if tokens is None else tokens.numbered(first_row):
            given = matrix[run], beta, rows.maxima[run], rows.rests[run]
            sample_rows(*given, np.uint64(options.seed), np.uint64(number), values["sample"][run])
    if "confidence" in job.outputs:
        values["confidence"] = 1.0 / (1.0 + rows.rests)
    if "logsumexp" in job.outputs:
        with np.errstate(over="ignore"):
            values["logsumexp"] = beta * rows.maxima + rows.log_sums
    values["status"] = status
    return ScoredRows(values, rows, status, losses, nll, hits, weights)


def _independent_classes(logits: Array, labels: Labels, status: Array, job: Job, take: Take) -> ScoredRows:
    values = activate_classes(logits, status, job, take)
    check_indices(labels, job.n_classes, status)
    nll = losses = hits = None
    n_with_one_label = 0
    if labels.indices is not None or labels.targets is not None:
        found, nll, counts = class_losses(logits, labels, status, job, take)
        losses, n_with_one_label = found["loss"], has_one_label(counts, status)
        values |= found
    if labels.indices is not None:
        hits = logits.argmax(axis=1) == labels.indices
    values["status"] = status
    none = np.empty(0)
    rows = Rows(none, none, none if nll is None else nll, np.empty(0, np.bool_), status)
    # As in PyTorch, the mean loss of weighted classes isn't divided by their weights.
    return ScoredRows(values, rows, status, losses, nll, hits, None, n_with_one_label)


def score_table(batch: pa.RecordBatch, scores: ScoredRows, job: Job, take: Take = np.empty) -> pa.RecordBatch:
    """Return the carried and the computed columns of a batch, null where a row has no value."""
    columns = carried_columns(batch, job) + computed_columns(scores, job, take)
    present = pa.schema([field for field, _ in columns])
    return pa.RecordBatch.from_arrays([array for _, array in columns], schema=present)


def computed_columns(
    scores: ScoredRows, job: Job, take: Take = np.empty, names: Sequence[str] | None = None
) -> list[tuple[pa.Field, pa.Array]]:
    """Return all or some computed columns, null where a row has no value."""
    columns = []
    for name in (*job.outputs, *job.added_outputs) if names is None else names:
        if name in DECISION_OUTPUTS:
            columns.append(_decision_column(name, scores.values, job, take))
            continue
        needs_label = name in OUTPUTS and OUTPUTS[name].needs_label
        lacking = scores.status <= (LAST_WITHOUT_LOSS if needs_label else LAST_WITHOUT_PROBS)
        columns += _wrap(name, scores.values[name], lacking if lacking.any() else None, job, take)
    return columns


def carried_columns(batch: pa.RecordBatch, job: Job) -> list[tuple[pa.Field, pa.Array]]:
    """Return the carried columns of a batch, except those that weren't read.

    In a batch of tokens, labels and logits are those of tokens, and all other columns are those of their rows.
    """
    names = set(batch.schema.names)
    fields = [field for field in job.carried if field.name in names]
    if job.nesting is not None:
        theirs = {field.name: field for field in job.nesting.schema}
        fields = [field if batch.column(field.name).type == field.type else theirs[field.name] for field in fields]
    columns = [(field, narrowed(batch.column(field.name), field.type)) for field in fields]
    return [(field if array.type == field.type else field.with_type(array.type), array) for field, array in columns]


def input_warnings(matrix: Array, job: Job) -> list[str]:
    """Return warnings about the first rows of a job, as sentences.

    Raises
    ------
    UsageError
        The rows look like probabilities, and neither an option nor the name of the column says that they are logits.
    """
    warnings = []
    some = matrix[:ROWS_CHECKED]
    is_log_linear = ACTIVATIONS[job.options.activation_name].is_log_linear
    is_doubtful = looks_like_probabilities(some, is_one_logit=job.logits.is_one_logit)
    if is_log_linear and job.options.input == "logits" and is_doubtful:
        if job.logits.is_guess:
            raise unclear_content(job.logits.names[0], "the rows look like probabilities")
        warnings.append("the rows look like probabilities; if they are: --input probs")
    if job.options.input != "logits" and len(some) and not looks_like_probabilities(np.exp(some)):
        warnings.append("some rows of probabilities do not sum to 1; each row is divided by its sum")
    return warnings


def narrowed(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Return a struct array with only the children of another struct type; INT96 timestamps stay bytes."""
    if array.type == wanted:
        return array
    if not pa.types.is_struct(wanted):
        return array if is_raw(array.type, wanted) else array.cast(wanted)
    children = [narrowed(pc.struct_field(array, child.name), child.type) for child in wanted]
    fields = [field.with_type(child.type) for field, child in zip(wanted, children, strict=True)]
    return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())


def _wrap(name: str, values: Array, missing: Array | None, job: Job, take: Take) -> list[tuple[pa.Field, pa.Array]]:
    field = computed_fields(name, job)[0]
    if name == "top_k_classes":
        ((_, rows),) = matrix_columns(name, np.ascontiguousarray(values), "list", missing=missing)
        if job.classes is not None:
            names = pa.array(job.classes, pa.string()).take(rows.values)
            rows = pa.ListArray.from_arrays(rows.offsets, names, mask=rows.is_null() if missing is not None else None)
        return [(field, rows)]
    if name in CLASS_OUTPUTS:
        return [(field, pred_column(values, job.classes, missing))]
    if name == "preds":
        return [(field, classes_column(values, job.classes, missing))]
    kind = OUTPUTS[name].kind if name in OUTPUTS else "matrix"
    if kind == "status":
        return [(field, status_column(values))]
    if name in FLOAT_OUTPUTS:
        values = _cast(values, job.loss_dtype, take)
    elif kind == "matrix":
        values = _cast(values, job.dtype, take)
    if values.ndim == 1:
        return [(field, vector_column(values, missing))]
    layout: OutputLayout = job.layout if name in OUTPUTS else "list"
    prefix = job.options.prefix if job.nesting is None else ""
    columns = matrix_columns(
        name, values, layout, missing=missing, suffixes=job.logits.suffixes, prefix=prefix, take=take
    )
    return [(field, null_nans(array)) for field, array in columns] if name == "losses" else columns


def _decision_column(name: str, values: dict[str, Array], job: Job, take: Take) -> tuple[pa.Field, pa.Array]:
    (field,), array = computed_fields(name, job), values[name]
    if name == "decision_reason":
        return field, status_column(array, REASONS)
    if name == "expected_cost":
        missing = np.isnan(array)
        return field, vector_column(_cast(array, job.loss_dtype, take), missing if missing.any() else None)
    missing = values["decision_reason"] != DECIDED
    some = missing if missing.any() else None
    if name == "decisions":
        return field, classes_column(array, job.classes, some)
    names = None if job.rule is None else job.rule.other_decisions
    return field, pred_column(array, names or job.classes, some)


def _cast(values: Array, dtype: np.dtype[Any], take: Take) -> Array:
    if values.dtype == dtype:
        return values
    target = take(values.shape, dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.copyto(target, values, casting="same_kind")
    return target


def _add_order(
    values: dict[str, Array], matrix: Array, labels: Array | None, rows: Rows, job: Job, beta: float, take: Take
) -> None:
    n = len(matrix)
    if {"pred", "margin", "rank"} & set(job.outputs):
        ranked = labels is not None and "rank" in job.outputs
        values["pred"] = take((n,), np.int32)
        values["margin"] = take((n if "margin" in job.outputs else 0,), np.float64)
        values["rank"] = take((n if ranked else 0,), np.int32)
        order_rows(
            matrix,
            labels if ranked else np.empty(0, np.int64),
            beta,
            rows.maxima,
            rows.rests,
            values["pred"],
            values["margin"],
            values["rank"],
        )
    if job.options.top_k:
        shape = (n, job.options.top_k)
        values["top_k_classes"], values["top_k_probs"] = take(shape, np.int32), take(shape, np.float64)
        top_k_rows(matrix, beta, rows.maxima, rows.rests, values["top_k_classes"], values["top_k_probs"])
    if "tail_mass" in job.top_k_outputs:
        classes = values["top_k_classes"]
        values["tail_mass"] = take((n,), np.float64)
        tail_rows(matrix, beta, rows.maxima, rows.rests, classes, values["tail_mass"])
        values["top_k_log_probs"] = _log_probs_of(matrix, classes, rows, beta)


def _log_probs_of(matrix: Array, classes: Array, rows: Rows, beta: float) -> Array:
    """Return the log-probabilities of some classes, (n, k) float64, computed from logits, not from probabilities."""
    logits = np.take_along_axis(matrix, np.maximum(classes, 0).astype(np.int64), axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        found: Array = beta * (logits - rows.maxima[:, None]) - rows.log_sums[:, None]
    return found


def _add_moments(
    values: dict[str, Array], matrix: Array, labels: Array | None, rows: Rows, job: Job, beta: float, take: Take
) -> None:
    wanted = [name for name in ("entropy", "el2n") if name in job.outputs]
    if not wanted:
        return
    for name in ("entropy", "el2n"):
        values[name] = take((len(matrix) if name in wanted else 0,), np.float64)
    row_moments(
        matrix,
        np.empty(0, np.int64) if labels is None else labels,
        beta,
        rows.maxima,
        rows.rests,
        values["entropy"],
        values["el2n"],
    )

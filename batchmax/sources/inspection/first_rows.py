"""Looks for bad rows and for labels in the first rows of files, so that the suggested command doesn't fail at them.

Doesn't use the kernels, whose first run takes seconds. Doesn't know commands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from batchmax.activations import ACTIVATIONS
from batchmax.columns.label_column import Labels
from batchmax.columns.labels import read_labels
from batchmax.columns.matrices import Statuses, looks_like_probabilities, read_matrix
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.sequence_source import from_columns
from batchmax.statuses import LAST_BAD, Status


def bad_statuses(source: ParquetSource) -> set[Status]:
    """Return the statuses of the bad rows, or tokens, among the first rows.

    Raises
    ------
    DataError
        The rows can't be read.
    """
    job = source.job
    found: set[Status] = set()
    for batch, known, has_null_rows in _first_units(source):
        found |= {Status.NULL_LOGITS} if has_null_rows else set()
        matrix, status = read_matrix(batch, job.logits, job.n_classes)
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(matrix) if job.options.input == "probs" else matrix
        statuses = [
            np.where(np.isnan(logits).any(axis=1), Status.NAN_LOGIT, Status.OK),
            *(one for one in (known, status) if one is not None),
        ]
        if ACTIVATIONS[job.options.activation_name].is_distribution:
            statuses += [
                np.where((logits == np.inf).any(axis=1), Status.INF_LOGIT, Status.OK),
                np.where((logits == -np.inf).all(axis=1), Status.ALL_MASKED, Status.OK),
            ]
        if job.label is not None:
            labels = _labels(batch, source)
            statuses += [labels.status] if labels.status is not None else []
            if labels.indices is not None:
                is_class = (labels.indices >= 0) & (labels.indices < job.n_classes)
                is_class |= labels.indices == labels.ignore_index
                statuses.append(np.where(is_class, Status.OK, Status.BAD_LABEL))
        found |= set(map(Status, np.unique(np.minimum.reduce(statuses))))
    return {status for status in found if status <= LAST_BAD}


def may_be_probabilities(source: ParquetSource) -> bool:
    """Return whether the first rows look like probabilities, and only a guess says that they are logits.

    Raises
    ------
    DataError
        The rows can't be read.
    """
    job = source.job
    if not job.logits.is_guess or job.options.input != "logits":
        return False
    batches = [batch for batch, _, _ in _first_units(source)]
    matrices = (read_matrix(batch, job.logits, job.n_classes)[0] for batch in batches)
    return any(looks_like_probabilities(matrix, is_one_logit=job.logits.is_one_logit) for matrix in matrices)


def label_indices(source: ParquetSource) -> list[int]:
    """Return the different labels, which are class indices, of the first rows.

    Raises
    ------
    DataError
        The rows can't be read.
    """
    found: set[int] = set()
    for batch, _, _ in _first_units(source):
        labels = _labels(batch, source)
        if labels.indices is not None:
            is_known = np.True_ if labels.status is None else labels.status == Status.OK
            found |= set(np.unique(labels.indices[np.broadcast_to(is_known, labels.indices.shape)]).tolist())
    return sorted(found)


def _labels(batch: pa.RecordBatch, source: ParquetSource) -> Labels:
    job = source.job
    assert job.label is not None  # noqa: S101 - the callers check it
    return read_labels(batch, job.label, job.n_classes, job.logits.dtype, job.options.ignore_index)


def _first_units(source: ParquetSource) -> Iterator[tuple[pa.RecordBatch, Statuses | None, bool]]:
    """Yield the logits and labels of the first rows, or of their tokens.

    Also their statuses, as far as known, and whether sequences are null, which have no tokens.
    """
    job = source.job
    batch = source.first_rows([*job.logits.names, *job.label_columns])
    if batch is None:
        return
    if job.nesting is None:
        yield batch, None, False
        return
    for chunk in from_columns(iter([batch]), job):
        yield chunk.batch, chunk.known, bool(chunk.tokens.missing.any())

"""Scores the rows of one chunk, for jobs that write the results and for commands that aggregate them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.label_column import Labels
from batchmax.columns.matrices import SparseVectorError
from batchmax.errors import DataError
from batchmax.runtime.buffers import Buffers
from batchmax.scoring.score_rows import ScoredRows, read_rows, score_rows
from batchmax.sources.chunks import Chunk
from batchmax.sources.token_chunks import TokenChunk


@dataclass(frozen=True, eq=False)
class RowBatch:
    """A batch of rows or tokens, in memory that is reused for later batches.

    Attributes
    ----------
    chunk
        The chunk that was read: its origin, and the requested columns.
    matrix
        The logits, (n, n_classes), read-only.
    labels, scores
        Labels and scores of the same rows or tokens, including bad ones, which their status marks.
    """

    chunk: Chunk
    matrix: NDArray[Any]
    labels: Labels
    scores: ScoredRows


def score_chunk(chunk: Chunk, job: Job, buffers: Buffers, first_row: int = 0) -> RowBatch:
    """Read the logits and labels of a chunk, and compute the outputs of a job.

    ``first_row`` is the number of the first row, counted over the whole job; it determines random samples.

    Raises
    ------
    DataError
        A row of logits is a sparse vector.
    """
    try:
        matrix, labels, known = read_rows(chunk.batch, job, buffers.take, chunk.logits, chunk.known)
    except SparseVectorError as error:
        raise DataError(error.what, where=chunk.place(error.row), remedy=error.remedy) from error
    tokens = chunk.tokens if isinstance(chunk, TokenChunk) else None
    scores = score_rows(matrix, labels, known, job, buffers.take, first_row, tokens)
    if job.rule is not None:
        from batchmax.scoring.decisions import decision_values  # noqa: PLC0415 - few jobs have a rule

        groups = None if job.rule.by is None else chunk.values(job.rule.by)
        scores.values.update(decision_values(matrix, scores.status, groups, job, buffers.take))
    return RowBatch(chunk, matrix, labels, scores)

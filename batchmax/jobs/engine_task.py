"""Scores the rows of one task of an engine such as Spark or Ray: batches in, scored batches out.

A task gets some of the rows, on one of many machines. This module refuses options that tasks can't support, cuts large
batches, limits the threads, and reports bad rows. It doesn't know the engine or its types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import Job, plan_scoring
from batchmax.columns.matrices import first_row_length
from batchmax.errors import UsageError
from batchmax.jobs.score_batch import score_planned
from batchmax.jobs.threads import use_threads
from batchmax.options.parsing import refuse
from batchmax.options.score_options import ScoreOptions
from batchmax.sources.streams.arrow_batches import check_batch

SLICE_BYTES = 24 << 20
"""Bytes of logits that are computed at a time; results take at most a few times as much memory."""

_FIND_ROW = "to find it, add status to --outputs, and filter by it"


def check_options(options: ScoreOptions) -> None:
    """Refuse options that tasks can't support, because each task sees only some of the rows.

    Raises
    ------
    UsageError
        An option needs all rows, their numbers, or a common place for rejected rows.
    """
    remedy = "leave it out, add status to the outputs with --on-bad-row null, and filter by it"
    refuse("tasks can't write rejected rows to one file", remedy, rejects=options.rejects)
    refuse("no task has all rows", "evaluate the result with batchmax.evaluate", fail_if=options.fail_if)
    if options.limit is not None:
        raise UsageError("no task has all rows", where="--limit", remedy="limit the input instead")
    if "sample" in (options.outputs or ()):
        raise UsageError(
            "sample depends on a row's number among all rows, which tasks don't have",
            where="--outputs",
            remedy="leave sample out, or use batchmax.score",
        )


def plan_tasks(schema: pa.Schema, options: ScoreOptions, batch: pa.RecordBatch | None) -> Job:
    """Return the job of all tasks; the first row of ``batch`` that has logits determines the number of classes.

    Raises
    ------
    UsageError
        An option or a column is invalid.
    DataError
        Neither the schema, the options nor the batch determine the number of classes.
    """
    length = None if batch is None else first_row_length(batch, find_logits(batch.schema, options))
    job = plan_scoring(schema, options, length)
    # From now on, every row of every task must have this number of logits.
    return replace(job, options=replace(job.options, n_classes=job.n_logits))


def score_batches(
    batches: Iterable[pa.RecordBatch], job: Job, threads: int, whole: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the batches with the output columns added: at least one for each batch, several for large ones.

    Parameters
    ----------
    batches
        The rows of one task; nothing is read ahead.
    job
        The job, as planned for all tasks.
    threads
        The number of threads that compute.
    whole
        What the batches are together, such as ``partition 3``: errors number rows within it. None: errors number rows
        within their batch.

    Raises
    ------
    BadRowError
        A bad row, under the policy ``error``.
    DataError
        A sparse vector, or an invalid batch.
    """
    options = replace(job.options, threads=threads)
    step = max(1, SLICE_BYTES // max(job.row_bytes, job.result_bytes))
    first_row = 0
    for number, batch in enumerate(batches):
        check_batch(batch, f"batch {number:,} of {whole}" if whole is not None else "a batch")
        if job.nesting is not None:
            # Sequences have different lengths, so the average row of the batch determines the size of a slice.
            step = max(1, SLICE_BYTES // max(1, batch.nbytes // max(1, batch.num_rows)))
        for start in range(0, max(1, batch.num_rows), step):
            piece = batch.slice(start, step)
            place = (first_row, whole) if whole is not None else (start, "a batch")
            with use_threads(options):
                scored = score_planned(piece, job, *place, _FIND_ROW)
            first_row += piece.num_rows
            yield scored

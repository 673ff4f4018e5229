"""A job's share in somebody else's engine: batches come in, scored batches go out, and nobody sees all rows.

Spark and Ray give a function the rows of one task, beside many others on many machines. What holds for both is here:
which options cannot be, how many rows are computed at a time, how many threads compute, and what is said of a bad row.
Which engine it is, and what its types are, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from batchmax.columns.job import Job, plan_scoring
from batchmax.columns.logits import find_logits
from batchmax.columns.matrices import SparseVectorError, first_row_length
from batchmax.errors import DataError, UsageError
from batchmax.jobs.score_batch import score_planned
from batchmax.jobs.threads import use_threads
from batchmax.options.score_options import ScoreOptions
from batchmax.sources.streams.arrow_batches import check_batch

SLICE_BYTES = 24 << 20
"""Logits that are computed on at a time, so that results take no more than a few times that."""

_LOOK = "find it: add status to --outputs, and filter by it"


def check_options(options: ScoreOptions) -> None:
    """Check that tasks which see some rows each can do what is asked.

    Raises
    ------
    UsageError
        An option that needs all rows, their numbers, or a place beside the output.
    """
    refused = (
        ("--rejects", options.rejects is not None, "tasks have no common place for rejected rows", _STATUS_REMEDY),
        ("--fail-if", options.fail_if is not None, "no task sees all rows", "judge the result, with batchmax.evaluate"),
        ("--limit", options.limit is not None, "no task knows of other tasks' rows", "limit the rows that are given"),
        (
            "--outputs",
            "sample" in (options.outputs or ()),
            "sample is drawn by a row's number among all rows, which no task knows",
            "leave sample out, or use batchmax.score",
        ),
    )
    for where, is_asked, what, remedy in refused:
        if is_asked:
            raise UsageError(what, where=where, remedy=remedy)


_STATUS_REMEDY = "leave it out, add status to the outputs with --on-bad-row null, and filter by it"


def plan_tasks(schema: pa.Schema, options: ScoreOptions, batch: pa.RecordBatch | None) -> Job:
    """Return the job of all tasks, whose number of classes is that of the first row of ``batch`` that has one.

    Raises
    ------
    UsageError
        A column or an option that cannot be.
    DataError
        Neither the schema nor the options nor the batch say how many classes there are.
    """
    length = None if batch is None else first_row_length(batch, find_logits(batch.schema, options))
    job = plan_scoring(schema, options, length)
    # From now on every row of every task is held against it.
    return replace(job, options=replace(job.options, n_classes=job.n_classes))


def score_batches(
    batches: Iterable[pa.RecordBatch], job: Job, threads: int, whole: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield batches with the columns that were asked for added, large ones in pieces; at least one for each batch.

    Parameters
    ----------
    batches
        Rows of one task; nothing is read ahead.
    job
        As planned for all tasks.
    threads
        How many threads compute.
    whole
        What the batches are together, such as ``partition 3``, to tell a bad row by its number in it. None: rows are
        numbered within their batch.

    Raises
    ------
    BadRowError
        A bad row, unless ``on_bad_row`` says otherwise.
    DataError
        A sparse vector, or a batch that is not valid.
    """
    options = replace(job.options, threads=threads)
    step = max(1, SLICE_BYTES // max(job.row_bytes, job.result_bytes))
    first_row = 0
    for number, batch in enumerate(batches):
        check_batch(batch, f"batch {number:,} of {whole}" if whole is not None else "a batch")
        if job.nesting is not None:
            # Sequences are as long as they are; what they take is known of a batch.
            step = max(1, SLICE_BYTES // max(1, batch.nbytes // max(1, batch.num_rows)))
        for start in range(0, max(1, batch.num_rows), step):
            piece = batch.slice(start, step)
            place = (first_row, whole) if whole is not None else (start, "a batch")
            with use_threads(options):
                scored = _scored(piece, job, *place)
            first_row += piece.num_rows
            yield scored


def _scored(piece: pa.RecordBatch, job: Job, first_row: int, whole: str) -> pa.RecordBatch:
    try:
        return score_planned(piece, job, first_row, whole, _LOOK)
    except SparseVectorError as error:
        # Its own place is in the piece; and it has an argument more than engines know how to hand on.
        where = f"row {first_row + error.row:,} of {whole}"
        raise DataError(error.what, where=where, remedy=error.remedy) from None

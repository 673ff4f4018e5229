"""Scores single Arrow batches: the function ``score_batch``, and its counterpart for the tasks of engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from batchmax import kernels
from batchmax.columns.job import Job, plan_scoring
from batchmax.columns.logits import find_logits
from batchmax.columns.matrices import first_row_length
from batchmax.errors import UsageError
from batchmax.options.parsing import refuse
from batchmax.options.score_options import ScoreOptions, resolve_options
from batchmax.outputs import LAST_BAD
from batchmax.scoring.bad_rows import bad_row, describe_bad_row
from batchmax.scoring.score_rows import read_rows, score_rows, score_table
from batchmax.scoring.sequence_assembler import SequenceRows
from batchmax.sinks.metadata import batch_metadata
from batchmax.sources.sequence_source import from_columns
from batchmax.sources.streams.arrow_batches import check_batch, check_schema, decoded_batch, decoded_schema


@kernels.standard_floats()
def score_batch(batch: Any, options: ScoreOptions | None = None, **given: Any) -> Any:
    """Return the batch with the output columns added. This is a pure function.

    Parameters
    ----------
    batch
        A ``pyarrow.RecordBatch`` or ``pyarrow.Table`` with a logits column and any number of rows. The result has the
        same type.
    options
        Made by :func:`batchmax.score_options`. Alternatively, pass its keyword arguments directly. ``rejects`` and
        ``fail_if`` are refused, because a batch has no place for rejected rows and is only a part of the data.

    Raises
    ------
    UsageError
        An option or a column is invalid, or ``batch`` has another type.
    DataError
        The batch is invalid, such as one with offsets outside of its values.
    BadRowError
        A bad row, under the policy ``error``.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"logits": [[1.0, 2.0]], "label": [1]})
    >>> batchmax.score_batch(batch, outputs="loss").column("loss").to_pylist()
    [0.31326168751822286]
    """
    options = resolve_options(ScoreOptions, options, given)
    if not isinstance(batch, pa.RecordBatch | pa.Table):
        raise UsageError(
            f"score_batch takes a pyarrow.RecordBatch or a pyarrow.Table, not a {type(batch).__name__}",
            remedy="use batchmax.scan",
        )
    remedy = "leave it out, or use score"
    refuse("score_batch doesn't support this", remedy, rejects=options.rejects, fail_if=options.fail_if)
    if isinstance(batch, pa.Table):
        schema = decoded_schema(batch.schema)
        batch = pa.Table.from_batches([_checked(piece) for piece in batch.to_batches()], schema)
    else:
        batch = _checked(batch)
    pieces = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
    logits = find_logits(batch.schema, options)
    lengths = (first_row_length(piece, logits) for piece in pieces)
    job = plan_scoring(batch.schema, options, next(filter(None, lengths), None))
    if options.limit is not None:
        batch = batch.slice(0, options.limit)
    metadata = batch_metadata(job, batch.schema)
    if isinstance(batch, pa.RecordBatch):
        return score_planned(batch, job).replace_schema_metadata(metadata)
    scored, first_row = [], 0
    for piece in batch.to_batches():
        scored.append(score_planned(piece, job, first_row))
        first_row += piece.num_rows
    return pa.Table.from_batches(scored, job.schema).replace_schema_metadata(metadata)


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    check_schema(batch.schema, "the batch")
    check_batch(batch, "the batch")
    return decoded_batch(batch)


def score_planned(
    batch: pa.RecordBatch, job: Job, first_row: int = 0, whole: str = "the batch", remedy: str = ""
) -> pa.RecordBatch:
    """Return a batch with the output columns of a job added, and with its bad rows handled as the options say.

    An error gives the number of a bad row in ``whole``, where ``first_row`` is the number of the batch's first row.
    """
    if job.nesting is not None:
        return _score_sequences(batch, job, first_row, whole, remedy)
    scores = score_rows(*read_rows(batch, job), job, first_row=first_row)
    policy, bad = job.options.on_bad_row, scores.status <= LAST_BAD
    if policy == "error" and bad.any():
        row = int(np.argmax(bad))
        where = f"row {first_row + row:,} of {whole}"
        raise bad_row(where, *describe_bad_row(batch, row, scores.status[row], job), remedy)
    table = score_table(batch, scores, job)
    return table.filter(pa.array(~bad)) if policy == "drop" else table


def _score_sequences(batch: pa.RecordBatch, job: Job, first_row: int, whole: str, remedy: str) -> pa.RecordBatch:
    rows, row = SequenceRows(job, streams=False), first_row
    pieces: list[pa.RecordBatch] = []
    policy = job.options.on_bad_row
    for chunk in from_columns(iter([batch]), job):
        matrix, labels, known = read_rows(chunk.batch, job, known=chunk.known)
        scores = score_rows(matrix, labels, known, job, first_row=row, tokens=chunk.tokens)
        ended = rows.add(chunk.tokens, scores)
        bad = scores.status <= LAST_BAD
        if policy == "error" and (null := chunk.null_row(scores.status)) is not None:
            raise bad_row(f"row {row + null:,} of {whole}", "the logits are null", "", remedy)
        if policy == "error" and bad.any():
            token = int(np.argmax(bad))
            at, place = chunk.tokens.row_of(token)
            where = f"row {row + at:,} of {whole}, token {place:,}"
            raise bad_row(where, *describe_bad_row(chunk.unit(token, job), 0, scores.status[token], job), remedy)
        pieces.append(ended.batch.filter(pa.array(~ended.totals.is_bad)) if policy == "drop" else ended.batch)
        row += chunk.tokens.n_ended
    return pa.concat_batches(pieces) if pieces else pa.RecordBatch.from_pylist([], schema=job.schema)

"""Scores single Arrow batches: the function ``score_batch``, and its counterpart for the tasks of engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import Job, plan_scoring
from batchmax.columns.label_lists import first_rows_of
from batchmax.columns.matrices import first_row_length
from batchmax.errors import UsageError
from batchmax.jobs.bad_row_policy import BadRowHandler
from batchmax.jobs.row_batch import score_chunk
from batchmax.jobs.stage import Result
from batchmax.kernels.compiler.dispatch import standard_floats
from batchmax.options.parsing import refuse
from batchmax.options.score_options import ScoreOptions, resolve_options
from batchmax.runtime.buffers import Buffers
from batchmax.scoring.score_rows import score_table
from batchmax.scoring.sequence_assembler import SequenceRows
from batchmax.sinks.metadata import batch_metadata
from batchmax.sources.chunks import Chunk, Origin, RowChunk
from batchmax.sources.sequence_source import from_columns
from batchmax.sources.streams.arrow_batches import check_batch, check_schema, decoded_batch, decoded_schema
from batchmax.sources.token_chunks import TokenChunk


@standard_floats()
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
    schema, is_table = decoded_schema(batch.schema), isinstance(batch, pa.Table)
    pieces = [_checked(piece) for piece in (batch.to_batches() if is_table else [batch])]
    logits = find_logits(schema, options)
    lengths = (first_row_length(piece, logits) for piece in pieces)
    job = plan_scoring(schema, options, next(filter(None, lengths), None))
    if job.is_undecided:
        job = job.with_label_format(first_rows_of(pieces, job.label_columns))
    scored, first_row = [], 0
    for piece in pieces:
        rows = piece if options.limit is None else piece.slice(0, options.limit - first_row)
        scored.append(score_planned(rows, job, first_row))
        first_row += rows.num_rows
    result = pa.Table.from_batches(scored, job.schema) if is_table else scored[0]
    return result.replace_schema_metadata(batch_metadata(job, schema))


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
    bad_rows = BadRowHandler(job, remedy=remedy)
    sequences: SequenceRows | None = None
    chunks: Iterator[Chunk] = iter([RowChunk(batch, Origin("", 0, None))])
    if job.nesting is not None:
        sequences = SequenceRows(job, streams=False)
        chunks = from_columns(iter([batch]), job)
    pieces = []
    row = first_row
    for found in chunks:
        chunk = replace(found, origin=_BatchOrigin(whole, row, None))
        scores = score_chunk(chunk, job, Buffers(), row).scores
        bad_rows.refuse(chunk, scores.status)
        if sequences is None or not isinstance(chunk, TokenChunk):
            result = bad_rows.apply(chunk, Result(score_table(chunk.batch, scores, job)), scores.status)
        else:
            completed = sequences.add(chunk.tokens, scores)
            result = bad_rows.apply(chunk, Result(completed.batch), completed.totals.status)
        pieces.append(result.batch)
        row += chunk.rows_done
    if len(pieces) == 1:
        return pieces[0]
    return pa.concat_batches(pieces) if pieces else pa.RecordBatch.from_pylist([], schema=job.schema)


class _BatchOrigin(Origin):
    """The origin of rows of a batch; ``file`` is what the rows are a part of, for messages."""

    def place(self, row: int, token: str = "") -> str:
        """Return the row for messages."""
        return f"row {self.first_row + row:,} of {self.file}{token}"

"""One sequence: the results of its tokens, or one token as a row of its own.

The sequence is read in chunks, as for scoring; only a few numbers per token are kept.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa

from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.jobs.score_stage import ScoreStage
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import printable, quantity
from batchmax.sources.chunks import limited
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.row_lookup import check_row
from batchmax.sources.token_chunks import TokenChunk


@dataclass(frozen=True)
class SequenceTrace:
    """A sequence and its results.

    Attributes
    ----------
    file, row
        Path of the file, and the number of the row over all files.
    values
        The row's output columns by name, as Python values; lists have one item per token.
    """

    file: str
    row: int
    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the sequence, serializable as JSON."""
        status = self.values["status"]
        return {"row": self.row, **{key: one for key, one in self.values.items() if key != "status"}, "status": status}

    def largest_losses(self, n: int) -> list[int]:
        """Return the tokens with the ``n`` largest losses, in the order of the sequence; the first of equal losses."""
        losses = [-float("inf") if loss is None else loss for loss in self.values["losses"]]
        return sorted(sorted(range(len(losses)), key=lambda token: -losses[token])[:n])


def is_sequence(inputs: list[str], options: ScoreOptions) -> bool:
    """Return whether the rows of files are sequences."""
    return ParquetSource(inputs, options).job.nesting is not None


def trace_sequence(inputs: list[str], row: int, options: ScoreOptions, progress: Progress) -> SequenceTrace:
    """Score one sequence, whose row number counts from 0 over all files.

    Raises
    ------
    UsageError
        There is no such row.
    """
    label = ParquetSource(inputs, replace(options, outputs=None)).job.label
    outputs = ("pred", "confidence", *(() if label is None else ("loss", "rank")), "status")
    source = ParquetSource(inputs, replace(options, outputs=outputs, columns=(), on_bad_row="null", prefix=""))
    if source.job.assumed:
        progress.assumed(source.job.assumed)
    stage = ScoreStage(source, progress)
    file, batches = "", []
    for chunk in _chunks(source, row):
        file = chunk.origin.file
        batches.append(stage(chunk, Buffers()).batch)
    return SequenceTrace(file, row, pa.Table.from_batches(batches).to_pylist()[0])


def read_token(inputs: list[str], row: int, token: int, options: ScoreOptions) -> tuple[str, pa.RecordBatch, Job]:
    """Return where a token is, the token as a batch of one row with its logits and label, and its job.

    Raises
    ------
    UsageError
        The rows aren't sequences, or there is no such row or token.
    """
    source = ParquetSource(inputs, replace(options, columns=(), outputs=("status",), on_bad_row="null"))
    if source.job.nesting is None:
        raise UsageError("the rows aren't sequences", where="--token", remedy="leave it out")
    count = 0
    for chunk in _chunks(source, row):
        first = chunk.tokens.first
        count = first + chunk.batch.num_rows
        if first <= token < count:
            origin = f"{printable(chunk.origin.file)}: row {row:,}, token {token:,}"
            return origin, chunk.unit(token - first, source.job), source.job
    what = f"token {token:,} is out of range for row {row:,}, which has {quantity(count, 'token')}"
    raise UsageError(what, where="--token", remedy="tokens count from 0")


def _chunks(source: ParquetSource, row: int) -> Iterator[TokenChunk]:
    check_row(row, source.n_rows)
    parts = plan_parts(source.group_rows(), source.row_bytes)
    chunks = source.chunks(parts, ReadPlan(source.job.columns_read), row)
    return limited(cast("Generator[TokenChunk, None, None]", chunks), 1)

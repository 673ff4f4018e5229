"""One pass over every row, for commands that aggregate: reads ahead, computes, writes nothing.

Inputs are logits, or files that ``score`` wrote. Of the latter, the probabilities are read, and labels and classes are
those of the metadata.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.labels import Labels
from batchmax.columns.matrices import SparseVectorError
from batchmax.errors import DataError, UsageError
from batchmax.jobs.bad_row_policy import BadRows
from batchmax.jobs.pipeline import READ_AHEAD
from batchmax.jobs.threads import use_threads
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import LAST_WITHOUT_PROBS
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import ScoredRows, doubts_about, read_rows, score_rows
from batchmax.sources.chunks import Chunk, limited
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_file import arrow_schema, open_file
from batchmax.sources.parquet_source import ParquetSource, open_source
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.storage.input_files import find_files, paths_of

Array = NDArray[Any]

OWN_PREFIX = "\0"
"""Prefix of computed columns that aren't written, so that they can't collide with a column of a file."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch of rows or tokens. The arrays are overwritten by the batch after the next; copy them to keep them.

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
    matrix: Array
    labels: Labels
    scores: ScoredRows


def open_rows(src: Any, options: ScoreOptions) -> ParquetSource | StreamSource:
    """Open logits, or files that ``score`` wrote: one or several paths, or an object with ``__arrow_c_stream__``.

    ``options.outputs`` are the outputs that :func:`rows_of` computes, ``options.columns`` the additional columns.

    Raises
    ------
    DataError
        No input was found, a file isn't Parquet, or the files' schemas are incompatible.
    UsageError
        Invalid column, an activation or loss other than softmax and cross-entropy, or a job that doesn't fit in the
        memory limit.
    """
    if not options.is_usual:
        raise UsageError(
            "this is computed with softmax and cross-entropy alone",
            where="--loss" if ACTIVATIONS[options.activation].is_log_linear else "--activation",
            remedy="leave it out, or give what score --activation wrote",
        )
    source = open_source(src, options)
    check_memory(source)
    return source


def refuse_bytes(options: ScoreOptions) -> None:
    """Raise if ``bytes`` is given, which only some commands use.

    Raises
    ------
    UsageError
        ``bytes`` is given.
    """
    if options.bytes is not None:
        raise UsageError(
            "bits per byte are figures of score and evaluate",
            where="--bytes",
            remedy="leave it out; or: batchmax evaluate FILE --bytes NAME",
        )


def rows_of(
    source: ParquetSource | StreamSource, progress: Progress | None = None, warnings: list[str] | None = None
) -> Iterator[Seen]:
    """Yield the results of every row, in order, with two chunks read ahead.

    Warnings about the first rows are added to ``warnings``, or passed to ``progress`` if it is None.

    Raises
    ------
    DataError
        Unreadable input.
    BadRowError
        A bad row with the policy ``error``. With the other policies, bad rows are yielded with their status.
    """
    job, options = source.job, source.job.options
    progress, is_checked = progress or Progress(), False
    bad_rows = BadRows(source, job)
    total = source.n_rows
    if total is not None and options.limit is not None:
        total = min(total, options.limit)
    progress.start(total, None if total is None else total * source.row_bytes)
    parts = plan_parts(source.group_rows(), source.row_bytes)
    both = deque([Buffers(), Buffers()])
    with (
        use_threads(options),
        ThreadPoolExecutor(options.threads or usable_cores(), "pages") as workers,
        ThreadPoolExecutor(1, "read") as reader,
    ):
        chunks = limited(source.chunks(parts, ReadPlan(job.columns_read, workers)), options.limit)
        ahead = deque(reader.submit(next, chunks, None) for _ in range(READ_AHEAD))
        while (chunk := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, chunks, None))
            buffers = both[0]
            both.rotate()
            buffers.reset()
            try:
                matrix, labels, known = read_rows(chunk.batch, job, buffers.take, chunk.logits, chunk.known)
            except SparseVectorError as error:
                raise DataError(error.what, where=chunk.place(error.row), remedy=error.remedy) from error
            scores = score_rows(matrix, labels, known, job, buffers.take)
            bad_rows.refuse(chunk, scores.status)
            if not is_checked and len(matrix):
                is_checked = True
                for doubt in doubts_about(matrix[scores.status > LAST_WITHOUT_PROBS], job):
                    (progress.warn if warnings is None else warnings.append)(doubt)
            yield Seen(chunk, matrix, labels, scores)
            progress.advance(chunk.rows_done, chunk.batch.num_rows * job.row_bytes)


def schema_of(src: Any, options: ScoreOptions) -> pa.Schema:
    """Return the schema of a table or of the first file, without opening the source; of other streams an empty one."""
    if hasattr(src, "__arrow_c_stream__"):
        found = getattr(src, "schema", None)
        return found if isinstance(found, pa.Schema) else pa.schema([])
    first = find_files(paths_of(src), options.storage_options)[0]
    return arrow_schema(open_file(first, options.storage_options))

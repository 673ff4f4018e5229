"""The one loop: read, compute, write, each of the three at the same time as the others.

Chunks are read ahead by one thread while the kernels (which use every core) work on the one before, and a third thread
encodes and writes the row groups before that. A few :class:`Buffers` go round, so memory is as large as the chunks in
flight and never grows. What the work on a chunk is, the loop does not know.
"""

from __future__ import annotations

import math
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import LAST_BAD, STATUS_NAMES
from batchmax.parquet import CopiedColumns
from batchmax.runtime.buffers import PROGRAM_BYTES, Buffers
from batchmax.scoring.bad_rows import bad_row, describe_bad_row
from batchmax.scoring.score_rows import narrowed
from batchmax.scoring.sequence_assembler import Ended
from batchmax.sinks.metadata import REJECT_FIELDS, rejects_schema
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import Part
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.sources.token_chunks import TokenChunk

MOST_CLASSES_SHOWN = 80
"""Characters of class names that a suggested command repeats."""

READ_AHEAD = 2
"""Chunks that are read ahead: enough that a slow moment of the disk is not waited for."""


class Progress:
    """Who is told how far a job is. This one does not listen."""

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Say how much there is to do."""

    def skip(self, rows: int) -> None:
        """Say how much an earlier run has done."""

    def published(self) -> None:
        """Say that the output is in its place, and nothing can fail any more."""

    def advance(self, rows: int, n_bytes: int) -> None:
        """Say what was done since the last time."""

    def note(self, text: str) -> None:
        """Say what was chosen."""

    def assumed(self, text: str) -> None:
        """Say what was assumed about the input, which only the user can know."""

    def detail(self, text: str) -> None:
        """Say what only the curious want to know."""

    def warn(self, text: str) -> None:
        """Say what looks wrong."""


def tell_of(source: ParquetSource | StreamSource, progress: Progress) -> None:
    """Say what was chosen of a source, and what looks wrong with how it was named."""
    for text in source.job.notes:
        progress.note(text)
    if source.job.assumed:
        progress.assumed(source.job.assumed)
    for text in source.warnings:
        progress.warn(text)


@dataclass(frozen=True, eq=False)
class Result:
    """What a chunk became: rows, and those that were rejected.

    Of sequences, the rows that end with the chunk; ``ended`` is then what is to be written before the group ends.
    """

    batch: pa.RecordBatch
    rejects: pa.RecordBatch | None = None
    ended: Ended | None = None


class Work(Protocol):
    """What is done with chunks, and what it counts."""

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Do it to the next chunk."""

    def begin(self, part: Part) -> None:
        """Count a part by itself."""

    def state(self) -> dict[str, Any]:
        """Return what was counted until now, or of the part, as JSON has it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Count everything: what was counted of all parts, in their order."""


Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Group:
    """What the chunks of a row group became: ``position`` rows are done with it, and ``state`` was counted.

    Of sequences, what one chunk became; the row group ``ends`` with it or not.
    """

    results: Sequence[Result]
    copied: CopiedColumns | None
    position: int
    state: Mapping[str, Any]
    ends: bool = True


def overlap(
    chunks: Iterator[Chunk],
    work: Work,
    write: Callable[[Group], None],
    progress: Progress,
    row_bytes: int,
    position: int = 0,
) -> int:
    """Read, work and write at the same time, from a position on; return where that ended."""
    free: list[Buffers] = []
    group: list[tuple[Result, Buffers]] = []

    def written(used: list[Buffers], done: Group) -> list[Buffers]:
        write(done)
        return used

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead = deque(reader.submit(next, chunks, None) for _ in range(READ_AHEAD))
        writing: Future[list[Buffers]] = Future()
        writing.set_result([])
        while (chunk := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, chunks, None))
            buffers = free.pop() if free else Buffers()
            buffers.reset()
            group.append((work(chunk, buffers), buffers))
            position += chunk.rows_done
            progress.advance(chunk.rows_done, chunk.batch.num_rows * row_bytes)
            if chunk.ends_group or isinstance(chunk, TokenChunk):
                free += writing.result()
                state = work.state() if chunk.ends_group else {}
                done = Group([result for result, _ in group], chunk.copied, position, state, chunk.ends_group)
                writing = writer.submit(written, [buffers for _, buffers in group], done)
                group = []
        writing.result()
    return position


def check_memory(source: ParquetSource | StreamSource) -> None:
    """Refuse a job that will not fit into the memory it may use, before anything is allocated.

    Raises
    ------
    UsageError
        Naming the memory it would take.
    """
    needed = PROGRAM_BYTES + source.memory_needed()
    limit = source.job.options.memory_limit
    if needed > limit:
        raise UsageError(
            f"the job takes about {needed / 2**20:,.0f} MiB, and may use {limit / 2**20:,.0f}",
            where="--memory-limit",
            remedy=f"allow at least {math.ceil(needed / 2**20)}MiB, or make row groups smaller: --row-group-size ROWS",
        )


class BadRows:
    """What becomes of the bad rows of a chunk, as ``--on-bad-row`` and ``--rejects`` say."""

    def __init__(self, source: ParquetSource | StreamSource, job: Job) -> None:
        self._job = job
        self._fields = rejects_schema(source.schema, nesting=job.nesting)

    def refuse(self, chunk: Chunk, status: Array) -> None:
        """Raise for the first bad row under the policy ``error``.

        Raises
        ------
        BadRowError
            Naming the file, the row, what is wrong, and how to look at it.
        """
        bad = status <= LAST_BAD
        if self._job.options.on_bad_row != "error":
            return
        if isinstance(chunk, TokenChunk) and (row := chunk.null_row(status)) is not None:
            raise bad_row(chunk.origin.place(row), "the logits are null")
        if not bad.any():
            return
        unit = int(np.argmax(bad))
        what, hint = describe_bad_row(chunk.unit(unit, self._job), 0, int(status[unit]), self._job)
        look = ""
        if chunk.origin.row_group is not None:
            words = ["batchmax", "show", chunk.origin.file, "--row", str(chunk.rows_of(np.array([unit]))[0])]
            look = "look: " + shlex.join([*words, *_reading(self._job.options)])
        raise bad_row(chunk.place(unit), what, hint, look)

    def settle(self, chunk: Chunk, batch: pa.RecordBatch, status: Array) -> Result:
        """Return what is written of a chunk's results, and of the chunk itself."""
        bad = status <= LAST_BAD
        options = self._job.options
        if options.on_bad_row != "drop" or not bad.any():
            return Result(batch)
        rows, rejects = np.flatnonzero(bad), None
        if options.rejects is not None:
            rejects = self._whole(chunk, chunk.batch, rows, chunk.rows_of(rows), status)
        return Result(batch.filter(pa.array(~bad)), rejects)

    def settle_rows(self, chunk: TokenChunk, ended: Ended) -> Result:
        """Return what is written of the sequences that end with a chunk, and of the chunk itself.

        Rejected sequences are kept without their logits, which may have been gone for long.
        """
        bad = ended.totals.is_bad
        options = self._job.options
        if options.on_bad_row != "drop" or not bad.any():
            return Result(ended.batch, ended=ended)
        rejects = None
        if options.rejects is not None:
            rows = np.flatnonzero(bad)
            rejects = self._whole(chunk, chunk.tokens.rows, rows, chunk.origin.first_row + rows, ended.totals.status)
        return Result(ended.batch.filter(pa.array(~bad)), rejects, ended)

    def _whole(self, chunk: Chunk, batch: pa.RecordBatch, rows: Array, numbers: Array, status: Array) -> pa.RecordBatch:
        """Return some rows of a batch with the file, their numbers in the file and their statuses."""
        names = self._fields.names[: -len(REJECT_FIELDS)]
        whole = batch.select(names).take(pa.array(rows))
        columns = [narrowed(whole.column(name), self._fields.field(name).type) for name in names]
        columns.append(pa.array([chunk.origin.file] * len(rows), pa.string()))
        columns.append(pa.array(numbers, pa.int64()))
        columns.append(pa.array([STATUS_NAMES[status[row]] for row in rows], pa.string()))
        fields = [field.with_type(column.type) for field, column in zip(self._fields, columns, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _reading(options: ScoreOptions) -> list[str]:
    """Return the words of a command that make it read rows as a job does, class names aside if they are long."""
    defaults = ScoreOptions(input="logits")
    names = ("logits", "label", "n_classes", "ignore_index", "logits_dtype", "input")
    given = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(defaults, name)}
    classes = ",".join(options.classes or ())
    if classes and len(classes) <= MOST_CLASSES_SHOWN:
        given["classes"] = classes
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]

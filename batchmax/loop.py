"""The one loop: read, compute, write, each of the three at the same time as the others.

Chunks are read ahead by one thread while the kernels (which use every core) work on the one before, and a third thread
encodes and writes the row groups before that. A few :class:`Buffers` go round, so memory is as large as the chunks in
flight and never grows. What the work on a chunk is, the loop does not know.
"""

from __future__ import annotations

import contextlib
import math
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from batchmax.bad_rows import bad_row, describe_bad_row
from batchmax.chunks import Chunk, limited
from batchmax.commit import Output
from batchmax.copying import Copying, Reading
from batchmax.errors import UsageError
from batchmax.interrupts import uninterrupted
from batchmax.job import Job
from batchmax.journal import Done, FileState, Journal, Receipt
from batchmax.memory import Buffers, usable_cores
from batchmax.options import ScoreOptions
from batchmax.outputs import LAST_BAD, STATUS_NAMES
from batchmax.parquet import CopiedColumns, FileSchema, Footer
from batchmax.parquet_files import pyarrow_only
from batchmax.places import places
from batchmax.plan import Part, plan_parts
from batchmax.provenance import rejects_schema
from batchmax.row_groups import RowGroupEncoder
from batchmax.shards import make_output
from batchmax.sink import ParquetSink
from batchmax.source import ParquetSource
from batchmax.storage import refuse_inputs_as_output
from batchmax.stream_source import StreamSource
from batchmax.threads import use_threads
from batchmax.unfinished import remove

MOST_CLASSES_SHOWN = 80
"""Characters of class names that a suggested command repeats."""

READ_AHEAD = 2
"""Chunks that are read ahead: enough that a slow moment of the disk is not waited for."""

PROGRAM_BYTES = 250 << 20
"""Memory of the program itself: the interpreter, Numba, Arrow and the compiled kernels."""


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

    def detail(self, text: str) -> None:
        """Say what only the curious want to know."""

    def warn(self, text: str) -> None:
        """Say what looks wrong."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a chunk became: a row group, the rows that were rejected, and what to add to the counts."""

    batch: pa.RecordBatch
    rejects: pa.RecordBatch | None = None


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

    def gather(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Count everything: what was counted of all parts, in their order."""


Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Group:
    """What the chunks of a row group became: ``position`` rows are done with it, and ``state`` was counted."""

    results: Sequence[Result]
    copied: CopiedColumns | None
    position: int
    state: Mapping[str, Any]


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
            rows = chunk.batch.num_rows
            position += rows
            progress.advance(rows, rows * row_bytes)
            if chunk.ends_group:
                free += writing.result()
                done = Group([result for result, _ in group], chunk.copied, position, work.state())
                writing = writer.submit(written, [buffers for _, buffers in group], done)
                group = []
        writing.result()
    return position


@dataclass(eq=False)
class Run:
    """The loop over one source: chunks in, row groups out.

    ``columns`` are the names that are read (None for all); ``job`` is what makes the job this job, where another run
    could go on with what this one leaves; ``plain`` the output columns that are written without
    dictionary and statistics, and ``split`` whether with the bytes of their numbers split; ``written`` is how many
    bytes were.
    """

    source: ParquetSource | StreamSource
    out: Output
    rejects: Output | None
    schema: pa.Schema
    codecs: Mapping[str, str]
    plain: Sequence[str]
    columns: Sequence[str] | None
    progress: Progress
    job: Mapping[str, Any] | None = None
    split: bool = False
    written: int = 0
    _done: Done = field(default_factory=Done)

    @contextlib.contextmanager
    def building(self) -> Iterator[Done]:
        """Make room for the output, with as many threads as were asked for; say what is done of it already.

        What was not published is cleaned up, or kept for who goes on with it.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(use_threads(self.source.job.options))
            self._done = stack.enter_context(self.out.building(self.job, self.rejects))
            if self.rejects is not None:
                stack.enter_context(self.rejects.beside(self.out, self._done))
            yield self._done

    def stream(self, work: Work, describe: Callable[[], Mapping[str, str]]) -> None:
        """Send every chunk through the work and write what it becomes; ``describe`` is for a file that holds it all."""
        source, done = self.source, self._done
        limit = source.job.options.limit
        parts = self.out.mine(plan_parts(source.group_rows(), source.job.row_bytes, limit=limit))
        total = sum(part.rows for part in parts) if source.files else source.n_rows
        if total is not None and limit is not None:
            total = min(total, limit)
        self.progress.start(total, None if total is None else total * source.job.row_bytes)
        if skipped := done.position + sum(part.rows for part in parts if part.number in done.receipts):
            self.progress.skip(skipped)
        with self._workers() as workers:
            if self.out.is_file:
                self._write_file(parts, work, describe, workers)
            else:
                self._write_parts(parts, work, workers)

    def _write_file(
        self,
        parts: Sequence[Part],
        work: Work,
        describe: Callable[[], Mapping[str, str]],
        workers: ThreadPoolExecutor,
    ) -> None:
        done = self._done
        if done.position:
            work.restore(done.state)
        with contextlib.ExitStack() as stack:
            encoder, reading = self._ways(workers, self.source.files[0].footer if self.source.files else None)
            rejects = None
            if self.rejects is not None:
                rejects = stack.enter_context(self._rejects_sink(self.rejects.file, workers, done.rejects))
            sink = stack.enter_context(
                ParquetSink(self.out.file, self.schema, self.codecs, self.plain, encoder, done.file)
            )
            chunks = self.source.chunks(parts, reading, done.position)
            limit = self.source.job.options.limit
            left = None if limit is None else limit - done.position
            journal = None if pyarrow_only() else self.out.journal
            self._overlap(limited(chunks, left), work, sink, rejects, journal, done.position)
            size = sink.close(describe())
            if journal is not None:
                journal.settle()
            self.written += size
            if rejects is not None:
                self.written += rejects.close()

    def _write_parts(self, parts: Sequence[Part], work: Work, workers: ThreadPoolExecutor) -> None:
        """Run the parts that no receipt is there of, and count what all of them came to, in their order."""
        receipts = self._done.receipts
        for part in parts:
            if part.number not in receipts:
                receipts[part.number] = receipt = self.write_part(part, work, workers)
                if self.out.journal is not None:
                    self.out.journal.part(receipt)
        done = [receipts[part.number] for part in parts]
        self.written += sum(receipt.size + (receipt.rejects or 0) for receipt in done)
        work.gather([receipt.state for receipt in done])

    def write_part(self, part: Part, work: Work, workers: ThreadPoolExecutor) -> Receipt:
        """Write the file of a part, and that of its rejected rows, and put them where finished parts are."""
        work.begin(part)
        footer = self.source.files[part.file].footer if self.source.files else None
        with contextlib.ExitStack() as stack:
            encoder, reading = self._ways(workers, footer)
            path, rejects = self.out.making(part.name), None
            stack.callback(remove, path)
            if self.rejects is not None:
                rejects = self._rejects_sink(self.rejects.making(part.name), workers, FileState())
                stack.callback(remove, rejects.path)
                stack.enter_context(rejects)
            sink = stack.enter_context(ParquetSink(path, self.schema, self.codecs, self.plain, encoder))
            limit = self.source.job.options.limit
            chunks = limited(self.source.chunks([part], reading), part.rows if self.source.files else limit)
            rows = self._overlap(chunks, work, sink, rejects, None, 0)
            size, rejects_size = sink.close(), None
            if self.rejects is not None and rejects is not None and (rejects.rows or part.number == 0):
                rejects_size = rejects.close()
                self.rejects.keep(rejects.path, part.name)
            self.out.keep(path, part.name)
        return Receipt(part.number, part.name, rows, size, rejects_size, dict(work.state()))

    def publish(self, summary: Mapping[str, Any]) -> None:
        """Put the output in its place, and that of the rejected rows."""
        with uninterrupted():
            self.out.announce(summary, self.rejects)
            if self.rejects is not None:
                self.rejects.publish(summary)
            self.out.publish(summary)
            self.progress.published()

    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.source.job.options.threads or usable_cores(), "pages")

    def _rejects_sink(self, path: Path, workers: ThreadPoolExecutor, done: FileState) -> ParquetSink:
        schema = rejects_schema(self.source.schema, self.schema)
        codecs = dict.fromkeys(schema.names, "SNAPPY")
        encoder = None
        if not pyarrow_only():
            encoder = RowGroupEncoder(FileSchema(schema), codecs, frozenset(), split=False, workers=workers)
        return ParquetSink(path, schema, codecs, (), encoder, done)

    def _overlap(
        self,
        chunks: Iterator[Chunk],
        work: Work,
        sink: ParquetSink,
        rejects: ParquetSink | None,
        journal: Journal | None,
        position: int,
    ) -> int:
        """Read, work and write at the same time; return how many rows of the inputs are behind."""

        def write(group: Group) -> None:
            sink.write([result.batch for result in group.results], group.copied)
            if rejects is not None:
                rejects.write([result.rejects for result in group.results if result.rejects is not None])
            if journal is not None:
                if rejects is not None:
                    rejects.push()
                journal.group([sink] if rejects is None else [sink, rejects], group.position, group.state)

        return overlap(chunks, work, write, self.progress, self.source.job.row_bytes, position)

    def _ways(self, workers: ThreadPoolExecutor, like: Footer | None) -> tuple[RowGroupEncoder | None, Reading]:
        """Return how row groups are encoded (None for pyarrow's way), and how the source is read.

        ``like`` is the footer whose columns the carried ones are as.
        """
        if pyarrow_only():
            return None, Reading(self.columns)
        options = self.source.job.options
        names = self.source.job.carried.names
        schema = FileSchema(self.schema, like, names)
        encoder = RowGroupEncoder(schema, self.codecs, frozenset(self.plain), self.split, workers)
        # Rows that are cut anew, or another codec, are encoded anew.
        copies = options.compression is None and options.row_group_size is None
        everything = options.limit is None and options.on_bad_row != "drop"
        return encoder, Reading(self.columns, workers, Copying(schema, names, everything) if copies else None)


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
            remedy=f"allow {math.ceil(needed / 2**20)}MiB, or make row groups smaller: --row-group-size ROWS",
        )


class BadRows:
    """What becomes of the bad rows of a chunk, as ``--on-bad-row`` and ``--rejects`` say."""

    def __init__(self, source: ParquetSource | StreamSource, job: Job) -> None:
        self._job = job
        self._schema = source.schema
        self._fields = rejects_schema(source.schema)

    def refuse(self, chunk: Chunk, status: Array) -> None:
        """Raise for the first bad row under the policy ``error``.

        Raises
        ------
        BadRowError
            Naming the file, the row, what is wrong, and how to look at it.
        """
        bad = status <= LAST_BAD
        if self._job.options.on_bad_row != "error" or not bad.any():
            return
        row = int(np.argmax(bad))
        file, at, group = chunk.locate(row)
        what, hint = describe_bad_row(chunk.row(row, self._job), 0, int(status[row]), self._job)
        look = ""
        if group is not None:
            look = "look: " + shlex.join(["batchmax", "show", file, "--row", str(at), *_reading(self._job.options)])
        raise bad_row(chunk.place(row), what, hint, look)

    def settle(self, chunk: Chunk, batch: pa.RecordBatch, status: Array) -> Result:
        """Return what is written of a chunk's results, and of the chunk itself."""
        bad = status <= LAST_BAD
        options = self._job.options
        if options.on_bad_row != "drop" or not bad.any():
            return Result(batch)
        rejects = None if options.rejects is None else self._rejected(chunk, np.flatnonzero(bad), status)
        return Result(batch.filter(pa.array(~bad)), rejects)

    def _rejected(self, chunk: Chunk, rows: Array, status: Array) -> pa.RecordBatch:
        """Return whole rows with the file, the row in the file and the status."""
        places = [chunk.locate(int(row)) for row in rows]
        whole = chunk.batch.select(self._schema.names).take(pa.array(rows))
        columns = [column.cast(field.type) for column, field in zip(whole.columns, self._schema, strict=True)]
        columns.append(pa.array([file for file, _, _ in places], pa.string()))
        columns.append(pa.array([row for _, row, _ in places], pa.int64()))
        columns.append(pa.array([STATUS_NAMES[status[row]] for row in rows], pa.string()))
        return pa.RecordBatch.from_arrays(columns, schema=self._fields)


def open_outputs(source: ParquetSource | StreamSource, out: str, options: ScoreOptions) -> tuple[Output, Output | None]:
    """Return the output and that of the rejected rows, if there is one; nothing is written yet.

    Raises
    ------
    OutputError
        One of them is an input, or there already and may not be replaced.
    UsageError
        They are not of a kind, or one path, or the job will not fit into the memory it may use.
    """
    check_memory(source)
    gated = options.fail_if is not None
    inputs = [file.path for file in source.files]
    written = places(out, gated=gated)
    rejected = [] if options.rejects is None else places(options.rejects, gated=gated)
    refuse_inputs_as_output(inputs, *written, *rejected)
    output = make_output(out, options)
    if options.rejects is None:
        return output, None
    rejects = make_output(options.rejects, options)
    if rejects.is_file != output.is_file:
        raise UsageError(
            "rejects of a file go to a file, and of a folder to a folder",
            where="--rejects",
            remedy="name rejects.parquet" if output.is_file else "name a folder",
        )
    if {path.resolve() for path in written} & {path.resolve() for path in rejected}:
        raise UsageError("rejects and output are the same path", where="--rejects", remedy="name another")
    return output, rejects


def _reading(options: ScoreOptions) -> list[str]:
    """Return the words of a command that make it read rows as a job does, class names aside if they are long."""
    defaults = ScoreOptions()
    names = ("logits", "label", "n_classes", "ignore_index", "logits_dtype", "input")
    given = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(defaults, name)}
    classes = ",".join(options.classes or ())
    if classes and len(classes) <= MOST_CLASSES_SHOWN:
        given["classes"] = classes
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]

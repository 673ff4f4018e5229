"""The one loop: read, compute, write, each of the three at the same time as the others.

A chunk is read ahead by one thread while the kernels (which use every core) work on the one before, and a third thread
encodes and writes the row group before that. A few :class:`Buffers` go round, so memory is as large as the chunks in
flight and never grows. Everything a person asks for here is a function with keyword arguments named as the command
line's options.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batchmax import __version__, kernels
from batchmax.bad_rows import bad_row, describe_bad_row
from batchmax.commit import Output
from batchmax.errors import DataError, GateError, UsageError
from batchmax.job import Job
from batchmax.matrices import SparseVectorError
from batchmax.memory import Buffers, usable_cores
from batchmax.options import ScoreOptions, score_options
from batchmax.outputs import LAST_BAD, STATUS_NAMES
from batchmax.plan import plan_parts
from batchmax.provenance import output_codecs, output_schema, rejects_schema
from batchmax.scoring import looks_like_probabilities, read_rows, score_rows, score_table
from batchmax.sink import ParquetSink
from batchmax.source import Chunk, ParquetSource, StreamSource, open_source
from batchmax.storage import refuse_inputs_as_output
from batchmax.summary import Gate, ScoreSummary, Tally

PROGRAM_BYTES = 250 << 20
"""Memory of the program itself: the interpreter, Numba, Arrow and the compiled kernels."""

ROWS_LOOKED_AT = 1024
"""Rows of the first chunk that are checked for being probabilities already."""


class Progress:
    """Who is told how far a job is. This one does not listen."""

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Say how much there is to do."""

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


Work = Callable[[Chunk, Buffers], Result]


def score(
    src: Any,
    out: str,
    options: ScoreOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> ScoreSummary:
    """Score logits and write the rows with their probabilities and losses.

    Parameters
    ----------
    src
        Paths of files and folders and globs, one or several; or anything with ``__arrow_c_stream__``.
    out
        A path that ends in ``.parquet``, ``.pq`` or ``.parq``, or a folder.
    options
        As made by :func:`batchmax.score_options`; or give its keyword arguments directly.
    progress
        Who is told how far the job is.

    Raises
    ------
    UsageError
        An option or a column that cannot be.
    DataError
        An input that cannot be read; a bad row under the policy ``error``.
    OutputError
        An output that is there already, or cannot be written.
    GateError
        The condition ``fail_if`` is true. The finished output is at ``OUT.held``.
    """
    options = options or score_options(**given)
    return _ScoreJob(src, out, options, progress or Progress()).run()


def scan(src: Any, options: ScoreOptions | None = None, **given: Any) -> pa.RecordBatchReader:
    """Return the scored rows as a reader that computes as it is pulled.

    Parameters and errors are those of :func:`score`; errors that depend on rows come when the rows are pulled. A reader
    has no place for rejected rows and no end at which to judge, so ``rejects`` and ``fail_if`` are refused.
    """
    options = options or score_options(**given)
    for option, value in (("--rejects", options.rejects), ("--fail-if", options.fail_if)):
        if value is not None:
            raise UsageError("a reader cannot do that", where=option, remedy="leave it out, or use score")
    source = open_source(src, options)
    parts = plan_parts(source.group_rows(), source.job.row_bytes)
    work = _ScoreWork(source.job, Progress(), source.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        # Each batch has memory of its own, since nobody knows how long the reader's user keeps it.
        for chunk in limited(source.chunks(parts, source.job.columns_read), options.limit):
            yield work(chunk, Buffers()).batch

    return pa.RecordBatchReader.from_batches(source.job.schema, batches())


def dry_run(src: Any, out: str, options: ScoreOptions) -> dict[str, Any]:
    """Return what :func:`score` would do: the parts, the columns, memory, size and free space."""
    source = open_source(src, options)
    job = source.job
    output = Output(out, options.if_exists)
    parts = plan_parts(source.group_rows(), job.row_bytes)
    rows = source.n_rows if options.limit is None or source.n_rows is None else min(source.n_rows, options.limit)
    new_bytes = sum(_width(field.type, job) for field in job.computed)
    return {
        "inputs": [file.path for file in source.files],
        "output": out,
        "n_rows": rows,
        "n_classes": job.n_classes,
        "notes": list(job.notes),
        "parts": [{"name": part.name, "rows": part.rows} for part in parts] if not output.is_file else [],
        "schema": {field.name: str(field.type) for field in job.schema},
        "bytes_read": source.size,
        "bytes_written": None if rows is None else rows * new_bytes,
        "bytes_free": shutil.disk_usage(output.path.parent).free,
        "memory_limit": options.memory_limit,
        "threads": options.threads or usable_cores(),
    }


class _ScoreWork:
    """The work on one chunk, and what is counted over all of them."""

    def __init__(self, job: Job, progress: Progress, schema: pa.Schema) -> None:
        self.job = job
        self._schema = schema
        self.tally = Tally()
        self.warnings: list[str] = []
        self._progress = progress
        self._looked = False

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        job, policy = self.job, self.job.options.on_bad_row
        try:
            matrix, labels, known = read_rows(chunk.batch, job, buffers.take)
        except SparseVectorError as error:
            raise DataError(error.what, where=_place(chunk, error.row), remedy=error.remedy) from error
        if not self._looked and len(matrix):
            self._look(matrix)
        scores = score_rows(matrix, labels, known, job, buffers.take)
        bad = scores.status <= LAST_BAD
        any_bad = bool(bad.any())
        if any_bad and policy == "error":
            raise self._describe(chunk, int(np.argmax(bad)), scores.status)
        self.tally.add(scores.status, scores.losses, scores.nll, scores.hits, scores.weights)
        batch = score_table(chunk.batch, scores, job, buffers.take)
        if not any_bad or policy == "null":
            return Result(batch)
        rejects = None
        if job.options.rejects is not None:
            rejects = _rejects(chunk, np.flatnonzero(bad), scores.status, self._schema)
        return Result(batch.filter(pa.array(~bad)), rejects)

    def warn(self, text: str) -> None:
        """Keep a warning for the summary, and say it."""
        self.warnings.append(text)
        self._progress.warn(text)

    def _look(self, matrix: np.ndarray[Any, Any]) -> None:
        self._looked = True
        if self.job.n_classes == 1:
            self.warn("there is one class, so every probability is 1 and every loss 0; is this the right column?")
        if self.job.options.input == "logits" and looks_like_probabilities(matrix[:ROWS_LOOKED_AT]):
            self.warn("the rows look like probabilities already; if they are: --input probs")

    def _describe(self, chunk: Chunk, row: int, status: np.ndarray[Any, Any]) -> Exception:
        file, at, group = chunk.locate(row)
        what, hint = describe_bad_row(chunk.batch, row, int(status[row]), self.job)
        look = "" if group is None else f"look: batchmax show {shlex.quote(file)} --row {at}"
        return bad_row(_place(chunk, row), what, hint, look)


class _ScoreJob:
    """One scoring job from files to files."""

    def __init__(self, src: Any, out: str, options: ScoreOptions, progress: Progress) -> None:
        self._started = time.monotonic()
        self._gate = None if options.fail_if is None else Gate(options.fail_if)
        self._out = Output(out, options.if_exists)
        self._rejects = _rejects_output(options, self._out)
        self._source = open_source(src, options)
        self._job = self._source.job
        self._work = _ScoreWork(self._job, progress, self._source.schema)
        self._progress = progress
        for text in self._job.notes:
            progress.note(text)

    def run(self) -> ScoreSummary:
        """Do it."""
        job, source = self._job, self._source
        everything = "*" in (job.options.columns or ())
        run = Run(
            source=source,
            out=self._out,
            rejects=self._rejects,
            schema=output_schema(job, source),
            codecs=output_codecs(job, source),
            plain=(*job.computed.names, *(job.logits.names if everything else ())),
            columns=None if job.options.rejects is not None else job.columns_read,
            progress=self._progress,
        )
        with run.building():
            run.stream(self._work_on)
            return self._finish(run.written)

    def _work_on(self, chunk: Chunk, buffers: Buffers) -> Result:
        result = self._work(chunk, buffers)
        tally = self._work.tally
        known = {"bad_rows": tally.bad_rows, "infinite_losses": tally.infinite_losses}
        if self._gate and self._gate.is_decided(known):
            raise GateError(
                f"--fail-if {self._gate.condition!r} is true after {tally.rows:,} rows",
                where=str(self._out.path),
                remedy="the run was stopped and nothing is written; mend the input, or change the condition",
            )
        return result

    def _finish(self, written: int) -> ScoreSummary:
        work = self._work
        if work.tally.infinite_losses:
            work.warn(
                f"{work.tally.infinite_losses:,} rows have an infinite loss, because their label is masked; "
                "the mean loss does not exist"
            )
        summary = ScoreSummary(
            n_classes=self._job.n_classes,
            files=[file.path for file in self._source.files],
            bytes_read=self._source.size or 0,
            bytes_written=written,
            seconds=round(time.monotonic() - self._started, 3),
            warnings=work.warnings,
            notes=list(self._job.notes),
            version=__version__,
        )
        summary.count(work.tally, has_hits=self._job.label is not None and self._job.label.kind != "distribution")
        values = summary.as_dict()
        if self._gate and self._gate.is_true(values):
            self._hold(summary, ", ".join(f"{name} is {values[name]}" for name in self._gate.names))
        if self._rejects is not None:
            self._rejects.publish(values)
        self._out.publish(values)
        return summary

    def _hold(self, summary: ScoreSummary, values: str) -> None:
        summary.held = str(self._out.hold())
        if self._rejects is not None:
            self._rejects.hold()
        raise GateError(
            f"--fail-if {self._gate.condition!r} is true: {values}" if self._gate else values,
            where=str(self._out.path),
            remedy=f"the finished output is {summary.held}; to keep it: mv "
            + shlex.join([summary.held, str(self._out.path)]),
        )


@dataclass(eq=False)
class Run:
    """The loop over one source: chunks in, row groups out.

    ``columns`` are the names that are read (None for all); ``plain`` the output columns that are written without
    dictionary and statistics; ``written`` is how many bytes were.
    """

    source: ParquetSource | StreamSource
    out: Output
    rejects: Output | None
    schema: pa.Schema
    codecs: Mapping[str, str]
    plain: Sequence[str]
    columns: Sequence[str] | None
    progress: Progress
    written: int = 0

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Make room for the output, with as many threads as were asked for; clean up what was not published."""
        outputs = [output.path for output in (self.out, self.rejects) if output is not None]
        refuse_inputs_as_output([file.path for file in self.source.files], *outputs)
        check_memory(self.source)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_threads(self.source.job.options))
            stack.enter_context(self.out.building())
            if self.rejects is not None:
                stack.enter_context(self.rejects.building())
            yield

    def stream(self, work: Work) -> None:
        """Send every chunk through the work and write what it becomes."""
        parts = plan_parts(self.source.group_rows(), self.source.job.row_bytes)
        self.progress.start(self.source.n_rows, self.source.size)
        limit = self.source.job.options.limit
        with contextlib.ExitStack() as stack:
            rejects = None
            if self.rejects is not None:
                schema = rejects_schema(self.source.schema)
                path = self.rejects.file_of(parts[0].name)
                rejects = stack.enter_context(ParquetSink(path, schema, dict.fromkeys(schema.names, "SNAPPY"), ()))
            for group in [parts] if self.out.is_file else [[part] for part in parts]:
                with ParquetSink(self.out.file_of(group[0].name), self.schema, self.codecs, self.plain) as sink:
                    rows = self._overlap(limited(self.source.chunks(group, self.columns), limit), work, sink, rejects)
                    self.written += sink.close()
                if limit is not None:
                    limit -= rows
                    if limit <= 0:
                        break
            if rejects is not None:
                self.written += rejects.close()

    def _overlap(self, chunks: Iterator[Chunk], work: Work, sink: ParquetSink, rejects: ParquetSink | None) -> int:
        """Read, work and write at the same time, and return how many rows went in."""
        rows = 0
        free: list[Buffers] = []
        group: list[tuple[Result, Buffers]] = []

        def write(group: list[tuple[Result, Buffers]]) -> list[Buffers]:
            sink.write([result.batch for result, _ in group])
            if rejects is not None:
                rejects.write([result.rejects for result, _ in group if result.rejects is not None])
            return [buffers for _, buffers in group]

        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            ahead = reader.submit(next, chunks, None)
            writing = writer.submit(write, [])
            while (chunk := ahead.result()) is not None:
                ahead = reader.submit(next, chunks, None)
                buffers = free.pop() if free else Buffers()
                buffers.reset()
                group.append((work(chunk, buffers), buffers))
                rows += chunk.batch.num_rows
                self.progress.advance(chunk.batch.num_rows, chunk.batch.num_rows * self.source.job.row_bytes)
                if chunk.ends_group:
                    free += writing.result()
                    writing = writer.submit(write, group)
                    group = []
            writing.result()
            write(group)
        return rows


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


def limited(chunks: Iterator[Chunk], limit: int | None) -> Iterator[Chunk]:
    """Return the chunks of the first ``limit`` rows; of all for None."""
    if limit is None:
        yield from chunks
        return
    # Asked before the next chunk is read: what lies after the limit may be large, or damaged.
    while limit > 0 and (chunk := next(chunks, None)) is not None:
        yield chunk.slice(0, limit, ends_group=True) if chunk.batch.num_rows > limit else chunk
        limit -= chunk.batch.num_rows


def _place(chunk: Chunk, row: int) -> str:
    file, at, group = chunk.locate(row)
    return f"{file}: row {at:,}" + ("" if group is None else f" (row group {group})")


def _rejects(
    chunk: Chunk, rows: np.ndarray[Any, Any], status: np.ndarray[Any, Any], schema: pa.Schema
) -> pa.RecordBatch:
    """Return whole rows, in the columns of the schema, with the file, the row in the file and the status."""
    places = [chunk.locate(int(row)) for row in rows]
    columns = [*chunk.batch.select(schema.names).take(pa.array(rows)).columns]
    columns.append(pa.array([file for file, _, _ in places], pa.string()))
    columns.append(pa.array([row for _, row, _ in places], pa.int64()))
    columns.append(pa.array([STATUS_NAMES[status[row]] for row in rows], pa.string()))
    return pa.RecordBatch.from_arrays(columns, schema=rejects_schema(schema))


def _rejects_output(options: ScoreOptions, out: Output) -> Output | None:
    if options.rejects is None:
        return None
    rejects = Output(options.rejects, options.if_exists)
    if rejects.is_file != out.is_file:
        raise UsageError(
            "rejects of a file go to a file, and of a folder to a folder",
            where="--rejects",
            remedy="name rejects.parquet" if out.is_file else "name a folder",
        )
    if rejects.path.resolve() == out.path.resolve():
        raise UsageError("rejects and output are the same path", where="--rejects", remedy="name another")
    return rejects


def _width(kind: Any, job: Job) -> int:
    """Return about how many bytes a value of a computed column has."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size * kind.value_type.bit_width // 8)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        count = job.options.top_k if kind.value_type in {pa.int32(), pa.string()} else job.n_classes
        return (count or job.n_classes) * _width(kind.value_type, job)
    if pa.types.is_dictionary(kind) or pa.types.is_boolean(kind):
        return 1
    return 4 if pa.types.is_string(kind) else int(kind.bit_width) // 8


@contextlib.contextmanager
def _threads(options: ScoreOptions) -> Iterator[None]:
    threads = options.threads or usable_cores()
    before = pa.cpu_count()
    kernels.limit_threads(threads)
    pa.set_cpu_count(threads)
    try:
        yield
    finally:
        kernels.limit_threads(None)
        pa.set_cpu_count(before)

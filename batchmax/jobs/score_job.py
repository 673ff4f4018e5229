"""The jobs of ``score``: to a file, to a folder of parts, or to a stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from batchmax import __version__
from batchmax.errors import GateError, UsageError
from batchmax.jobs import ray_executor
from batchmax.jobs.part_writer import Recipe
from batchmax.jobs.pipeline import Result, overlap, tell_of
from batchmax.jobs.plan import Plan
from batchmax.jobs.run import Run, open_outputs
from batchmax.jobs.score_stage import ScoreWork
from batchmax.jobs.threads import use_threads
from batchmax.options.gates import SCORE_FIGURES, Gate
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.progress import Progress
from batchmax.scoring.summary import ScoreSummary
from batchmax.sinks.commit.destination import Location
from batchmax.sinks.commit.journal import CompletedPart
from batchmax.sinks.ipc_writer import OutgoingStream
from batchmax.sinks.metadata import job_identity, output_codecs, output_schema, output_split, plain_columns
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.chunks import Chunk, limited
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_file import pyarrow_only
from batchmax.sources.parquet_source import open_source
from batchmax.sources.parts import Part, plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.storage.output_paths import is_file_path
from batchmax.storage.paths import STREAM


class ScoreJob:
    """A scoring job: its computation and its condition, independent of where the results go."""

    def __init__(self, src: Any, out: str, options: ScoreOptions, progress: Progress) -> None:
        self._started = time.monotonic()
        self._gate = None if options.fail_if is None else Gate(options.fail_if, SCORE_FIGURES)
        self._source = open_source(src, options, mirrors=out != STREAM and not is_file_path(out))
        self._job = self._source.job
        self._work = ScoreWork(self._source, progress, to_file=out != STREAM)
        self._progress = progress
        self._where = out

    def state(self) -> dict[str, Any]:
        """Return the counts so far, as JSON values."""
        return self._work.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a state."""
        self._work.restore(state)

    def begin(self, part: Part) -> None:
        """Start counting the rows of a part."""
        self._work.begin(part)

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Set the counts to the sum over all parts."""
        self._work.gather(states)

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Score a chunk; raise ``GateError`` if the condition is true whatever the remaining rows are."""
        result = self._work(chunk, buffers)
        if self._gate and self._gate.is_decided(self._work.known()):
            raise GateError(
                f"--fail-if {self._gate.condition!r} is true after {self._work.rows:,} rows",
                where=self._where,
                remedy="the run was stopped and nothing is written; mend the input, or change the condition",
            )
        return result

    def _summary(self) -> ScoreSummary:
        """Return the summary of what was counted."""
        work = self._work
        summary = ScoreSummary(
            n_classes=self._job.n_classes,
            files=[file.path for file in self._source.files],
            bytes_read=self._source.size or 0,
            seconds=round(time.monotonic() - self._started, 3),
            unified=list(self._source.unified),
            warnings=[*work.warnings, *work.late_warnings()],
            notes=list(self._job.notes),
            version=__version__,
        )
        has_hits = self._job.label is not None and self._job.label.kind != "distribution"
        summary.count(work.tally, has_hits=has_hits, is_nested=self._job.nesting is not None)
        return summary

    def _failed(self, summary: ScoreSummary) -> str:
        """Return why the condition is true; empty if it isn't, or there is none."""
        if self._gate is None:
            return ""
        return self._gate.failure(summary.figures(has_labels=self._job.label is not None))


class FileJob(ScoreJob):
    """A job that writes to a file or a folder."""

    def __init__(self, src: Any, out: str, options: ScoreOptions, progress: Progress) -> None:
        super().__init__(src, out, options, progress)
        if options.engine == "ray":
            self._check_ray(out)
        self._commit = open_outputs(self._source, out, options)
        self._schema = output_schema(self._job, self._source)
        self._commit.set_job(job_identity(self._source, self._schema, options))
        tell_of(self._source, progress)

    def _check_ray(self, out: str) -> None:
        ray_executor.check_ray()
        where, remedy = "--engine", "leave it out"
        if is_file_path(out):
            raise UsageError("a file is made by one process", where=where, remedy=f"name a folder, not {out}")
        if not self._source.files:
            raise UsageError("a stream cannot be cut into parts", where=where, remedy="write it into files first")
        if self._job.options.shard is not None:
            raise UsageError("a shard is made by one process", where=where, remedy=remedy + ", or --shard")
        if pyarrow_only():
            raise UsageError("BATCHMAX_PARQUET=pyarrow is for one process", where=where, remedy=remedy)

    def settled(self) -> ScoreSummary | None:
        """Return the summary of the output if the job is resumed and already complete; a held output is published."""
        if self._job.options.if_exists != "resume":
            return None
        if not self._commit.main.job:
            raise UsageError(
                "a run over a stream can't be resumed", where="--if-exists", remedy="write it into a file first"
            )
        stored = self._commit.finished_summary(max(file.stat.modified_ns for file in self._source.files))
        if stored is None:
            return None
        summary = ScoreSummary.stored(stored, [file.path for file in self._source.files])
        if reason := self._failed(summary):
            raise GateError(_stays(reason), where=summary.held or self._commit.main.where)
        if summary.held:
            self._commit.publish_held()
            summary.held = None
        return summary

    def run(self) -> ScoreSummary:
        """Make what is missing of the output, and publish or hold it."""
        job, source = self._job, self._source
        recipe = Recipe(
            source=source,
            schema=self._schema,
            codecs=output_codecs(job, source),
            split=output_split(job, source),
            plain=plain_columns(job),
            columns=self._columns_read(),
            progress=self._progress,
        )
        run = Run(recipe, self._commit)
        with run.building() as completed:
            if completed.decision is None:
                elsewhere = None if job.options.engine == "local" else self._on_ray
                run.stream(self, lambda: {SUMMARY_KEY: self._summary().lasting()}, elsewhere)
                self._progress.detail(source.read_statistics.text())
                summary = self._summary()
                summary.bytes_written = run.written
                summary.warnings[:0] = source.warnings  # not in the output: they name paths
                for text in self._work.late_warnings():
                    self._progress.warn(text)
            else:
                summary = ScoreSummary.stored(completed.decision["summary"], [file.path for file in source.files])
            if not self._commit.publishes:
                again = (
                    "the same command without --shard, and with --if-exists resume, makes what is missing and publishes"
                )
                summary.notes.append(f"shard {job.options.shard} is done: {again}")
                self._progress.note(summary.notes[-1])
                return summary
            if reason := self._failed(summary):
                self._hold(run, summary, reason)
            if not self._commit.main.is_file:
                rows = [part.rows for part in plan_parts(source.group_rows(), source.row_bytes)]
                self._progress.detail(f"parts: {len(rows):,}, of at most {max(rows, default=0):,} rows")
            run.publish(summary)
        return summary

    def _columns_read(self) -> Sequence[str] | None:
        """Return the columns to read, or None for all.

        Rejected rows have all columns of the input; rejected sequences have all but the logits.
        """
        job = self._job
        if job.options.rejects is None:
            return job.columns_read
        return None if job.nesting is None else self._source.schema.names

    def _on_ray(self, parts: Sequence[Part]) -> Iterator[CompletedPart]:
        """Make parts on a Ray cluster."""
        source, options = self._source, self._job.options
        out, rejects = self._commit.main, self._commit.rejects
        yield from ray_executor.make_parts(
            Plan.of(source),
            parts,
            out.parts,
            None if rejects is None else rejects.parts,
            (out.uri, None if rejects is None else rejects.uri),
            storage=options.storage_options,
            run=out.run,
            cpus=options.threads or 1,
            memory_limit=options.memory_limit,
            progress=self._progress,
            row_bytes=self._job.row_bytes,
        )

    def _hold(self, run: Run, summary: ScoreSummary, reason: str) -> None:
        if self._commit.main.location is Location.PUBLISHED:
            # A killed run has published it; only the cleanup is left.
            run.publish(summary)
            raise GateError(_stays(reason), where=self._commit.main.where)
        summary.held = run.hold(summary)
        raise GateError(
            reason,
            where=self._commit.main.where,
            remedy=f"the finished output is {summary.held}; to keep it: --if-exists resume with another --fail-if, or "
            "with none",
        )


class StreamJob(ScoreJob):
    """A job that writes to stdout as an Arrow IPC stream."""

    def __init__(self, src: Any, options: ScoreOptions, progress: Progress) -> None:
        for option, given in (("--rejects", options.rejects), ("--row-group-size", options.row_group_size)):
            if given is not None:
                raise UsageError("a stream cannot do that", where=option, remedy="leave it out, or name a file: -o")
        if options.if_exists == "resume":
            raise UsageError("a stream can't be resumed", where="--if-exists", remedy="name a file: -o")
        super().__init__(src, STREAM, options, progress)
        check_memory(self._source)

    def run(self) -> ScoreSummary:
        """Write the stream. After a failure it has no end-of-stream marker."""
        source, job, options = self._source, self._job, self._job.options
        tell_of(source, self._progress)
        parts = plan_parts(source.group_rows(), source.row_bytes)
        self._progress.start(source.n_rows, None)
        outgoing = OutgoingStream(sys.stdout.buffer, output_schema(job, source))
        with (
            use_threads(options),
            ThreadPoolExecutor(options.threads or usable_cores(), "pages") as workers,
        ):
            chunks = limited(source.chunks(parts, ReadPlan(job.columns_read, workers)), options.limit)
            # Each batch is a group of its own, so that the reader gets it as soon as it is computed.
            single = (replace(chunk, ends_group=True) for chunk in chunks)
            overlap(
                single,
                self,
                lambda group: outgoing.write([one.batch for one in group.results]),
                self._progress,
                job.row_bytes,
            )
        summary = self._summary()
        for text in self._work.late_warnings():
            self._progress.warn(text)
        if reason := self._failed(summary):
            raise GateError(reason, where=STREAM, remedy="the stream was left without its end")
        outgoing.close()
        sys.stdout.buffer.flush()
        summary.bytes_written = outgoing.size
        summary.warnings[:0] = source.warnings
        return summary


def _stays(reason: str) -> str:
    return f"the output is complete already, and stays as it is; {reason}"

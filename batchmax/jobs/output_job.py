"""The jobs of ``score`` and ``convert``: a source, a stage, and an output, which is a file, a folder or a stream."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from batchmax.errors import GateError, UsageError
from batchmax.jobs import ray_executor
from batchmax.jobs.open_outputs import open_outputs
from batchmax.jobs.part_writer import PartWriter
from batchmax.jobs.pipeline import report_source, run_pipeline
from batchmax.jobs.score_stage import ScoreStage
from batchmax.jobs.stage import Stage
from batchmax.jobs.threads import page_workers
from batchmax.options.parsing import refuse
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.progress import Progress
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.runtime.text import quantity
from batchmax.scoring.summary import ScoreSummary
from batchmax.sinks.codecs import output_codecs, output_split
from batchmax.sinks.commit.destination import Location
from batchmax.sinks.commit.journal import CompletedPart, part_sizes
from batchmax.sinks.ipc_writer import OutgoingStream
from batchmax.sinks.metadata import job_identity, output_schema
from batchmax.sources.chunks import limited
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_file import pyarrow_only
from batchmax.sources.parquet_source import Source, open_source
from batchmax.sources.parts import Part, plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.storage.output_paths import is_file_path
from batchmax.storage.paths import STREAM

MakeStage = Callable[[Source, Progress, str], Stage]


class FileJob:
    """A job that writes to a file or a folder.

    Parameters
    ----------
    src, out, options, progress
        As for :func:`batchmax.score`.
    make_stage
        Returns the stage for the opened source.
    """

    def __init__(
        self, src: Any, out: str, options: ScoreOptions, progress: Progress, make_stage: MakeStage = ScoreStage
    ) -> None:
        self._started = time.monotonic()
        self._options = options
        self._progress = progress
        self._source = open_source(src, options, mirrors=not is_file_path(out))
        self._stage = make_stage(self._source, progress, out)
        if options.engine == "ray":
            self._check_ray(out)
        self._commit = open_outputs(self._source, out, options, can_stream=self._stage.command == "score")
        schema = output_schema(self._source.job, self._source, self._stage.command)
        self._commit.set_job(job_identity(self._source, schema, options))
        self._writer = PartWriter(
            source=self._source,
            schema=schema,
            codecs=output_codecs(self._source.job, self._source),
            split=output_split(self._source.job, self._source),
            progress=progress,
        )
        report_source(self._source, progress)

    def run(self) -> ScoreSummary:
        """Make what is missing of the output, and publish or hold it."""
        if self._options.if_exists == "resume" and (finished := self._finished()) is not None:
            return finished
        source, stage = self._source, self._stage
        with self._commit.building() as self._completed, page_workers(self._options) as workers:
            if self._completed.decision is None:
                written = self._write(workers)
                self._progress.detail(source.read_statistics.text())
                summary = stage.final_summary()
                summary.seconds = round(time.monotonic() - self._started, 3)
                summary.bytes_written = written
            else:
                summary = ScoreSummary.stored(self._completed.decision["summary"], self._files)
            if not self._commit.publishes:
                again = (
                    "to make the missing parts and publish the output, run the command without --shard and with "
                    "--if-exists resume"
                )
                summary.notes.append(f"shard {self._options.shard} is finished: {again}")
                self._progress.note(summary.notes[-1])
                return summary
            if reason := stage.failure(summary):
                self._hold(summary, reason)
            if not self._commit.main.is_file:
                rows = [part.rows for part in plan_parts(source.group_rows(), source.row_bytes)]
                self._progress.detail(f"parts: {len(rows):,}, of at most {quantity(max(rows, default=0), 'row')}")
            self._publish(summary)
        return summary

    def _write(self, workers: ThreadPoolExecutor) -> int:
        """Process every chunk and write the results; return the number of bytes written."""
        source, options, completed, commit = self._source, self._options, self._completed, self._commit
        parts = commit.parts_to_make(
            plan_parts(source.group_rows(), source.row_bytes, limit=options.limit, folders=source.folders)
        )
        total = sum(part.rows for part in parts) if source.files else source.n_rows
        if total is not None and options.limit is not None:
            total = min(total, options.limit)
        self._progress.start(total, None if total is None else total * source.row_bytes)
        missing = [part for part in parts if part.number not in completed.parts]
        if skipped := completed.position + sum(part.rows for part in parts) - sum(part.rows for part in missing):
            self._progress.skip(skipped)
        if commit.main.is_file:
            return self._writer.file(parts, self._stage, commit, completed, workers)
        for part in self._make_parts(missing, workers):
            completed.parts[part.number] = part
            if commit.journal is not None:
                commit.journal.record_part(part)
        in_order = [completed.parts[part.number] for part in parts]
        for output, sizes in zip(commit.outputs, part_sizes(in_order), strict=False):
            output.part_sizes = sizes
        self._stage.gather(json.loads(part.state) for part in in_order)
        return sum(part.size + (part.rejects or 0) for part in in_order)

    def _make_parts(self, parts: Sequence[Part], workers: ThreadPoolExecutor) -> Iterator[CompletedPart]:
        if self._options.engine == "ray":
            yield from ray_executor.make_parts(self._source, parts, self._commit, self._progress)
            return
        rejects = None if self._commit.rejects is None else self._commit.rejects.parts
        for part in parts:
            yield self._writer.part(part, self._stage, self._commit.main.parts, rejects, workers)

    def _publish(self, summary: ScoreSummary) -> None:
        """Publish the rejected rows, then the output."""
        with uninterrupted():
            self._prepare(summary)
            self._commit.publish()
            self._progress.published()

    def _prepare(self, summary: ScoreSummary) -> None:
        lasting = json.loads(summary.lasting())
        for output in self._commit.outputs:
            output.prepare(functools.partial(self._writer.manifest, rejects=output is self._commit.rejects), lasting)
        if self._completed.decision is None:
            self._commit.record_decision(summary.as_dict())

    @property
    def _files(self) -> list[str]:
        return [file.path for file in self._source.files]

    def _finished(self) -> ScoreSummary | None:
        """Return the summary of the output if it is complete, otherwise None. A held output is published."""
        if not self._commit.main.job:
            raise UsageError(
                "a run over a stream can't be resumed", where="--if-exists", remedy="write it into a file first"
            )
        stored = self._commit.finished_summary(max(file.stat.modified_ns for file in self._source.files))
        if stored is None:
            return None
        summary = ScoreSummary.stored(stored, self._files)
        if reason := self._stage.failure(summary):
            raise GateError(_already_complete(reason), where=summary.held or self._commit.main.where)
        if summary.held:
            self._commit.publish_held()
            summary.held = None
        return summary

    def _hold(self, summary: ScoreSummary, reason: str) -> None:
        if self._commit.main.location is Location.PUBLISHED:
            # A killed run has published it; only the cleanup is left.
            self._publish(summary)
            raise GateError(_already_complete(reason), where=self._commit.main.where)
        with uninterrupted():
            self._prepare(summary)
            summary.held = self._commit.hold()
        raise GateError(
            reason,
            where=self._commit.main.where,
            remedy=f"the finished output is {summary.held}; to publish it: --if-exists resume with another --fail-if, "
            "or with none",
        )

    def _check_ray(self, out: str) -> None:
        ray_executor.check_ray()
        where, remedy = "--engine", "leave it out"
        if is_file_path(out):
            raise UsageError("a file is made by one process", where=where, remedy=f"name a folder, not {out}")
        if not self._source.files:
            raise UsageError("a stream can't be divided into parts", where=where, remedy="write it into files first")
        if self._options.shard is not None:
            raise UsageError("a shard is made by one process", where=where, remedy=remedy + ", or --shard")
        if pyarrow_only():
            raise UsageError("BATCHMAX_PARQUET=pyarrow supports only one process", where=where, remedy=remedy)


def score_to_stream(src: Any, options: ScoreOptions, progress: Progress) -> ScoreSummary:
    """Write an Arrow IPC stream to stdout. After a failure it has no end-of-stream marker.

    Raises
    ------
    UsageError
        An option needs a file.
    GateError
        The condition is true.
    """
    remedy = "leave it out, or name a file: -o"
    refuse("a stream doesn't support this", remedy, rejects=options.rejects, row_group_size=options.row_group_size)
    if options.if_exists == "resume":
        raise UsageError("a stream can't be resumed", where="--if-exists", remedy="name a file: -o")
    started = time.monotonic()
    source = open_source(src, options)
    stage = ScoreStage(source, progress)
    check_memory(source)
    report_source(source, progress)
    parts = plan_parts(source.group_rows(), source.row_bytes, limit=options.limit)
    progress.start(source.n_rows, None)
    outgoing = OutgoingStream(sys.stdout.buffer, output_schema(source.job, source))
    with page_workers(options) as workers:
        plan = ReadPlan(source.job.columns_read, workers, readers=source.readers)
        chunks = limited(source.chunks(parts, plan), options.limit)
        # Each batch is a group of its own, so that the reader gets it as soon as it is computed.
        single = (replace(chunk, ends_group=True) for chunk in chunks)
        # Closing ``single`` doesn't close ``chunks``, whose threads would wait forever.
        with contextlib.closing(chunks):
            run_pipeline(
                single,
                stage,
                lambda group: outgoing.write([one.batch for one in group.results]),
                progress,
                source.job.row_bytes,
            )
    summary = stage.final_summary()
    if reason := stage.failure(summary):
        raise GateError(reason, where=STREAM, remedy="the stream has no end-of-stream marker")
    outgoing.close()
    sys.stdout.buffer.flush()
    summary.seconds, summary.bytes_written = round(time.monotonic() - started, 3), outgoing.size
    return summary


def _already_complete(reason: str) -> str:
    return f"the output is already complete, and is left unchanged; {reason}"

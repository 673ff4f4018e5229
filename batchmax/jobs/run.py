"""Runs a job: finds what an earlier run has completed, makes the other parts, and publishes the output."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from batchmax.errors import UsageError
from batchmax.jobs.part_writer import PartWriter
from batchmax.jobs.stage import Stage
from batchmax.jobs.threads import use_threads
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.scoring.summary import ScoreSummary
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.destination import Destination
from batchmax.sinks.commit.journal import CompletedPart, CompletedWork, part_sizes
from batchmax.sinks.commit.local_destination import output_paths
from batchmax.sinks.commit.make_destination import make_destination
from batchmax.sinks.commit.shared_commit import SharedCommit
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_source import Source
from batchmax.sources.parts import Part, plan_parts
from batchmax.sources.streams.arrow_batches import check_parquet_types
from batchmax.storage.file_names import folded
from batchmax.storage.output_paths import (
    is_file_path,
    refuse_inputs_as_output,
    refuse_other_formats,
    refuse_uris_as_output,
)
from batchmax.storage.paths import is_uri

SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")

Elsewhere = Callable[[Sequence[Part]], Iterable[CompletedPart]]
"""Makes parts in other processes: takes the parts to make, and returns them in any order."""


@dataclass(eq=False)
class Run:
    """A run that writes an output, and the output of rejected rows.

    Attributes
    ----------
    recipe, commit
        How the outputs are written and published.
    written
        The number of bytes that were written.
    """

    writer: PartWriter
    commit: Commit
    written: int = 0
    _completed: CompletedWork = field(default_factory=CompletedWork)

    @contextlib.contextmanager
    def building(self) -> Iterator[CompletedWork]:
        """Set up the staging directories and threads, and yield what earlier runs have completed.

        At the end, what wasn't published is removed, or kept if it can be resumed.
        """
        with use_threads(self.writer.source.job.options), self.commit.building() as self._completed:
            yield self._completed

    def stream(
        self, stage: Stage, describe: Callable[[], Mapping[str, str]], elsewhere: Elsewhere | None = None
    ) -> None:
        """Process every chunk and write the results.

        Parameters
        ----------
        stage
            The computation on chunks.
        describe
            Returns the metadata for the footer of a file with all rows.
        elsewhere
            Makes the parts of a folder in other processes; None to make them in this process.
        """
        source, completed = self.writer.source, self._completed
        limit = source.job.options.limit
        parts = self.commit.parts_to_make(
            plan_parts(source.group_rows(), source.row_bytes, limit=limit, folders=source.folders)
        )
        total = sum(part.rows for part in parts) if source.files else source.n_rows
        if total is not None and limit is not None:
            total = min(total, limit)
        progress = self.writer.progress
        progress.start(total, None if total is None else total * source.row_bytes)
        if skipped := completed.position + sum(part.rows for part in parts if part.number in completed.parts):
            progress.skip(skipped)
        with ThreadPoolExecutor(source.job.options.threads or usable_cores(), "pages") as workers:
            if self.commit.main.is_file:
                self.written += self.writer.file(parts, stage, self.commit, completed, describe, workers)
                return
            here = functools.partial(self._here, stage, workers)
            self._parts(parts, stage, elsewhere or here)

    def _parts(self, parts: Sequence[Part], stage: Stage, make: Elsewhere) -> None:
        """Make the parts that aren't completed, and add up the counts of all parts in their order."""
        completed = self._completed.parts
        for part in make([part for part in parts if part.number not in completed]):
            completed[part.number] = part
            if self.commit.journal is not None:
                self.commit.journal.record_part(part)
        in_order = [completed[part.number] for part in parts]
        for output, sizes in zip(self.commit.outputs, part_sizes(in_order), strict=False):
            output.part_sizes = sizes
        self.written += sum(part.size + (part.rejects or 0) for part in in_order)
        stage.gather(json.loads(part.state) for part in in_order)

    def _here(self, stage: Stage, workers: ThreadPoolExecutor, parts: Sequence[Part]) -> Iterator[CompletedPart]:
        rejects = None if self.commit.rejects is None else self.commit.rejects.parts
        for part in parts:
            yield self.writer.part(part, stage, self.commit.main.parts, rejects, workers)

    def publish(self, summary: ScoreSummary) -> None:
        """Publish the rejected rows, then the output."""
        with uninterrupted():
            self._prepare(summary)
            self.commit.publish()
            self.writer.progress.published()

    def hold(self, summary: ScoreSummary) -> str:
        """Hold the rejected rows and the output next to their paths; return where the output is."""
        with uninterrupted():
            self._prepare(summary)
            return self.commit.hold()

    def _prepare(self, summary: ScoreSummary) -> None:
        lasting = json.loads(summary.lasting())
        for output in self.commit.outputs:
            output.prepare(functools.partial(self.writer.manifest, rejects=output is self.commit.rejects), lasting)
        if self._completed.decision is None:
            self.commit.record_decision(summary.as_dict())


def open_outputs(source: Source, out: str, options: ScoreOptions) -> Commit:
    """Return the commit of the output and of the rejected rows; nothing is written yet.

    Raises
    ------
    OutputError
        One of them is an input, or exists and may not be replaced.
    UsageError
        One is a file and the other a folder, both have the same path, a column can't be written, or the job needs more
        memory than its limit.
    """
    check_memory(source, writes_groups=True)
    check_parquet_types(source.job.carried if options.rejects is None else source.schema)
    gated = options.fail_if is not None
    inputs = [file.path for file in source.files]
    for path in (out, options.rejects):
        if path is not None and is_uri(path):
            refuse_uris_as_output(inputs, path)
    written = [] if is_uri(out) else output_paths(out, gated=gated)
    rejected = [] if options.rejects is None or is_uri(options.rejects) else output_paths(options.rejects, gated=gated)
    refuse_inputs_as_output(inputs, *written, *rejected)
    output = _destination(out, options)
    rejects = None if options.rejects is None else _destination(options.rejects, options)
    if rejects is not None and rejects.is_file != output.is_file:
        raise UsageError(
            "the rejects of a file must be a file, and those of a folder a folder",
            where="--rejects",
            remedy="name rejects.parquet" if output.is_file else "name a folder",
        )
    if {folded(str(path.resolve())) for path in written} & {folded(str(path.resolve())) for path in rejected}:
        raise UsageError("rejects and output are the same path", where="--rejects", remedy="name another")
    if options.shard is None:
        return Commit(output, rejects)
    return SharedCommit(output, rejects, parse_shard(options.shard))


def _destination(out: str, options: ScoreOptions) -> Destination:
    """Return the destination of the output or of the rejected rows; refuse what shards and Ray can't write to."""
    refuse_other_formats(out)
    gated = options.fail_if is not None
    if options.shard is not None and is_uri(out):
        what = "shards meet in a folder that all of them see"
        raise UsageError(what, where="--shard", remedy="name a folder of a file system, or use --engine ray")
    if options.shard is not None and parse_shard(options.shard) and is_file_path(out):
        raise UsageError("a file is made by one run", where="--shard", remedy=f"name a folder, not {out}")
    if gated and options.engine == "ray" and is_uri(out) and not is_file_path(out):
        raise UsageError(
            "an output at a URI can't be held when Ray makes its parts: the tasks upload them",
            where="--fail-if",
            remedy="name a folder that all nodes see, or check the output with batchmax evaluate --fail-if",
        )
    return make_destination(out, options.if_exists, storage=options.storage_options, gated=gated)


def parse_shard(text: str) -> tuple[int, int]:
    """Return the number of a shard and the number of shards, from a text such as ``2/8``.

    Raises
    ------
    UsageError
        The text isn't a shard.
    """
    found = SHARD.fullmatch(text)
    if found is None or int(found[2]) == 0:
        raise UsageError(f"{text!r} is no shard", where="--shard", remedy="give its number and of how many: 0/8")
    number, of = int(found[1]), int(found[2])
    if number >= of:
        raise UsageError(f"there is no shard {text}", where="--shard", remedy=f"shards run 0/{of} … {of - 1}/{of}")
    return number, of

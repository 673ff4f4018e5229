"""Runs a job: finds what an earlier run has completed, makes the other parts, and publishes the output."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from batchmax.errors import UsageError
from batchmax.jobs.part_writer import Recipe
from batchmax.jobs.pipeline import Work
from batchmax.jobs.threads import use_threads
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.scoring.summary import ScoreSummary
from batchmax.sinks.commit.destination import places
from batchmax.sinks.commit.journal import Done, Receipt
from batchmax.sinks.commit.output import Output
from batchmax.sinks.commit.shared_output import make_output
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import Part, plan_parts
from batchmax.sources.streams.arrow_batches import check_parquet_types
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.storage.file_names import folded
from batchmax.storage.output_paths import refuse_inputs_as_output, refuse_uris_as_output
from batchmax.storage.paths import is_uri

Elsewhere = Callable[[Sequence[Part]], Iterable[Receipt]]
"""Makes parts in other processes: takes the parts to make, and returns their receipts in any order."""


@dataclass(eq=False)
class Run:
    """A run that writes an output, and the output of rejected rows.

    Attributes
    ----------
    job
        The identity of the job, by which another run can resume it; None if it can't be resumed.
    written
        The number of bytes that were written.
    """

    recipe: Recipe
    out: Output
    rejects: Output | None
    job: Mapping[str, Any] | None = None
    written: int = 0
    _done: Done = field(default_factory=Done)

    @contextlib.contextmanager
    def building(self) -> Iterator[Done]:
        """Set up the staging directories and threads, and yield what earlier runs have completed.

        At the end, what wasn't published is removed, or kept if it can be resumed.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(use_threads(self.recipe.source.job.options))
            self._done = stack.enter_context(self.out.building(self.job, self.rejects))
            if self.rejects is not None:
                stack.enter_context(self.rejects.beside(self.out, self._done))
            self._list_parts(self._done.receipts[number] for number in sorted(self._done.receipts))
            yield self._done

    def stream(self, work: Work, describe: Callable[[], Mapping[str, str]], elsewhere: Elsewhere | None = None) -> None:
        """Process every chunk and write the results.

        Parameters
        ----------
        work
            The computation on chunks.
        describe
            Returns the metadata for the footer of a file with all rows.
        elsewhere
            Makes the parts of a folder in other processes; None to make them in this process.
        """
        source, done = self.recipe.source, self._done
        limit = source.job.options.limit
        parts = self.out.mine(plan_parts(source.group_rows(), source.row_bytes, limit=limit, folders=source.folders))
        total = sum(part.rows for part in parts) if source.files else source.n_rows
        if total is not None and limit is not None:
            total = min(total, limit)
        progress = self.recipe.progress
        progress.start(total, None if total is None else total * source.row_bytes)
        if skipped := done.position + sum(part.rows for part in parts if part.number in done.receipts):
            progress.skip(skipped)
        with ThreadPoolExecutor(source.job.options.threads or usable_cores(), "pages") as workers:
            if self.out.is_file:
                self.written += self.recipe.file(parts, work, self.out, self.rejects, done, describe, workers)
                return
            here = functools.partial(self._here, work, workers)
            self._parts(parts, work, elsewhere or here)

    def _parts(self, parts: Sequence[Part], work: Work, make: Elsewhere) -> None:
        """Make the parts that have no receipt, and add up the counts of all parts in their order."""
        receipts = self._done.receipts
        for receipt in make([part for part in parts if part.number not in receipts]):
            receipts[receipt.number] = receipt
            if self.out.journal is not None:
                self.out.journal.part(receipt)
        done = [receipts[part.number] for part in parts]
        self._list_parts(done)
        self.written += sum(receipt.size + (receipt.rejects or 0) for receipt in done)
        work.gather(json.loads(receipt.state) for receipt in done)

    def _list_parts(self, receipts: Iterable[Receipt]) -> None:
        """Set the names and sizes of the parts of each output."""
        done = list(receipts)
        self.out.finished = {receipt.name: receipt.size for receipt in done}
        if self.rejects is not None:
            self.rejects.finished = {one.name: one.rejects for one in done if one.rejects is not None}

    def _here(self, work: Work, workers: ThreadPoolExecutor, parts: Sequence[Part]) -> Iterator[Receipt]:
        rejects = None if self.rejects is None else self.rejects.parts
        for part in parts:
            yield self.recipe.part(part, work, self.out.parts, rejects, workers)

    def publish(self, summary: ScoreSummary) -> None:
        """Publish the rejected rows, then the output."""
        with uninterrupted():
            self._prepare(summary)
            if self.rejects is not None:
                self.rejects.publish()
            self.out.publish()
            self.recipe.progress.published()

    def hold(self, summary: ScoreSummary) -> str:
        """Hold the rejected rows and the output next to their paths; return where the output is."""
        with uninterrupted():
            self._prepare(summary)
            if self.rejects is not None:
                self.rejects.hold()
            return str(self.out.hold())

    def _prepare(self, summary: ScoreSummary) -> None:
        lasting = json.loads(summary.lasting())
        for output in (self.out, self.rejects):
            if output is not None:
                output.prepare(functools.partial(self.recipe.manifest, rejects=output is self.rejects), lasting)
        if self._done.published is None:
            self.out.decide(summary.as_dict(), self.rejects)


def open_outputs(source: ParquetSource | StreamSource, out: str, options: ScoreOptions) -> tuple[Output, Output | None]:
    """Return the output, and that of the rejected rows or None; nothing is written yet.

    Raises
    ------
    OutputError
        One of them is an input, or exists and may not be replaced.
    UsageError
        One is a file and the other a folder, both have the same path, a column can't be written, or the job needs more
        memory than its limit.
    """
    check_memory(source)
    check_parquet_types(source.job.carried if options.rejects is None else source.schema)
    gated = options.fail_if is not None
    inputs = [file.path for file in source.files]
    for path in (out, options.rejects):
        if path is not None and is_uri(path):
            refuse_uris_as_output(inputs, path)
    written = [] if is_uri(out) else places(out, gated=gated)
    rejected = [] if options.rejects is None or is_uri(options.rejects) else places(options.rejects, gated=gated)
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
    if {folded(str(path.resolve())) for path in written} & {folded(str(path.resolve())) for path in rejected}:
        raise UsageError("rejects and output are the same path", where="--rejects", remedy="name another")
    return output, rejects

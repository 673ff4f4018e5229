"""Outputs that several runs write together (shards), with one staging directory and a journal for each run.

Shards publish nothing. A run that has the staging directory to itself resumes what they did, and publishes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchmax.errors import OutputError, UsageError
from batchmax.options.score_options import IfExists, ScoreOptions
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.sinks.commit.existing_output import differences
from batchmax.sinks.commit.journal import Done, Journal, read_journal, read_journals
from batchmax.sinks.commit.output import Output
from batchmax.sinks.commit.remote_output import RemoteOutput
from batchmax.sinks.commit.staging import remove
from batchmax.sources.parts import Part
from batchmax.storage.output_paths import is_file_path, refuse_other_formats
from batchmax.storage.paths import is_uri

SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


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


def make_output(out: str, options: ScoreOptions) -> Output:
    """Return the output of a job; a shared one if the job makes a shard.

    Raises
    ------
    UsageError
        The shard is invalid, the output of a shard is a file or a URI, or the output can't be held as asked.
    OutputError
        See :class:`batchmax.sinks.commit.output.Output`.
    """
    refuse_other_formats(out)
    gated = options.fail_if is not None
    if is_uri(out):
        if options.shard is not None:
            what = "shards meet in a folder that all of them see"
            raise UsageError(what, where="--shard", remedy="name a folder of a file system, or use --engine ray")
        if gated and options.engine == "ray" and not is_file_path(out):
            raise UsageError(
                "an output at a URI can't be held when Ray makes its parts: the tasks upload them",
                where="--fail-if",
                remedy="name a folder that all nodes see, or check the output with batchmax evaluate --fail-if",
            )
        return RemoteOutput(out, options.if_exists, options.storage_options, gated=gated)
    if options.shard is None:
        return Output(out, options.if_exists, gated=gated)
    shard = parse_shard(options.shard)
    if is_file_path(out):
        raise UsageError("a file is made by one run", where="--shard", remedy=f"name a folder, not {out}")
    return SharedOutput(out, options.if_exists, shard, gated=gated)


class SharedOutput(Output):
    """A folder that several shards write together.

    Parameters and errors are those of :class:`batchmax.sinks.commit.output.Output`. ``shard`` is the number of the
    shard and the number of shards.
    """

    publishes = False

    def __init__(self, out: str, if_exists: IfExists, shard: tuple[int, int], *, gated: bool = False) -> None:
        super().__init__(out, if_exists, gated=gated)
        self._shard = shard

    def mine(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts of this shard."""
        number, of = self._shard
        return parts[number::of]

    @contextlib.contextmanager
    def building(self, job: Mapping[str, Any] | None = None, beside: Output | None = None) -> Iterator[Done]:
        """Share the staging directory with other shards; what any of them has completed for this job is kept.

        Raises
        ------
        UsageError
            The job can't be resumed.
        OutputError
            Another run uses the output alone or makes this shard, or other shards belong to another job.
        """
        del beside
        if job is None:
            raise UsageError("a stream cannot be cut into shards", where="--shard", remedy="write it into a file first")
        try:
            with self.renaming():
                done = self._join(job)
            yield done
        finally:
            self._leave_workshop()

    @contextlib.contextmanager
    def beside(self, main: Output, done: Done) -> Iterator[None]:
        """Share the staging directory of rejected rows as well."""
        del main, done
        try:
            with self.renaming():
                self.shop.open_shared()
                self.shop.share()
                self.shop.parts.make_room()
            yield
        finally:
            self._leave_workshop()

    def _join(self, job: Mapping[str, Any]) -> Done:
        alone = self.shop.open_shared()
        found = read_journals(self.shop.journals())
        others = [] if found is None else list(differences(job, found[0]))
        if others and not alone:
            what = f"other shards are at another job here: {'; '.join(others[:3])}"
            raise OutputError(what, where=str(self.path), remedy="wait for them, or name another output: -o")
        if alone and (others or found is None):
            self.restore()
            self.shop.clear()
        self.shop.share()
        self.place.check(replaces=self.replaces or (found is not None and not others and found[1].replaces))
        self.shop.parts.make_room()
        path = self.shop.journal_of(self._shard)
        is_begun = read_journal(path) is not None
        if not is_begun:
            remove(path)
        try:
            self.journal = Journal(path, None if is_begun else job, replaces=self.replaces, run=self.run)
        except BlockingIOError as error:
            what = f"another run is making shard {'/'.join(map(str, self._shard))} of this output"
            raise OutputError(what, where=str(self.path), remedy="wait for it, or run another shard") from error
        return Done() if found is None or others else found[1]

    def _leave_workshop(self) -> None:
        with uninterrupted():
            if self.journal is not None:
                self.journal.close()
            self.shop.close(keep=True)

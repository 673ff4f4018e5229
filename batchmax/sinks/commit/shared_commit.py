"""Outputs that several runs write together (shards), with one staging directory and a journal for each run.

Shards publish nothing. A run that has the staging directory to itself resumes what they did, and publishes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from batchmax.errors import OutputError, UsageError
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.destination import Destination
from batchmax.sinks.commit.journal import CompletedWork, open_journal
from batchmax.sinks.commit.resume import EarlierRun
from batchmax.sources.parts import Part


class SharedCommit(Commit):
    """The outputs of one of several shards.

    Parameters are those of :class:`batchmax.sinks.commit.commit.Commit`. ``shard`` is the number of the shard and the
    number of shards.
    """

    publishes = False

    def __init__(self, main: Destination, rejects: Destination | None, shard: tuple[int, int]) -> None:
        super().__init__(main, rejects)
        self._shard = shard

    def parts_to_make(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts of this shard."""
        number, of = self._shard
        return parts[number::of]

    @contextlib.contextmanager
    def building(self) -> Iterator[CompletedWork]:
        """Share the staging directories with other shards; what any of them has completed for this job is kept.

        Raises
        ------
        UsageError
            The job can't be resumed.
        OutputError
            Another run uses the output alone or makes this shard, or other shards belong to another job.
        """
        if not self.main.job:
            raise UsageError("a stream cannot be cut into shards", where="--shard", remedy="write it into a file first")
        try:
            with self.main.converting_errors():
                completed = self._join()
            if self.rejects is not None:
                with self.rejects.converting_errors():
                    self.rejects.staging.open(shared=True)
                    self.rejects.parts.create()
            yield completed
        finally:
            with uninterrupted():
                if self.journal is not None:
                    self.journal.close()
                for output in reversed(self.outputs):
                    output.staging.close(keep=True)

    def _join(self) -> CompletedWork:
        main, staging = self.main, self.main.staging
        is_alone = staging.open_shared()
        earlier = EarlierRun(main)
        if earlier.differences and not is_alone:
            what = f"other shards are at another job here: {'; '.join(earlier.differences[:3])}"
            raise OutputError(what, where=main.where, remedy="wait for them, or name another output")
        if is_alone and not earlier.is_same_job:
            staging.restore_old()
            staging.clear()
        staging.share()
        main.check(replaces=main.replaces or (earlier.is_same_job and earlier.completed.replaces))
        main.parts.create()
        try:
            self.journal = open_journal(staging.journal_of(self._shard), main.job, **main.journal_options)
        except BlockingIOError as error:
            what = f"another run is making shard {'/'.join(map(str, self._shard))} of this output"
            raise OutputError(what, where=main.where, remedy="wait for it, or run another shard") from error
        return earlier.completed if earlier.is_same_job else CompletedWork()

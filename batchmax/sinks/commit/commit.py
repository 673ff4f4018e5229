"""Commits an output and its rejected rows: each path has its previous content or the whole new output.

Outputs are written in staging directories (:mod:`batchmax.sinks.commit.staging`). A commit has the same steps for a
file, a folder and an object store:

1. *Prepare*: finish what is staged. A folder gets its manifest and an empty ``_SUCCESS``.
2. *Decide*: record in the journal that the output is finished, and the inodes of what is published. From here on, a run
   that resumes only repeats the steps below; a step that was done before does nothing.
3. *Publish*: rename or upload the rejected rows, then the output. What was at a path is moved to the staging directory,
   and restored if the job fails after all.
4. *Clean up*: remove the staging directory of the rejected rows, then that of the output, its journal last.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchmax.errors import GateError, OutputError
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.runtime.text import quantity
from batchmax.sinks.commit.destination import Destination, Location
from batchmax.sinks.commit.journal import CompletedWork, Journal, open_journal
from batchmax.sinks.commit.resume import EarlierRun, is_transient
from batchmax.sources.parts import Part

RESUMABLE = "completed work is kept; continue with --if-exists resume"
"""The note that is added to exceptions of runs that can be resumed."""


class Commit:
    """The commit of an output, and of its rejected rows.

    Parameters
    ----------
    main, rejects
        The destinations of the output and of the rejected rows; None if these aren't written.

    Attributes
    ----------
    outputs
        The destinations, that of the output first.
    journal
        The journal, while the outputs of a job that can be resumed are being written.
    publishes
        Whether the run publishes the outputs.
    """

    publishes = True

    def __init__(self, main: Destination, rejects: Destination | None = None) -> None:
        self.main = main
        self.rejects = rejects
        self.outputs = [main] if rejects is None else [main, rejects]
        self.journal: Journal | None = None
        self._keeps_staging = False
        self._keeps_journal = False

    def parts_to_make(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts that this run makes."""
        return parts

    def set_job(self, job: Mapping[str, Any] | None) -> None:
        """Set the identity of the job, as JSON values; None if the job can't be resumed."""
        for output in self.outputs:
            output.job = job or {}

    def finished_summary(self, newest_input: int) -> dict[str, Any] | None:
        """Return the summary of the job's output if it is complete or held, and remove what a killed run left.

        Parameters, meaning of None, and errors are those of
        :meth:`batchmax.sinks.commit.resume.EarlierRun.finished_output`.
        """
        earlier = EarlierRun(self.main)
        found = earlier.finished_output(newest_input)
        if found is None:
            return None
        if not earlier.differences:
            self._remove_leftovers(self.main, publishes_held=self.main.has_held_copy())
        return {**found.summary, "held": found.where if found.is_held else None}

    def publish_held(self) -> None:
        """Publish held outputs, or finish the cleanup of a run that was killed while it published them."""
        for output in reversed(self.outputs):
            is_held = output.job_at(Location.HELD) is not None
            if is_held or output.is_of_job(Location.PUBLISHED):
                self._remove_leftovers(output, publishes_held=is_held)

    @contextlib.contextmanager
    def building(self) -> Iterator[CompletedWork]:
        """Set up the staging directories; after an error, except a true gate, undo what was published in the block.

        Yields
        ------
        CompletedWork
            What is already completed.

        Raises
        ------
        OutputError
            Another run writes an output, or has left something that may not be removed.
        """
        with self._locked(self.main), contextlib.ExitStack() as stack:
            with self.main.converting_errors():
                completed = self._resume_or_start_over()
            if self.rejects is not None:
                stack.enter_context(self._locked(self.rejects))
                with self.rejects.converting_errors():
                    self.rejects.check(replaces=self.rejects.replaces)
                    if not (completed.rejects.size or completed.parts or completed.decision):
                        self.rejects.start()
            yield completed

    def record_decision(self, summary: Mapping[str, Any]) -> None:
        """Record in the journal that everything is prepared, so that a later run publishes it."""
        if self.journal is not None:
            with self.main.converting_errors():
                self.journal.record_decision(summary, [output.inode for output in self.outputs])

    def publish(self) -> None:
        """Publish the prepared rejected rows, then the output."""
        for output in reversed(self.outputs):
            output.publish()

    def hold(self) -> str:
        """Hold the prepared rejected rows, then the output; return the path or URI of the held output."""
        *_, where = [output.hold() for output in reversed(self.outputs)]
        # The journal records that this output may replace the existing one when it is published.
        self._keeps_journal = self.journal is not None and self.main.job_at(Location.PUBLISHED) is not None
        return where

    def is_resumable_after(self, error: BaseException) -> bool:
        """Return whether the run can be resumed after an error, and say so in a note of the error."""
        if self._keeps_staging:
            return True
        if self.journal is None or not is_transient(error):
            return False
        with contextlib.suppress(OSError):
            self.journal.write_pending()
        completed = EarlierRun(self.main).completed
        if not (completed.rows or completed.decision):
            return False
        if RESUMABLE not in getattr(error, "__notes__", ()):
            error.add_note(RESUMABLE)
        return True

    def _remove_leftovers(self, output: Destination, *, publishes_held: bool) -> None:
        """Remove what a killed run left of a finished output, after publishing it if it is held."""
        if publishes_held or output.staging.folder.is_dir():
            with self._locked(output):
                if publishes_held:
                    output.publish_held()

    @contextlib.contextmanager
    def _locked(self, output: Destination) -> Iterator[None]:
        """Lock a staging directory; keep it at the end only if the run can be resumed."""
        keep = False
        try:
            with output.converting_errors():
                output.staging.open()
                output.staging.restore_old()
            yield
        except GateError:
            raise
        except BaseException as error:
            with uninterrupted():
                keep = True  # it stays if the lines below fail
                output.undo(error)
                keep = self.is_resumable_after(error)
            raise
        finally:
            with uninterrupted():
                keeps_journal = output is self.main and self._keeps_journal
                if output is self.main and self.journal is not None:
                    self.journal.close()
                if not keep:
                    output.clean_up(output.run)
                    if keeps_journal:
                        output.staging.clear(keeps_journal=True)
                output.staging.close(keep=keep or keeps_journal, published=output.is_published)

    def _resume_or_start_over(self) -> CompletedWork:
        """Resume what earlier runs have completed, or remove it; return what is completed."""
        main, earlier = self.main, EarlierRun(self.main)
        # What another run has left is kept until it is known whether it is resumed.
        self._keeps_staging = earlier.exists
        resumes = earlier.is_same_job and main.if_exists == "resume"
        if resumes:
            earlier.restore_state(self.outputs)
        # Another run may have published since this one checked.
        main.check(replaces=main.replaces)
        if resumes and earlier.retain(self.outputs):
            self._keeps_staging = False
            if main.staging.durable and not earlier.completed.is_durable:
                for output in self.outputs:
                    output.sync()
            self.journal = open_journal(main.staging.journal, main.job, **main.journal_options)
            return earlier.completed
        if earlier.is_same_job and main.if_exists == "error" and earlier.completed.rows:
            raise OutputError(
                f"there is an unfinished run of this job, with {quantity(earlier.completed.rows, 'completed row')}",
                where=str(main.staging.folder),
                remedy="resume it: --if-exists resume, or start over: --if-exists overwrite",
            )
        self._keeps_staging = False
        if earlier.completed.rows and not earlier.is_finished:
            why = ": it is damaged" if earlier.is_same_job else ": it was of another job"
            what = f"{main.staging.path}: an unfinished run is discarded"
            warnings.warn(what if main.if_exists == "overwrite" else what + why, RuntimeWarning, stacklevel=2)
        for output in self.outputs:
            output.clean_up(earlier.completed.run)
            output.run, output.inode, output.part_sizes = main.run, None, {}
        if main.job:
            # The journal comes first, so that it is recorded at all times that the output may replace another.
            self.journal = Journal(main.staging.journal, main.job, **main.journal_options)
        main.start(keeps_journal=bool(main.job))
        return CompletedWork()

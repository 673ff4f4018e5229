"""What earlier runs on an output left: completed rows and parts, or a finished output that is published or held."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from batchmax.errors import BatchmaxError, OutputError
from batchmax.sinks.commit.destination import REPLACE, Destination, FinishedOutput, Location
from batchmax.sinks.commit.existing_output import differences
from batchmax.sinks.commit.journal import CompletedWork, part_sizes, read_journals


class EarlierRun:
    """The earlier runs on an output, according to the journals in its staging directory.

    Attributes
    ----------
    completed
        What is completed of their job.
    exists
        Whether there is a readable journal.
    differences
        How their job differs from that of the output; empty if there is no readable journal.
    is_same_job
        Whether there is a readable journal, of the output's job.
    """

    def __init__(self, main: Destination) -> None:
        self._main = main
        found = read_journals(main.staging.journals())
        self.exists = found is not None
        job, self.completed = found or ({}, CompletedWork())
        self.differences = list(differences(main.job, job)) if self.exists else []
        self.is_same_job = bool(main.job) and self.exists and not self.differences

    @property
    def is_finished(self) -> bool:
        """Whether the output is finished according to the journal, and is published or held."""
        inode = next(iter(self.completed.inodes), None)
        return self._main.locate(self.completed.run, inode) in {Location.PUBLISHED, Location.HELD}

    def rows_completed(self, rows: int) -> int:
        """Return how many of ``rows`` rows a run with ``resume`` would skip. Changes nothing."""
        with contextlib.suppress(OutputError):
            if any(found.job == self._main.job["output"] for found in self._main.finished_outputs()):
                return rows
        return self.completed.rows if self.is_same_job else 0

    def finished_output(self, newest_input: int) -> FinishedOutput | None:
        """Return the finished output of the job, published or held; None if something is left to do.

        What is left may also be only to publish it, or to clean up.

        Parameters
        ----------
        newest_input
            The latest modification time of the inputs, in nanoseconds.

        Raises
        ------
        OutputError
            The output is complete, but of another job.
        """
        if self.is_same_job and (self.completed.replaces or self.is_finished):
            return None
        for found in self._main.finished_outputs():
            others = list(differences(self._main.job["output"], found.job))
            if newest_input > found.written_ns:
                others.append("an input has changed since")
            if others:
                what = f"this is the output of another job, and complete: {'; '.join(others[:3])}"
                raise OutputError(what, where=found.where, remedy=REPLACE)
            return found
        return None

    def restore_state(self, outputs: Sequence[Destination]) -> None:
        """Set the state of the outputs to what the journal records, so that they continue the earlier run."""
        completed = self.completed
        sizes = part_sizes([completed.parts[number] for number in sorted(completed.parts)])
        for output, inode, of_parts in zip(outputs, [*completed.inodes, None, None], sizes, strict=False):
            output.replaces, output.run, output.inode = completed.replaces, completed.run, inode
            output.part_sizes = of_parts
        if any(output.location is None for output in outputs):
            completed.decision = None
            for output in outputs:
                output.inode = None

    def retain(self, outputs: Sequence[Destination]) -> bool:
        """Remove staged parts that no journal records; return whether all that is recorded exists."""
        files = zip(outputs, (self.completed.file, self.completed.rejects), strict=False)
        return all(output.retain(file.size) for output, file in reversed(list(files)))


def is_transient(error: BaseException) -> bool:
    """Return whether a later run may succeed: errors of the machine pass, errors of data and usage don't."""
    if not isinstance(error, BatchmaxError) or isinstance(error, OutputError):
        return True
    return isinstance(error.__cause__, OSError) and error.__cause__.errno is not None

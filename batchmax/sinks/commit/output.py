"""Publishing of outputs: the output path has its previous content or the whole new output, and nothing in between.

An output is written in a staging directory next to its path (:mod:`batchmax.sinks.commit.staging`) and renamed when it
is finished. A commit has the same steps for a file, a folder and an object store:

1. *Prepare*: finish what is staged. A folder gets its manifest and an empty ``_SUCCESS``.
2. *Decide*: record in the journal that the output is finished, and the inodes of what is published. From here on, a run
   that resumes only repeats the steps below; a step that was done before does nothing.
3. *Publish*: rename the rejected rows, then the output. What was at the path is moved to the staging directory, and
   restored if the job fails after all.
4. *Clean up*: remove the staging directory of the rejected rows, then that of the output, its journal last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchmax.errors import BatchmaxError, GateError, OutputError
from batchmax.options.score_options import IfExists
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.sinks.commit.atomic_rename import Rename
from batchmax.sinks.commit.destination import REPLACE, Place
from batchmax.sinks.commit.existing_output import SUCCESS, differences, job_of, newest, summary_of
from batchmax.sinks.commit.journal import CompletedWork, Journal, read_journal, read_journals
from batchmax.sinks.commit.staging import PartFolder, StagingDirectory, inode, remove
from batchmax.sources.parts import Part
from batchmax.storage.files import open_exclusively, sync_folder
from batchmax.storage.manifest import Manifest, old_manifest_of, read_old_manifest

RESUMABLE = "what is done is kept; go on: --if-exists resume"
"""The note that is added to exceptions of runs that can be resumed."""

WriteManifest = Callable[[Path, Manifest], None]
"""Writes the manifest of a folder to a path, as a Parquet file with the columns of the parts."""


class Output:
    """An output that is being written: one file, or a folder of parts.

    Parameters
    ----------
    out
        The path: of a file if it has a suffix of Parquet files, otherwise of a folder.
    if_exists
        Whether an existing output of batchmax may be replaced, and whether an unfinished run is resumed.
    gated
        Whether the output may be held, so that the path of a held output is checked too.

    Attributes
    ----------
    place
        The destination.
    journal
        The journal, while the output of a job that can be resumed is being written.
    staging
        The staging directory.
    replaces
        Whether what is at the path may be replaced; a run that resumes another uses that run's value.
    run
        The id of the run; a run that resumes another keeps that run's id.
    uri
        The URI of the output; None for an output in a file system.
    publishes
        Whether runs on this output publish it.
    finished
        The names and sizes of the finished parts, in the order of their rows.
    number
        The inode of the prepared output; None before it is prepared.
    job
        The job of the output, once it is known.

    Raises
    ------
    UsageError
        The path is a stream or a URI.
    OutputError
        Something is at the path that may not be replaced.
    """

    publishes = True
    uri: str | None = None

    def __init__(self, out: str | os.PathLike[str], if_exists: IfExists, *, gated: bool = False) -> None:
        self.place = Place(out, if_exists, gated=gated)
        self.path = self.place.path
        self.is_file = self.place.is_file
        self.journal: Journal | None = None
        self.finished: dict[str, int] = {}
        self.replaces = if_exists == "overwrite"
        self.run = secrets.token_hex(4)
        self.staging = StagingDirectory(self.path)
        self._if_exists = if_exists
        self.number: int | None = None
        self._is_published = False
        self._renames: list[Rename] = []
        self._stale: list[Path] = []
        self._leave = False
        self._keeps_journal = False
        self.job: Mapping[str, Any] | None = None

    @property
    def where(self) -> str:
        """The path or the URI of the output, for messages."""
        return self.uri or str(self.path)

    def parts_to_make(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts that a run on this output makes."""
        return parts

    @property
    def file(self) -> Path:
        """The path to write the file to, if the output is one file."""
        return self.staging.output

    @property
    def parts(self) -> PartFolder:
        """The folders that parts are written to."""
        return self.staging.parts

    def settled(self, job: Mapping[str, Any], newest_input: int) -> dict[str, Any] | None:
        """Return the summary of this job's output if it is already complete, or held.

        None means that something is left to do, perhaps only to publish or to clean up.

        Parameters
        ----------
        job
            The identity of the job, as given to :meth:`building`.
        newest_input
            The latest modification time of the inputs, in nanoseconds.

        Raises
        ------
        OutputError
            The output is complete, but of another job.
        """
        left = read_journals(self.staging.journals())
        same = left is not None and not list(differences(job, left[0]))
        if left is not None and same and (left[1].replaces or self._is_located(left[1])):
            return None
        self.place.check(replaces=False)
        for path in (self.path, self.place.held):
            found = job_of(path, is_file=self.is_file) if os.path.lexists(path) else None
            summary = None if found is None else summary_of(path, is_file=self.is_file)
            if found is None or summary is None:
                continue
            written = newest([str(path if self.is_file else path / SUCCESS)])
            refuse_other_job(job, found, str(path), has_changed=newest_input > written)
            if left is None or same:
                self._clear_leftovers()
            return {**summary, "held": str(path) if path == self.place.held else None}
        return None

    def rows_done(self, job: Mapping[str, Any], rows: int) -> int:
        """Return how many of ``rows`` rows a run with ``resume`` would skip. Changes nothing."""
        if any(job_of(path, is_file=self.is_file) == job["output"] for path in (self.path, self.place.held)):
            return rows
        left = read_journals(self.staging.journals())
        return 0 if left is None or list(differences(job, left[0])) else left[1].rows

    def release(self, job: Mapping[str, Any]) -> None:
        """Publish a held output, or finish the cleanup of a run that was killed while it published it."""
        if not os.path.lexists(self.place.held):
            if job_of(self.path, is_file=self.is_file) == job["output"]:
                self._clear_leftovers()
            return
        with self._working(), self.renaming(), uninterrupted():
            held, old = self.place.held, old_manifest_of(self.place.held)
            if inode(held) == inode(self.path):
                held.unlink()
                return
            self._rename(held, self.path).do(replace=False)
            if not self.is_file and read_old_manifest(old) is not None:
                self._rename(old, old_manifest_of(self.path)).do(replace=True)
            sync_folder(self.path.parent)

    def is_at_path(self) -> bool:
        """Return whether a killed run has already published the output."""
        return self.number is not None and inode(self.path) == self.number

    def prepare(self, write: WriteManifest | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Finish what is staged, so that only renames are left; a folder gets its manifest.

        Parameters
        ----------
        write
            Writes the manifest; None for a file.
        summary
            The summary for the manifest.
        """
        if self.location() not in {None, self.staging.output}:
            return
        with self.renaming():
            if write is not None and not self.is_file:
                manifest = Manifest(self.finished, summary or {})
                path = self.staging.output / manifest.path
                # A file system with another encoding of accents than the manifest may not find the folder by its name.
                path.parent.mkdir(parents=True, exist_ok=True)
                remove(path)
                write(path, manifest)
                sync_folder(path.parent)
                with contextlib.suppress(FileExistsError):
                    os.close(open_exclusively(self.staging.output / SUCCESS))
                sync_folder(self.staging.output)
            self.number = inode(self.staging.output)

    def record_decision(self, summary: Mapping[str, Any], beside: Output | None) -> None:
        """Record in the journal that everything is prepared, so that a later run publishes it."""
        if self.journal is not None:
            outputs = [self] if beside is None else [self, beside]
            with self.renaming():
                self.journal.record_decision(summary, [output.number for output in outputs])

    def publish(self) -> None:
        """Publish the prepared output at its path."""
        self._put(self.path)
        if self.number is not None and inode(self.place.held) == self.number:
            # A killed run had held the output, so the file has two names now.
            self.place.held.unlink()

    def hold(self) -> Path | str:
        """Hold the prepared output: put it at the path of a held output, and return that path."""
        self.place.check_held()
        self._put(self.place.held)
        # The journal records that this output may replace the one at the path when it is released.
        self._keeps_journal = self.journal is not None and os.path.lexists(self.path)
        return self.place.held

    @contextlib.contextmanager
    def building(self, job: Mapping[str, Any] | None = None, beside: Output | None = None) -> Iterator[CompletedWork]:
        """Set up the staging directory; after an error, except a true gate, undo what was published in the block.

        Parameters
        ----------
        job
            The identity of the job, as JSON values, by which another run can resume it; None if it can't be resumed.
        beside
            The output of the rejected rows, which is published together with this one.

        Yields
        ------
        CompletedWork
            What is already completed.

        Raises
        ------
        OutputError
            Another run writes this output, or has left something that may not be removed.
        """
        with self._working():
            with self.renaming():
                done = self._begin(job, beside)
            yield done

    @contextlib.contextmanager
    def beside(self, main: Output, done: CompletedWork) -> Iterator[None]:
        """Set up the staging directory of rejected rows, which are published, and fail, together with ``main``."""
        with self._working(main):
            with self.renaming():
                self.place.check(replaces=self.replaces)
                if not done.rejects.size and not done.parts:
                    self.staging.clear()
                    if not self.is_file:
                        self.staging.parts.create()
            yield

    @contextlib.contextmanager
    def _working(self, main: Output | None = None) -> Iterator[None]:
        """Lock the staging directory; keep it at the end only if the main output can be resumed."""
        keep = False
        try:
            with self.renaming():
                self.staging.open()
                self.restore()
            yield
        except GateError:
            raise
        except BaseException as error:
            with uninterrupted():
                keep = True  # it stays if the lines below fail
                self._undo(error)
                keep = (main or self).is_resumable_after(error)
            raise
        finally:
            with uninterrupted():
                if self.journal is not None:
                    self.journal.close()
                if not keep:
                    self._clean_up()
                self.staging.close(keep=keep or self._keeps_journal, published=self._is_published)

    def _clean_up(self) -> None:
        """Remove what was replaced if the output is published, and otherwise what was written."""
        for rename in self._renames:
            rename.forget()
        for path in self._stale if self._is_published else ():
            remove(path)
        if not self._is_published:
            self.discard(self.run)
        if self._keeps_journal:
            self.staging.clear_but_journal()

    def set_run(self, run: str) -> None:
        """Set the id of the run, to that of the run that is resumed or of the output that this one belongs to."""
        self.run = run

    def discard(self, run: str) -> None:
        """Remove what a run has written outside the staging directory, unless it is published."""

    def _undo(self, error: BaseException) -> None:
        try:
            for rename in reversed(self._renames):
                rename.undo()
        except OSError as trouble:
            raise OutputError(
                f"failed ({error}), and what was there could not be put back: {trouble.strerror}",
                where=str(self.path),
                remedy=f"look: ls -la {shlex.quote(str(self.path))} {shlex.quote(str(self.staging.folder))}",
            ) from error

    def is_resumable_after(self, error: BaseException) -> bool:
        """Return whether the run can be resumed after an error, and say so in a note of the error."""
        if self._leave:
            return True
        if self.journal is None or not is_transient(error):
            return False
        with contextlib.suppress(OSError):
            self.journal.write_pending()
        found = read_journals(self.staging.journals())
        if found is None or not (found[1].rows or found[1].decision):
            return False
        if RESUMABLE not in getattr(error, "__notes__", ()):
            error.add_note(RESUMABLE)
        return True

    def restore(self) -> None:
        """Restore what a killed run had put aside."""
        if os.path.lexists(self.staging.old) and not os.path.lexists(self.path):
            self.staging.old.rename(self.path)

    def _begin(self, job: Mapping[str, Any] | None, beside: Output | None) -> CompletedWork:
        """Resume what is staged, or remove it and start over."""
        outputs = [self] if beside is None else [self, beside]
        for output in outputs:
            output.job = job
        found = read_journals(self.staging.journals())
        # What another run has left is kept until it is decided below whether it is resumed.
        self._leave = found is not None
        theirs, done = found or ({}, CompletedWork())
        same = found is not None and job is not None and not list(differences(job, theirs))
        resumes = same and self._if_exists == "resume"
        if resumes:
            self._recall(done, beside)
        # Another run may have published since this one checked.
        self.place.check(replaces=self.replaces)
        if resumes and self._is_there(done, beside):
            self._leave = False
            main = self.staging.journal
            is_begun = read_journal(main) is not None
            self.journal = Journal(main, None if is_begun else job, replaces=self.replaces, run=self.run)
            return done
        if same and self._if_exists == "error" and done.rows:
            raise OutputError(
                f"there is an unfinished run of this job, with {done.rows:,} rows done",
                where=str(self.staging.folder),
                remedy="resume it: --if-exists resume, or start over: --if-exists overwrite",
            )
        self._leave = False
        if found is not None and not self._is_located(done):
            why = "" if self._if_exists == "overwrite" else ": it was of another job" if not same else ": it is damaged"
            what = f"{self.path}: an unfinished run that lay here is thrown away{why}"
            if done.rows:
                warnings.warn(what, RuntimeWarning, stacklevel=2)
        for output in outputs:
            output.number = None
            output.discard(done.run)
            output.set_run(self.run)
        if job is None:
            self.staging.clear()
        else:
            # The journal comes first, so that it is recorded at all times that the output may replace another.
            self.journal = Journal(self.staging.journal, job, replaces=self.replaces, run=self.run)
            self.staging.clear_but_journal()
        if not self.is_file:
            self.staging.parts.create()
        return CompletedWork()

    def _recall(self, done: CompletedWork, beside: Output | None) -> None:
        """Take the settings of the run that is resumed from its journal, and find what it has published."""
        outputs = [self] if beside is None else [self, beside]
        for output in outputs:
            output.replaces = done.replaces
            output.set_run(done.run)
        if done.decision is not None:
            for output, number in zip(outputs, done.decision["of"], strict=False):
                output.number = number
            if any(output.location() is None for output in outputs):
                done.decision = None
                for output in outputs:
                    output.number = None

    def _is_located(self, done: CompletedWork) -> bool:
        """Return whether an output that is finished according to a journal is at its path, or held."""
        of = (done.decision or {}).get("of") or [None]
        return of[0] is not None and of[0] in {inode(self.path), inode(self.place.held)}

    def location(self) -> Path | None:
        """Return where the finished output is: at its path, held, or in the staging directory."""
        if self.number is None:
            return None
        paths = (self.path, self.place.held, self.staging.output)
        return next((path for path in paths if inode(path) == self.number), None)

    def _is_there(self, done: CompletedWork, beside: Output | None) -> bool:
        """Return whether the files have what a journal records; remove what it doesn't record."""
        rejects = {one.name: one.rejects for one in done.parts.values() if one.rejects is not None}
        if beside is not None and not beside.holds(rejects, done.rejects.size):
            return False
        return self.holds({one.name: one.size for one in done.parts.values()}, done.file.size)

    def holds(self, parts: Mapping[str, int], size: int) -> bool:
        """Return whether the parts or the file are as large as a journal records; remove other parts."""
        if self.location() in {self.path, self.place.held}:
            return True
        return self.staging.retain_file(size) if self.is_file else self.staging.parts.retain(parts)

    def _clear_leftovers(self) -> None:
        """Remove what a run left that was killed during its cleanup."""
        if inode(self.place.held) is not None and inode(self.place.held) == inode(self.path):
            self.place.held.unlink()
        if self.staging.folder.is_dir():
            with self._working():
                """The staging directory is removed when the block ends."""

    def _put(self, target: Path) -> None:
        with self.renaming(), uninterrupted():
            at = self.location() or self.staging.output
            if at != target:
                if at != self.staging.output:
                    remove(self.staging.output)
                    at.rename(self.staging.output)
                self._rename(self.staging.output, target).do(replace=self.replaces)
            sync_folder(self.path.parent)
            old = old_manifest_of(target)
            if not self.is_file and read_old_manifest(old) is not None:
                self._stale.append(old)
            self._is_published = True

    def _rename(self, new: Path, path: Path) -> Rename:
        """Return a rename that is undone if the job fails."""
        old = self.staging.old if path == self.path else self.staging.old.with_name(f"old-{len(self._renames)}")
        self._renames.append(Rename(new, path, old))
        return self._renames[-1]

    @contextlib.contextmanager
    def renaming(self) -> Iterator[None]:
        """Convert errors of the operating system into :class:`OutputError`, with the path of the output."""
        where = str(self.path)
        try:
            yield
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
                what = "another run has published here in the meantime, and its output stays"
                raise OutputError(what, where=where, remedy=REPLACE) from error
            raise OutputError(
                f"cannot be written: {error.strerror or error}", where=where, remedy="name another output: -o"
            ) from error


def is_transient(error: BaseException) -> bool:
    """Return whether a later run may succeed: errors of the machine pass, errors of data and usage don't."""
    if not isinstance(error, BatchmaxError) or isinstance(error, OutputError):
        return True
    return isinstance(error.__cause__, OSError) and error.__cause__.errno is not None


def refuse_other_job(job: Mapping[str, Any], found: Mapping[str, Any], where: str, *, has_changed: bool) -> None:
    """Refuse a finished output of another job.

    Raises
    ------
    OutputError
        It names the differences.
    """
    others = list(differences(job["output"], found))
    if has_changed:
        others.append("an input has changed since")
    if others:
        what = f"this is the output of another job, and complete: {'; '.join(others[:3])}"
        raise OutputError(what, where=where, remedy=REPLACE)

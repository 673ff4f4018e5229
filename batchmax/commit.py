"""Publishing: the output path holds what it held before, or the whole new output, and nothing in between.

An output is made in a hidden folder beside its path (:mod:`batchmax.unfinished`) and renamed when it is whole. What is
renamed is one file, or a folder of parts with an empty ``_SUCCESS``; beside a folder lies a manifest,
``OUT.batchmax.json``. What was there waits in the hidden folder until the job has ended, and comes back if the job
fails after all. What a run leaves that could not end, another goes on with.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchmax import system_calls
from batchmax.errors import BatchmaxError, GateError, OutputError
from batchmax.finished import (
    SUCCESS,
    differences,
    job_of,
    newest,
    summary_of,
)
from batchmax.interrupts import uninterrupted
from batchmax.journal import Done, Journal, read_journal, read_journals
from batchmax.options import IfExists
from batchmax.places import REPLACE, Place, manifest_of
from batchmax.plan import Part
from batchmax.renames import Rename
from batchmax.storage import open_exclusively, sync_folder
from batchmax.unfinished import PartFolder, Workshop, identity, remove

RESUMABLE = "what is done is kept; go on: --if-exists resume"
"""The note of an exception after which a run left something to go on with."""


class Output:
    """An output in the making: one file, or a folder of parts.

    Parameters
    ----------
    out
        The path. One that ends as Parquet files do is a file, any other a folder.
    if_exists
        Whether what batchmax wrote there before may be replaced, or what a run left there be gone on with.
    gated
        Whether the output may be held back, so that the place of a held one must be free too.

    Attributes
    ----------
    place
        Where it goes.
    journal
        What is said of the progress while the output is built, if it is built of a job that can be gone on with.
    shop
        Where it is made.
    replaces
        Whether what lies at the path may be replaced.
    uri
        Where the parts go as they are made, if that is not on this machine.
    publishes
        Whether a run on it publishes it.
    finished
        The names of the parts that are whole, while the output is built.
    was
        What tells the file or folder, that a run which was killed had come to publish, from all others.

    Raises
    ------
    UsageError
        It is no path but a stream or a URI.
    OutputError
        Something is at the path already and may not be replaced, or the folder it would lie in is not there.
    """

    publishes = True
    uri: str | None = None

    def __init__(self, out: str | os.PathLike[str], if_exists: IfExists, *, gated: bool = False) -> None:
        self.place = Place(out, if_exists, gated=gated)
        self.path = self.place.path
        self.is_file = self.place.is_file
        self.journal: Journal | None = None
        self.was: tuple[int, int] | None = None
        self.finished: list[str] = []
        self._if_exists = if_exists
        self.replaces = if_exists == "overwrite"
        self.shop = Workshop(self.path)
        self._renames: list[Rename] = []
        self._leave = False

    @property
    def where(self) -> str:
        """Where it goes, as people know it."""
        return self.uri or str(self.path)

    def mine(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return which parts a run on this output makes."""
        return parts

    @property
    def file(self) -> Path:
        """Where to write the one file."""
        return self.shop.output

    @property
    def parts(self) -> PartFolder:
        """Where to make parts."""
        return self.shop.parts

    def settled(self, job: Mapping[str, Any], newest_input: int) -> dict[str, Any] | None:
        """Return the summary of this job's output if that is complete already, or held back; None if it is not.

        Parameters
        ----------
        job
            As it was given to :meth:`building`.
        newest_input
            When the last of the inputs was written, in nanoseconds.

        Raises
        ------
        OutputError
            What is complete is of another job.
        """
        left = read_journals(self.shop.journals())
        same = left is not None and not list(differences(job, left[0]))
        if left is not None and same and left[1].published:
            self._end_publishing(left[1].published)
        elif left is not None and same and left[1].replaces:
            return None
        for path in (self.path, self.place.held):
            found = job_of(path, is_file=self.is_file) if os.path.lexists(path) else None
            summary = None if found is None else summary_of(path, None if self.is_file else manifest_of(path))
            if found is None or summary is None:
                continue
            others = list(differences(job["output"], found))
            if newest_input > newest([str(path if self.is_file else path / SUCCESS)]):
                others.append("an input has changed since")
            if others:
                what = f"this is the output of another job, and complete: {'; '.join(others[:3])}"
                raise OutputError(what, where=str(path), remedy=REPLACE)
            if self.shop.folder.is_dir() and (left is None or same):
                with self._working():
                    """Clear away what a run that was killed at its very end has left."""
            return {**summary, "held": str(path) if path == self.place.held else None}
        return None

    def rows_done(self, job: Mapping[str, Any], rows: int) -> int:
        """Return how many of so many rows a run with ``resume`` would skip; looks only."""
        if any(job_of(path, is_file=self.is_file) == job["output"] for path in (self.path, self.place.held)):
            return rows
        left = read_journals(self.shop.journals())
        return 0 if left is None or list(differences(job, left[0])) else left[1].rows

    def release(self) -> None:
        """Put an output that was held back at its path."""
        with self._working(), self.renaming(), uninterrupted():
            self._rename(self.place.held, self.path).do(replace=False)
            if not self.is_file:
                self._rename(manifest_of(self.place.held), self.place.manifest).do(replace=True)
            sync_folder(self.path.parent)

    def identity(self) -> tuple[int, int] | None:
        """Return what tells the finished output from all others, whether or not it is at its place already."""
        return identity(self.shop.output) or self.was

    def announce(self, summary: Mapping[str, Any], beside: Output | None) -> None:
        """Say in the journal what will be published, so that a run after this one can end it."""
        if self.journal is not None:
            outputs = [self] if beside is None else [self, beside]
            self.journal.publishing(summary, [output.identity() for output in outputs])

    def publish(self, summary: Mapping[str, Any]) -> None:
        """Put the finished output at its path."""
        self._publish(summary, self.path, replace=self.replaces)

    def hold(self, summary: Mapping[str, Any]) -> Path | str:
        """Put the finished output beside its path, under the name of a held one, and return that."""
        self.place.check_held()
        self._publish(summary, self.place.held, replace=self.replaces)
        return self.place.held

    @contextlib.contextmanager
    def building(self, job: Mapping[str, Any] | None = None, beside: Output | None = None) -> Iterator[Done]:
        """Make room for the parts; whatever ends the block but a true gate, take back what was published in it.

        Parameters
        ----------
        job
            What makes the job this job, as JSON has it, so that another run can go on with what this one leaves; None
            if none can.
        beside
            The output of the rejected rows, which goes with this one.

        Returns
        -------
        what is done already.

        Raises
        ------
        OutputError
            Another run is at it, or has left something that may not be thrown away.
        """
        with self._working():
            with self.renaming():
                done = self._begin(job, beside)
            yield done

    @contextlib.contextmanager
    def beside(self, main: Output, done: Done) -> Iterator[None]:
        """Make room for what goes with another output and fails with it, where so much is done of both."""
        with self._working(main):
            with self.renaming():
                if not done.rejects.size and not done.receipts:
                    self.shop.clear()
                    if not self.is_file:
                        self.shop.parts.make_room()
            yield

    @contextlib.contextmanager
    def _working(self, main: Output | None = None) -> Iterator[None]:
        """Have the workshop; leave it only with what can be gone on with, as the main output says."""
        keep = False
        try:
            with self.renaming():
                self.shop.open()
                self.restore()
                # Another run may have ended since this one looked.
                self.place.check()
            yield
        except GateError:
            raise
        except BaseException as error:
            with uninterrupted():
                keep = True  # unless all that follows goes well
                self._undo(error)
                keep = (main or self).can_go_on_after(error)
            raise
        finally:
            with uninterrupted():
                if self.journal is not None:
                    self.journal.close()
                if not keep:
                    for rename in self._renames:
                        rename.forget()
                self.shop.close(keep=keep)

    def _undo(self, error: BaseException) -> None:
        try:
            for rename in reversed(self._renames):
                rename.undo()
        except OSError as trouble:
            raise OutputError(
                f"failed ({error}), and what was there could not be put back: {trouble.strerror}",
                where=str(self.path),
                remedy=f"look: ls -la {shlex.quote(str(self.path))} {shlex.quote(str(self.shop.folder))}",
            ) from error

    def can_go_on_after(self, error: BaseException) -> bool:
        """Return whether there is something to go on with, and say so in a note of the error."""
        if self._leave:
            return True
        if self.journal is None or not may_pass(error):
            return False
        with contextlib.suppress(OSError):
            self.journal.settle()
        found = read_journals(self.shop.journals())
        if found is None or not found[1].rows:
            return False
        if RESUMABLE not in getattr(error, "__notes__", ()):
            error.add_note(RESUMABLE)
        return True

    def restore(self) -> None:
        """Put back what a run that was killed had put aside."""
        if os.path.lexists(self.shop.old) and not os.path.lexists(self.path):
            self.shop.old.rename(self.path)

    def _begin(self, job: Mapping[str, Any] | None, beside: Output | None) -> Done:
        """Go on with what is there, or clear it away and begin."""
        found = read_journals(self.shop.journals())
        if found is not None:
            theirs, done = found
            same = job is not None and not list(differences(job, theirs))
            if same and self._if_exists == "resume":
                for output, of in zip((self, beside), (done.published or {}).get("of", ()), strict=False):
                    if output is not None and of is not None:
                        output.was = tuple(of)
            if same and self._if_exists == "resume" and self._is_there(done, beside):
                self.replaces = done.replaces
                main = self.shop.journal
                is_begun = read_journal(main) is not None
                self.journal = Journal(main, None if is_begun else job, replaces=self.replaces)
                return done
            if same and self._if_exists == "error" and done.rows:
                self._leave = True
                raise OutputError(
                    f"an unfinished run of this job lies here, with {done.rows:,} rows done",
                    where=str(self.shop.folder),
                    remedy="go on with it: --if-exists resume, or begin anew: --if-exists overwrite",
                )
            why = "" if self._if_exists == "overwrite" else ": it was of another job" if not same else ": it is damaged"
            what = f"{self.path}: an unfinished run that lay here is thrown away{why}"
            if done.rows:
                warnings.warn(what, RuntimeWarning, stacklevel=2)
        self.shop.clear()
        if not self.is_file:
            self.shop.parts.make_room()
        if job is not None:
            self.journal = Journal(self.shop.journal, job, replaces=self.replaces)
        return Done()

    def _is_there(self, done: Done, beside: Output | None) -> bool:
        """Return whether the files hold what a journal says, and take away what it does not speak of."""
        rejects = {one.name: one.rejects for one in done.receipts.values() if one.rejects is not None}
        if beside is not None and not beside.holds(rejects, done.rejects.size):
            return False
        return self.holds({one.name: one.size for one in done.receipts.values()}, done.file.size)

    def holds(self, parts: Mapping[str, int], size: int) -> bool:
        """Return whether parts, or the one file, are as large as a journal says; take other parts away."""
        if self.was is not None and identity(self.path) == self.was:
            return True
        return self.shop.holds_file(size) if self.is_file else self.shop.parts.holds(parts)

    def _end_publishing(self, published: Mapping[str, Any]) -> None:
        """Do what is left where a run was killed after its output came to the path, but before its manifest did."""
        at = [path for path in (self.path, self.place.held) if identity(path) == tuple(published["of"][0])]
        if at:
            with self._working(), self.renaming():
                self._put_manifest(published["summary"], at[0])

    def _publish(self, summary: Mapping[str, Any], path: Path, *, replace: bool) -> None:
        with self.renaming(), uninterrupted():
            output = self.shop.output
            if self.was is not None and identity(path) == self.was:
                return
            if not self.is_file:
                with contextlib.suppress(FileExistsError):
                    os.close(open_exclusively(output / SUCCESS))
                sync_folder(output)
            self._rename(output, path).do(replace=replace)
            self._put_manifest(summary, path)

    def _put_manifest(self, summary: Mapping[str, Any], path: Path) -> None:
        if not self.is_file:
            remove(self.shop.manifest)
            _write_json(self.shop.manifest, summary)
            self._rename(self.shop.manifest, manifest_of(path)).do(replace=True)
        sync_folder(self.path.parent)

    def _rename(self, new: Path, path: Path) -> Rename:
        """Return a rename that is undone if the job fails after all."""
        old = self.shop.old if path == self.path else self.shop.old.with_name(f"old-{len(self._renames)}")
        self._renames.append(Rename(new, path, old))
        return self._renames[-1]

    @contextlib.contextmanager
    def renaming(self) -> Iterator[None]:
        """Name the output in what the system says of files."""
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


def may_pass(error: BaseException) -> bool:
    """Return whether a run after this one may not meet the same error: the machine's, not the data's or a mistake."""
    if not isinstance(error, BatchmaxError) or isinstance(error, OutputError):
        return True
    return isinstance(error.__cause__, OSError) and error.__cause__.errno is not None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with os.fdopen(open_exclusively(path), "w", encoding="utf-8") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.flush()
        system_calls.sync(stream.fileno())

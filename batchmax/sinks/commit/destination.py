"""Where an output is committed: the interface that file systems and object stores implement."""

from __future__ import annotations

import contextlib
import errno
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from batchmax.errors import OutputError
from batchmax.options.score_options import IfExists
from batchmax.sinks.commit.staging import PartFolder, StagingDirectory
from batchmax.storage.files import sync_tree
from batchmax.storage.manifest import Manifest

REPLACE = "replace it: --if-exists overwrite, or name another output"

WriteManifest = Callable[[Path, Manifest], None]
"""Writes the manifest of a folder to a path, as a Parquet file with the columns of the parts."""


class Location(Enum):
    """Where a finished output is: at its path or URI, at that of a held output, or in the staging directory."""

    PUBLISHED = "published"
    HELD = "held"
    STAGED = "staged"


@dataclass(frozen=True)
class FinishedOutput:
    """A finished output that an earlier run published or held.

    Attributes
    ----------
    where
        Its path or URI.
    is_held
        Whether it is held.
    job, summary
        The job that wrote it, and its summary.
    written_ns
        When it was written, in nanoseconds; for an object store the latest time that it can have been.
    """

    where: str
    is_held: bool
    job: Mapping[str, Any]
    summary: Mapping[str, Any]
    written_ns: int


class Destination(ABC):
    """The path or URI that an output is committed to, and the state of the commit.

    Attributes
    ----------
    where
        The path or the URI, for messages.
    staging
        The staging directory.
    is_file
        Whether the output is one file; otherwise it is a folder of parts.
    if_exists
        Whether an existing output of batchmax may be replaced, and whether an unfinished run is resumed.
    uri
        The URI; None for an output in a file system.
    job
        The identity of the job, as JSON values; empty if the job can't be resumed.
    replaces
        Whether what exists may be replaced; a run that resumes another uses that run's value.
    run
        The id of the run; a run that resumes another keeps that run's id.
    part_sizes
        The names and sizes of the finished parts, in the order of their rows.
    inode
        The inode of the prepared output; None before it is prepared.
    is_published
        Whether this run has published the output, or has held it.
    """

    uri: str | None = None

    def __init__(self, where: str, staging: StagingDirectory, if_exists: IfExists, *, is_file: bool) -> None:
        self.where = where
        self.staging = staging
        self.is_file = is_file
        self.if_exists = if_exists
        self.job: Mapping[str, Any] = {}
        self.replaces = if_exists == "overwrite"
        self.run = secrets.token_hex(4)
        self.part_sizes: dict[str, int] = {}
        self.inode: int | None = None
        self.is_published = False

    @property
    def journal_options(self) -> dict[str, Any]:
        """The options of the run's journals."""
        return {"replaces": self.replaces, "run": self.run, "durable": self.staging.durable}

    @property
    def location(self) -> Location | None:
        """Where the finished output is; None if it isn't finished."""
        return self.locate(self.run, self.inode)

    @property
    @abstractmethod
    def parts(self) -> PartFolder:
        """The folders that parts are written to."""

    @abstractmethod
    def locate(self, run: str, number: int | None) -> Location | None:
        """Return where the finished output of a run is, given the inode that it recorded; None if nowhere."""

    @abstractmethod
    def check(self, *, replaces: bool) -> None:
        """Refuse something that may not be replaced, before anything is computed.

        Raises
        ------
        OutputError
            It names what exists.
        """

    @abstractmethod
    def job_at(self, location: Location) -> Mapping[str, Any] | None:
        """Return the job of a published or held output; None if there is none, empty if batchmax didn't write it."""

    @abstractmethod
    def finished_outputs(self) -> Iterator[FinishedOutput]:
        """Yield the published output, then the held one, if they exist.

        Raises
        ------
        OutputError
            batchmax didn't write what exists.
        """

    @abstractmethod
    def has_held_copy(self) -> bool:
        """Return whether the published output is also held, because a run was killed while it published it."""

    @abstractmethod
    def prepare(self, write: WriteManifest | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Finish what is staged; a folder gets its manifest.

        Parameters
        ----------
        write
            Writes the manifest; None for a file.
        summary
            The summary for the manifest.
        """

    @abstractmethod
    def publish(self) -> None:
        """Publish the prepared output."""

    @abstractmethod
    def hold(self) -> str:
        """Hold the prepared output: put it at the path or URI of a held output, and return that."""

    @abstractmethod
    def publish_held(self) -> None:
        """Publish a held output of this job, or remove it if it is published already."""

    @abstractmethod
    def undo(self, error: BaseException) -> None:
        """Undo what was published, after an error."""

    @abstractmethod
    def clean_up(self, run: str) -> None:
        """Remove what was replaced if the output is published, and otherwise what a run wrote outside of staging."""

    def is_of_job(self, location: Location) -> bool:
        """Return whether a finished output of this job is published, or held."""
        return bool(self.job) and self.job_at(location) == self.job["output"]

    def start(self, *, keeps_journal: bool = False) -> None:
        """Remove everything in the staging directory, perhaps except the journal, and create the folders of parts."""
        self.staging.clear(keeps_journal=keeps_journal)
        if not self.is_file:
            self.parts.create()

    def retain(self, size: int) -> bool:
        """Remove all parts but the finished ones; return whether these exist, or a file of at least ``size`` bytes."""
        if self.location in {Location.PUBLISHED, Location.HELD} or (self.is_file and self.location is not None):
            return True
        return self.staging.retain_file(size) if self.is_file else self.parts.retain(self.part_sizes)

    def sync(self) -> None:
        """Make durable what earlier runs have written in the staging directory."""
        sync_tree(self.staging.output)

    @contextlib.contextmanager
    def converting_errors(self) -> Iterator[None]:
        """Convert errors of the operating system into :class:`OutputError`."""
        where = str(self.staging.path)
        try:
            yield
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
                what = "another run has published here in the meantime, and its output stays"
                raise OutputError(what, where=where, remedy=REPLACE) from error
            raise OutputError(
                f"cannot be written: {error.strerror or error}", where=where, remedy="name another output"
            ) from error

"""Outputs in a file system: written in a staging directory next to their path, and renamed."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchmax.errors import OutputError
from batchmax.options.score_options import IfExists
from batchmax.runtime.signal_guard import uninterrupted
from batchmax.sinks.commit.atomic_rename import Rename
from batchmax.sinks.commit.destination import REPLACE, Destination, FinishedOutput, Location, WriteManifest
from batchmax.sinks.commit.existing_output import SUCCESS, is_ours, is_output_folder, job_of, summary_of
from batchmax.sinks.commit.staging import PartFolder, StagingDirectory, inode, remove
from batchmax.storage.files import open_exclusively, sync_tree
from batchmax.storage.manifest import Manifest, old_manifest_of, read_old_manifest
from batchmax.storage.output_paths import refuse_file_as_folder


def output_paths(out: str | os.PathLike[str], *, gated: bool) -> list[Path]:
    """Return all paths that publishing may write to: the output's, and that of a held output."""
    path = Path(out)
    if path.name in {"", ".."}:
        return []
    return [path, *([_held(path)] if gated else [])]


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


class LocalDestination(Destination):
    """A path in a file system.

    Parameters
    ----------
    staging
        The staging directory, which has the path.
    if_exists
        Whether an existing output of batchmax may be replaced, and whether an unfinished run is resumed.
    is_file
        Whether the output is one file; otherwise it is a folder of parts.
    gated
        Whether the output may be held, so that the path of a held output is checked too.

    Raises
    ------
    OutputError
        Something is at the path that may not be replaced.
    """

    def __init__(self, staging: StagingDirectory, if_exists: IfExists, *, is_file: bool, gated: bool = False) -> None:
        super().__init__(str(staging.path), staging, if_exists, is_file=is_file)
        self._path = staging.path
        self._held = _held(self._path)
        self._paths = {Location.PUBLISHED: self._path, Location.HELD: self._held, Location.STAGED: staging.output}
        self._gated = gated
        self._renames: list[Rename] = []
        self._old_manifests: list[Path] = []
        refuse_file_as_folder(self._path)
        # With resume, what may be replaced depends on the options of the run that is resumed.
        if if_exists != "resume":
            self.check(replaces=self.replaces)

    @property
    def parts(self) -> PartFolder:
        """The folders that parts are written to."""
        return self.staging.parts

    def locate(self, run: str, number: int | None) -> Location | None:
        """Return where the output with this inode is; None if nowhere."""
        del run
        if number is None:
            return None
        return next((location for location, path in self._paths.items() if inode(path) == number), None)

    def check(self, *, replaces: bool) -> None:
        """Refuse a path with something that may not be replaced."""
        if self._gated:
            self._check_held()
        if not os.path.lexists(self._path):
            return
        if not replaces and self.if_exists != "resume":
            raise OutputError("the output exists", where=self.where, remedy=REPLACE)
        if not replaces and not is_ours(self._path, is_file=self.is_file):
            what = "what is there is not an output of batchmax"
            raise OutputError(what, where=self.where, remedy="name another output")
        if self.is_file and self._path.is_dir():
            raise OutputError("a folder is in the way of the file", where=self.where, remedy="name another output")
        if replaces and not self.is_file and not is_output_folder(self._path):
            raise OutputError(
                "this is not a folder that batchmax wrote, or other files are in it, so it is not replaced",
                where=self.where,
                remedy="delete it yourself, or name another output",
            )

    def _check_held(self) -> None:
        """Refuse to hold an output if something that may not be replaced is at the path of the held one."""
        if not os.path.lexists(self._held):
            return
        held = shlex.quote(str(self._held))
        if not is_ours(self._held, is_file=self.is_file):
            raise OutputError(
                "an output that is held back goes here, and what is there is not one that batchmax wrote",
                where=str(self._held),
                remedy=f"move it: mv {held} {shlex.quote(f'{self._held}.old')}, or name another output",
            )
        if self.if_exists == "error":
            raise OutputError(
                "there is already a held output",
                where=str(self._held),
                remedy="check it again: --if-exists resume; or replace it: --if-exists overwrite; or delete it: "
                f"rm -r {held}",
            )

    def job_at(self, location: Location) -> Mapping[str, Any] | None:
        """Return the job of a published or held output; None if there is none, empty if batchmax didn't write it."""
        path = self._paths[location]
        return (job_of(path, is_file=self.is_file) or {}) if os.path.lexists(path) else None

    def finished_outputs(self) -> Iterator[FinishedOutput]:
        """Yield the published output, then the held one, if they exist."""
        self.check(replaces=False)
        for location in (Location.PUBLISHED, Location.HELD):
            path, job = self._paths[location], self.job_at(location)
            summary = summary_of(path, is_file=self.is_file) if job else None
            if job and summary is not None:
                written = (path if self.is_file else path / SUCCESS).stat().st_mtime_ns
                yield FinishedOutput(str(path), location is Location.HELD, job, summary, written)

    def has_held_copy(self) -> bool:
        """Return whether the published output is also held: it has two names."""
        held = inode(self._held)
        return held is not None and held == inode(self._path)

    def prepare(self, write: WriteManifest | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Finish what is staged; a folder gets its manifest and an empty ``_SUCCESS``."""
        if self.location in {Location.PUBLISHED, Location.HELD}:
            return
        folder = self.staging.output
        with self.converting_errors():
            if write is not None and not self.is_file:
                manifest = Manifest(self.part_sizes, summary or {})
                path = folder / manifest.path
                # A file system with another encoding of accents than the manifest may not find the folder by its name.
                path.parent.mkdir(parents=True, exist_ok=True)
                remove(path)
                write(path, manifest)
                self.staging.sync_folder(path.parent)
                with contextlib.suppress(FileExistsError):
                    os.close(open_exclusively(folder / SUCCESS))
                self.staging.sync_folder(folder)
            self.inode = inode(folder)

    def publish(self) -> None:
        """Rename the prepared output to its path."""
        self._move_to(self._path)
        if self.inode is not None and inode(self._held) == self.inode:
            # A killed run had held the output, so the file has two names now.
            self._held.unlink()

    def hold(self) -> str:
        """Rename the prepared output to the path of a held one, and return that path."""
        self._check_held()
        self._move_to(self._held)
        return str(self._held)

    def publish_held(self) -> None:
        """Rename a held output, or remove it if it is published already."""
        with self.converting_errors(), uninterrupted():
            if self.has_held_copy():
                self._held.unlink()
                return
            self._rename(self._held, self._path).do(replace=False)
            old = old_manifest_of(self._held)
            if not self.is_file and read_old_manifest(old) is not None:
                self._rename(old, old_manifest_of(self._path)).do(replace=True)
            self.staging.sync_folder(self._path.parent)

    def sync(self) -> None:
        """Make durable what earlier runs have written, wherever it is."""
        sync_tree(self._paths[self.location or Location.STAGED])

    def undo(self, error: BaseException) -> None:
        """Undo all renames, the last one first."""
        try:
            for rename in reversed(self._renames):
                rename.undo()
        except OSError as trouble:
            raise OutputError(
                f"failed ({error}), and what was there could not be put back: {trouble.strerror}",
                where=self.where,
                remedy=f"see: ls -la {shlex.quote(self.where)} {shlex.quote(str(self.staging.folder))}",
            ) from error
        self._old_manifests.clear()

    def clean_up(self, run: str) -> None:
        """Remove what was replaced, with the manifest of an earlier version next to it."""
        del run
        for rename in self._renames:
            rename.forget()
        for path in self._old_manifests:
            remove(path)

    def _move_to(self, target: Path) -> None:
        with self.converting_errors(), uninterrupted():
            path = self._paths[self.location or Location.STAGED]
            if path != target:
                staged = self.staging.output
                if path != staged:
                    remove(staged)
                    path.rename(staged)
                self._rename(staged, target).do(replace=self.replaces)
            self.staging.sync_folder(self._path.parent)
            old = old_manifest_of(target)
            if not self.is_file and read_old_manifest(old) is not None:
                self._old_manifests.append(old)
            self.is_published = True

    def _rename(self, new: Path, path: Path) -> Rename:
        """Return a rename that is undone if the job fails."""
        old = self.staging.old if path == self._path else self.staging.old.with_name(f"old-{len(self._renames)}")
        self._renames.append(Rename(new, path, old))
        return self._renames[-1]

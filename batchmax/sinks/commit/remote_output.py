"""Outputs at URIs: written on this machine, checked, and then uploaded.

A file is written in a staging directory on this machine and uploaded when it is finished. The parts of a folder are
uploaded as soon as they are made; a folder that may be held is first written on this machine as a whole. A killed run
leaves its staging directory, so it is resumed on the same machine.

A store has no rename, so a folder is committed by names. The parts of each run have their own names
(``part-00000-1f3a9c24.parquet``), and until the commit, no upload of a run replaces an object of another:

1. upload the manifest, which lists the parts, or replace the old one: this is the commit;
2. upload ``_SUCCESS``;
3. delete the parts of other runs.

A step that was done before does nothing, so a run that resumes repeats them. A held output is committed in the same way
below another URI, ``OUT.held``; it is published by copying its parts, then its manifest, within the store.

A reader that follows the manifest, as all commands of batchmax do, reads the old parts before the first step and the
new ones after it. A reader that only lists the objects below the URI also sees the parts of uncommitted runs and, until
the end of the third step, the parts of the output that is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmax.errors import DataError, OutputError
from batchmax.options.score_options import IfExists
from batchmax.sinks.commit.destination import REPLACE
from batchmax.sinks.commit.existing_output import SUCCESS, differences
from batchmax.sinks.commit.journal import read_journals
from batchmax.sinks.commit.output import Output, WriteManifest, refuse_other_job
from batchmax.sinks.commit.staging import PartFolder, inode, remove
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.parquet_file import open_file
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.manifest import (
    JOB_KEY,
    MANIFEST,
    OLD_SUFFIX,
    PART,
    Manifest,
    read_manifest,
    read_old_manifest,
    run_of,
    run_part,
)
from batchmax.storage.object_store import ObjectInfo, Store, store_of

SENDERS = 4
"""Files of a folder that are uploaded in parallel."""

DELETIONS_AT_ONCE = 16

CLOCK_STEP = 1_000_000_000
"""One second in nanoseconds: stores round the modification time of an object down to whole seconds."""


class RemoteParts(PartFolder):
    """Folders of parts that are written on this machine and uploaded when they are finished.

    Parameters
    ----------
    folder
        The staging directory, or any folder on this machine.
    store
        The output folder in the store.
    run
        The id of the run, which is in the names of its parts.
    """

    def __init__(self, folder: Path, store: Store, run: str) -> None:
        super().__init__(folder)
        self.run = run
        self._store = store

    def keep(self, made: Path, name: str) -> None:
        """Upload a finished part, and remove the local file. An object of this name has the same bytes."""
        self._store.at(f"{self._store.uri}/{run_part(name, self.run)}").upload_file(made)
        made.unlink()

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return whether the uploaded parts have these sizes."""
        found = {one.uri[len(self._store.uri) + 1 :]: one.size for one in self._store.list_below()}
        return all(found.get(run_part(name, self.run)) == size for name, size in sizes.items())


@dataclass(frozen=True)
class StoredFolder:
    """The objects below the URI of a folder.

    Attributes
    ----------
    objects
        The objects, by their paths in the folder.
    manifest
        The manifest of the output that was committed last; None if there is none.
    old
        The manifest of an earlier version of batchmax; None if there is none.
    """

    objects: Mapping[str, ObjectInfo]
    manifest: Manifest | None
    old: Mapping[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether there is a finished output, of any program."""
        return self.manifest is not None or SUCCESS in self.objects

    def foreign(self) -> list[str]:
        """Return the paths of objects that batchmax didn't write, according to their names."""
        return sorted(name for name in self.objects if not self._is_ours(name))

    def stale(self) -> list[str]:
        """Return the paths of objects that don't belong to the output that was committed last."""
        current = {SUCCESS} if self.manifest is None else {SUCCESS, self.manifest.path, *self.manifest.parts}
        return sorted(name for name in self.objects if name not in current and self._is_ours(name))

    def has(self, parts: Mapping[str, int]) -> bool:
        """Return whether all parts exist and have these sizes."""
        return all(name in self.objects and self.objects[name].size == size for name, size in parts.items())

    def _is_ours(self, name: str) -> bool:
        last = name.rpartition("/")[2]
        match = PART.fullmatch(last)
        # Earlier versions wrote parts without the id of a run. Without a manifest, others may have written such
        # objects.
        return last in {SUCCESS, MANIFEST} or (match is not None and (match[2] is not None or self.old is not None))


class RemoteOutput(Output):
    """An output at a URI.

    Parameters and errors are those of :class:`batchmax.sinks.commit.output.Output`. ``storage`` are the options of its
    file system.
    """

    def __init__(self, uri: str, if_exists: IfExists, storage: Sequence[str], *, gated: bool = False) -> None:
        self._at = uri.rstrip("/")
        self.uri = self._at
        self._store = store_of(self._at, storage)
        self._storage = storage
        super().__init__(str(staging(self._at)), if_exists, gated=gated)
        self._held_at = f"{self._at}.held"
        self._manifest: Callable[[int], Path] | None = None
        if not self.is_file and not gated:
            self.shop.parts = RemoteParts(self.shop.folder, self._store, self.run)
        if if_exists != "resume":
            self._check(None if self.is_file else self._folder(self._at), replaces=if_exists == "overwrite")
            if gated and if_exists == "error" and self._exists(self._held_at):
                remedy = "check it again: --if-exists resume; or replace it: --if-exists overwrite; or delete it"
                raise OutputError("there is already a held output", where=self._held_at, remedy=remedy)

    def settled(self, job: Mapping[str, Any], newest_input: int) -> dict[str, Any] | None:
        """Return the summary of this job's output if it is already complete; None if it isn't."""
        left = read_journals(self.shop.journals())
        same = left is not None and not list(differences(job, left[0]))
        if left is not None and same and (left[1].replaces or left[1].published):
            return None
        for uri in (self._at, self._held_at):
            found = self._finished(uri)
            if found is None:
                continue
            theirs, summary, mtime_ns = found
            refuse_other_job(job, theirs, uri, has_changed=newest_input >= mtime_ns + CLOCK_STEP)
            if left is None or same:
                if uri == self._at:
                    self.release(job)
                else:
                    self._clear_leftovers()
            return {**summary, "held": uri if uri == self._held_at else None}
        self._check(None if self.is_file else self._folder(self._at), replaces=False)
        return None

    def rows_done(self, job: Mapping[str, Any], rows: int) -> int:
        """Return how many of ``rows`` rows a run with ``resume`` would skip. Changes nothing."""
        with contextlib.suppress(OutputError):
            found = [self._finished(uri) for uri in (self._at, self._held_at)]
            if any(one is not None and one[0] == job["output"] for one in found):
                return rows
        return super().rows_done(job, rows)

    def release(self, job: Mapping[str, Any]) -> None:
        """Publish a held output, or finish the cleanup of a run that was killed while it published it."""
        self.job = job
        if self._is_of_job(self._held_at) or self.shop.folder.is_dir():
            with self._working():
                self._publish_held()

    def take_run(self, run: str) -> None:
        """Set the id of the run, which is in the names of the parts."""
        super().take_run(run)
        if isinstance(self.shop.parts, RemoteParts):
            self.shop.parts.run = run

    def is_at_path(self) -> bool:
        """Return whether a killed run has already published the output."""
        return self.location() == self.path

    def prepare(self, write: WriteManifest | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Check that every part exists and may be published. The manifest is written when it is uploaded."""

        def manifest(generation: int) -> Path:
            path = self.shop.folder / "manifest"
            remove(path)
            if write is not None:
                write(path, Manifest(self._parts(), summary or {}, self.run, generation))
            return path

        self._manifest = manifest
        if self.location() in {self.path, self.place.held}:
            return
        folder = None if self.is_file else self._folder(self._at)
        self._check(folder, replaces=self.replaces)
        if folder is not None and isinstance(self.shop.parts, RemoteParts) and not folder.has(self._parts()):
            what = "parts of the output were deleted while the run was going on"
            remedy = "see to it that no other run writes there, then run the command again"
            raise OutputError(what, where=self._at, remedy=remedy)
        self.number = inode(self.shop.output)

    def publish(self) -> None:
        """Upload what is missing, and commit."""
        place = self.location()
        if place == self.shop.output or (place == self.path and not self.is_file):
            self._send(self._at)
        self._publish_held()

    def hold(self) -> str:
        """Upload the output under the URI of a held output, and return that URI."""
        if self.location() != self.place.held:
            self._send(self._held_at)
        self._is_published = True
        # The journal records that this output may replace the one at the URI when it is released.
        self._keeps_journal = self.journal is not None and self._exists(self._at)
        return self._held_at

    def _publish_held(self) -> None:
        """Copy a held output of this job to the URI, unless it is there already, and delete the held one."""
        self._is_published = True
        if self.is_file:
            if self._is_of_job(self._held_at):
                if not self._is_of_job(self._at):
                    self._check(None, replaces=self.replaces)
                    self._store.at(self._held_at).copy(self._at)
                self._store.at(self._held_at).delete()
            return
        held = self._folder(self._held_at)
        if held.manifest is None or not self._is_of_job(self._held_at):
            # A run that was killed while it uploaded a held output has left parts.
            self._delete([f"{self._held_at}/{name}" for name in held.objects if run_of(name) == self.run])
            return
        if not self._is_of_job(self._at):
            folder = self._folder(self._at)
            self._check(folder, replaces=self.replaces)
            if folder.manifest is not None and folder.manifest.generation >= held.manifest.generation:
                what = "another run has published here since the output was held"
                raise OutputError(what, where=self._at, remedy=REPLACE)
            names = [name for name, size in held.manifest.parts.items() if not folder.has({name: size})]
            with ThreadPoolExecutor(SENDERS, "copy") as pool:
                list(pool.map(self._copy_held, names))
            self._copy_held(held.manifest.path)
        self._finish(self._at)
        # The manifest is deleted last, so that a run after a kill finds the others.
        self._delete([f"{self._held_at}/{name}" for name in held.objects if name != held.manifest.path])
        self._delete([f"{self._held_at}/{held.manifest.path}"])

    def _copy_held(self, name: str) -> None:
        self._store.at(f"{self._held_at}/{name}").copy(f"{self._at}/{name}")

    def discard(self, run: str) -> None:
        """Delete the parts that a run has uploaded, unless the committed output consists of them."""
        if self.is_file or not run:
            return
        with contextlib.suppress(DataError, OutputError):
            folder = self._folder(self._at)
            if folder.manifest is None or folder.manifest.run != run:
                self._delete([f"{self._at}/{name}" for name in folder.objects if run_of(name) == run])

    def location(self) -> Path | None:
        """Return where the finished output is: at its path, held, or in the staging directory.

        The first two stand for the URIs.
        """
        if self.number is None:
            return None
        if self._is_committed(self._at):
            return self.path
        if inode(self.shop.output) == self.number:
            return self.shop.output
        return self.place.held if self._is_committed(self._held_at) else None

    def _is_committed(self, uri: str) -> bool:
        """Return whether this run has committed; for a file, whether any run of the job has: the bytes are the same."""
        if not self.is_file:
            manifest = self._folder(uri).manifest
            return manifest is not None and manifest.run == self.run
        return self._is_of_job(uri)

    def _is_of_job(self, uri: str) -> bool:
        """Return whether the output at a URI is finished and of the same job."""
        if self.job is None or not self._exists(uri):
            return False
        manifest = None if self.is_file else self._folder(uri).manifest
        found = self._metadata(uri)[0] if self.is_file else {} if manifest is None else manifest.job
        return bool(found == self.job["output"])

    def _send(self, uri: str) -> None:
        if self.is_file:
            self._store.at(uri).upload_file(self.shop.output)
            return
        folder = self._folder(uri)
        if folder.manifest is None or folder.manifest.run != self.run:
            if not isinstance(self.shop.parts, RemoteParts):
                self._send_parts(uri, folder)
            published = folder if uri == self._at else self._folder(self._at)
            last = [one.manifest.generation for one in (folder, published) if one.manifest is not None]
            self._commit(uri, max(last, default=0) + 1)
        self._finish(uri)

    def _finish(self, uri: str) -> None:
        """Do the steps after the commit of a folder."""
        folder = self._folder(uri)
        self._store.at(f"{uri}/{SUCCESS}").write(b"")
        self._delete([f"{uri}/{name}" for name in folder.stale()])
        if folder.old is not None:
            self._store.at(f"{uri}{OLD_SUFFIX}").delete()

    def _send_parts(self, uri: str, folder: StoredFolder) -> None:
        """Upload the parts of a folder that was written on this machine, except those that exist already."""

        def send(name: str) -> None:
            self._store.at(f"{uri}/{run_part(name, self.run)}").upload_file(self.shop.output / name)

        parts = [name for name, size in self.finished.items() if not folder.has({run_part(name, self.run): size})]
        with ThreadPoolExecutor(SENDERS, "send") as pool:
            list(pool.map(send, parts))

    def _delete(self, uris: Sequence[str]) -> None:
        with ThreadPoolExecutor(DELETIONS_AT_ONCE, "delete") as pool:
            list(pool.map(lambda uri: self._store.at(uri).delete(), uris))

    def _commit(self, uri: str, generation: int) -> None:
        """Upload the manifest."""
        if self._manifest is None:
            raise ValueError("the output is not prepared")
        path = self._manifest(generation)
        self._store.at(f"{uri}/{Manifest(self._parts(), {}).path}").upload_file(path)

    def _parts(self) -> dict[str, int]:
        """Return the names of the parts in the store, and their sizes."""
        return {run_part(name, self.run): size for name, size in self.finished.items()}

    def _check(self, folder: StoredFolder | None, *, replaces: bool) -> None:
        """Refuse a URI with something that may not be replaced; ``folder`` is None for a file."""
        is_there = self._exists(self._at) if folder is None else folder.is_finished
        if is_there and not replaces:
            raise OutputError("the output exists", where=self._at, remedy=REPLACE)
        if folder is not None and (foreign := folder.foreign()):
            what = f"batchmax did not write everything that is there ({foreign[0]}), so it is not replaced"
            raise OutputError(what, where=self._at, remedy="delete it yourself, or name another output: -o")

    def _exists(self, uri: str) -> bool:
        return self._store.at(uri).info() is not None if self.is_file else self._folder(uri).is_finished

    def _finished(self, uri: str) -> tuple[Mapping[str, Any], Mapping[str, Any], int] | None:
        """Return the job of the output at a URI, its summary, and its modification time; None if there is none.

        Raises
        ------
        OutputError
            batchmax didn't write what is there.
        """
        if self.is_file:
            found = self._store.at(uri).info()
            if found is None:
                return None
            job, summary = self._metadata(uri)
            if not job or not summary:
                raise _not_ours(uri)
            return job, summary, found.mtime_ns
        folder = self._folder(uri)
        if folder.manifest is not None:
            written = folder.objects[folder.manifest.path].mtime_ns
            return folder.manifest.job, folder.manifest.summary, written
        if SUCCESS not in folder.objects:
            return None
        parts = [name for name in sorted(folder.objects) if PART.fullmatch(name.rpartition("/")[2])]
        job = self._metadata(f"{uri}/{parts[0]}")[0] if parts else {}
        if folder.old is None or not job:
            raise _not_ours(uri)
        return job, folder.old, folder.objects[SUCCESS].mtime_ns

    def _metadata(self, uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the job and the summary in the metadata of a file; empty if they are missing."""
        with contextlib.suppress(DataError, JsonError):
            metadata = open_file(uri, self._storage).metadata.metadata or {}
            texts = [metadata.get(key.encode(), b"{}") for key in (JOB_KEY, SUMMARY_KEY)]
            job, summary = (json_object(parse_json(text), {}) for text in texts)
            return job, summary
        return {}, {}

    def _folder(self, uri: str) -> StoredFolder:
        return stored_folder(self._store.at(uri))


def _not_ours(uri: str) -> OutputError:
    return OutputError("what is there is not an output of batchmax", where=uri, remedy="name another: -o")


def stored_folder(store: Store) -> StoredFolder:
    """Return the objects below a URI, with the manifests among them."""
    uri = store.uri
    objects = {one.uri[len(uri) + 1 :]: one for one in store.list_below()}
    committed: Manifest | None = None
    for name, one in objects.items():
        if name.rpartition("/")[2] == MANIFEST:
            found = read_manifest(store.at(one.uri).read(0, one.size))
            is_later = committed is None or (found is not None and found.generation > committed.generation)
            if found is not None and found.path == name and is_later:
                committed = found
    old = None
    matches = (PART.fullmatch(name.rpartition("/")[2]) for name in objects)
    if SUCCESS in objects and any(match is not None and match[2] is None for match in matches):
        beside = store.at(f"{uri}{OLD_SUFFIX}")
        there = beside.info()
        old = None if there is None else read_old_manifest(beside.read(0, there.size))
    return StoredFolder(objects, committed, old)


def staging(uri: str) -> Path:
    """Return the staging path of an output on this machine: in a folder of the user, and always the same for a URI.

    Raises
    ------
    OutputError
        The folder isn't the user's, or others can access it.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"batchmax-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    info = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or info.st_uid != user or info.st_mode & 0o077:
        what = "outputs are made here before they are sent, and it is not a folder of yours alone"
        raise OutputError(what, where=str(folder), remedy="set TMPDIR to another folder")
    name = uri.rpartition("/")[2]
    return folder / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"


def remote_parts(folder: str, uri: str, storage: Sequence[str], run: str) -> RemoteParts:
    """Return the folders in which a worker makes parts of an output at a URI, on its own machine."""
    parts = RemoteParts(Path(folder), store_of(uri, storage), run)
    parts.make_room()
    return parts

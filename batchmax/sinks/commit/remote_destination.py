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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from batchmax.errors import DataError, OutputError
from batchmax.options.score_options import IfExists
from batchmax.sinks.commit.destination import REPLACE, Destination, FinishedOutput, Location, WriteManifest
from batchmax.sinks.commit.existing_output import SUCCESS
from batchmax.sinks.commit.staging import PartFolder, StagingDirectory, inode, remove
from batchmax.sinks.commit.stored_folder import StoredFolder, stored_folder
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.parquet_file import open_file
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.manifest import JOB_KEY, OLD_SUFFIX, PART, Manifest, run_of, run_part
from batchmax.storage.object_store import Store
from batchmax.storage.output_paths import is_file_path

TRANSFERS_AT_ONCE = 4
"""Files of a folder that are uploaded or copied in parallel."""

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
        super().__init__(folder, durable=False)
        self._run = run
        self._store = store

    def add(self, path: Path, name: str) -> None:
        """Upload a finished part, and remove the local file. An object of this name has the same bytes."""
        self._store.at(f"{self._store.uri}/{run_part(name, self._run)}").upload_file(path)
        path.unlink()

    def retain(self, sizes: Mapping[str, int]) -> bool:
        """Return whether the uploaded parts have these sizes."""
        found = {one.uri[len(self._store.uri) + 1 :]: one.size for one in self._store.list_below()}
        return all(found.get(run_part(name, self._run)) == size for name, size in sizes.items())


class RemoteDestination(Destination):
    """A URI.

    Parameters
    ----------
    store
        The URI in its store.
    storage
        The options of the file system of the store.

    Other parameters and errors are those of :class:`batchmax.sinks.commit.local_destination.LocalDestination`.
    """

    def __init__(
        self, store: Store, storage: Sequence[str], staging: StagingDirectory, if_exists: IfExists, *, gated: bool
    ) -> None:
        super().__init__(store.uri, staging, if_exists, is_file=is_file_path(store.uri))
        self.uri = store.uri
        self._held = f"{store.uri}.held"
        self._uris = {Location.PUBLISHED: self.where, Location.HELD: self._held}
        self._store = store
        self._storage = storage
        self._uploads_parts = not self.is_file and not gated
        self._write_manifest: WriteManifest | None = None
        self._summary: Mapping[str, Any] = {}
        if if_exists != "resume":
            self._refuse_existing(replaces=self.replaces)
            if gated and if_exists == "error" and self.job_at(Location.HELD) is not None:
                remedy = "check it again: --if-exists resume; or replace it: --if-exists overwrite; or delete it"
                raise OutputError("there is already a held output", where=self._held, remedy=remedy)

    @property
    def parts(self) -> PartFolder:
        """The folders that parts are written to."""
        return RemoteParts(self.staging.folder, self._store, self.run) if self._uploads_parts else self.staging.parts

    def locate(self, run: str, number: int | None) -> Location | None:
        """Return where the output of a run is, or its staged file or folder with this inode; None if nowhere."""
        if number is None:
            return None
        for location in (Location.PUBLISHED, Location.HELD):
            if self._is_committed(location, run):
                return location
        return Location.STAGED if inode(self.staging.output) == number else None

    def check(self, *, replaces: bool) -> None:
        """Do nothing: what is at the URI is checked when the destination is created, and before it is replaced."""

    def job_at(self, location: Location) -> Mapping[str, Any] | None:
        """Return the job of a published or held output; None if there is none, empty if batchmax didn't write it."""
        uri = self._uris[location]
        if self.is_file:
            return None if self._store.at(uri).info() is None else self._metadata(uri)[0]
        folder = self._folder(uri)
        if folder.manifest is None:
            return {} if folder.is_finished else None
        return folder.manifest.job

    def finished_outputs(self) -> Iterator[FinishedOutput]:
        """Yield the published output, then the held one, if they exist."""
        for uri in self._uris.values():
            found = self._finished(uri)
            if found is not None:
                yield found
        # Objects that batchmax didn't write matter only if an output has yet to be published here.
        self._refuse_existing(replaces=False)

    def has_held_copy(self) -> bool:
        """Return whether outputs of this job are both published and held."""
        return self.is_of_job(Location.PUBLISHED) and self.is_of_job(Location.HELD)

    def prepare(self, write: WriteManifest | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Check that every part exists and may be published. The manifest is written when it is uploaded."""
        self._write_manifest, self._summary = write, summary or {}
        if self.location in {Location.PUBLISHED, Location.HELD}:
            return
        self._refuse_existing(replaces=self.replaces)
        if self._uploads_parts and not self._folder(self.where).has(self._stored_parts()):
            what = "parts of the output were deleted while the run was going on"
            remedy = "see to it that no other run writes there, then run the command again"
            raise OutputError(what, where=self.where, remedy=remedy)
        self.inode = inode(self.staging.output)

    def publish(self) -> None:
        """Upload what is missing, and commit."""
        location = self.location
        if location is Location.STAGED or (location is Location.PUBLISHED and not self.is_file):
            self._send(self.where)
        self.publish_held()

    def hold(self) -> str:
        """Upload the output under the URI of a held output, and return that URI."""
        if self.location is not Location.HELD or not self.is_file:
            self._send(self._held)
        self.is_published = True
        return self._held

    def publish_held(self) -> None:
        """Copy a held output of this job to the URI, unless it is there already, and delete the held one."""
        self.is_published = True
        if not self.is_of_job(Location.HELD):
            if not self.is_file:
                # A run that was killed while it uploaded a held output has left parts.
                uploaded = self._folder(self._held).objects
                self._delete([f"{self._held}/{name}" for name in uploaded if run_of(name) == self.run])
            return
        if self.is_file:
            if not self.is_of_job(Location.PUBLISHED):
                self._refuse_existing(replaces=self.replaces)
                self._store.at(self._held).copy(self.where)
            self._store.at(self._held).delete()
            return
        held = self._folder(self._held)
        if held.manifest is not None and not self.is_of_job(Location.PUBLISHED):
            self._copy_held(held.manifest)
        self._finish(self.where)
        # The manifest is deleted last, so that a run after a kill finds the others.
        names = sorted(held.objects, key=lambda name: held.manifest is not None and name == held.manifest.path)
        self._delete([f"{self._held}/{name}" for name in names[:-1]])
        self._delete([f"{self._held}/{name}" for name in names[-1:]])

    def undo(self, error: BaseException) -> None:
        """Do nothing: a committed output stays."""

    def clean_up(self, run: str) -> None:
        """Delete the parts that a run has uploaded, unless a committed output consists of them."""
        if self.is_published or self.is_file or not run:
            return
        with contextlib.suppress(DataError, OutputError):
            folder = self._folder(self.where)
            if folder.manifest is None or folder.manifest.run != run:
                self._delete([f"{self.where}/{name}" for name in folder.objects if run_of(name) == run])

    def _is_committed(self, location: Location, run: str) -> bool:
        """Return whether a run has committed; for a file, whether any run of the job has: the bytes are the same."""
        if self.is_file:
            return self.is_of_job(location)
        manifest = self._folder(self._uris[location]).manifest
        return manifest is not None and manifest.run == run

    def _copy_held(self, manifest: Manifest) -> None:
        """Copy the parts of a held folder to the URI, except those that exist already, then its manifest."""

        def copy(name: str) -> None:
            self._store.at(f"{self._held}/{name}").copy(f"{self.where}/{name}")

        self._refuse_existing(replaces=self.replaces)
        folder = self._folder(self.where)
        if folder.manifest is not None and folder.manifest.generation >= manifest.generation:
            what = "another run has published here since the output was held"
            raise OutputError(what, where=self.where, remedy=REPLACE)
        names = [name for name, size in manifest.parts.items() if not folder.has({name: size})]
        _run_in_parallel(copy, names, TRANSFERS_AT_ONCE)
        copy(manifest.path)

    def _send(self, uri: str) -> None:
        """Upload the file, or the parts that aren't uploaded yet and the manifest."""
        if self.is_file:
            self._store.at(uri).upload_file(self.staging.output)
            return
        folder = self._folder(uri)
        if folder.manifest is None or folder.manifest.run != self.run:
            if not self._uploads_parts:
                self._send_parts(uri, folder)
            published = folder if uri == self.where else self._folder(self.where)
            last = [one.manifest.generation for one in (folder, published) if one.manifest is not None]
            self._send_manifest(uri, max(last, default=0) + 1)
        self._finish(uri)

    def _send_parts(self, uri: str, folder: StoredFolder) -> None:
        """Upload the parts of a folder that was written on this machine, except those that exist already."""

        def send(name: str) -> None:
            self._store.at(f"{uri}/{run_part(name, self.run)}").upload_file(self.staging.output / name)

        names = [name for name, size in self.part_sizes.items() if not folder.has({run_part(name, self.run): size})]
        _run_in_parallel(send, names, TRANSFERS_AT_ONCE)

    def _send_manifest(self, uri: str, generation: int) -> None:
        if self._write_manifest is None:
            raise ValueError("the output is not prepared")
        path = self.staging.folder / "manifest"
        remove(path)
        manifest = Manifest(self._stored_parts(), self._summary, self.run, generation)
        self._write_manifest(path, manifest)
        self._store.at(f"{uri}/{manifest.path}").upload_file(path)

    def _finish(self, uri: str) -> None:
        """Do the steps after the commit of a folder."""
        folder = self._folder(uri)
        self._store.at(f"{uri}/{SUCCESS}").write(b"")
        self._delete([f"{uri}/{name}" for name in folder.stale()])
        if folder.old is not None:
            self._store.at(f"{uri}{OLD_SUFFIX}").delete()

    def _delete(self, uris: Sequence[str]) -> None:
        _run_in_parallel(lambda uri: self._store.at(uri).delete(), uris, DELETIONS_AT_ONCE)

    def _stored_parts(self) -> dict[str, int]:
        """Return the names of the parts in the store, and their sizes."""
        return {run_part(name, self.run): size for name, size in self.part_sizes.items()}

    def _refuse_existing(self, *, replaces: bool) -> None:
        """Refuse a URI with something that may not be replaced."""
        if not replaces and self.job_at(Location.PUBLISHED) is not None:
            raise OutputError("the output exists", where=self.where, remedy=REPLACE)
        if not self.is_file and (foreign := self._folder(self.where).foreign()):
            what = f"batchmax did not write everything that is there ({foreign[0]}), so it is not replaced"
            raise OutputError(what, where=self.where, remedy="delete it yourself, or name another output")

    def _finished(self, uri: str) -> FinishedOutput | None:
        """Return the finished output at a URI; None if there is none.

        Raises
        ------
        OutputError
            batchmax didn't write what is there.
        """
        job: Mapping[str, Any]
        summary: Mapping[str, Any] | None
        if self.is_file:
            written = self._store.at(uri).info()
            if written is None:
                return None
            job, summary = self._metadata(uri)
        else:
            folder = self._folder(uri)
            if folder.manifest is not None:
                written = folder.objects[folder.manifest.path]
                job, summary = folder.manifest.job, folder.manifest.summary
            elif SUCCESS in folder.objects:
                written = folder.objects[SUCCESS]
                parts = [name for name in sorted(folder.objects) if PART.fullmatch(name.rpartition("/")[2])]
                job, summary = self._metadata(f"{uri}/{parts[0]}")[0] if parts else {}, folder.old
            else:
                return None
        if not job or not summary:
            what = "what is there is not an output of batchmax"
            raise OutputError(what, where=uri, remedy="name another file")
        return FinishedOutput(uri, uri == self._held, job, summary, written.mtime_ns + CLOCK_STEP - 1)

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


def _run_in_parallel(action: Callable[[str], None], names: Sequence[str], at_once: int) -> None:
    with ThreadPoolExecutor(at_once, "requests") as pool:
        list(pool.map(action, names))

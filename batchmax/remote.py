"""Outputs at URIs: made here whole, checked, and then sent.

One file is made in a workshop of this machine and sent when it is done. Of a folder each part is sent as soon as it is
made, and ``_SUCCESS`` last, without which a folder is not finished. A folder that may be held back is made here as a
whole. What a killed run has left is in the workshop, so it is gone on with on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from batchmax.commit import Output
from batchmax.errors import DataError, OutputError
from batchmax.finished import JOB_KEY, SUCCESS, differences, manifest_in
from batchmax.journal import read_journals
from batchmax.options import IfExists
from batchmax.parquet_files import open_file
from batchmax.places import REPLACE
from batchmax.sink import SUMMARY_KEY
from batchmax.storage import is_file_path
from batchmax.stores import Found, Store, store_of
from batchmax.unfinished import PartFolder

SENDERS = 4
"""Files of a folder that are sent at once."""


class RemoteParts(PartFolder):
    """Where parts are made here, and kept there.

    Parameters
    ----------
    folder
        The workshop, or any folder of this machine.
    store
        The output's folder.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder)
        self._store = store

    def keep(self, made: Path, name: str) -> None:
        """Send a part that is whole; one of its name there is the same, or of an output that is replaced."""
        self._store.at(f"{self._store.uri}/{name}").send(made)
        made.unlink()

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return whether the parts there have these sizes."""
        found = {one.uri[len(self._store.uri) + 1 :]: one.size for one in self._store.below()}
        return all(found.get(name) == size for name, size in sizes.items())


class RemoteOutput(Output):
    """An output at a URI; parameters and errors are those of :class:`batchmax.commit.Output`.

    ``storage`` are the options of its file system.
    """

    def __init__(self, uri: str, if_exists: IfExists, storage: Sequence[str], *, gated: bool = False) -> None:
        self._at = uri.rstrip("/")
        self.uri = self._at
        self._store = store_of(self._at, storage)
        self._storage = storage
        super().__init__(str(staging(self._at)), if_exists, gated=gated)
        self._is_sent_whole = self.is_file or gated
        if not self._is_sent_whole:
            self.shop.parts = RemoteParts(self.shop.folder, self._store)
        there = self._there()
        if there and if_exists == "error":
            raise OutputError("the output exists", where=self._at, remedy=REPLACE)
        if there and not self.is_file and self._manifest(self._at) is None and self._success().found() is not None:
            what = "what is there is not a folder that batchmax wrote, so it is not replaced"
            raise OutputError(what, where=self._at, remedy="delete it yourself, or name another output: -o")

    def settled(self, job: Mapping[str, Any], newest_input: int) -> dict[str, Any] | None:
        """Return the summary of this job's output if that is complete already; None if it is not."""
        left = read_journals(self.shop.journals())
        if left is not None and left[1].replaces and not list(differences(job, left[0])):
            return None
        found, written = self._finished()
        if found is None or written is None:
            return None
        theirs, summary = found
        others = list(differences(job["output"], theirs))
        if newest_input > written.mtime_ns:
            others.append("an input has changed since")
        if others:
            what = f"this is the output of another job, and complete: {'; '.join(others[:3])}"
            raise OutputError(what, where=self._at, remedy=REPLACE)
        return {**summary, "held": None}

    def publish(self, summary: Mapping[str, Any]) -> None:
        """Send what is not there yet, and say that the output is whole."""
        self._send(self._at, summary)

    def hold(self, summary: Mapping[str, Any]) -> str:
        """Send the output under the name of one that is held back, and return that."""
        self._send(f"{self._at}.held", summary)
        return f"{self._at}.held"

    def _send(self, uri: str, summary: Mapping[str, Any]) -> None:
        store = self._store.at(uri)
        if self.is_file:
            store.send(self.shop.output)
            return
        self._success(uri).delete()
        if self._is_sent_whole:
            paths = [path for path in self.shop.output.rglob("*.parquet") if not path.is_dir()]
            names = {path.relative_to(self.shop.output).as_posix(): path for path in paths}
            with ThreadPoolExecutor(SENDERS, "send") as pool:
                list(pool.map(lambda name: store.at(f"{uri}/{name}").send(names[name]), names))
            kept = set(names)
        else:
            kept = set(self.finished)
        for one in store.below():
            if one.uri[len(uri) + 1 :] not in kept:
                store.at(one.uri).delete()
        text = json.dumps(summary, ensure_ascii=False, indent=1)
        self._store.at(f"{uri}.batchmax.json").write(text.encode())
        self._success(uri).write(b"")

    def _success(self, uri: str | None = None) -> Store:
        return self._store.at(f"{uri or self._at}/{SUCCESS}")

    def _there(self) -> bool:
        if self.is_file:
            return self._store.found() is not None
        return self._success().found() is not None

    def _finished(self) -> tuple[tuple[dict[str, Any], dict[str, Any]] | None, Found | None]:
        """Return which job made what is there, its summary, and when it was finished."""
        written = (self._store if self.is_file else self._success()).found()
        if written is None:
            return None, None
        with contextlib.suppress(DataError, KeyError, ValueError, IndexError):
            name = self._at if self.is_file else next(one.uri for one in self._store.below() if is_file_path(one.uri))
            metadata = open_file(name, self._storage).metadata.metadata or {}
            summary = json.loads(metadata[SUMMARY_KEY.encode()]) if self.is_file else self._manifest(self._at)
            if summary is not None:
                return (json.loads(metadata[JOB_KEY.encode()]), summary), written
        raise OutputError("what is there is not an output of batchmax", where=self._at, remedy="name another: -o")

    def _manifest(self, uri: str) -> dict[str, Any] | None:
        store = self._store.at(f"{uri}.batchmax.json")
        found = store.found()
        return None if found is None else manifest_in(store.read(0, found.size))


def staging(uri: str) -> Path:
    """Return where on this machine an output is made: in a folder of the user's own, the same for the same URI.

    Raises
    ------
    OutputError
        The folder is somebody else's.
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


def remote_parts(folder: str, uri: str, storage: Sequence[str]) -> RemoteParts:
    """Return where a worker makes parts of an output at a URI, in a folder of its own machine."""
    parts = RemoteParts(Path(folder), store_of(uri, storage))
    parts.make_room()
    return parts

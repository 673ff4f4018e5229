"""Publishing: the output path holds what it held before, or the whole new output, and nothing in between.

An output is built under a hidden name beside its path and renamed when it is whole. What is renamed is one file, or a
folder of parts with an empty ``_SUCCESS``; beside a folder lies a manifest, ``OUT.batchmax.json``. What was there waits
under a hidden name until the job has ended, and comes back if the job fails after all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import GateError, OutputError
from batchmax.options import IfExists
from batchmax.storage import hidden_sibling, is_file_path, open_exclusively, refuse_streams_and_stores, sync_folder

SUCCESS = "_SUCCESS"

MANIFEST_KEYS = {"n_rows", "status_counts", "version"}
"""What every manifest says, whatever else: JSON without them is somebody else's."""

REPLACE = "replace it: --if-exists overwrite, or name another: -o"


def places(out: str | os.PathLike[str], *, gated: bool) -> list[Path]:
    """Return everything that publishing may write to: the path, a folder's manifest, the place of a held output."""
    path = Path(out)
    if path.name in {"", ".."}:
        return []
    return [path, *([] if is_file_path(os.fspath(out)) else [_manifest(path)]), *([_held(path)] if gated else [])]


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.batchmax.json")


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


class Output:
    """An output in the making: one file, or a folder of parts.

    Parameters
    ----------
    out
        The path. One that ends as Parquet files do is a file, any other a folder.
    if_exists
        Whether what batchmax wrote there before may be replaced.
    gated
        Whether the output may be held back, so that the place of a held one must be free too.

    Raises
    ------
    UsageError
        It is no path but a stream or a URI.
    OutputError
        Something is at the path already and may not be replaced, or the folder it would lie in is not there.
    """

    def __init__(self, out: str | os.PathLike[str], if_exists: IfExists, *, gated: bool = False) -> None:
        refuse_streams_and_stores(os.fspath(out))
        self.path = Path(out)
        if self.path.name in {"", ".."}:
            raise OutputError(
                "no file or folder can be made under this name", where=str(out), remedy="name a file or a folder: -o"
            )
        self.is_file = is_file_path(os.fspath(out))
        self._replace = if_exists == "overwrite"
        self.manifest = _manifest(self.path)
        self.held = _held(self.path)
        self._gated = gated
        self._work = hidden_sibling(self.path)
        self._renames: list[_Rename] = []
        self._check()

    def file_of(self, name: str) -> Path:
        """Return where to write the part of this name."""
        return self._work if self.is_file else self._work / name

    def publish(self, manifest: dict[str, Any]) -> None:
        """Put the finished output at its path."""
        with self._renaming(), _alone_in(self.path.parent):
            self._finish()
            self._rename(self._work, self.path).do(replace=self._replace)
            if not self.is_file:
                temporary = hidden_sibling(self.manifest)
                rename = self._rename(temporary, self.manifest)
                _write_json(temporary, manifest)
                rename.do(replace=True)
            sync_folder(self.path.parent)

    def hold(self) -> Path:
        """Put the finished output beside its path, under the name of a held one, and return that."""
        self._check_held()
        with self._renaming(), _alone_in(self.path.parent):
            self._finish()
            self._rename(self._work, self.held).do(replace=self._replace)
            sync_folder(self.path.parent)
        return self.held

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Make room for the parts; whatever ends the block but a true gate, take back what was published in it."""
        try:
            with self._renaming():
                if not self.is_file:
                    self._work.mkdir()
            yield
        except GateError:
            raise
        except BaseException:
            with _alone_in(self.path.parent):
                for rename in reversed(self._renames):
                    rename.undo()
            raise
        finally:
            for rename in self._renames:
                rename.forget()
            _remove(self._work)

    def _check(self) -> None:
        where = str(self.path)
        if not self.path.parent.is_dir():
            raise OutputError(
                f"there is no folder {self.path.parent}",
                where=where,
                remedy=f"make it: mkdir -p {shlex.quote(str(self.path.parent))}",
            )
        if self._gated:
            self._check_held()
        if not self.is_file and os.path.lexists(self.manifest) and not _is_manifest(self.manifest):
            raise OutputError(
                "the manifest goes here, and what is there is not one that batchmax wrote",
                where=str(self.manifest),
                remedy=f"move it: {_move_away(self.manifest)}, or name another output: -o",
            )
        if not os.path.lexists(self.path):
            return
        if not self._replace:
            raise OutputError("the output exists", where=where, remedy=REPLACE)
        if self.is_file and self.path.is_dir():
            raise OutputError("a folder is in the way of the file", where=where, remedy="name another output: -o")
        if not self.is_file and not (self.manifest.exists() and (self.path / SUCCESS).exists()):
            raise OutputError(
                "what is there is not a folder that batchmax wrote, so it is not replaced",
                where=where,
                remedy="delete it yourself, or name another output: -o",
            )

    def _check_held(self) -> None:
        """Refuse to hold an output back over what may not be replaced."""
        if not os.path.lexists(self.held):
            return
        if not _is_ours(self.held, is_file=self.is_file):
            raise OutputError(
                "an output that is held back goes here, and what is there is not one that batchmax wrote",
                where=str(self.held),
                remedy=f"move it: {_move_away(self.held)}, or name another output: -o",
            )
        if not self._replace:
            raise OutputError(
                "an output that was held back lies here",
                where=str(self.held),
                remedy=f"delete it: rm -r {shlex.quote(str(self.held))}, or replace it: --if-exists overwrite",
            )

    def _finish(self) -> None:
        if not self.is_file:
            os.close(open_exclusively(self._work / SUCCESS))
            sync_folder(self._work)

    def _rename(self, new: Path, path: Path) -> _Rename:
        """Return a rename that is undone, and whose leftovers are taken away, when the building ends."""
        self._renames.append(_Rename(new, path))
        return self._renames[-1]

    @contextlib.contextmanager
    def _renaming(self) -> Iterator[None]:
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


class _Rename:
    """A file or folder that takes its place, and can give it back.

    Nothing is replaced that came to be there while it is renamed, unless it may be.
    """

    def __init__(self, new: Path, path: Path) -> None:
        self._new = new
        self._path = path
        self._old = hidden_sibling(path)
        self._identity: tuple[int, int] | None = None

    def do(self, *, replace: bool) -> None:
        """Rename, with what is replaced kept under a hidden name."""
        self._identity = _identity(self._new)
        if self._new.is_dir():
            if replace:
                with contextlib.suppress(FileNotFoundError):
                    self._path.rename(self._old)
            self._new.rename(self._path)
        elif replace:
            # Where the file system has no links, a file is replaced all the same, and does not come back.
            with contextlib.suppress(OSError, NotImplementedError):
                os.link(self._path, self._old, follow_symlinks=False)
            self._new.replace(self._path)
        else:
            self._link_or_rename()

    def undo(self) -> None:
        """Put back what was there, unless somebody else has put something there since."""
        is_ours = self._identity is not None and _identity(self._path) == self._identity
        if is_ours and self._path.is_dir():
            self._path.rename(self._new)
        if os.path.lexists(self._old) and (is_ours or not os.path.lexists(self._path)):
            self._old.replace(self._path)
        elif is_ours:
            _remove(self._path)

    def forget(self) -> None:
        """Take away what is left under hidden names."""
        _remove(self._old)
        _remove(self._new)

    def _link_or_rename(self) -> None:
        try:
            # A link, unlike a rename, never replaces a file that came to be in the meantime.
            self._path.hardlink_to(self._new)
        except FileExistsError:
            raise
        except OSError:
            self._new.rename(self._path)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let other runs wait before they rename anything in the folder, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with os.fdopen(open_exclusively(path), "w", encoding="utf-8") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file or folder from all others, None if nothing is there."""
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _move_away(path: Path) -> str:
    return f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}"


def _is_ours(path: Path, *, is_file: bool) -> bool:
    """Return whether batchmax wrote the file, or the folder and every file in it, as their footers say."""
    if is_file:
        return _is_our_file(path)
    if not path.is_dir() or not (path / SUCCESS).is_file():
        return False
    parts = [part for part in path.iterdir() if part.name != SUCCESS]
    return bool(parts) and all(map(_is_our_file, parts))


def _is_our_file(path: Path) -> bool:
    try:
        return path.is_file() and b"batchmax" in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _is_manifest(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= MANIFEST_KEYS

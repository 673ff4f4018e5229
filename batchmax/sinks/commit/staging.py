"""The staging directory of an output: a hidden folder next to the output's path, and its lock.

It contains what will be published, the journal, and a file that a run keeps locked while it works on the output. The
operating system releases the lock when the process ends. The directory is removed when the output is published or the
run gives up. A killed run leaves it, and another run resumes from it or removes its contents.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shlex
import shutil
import stat
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from batchmax.errors import OutputError
from batchmax.storage.file_names import composed
from batchmax.storage.files import sync_path
from batchmax.storage.output_paths import make_parents, remove_empty
from batchmax.storage.paths import require_local

ENDING = ".batchmax"
LOCK = "lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


ATTEMPTS = 100
"""Attempts to create a folder whose parents are removed meanwhile; file systems such as /proc report this forever."""


class StagingDirectory:
    """The staging directory of one output.

    Parameters
    ----------
    out
        The path of the output.
    durable
        Whether the output and the journal are synced.

    Attributes
    ----------
    path
        The path of the output.
    output
        The file that is being written, or the folder of finished parts.
    parts
        The folders that parts are written to.
    old
        What was at the output's path, while it is being replaced.
    journal
        The path of the journal.

    Raises
    ------
    UsageError
        The path is a stream or a URI.
    OutputError
        The path has no name.
    """

    def __init__(self, out: str | os.PathLike[str], *, durable: bool = True) -> None:
        require_local(os.fspath(out))
        self.durable = durable
        self.path = Path(out)
        if self.path.name in {"", ".."}:
            raise OutputError(
                "no file or folder can be made under this name", where=str(out), remedy="name a file or a folder: -o"
            )
        self.folder = self.path.with_name(f".{self.path.name}{ENDING}")
        self.parts = PartFolder(self.folder, durable=durable)
        self.output = self.parts.output
        self.old = self.folder / "old"
        self.journal = self.folder / "journal"
        self._lock: int | None = None
        self._parents: list[Path] = []

    def open(self, *, shared: bool = False) -> None:
        """Create the directory, or take over an existing one, and lock it, exclusively unless ``shared``.

        Raises
        ------
        OutputError
            Another run uses the directory, or it isn't a folder of this user.
        OSError
            The directory can't be created.
        """
        attempts = 0
        while self._lock is None:
            attempts += 1
            try:
                self._parents = make_parents(self.folder) or self._parents
                self.folder.mkdir(mode=0o700)
            except FileExistsError:
                pass
            except FileNotFoundError:
                # Another run may remove parents that it created, as long as they are empty.
                if attempts == ATTEMPTS:
                    raise
            # A run that ends may remove the directory meanwhile; then the loop starts over.
            with contextlib.suppress(FileNotFoundError):
                self._check()
                self._lock = self._locked(self.folder / LOCK, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def open_shared(self) -> bool:
        """Create the directory and lock it: exclusively if it is unused, else shared; return whether exclusively.

        Raises
        ------
        OutputError, OSError
            See :meth:`open`.
        """
        try:
            self.open()
        except OutputError:
            self.open(shared=True)
            return False
        return True

    def share(self) -> None:
        """Change the lock to a shared one.

        Raises
        ------
        OutputError
            Another run has locked the directory exclusively.
        """
        if self._lock is not None:
            self._take(self._lock, fcntl.LOCK_SH)

    def journal_of(self, shard: tuple[int, int]) -> Path:
        """Return the journal of a shard, given by its number and the number of shards."""
        return self.folder / f"journal-{shard[0]}-of-{shard[1]}"

    def journals(self) -> list[Path]:
        """Return all journals; that of runs with an exclusive lock is the first."""
        return [self.journal, *sorted(self.folder.glob("journal-*"))]

    def restore_old(self) -> None:
        """Restore what a killed run had put aside."""
        if os.path.lexists(self.old) and not os.path.lexists(self.path):
            self.old.rename(self.path)

    def clear(self, *, keeps_journal: bool = False) -> None:
        """Remove everything but the directory and the lock, and perhaps the journal."""
        kept = {LOCK, self.journal.name} if keeps_journal else {LOCK}
        for item in self.folder.iterdir():
            if item.name not in kept:
                remove(item)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable, if the output should be."""
        if self.durable:
            sync_path(folder)

    def retain_file(self, size: int) -> bool:
        """Return whether the file has at least ``size`` bytes; if ``size`` is 0, remove it."""
        if not size:
            remove(self.output)
        return (self.output.stat().st_size if self.output.is_file() else 0) >= size

    def close(self, *, keep: bool = False, published: bool = False) -> None:
        """Unlock the directory, and remove it unless it is kept.

        Parameters
        ----------
        keep
            Whether another run can resume from it, so that it is kept.
        published
            Whether the journal records that the output is published. If it does, the journal is removed after
            everything else, so that a run after a kill removes the rest. Otherwise it is removed first, because what it
            lists is removed next.
        """
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            if not keep:
                with contextlib.suppress(OSError):
                    if published:
                        self.clear(keeps_journal=True)
                    else:
                        for journal in self.journals():
                            remove(journal)
                    self.clear()
                    remove(self.folder / LOCK)
                    self.folder.rmdir()
                    remove_empty(self._parents)
        finally:
            os.close(lock)

    def _check(self) -> None:
        info = self.folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or (hasattr(os, "getuid") and info.st_uid != os.getuid()):
            raise OutputError(
                "here the output would be made, and what is there is not a folder of yours",
                where=str(self.folder),
                remedy=f"move it: mv {shlex.quote(str(self.folder))} {shlex.quote(f'{self.folder}.old')}",
            )

    def _locked(self, path: Path, how: int) -> int | None:
        """Open and lock a file; return None if another process has removed it meanwhile."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            self._take(descriptor, how)
            if identity(path) != identity(descriptor):
                os.close(descriptor)
                return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _take(self, descriptor: int, how: int) -> None:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                "another run is making this output",
                where=str(self.path),
                remedy="wait for it, or name another output",
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(
                f"{self.path.parent}: the file system has no locks; make sure that no other run has this output",
                RuntimeWarning,
                stacklevel=2,
            )


class PartFolder:
    """The two folders of parts in a staging directory: of parts that are being written, and of finished ones.

    Attributes
    ----------
    folder
        The staging directory.
    output
        The folder of finished parts.
    durable
        Whether the names of parts are synced.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self.durable = durable
        self.output = folder / "output"
        self._unfinished = folder / "making"

    def create(self) -> None:
        """Create the folders, unless they exist."""
        self.output.mkdir(exist_ok=True)
        self._unfinished.mkdir(exist_ok=True)

    def new_path(self, name: str) -> Path:
        """Return a path to write a part to; nothing exists there, and no other process uses it."""
        return self._unfinished / f"{Path(name).name}.{secrets.token_hex(4)}"

    def add(self, path: Path, name: str) -> None:
        """Move a complete part to the finished ones. An existing part of this name has the same bytes.

        Raises
        ------
        OutputError
            It can't be moved.
        """
        target = self.output / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            if self.durable:
                sync_path(target.parent)
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise OutputError(what, where=str(target), remedy="name another output") from error

    def retain(self, sizes: Mapping[str, int]) -> bool:
        """Remove all files but these finished parts; return whether they exist and have these sizes."""
        if not self.output.is_dir():
            return False
        paths = [path for path in self.output.rglob("*") if not path.is_dir()]
        found = {composed(str(path.relative_to(self.output))): path for path in paths}
        wanted = {composed(name): size for name, size in sizes.items()}
        if any(name not in found or found[name].stat().st_size != size for name, size in wanted.items()):
            return False
        for name in found.keys() - wanted.keys():
            found[name].unlink(missing_ok=True)
        remove(self._unfinished)
        self._unfinished.mkdir()
        return True


def local_path_of(uri: str) -> Path:
    """Return a path on this machine for staging an output at a URI: in a folder of the user, always the same for a URI.

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


def identity(path: Path | int) -> tuple[int, int] | None:
    """Return the device and inode of a file or folder; None if nothing is there."""
    try:
        info = os.fstat(path) if isinstance(path, int) else path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_dev, info.st_ino


def inode(path: Path) -> int | None:
    """Return the inode of a file or folder, which outlasts a restart of the machine; None if nothing is there."""
    found = identity(path)
    return None if found is None else found[1]


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if possible."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()

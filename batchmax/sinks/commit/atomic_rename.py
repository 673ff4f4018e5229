"""Publishes a file or folder by a rename that can be undone.

A file is replaced by one rename. A folder is exchanged with the one that it replaces if the system can do that
atomically. Otherwise the old folder is put aside first, and the next run restores it if this process was killed in
between.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from batchmax.sinks.commit.staging import identity, remove
from batchmax.storage.system_calls import exchange


class Rename:
    """One rename.

    Without ``replace``, it doesn't replace what was created at the path meanwhile. An exception is a file on a file
    system without hard links.

    Parameters
    ----------
    new
        The file or folder to publish.
    path
        The path to publish it at.
    old
        The path that keeps what is replaced until :meth:`forget`; nothing may exist there.
    """

    def __init__(self, new: Path, path: Path, old: Path) -> None:
        self._new = new
        self._path = path
        self._old = old
        self._identity: tuple[int, int] | None = None

    def do(self, *, replace: bool) -> None:
        """Rename, and keep what is replaced."""
        self._identity = identity(self._new)
        if self._new.is_dir():
            if replace and os.path.lexists(self._path):
                self._replace_folder()
            else:
                self._new.rename(self._path)
        elif replace:
            # On file systems without hard links, the file is replaced too, but can't be restored.
            with contextlib.suppress(OSError, NotImplementedError):
                os.link(self._path, self._old, follow_symlinks=False)
            self._new.replace(self._path)
        else:
            self._link_or_rename()

    def undo(self) -> None:
        """Restore what was at the path, unless another process has put something there since."""
        is_ours = self._identity is not None and identity(self._path) == self._identity
        if is_ours and self._path.is_dir():
            if self._old == self._new:
                exchange(self._old, self._path)
                return
            self._path.rename(self._new)
        if os.path.lexists(self._old) and (is_ours or not os.path.lexists(self._path)):
            self._old.replace(self._path)
        elif is_ours:
            remove(self._path)

    def forget(self) -> None:
        """Remove what was replaced, and the second name of what replaced it."""
        remove(self._old)
        remove(self._new)

    def _replace_folder(self) -> None:
        if exchange(self._new, self._path):
            self._old = self._new
            return
        self._path.rename(self._old)
        self._new.rename(self._path)

    def _link_or_rename(self) -> None:
        try:
            # Unlike a rename, a link never replaces a file that was created meanwhile.
            self._path.hardlink_to(self._new)
        except FileExistsError:
            raise
        except OSError:
            self._new.rename(self._path)

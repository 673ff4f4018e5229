"""A file or folder that takes its place, and can give it back.

A file is replaced by one rename. A folder that replaces another changes places with it, where the system can do that in
one step; elsewhere the old one is put aside first, and whoever comes after a process that was killed in between finds
it there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from batchmax.sinks.commit.staging import identity, remove
from batchmax.storage.system_calls import exchange


class Rename:
    """One rename. Nothing is replaced that came to be at the path meanwhile, unless it may be.

    Parameters
    ----------
    new
        What takes its place.
    path
        The place.
    old
        Where to keep what is replaced until :meth:`forget`; nothing may be there.
    """

    def __init__(self, new: Path, path: Path, old: Path) -> None:
        self._new = new
        self._path = path
        self._old = old
        self._identity: tuple[int, int] | None = None

    def do(self, *, replace: bool) -> None:
        """Rename, with what is replaced kept."""
        self._identity = identity(self._new)
        if self._new.is_dir():
            if replace and os.path.lexists(self._path):
                self._replace_folder()
            else:
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
        """Take away what was replaced, and the second name of what took its place."""
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
            # A link, unlike a rename, never replaces a file that came to be in the meantime.
            self._path.hardlink_to(self._new)
        except FileExistsError:
            raise
        except OSError:
            self._new.rename(self._path)

"""Publishing: the output path holds what it held before, or the whole new output, and nothing in between.

An output is built under a hidden name beside its path and renamed when it is whole. What is renamed is one file, or a
folder of parts with an empty ``_SUCCESS``; beside a folder lies a manifest, ``OUT.batchmax.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchmax.errors import OutputError
from batchmax.options import IfExists
from batchmax.storage import hidden_sibling, is_file_path, open_exclusively, sync_folder

SUCCESS = "_SUCCESS"


class Output:
    """An output in the making: one file, or a folder of parts.

    Raises
    ------
    OutputError
        Something is at the path already and may not be replaced, or the folder it would lie in is not there.
    """

    def __init__(self, out: str | os.PathLike[str], if_exists: IfExists) -> None:
        self.path = Path(out)
        if self.path.name in {"", ".."}:
            raise OutputError(
                "no file or folder can be made under this name", where=str(out), remedy="name a file or a folder: -o"
            )
        self.is_file = is_file_path(os.fspath(out))
        self._replace = if_exists == "overwrite"
        self._work = hidden_sibling(self.path)
        self._check()

    @property
    def manifest(self) -> Path:
        """Where the manifest of a folder lies."""
        return self.path.with_name(f"{self.path.name}.batchmax.json")

    def file_of(self, name: str) -> Path:
        """Return where to write the part of this name."""
        return self._work if self.is_file else self._work / name

    def publish(self, manifest: dict[str, Any]) -> None:
        """Put the finished output at its path."""
        with self._renaming():
            self._finish()
            if self.is_file:
                self._publish_file()
            else:
                self._publish_folder()
                self._write_manifest(manifest)
            sync_folder(self.path.parent)

    def hold(self) -> Path:
        """Put the finished output beside its path, under the name of a held one, and return that."""
        held = self.path.with_name(f"{self.path.name}.held")
        with self._renaming():
            self._finish()
            if held.is_dir():
                shutil.rmtree(held)
            self._work.replace(held)
            sync_folder(self.path.parent)
        return held

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Make room for the parts; take away what was not published when the block ends."""
        with self._renaming():
            if not self.is_file:
                self._work.mkdir()
        try:
            yield
        finally:
            if self._work.is_dir():
                shutil.rmtree(self._work, ignore_errors=True)
            else:
                self._work.unlink(missing_ok=True)

    def _check(self) -> None:
        where = str(self.path)
        if not self.path.parent.is_dir():
            raise OutputError(
                f"there is no folder {self.path.parent}",
                where=where,
                remedy=f"make it: mkdir -p {shlex.quote(str(self.path.parent))}",
            )
        if not os.path.lexists(self.path):
            return
        if not self._replace:
            raise OutputError(
                "the output exists", where=where, remedy="replace it: --if-exists overwrite, or name another: -o"
            )
        if self.is_file and self.path.is_dir():
            raise OutputError("a folder is in the way of the file", where=where, remedy="name another output: -o")
        if not self.is_file and not (self.manifest.exists() and (self.path / SUCCESS).exists()):
            raise OutputError(
                "what is there is not a folder that batchmax wrote, so it is not replaced",
                where=where,
                remedy="delete it yourself, or name another output: -o",
            )

    def _finish(self) -> None:
        if not self.is_file:
            os.close(open_exclusively(self._work / SUCCESS))
            sync_folder(self._work)

    def _publish_file(self) -> None:
        if self._replace:
            self._work.replace(self.path)
            return
        try:
            # A link, unlike a rename, never replaces a file that came to be in the meantime.
            self.path.hardlink_to(self._work)
        except FileExistsError:
            raise
        except OSError:
            self._work.rename(self.path)

    def _publish_folder(self) -> None:
        old = hidden_sibling(self.path)
        if self._replace and self.path.exists():
            self.path.rename(old)
        self._work.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        temporary = hidden_sibling(self.manifest)
        with os.fdopen(open_exclusively(temporary), "w", encoding="utf-8") as stream:
            json.dump(manifest, stream, ensure_ascii=False, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.manifest)

    @contextlib.contextmanager
    def _renaming(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise OutputError(
                "the output exists",
                where=str(self.path),
                remedy="replace it: --if-exists overwrite, or name another: -o",
            ) from error
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror or error}", where=str(self.path), remedy="name another output: -o"
            ) from error

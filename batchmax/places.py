"""Where an output goes: its path, what lies beside it, and whether what is there may make way.

Only looks; neither writes nor removes anything.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from batchmax.errors import OutputError
from batchmax.finished import SUCCESS, is_manifest, is_ours
from batchmax.options import IfExists
from batchmax.storage import is_file_path, refuse_streams_and_stores

REPLACE = "replace it: --if-exists overwrite, or name another: -o"


def places(out: str | os.PathLike[str], *, gated: bool) -> list[Path]:
    """Return everything that publishing may write to: the path, a folder's manifest, the place of a held output."""
    path = Path(out)
    if path.name in {"", ".."}:
        return []
    paths = [path, *([_held(path)] if gated else [])]
    return paths if is_file_path(os.fspath(out)) else [*paths, *map(manifest_of, paths)]


def manifest_of(path: Path) -> Path:
    """Return where the manifest of a folder lies."""
    return path.with_name(f"{path.name}.batchmax.json")


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


class Place:
    """The place of an output.

    Parameters and errors are those of :class:`batchmax.commit.Output`.

    Attributes
    ----------
    path, manifest, held
        Of the output, of the manifest beside it if it is a folder, and of the output if it is held back.
    is_file
        Whether the output is one file.
    """

    def __init__(self, out: str | os.PathLike[str], if_exists: IfExists, *, gated: bool = False) -> None:
        refuse_streams_and_stores(os.fspath(out))
        self.path = Path(out)
        if self.path.name in {"", ".."}:
            raise OutputError(
                "no file or folder can be made under this name", where=str(out), remedy="name a file or a folder: -o"
            )
        self.is_file = is_file_path(os.fspath(out))
        self.manifest = manifest_of(self.path)
        self.held = _held(self.path)
        self._if_exists = if_exists
        self._gated = gated
        self.check()

    def check(self) -> None:
        """Refuse a place where something is that may not be replaced.

        Raises
        ------
        OutputError
            Naming it.
        """
        where = str(self.path)
        if not self.path.parent.is_dir():
            raise OutputError(
                f"there is no folder {self.path.parent}",
                where=where,
                remedy=f"make it: mkdir -p {shlex.quote(str(self.path.parent))}",
            )
        if self._gated:
            self.check_held()
        if not self.is_file and os.path.lexists(self.manifest) and not is_manifest(self.manifest):
            raise OutputError(
                "the manifest goes here, and what is there is not one that batchmax wrote",
                where=str(self.manifest),
                remedy=f"move it: {_move_away(self.manifest)}, or name another output: -o",
            )
        if not os.path.lexists(self.path):
            return
        if self._if_exists == "error":
            raise OutputError("the output exists", where=where, remedy=REPLACE)
        if self._if_exists == "resume" and not is_ours(self.path, is_file=self.is_file):
            what = "what is there is not an output of batchmax"
            raise OutputError(what, where=where, remedy="name another output: -o")
        if self.is_file and self.path.is_dir():
            raise OutputError("a folder is in the way of the file", where=where, remedy="name another output: -o")
        ours = (self.path / SUCCESS).exists() and (self.manifest.exists() or self._if_exists == "resume")
        if not self.is_file and not ours:
            raise OutputError(
                "what is there is not a folder that batchmax wrote, so it is not replaced",
                where=where,
                remedy="delete it yourself, or name another output: -o",
            )

    def check_held(self) -> None:
        """Refuse to hold an output back over what may not be replaced."""
        if not os.path.lexists(self.held):
            return
        if not is_ours(self.held, is_file=self.is_file):
            raise OutputError(
                "an output that is held back goes here, and what is there is not one that batchmax wrote",
                where=str(self.held),
                remedy=f"move it: {_move_away(self.held)}, or name another output: -o",
            )
        if self._if_exists == "error":
            raise OutputError(
                "an output that was held back lies here",
                where=str(self.held),
                remedy="judge it anew: --if-exists resume; or replace it: --if-exists overwrite; or delete it: "
                f"rm -r {shlex.quote(str(self.held))}",
            )


def _move_away(path: Path) -> str:
    return f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}"

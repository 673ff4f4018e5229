"""Where an output goes: its path, the path of a held output, and whether what exists there may be replaced.

Only inspects paths; neither writes nor removes anything.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from batchmax.errors import OutputError
from batchmax.options.score_options import IfExists
from batchmax.sinks.commit.existing_output import is_ours, is_output_folder
from batchmax.storage.output_paths import is_file_path, refuse_file_as_folder
from batchmax.storage.paths import require_local

REPLACE = "replace it: --if-exists overwrite, or name another: -o"


def places(out: str | os.PathLike[str], *, gated: bool) -> list[Path]:
    """Return all paths that publishing may write to: the output's, and that of a held output."""
    path = Path(out)
    if path.name in {"", ".."}:
        return []
    return [path, *([_held(path)] if gated else [])]


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


class Place:
    """The destination of an output.

    Parameters and errors are those of :class:`batchmax.sinks.commit.output.Output`.

    Attributes
    ----------
    path, held
        The path of the output, and its path if it is held.
    is_file
        Whether the output is one file.
    """

    def __init__(self, out: str | os.PathLike[str], if_exists: IfExists, *, gated: bool = False) -> None:
        require_local(os.fspath(out))
        self.path = Path(out)
        if self.path.name in {"", ".."}:
            raise OutputError(
                "no file or folder can be made under this name", where=str(out), remedy="name a file or a folder: -o"
            )
        self.is_file = is_file_path(os.fspath(out))
        self.held = _held(self.path)
        self._if_exists = if_exists
        self._gated = gated
        refuse_file_as_folder(self.path)
        if if_exists == "resume":
            # What may be replaced depends on the options of the run that is resumed.
            return
        self.check(replaces=if_exists == "overwrite")

    def check(self, *, replaces: bool) -> None:
        """Refuse a path with something that may not be replaced.

        Raises
        ------
        OutputError
            It names what is at the path.
        """
        where = str(self.path)
        if self._gated:
            self.check_held()
        if not os.path.lexists(self.path):
            return
        if not replaces and self._if_exists != "resume":
            raise OutputError("the output exists", where=where, remedy=REPLACE)
        if not replaces and not is_ours(self.path, is_file=self.is_file):
            what = "what is there is not an output of batchmax"
            raise OutputError(what, where=where, remedy="name another output: -o")
        if self.is_file and self.path.is_dir():
            raise OutputError("a folder is in the way of the file", where=where, remedy="name another output: -o")
        if replaces and not self.is_file and not is_output_folder(self.path):
            raise OutputError(
                "this is not a folder that batchmax wrote, or other files are in it, so it is not replaced",
                where=where,
                remedy="delete it yourself, or name another output: -o",
            )

    def check_held(self) -> None:
        """Refuse to hold an output if something that may not be replaced is at the path of the held one."""
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
                "there is already a held output",
                where=str(self.held),
                remedy="check it again: --if-exists resume; or replace it: --if-exists overwrite; or delete it: "
                f"rm -r {shlex.quote(str(self.held))}",
            )


def _move_away(path: Path) -> str:
    return f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}"

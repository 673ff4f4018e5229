"""Completion of arguments in shells: paths, column names of the first input, and lists of names.

Called by Click, with the words up to the cursor. Errors are ignored, because the shell would print them into the
command line. Imports pyarrow only to read the columns of a file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

VARIABLE = "_BATCHMAX_COMPLETE"
"""Environment variable by which the script of a shell asks the program for completions."""

SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


def script(shell: str) -> str:
    """Return the script that adds completion to a shell, one of :data:`SHELLS`."""
    return SHELLS[shell](click.Group(), {}, "batchmax", VARIABLE).source()


class Path(click.types.StringParamType):
    """A path, which the shell completes."""

    name = "PATH"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Let the shell complete a path."""
        return [CompletionItem(incomplete, type="file")]


class Names(click.types.StringParamType):
    """One or several names.

    Parameters
    ----------
    known
        The names, or the position of the input whose columns they are, among the arguments that aren't options.
    several
        Whether several names are given, separated by commas.
    """

    def __init__(self, known: Iterable[str] | int = 0, *, several: bool = False) -> None:
        self.name = "NAMES" if several else "NAME"
        self._known = known
        self._several = several

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return the names that continue the last one of the incomplete word, without those that come before it."""
        known = self._known
        if isinstance(known, int):
            inputs = _inputs(ctx)
            known = _columns_of(inputs[known]) if known < len(inputs) else []
        before, comma, last = incomplete.rpartition(",") if self._several else ("", "", incomplete)
        taken = set(before.split(","))
        # Shells split or expand other names, and line breaks would end Click's answer to the shell.
        plain = (name for name in known if shlex.quote(name) == name)
        return [CompletionItem(before + comma + name) for name in plain if name.startswith(last) and name not in taken]


PATH = Path()
COLUMN = Names()
COLUMNS = Names(several=True)


def _inputs(ctx: click.Context) -> list[str]:
    """Return the arguments that aren't options; without values if the last option's value is being completed."""
    arguments: list[str] = []
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "") if isinstance(param, click.Argument) else None
        arguments += [value] if isinstance(value, str) else value or []
    return arguments or list(ctx.args)


def _columns_of(path: str) -> list[str]:
    try:
        from batchmax.sources.inspection.column_names import column_names

        return column_names(path)
    except Exception:  # noqa: BLE001  no file, no Parquet file, a damaged installation: nothing to complete
        return []

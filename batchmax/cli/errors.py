"""Map exceptions to messages and exit codes. No other module decides exit codes.

Converts every exception that can leave a command to where, what and remedy. Knows the exceptions of batchmax, Click and
Python; doesn't know commands.

==================  ====================================================================
1                   the data, the disk or the program failed
2                   invalid option, argument or column
4                   a ``--fail-if`` condition is true
130, 143            interrupted (SIGINT), terminated (SIGTERM)
==================  ====================================================================
"""

from __future__ import annotations

import errno
import json

import click
from click.core import ParameterSource

from batchmax.cli.signals import Terminated
from batchmax.errors import BatchmaxError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_WRITING = {"score", "convert"}
_WITHOUT_MEMORY_LIMIT = {"inspect", "verify", "warmup"}

_OS_REMEDIES = {
    errno.ENOENT: "check the path and its parent folder",
    errno.EACCES: "check the permissions: ls -l",
    errno.EPERM: "check the permissions: ls -l",
    errno.EROFS: "choose another location",
    errno.ENOSPC: "free some space (df -h) or choose another location",
    errno.EDQUOT: "free some space (quota -s) or choose another location",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: "check the path",
    errno.EIO: "check the disk, then run the command again",
}


class Failure(BatchmaxError):  # noqa: N818  it isn't raised
    """The message and the exit code of a failure."""

    def __init__(self, exit_code: int, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.exit_code = exit_code

    def json(self) -> str:
        """Return the message as one line of JSON, for ``--json``."""
        return json.dumps({"error": {"where": self.where, "what": self.what, "remedy": self.remedy}})


def explain(error: BaseException, *, command: str = "", reading: str = "") -> Failure:
    """Return the message and the exit code for an exception.

    Parameters
    ----------
    error
        The exception that left the command.
    command
        Name of the subcommand, for the pointer to its help.
    reading
        The command's input, used as the location if the exception names no file.
    """
    help_page = f"try: {f'batchmax {command}'.rstrip()} -h"
    match error:
        case BatchmaxError():
            remedy = error.remedy or (help_page if error.exit_code == EXIT_USAGE else "")
            return Failure(error.exit_code, error.what, error.where, _with_notes(remedy, error))
        case click.ClickException():
            return _explain_click(error, help_page)
        case KeyboardInterrupt() | click.Abort() | Terminated():
            is_term = isinstance(error, Terminated)
            what = "terminated" if is_term else "interrupted"
            what += ", the output is unchanged" if command in _WRITING else ""
            exit_code = EXIT_TERMINATED if is_term else EXIT_INTERRUPTED
            return Failure(exit_code, what, remedy=_with_notes("", error) or "run the command again")
        case MemoryError():
            remedy = "use a machine with more memory"
            if command not in _WITHOUT_MEMORY_LIMIT:
                remedy = "use less memory with --memory-limit, or a machine with more"
            return Failure(EXIT_FAILED, _one_line(f"out of memory: {error}"), reading, remedy)
        case OSError():
            return _explain_os(error, reading)
        case _:
            what = f"unexpected {type(error).__name__}: {error}"
            remedy = "this is a bug in batchmax; for the traceback: add --debug"
            return Failure(EXIT_FAILED, _one_line(what), reading, remedy)


def _with_notes(remedy: str, error: BaseException) -> str:
    """Return a remedy with the exception's notes, which say whether anything is kept."""
    return "; ".join(filter(None, (remedy, *getattr(error, "__notes__", ()))))


def _explain_click(error: click.ClickException, help_page: str) -> Failure:
    context = getattr(error, "ctx", None)
    if context is not None:
        help_page = f"try: {context.command_path} -h"
    what, where = _sentence(error.format_message()), ""
    if isinstance(error, click.MissingParameter) and error.param is not None:
        what = f"{_name(error.param)} is missing"
    elif isinstance(error, click.BadParameter) and error.param is not None:
        what, where = _sentence(error.message), _name(error.param)
        source = context.get_parameter_source(error.param.name or "") if context else None
        if source is ParameterSource.ENVIRONMENT and context is not None:
            where += f" (from {context.auto_envvar_prefix}_{(error.param.name or '').upper()})"
    elif isinstance(error, click.NoSuchOption):
        what = _no_such_option(error)
    return Failure(error.exit_code, what, where, help_page)


def _no_such_option(error: click.NoSuchOption) -> str:
    """Return the message for an unknown option; Click's own text depends on its version."""
    similar = sorted(map(repr, error.possibilities or ()))
    hint = f" (did you mean one of: {', '.join(similar)}?)"
    if len(similar) < 2:
        hint = "".join(f"; did you mean {name}?" for name in similar)
    return f"no such option {error.option_name!r}{hint}"


def _explain_os(error: OSError, reading: str) -> Failure:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = _sentence(error.strerror or str(error) or type(error).__name__)
    number = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else 0)
    remedy = _OS_REMEDIES.get(number, "for the traceback: add --debug")
    return Failure(EXIT_FAILED, what, " -> ".join(names) or reading, remedy)


def _name(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return param.make_metavar(click.Context(click.Command(None))).strip("[].")
    return max(param.opts, key=len)


def _sentence(text: str) -> str:
    """Return Click's message as a clause: on one line, without a capital or a period."""
    text = _one_line(text).removesuffix(".")
    return text[:1].lower() + text[1:]


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(": ")

"""The command ``batchmax``: its subcommands, process setup, and the conversion of exceptions to exit codes.

Each command is a module of :mod:`batchmax.cli.commands` that is imported when the command runs. Commands import numba,
pyarrow and rich only when they need them, so that help is fast. Exceptions that leave a command are printed as one
message with an exit code (:mod:`batchmax.cli.errors`).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module

import click
from click.shell_completion import shell_complete

from batchmax import __version__
from batchmax.cli.command import CONTEXT, READING, ShortHelp, meta_key
from batchmax.cli.completion import VARIABLE
from batchmax.cli.messages import print_message
from batchmax.cli.signals import end_at_once, signals_raise
from batchmax.runtime.lazy_imports import UnusedPackages

COMMANDS = {
    "Score": {
        "score": "Compute probabilities and losses from logits.",
        "inspect": "Show the contents of files, and the command that scores them.",
        "show": "Show how a row is computed, or the rows with the largest losses.",
    },
    "Evaluate": {
        "evaluate": "Compute accuracy, calibration and per-class metrics.",
        "calibrate": "Fit a temperature to calibrate probabilities.",
        "decide": "Choose a threshold, and write it to a file.",
        "compare": "Compare the predictions of two models on the same rows.",
        "report": "Write an HTML report about a model.",
    },
    "Files": {
        "verify": "Verify the checksums and values of a scored file or folder.",
        "convert": "Convert logits to another layout.",
    },
    "Setup": {
        "warmup": "Compile the kernels ahead of time.",
        "completion": "Print a script for shell completion.",
    },
    "Help": {
        "guide": "Show the user guide: one page for each topic.",
    },
}
"""The commands by group, in the order of the help; a command's name is also its module's name."""


INTERRUPTED = {130, 143}
"""Exit codes after SIGINT and SIGTERM."""


class LazyGroup(ShortHelp, click.Group):
    """A Click group that imports a command's module only when the command is requested."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  Click's signature
        """Return the command names in the order of the help."""
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"batchmax.cli.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command with its name and arguments; raise with a suggestion if it doesn't exist."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            from difflib import get_close_matches

            nearest = get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise click.UsageError(f"no command is called {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by group, from :data:`COMMANDS`, without importing them."""
        width = max(map(len, self.list_commands(ctx)))
        for group, names in COMMANDS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{name:<{width}}", short_help) for name, short_help in names.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write examples."""
        with formatter.section("Examples"):
            formatter.write("  batchmax score logits.parquet -o scored.parquet\n")
            formatter.write("  batchmax score -h\n")


@click.group(cls=LazyGroup, context_settings=CONTEXT, invoke_without_command=True)
@click.version_option(
    __version__,
    message="batchmax %(version)s",
    allow_from_autoenv=False,  # BATCHMAX_VERSION is a likely name for something else
    help="Show the version.",
)
@click.pass_context
def group(ctx: click.Context) -> None:
    """Compute softmax and cross-entropy for logits in Parquet files, and evaluate the results."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Parameters
    ----------
    args
        The arguments after ``batchmax``; None uses those of the process.
    """
    if args is not None:
        return _run(list(args), process_ends=False)
    _configure_process()
    exit_code = _run(sys.argv[1:], process_ends=True)
    return end_at_once(exit_code) if exit_code in INTERRUPTED else exit_code


def _run(words: list[str], *, process_ends: bool) -> int:
    """Run a command line; ``process_ends`` says whether the process ends afterwards."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that the terminal can't encode, instead of raising.
        sys.stdout.reconfigure(errors="backslashreplace")
    if completion := os.environ.get(VARIABLE):
        try:
            return shell_complete(group, {}, "batchmax", VARIABLE, completion)
        except KeyboardInterrupt:  # the shell stays at its prompt, without a traceback
            return 130
    context = click.Context(group, info_name="batchmax", auto_envvar_prefix="BATCHMAX", **CONTEXT)
    with signals_raise(process_ends=process_ends) as signals:
        context.meta[meta_key("signals")] = signals
        try:
            with _warnings_on_one_line():
                with context.scope():
                    group.parse_args(context, words.copy())
                    group.invoke(context)
                sys.stdout.flush()
        except click.exceptions.Exit as done:
            return done.exit_code
        except BrokenPipeError:  # the reader of stdout has closed it
            _discard_stdout()
        except BaseException as error:  # noqa: BLE001  every exception becomes a message and an exit code
            signals.are_raised = False
            return _report(error, words, context)
    return 0


def _configure_process() -> None:
    """Configure libraries that are imported later; only for a process that belongs to batchmax."""
    # Waiting OpenMP threads sleep; by default they spin, on cores that read or write meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # NumPy's BLAS starts a thread per core, and no command multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # By default, Arrow's pool returns memory to the system after 10 ms without use; getting it back is slow.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "10000")
    sys.meta_path.insert(0, UnusedPackages())
    # Imports create hundreds of thousands of objects. Garbage collection over them takes a tenth of the import time,
    # or a third of a second at interpreter exit.
    gc.set_threshold(1_000_000)
    atexit.register(gc.freeze)


def _report(error: BaseException, words: list[str], context: click.Context) -> int:
    from batchmax.cli.errors import explain

    def is_given(flag: str) -> bool:  # also checks the arguments, because parsing may fail before options have values
        return f"--{flag}" in words or bool(context.meta.get(meta_key(flag)))

    failure = explain(error, command=context.invoked_subcommand or "", reading=context.meta.get(READING, ""))
    with contextlib.suppress(OSError, ValueError):  # stdout or stderr may be closed; the exit code is returned anyway
        if is_given("debug"):
            traceback.print_exception(error)
        if is_given("json"):
            click.echo(failure.json())
        print_message(str(failure), label="error")
        # Flush now: the interpreter would flush again at exit, and fail.
        sys.stdout.flush()
        return failure.exit_code
    _discard_stdout()
    return failure.exit_code


def _discard_stdout() -> None:
    """Redirect stdout to the null device, so that flushing its buffer at exit doesn't fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Print Python warnings in the format of the command line, on one line each."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print_message(str(message), label="warning")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield

"""Progress of a job on stderr: a bar on a terminal, otherwise one line per minute.

Errors in writing to stderr are ignored, so they can't fail a job. Knows rows, bytes and text, not what they belong to.
"""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Any, Literal, Self

import click

from batchmax.cli.command import meta_key
from batchmax.cli.messages import has_colors, print_message
from batchmax.cli.render.formatting import duration, size
from batchmax.runtime.compilation import listening
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity

COMPILING = "compiling kernels (first run only)"

LINE_EVERY = 60.0
"""Seconds between two lines of progress."""


class TerminalProgress(Progress):
    """Prints progress, notes and warnings of one job; a context manager.

    Parameters
    ----------
    quiet
        Print only warnings.
    verbose
        Print notes and details too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose and not quiet
        self._printed: set[str] = set()
        self._rows = 0
        self._skipped = 0
        self._bytes = 0
        self._total_rows: int | None = None
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._is_compiling = False
        self._listening = listening(self._compiling)

    def __enter__(self) -> Self:
        """Start listening for kernel compilation."""
        self._listening.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar from the terminal."""
        self._listening.__exit__(None, None, None)
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()
            self._bar = None

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:  # noqa: ARG002  only rows are shown
        """Start counting; a total is None if unknown."""
        self._total_rows = total_rows
        self._started = self._last_line = time.monotonic()
        self._show_bar()
        self.advance(0, 0)

    def _show_bar(self) -> None:
        if not self._quiet and self._bar is None and sys.stderr.isatty():
            self._bar, self._task = _make_bar()
            self._bar.start()

    def _compiling(self, is_compiling: bool) -> None:
        """Show whether kernels are being compiled, which can happen before ``start``."""
        self._is_compiling = is_compiling
        with contextlib.suppress(OSError, ValueError):
            self._show_bar()
            if self._bar is not None:
                self._bar.update(self._task, done=self._done())

    def advance(self, rows: int, n_bytes: int) -> None:
        """Add what was done since the last call."""
        self._rows += rows
        self._bytes += n_bytes
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self._rows,
                total=self._total_rows,
                done=self._done(),
                speed=f"{size(self._speed())}/s" if self._bytes else "",
            )
        elif not self._quiet and time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            self._print(self._line())

    def skip(self, rows: int) -> None:
        """Add rows that an earlier run completed, and print how many."""
        self._rows += rows
        self._skipped += rows
        self._print_once(f"resuming after {quantity(rows, 'completed row')}")

    def published(self) -> None:
        """Ignore signals from now on: the output is published, and an interruption would report it as unfinished."""
        context = click.get_current_context(silent=True)
        signals = None if context is None else context.meta.get(meta_key("signals"))
        if signals is not None:
            signals.are_raised = False

    def warn(self, text: str) -> None:
        """Print a warning, once."""
        self._print_once(text, label="warning")

    def note(self, text: str) -> None:
        """Print a note about a choice if verbose; the final summary contains it in any case."""
        if self._verbose:
            self._print_once(text, label="note")

    def assumed(self, text: str) -> None:
        """Print an assumption about the input."""
        self._print_once(text, label="note")

    def detail(self, text: str) -> None:
        """Print a detail of the execution if verbose."""
        if self._verbose:
            self._print_once(text)

    def _print_once(self, text: str, *, label: str = "") -> None:
        if (label == "warning" or not self._quiet) and text not in self._printed:
            self._printed.add(text)
            self._print(text, label=label)

    def _print(self, text: str, *, label: str = "") -> None:
        with contextlib.suppress(OSError, ValueError):
            print_message(text, label=label, console=None if self._bar is None else self._bar.console)

    def _speed(self) -> float:
        return self._bytes / max(time.monotonic() - self._started, 1e-9)

    def _done(self) -> str:
        if self._is_compiling:
            return COMPILING
        total = "" if self._total_rows is None else f" of {self._total_rows:,}"
        return f"{self._rows:,}{total} rows"

    def _line(self) -> str:
        parts = [self._done(), f"{size(self._speed())}/s"]
        done = self._rows - self._skipped
        if self._total_rows and done:
            parts[0] += f" ({self._rows / self._total_rows:.0%})"
            elapsed = time.monotonic() - self._started
            parts.append(f"{duration(elapsed * (self._total_rows - self._rows) / done)} left")
        return ", ".join(parts)


def _make_bar() -> tuple[Any, Any]:
    """Return a rich progress bar and its only task."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    class StderrConsole(Console):
        def on_broken_pipe(self) -> None:
            """Ignore a closed stderr, because the job should continue."""

    system: Literal["auto"] | None = "auto" if has_colors() else None
    bar = Bar(
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[done]}", markup=False),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=StderrConsole(stderr=True, color_system=system, highlight=False, markup=False, emoji=False),
        transient=True,
        expand=True,
    )
    return bar, bar.add_task("", total=None, done="", speed="")

"""Convert SIGINT and SIGTERM to exceptions that unwind the stack, so that unfinished output is cleaned up.

A second signal would interrupt the cleanup while threads still use what it releases. Signals are therefore ignored
while a failure unwinds. If the first exception was swallowed, the next signal raises again. Doesn't know commands.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from batchmax.errors import BatchmaxError


class Terminated(BaseException):
    """SIGTERM as an exception. Like KeyboardInterrupt, it isn't caught by ``except Exception``."""


class Signals:
    """Signal handlers. While ``are_raised`` is False, signals are ignored."""

    def __init__(self) -> None:
        self.are_raised = True

    def handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002  signal's signature
        """Raise KeyboardInterrupt or :class:`Terminated`, unless signals are ignored or a failure is unwinding."""
        # Don't import here: a second signal could find the module partially imported.
        failing = sys.exception()
        while failing is not None:
            if isinstance(failing, BatchmaxError) or _signal_of(failing):
                return
            failing = failing.__context__
        if self.are_raised:
            raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    def resend(self, unraisable: Any) -> None:
        """Resend a signal whose exception was raised where Python can't propagate it, such as in a finalizer."""
        signum = _signal_of(unraisable.exc_value)
        if signum is None:
            sys.__unraisablehook__(unraisable)
        elif self.are_raised:
            threading.Timer(0.01, os.kill, (os.getpid(), signum)).start()


@contextlib.contextmanager
def signals_raise(*, process_ends: bool) -> Iterator[Signals]:
    """Handle SIGINT and SIGTERM within the block, except signals that the parent process set to be ignored.

    ``process_ends`` says that the process ends after the block: signals are then ignored while the interpreter exits.
    """
    signals = Signals()
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, signals.handle) for number in handled}
    except ValueError:  # not the main thread, so signals belong to the caller
        yield signals
        return
    hook, sys.unraisablehook = sys.unraisablehook, signals.resend
    try:
        yield signals
    finally:
        signals.are_raised = False
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if process_ends else handler)


def end_at_once(exit_code: int) -> NoReturn:
    """End the process at once, without waiting for background work such as a kernel that is being compiled."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def _signal_of(error: BaseException | None) -> signal.Signals | None:
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return signal.SIGTERM if isinstance(error, Terminated) else None

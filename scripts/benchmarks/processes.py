"""Measurement of whole processes: wall time, CPU time and peak resident memory of commands, in rounds.

Each round runs every command once, in turn, so that a slow minute of the machine affects all of them. Between runs,
outside the measured time, the last output is deleted, dirty pages are written back, and the input is read into the page
cache, so no command pays for another. This module knows commands and files, not their purpose. It uses only the
standard library, because the memory of a process that starts another one counts into the other one's peak.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 2**23
KIB = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ``ru_maxrss``."""


class Failed(Exception):  # noqa: N818 - a result to report
    """A command failed or timed out; the message says so in one line."""


@dataclass(frozen=True)
class Run:
    """Measurements of one process: wall seconds, CPU seconds (user and system), peak resident bytes."""

    seconds: float
    cpu: float
    peak: int


@dataclass
class Contender:
    """A command, its preparation and check, and its runs so far.

    ``source`` is read into the page cache before each run. ``target`` is deleted before and after. ``prepare`` is
    called before each run. ``inspect`` is called after the first run, while the target exists, and raises `Failed` if
    the result is wrong. Without ``write_back``, dirty pages aren't written back, for runs whose measurements aren't
    used.
    """

    name: str
    command: list[str]
    source: Path | None = None
    target: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    inspect: Callable[[], None] | None = None
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None
    output_bytes: int | None = None
    write_back: bool = True

    def go(self, timeout: float) -> str:
        """Run once, record the measurements or the failure, and return them as a line."""
        if self.prepare:
            self.prepare()
        settle(self.source, self.target, write_back=self.write_back)
        try:
            run = measure(self.command, timeout, self.environment)
            if self.target is not None:
                self.output_bytes = self.target.stat().st_size
            if self.inspect and not self.runs:
                self.inspect()
        except (Failed, OSError) as failure:
            self.failure = str(failure)
            if self.target is not None:  # a killed process may leave its output under a hidden name
                for unfinished in self.target.parent.glob(f".{self.target.name}.*"):
                    remove(unfinished)
            return self.failure
        finally:
            remove(self.target)
        self.runs.append(run)
        return f"{run.seconds:.2f} s, CPU {run.cpu:.2f} s, {run.peak / 1e6:.0f} MB"


def run_rounds(contenders: list[Contender], rounds: int, timeout: float, say: Callable[[str], None]) -> None:
    """Run every contender once a round; skip one after it has failed."""
    for number in range(rounds):
        for contender in contenders:
            if not contender.failure:
                say(f"  round {number + 1}  {contender.name}: {contender.go(timeout)}")


def measure(command: list[str], timeout: float, environment: dict[str, str] | None = None) -> Run:
    """Run ``command`` in its own process group, and return its measurements."""
    with tempfile.TemporaryFile() as messages:
        late: list[bool] = []
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            start_new_session=True,
        )

        def stop() -> None:
            late.append(True)
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)  # otherwise Popen would wait for a process that is gone
        if late:
            raise Failed(f"not done after {timeout:g} s")
        if process.returncode:
            messages.seek(0)
            last = messages.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Failed(f"exit {process.returncode}: {last[:200]}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * KIB)


def settle(source: Path | None, target: Path | None, *, write_back: bool = True) -> None:
    """Delete the target, write back all dirty pages of the machine, and read the source into the page cache."""
    remove(target)
    if write_back:
        os.sync()
    if source is not None:
        warm(source)


def warm(path: Path) -> None:
    """Read a file so that it is in the page cache."""
    buffer = bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def remove(path: Path | None) -> None:
    """Delete a file or a folder, if it exists."""
    if path is None:
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""Runs damaged inputs one after another in a process that may die, and checks the outcome of each."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tests.faults.supervised_process import SupervisedProcess
from tests.support.processes import HANGS

SECONDS = 10
"""Limit of CPU time per case."""
MOST = 900 << 20
"""Limit of resident memory: the commands' memory limit plus the memory of the program."""


class Cases:
    """The cases of a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> Self:
        """Start the process, and run some cases so that everything is compiled and imported."""
        self._process = SupervisedProcess("fuzz_worker.py")
        for number in range(10):
            self._process.ask({"seed": self._seed, "number": number}, seconds=HANGS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process."""
        self._process.stop()

    def run(self, number: int) -> tuple[str, str]:
        """Run a case; return its outcome and, if it failed, what is wrong."""
        answer: dict[str, Any] = self._process.ask({"seed": self._seed, "number": number}, SECONDS)
        if "died" in answer:
            return "", f"{answer['died']}: {answer}"
        if "failed" in answer:
            return "", f"{answer['kind']}: {answer['failed']}"
        if answer["peak"] > MOST:
            return "", f"{answer['kind']}: {answer['end']}: {answer['peak'] >> 20:,} MiB"
        return f"{answer['kind']}: {answer['end'].split(',')[0]}", ""

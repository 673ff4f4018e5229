"""Damaged inputs, tried one after the other in a process that may die, and what may come of each."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tests.faults.watched import Watched
from tests.processes import HANGS

SECONDS = 10
"""CPU time of a case."""
MOST = 900 << 20
"""Resident memory: the limit that the commands are given, and what the program itself takes."""


class Cases:
    """The cases of a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> Self:
        """Start the process, with everything compiled and imported."""
        self._watched = Watched("fuzzed.py")
        for number in range(10):
            self._watched.ask({"seed": self._seed, "number": number}, seconds=HANGS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._watched.stop()

    def run(self, number: int) -> tuple[str, str]:
        """Try a case; return how it ended, and what is wrong with that, if anything is."""
        answer: dict[str, Any] = self._watched.ask({"seed": self._seed, "number": number}, SECONDS)
        if "died" in answer:
            return "", f"{answer['died']}: {answer}"
        if "failed" in answer:
            return "", f"{answer['kind']}: {answer['failed']}"
        if answer["peak"] > MOST:
            return "", f"{answer['kind']}: {answer['end']}: {answer['peak'] >> 20:,} MiB"
        return f"{answer['kind']}: {answer['end'].split(',')[0]}", ""

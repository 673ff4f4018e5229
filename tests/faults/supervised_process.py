"""A worker process that answers lines of JSON, and is restarted if it dies or hangs.

The process itself measures the CPU time of an answer, so the load of other processes doesn't count.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.processes import HANGS

FOLDER = Path(__file__).parent
SECONDS = 10
"""Limit of CPU time per answer."""


class SupervisedProcess:
    """A script of this folder in its own process; ``setup``, if given, is its first line of input."""

    def __init__(self, script: str, setup: dict[str, str] | None = None) -> None:
        self._script, self._setup = script, setup
        self._start()

    def ask(self, question: dict[str, Any], seconds: float = SECONDS) -> dict[str, Any]:
        """Return the answer, with ``died`` if the process died (the exit code), hung, or took too long."""
        self._send(question)
        answer = self._answer()
        if answer.get("cpu", 0) > seconds:
            return answer | {"died": "took too long"}
        return answer

    def stop(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / self._script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if self._setup is not None:
            self._send(self._setup)
            assert self._answer()["code"] == 0

    def _send(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], HANGS)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return dict(json.loads(line))
        self._process.kill()
        _, err = self._process.communicate()
        died = self._process.returncode if ready else "hangs"
        self._start()
        return {"died": died, "err": err[-500:]}

"""Child processes of the tests: how long they may take, and how they are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

HANGS = 900.0
"""Seconds after which a process is taken to hang: far more than any takes on a machine that is busy."""


def wait_until(happens: Callable[[], bool], pause: float = 0.005) -> None:
    """Wait until a condition is true; fail if it is still false when a process would be taken to hang."""
    until = time.monotonic() + HANGS
    while not happens():
        assert time.monotonic() < until, "nothing happened for too long"
        time.sleep(pause)

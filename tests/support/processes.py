"""Timeouts and waiting, for tests with child processes."""

from __future__ import annotations

import time
from collections.abc import Callable

HANGS = 900.0
"""Timeout in seconds. It is far longer than any process takes, even on a busy machine."""


def wait_until(happens: Callable[[], bool], pause: float = 0.005) -> None:
    """Wait until a condition is true; fail after ``HANGS`` seconds."""
    until = time.monotonic() + HANGS
    while not happens():
        assert time.monotonic() < until, "nothing happened for too long"
        time.sleep(pause)

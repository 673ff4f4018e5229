"""Who is told when kernels are compiled, which takes seconds and happens on the first run only.

Knows neither Numba nor kernels, so that it can be imported at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[bool], None]

_lock = threading.Lock()
_listeners: list[Listener] = []
_running = 0


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a function called with True when a compilation begins, and with False when none runs any more."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


@contextmanager
def compiling() -> Iterator[None]:
    """Tell the listeners that a compilation runs."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _running
    with _lock:
        was, _running = _running > 0, _running + change
        told = list(_listeners) if was != (_running > 0) else []
    for listener in told:
        listener(change > 0)


def _reset() -> None:
    """Start anew in a forked process, in which no compilation runs, and in which the lock may be left locked."""
    global _lock, _running
    _lock, _running = threading.Lock(), 0
    _listeners.clear()


os.register_at_fork(after_in_child=_reset)

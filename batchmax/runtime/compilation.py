"""Callbacks for the compilation of kernels, which takes seconds and happens on the first run only.

Imports neither Numba nor kernels, so that importing it is fast.
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
    """Call a function with True when a compilation starts, and with False when no compilation is running anymore."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


@contextmanager
def compiling() -> Iterator[None]:
    """Notify the listeners that a compilation is running."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _running
    with _lock:
        was, _running = _running > 0, _running + change
        notified = list(_listeners) if was != (_running > 0) else []
    for listener in notified:
        listener(change > 0)


def _reset() -> None:
    """Reset the state in a forked process: no compilation is running there, and the copied lock may be locked."""
    global _lock, _running
    _lock, _running = threading.Lock(), 0
    _listeners.clear()


os.register_at_fork(after_in_child=_reset)

"""Reads runs of items in several threads, and yields the items in the order that one thread would read them.

Doesn't know what the items are, nor how many of them fit into memory.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

ITEMS_AHEAD = 2
"""Items of a reader in memory: one that waits for its turn, and one that is being read or waits as well."""

T = TypeVar("T")
R = TypeVar("R")

Runs = Generator[Generator[T, None, R], None, None]
"""Runs of items, each with a result."""


@dataclass(frozen=True)
class RunEnd(Generic[R]):
    """The end of a run of items, with the run's result."""

    result: R


def in_order(readers: Sequence[Runs[T, R]]) -> Generator[T | RunEnd[R], None, None]:
    """Yield the items of the first run of each reader, then those of the second of each, and so on.

    Each reader is a generator that a thread of its own runs. Earlier readers have at most one run more than later ones.
    An error is raised after the items before it, so it is the error that one thread would find first. After an error,
    and if this generator is closed, all readers are closed and their threads have ended.
    """
    threads = [_ReadingThread(reader, f"read-ahead_{number}") for number, reader in enumerate(readers)]
    try:
        for thread in threads:
            thread.start()
        while True:
            for thread in threads:
                item = thread.take()
                while not isinstance(item, RunEnd):
                    if item is _ALL_READ:
                        for other in threads:
                            if other is not thread:
                                other.take()  # raises the error of closing the last file
                        return
                    yield item
                    item = thread.take()
                yield item
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join()


@dataclass(frozen=True)
class _Failure:
    error: BaseException


_ALL_READ: Any = object()
"""What a thread passes on after its last run."""


class _ReadingThread(Generic[T, R]):
    """Reads the runs of one reader as far ahead as there is room for its items.

    The thread is a daemon: a generator that the program never closes doesn't keep the process from ending.
    """

    def __init__(self, runs: Runs[T, R], name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._runs = runs
        self._items: SimpleQueue[Any] = SimpleQueue()
        self._room = threading.Semaphore(ITEMS_AHEAD)
        self._is_stopped = False

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def _run(self) -> None:
        """Read until the end, an error or :meth:`stop`."""
        try:
            with contextlib.closing(self._runs) as runs:
                for run in runs:
                    with contextlib.closing(run):
                        if not self._read(run):
                            return
        except BaseException as error:  # noqa: BLE001 - raised in the thread that takes the items
            self._items.put(_Failure(error))
        else:
            self._items.put(_ALL_READ)

    def take(self) -> Any:
        """Wait for the next item, end of a run or end of all, and return it; raise the error of reading it."""
        item = self._items.get()
        if isinstance(item, _Failure):
            raise item.error
        if not isinstance(item, RunEnd):
            self._room.release()
        return item

    def stop(self) -> None:
        """Have the thread end when it has read its current item."""
        self._is_stopped = True
        self._room.release()

    def join(self) -> None:
        """Wait until the thread has ended, if it was started."""
        if self._thread.ident is not None:
            self._thread.join()

    def _read(self, run: Generator[T, None, R]) -> bool:
        """Read a run; return False if stopped."""
        while True:
            self._room.acquire()
            if self._is_stopped:
                return False
            try:
                self._items.put(next(run))
            except StopIteration as end:
                self._items.put(RunEnd(end.value))
                self._room.release()
                return True

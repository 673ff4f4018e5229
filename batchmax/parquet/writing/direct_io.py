"""Bytes to the end of a file, past the page cache where the system allows it.

A file that is written through the page cache is copied there page by page, by the core that writes, and that takes
longer than computing what is in it. Since an output has to be on the disk before it is published, the cache would not
save the wait either. So bytes are gathered in a few blocks of memory, used in turn, from which the disk takes them
itself (``O_DIRECT``).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.storage import system_calls

STAGE_BYTES = 4 << 20
"""Bytes that are written at once: a multiple of every block size."""

STAGES = 6
"""Enough that the disk goes on while the next row group is encoded."""

SYNC_BYTES = 1 << 30
"""Bytes after which the file is made durable: so much is lost at most when the machine goes down."""


class Appender:
    """The end of a file: bytes are taken while those before them are written.

    Parameters
    ----------
    descriptor
        Of a file, open for reading and writing. Whoever opened it closes it, after :meth:`close`.
    size
        The bytes of the file that stay; what follows them is written over.

    Attributes
    ----------
    size
        How many bytes the file has, those included that wait to be written.
    written
        How many bytes the system has got.
    synced
        How many bytes are durable.

    Raises
    ------
    OSError
        From :meth:`write` and :meth:`finish`: the file cannot be written.
    """

    def __init__(self, descriptor: int, size: int = 0) -> None:
        self.size = self.written = size
        self.synced = 0
        self._descriptor = descriptor
        # Memory of whole pages, as the disk wants it, and shared, so that a fork in the middle copies nothing.
        self._stages = deque(np.frombuffer(mmap.mmap(-1, STAGE_BYTES), np.uint8) for _ in range(STAGES))
        self._writing: deque[Future[None]] = deque()
        self._filled = size % STAGE_BYTES
        self._at = os.lseek(descriptor, size - self._filled, os.SEEK_SET)
        begun = self._stages[0][: self._filled].data
        if self._filled and system_calls.read_into(descriptor, [begun], self._at) != self._filled:
            raise OSError(errno.EIO, "the file is shorter than it was")
        self._direct = system_calls.set_direct(descriptor, direct=True)
        self._writer = ThreadPoolExecutor(1, "append")

    def write(self, pieces: Iterable[Any]) -> None:
        """Append pieces of bytes."""
        for piece in pieces:
            rest = np.frombuffer(memoryview(piece).cast("B"), np.uint8)
            self.size += len(rest)
            while len(rest):
                count = min(len(rest), STAGE_BYTES - self._filled)
                self._stages[0][self._filled : self._filled + count] = rest[:count]
                self._filled += count
                rest = rest[count:]
                if self._filled == STAGE_BYTES:
                    self._writing.append(self._writer.submit(self._flush, self._stages[0]))
                    self._stages.rotate(-1)
                    self._filled = 0
                    self._wait(STAGES - 1)

    def push(self) -> None:
        """Write what waits, at the price of writing it again with what follows it."""
        self._wait(0)
        self._buffered()
        waiting = self._stages[0][: self._filled]
        done = 0
        while done < len(waiting):
            done += os.pwrite(self._descriptor, waiting[done:].data, self._at + done)
        self.written = self.size

    def finish(self) -> None:
        """Write what is left, which need not fill a block; nothing follows it."""
        self._wait(0)
        self._buffered()
        self._flush(self._stages[0][: self._filled])
        self._filled = 0
        os.ftruncate(self._descriptor, self.size)

    def sync(self) -> None:
        """Make durable what is written."""
        written = self.written
        system_calls.sync_data(self._descriptor)
        self.synced = written

    def close(self) -> None:
        """Wait for what is being written, whether it can be or not."""
        self._writer.shutdown()

    def _wait(self, most: int) -> None:
        """Wait until no more than so many blocks are still to be written."""
        while len(self._writing) > most:
            self._writing.popleft().result()

    def _flush(self, block: NDArray[np.uint8]) -> None:
        done = 0
        while done < len(block):
            try:
                done += os.write(self._descriptor, block[done:].data)
            except OSError:
                if not self._direct:
                    raise
                self._buffered()
            # What is left of a block that was not taken as a whole cannot be written past the cache.
            if done < len(block):
                self._buffered()
        self._at += done
        self.written = self._at
        if self.written - self.synced >= SYNC_BYTES:
            self.sync()

    def _buffered(self) -> None:
        if self._direct:
            system_calls.set_direct(self._descriptor, direct=False)
            self._direct = False

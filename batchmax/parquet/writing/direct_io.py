"""Appends bytes to a file; large durable files are written with direct I/O (``O_DIRECT``) where that is supported.

Writing through the page cache copies the file page by page on the writing core, which takes longer than computing the
file's content. A durable file must be on the disk before it is published, so the cache doesn't save that wait either.
Bytes are therefore collected in a few blocks of memory, used in turn, from which the disk reads them directly. Small
files gain nothing by that: they are written through the page cache and synced at the end.
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

BLOCK_BYTES = 4 << 20
"""Bytes per write: a multiple of every block size."""

BLOCKS = 6
"""Enough to keep the disk busy while the next row group is encoded."""

CACHED_BYTES = 1 << 18
"""Bytes per write through the page cache.

The size of a write determines how the system allocates the cache's pages. Writes of 1 MiB and more get large blocks,
which a virtual machine may have to fetch from its host first. A job that wrote 600 MB took 1.0 to 1.4 seconds of system
time with writes of 1 MiB, and 0.2 to 0.6 with these (Linux 6.18, free page reporting). Larger files use up the small
blocks, and then the size matters less.
"""

DIRECT_BYTES = 16 << 20
"""Size from which a durable file is written with direct I/O: below it, that is no faster (measured on ext4)."""

SYNC_BYTES = 1 << 30
"""Bytes after which a durable file is synced: at most that many are lost if the machine crashes."""


class DirectWriter:
    """Appends to a file; bytes are accepted while previous ones are written.

    Parameters
    ----------
    descriptor
        A file descriptor, open for reading and writing. The caller closes it, after :meth:`close`.
    size
        The bytes of the file to keep; later ones are overwritten.
    durable
        Whether the file is synced while it grows. If not, everything is written through the page cache.

    Attributes
    ----------
    size
        The size of the file, including bytes that aren't written yet.
    written
        The number of bytes handed to the operating system.
    synced
        The number of bytes that are durable.

    Raises
    ------
    OSError
        If the file can't be written; from every method except :meth:`close`, and again from each later call: what
        follows a failed write would be in the wrong place.
    """

    def __init__(self, descriptor: int, size: int = 0, *, durable: bool = True) -> None:
        self.size = self.written = size
        self.synced = 0
        self._descriptor = descriptor
        self._durable = durable
        self._block_bytes = BLOCK_BYTES if durable else CACHED_BYTES
        # Page-aligned memory, as direct I/O requires. With huge pages, the system pins a block in two steps, not 1024.
        memory = mmap.mmap(-1, BLOCKS * self._block_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._blocks = deque(np.frombuffer(memory, np.uint8).reshape(BLOCKS, self._block_bytes))
        self._writing: deque[Future[None]] = deque()
        self._filled = size % self._block_bytes
        self._at = os.lseek(descriptor, size - self._filled, os.SEEK_SET)
        kept = self._blocks[0][: self._filled].data
        if self._filled and system_calls.read_into(descriptor, [kept], self._at) != self._filled:
            raise OSError(errno.EIO, "the file was truncated")
        self._direct = False
        self._may_be_direct = durable
        self._writer = ThreadPoolExecutor(1, "append")
        self._error: OSError | None = None

    def write(self, pieces: Iterable[Any]) -> None:
        """Append pieces of bytes."""
        for piece in pieces:
            rest = np.frombuffer(memoryview(piece).cast("B"), np.uint8)
            self.size += len(rest)
            while len(rest):
                count = min(len(rest), self._block_bytes - self._filled)
                self._blocks[0][self._filled : self._filled + count] = rest[:count]
                self._filled += count
                rest = rest[count:]
                if self._filled == self._block_bytes:
                    self._writing.append(self._writer.submit(self._flush, self._blocks[0]))
                    self._blocks.rotate(-1)
                    self._filled = 0
                    self._wait(BLOCKS - 1)

    def flush(self) -> None:
        """Write the incomplete block through the page cache; it is written again with the bytes that follow it."""
        self._wait(0)
        self._buffered()
        waiting = self._blocks[0][: self._filled]
        done = 0
        while done < len(waiting):
            done += os.pwrite(self._descriptor, waiting[done:].data, self._at + done)
        self.written = self.size

    def write_rest(self) -> None:
        """Write the rest, which need not fill a block, and truncate the file to its size. Nothing may follow."""
        self._wait(0)
        self._buffered()
        self._flush(self._blocks[0][: self._filled])
        self._filled = 0
        os.ftruncate(self._descriptor, self.size)

    def sync(self) -> None:
        """Make the written bytes durable."""
        written = self.written
        system_calls.sync_data(self._descriptor)
        self.synced = written

    def close(self) -> None:
        """Wait for pending writes, whether they succeed or not."""
        self._writer.shutdown()

    def _wait(self, most: int) -> None:
        """Wait until at most ``most`` blocks are still to be written."""
        while len(self._writing) > most:
            self._writing.popleft().result()
        if self._error is not None:
            raise self._error

    def _flush(self, block: NDArray[np.uint8]) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._write_block(block)
        except OSError as error:
            self._error = error
            raise

    def _write_block(self, block: NDArray[np.uint8]) -> None:
        done = 0
        if self._may_be_direct and not self._direct and self._at >= DIRECT_BYTES:
            self._direct = self._may_be_direct = system_calls.set_direct(self._descriptor, direct=True)
        while done < len(block):
            try:
                piece = block[done:] if self._direct else block[done : done + CACHED_BYTES]
                done += os.write(self._descriptor, piece.data)
            except OSError:
                if not self._direct:
                    raise
                self._buffered()
            # After a partial write, the rest of the block isn't aligned for direct I/O.
            if self._direct and done < len(block):
                self._buffered()
        self._at += done
        self.written = self._at
        if self._durable and self.written - self.synced >= SYNC_BYTES:
            self.sync()

    def _buffered(self) -> None:
        self._may_be_direct = False
        if self._direct:
            system_calls.set_direct(self._descriptor, direct=False)
            self._direct = False

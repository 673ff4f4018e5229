"""Reads an object of a store through a sparse local file: byte ranges are fetched to their own offsets.

The code that reads local files also reads objects this way. The next row groups are fetched ahead, by several requests
in parallel, and the disk space of those that were read is freed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise

from batchmax.storage.object_store import Store, tried, whole
from batchmax.storage.system_calls import punch_hole

GAP = 1 << 20
"""Ranges with at most this many bytes between them are fetched by one request."""

REQUEST = 8 << 20
"""Maximum number of bytes of a request."""

REQUESTS = 8
"""Requests in parallel."""

AHEAD = 64 << 20
"""Bytes that are fetched before they are needed."""

Range = tuple[int, int]


class Spool:
    """The sparse local file; a context manager that closes it.

    Parameters
    ----------
    store
        The object.
    size
        The size of the object in bytes.

    Attributes
    ----------
    path
        The path of the local file, until :meth:`unlink`.
    descriptor
        The descriptor of the local file.
    """

    def __init__(self, store: Store, size: int) -> None:
        self._store = store
        self._stream = tried(lambda: store.system.open_input_file(store.path), store.uri)
        self._pool = ThreadPoolExecutor(REQUESTS, "fetch")
        self._coming: dict[int, list[Future[None]]] = {}
        self._ranges: dict[int, list[Range]] = {}
        self.descriptor, self.path = tempfile.mkstemp(prefix="batchmax-")
        os.ftruncate(self.descriptor, size)

    def unlink(self) -> None:
        """Remove the file's name, so that its disk space is freed when the process ends, even if it is killed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108

    def put(self, start: int, data: bytes) -> None:
        """Write bytes that are already known to their offset."""
        os.pwrite(self.descriptor, data, start)

    def need(self, number: int, ranges: Iterable[Range]) -> None:
        """Wait until the ranges of a row group are fetched."""
        self.begin(number, ranges)
        for future in self._coming.pop(number):
            future.result()

    def begin(self, number: int, ranges: Iterable[Range]) -> None:
        """Start to fetch the ranges of a row group, unless that was started before."""
        if number in self._coming or number in self._ranges:
            self._coming.setdefault(number, [])
            return
        together = list(coalesced(ranges))
        self._ranges[number] = together
        pieces = [(at, min(REQUEST, end - at)) for start, end in together for at in range(start, end, REQUEST)]
        self._coming[number] = [self._pool.submit(self._fetch, at, size) for at, size in pieces]

    @property
    def ahead(self) -> int:
        """The number of bytes that are being fetched, or were fetched before they were needed."""
        return sum(end - start for number in self._coming for start, end in self._ranges[number])

    def free(self, before: int) -> None:
        """Free the disk space of row groups before this one."""
        for number in [number for number in self._ranges if number < before and number not in self._coming]:
            for start, end in self._ranges.pop(number):
                punch_hole(self.descriptor, start, end - start)

    def close(self) -> None:
        """Close the file and the object."""
        for futures in self._coming.values():
            for future in futures:
                future.cancel()
        wait([future for futures in self._coming.values() for future in futures])
        self._pool.shutdown()
        self.unlink()
        os.close(self.descriptor)
        with contextlib.suppress(OSError):
            self._stream.close()

    def _fetch(self, start: int, size: int) -> None:
        self.put(start, tried(lambda: whole(self._stream, start, size), self._store.uri))


def coalesced(ranges: Iterable[Range]) -> Iterator[Range]:
    """Yield the ranges in order, with those that are close to each other joined."""
    ordered = sorted(ranges)
    if not ordered:
        return
    start, end = ordered[0]
    for (_, _), (following, its_end) in pairwise(ordered):
        if following > end + GAP:
            yield start, end
            start = following
        end = max(end, its_end)
    yield start, end

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

from batchmax.storage.object_store import Store, read_exactly, with_retries
from batchmax.storage.system_calls import punch_hole

MAX_GAP = 1 << 20
"""Ranges with at most this many bytes between them are fetched by one request."""

REQUEST_BYTES = 8 << 20
"""Maximum number of bytes of a request."""

MAX_REQUESTS = 8
"""Requests in parallel."""

PREFETCH_BYTES = 64 << 20
"""Bytes that are fetched before they are needed."""

Range = tuple[int, int]


class RangeCache:
    """A sparse local file that has the byte ranges of an object that were fetched.

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
        self._stream = with_retries(lambda: store.system.open_input_file(store.path), store.uri)
        self._pool = ThreadPoolExecutor(MAX_REQUESTS, "fetch")
        self._fetching: dict[int, list[Future[None]]] = {}
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

    def wait_for(self, number: int, ranges: Iterable[Range]) -> None:
        """Wait until the ranges of a row group are fetched."""
        self.prefetch(number, ranges)
        for future in self._fetching.pop(number):
            future.result()

    def prefetch(self, number: int, ranges: Iterable[Range]) -> None:
        """Start to fetch the ranges of a row group, unless that was started before."""
        if number in self._fetching or number in self._ranges:
            self._fetching.setdefault(number, [])
            return
        together = list(coalesced(ranges))
        self._ranges[number] = together
        pieces = [
            (at, min(REQUEST_BYTES, end - at)) for start, end in together for at in range(start, end, REQUEST_BYTES)
        ]
        self._fetching[number] = [self._pool.submit(self._fetch, at, size) for at, size in pieces]

    @property
    def prefetched_bytes(self) -> int:
        """The number of bytes that are being fetched, or were fetched before they were needed."""
        return sum(end - start for number in self._fetching for start, end in self._ranges[number])

    def free_before(self, number: int) -> None:
        """Free the disk space of the row groups before this one."""
        for one in [one for one in self._ranges if one < number and one not in self._fetching]:
            for start, end in self._ranges.pop(one):
                punch_hole(self.descriptor, start, end - start)

    def close(self) -> None:
        """Close the file and the object."""
        for futures in self._fetching.values():
            for future in futures:
                future.cancel()
        wait([future for futures in self._fetching.values() for future in futures])
        self._pool.shutdown()
        self.unlink()
        os.close(self.descriptor)
        with contextlib.suppress(OSError):
            self._stream.close()

    def _fetch(self, start: int, size: int) -> None:
        self.put(start, with_retries(lambda: read_exactly(self._stream, start, size), self._store.uri))


def coalesced(ranges: Iterable[Range]) -> Iterator[Range]:
    """Yield the ranges in order, with those that are close to each other joined."""
    ordered = sorted(ranges)
    if not ordered:
        return
    start, end = ordered[0]
    for next_start, next_end in ordered[1:]:
        if next_start > end + MAX_GAP:
            yield start, end
            start = next_start
        end = max(end, next_end)
    yield start, end

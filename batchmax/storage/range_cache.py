"""A file of a store as a local one: the byte ranges that are read are fetched into a sparse file, at their own places.

Whoever reads it needs no other way of reading than that of local files. Row groups that come next are fetched ahead,
in several requests at once, and the room of those that were read is given back.
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
"""Bytes between two ranges that are fetched with them rather than by a request of its own."""

REQUEST = 8 << 20
"""Bytes of one request."""

REQUESTS = 8
"""Requests at once."""

AHEAD = 64 << 20
"""Bytes that are fetched before anybody waits for them."""

Range = tuple[int, int]


class Spool:
    """The sparse local file; a context manager that lets it go.

    Parameters
    ----------
    store
        Of the object.
    size
        Its bytes.

    Attributes
    ----------
    path
        Of the local file, which has it only until :meth:`unlink`.
    descriptor
        Of the local file.
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
        """Take the file's name away: it goes when it is closed, also by who was killed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108

    def put(self, start: int, data: bytes) -> None:
        """Put bytes at their place that are known already."""
        os.pwrite(self.descriptor, data, start)

    def need(self, number: int, ranges: Iterable[Range]) -> None:
        """Wait until the ranges of a row group are there."""
        self.begin(number, ranges)
        for future in self._coming.pop(number):
            future.result()

    def begin(self, number: int, ranges: Iterable[Range]) -> None:
        """Begin to fetch the ranges of a row group, unless that was begun."""
        if number in self._coming or number in self._ranges:
            self._coming.setdefault(number, [])
            return
        together = list(coalesced(ranges))
        self._ranges[number] = together
        pieces = [(at, min(REQUEST, end - at)) for start, end in together for at in range(start, end, REQUEST)]
        self._coming[number] = [self._pool.submit(self._fetch, at, size) for at, size in pieces]

    @property
    def ahead(self) -> int:
        """How many bytes are on their way, or there before anybody waited for them."""
        return sum(end - start for number in self._coming for start, end in self._ranges[number])

    def free(self, before: int) -> None:
        """Give back the room of row groups before this one."""
        for number in [number for number in self._ranges if number < before and number not in self._coming]:
            for start, end in self._ranges.pop(number):
                punch_hole(self.descriptor, start, end - start)

    def close(self) -> None:
        """Let go of the file and of the object."""
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
    """Yield ranges in their order, those that are near each other as one."""
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

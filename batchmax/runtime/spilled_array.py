"""Arrays that grow in memory, and move to a temporary file once the memory that they may share is used up."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from batchmax.errors import OutputError

FIRST_BYTES = 1 << 20
FILE_STEP = 64 << 20
"""Bytes by which a file grows."""


class SharedMemory:
    """Bytes that several arrays may use together.

    Attributes
    ----------
    left
        The bytes that are not in use.
    """

    def __init__(self, size: int) -> None:
        self.left = size


class SpilledArray:
    """An array of one axis that grows at its end.

    In a file it is mapped into memory, so that the system writes and reads its pages as needed. The file has no name,
    and its space is reserved before it is used: a full disk is an error, never a signal.

    Parameters
    ----------
    dtype
        The type of the elements.
    memory
        The memory that this array shares with others.
    """

    def __init__(self, dtype: DTypeLike, memory: SharedMemory) -> None:
        self._dtype = np.dtype(dtype)
        self._memory = memory
        self._size = self._taken = 0
        self._descriptor: int | None = None
        self._closer: weakref.finalize[[int], SpilledArray] | None = None
        self._map = _anonymous(FIRST_BYTES)
        self._whole: NDArray[Any] = np.frombuffer(self._map, self._dtype)

    def __len__(self) -> int:
        return self._size

    @property
    def is_spilled(self) -> bool:
        """Whether the array is in a file."""
        return self._descriptor is not None

    def room(self, count: int) -> NDArray[Any]:
        """Return memory for more elements at the end; :meth:`advance` says how many were filled.

        It must no longer be used at the next call of a method.

        Raises
        ------
        OutputError
            There is no space for the temporary file.
        """
        needed = (self._size + count) * self._dtype.itemsize
        if needed > len(self._map):
            self._grow(needed)
        return self._whole[self._size : self._size + count]

    def advance(self, count: int) -> None:
        """Add the first ``count`` elements of :meth:`room` to the array.

        Raises
        ------
        OutputError
            There is no space for the temporary file.
        """
        self._size += count
        if self._descriptor is not None:
            return
        more = self._size * self._dtype.itemsize - self._taken
        if more <= self._memory.left:
            self._taken += more
            self._memory.left -= more
        else:
            self._spill()

    def append(self, values: NDArray[Any]) -> None:
        """Add elements at the end.

        Raises
        ------
        OutputError
            There is no space for the temporary file.
        """
        self.room(len(values))[:] = values
        self.advance(len(values))

    def values(self) -> NDArray[Any]:
        """Return the elements; the array must not grow as long as the result is used."""
        return self._whole[: self._size]

    def close(self) -> None:
        """Free the memory or the file."""
        self._memory.left += self._taken
        self._size = self._taken = 0
        self._whole = np.empty(0, self._dtype)
        # The memory is unmapped once no view of it is left.
        self._map = _anonymous(mmap.PAGESIZE)
        if self._closer is not None:
            self._closer()
            self._closer = self._descriptor = None

    def _grow(self, needed: int) -> None:
        if self._descriptor is not None:
            self._replace(self._mapped(needed + FILE_STEP))
            return
        # Pages that were never written take no memory.
        size = max(needed, 2 * len(self._map))
        self._whole = np.empty(0, self._dtype)
        try:
            self._map.resize(size)
        except (BufferError, OSError, SystemError, ValueError):
            whole = np.frombuffer(self._map, np.uint8)
            self._replace(_anonymous(size), whole)
        self._whole = np.frombuffer(self._map, self._dtype, len(self._map) // self._dtype.itemsize)

    def _spill(self) -> None:
        """Move to a file."""
        used = np.frombuffer(self._map, np.uint8)[: self._size * self._dtype.itemsize]
        self._descriptor = _unlinked_file()
        self._closer = weakref.finalize(self, os.close, self._descriptor)
        self._replace(self._mapped(len(used) + FILE_STEP), used)
        self._memory.left += self._taken
        self._taken = 0

    def _replace(self, memory: mmap.mmap, content: NDArray[Any] | None = None) -> None:
        if content is not None:
            np.frombuffer(memory, np.uint8)[: len(content)] = content
        self._map = memory
        self._whole = np.frombuffer(memory, self._dtype, len(memory) // self._dtype.itemsize)

    def _mapped(self, size: int) -> mmap.mmap:
        """Return the file, grown to a size, as memory."""
        assert self._descriptor is not None  # noqa: S101 - only called for files
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, 0, size)
            else:
                os.ftruncate(self._descriptor, size)
            return mmap.mmap(self._descriptor, size)
        except OSError as error:
            raise _no_space(error) from error


def _anonymous(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _unlinked_file() -> int:
    try:
        descriptor, path = tempfile.mkstemp(prefix="batchmax-")
        Path(path).unlink()
    except OSError as error:
        raise _no_space(error) from error
    return descriptor


def _no_space(error: OSError) -> OutputError:
    return OutputError(
        f"the temporary file for curves cannot be written: {error.strerror}",
        where=tempfile.gettempdir(),
        remedy="set TMPDIR to a folder with more space, raise --memory-limit, or use --curves binned",
    )

"""Reusable buffers for the results of a batch.

The first use of memory is slow: on a large array, its page faults take several times as long as the arithmetic. So a
job allocates a few :class:`Buffers` and passes them around between the stages of the pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

MIB = 1 << 20
PROGRAM_BYTES = 250 * MIB
"""Memory of the process without data: the interpreter, Numba, Arrow and the compiled kernels."""

Take: TypeAlias = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]
"""Returns an uninitialized array of a shape and type: ``numpy.empty``, or a function that reuses buffers."""


class Buffers:
    """Memory for the results of one batch, allocated in order and reused after :meth:`reset`."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []
        self._next = 0

    def reset(self) -> None:
        """Make all memory available again: arrays that were returned before may be overwritten."""
        self._next = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialized C-contiguous array."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if self._next == len(self._blocks):
            self._blocks.append(np.empty(size, np.uint8))
        elif len(self._blocks[self._next]) < size:
            self._blocks[self._next] = np.empty(size, np.uint8)
        block = self._blocks[self._next]
        self._next += 1
        return block[:size].view(kind).reshape(shape)

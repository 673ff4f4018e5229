"""Buffers that are used again, and how much of the machine there is to use.

Fresh memory is slow: on a large array the page faults of its first use cost several times the arithmetic. A job
therefore works in a few :class:`Buffers` that go round between the stages of the pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

MIB = 1 << 20
PROGRAM_BYTES = 250 * MIB
"""Memory of the program itself: the interpreter, Numba, Arrow and the compiled kernels."""

Take: TypeAlias = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]
"""Gives uninitialised memory of a shape and type: ``numpy.empty``, or something that hands out buffers again."""


class Buffers:
    """Memory for the results of one batch, handed out in order and handed out again after :meth:`reset`."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []
        self._next = 0

    def reset(self) -> None:
        """Take everything back: the arrays handed out so far may be overwritten from now on."""
        self._next = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised C-contiguous array."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if self._next == len(self._blocks):
            self._blocks.append(np.empty(size, np.uint8))
        elif len(self._blocks[self._next]) < size:
            self._blocks[self._next] = np.empty(size, np.uint8)
        block = self._blocks[self._next]
        self._next += 1
        return block[:size].view(kind).reshape(shape)

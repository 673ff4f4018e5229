"""Tiles: a few rows of logits with few classes, transposed, so that loops over rows fill vector registers.

A loop over the 10 classes of a row takes as long for its start and its end as for the classes. Kernels process such
rows 64 at a time: ``for j in range(k)``, ``for r in range(rows)``, where LLVM vectorizes the inner loop.
"""

from numba import types
from numba.extending import overload

from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import WIDTH, address, load_columns, store

FEW_CLASSES = 48
"""Rows with up to this many classes are processed in tiles, except by the softmax kernels, which have their own."""

LANES = 64
"""Rows of a tile."""

QUAD = 4
"""Columns that are loaded together."""


def fill_tile(z, first, rows, tile):
    """Copy rows of a matrix to the columns of ``tile``, (K, 64) of the same type."""


@overload(fill_tile, inline="never")
def _fill_tile(z, first, rows, tile):
    if z.dtype == types.float32:
        return lambda z, first, rows, tile: _transpose(z, first, rows, tile)
    return lambda z, first, rows, tile: _copy(z, first, 0, rows, tile)


@compiled
def _copy(z, first, start, rows, tile):
    for r in range(start, rows):
        for j in range(z.shape[1]):
            tile[j, r] = z[first + r, j]


@compiled
def _transpose(z, first, rows, tile):
    # 16 rows and four columns at a time; one number after the other takes as long as the exponentials.
    k = z.shape[1]
    done = 0 if k < QUAD else rows // WIDTH * WIDTH
    for start in range(0, done, WIDTH):
        source = address(z, first + start)
        for at in range(0, k, QUAD):
            j = min(at, k - QUAD)
            a, b, c, d = load_columns(source, k, j)
            store(address(tile, j), start, a)
            store(address(tile, j + 1), start, b)
            store(address(tile, j + 2), start, c)
            store(address(tile, j + 3), start, d)
    _copy(z, first, done, rows, tile)

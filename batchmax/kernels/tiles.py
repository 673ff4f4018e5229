"""Tiles: a few rows of logits with few classes, transposed, so that loops over rows fill vector registers.

A loop over the 10 classes of a row takes as long for its start and its end as for the classes. Kernels process such
rows 64 at a time: ``for j in range(k)``, ``for r in range(rows)``, where LLVM vectorizes the inner loop.
"""

from batchmax.kernels.compiler.intrinsics import compiled

FEW_CLASSES = 48
"""Rows with up to this many classes are processed in tiles, except by the softmax kernels, which have their own."""

LANES = 64
"""Rows of a tile."""


@compiled
def fill_tile(z, first, rows, tile):
    """Copy rows of a matrix to the columns of ``tile``, (K, 64) of the same type."""
    for r in range(rows):
        for j in range(z.shape[1]):
            tile[j, r] = z[first + r, j]

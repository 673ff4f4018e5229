"""The kernels: arrays in, arrays out, rows in parallel. They know neither Arrow nor files.

Importing this package imports Numba; nothing is compiled until a kernel is called.
"""

from __future__ import annotations

from typing import Any

from batchmax.kernels import dense, moments, order, sums
from batchmax.kernels import softmax as _softmax
from batchmax.kernels.launch import Kernel, limit_threads

__all__ = [
    "dense_cross_entropy",
    "limit_threads",
    "order_rows",
    "row_moments",
    "softmax_rows",
    "sum_counted",
    "top_k_rows",
]

_wide = Kernel(_softmax.softmax_wide)
_tall = Kernel(_softmax.softmax_tall)

order_rows = Kernel(order.order)
top_k_rows = Kernel(order.top_k)
row_moments = Kernel(moments.moments)
dense_cross_entropy = Kernel(dense.dense_cross_entropy)
sum_counted = Kernel(sums.sum_counted, parallel=False)


def softmax_rows(logits: Any, *arguments: Any) -> None:
    """Run the softmax kernel that suits the number of classes; see :func:`batchmax.kernels.softmax.softmax_wide`."""
    (_tall if logits.shape[1] <= _softmax.MOST_TALL_CLASSES else _wide)(logits, *arguments)

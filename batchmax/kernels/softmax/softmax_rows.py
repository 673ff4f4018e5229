"""Chooses the softmax kernel for a matrix of logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchmax.kernels.softmax.softmax_few_float32 import softmax_few_float32
from batchmax.kernels.softmax.softmax_float32 import softmax_float32
from batchmax.kernels.softmax.softmax_float64 import SOFTMAX_FEW_CLASSES, softmax_few_float64, softmax_float64


def fill_softmax(logits: Any, *arguments: Any) -> None:
    """Run the softmax kernel for these logits; see :func:`.softmax_float64.softmax_float64`."""
    few = logits.shape[1] <= SOFTMAX_FEW_CLASSES[logits.dtype.name]
    if logits.dtype == np.float32:
        kernel = softmax_few_float32 if few else softmax_float32
    else:
        kernel = softmax_few_float64 if few else softmax_float64
    kernel(logits, *arguments)

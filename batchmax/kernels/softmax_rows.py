"""Chooses the softmax kernel for a matrix of logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchmax.kernels.softmax import MAX_TALL_CLASSES, softmax_tall, softmax_wide
from batchmax.kernels.softmax_few_classes import softmax_few_classes
from batchmax.kernels.softmax_float32 import softmax_single


def fill_softmax(logits: Any, *arguments: Any) -> None:
    """Run the softmax kernel for these logits; see :func:`batchmax.kernels.softmax.softmax_wide`."""
    few = logits.shape[1] <= MAX_TALL_CLASSES[logits.dtype.name]
    if logits.dtype == np.float32:
        kernel = softmax_few_classes if few else softmax_single
    else:
        kernel = softmax_tall if few else softmax_wide
    kernel(logits, *arguments)

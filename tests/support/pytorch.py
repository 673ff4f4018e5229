"""Cross-entropy by PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.requirements import optional

torch = optional("torch")

Array = NDArray[Any]


def torch_cross_entropy(logits: Array, labels: Any, *, reduction: str = "none", **options: Any) -> Array:
    """Return PyTorch's float64 cross-entropy of logits with classes on the last axis."""
    labels = np.asarray(labels)
    z = torch.tensor(np.moveaxis(logits, -1, min(1, logits.ndim - 1)).astype(np.float64))
    if labels.shape == logits.shape:
        y = torch.tensor(np.moveaxis(labels, -1, min(1, logits.ndim - 1)).astype(np.float64))
    else:
        y = torch.tensor(labels.astype(np.int64))
    weights = options.pop("class_weights", None)
    if weights is not None:
        options["weight"] = torch.tensor(np.asarray(weights, np.float64))
    return torch.nn.functional.cross_entropy(z, y, reduction=reduction, **options).numpy()

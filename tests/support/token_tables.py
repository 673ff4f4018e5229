"""Tables of sequences, and the loss of a token."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

LOGITS, LABELS = pa.list_(pa.list_(pa.float32())), pa.list_(pa.int64())
PIECES = pytest.mark.parametrize("piece", [1, 1 << 20], ids=["a token at a time", "all"])


def table_of(logits, labels, **columns):
    """Return sequences with other columns added."""
    return pa.table({"logits": pa.array(logits, LOGITS), "label": pa.array(labels, LABELS), **columns})


def loss(z, label):
    """Return the cross-entropy of one token in float64."""
    return math.log(math.fsum(math.exp(one - max(z)) for one in z)) - (z[label] - max(z))

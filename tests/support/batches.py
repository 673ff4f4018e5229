"""Batches of logits and labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tests.support.rows import lists, rows_of_every_status


def batch_of(logits, labels=None, **more):
    columns = {"logits": lists(logits) if isinstance(logits, np.ndarray) else logits}
    if labels is not None:
        columns["label"] = labels
    return pa.record_batch({**columns, **more})


def batch_of_every_status():
    logits, labels, statuses = rows_of_every_status()
    return batch_of(pa.array(logits, pa.list_(pa.float32())), pa.array(labels, pa.int64())), statuses

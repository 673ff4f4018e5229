"""Random rows for tests of Ray and Spark, and the rows that ``scan`` gives for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

import batchmax


def table_of(n_rows: int = 40, n_classes: int = 6, dtype: Any = np.float32, seed: int = 0) -> pa.Table:
    """Return rows with an id, normally distributed logits and a label."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n_rows, n_classes)).astype(dtype)
    return pa.table({"id": np.arange(n_rows), "logits": list(logits), "label": rng.integers(0, n_classes, n_rows)})


def expected(table: pa.Table, **options: Any) -> list[dict[str, Any]]:
    """Return the rows that ``scan`` gives for a table."""
    return batchmax.scan(table, **options).read_all().to_pylist()

"""Writes rows, and changes scored files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError
from tests.support.rows import lists, some_logits

ALL_OUTPUTS = "probs,log_probs,loss,pred,confidence,margin,entropy,logsumexp,rank,correct,el2n,status"
K = 6


def write_rows(path, n=60, dtype=np.float32, groups=25, **columns):
    """Write rows of K classes with every tenth label ignored, and return the path."""
    logits = some_logits(n, K, dtype)
    labels = np.where(np.arange(n) % 10 == 7, -100, np.arange(n) % K)
    table = pa.table({"id": range(n), "logits": lists(logits), "label": labels, **columns})
    pq.write_table(table, path, row_group_size=groups)
    return str(path)


def rewrite(path, **columns):
    """Rewrite a scored file with changed columns, correct checksums and the same metadata."""
    table = pq.read_table(path)
    for name, edit in columns.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(edit(table.column(name).to_pylist()), field.type))
    pq.write_table(table, path, row_group_size=25, write_page_checksum=True)


def put(row, value, at=None):
    """Return an edit that replaces the value of one row, or one number in its list."""

    def edit(values):
        if at is None:
            values[row] = value(values[row]) if callable(value) else value
        else:
            values[row][at] = value(values[row][at]) if callable(value) else value
        return values

    return edit


def swap(first, second):
    def edit(values):
        values[first], values[second] = values[second], values[first]
        return values

    return edit


def refusal(file, *inputs, **options):
    """Return the one-line error with which the output is refused."""
    with pytest.raises(DataError) as caught:
        batchmax.verify(file, list(inputs), **options)
    assert caught.value.exit_code == 1
    assert caught.value.where
    assert "\n" not in str(caught.value)
    return str(caught.value)

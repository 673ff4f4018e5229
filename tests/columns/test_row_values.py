"""Tests the groups that the values of a column form."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

import batchmax

INSTANT = dt.datetime(2024, 2, 29, 12, 30)  # noqa: DTZ001


def table(values):
    n = len(values)
    return pa.table({"logits": [[1.0, 0.0]] * n, "label": np.arange(n) % 2, "by": values})


def test_zeros_of_both_signs_are_one_group():
    """0.0 and -0.0 are equal, and so are in one group; so are all NaN."""
    rows = table(pa.array([0.0, -0.0, 1.0, float("nan"), 2.0, -float("nan"), -0.0]))
    found = batchmax.evaluate(rows, by="by").slices["by"]
    sizes = {str(group["value"]): group["n_rows"] for group in found}
    assert sizes == {"0.0": 3, "nan": 2, "1.0": 1, "2.0": 1}
    changes = batchmax.compare(rows, rows, by="by").groups
    assert {str(group["by"]): group["n_rows"] for group in changes} == sizes


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([INSTANT, None] * 10, pa.timestamp("s")), ["2024-02-29 12:30:00", None]),
        (pa.array([1, 2] * 10, pa.timestamp("ns")), [f"1970-01-01 00:00:00.00000000{at}" for at in (1, 2)]),
        (pa.array([INSTANT.date(), None] * 10), ["2024-02-29", None]),
        (pa.array(["1.50", "2.00"] * 10).cast(pa.decimal128(5, 2)), ["1.50", "2.00"]),
        (pa.array([True, None] * 10), [True, None]),
        (pa.array([float("inf"), 0.5] * 10), ["inf", 0.5]),
    ],
    ids=["seconds", "nanoseconds", "date", "decimal", "bool", "float"],
)
def test_values_are_the_same_in_every_command(values, wanted):
    """``evaluate``, ``compare`` and ``decide`` give a value the same form, which JSON can hold."""
    rows = table(values)
    assert [group["value"] for group in batchmax.evaluate(rows, by="by").slices["by"]] == wanted
    assert [group["by"] for group in batchmax.compare(rows, rows, by="by").groups] == wanted
    rule = batchmax.decide(rows, maximize="f1", by="by", holdout=0)
    assert [group["by"] for group in rule.groups] == wanted

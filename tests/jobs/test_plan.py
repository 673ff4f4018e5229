"""Tests plans: how row groups are divided into parts, and dry runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from batchmax import UsageError
from batchmax.jobs.score import dry_run
from batchmax.options.score_options import score_options
from batchmax.runtime.buffers import PROGRAM_BYTES
from batchmax.sources.parts import PART_BYTES, Part, plan_parts
from tests.support.files import names_in
from tests.support.layouts import digits
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.paths import DATA
from tests.support.rows import table_of

ALL = SOFTMAX_OUTPUTS
FILES = st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=6)


@given(FILES, st.integers(1, 16), st.integers(1, 600))
def test_parts_contain_every_row_group_once_and_in_order(files, row_bytes, part_bytes):
    """Parts contain every row group once and in order; their numbers, first rows and row counts are correct."""
    parts = plan_parts(files, row_bytes, part_bytes)
    groups = [(part.file, group) for part in parts for group in range(part.first_group, part.end_group)]
    assert groups == [(file, group) for file, rows in enumerate(files) for group in range(len(rows))]
    assert [part.number for part in parts] == list(range(len(parts)))
    for part in parts:
        assert part.rows == sum(files[part.file][part.first_group : part.end_group])
        assert part.first_row == sum(files[part.file][: part.first_group])


@given(FILES, st.integers(1, 16), st.integers(1, 600))
def test_parts_are_as_large_as_allowed_and_no_larger(files, row_bytes, part_bytes):
    """A part above the limit has only one row group with rows.

    A part of the same file ends only if the next row group would exceed the limit.
    """
    parts = plan_parts(files, row_bytes, part_bytes)
    for part in parts:
        if part.rows * row_bytes > part_bytes:
            held = files[part.file][part.first_group : part.end_group]
            assert sum(rows > 0 for rows in held) == 1
    for before, after in pairwise(parts):
        if before.file == after.file:
            assert (before.rows + files[after.file][after.first_group]) * row_bytes > part_bytes


@given(FILES)
def test_there_is_always_a_part(files):
    """Inputs without row groups have one part without rows, so that the output has its columns."""
    parts = plan_parts(files, 4)
    assert parts
    if not any(files):
        assert parts == [Part(0, len(files) - 1, 0, 0, 0, 0)]


def test_the_limit_is_a_gibibyte_of_logits():
    """A part has up to 1 GiB of logits, to the byte."""
    rows = PART_BYTES // 4096 // 2
    assert [part.rows for part in plan_parts([[rows, rows, 1]], 4096)] == [2 * rows, 1]
    assert PART_BYTES == 2**30


def test_the_names_of_parts_sort_as_their_numbers():
    """Names of parts have five digits and sort by number.

    In folders that mirror the input's folders, numbers start at 0 in each.
    """
    names = [part.name for part in plan_parts([[1]] * 13, 4)]
    assert names[12] == "part-00012.parquet"
    assert names == sorted(names)
    mirrored = plan_parts([[1], [1, 1], [1]], 4, 4, folders=["day=1", "day=2", "day=1"])
    assert [part.name for part in mirrored] == [
        "day=1/part-00000.parquet",
        "day=2/part-00000.parquet",
        "day=2/part-00001.parquet",
        "day=1/part-00001.parquet",
    ]


@given(FILES, st.integers(0, 200))
def test_row_limit_keeps_the_parts(files, limit):
    """A limit on rows leaves out later parts and shortens the last one."""
    whole, cut = plan_parts(files, 4, 40), plan_parts(files, 4, 40, limit=limit)
    assert sum(part.rows for part in cut) == min(limit, sum(map(sum, files)))
    assert [replace(part, rows=0) for part in cut] == [replace(part, rows=0) for part in whole[: len(cut)]]
    assert [part.start for part in whole] == [sum(one.rows for one in whole[: part.number]) for part in whole]


def test_dry_run_returns_the_plan(tmp_path):
    """A dry run returns rows, classes, schema, parts and output size, and writes nothing."""
    options = score_options(outputs=ALL, top_k=3, classes=DATA / "labels" / "classes.txt", limit=7)
    plan = dry_run(digits(), str(tmp_path / "out"), options)
    assert (plan["n_rows"], plan["n_classes"]) == (7, 10)
    assert list(plan["schema"]) == ["id", "label", *ALL, "top_k_classes", "top_k_probs"]
    assert plan["parts"] == [{"name": "part-00000.parquet", "rows": 60}]
    assert names_in(tmp_path) == []
    wide = dry_run(digits(), str(tmp_path / "out"), score_options(outputs="probs", dtype="float64"))
    assert wide["bytes_written"] == 60 * 10 * 8
    assert_array_equal(wide["parts"][0]["rows"], 60)


def test_dry_run_returns_memory_and_checks_the_gate(tmp_path):
    """A dry run returns the memory needed, and refuses an invalid gate."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    plan = dry_run(tmp_path / "in.parquet", str(tmp_path / "o.parquet"), score_options())
    assert PROGRAM_BYTES < plan["memory_needed"] < plan["memory_limit"]
    with pytest.raises(UsageError, match="--fail-if"):
        dry_run(tmp_path / "in.parquet", str(tmp_path / "o.parquet"), score_options(fail_if="garbage (("))

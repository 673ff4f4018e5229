"""Tests that results don't depend on files, row groups, chunks and threads; and the row groups of outputs."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchmax
from batchmax.jobs import threads
from batchmax.jobs.score import score
from batchmax.options.score_options import score_options
from tests.support.files import group_sizes, row_texts
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.rows import table_of, table_of_every_status

ALL = SOFTMAX_OUTPUTS


def table_to_split():
    table, _ = table_of_every_status()
    more = table_of(60, 3).cast(table.schema)
    return pa.concat_tables([table, more]).combine_chunks()


TABLE = table_to_split()
UNSPLIT_ROWS = row_texts(pa.Table.from_batches(
    [batchmax.score_batch(TABLE.to_batches()[0], outputs=ALL, on_bad_row="null", top_k=2)]
))  # fmt: skip


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, TABLE.num_rows), max_size=4),
    st.integers(1, TABLE.num_rows),
    st.none() | st.integers(1, TABLE.num_rows),
)
def test_splitting_changes_no_bit(cuts, group, row_group_size):
    """No bit of any row depends on the input's files and row groups, or on the row groups of the output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        edges = [0, *sorted(cuts), TABLE.num_rows]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            pq.write_table(TABLE.slice(start, end - start), folder / f"{number}.parquet", row_group_size=group)
        options = {"outputs": ALL, "on_bad_row": "null", "top_k": 2, "row_group_size": row_group_size}
        summary = score(folder, folder / "out.pq", n_classes=3, **options)
        score(str(folder / "[0-9].parquet"), folder / "parts", n_classes=3, **options)
        assert row_texts(pq.read_table(folder / "out.pq")) == UNSPLIT_ROWS
        assert row_texts(pq.read_table(folder / "parts")) == UNSPLIT_ROWS
        assert summary.n_rows == TABLE.num_rows


@pytest.mark.parametrize(("n_rows", "n_classes"), [(20_000, 10), (500, 1000)])
def test_every_number_of_threads_gives_the_same_bytes(n_rows, n_classes, tmp_path):
    """Output files have the same bytes for any number of threads and any path, and at any time."""
    pq.write_table(table_of(n_rows, n_classes), tmp_path / "in.parquet", row_group_size=n_rows // 3)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "in.parquet", tmp_path / "elsewhere" / "other.parquet")
    score(tmp_path / "in.parquet", tmp_path / "a.parquet", outputs=ALL, threads=1)
    score(tmp_path / "in.parquet", tmp_path / "b.parquet", outputs=ALL, threads=2)
    score(tmp_path / "elsewhere" / "other.parquet", tmp_path / "elsewhere" / "c.pq", outputs=ALL, threads=7)
    first = (tmp_path / "a.parquet").read_bytes()
    assert (tmp_path / "b.parquet").read_bytes() == first
    assert (tmp_path / "elsewhere" / "c.pq").read_bytes() == first


def test_arrow_thread_count_is_restored():
    """Nested limits of Arrow's threads leave the original number when the last job is done."""
    before = pa.cpu_count()
    with threads.use_threads(score_options(threads=1)):
        with threads.use_threads(score_options(threads=3)):
            assert pa.cpu_count() == 3
        assert pa.cpu_count() == 3
    assert pa.cpu_count() == before


@pytest.mark.usefixtures("small_chunks")
def test_chunks_within_a_row_group_change_no_bit(tmp_path):
    """A row group that is processed in several chunks gives the bits of a single batch."""
    table = table_of(1000, 10)
    pq.write_table(table, tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs=ALL)
    want = batchmax.score_batch(table.to_batches()[0], outputs=ALL)
    assert row_texts(pq.read_table(tmp_path / "out.parquet")) == row_texts(pa.Table.from_batches([want]))
    assert max(group_sizes(tmp_path / "out.parquet")) * 10 * 4 <= 4096


def test_row_groups_are_those_of_the_input(tmp_path):
    """The output has the input's row groups, even if they're tiny or in many files; none is empty."""
    for number, size in enumerate((7, 1, 16)):
        pq.write_table(table_of(20), tmp_path / f"{number}.parquet", row_group_size=size)
    score(tmp_path, tmp_path / "out.pq")
    assert group_sizes(tmp_path / "out.pq") == [7, 7, 6, *[1] * 20, 16, 4]


def test_row_groups_have_at_most_64_mib(tmp_path):
    """A row group above 64 MiB of logits is split into equal pieces."""
    n_rows = 180_000
    column = pa.FixedSizeListArray.from_arrays(np.zeros(n_rows * 100, np.float32), 100)
    pq.write_table(pa.table({"logits": column}), tmp_path / "in.parquet", row_group_size=n_rows)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", outputs="entropy")
    assert group_sizes(tmp_path / "out.parquet") == [90_000, 90_000]
    assert 90_000 * 400 <= 64 << 20


@pytest.mark.parametrize("size", [1, 9, 13, 40, 1000])
def test_row_group_size_is_exact(size, tmp_path):
    """With ``row_group_size``, every row group but the last has exactly that many rows.

    This holds across row groups and files of the input.
    """
    for number in range(2):
        pq.write_table(table_of(20), tmp_path / f"{number}.parquet", row_group_size=7)
    score(tmp_path, tmp_path / "out.pq", row_group_size=size)
    sizes = group_sizes(tmp_path / "out.pq")
    assert sum(sizes) == 40
    assert set(sizes[:-1]) <= {size}
    assert sizes[-1] == (40 % size or size if size < 40 else 40)


@pytest.mark.usefixtures("small_parts", "small_chunks")
def test_rows_keep_their_order(tmp_path):
    """Rows keep the order of files and rows, in a file and in parts."""
    for number, start in ((2, 0), (10, 500), (1, 900)):
        ids = pa.array(np.arange(start, start + 300))
        pq.write_table(table_of(300).set_column(0, "id", ids), tmp_path / f"f{number}.parquet", row_group_size=37)
    want = [*range(900, 1200), *range(500, 800), *range(300)]
    for out in ("out.parquet", "out"):
        score(str(tmp_path / "f*.parquet"), tmp_path / out, outputs="pred")
        files = sorted((tmp_path / out).glob("part-*")) if out == "out" else [tmp_path / out]
        assert [row for file in files for row in pq.read_table(file)["id"].to_pylist()] == want


def test_row_groups_of_nulls(tmp_path):
    """Row groups without any logits, first, last and in between, give null rows."""
    table = table_of(30)
    logits = [None if row // 5 in {0, 3, 5} else value for row, value in enumerate(table["logits"].to_pylist())]
    table = table.set_column(1, "logits", pa.array(logits, pa.list_(pa.float32())))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    summary = score(tmp_path / "in.parquet", tmp_path / "out.parquet", on_bad_row="null", outputs=ALL)
    got = pq.read_table(tmp_path / "out.parquet")
    assert [row is None for row in got["probs"].to_pylist()] == [row is None for row in logits]
    assert summary.status_counts["null_logits"] == 15
    score(tmp_path / "in.parquet", tmp_path / "left.parquet", on_bad_row="drop")
    assert group_sizes(tmp_path / "left.parquet") == [5, 5, 5]


def test_many_tiny_row_groups(tmp_path):
    """A thousand row groups of one row are scored correctly."""
    table = table_of(1000)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    want = batchmax.score_batch(table.to_batches()[0])
    assert row_texts(pq.read_table(tmp_path / "out.parquet")) == row_texts(pa.Table.from_batches([want]))

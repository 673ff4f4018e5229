"""A sample of the data distinguishes inputs with the same size and footer."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError, OutputError
from batchmax.sources.content_sample import MAX_PLACES, REACH, sampled_ranges
from batchmax.sources.parquet_file import open_file

PLAIN = {"compression": "none", "use_dictionary": False, "write_statistics": False}
"""Options for writing files whose footer doesn't depend on the values."""


def write(path, seed, *, rows=200, groups=4, changed=None):
    """Write a file whose footer doesn't depend on its values; column ``changed`` gets values of another seed."""
    columns = {}
    for number, name in enumerate(("id", "logits", "label")):
        random = np.random.default_rng(100 * (seed + (name == changed)) + number)
        values = random.normal(size=(rows, 5)).astype(np.float32) if name == "logits" else random.integers(0, 5, rows)
        columns[name] = list(values) if name == "logits" else values
    pq.write_table(pa.table(columns), path, row_group_size=rows // groups, **PLAIN)
    return str(path)


@pytest.fixture
def twins(tmp_path):
    """Return two files that differ only in their values, with old modification times."""
    paths = [write(tmp_path / name, seed) for seed, name in enumerate(("a.parquet", "b.parquet"))]
    for path in paths:
        os.utime(path, (10**9, 10**9))
    sizes, footers = zip(*((os.path.getsize(path), open_file(path).footer_digest()) for path in paths), strict=True)  # noqa: PTH202
    assert len(set(sizes)) == len(set(footers)) == 1
    return paths


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize("how", ["another path", "replaced"])
def test_an_output_of_other_data_is_not_complete(twins, tmp_path, out, how):
    """``resume`` rejects an output made from other values, even if size, footer and modification time are the same."""
    batchmax.score(twins[0], tmp_path / out)
    assert batchmax.score(twins[0], tmp_path / out, if_exists="resume").n_rows == 200
    if how == "replaced":
        os.replace(twins[1], twins[0])  # noqa: PTH105
    with pytest.raises(OutputError, match="another job, and complete: the inputs are others, or have changed"):
        batchmax.score(twins[how == "another path"], tmp_path / out, if_exists="resume")


def test_verify_tells_them_apart(twins, tmp_path):
    """``verify`` rejects an input with other data than the one that the output was made from."""
    batchmax.score(twins[0], tmp_path / "out.parquet")
    batchmax.verify(tmp_path / "out.parquet", twins[0])
    with pytest.raises(DataError, match=r"b\.parquet: the data are not the same as when .* was made"):
        batchmax.verify(tmp_path / "out.parquet", twins[1])


@pytest.mark.parametrize("changed", ["id", "logits", "label"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_every_column_is_sampled(tmp_path, changed, groups):
    """Changed values in any column change the sample digest, but not the footer digest."""
    one = open_file(write(tmp_path / "a.parquet", 0, groups=groups))
    other = open_file(write(tmp_path / "b.parquet", 0, groups=groups, changed=changed))
    again = open_file(write(tmp_path / "c.parquet", 0, groups=groups))
    assert one.footer_digest() == other.footer_digest()
    assert one.sample_digest != other.sample_digest
    assert one.sample_digest == again.sample_digest


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 8), pa.large_list(pa.float32())])
def test_the_first_row_of_lists_is_sampled(tmp_path, kind):
    """The levels of a page, which come before its values, aren't mistaken for the first values."""
    logits = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    digests = []
    for name, row in (("a", None), ("b", 0), ("c", -1)):
        rows = logits.copy()
        if row is not None:
            rows[row] += 1
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"logits": pa.array(list(rows), kind)}), path, **PLAIN)
        digests.append(open_file(str(path)).sample_digest)
    assert len(set(digests)) == 3


def test_the_sample_is_small(tmp_path):
    """With any number of row groups and columns, the sample is a bounded number of short ranges within the file."""
    random = np.random.default_rng(0)
    columns = {f"logit_{number}": random.normal(size=400) for number in range(150)}
    pq.write_table(pa.table(columns), tmp_path / "wide.parquet", row_group_size=20)
    file = open_file(str(tmp_path / "wide.parquet"))
    ranges = sampled_ranges(file.footer, file.size)
    assert len(ranges) == MAX_PLACES
    assert all(0 <= start < end <= min(start + 2 * REACH, file.size) for start, end in ranges)
    assert all(end <= following for (_, end), (following, _) in itertools.pairwise(ranges))
    assert ranges[0][0] == 0
    assert ranges[-1][1] > file.size // 2


def test_without_a_footer_that_is_understood():
    """Without a readable footer, the sample is at the start, middle and end of the file."""
    assert sampled_ranges(None, 10_000) == [(0, REACH), (5000 - REACH, 5000 + REACH), (10_000 - REACH, 10_000)]
    assert sampled_ranges(None, 100) == [(0, 100)]

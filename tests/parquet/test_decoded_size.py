"""Tests decoded sizes and decode budgets against the memory of the columns that pyarrow decodes.

A decoded size may hardly be less than what pyarrow allocates, and not much more unless the pages are forged.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import main
from batchmax.errors import DataError
from batchmax.parquet import DecodedSize, Footer, PageError, PageTooLargeError
from batchmax.parquet.reading.decoded_size import LEVEL_BYTES, fixed_row_bytes
from batchmax.sources.decode_budget import DecodeBudget
from batchmax.sources.parquet_file import open_file
from tests.support import crafted

ROWS = 5000
GIB = 1 << 30


def columns(seed=0):
    """Return one column of each kind whose size is computed differently, with nulls, empty lists and long strings."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 40, ROWS)
    lengths[7] = 20_000
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    numbers = pa.array(rng.normal(size=lengths.sum()), mask=rng.random(lengths.sum()) < 0.1)
    texts = ["x" * 3000 if row % 1000 == 999 else f"text {row % 50}" for row in range(ROWS)]
    return {
        "ints": pa.array(rng.integers(0, 9, ROWS), mask=rng.random(ROWS) < 0.3),
        "texts": pa.array(texts, mask=rng.random(ROWS) < 0.2),
        "unlike": pa.array([f"{row} {'y' * (row % 90)}" for row in range(ROWS)]),
        "lists": pa.ListArray.from_arrays(offsets, numbers),
        "lists of lists": pa.array(
            [[[row, None], []] if row % 3 else None for row in range(ROWS)], pa.list_(pa.list_(pa.int64()))
        ),
        "lists of texts": pa.array([[texts[row]] * (row % 4) for row in range(ROWS)]),
    }


OPTIONS = [
    {"compression": codec, "data_page_version": version, "use_dictionary": dictionary, "data_page_size": size}
    for codec, version, dictionary, size in [
        ("snappy", "1.0", True, 4096),
        ("zstd", "2.0", True, 4096),
        ("gzip", "1.0", False, 1000),
        ("none", "2.0", False, 1 << 20),
        ("brotli", "1.0", True, 1 << 20),
    ]
]


def demand(path, most=GIB, *, shares_texts=False):
    """Return the decoded size of a file's only column, and the open file descriptor that it reads from."""
    descriptor = os.open(path, os.O_RDONLY)
    footer = Footer.read(descriptor)
    group = footer.row_group(0)
    return DecodedSize(
        descriptor, group.chunk(0), footer.leaves[0], group.n_rows, most, shares_texts=shares_texts
    ), descriptor


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", columns())
def test_no_batch_takes_more_than_was_said(tmp_path, name, options):
    """The decoded size of a batch is at least 7/8 of its bytes in pyarrow.

    The total is less than 6 times the bytes of the column plus 1 MiB.
    """
    column = columns()[name]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({name: column}), path, row_group_size=ROWS, **options)
    for rows in (ROWS, 700, 64):
        said, descriptor = demand(path)
        total = 0
        for batch in pq.ParquetFile(path).iter_batches(rows):
            taken = said.take(batch.num_rows)
            # Validity bitmaps don't count.
            needed = batch.nbytes - batch.num_rows // 8 - sum(len(b) for b in batch.column(0).buffers()[:1] if b)
            assert taken >= needed * 7 // 8, (name, rows)
            total += taken
        os.close(descriptor)
        if rows == ROWS:
            assert total < 6 * column.nbytes + (1 << 20)
    assert said.whole >= column.nbytes * 7 // 8


def test_rows_are_counted_where_they_begin(tmp_path):
    """The size of a long list counts in the batch that contains its row; it isn't spread over all rows."""
    lists = pa.array([[1.0]] * 1000 + [[1.0] * 1_000_000] + [[1.0]] * 1000)
    path = tmp_path / "x.parquet"
    for version in ("1.0", "2.0"):
        pq.write_table(
            pa.table({"lists": lists}),
            path,
            use_dictionary=False,
            data_page_version=version,
            data_page_size=1000,
            write_batch_size=100,
        )
        said, descriptor = demand(path)
        taken = [said.take(10) for _ in range(200)]
        os.close(descriptor)
        assert max(taken) > 8_000_000
        assert sorted(taken)[190] < 10_000


def test_texts_that_are_held_once(tmp_path):
    """A column decoded as a dictionary takes one index per row, however long its strings are."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"texts": pa.array(["x" * 10_000] * ROWS)}), path)
    for once, least, most in ((False, 10_000 * ROWS, 11_000 * ROWS), (True, ROWS, 100 * ROWS)):
        said, descriptor = demand(path, shares_texts=once)
        assert least <= said.take(ROWS) <= most
        os.close(descriptor)


def test_what_hides_nothing_is_not_looked_at(tmp_path):
    """Pages are examined except for small flat columns of numbers with a codec of limited compression ratio."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns()), path)
    with path.open("rb") as stream:
        footer = Footer.read(stream.fileno())
    sizes = footer.row_group(0).sizes[:, :2].tolist()
    found = {leaf.name: fixed_row_bytes(leaf, *size) for leaf, size in zip(footer.leaves, sizes, strict=True)}
    assert found.pop("ints") == 8 + LEVEL_BYTES
    assert set(found.values()) == {None}
    leaf = footer.leaves[0]
    for codec, packed in ((6, 100), (2, 100), (4, 100), (-1, 100), (1, -1), (1, 1 << 20)):
        assert fixed_row_bytes(leaf, codec, packed) is None
    for group in range(footer.n_row_groups):
        for number, size in enumerate(sizes):
            metadata = footer.row_group(group).chunk(number)[3].value
            assert size == [metadata[4].value, metadata[7].value]


@pytest.mark.parametrize(("field", "value"), [("PACKED", -1), ("CODEC", -1), ("CODEC", 200), ("PACKED", 1 << 62)])
def test_sizes_that_cannot_be_are_not_taken_for_others(field, value):
    """A codec or size that is negative or beyond 32 bits is reported as -1, unknown, rather than wrapped around."""
    footer = Footer.parse(crafted.edited(crafted.file_of(crafted.table()), crafted.set_chunk(0, **{field: value})))
    size = footer.row_group(0).sizes[:, :2].tolist()[0]
    assert size[0 if field == "CODEC" else 1] == (value if 0 <= value < 1 << 32 else -1)
    assert fixed_row_bytes(footer.leaves[0], *size) is None


def test_pages_that_are_too_large_or_none(tmp_path):
    """A page above the limit raises PageTooLargeError; an offset outside the file or a bad header raises PageError."""
    data = crafted.file_of(crafted.table(), compression="zstd")
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    with pytest.raises(PageTooLargeError) as caught:
        demand(path, most=50)
    assert caught.value.page > 50
    for changes in ({"DATA_AT": -9, "DICTIONARY_AT": -9}, {"PACKED": -1}, {"DATA_AT": 5, "DICTIONARY_AT": 5}):
        path.write_bytes(crafted.edited(data, crafted.set_chunk(0, **changes)))
        with pytest.raises(PageError):
            demand(path)


def test_a_budget_counts_rows_that_stay_in_memory(tmp_path):
    """Small batches that are kept until a row group of the output is full count together towards the limit."""
    path = tmp_path / "x.parquet"
    rows = crafted.table(20_000).set_column(3, "text", pa.array(["x" * 1000] * 20_000))
    pq.write_table(rows, path, use_dictionary=False, data_page_size=10_000, write_batch_size=10)
    file = open_file(str(path))
    with file.opened() as opened:
        for kept_rows, refused in ((None, False), (1000, False), (20_000, True)):
            budget = DecodeBudget(opened, 0, ["text"], 20 << 20, kept_rows=kept_rows)
            if refused:
                with pytest.raises(DataError, match=r"decoding column 'text' takes up to 2. MiB, and the limit is 20"):
                    [budget.take(500) for _ in range(40)]
            else:
                [budget.take(500) for _ in range(40)]


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("limit", ["300MiB", "350MiB"])
def test_the_limit_that_is_suggested_is_enough(dictionary, limit, tmp_path, capsys):
    """A job that needs too much memory succeeds with the limit that its error message suggests."""
    rows, path = 240, tmp_path / "x.parquet"
    texts = pa.array(["x" * (1 << 19)] * rows)
    lists = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), texts)
    table = pa.table({"logits": [[1.0, 2.0]] * rows, "label": [0, 1] * (rows // 2), "x": lists})
    pq.write_table(table, path, compression="zstd", use_dictionary=dictionary, write_batch_size=120)
    words = ["score", str(path), "-o", str(tmp_path / "o.parquet"), "--quiet", "--memory-limit"]
    code = main([*words, limit])
    line = capsys.readouterr().err
    if code == 2:  # before any page is read
        found = re.search(r"allow at least (\d+MiB)", line)
        assert found is not None, line
        code = main([*words, found[1]])
        line = capsys.readouterr().err
        if not code:
            return
    found = re.search(r"allow more: --memory-limit (\d+MiB);", line)
    assert code == 1
    assert found is not None, line
    assert main([*words, found[1]]) == 0, capsys.readouterr().err

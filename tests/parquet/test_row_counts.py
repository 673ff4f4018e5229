"""Tests that column chunks whose pages don't match the footer aren't copied or decoded, and fail verification."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import BatchmaxError, DataError
from batchmax.parquet.reading.page_rows import count_values
from batchmax.parquet.thrift import I32, I64, Field
from tests.support import crafted
from tests.support.parquet_anatomy import chunks_of
from tests.support.rows import lists

ROWS = 40
NAMES = ("id", "text", "words", "pair", "logits", "label")
LEAVES = {"id": 0, "text": 1, "words": 2, "pair": 4, "logits": 5, "label": 6}
DECODED = {"compression": "gzip"}


def table():
    logits = np.random.default_rng(3).normal(size=(ROWS, 3)).astype(np.float32)
    return pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            "text": [None if row % 9 == 4 else f"text {row}" for row in range(ROWS)],
            "words": [None if row % 9 == 5 else ["w"] * (row % 3) for row in range(ROWS)],
            "pair": [{"x": row, "y": [row] * (row % 4)} for row in range(ROWS)],
            "logits": lists(logits),
            "label": pa.array(np.arange(ROWS) % 3),
        }
    )


OPTIONS = {"data_page_size": 1, "write_batch_size": 10, "max_rows_per_page": 10}


def with_repeated_page(path, leaf, group=0, *, n_values, dictionary=False):
    """Rewrite a file with a column chunk moved to the end and its last page, or its dictionary, repeated.

    The chunk's sizes and page counts are adjusted; with ``n_values`` also its number of values.
    """
    data = path.read_bytes()
    chunks = chunks_of(path)
    found = chunks[leaf + group * sum(chunk.group == 0 for chunk in chunks)]
    start = found.pages[0].offset
    page = found.pages[0] if dictionary else found.pages[-1]
    extra = data[page.offset : page.offset + page.size]
    pages = data[start : start + found.meta[7]] + extra
    at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")

    def edit(fields):
        metadata = crafted.chunk(fields, leaf, group)[3].value
        metadata[7] = Field(I64, len(pages))
        metadata[6] = Field(I64, metadata[6].value + page.header_size + page.unpacked)
        for place in (9, 11):
            if place in metadata:
                metadata[place] = Field(I64, metadata[place].value - start + at)
        if n_values:
            metadata[5] = Field(I64, metadata[5].value + page.n_values)
        for count in metadata[13].value.values:
            if (count[1].value == 2) == dictionary:
                count[3] = Field(I32, count[3].value + 1)
        for index in (4, 5, 6, 7):
            crafted.chunk(fields, leaf, group).pop(index, None)

    path.write_bytes(crafted.edited(data, edit, pages))


@pytest.mark.parametrize(("version", "dictionary", "codec"), [("1.0", True, "snappy"), ("2.0", False, "none")])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_values", [True, False])
def test_a_page_that_is_repeated_is_refused(name, n_values, version, dictionary, codec, tmp_path):
    """A repeated page is refused, whether the column is copied, decoded or read as a matrix.

    This holds whether or not the footer counts its values.
    """
    path = tmp_path / "x.parquet"
    how = {"data_page_version": version, "use_dictionary": dictionary, "compression": codec}
    pq.write_table(table(), path, **OPTIONS, **how)
    with_repeated_page(path, LEAVES[name], n_values=n_values)
    for options in ({}, DECODED, {"row_group_size": 7}):
        with pytest.raises(
            DataError, match=rf"x\.parquet: cannot be read: row group 0, column '{name}.*its pages hold"
        ):
            batchmax.score(path, tmp_path / "out.parquet", **options)
    with pytest.raises(DataError, match="its pages hold"):
        batchmax.scan(path).read_all()
    if name in {"logits", "label"}:
        with pytest.raises(DataError, match="its pages hold"):
            batchmax.evaluate(path)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_dictionary_is_refused(name, tmp_path):
    """A second dictionary page is refused, because it's ambiguous which one later pages use."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(), path, **OPTIONS)
    with_repeated_page(path, LEAVES[name], n_values=False, dictionary=True)
    for options in ({}, DECODED):
        with pytest.raises(DataError, match=rf"column '{name}.*a dictionary page is not the first page"):
            batchmax.score(path, tmp_path / "out.parquet", **options)


@pytest.mark.parametrize("options", [{}, DECODED])
@pytest.mark.parametrize("name", NAMES)
def test_row_groups_after_the_first_are_checked_too(name, options, tmp_path):
    """Repeated pages in later row groups, which are only copied, are refused as in the first, which is decoded."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.concat_tables([table(), table()]), path, row_group_size=ROWS, **OPTIONS)
    with_repeated_page(path, LEAVES[name], 1, n_values=True)
    with pytest.raises(DataError, match=rf"x\.parquet: cannot be read: row group 1, column '{name}.*its pages hold"):
        batchmax.score(path, tmp_path / "out.parquet", **options)


@pytest.mark.parametrize("options", [{}, DECODED])
def test_two_columns_in_one_place_are_refused(options, tmp_path):
    """Two column chunks with the same place in the file are refused, because one of them must be wrong."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(), path, **OPTIONS)

    def edit(fields):
        ours, theirs = (
            crafted.chunk(fields, LEAVES["id"])[3].value,
            crafted.chunk(fields, LEAVES["label"])[3].value,
        )
        for field in (5, 6, 7, 9, 11, 12, 13):
            ours[field] = theirs[field]

    path.write_bytes(crafted.edited(path.read_bytes(), edit))
    with pytest.raises(DataError, match="two column chunks of a row group overlap"):
        batchmax.score(path, tmp_path / "out.parquet", **options)


@pytest.mark.parametrize("name", ["id", "words", "probs", "loss"])
def test_verify_counts_the_rows_of_pages(name, tmp_path):
    """``verify`` reports an output with a repeated page in a carried or computed column."""
    path, out = tmp_path / "x.parquet", tmp_path / "out.parquet"
    pq.write_table(table(), path, **OPTIONS)
    batchmax.score(path, out)
    assert batchmax.verify(out).n_rows == ROWS
    leaf = [chunk.path.split(".")[0] for chunk in chunks_of(out)].index(name)
    before = out.read_bytes()
    for n_values, message in ((True, r"hold \d+ rows, not 40"), (False, r"hold \d+ values, not \d+ as")):
        out.write_bytes(before)
        with_repeated_page(out, leaf, n_values=n_values)
        with pytest.raises(BatchmaxError, match=message):
            batchmax.verify(out)


@pytest.mark.parametrize(("codec", "dictionary"), [*itertools.product(["none", "zstd"], [True, False])])
def test_values_are_counted_by_headers_alone(codec, dictionary, tmp_path):
    """``count_values`` returns the number of values of each column chunk, and -1 where there are no page headers."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(), path, compression=codec, use_dictionary=dictionary, row_group_size=25, **OPTIONS)
    chunks = chunks_of(path)
    places = np.array([[chunk.pages[0].offset, chunk.pages[-1].offset + chunk.pages[-1].size] for chunk in chunks])
    wrong = np.array([[5, 100], [-1, -1], [path.stat().st_size - 1, path.stat().st_size + 9]])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert count_values(descriptor, places).tolist() == [chunk.meta[5] for chunk in chunks]
        assert count_values(descriptor, wrong).tolist() == [-1, -1, -1]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_codec_that_only_pyarrow_decodes(version, tmp_path):
    """Columns in Hadoop's LZ4 format, which only pyarrow decodes, are read and carried.

    Their values are counted by page headers; their rows can't be counted by levels.
    """
    path, out = tmp_path / "x.parquet", tmp_path / "out.parquet"
    pq.write_table(table(), path, **OPTIONS, data_page_version=version, compression="lz4")

    def edit(fields):
        for leaf in range(len(LEAVES) + 1):
            crafted.set_chunk(leaf, CODEC=5)(fields)  # pyarrow reads both LZ4 formats under this codec number

    path.write_bytes(crafted.edited(path.read_bytes(), edit))
    for options in ({}, DECODED):
        batchmax.score(path, out, if_exists="overwrite", **options)
        names = [name for name in NAMES if name != "logits"]
        assert pq.read_table(out, columns=names).equals(table().select(names))
    with_repeated_page(path, LEAVES["id"], n_values=True)
    with pytest.raises(DataError, match="column 'id'"):
        batchmax.score(path, out, if_exists="overwrite", **DECODED)

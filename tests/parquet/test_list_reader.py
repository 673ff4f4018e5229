"""Tests the reader of matrices against pyarrow: it returns the same values or refuses the column, and never crashes."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchmax
import batchmax.jobs.pipeline
import batchmax.sources.chunks
from batchmax.parquet import Footer, MatrixReader, PageError
from batchmax.parquet.thrift import ThriftError, read_struct, write_struct
from batchmax.parquet.writing.column_chunk import METADATA, chunk_range
from tests.support.paths import DATA
from tests.support.progress import Recorder


def lists(matrix, *, nullable=True):
    item = pa.field("element", pa.from_numpy_dtype(matrix.dtype), nullable=nullable)
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel()), type=pa.list_(item))


def write(path, array, *, nullable=True, **options):
    schema = pa.schema([pa.field("logits", array.type, nullable=nullable)])
    pq.write_table(pa.table([array], schema=schema), path, write_page_checksum=True, **options)


def read(path, n_classes, dtype, pieces=(1,)):
    """Read a file's only column as a matrix, each row group in pieces of the given proportions."""
    metadata = pq.read_metadata(path)
    parts = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            footer = Footer.read(descriptor)
            reader = MatrixReader(descriptor, footer.row_group(group).chunk(0), footer.leaves[0], rows, n_classes)
            assert reader.dtype == dtype
            out = np.empty((rows, n_classes), dtype)
            edges = [0, *sorted({rows * piece // sum(pieces) for piece in itertools.accumulate(pieces)})]
            for start, end in itertools.pairwise(edges):
                reader.read_into(out[start:end])
            parts.append(out)
    finally:
        os.close(descriptor)
    return np.concatenate(parts)


GRID = list(
    itertools.product(
        (1, 2, 3, 7, 8, 9, 10, 33, 1000),
        ("1.0", "2.0"),
        ("NONE", "SNAPPY", "ZSTD", "GZIP", "BROTLI", "LZ4"),
        ("dictionary", "plain", "split"),
    )
)


@pytest.mark.parametrize("nullable", [True, False], ids=["nullable", "required"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_pyarrow_writes_is_read(tmp_path, dtype, nullable):
    """Matrices written by pyarrow are read correctly.

    Cases: every number of classes, page version, codec and encoding; pages of 100 bytes and 1 MiB; rows across pages.
    """
    random = np.random.default_rng(0)
    for n_classes, version, codec, encoding in GRID:
        matrix = random.integers(0, 50, (max(3, 2000 // n_classes), n_classes)).astype(dtype)
        for page in (100, 1 << 20):
            write(
                tmp_path / "x.parquet",
                lists(matrix, nullable=nullable),
                nullable=nullable,
                data_page_version=version,
                compression=codec,
                use_dictionary=encoding == "dictionary",
                use_byte_stream_split=encoding == "split",
                data_page_size=page,
                write_batch_size=64,
                row_group_size=len(matrix) // 2 + 1,
            )
            found = read(tmp_path / "x.parquet", n_classes, dtype, (1, 2))
            assert np.array_equal(found, matrix), (n_classes, version, codec, encoding, page)


@given(
    st.integers(1, 40),
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(1, 3000),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.booleans(),
)
def test_any_pages_any_pieces(tmp_path_factory, n_classes, n_rows, group, page, pieces, dictionary):
    """The values don't depend on the sizes of pages, row groups and reads."""
    matrix = np.arange(n_rows * n_classes, dtype=np.float32).reshape(n_rows, n_classes) % 97
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    write(path, lists(matrix), row_group_size=group, data_page_size=page, write_batch_size=3, use_dictionary=dictionary)
    assert np.array_equal(read(path, n_classes, np.float32, pieces), matrix)


def test_a_dictionary_that_is_given_up(tmp_path):
    """A column chunk that changes from dictionary to plain encoding is read correctly."""
    matrix = np.random.default_rng(1).standard_normal((3000, 300)).astype(np.float32)
    write(tmp_path / "x.parquet", lists(matrix))
    assert "PLAIN" in pq.read_metadata(tmp_path / "x.parquet").row_group(0).column(0).encodings
    assert np.array_equal(read(tmp_path / "x.parquet", 300, np.float32), matrix)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 2.0], None, [3.0, 4.0]],
        [[1.0, 2.0], [None, 1.0], [3.0, 4.0]],
        [[1.0, 2.0, 3.0], [1.0], [3.0, 4.0]],
        [[1.0], [2.0, 3.0, 4.0], [5.0, 6.0]],
        [[1.0, 2.0], [], [3.0, 4.0, 5.0, 6.0]],
    ],
    ids=["null row", "null value", "ragged", "ragged, as many values", "empty row"],
)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_what_is_no_matrix_is_refused(tmp_path, rows, version):
    """Nulls, empty rows and rows of several lengths are refused, also if the number of values matches."""
    write(tmp_path / "x.parquet", pa.array(rows, pa.list_(pa.float32())), data_page_version=version)
    with pytest.raises(PageError):
        read(tmp_path / "x.parquet", 2, np.float32)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("checksum", [True, False])
def test_no_flipped_byte_crashes(tmp_path, version, checksum):
    """A page with a flipped bit is refused or read; with checksums, no value is wrong.

    Two bits of every byte of the pages are flipped in turn.
    """
    matrix = np.arange(60, dtype=np.float32).reshape(20, 3) % 7
    path = tmp_path / "x.parquet"
    schema = pa.schema([pa.field("logits", pa.list_(pa.float32()))])
    pq.write_table(
        pa.table([lists(matrix).cast(schema.field(0).type)], schema=schema),
        path,
        write_page_checksum=checksum,
        data_page_version=version,
        data_page_size=60,
        write_batch_size=4,
    )
    metadata = pq.read_metadata(path)
    chunk = metadata.row_group(0).column(0)
    whole = path.read_bytes()
    footer = Footer.parse(whole)
    end = chunk.dictionary_page_offset + chunk.total_compressed_size
    refused = 0
    for at in range(chunk.dictionary_page_offset, end):
        for bit in (0, 7):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            path.write_bytes(flipped)
            descriptor = os.open(path, os.O_RDONLY)
            out = np.empty((20, 3), np.float32)
            try:
                MatrixReader(descriptor, footer.row_group(0).chunk(0), footer.leaves[0], 20, 3).read_into(out)
                assert not checksum or np.array_equal(out, matrix), (at, bit)
            except PageError:
                refused += 1
            finally:
                os.close(descriptor)
    assert refused > (end - chunk.dictionary_page_offset) // 2


def test_cut_off_anywhere(tmp_path):
    """A file that is truncated inside the column is refused."""
    matrix = np.arange(60, dtype=np.float32).reshape(20, 3)
    path = tmp_path / "x.parquet"
    write(path, lists(matrix))
    whole = path.read_bytes()
    footer = Footer.parse(whole)
    chunk = footer.row_group(0).chunk(0)
    end = sum(chunk_range(chunk[METADATA].value))
    for length in range(4, end):
        path.write_bytes(whole[:length])
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(PageError):
                MatrixReader(descriptor, chunk, footer.leaves[0], 20, 3).read_into(np.empty((20, 3), np.float32))
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("name", ["digits", "layouts/digits_list", "layouts/digits_tensor", "layouts/digits_nested"])
def test_footers_survive_a_round_trip(name):
    """A footer that is parsed and serialized has the same bytes."""
    whole = (DATA / f"{name}.parquet").read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    footer = whole[-8 - size : -8]
    value, end = read_struct(footer)
    assert end == size
    assert write_struct(value) == footer


def test_a_field_that_is_there_twice_is_refused():
    """A Thrift field that occurs twice is refused, because readers would disagree on which one counts."""
    assert read_struct(b"\x15\x02\x00")[0][1].value == 1
    with pytest.raises(ThriftError, match="duplicated"):
        read_struct(b"\x15\x02\x05\x02\x04\x00")


@pytest.mark.parametrize("depth", [10, 10_000])
def test_nesting_has_an_end(depth):
    """Thrift structs, lists and maps that are nested too deeply are refused with a :class:`ThriftError`."""
    for nested in (b"\x1c" * depth + b"\x00" * (depth + 1), b"\x19" + b"\x19" * depth, b"\x1b" + b"\x01\xbb" * depth):
        try:
            read_struct(nested)
        except ThriftError:
            continue
        assert depth == 10


def test_a_page_that_claims_too_much_is_refused(tmp_path):
    """A page with more values than its column is refused before memory is allocated for them."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": lists(np.ones((1000, 1), np.float32))}), path)
    footer = Footer.parse(path.read_bytes())
    chunk = footer.row_group(0).chunk(0)
    chunk[METADATA].value[5].value = 100
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(PageError, match="more values"):
            MatrixReader(descriptor, chunk, footer.leaves[0], 100, 1).read_into(np.empty((100, 1), np.float32))
    finally:
        os.close(descriptor)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_struct_or_refused(data):
    """Reading arbitrary bytes as a Thrift struct succeeds or raises :class:`ThriftError`."""
    try:
        value, end = read_struct(data)
    except ThriftError:
        return
    assert end <= len(data)
    assert isinstance(value, dict)


def test_both_ways_give_the_same_values(tmp_path, monkeypatch):
    """Scoring with batchmax's own reader and writer gives the same table as with pyarrow's.

    The read statistics say which of them read the column chunks.
    """
    matrix = np.random.default_rng(2).standard_normal((500, 10)).astype(np.float32)
    table = pa.table({"id": range(500), "logits": lists(matrix), "label": np.arange(500) % 10})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=120)
    recorder = Recorder()
    for way in ("fast", "pyarrow"):
        monkeypatch.setenv("BATCHMAX_PARQUET", "pyarrow" if way == "pyarrow" else "")
        batchmax.score(tmp_path / "in.parquet", str(tmp_path / f"{way}.parquet"), progress=recorder)
    fast, slow = (pq.ParquetFile(tmp_path / f"{way}.parquet") for way in ("fast", "pyarrow"))
    assert fast.schema_arrow == slow.schema_arrow
    assert fast.schema_arrow.metadata == slow.schema_arrow.metadata
    assert fast.num_row_groups == slow.num_row_groups == 5
    assert fast.read().equals(slow.read())
    assert "read as matrices: 5, by pyarrow: 0; of other columns copied as they are: 10" in recorder.details[0]
    assert "read as matrices: 0, by pyarrow: 5; of other columns copied as they are: 0" in recorder.details[1]


def test_a_row_group_that_turns_out_not_to_be_a_matrix_is_read_again(tmp_path, monkeypatch):
    """If a null turns up in the middle of a row group, pyarrow reads it again; no row is repeated or lost."""
    monkeypatch.setattr(batchmax.sources.chunks, "MAX_CHUNK_BYTES", 400)
    rows = np.random.default_rng(3).standard_normal((300, 10)).astype(np.float32).tolist()
    # The number of values is that of a matrix, so only the pages show that it isn't one.
    rows[171], rows[172] = None, [0.0] * 19
    table = pa.table({"id": range(300), "logits": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "in.parquet", data_page_size=200, write_batch_size=10)
    recorder = Recorder()
    summary = batchmax.score(
        tmp_path / "in.parquet",
        str(tmp_path / "out.parquet"),
        on_bad_row="null",
        outputs="probs,status",
        progress=recorder,
    )
    counts = "column chunks of logits read as matrices: 0, by pyarrow: 1; of other columns copied as they are: 1"
    assert recorder.details == [f"{counts} (not 1 because rows have different lengths)"]
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["id"].to_pylist() == list(range(300))
    assert summary.status_counts == {"null_logits": 1, "bad_length": 1, "ok": 298}
    want = batchmax.softmax(np.array(rows[:171] + rows[173:], np.float32))
    assert out["probs"].drop_null().to_pylist() == want.tolist()

"""Pages that are read directly into the output hold the same values as pages that are read one by one."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmax.kernels.parquet import snappy
from batchmax.parquet import Footer, MatrixReader, PageError
from batchmax.parquet.levels import varint
from batchmax.parquet.reading import page_reader, raw_pages, scatter_read

N_ROWS, N_CLASSES = 48, 50


@pytest.fixture(autouse=True)
def small_window(monkeypatch):
    """Shrink the read window, so that no page is already in memory."""
    monkeypatch.setattr(page_reader, "READ_BYTES", 1)
    monkeypatch.setattr(raw_pages, "HEADER", 128)


@pytest.fixture
def counts(monkeypatch):
    """Return a list of how many pages were read into place at a time."""
    seen = []
    read = scatter_read.PageLayout.read

    def counting(*arguments):
        seen.append(read(*arguments))
        return seen[-1]

    monkeypatch.setattr(scatter_read.PageLayout, "read", counting)
    return seen


def write(path, matrix, **options):
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    lists = pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel()))
    given = {"use_dictionary": False, "data_page_size": 8 * matrix[0].nbytes, "write_batch_size": matrix.shape[1]}
    pq.write_table(pa.table({"logits": lists}), path, **(given | options))


def read(path, footer, shape, dtype, cut=None):
    """Return the only column of a file, read in two parts if ``cut`` is given, or None if it is refused."""
    out = np.empty(shape, dtype)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        reader = MatrixReader(descriptor, footer.row_group(0).chunk(0), footer.leaves[0], *shape)
        reader.read_into(out[:cut])
        if cut is not None:
            reader.read_into(out[cut:])
    except PageError:
        return None
    finally:
        os.close(descriptor)
    return out


def logits(n_rows, n_classes, dtype=np.float32):
    return np.random.default_rng(n_rows).standard_normal((n_rows, n_classes)).astype(dtype)


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_lie_where_they_belong(tmp_path, counts, codec, version, checksum, dtype):
    """For any number of classes and any cut between two reads, the values are right, and pages are read into place."""
    for n_rows, n_classes in ((200, 300), (3000, 10), (40, 20_000), (30_000, 1)):
        matrix = logits(n_rows, n_classes, dtype)
        path = tmp_path / "x.parquet"
        size = max(n_rows * n_classes * matrix.itemsize // 12, 8192)
        options = {"compression": codec, "data_page_version": version, "write_page_checksum": checksum}
        write(path, matrix, data_page_size=size, **options)
        footer = Footer.parse(path.read_bytes())
        for cut in (None, 1, n_rows // 3, n_rows - 1):
            counts.clear()
            assert np.array_equal(read(path, footer, matrix.shape, dtype, cut), matrix), (n_classes, cut)
            assert sum(counts) >= 4, (n_classes, cut, counts)


@pytest.mark.faults(keep=lambda: True)
@pytest.mark.parametrize("codec", ["NONE", "SNAPPY"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_flipped_byte_is_seen_as_otherwise(tmp_path, monkeypatch, counts, everything, codec, version, checksum):
    """A flipped bit gives the same result or refusal as reading pages one by one; with checksums, no wrong value."""
    matrix = logits(N_ROWS, N_CLASSES)
    path = tmp_path / "x.parquet"
    write(path, matrix, compression=codec, data_page_version=version, write_page_checksum=checksum)
    whole = path.read_bytes()
    footer = Footer.parse(whole)
    assert np.array_equal(read(path, footer, matrix.shape, np.float32), matrix)
    assert sum(counts) >= 4
    chunk = pq.read_metadata(path).row_group(0).column(0)
    refused = 0
    places = np.arange(chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size)
    # Test fewer of the many bytes of numbers, and by default only every third of these positions.
    page = len(places) // (N_ROWS // 8)
    places = places[(places % page < 250) | (places % 17 == 0)]
    for at in places[:: 1 if everything else 3].tolist():
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        found = read(path, footer, matrix.shape, np.float32)
        with monkeypatch.context() as patch:
            patch.setattr(page_reader.PageReader, "repeat", lambda *_: None)
            plain = read(path, footer, matrix.shape, np.float32)
        refused += found is None
        assert (found is None) == (plain is None), at
        assert found is None or found.tobytes() == plain.tobytes(), at
        assert found is None or not checksum or np.array_equal(found, matrix), at
    assert refused


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY"])
def test_a_file_that_ends_early_is_refused(tmp_path, codec):
    """A file that is cut off anywhere in its pages is refused."""
    matrix = logits(N_ROWS, N_CLASSES)
    path = tmp_path / "x.parquet"
    write(path, matrix, compression=codec)
    whole = path.read_bytes()
    footer = Footer.parse(whole)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    for length in range(4, chunk.data_page_offset + chunk.total_compressed_size, 7):
        path.write_bytes(whole[:length])
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(PageError):
                MatrixReader(descriptor, footer.row_group(0).chunk(0), footer.leaves[0], *matrix.shape).read_into(
                    np.empty_like(matrix)
                )
        finally:
            os.close(descriptor)


def test_pages_without_values_are_no_layout(tmp_path):
    """Pages without values, or with values outside their body or not in one piece, have no layout."""
    path = tmp_path / "x.parquet"
    write(path, logits(4, 3), compression="NONE")
    with path.open("rb") as file:
        window = raw_pages.RangeReader(file.fileno(), 4, path.stat().st_size, 1000)
        page = next(raw_pages.CompressedPages(window))
        assert scatter_read.PageLayout.of(page, []) is None
        assert scatter_read.PageLayout.of(page, [page.body[-4:], page.body[-4:]]) is None
        assert scatter_read.PageLayout.of(page, [page.body[-8:-4]]) is None
        assert scatter_read.PageLayout.of(page, [page.body[len(page.body) :]]) is None
        assert scatter_read.PageLayout.of(page, [np.zeros(4, np.uint8)]) is None
        assert scatter_read.PageLayout.of(page, [page.body[-4:]]) is not None
        empty = replace(page, body=page.body[:0])
        assert scatter_read.PageLayout.of(empty, [empty.body]) is None


def stored(data, size, n_head=1 << 16, n_pieces=500):
    """Return the bytes that the kernel found, or None if it found nothing."""
    head, places = np.zeros(n_head, np.uint8), np.zeros((n_pieces, 2), np.int64)
    filled, count = snappy.stored(np.frombuffer(data, np.uint8), size, head, places)
    assert (filled < 0) == (count == 0)
    if not count:
        return None
    return head[:filled].tobytes() + b"".join(data[start:end] for start, end in places[:count])


@given(
    st.binary(max_size=20),
    st.integers(0, 3000),
    st.integers(0, 4),
    st.binary(max_size=2000),
    st.integers(0, 200_000),
    st.integers(0, 2**32 - 1),
)
def test_stored_bytes_are_what_snappy_packed(pattern, repeats, width, text, n_random, seed):
    """Stored bytes after compressed levels are found unchanged, or not at all."""
    random = np.random.default_rng(seed)
    levels = pattern * repeats + text + bytes(range(width)) * 10
    whole = levels + random.bytes(n_random)
    raw_pages = pa.Codec("snappy").compress(whole, asbytes=True)
    assert stored(raw_pages, len(whole)) in {whole, None}
    assert stored(raw_pages, len(whole) + 1) is None


def test_levels_that_snappy_packed_do_not_hide_what_it_stored():
    """The numbers after levels that snappy compressed are found, unless the buffers are too small."""
    numbers = np.random.default_rng(0).bytes(300_000)
    for levels in (b"\x02\x00\xce\x0f\x01" * 264, bytes(range(251)) * 100, b"", b"\xfe\xfb\xef\xbf" * 8000):
        whole = levels + numbers
        raw_pages = pa.Codec("snappy").compress(whole, asbytes=True)
        assert stored(raw_pages, len(whole)) == whole
        assert stored(raw_pages, len(whole), n_pieces=3) is None
    assert stored(raw_pages, len(whole), n_head=100) is None


LITERAL = b"\xf4\xe7\x07" + bytes(2024)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (LITERAL[:-1], 2024),
        (LITERAL[:2], 2024),
        (b"\x00a" + LITERAL + b"\x11\x01", 2033),
        (LITERAL, 2025),
        (LITERAL + b"\x00", 2025),
        (b"\x0c" + LITERAL, 2024),
        (b"\x01\x01" + LITERAL, 2028),
        (b"\x00a\x05\x00" + LITERAL, 2030),
        (b"\x00a\x05", 5),
        (b"\x04ab", 2),
    ],
    ids=[
        "cut literal",
        "cut length",
        "copy after it",
        "too short",
        "no byte after a tag",
        "literal into the next tag",
        "copy of nothing",
        "copy from itself",
        "cut copy",
        "no long literal",
    ],
)
def test_wrong_lengths_are_refused(data, size):
    """Data that breaks any one rule of the snappy format is refused."""
    assert stored(varint(2024) + LITERAL, 2024) == bytes(2024)
    assert stored(varint(size) + data, size) is None


@given(st.binary(max_size=200), st.integers(0, 5000), st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255))))
def test_no_bytes_make_the_kernel_read_elsewhere(levels, n_random, flips):
    """For damaged data, the kernel finds nothing, or agrees with Arrow's snappy."""
    whole = levels * 20 + np.random.default_rng(n_random).bytes(n_random)
    raw_pages = bytearray(pa.Codec("snappy").compress(whole, asbytes=True))
    for at, value in flips:
        raw_pages[at % len(raw_pages)] = value
    found = stored(bytes(raw_pages), len(whole))
    if found is not None:
        assert found == pa.Codec("snappy").decompress(bytes(raw_pages), len(whole), asbytes=True)

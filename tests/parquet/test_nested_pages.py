"""Tests the reader of sequences against pyarrow, with pages read at once or as a stream: equal values, or an error."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchmax.kernels.parquet.nested_levels import BEGINS, CONTINUES, EMPTY, NULL
from batchmax.kernels.parquet.snappy import check_snappy
from batchmax.parquet import Footer, PageError, SequenceReader, first_inner_length
from batchmax.parquet.reading import dictionary_values, large_pages, page_reader, raw_pages
from batchmax.parquet.reading.large_pages import BLOCK_TAG, DecompressedStream

CODECS = ["NONE", "SNAPPY", "ZSTD", "GZIP", "BROTLI", "LZ4"]
ENCODINGS = {
    "plain": {"use_dictionary": False},
    "dictionary": {"use_dictionary": True},
    "split": {"use_dictionary": False, "use_byte_stream_split": True},
}
SNAPPY = 1


def nested(lengths, matrix, kind="list"):
    """Return a column of sequences of the given lengths; None is a null row. The tokens are the rows of a matrix."""
    item = pa.from_numpy_dtype(matrix.dtype)
    inner = pa.list_(item, matrix.shape[1]) if kind == "fixed" else pa.list_(item)
    tokens = iter(matrix.tolist())
    rows = [None if length is None else list(itertools.islice(tokens, length)) for length in lengths]
    return pa.array(rows, pa.large_list(pa.large_list(item)) if kind == "large_list" else pa.list_(inner))


def write(path, array, **options):
    pq.write_table(pa.table({"logits": array}), path, write_page_checksum=True, **options)


def events_of(lengths):
    """Return the events that a reader reports for rows of the given lengths."""
    alone = {None: [NULL], 0: [EMPTY]}
    return [event for length in lengths for event in alone.get(length) or [BEGINS] + [CONTINUES] * (length - 1)]


def read(path, n_classes, piece, dtype=np.float32):
    """Read a file's only column, ``piece`` tokens at a time.

    Return the events of all row groups, with the result of ``continues`` after each read, and the tokens.
    """
    events, tokens = [], []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        footer = Footer.read(descriptor)
        column = footer.column("logits")
        for group in range(footer.n_row_groups):
            rows = footer.row_group(group)
            reader = SequenceReader(descriptor, rows.chunk(column.first_leaf), column, rows.n_rows, n_classes)
            assert reader.dtype == dtype
            while True:
                out = np.empty((piece, n_classes), dtype)
                found = reader.read_into(out)
                count = int(np.count_nonzero(found <= CONTINUES))
                events += found.tolist()
                tokens.append(out[:count])
                continues = reader.continues()
                if not len(found):
                    assert not continues
                    break
                # The reader knows whether the next token belongs to the last row before it reads the token.
                events.append(continues)
    finally:
        os.close(descriptor)
    return events, np.concatenate(tokens)


def check(path, lengths, matrix, piece):
    """Compare the events and tokens that are read with those that were written."""
    events, tokens = read(path, matrix.shape[1], piece, matrix.dtype)
    said = [event for event in events if not isinstance(event, bool)]
    assert said == events_of(lengths)
    assert tokens.tobytes() == matrix.tobytes()
    for promise, following in itertools.pairwise([*events, None]):
        if isinstance(promise, bool):
            assert promise == (following == CONTINUES)


@pytest.fixture
def streams(monkeypatch):
    """Return a function that makes readers treat every page as large, and read it in pieces of the given size."""

    def small(piece):
        monkeypatch.setattr(page_reader, "LARGE_PAGE_BYTES", 0)
        monkeypatch.setattr(large_pages, "PIECE", piece)
        monkeypatch.setattr(raw_pages, "PIECE", piece)
        monkeypatch.setattr(large_pages, "SNAPPY_PIECE", piece)
        monkeypatch.setattr(dictionary_values, "INDEX_PIECE", max(piece, 64))

    return small


@pytest.mark.parametrize("how", ["whole", "a stream in small pieces", "a stream"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_what_pyarrow_writes_is_read(tmp_path, version, codec, how, streams):
    """Sequences written by pyarrow are read correctly.

    Cases: every encoding, number of classes and list type; tokens across pages; null and empty rows. Large pages
    with LZ4 or BYTE_STREAM_SPLIT are refused.
    """
    if how != "whole":
        streams(16 if "small" in how else 1 << 18)
    random = np.random.default_rng(0)
    path = tmp_path / "x.parquet"
    for (encoding, options), n_classes, dtype in itertools.product(
        ENCODINGS.items(), (1, 2, 9, 300), (np.float32, np.float64)
    ):
        lengths = [3, 0, None, 7, 1, 0, 40, None, 2]
        # Few distinct values, so that dictionaries are kept and codecs can compress them.
        matrix = random.integers(0, 50, (53, n_classes)).astype(dtype)
        kind = random.choice(["list", "large_list", "fixed"]) if None not in lengths else "list"
        sizes = {"data_page_size": 200, "write_batch_size": 16, "row_group_size": 5}
        write(path, nested(lengths, matrix, kind), data_page_version=version, compression=codec, **sizes, **options)
        if how != "whole" and (codec == "LZ4" or encoding == "split"):
            with pytest.raises(PageError, match="a large page"):
                read(path, n_classes, 10, dtype)
            continue
        for piece in (1, 10, 100):
            check(path, lengths, matrix, piece)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=25),
    n_classes=st.integers(1, 40),
    page=st.integers(1, 2000),
    group=st.integers(1, 25),
    piece=st.integers(1, 50),
    version=st.sampled_from(["1.0", "2.0"]),
    codec=st.sampled_from(CODECS[:-1]),
    dictionary=st.booleans(),
    stream=st.booleans(),
    spread=st.sampled_from([3, 10_000]),
)
def test_any_rows_any_pages_any_pieces(
    tmp_path_factory, lengths, n_classes, page, group, piece, version, codec, dictionary, stream, spread
):
    """The tokens and their rows don't depend on the sizes of pages, row groups and reads."""
    n_tokens = sum(filter(None, lengths))
    matrix = (np.arange(n_tokens * n_classes, dtype=np.float32).reshape(n_tokens, n_classes) * 7919) % spread
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    sizes = {"row_group_size": group, "data_page_size": page, "write_batch_size": 3}
    write(
        path, nested(lengths, matrix), use_dictionary=dictionary, data_page_version=version, compression=codec, **sizes
    )
    with pytest.MonkeyPatch.context() as patch:
        if stream:
            patch.setattr(page_reader, "LARGE_PAGE_BYTES", 0)
            patch.setattr(large_pages, "SNAPPY_PIECE", 8 + page)
            patch.setattr(dictionary_values, "INDEX_PIECE", 64 + page)
        check(path, lengths, matrix, piece)


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY", "ZSTD"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", ["plain", "dictionary"])
def test_a_row_of_many_blocks_is_a_stream(tmp_path, encoding, version, codec, streams):
    """A page of megabytes, with literal and compressed blocks, is read correctly in pieces of any number of tokens."""
    streams(1 << 18)
    random = np.random.default_rng(1)
    matrix = random.standard_normal((400, 1000)).astype(np.float32)
    matrix[100:130] = 0.25
    matrix[250:251, :500] = 4
    path = tmp_path / "x.parquet"
    write(path, nested([400], matrix), compression=codec, data_page_version=version, **ENCODINGS[encoding])
    for piece in (7, 90, 500):
        check(path, [400], matrix, piece)


@pytest.mark.parametrize(
    "rows",
    [
        [[[1.0, 2.0], None], [[3.0, 4.0]]],
        [[[1.0, 2.0], [None, 1.0]], [[3.0, 4.0]]],
        [[[1.0, 2.0, 3.0], [1.0]], [[3.0, 4.0]]],
        [[[1.0], [2.0, 3.0, 4.0]], [[5.0, 6.0]]],
        [[[1.0, 2.0], []], [[3.0, 4.0, 5.0, 6.0]]],
        [[[1.0]], [[2.0]]],
    ],
    ids=["null token", "null value", "ragged", "ragged, as many values", "empty token", "one token of two"],
)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_other_lengths_are_refused(tmp_path, rows, version, stream, streams):
    """Null values, null or empty tokens, and tokens of several lengths are refused.

    This also holds if the number of values matches.
    """
    if stream:
        streams(8)
    write(tmp_path / "x.parquet", pa.array(rows, pa.list_(pa.list_(pa.float32()))), data_page_version=version)
    with pytest.raises(PageError):
        read(tmp_path / "x.parquet", 2, 10)


@pytest.mark.faults(keep=lambda: True)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("checksum", [True, False], ids=["checksums", "without"])
@pytest.mark.parametrize("codec", ["SNAPPY", "ZSTD", "NONE"])
def test_no_flipped_byte_crashes(tmp_path, codec, checksum, version, stream, streams, everything):
    """A page with a flipped bit is refused or read; with checksums, no value is wrong.

    Two bits of each byte are flipped in turn, by default of every third byte only.
    """
    if stream:
        streams(16)
    lengths = [3, 0, 5, None, 2, 10]
    matrix = np.arange(60, dtype=np.float32).reshape(20, 3) % 7
    path = tmp_path / "x.parquet"
    sizes = {"data_page_size": 60, "write_batch_size": 4}
    table = pa.table({"logits": nested(lengths, matrix)})
    pq.write_table(table, path, write_page_checksum=checksum, data_page_version=version, compression=codec, **sizes)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    whole = path.read_bytes()
    footer = Footer.parse(whole)
    column = footer.column("logits")
    start, end = chunk.dictionary_page_offset, chunk.dictionary_page_offset + chunk.total_compressed_size
    refused = 0
    step = 1 if everything else 3
    for at in range(start, end, step):
        for bit in (0, 7):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            path.write_bytes(flipped)
            descriptor = os.open(path, os.O_RDONLY)
            out = np.empty((21, 3), np.float32)
            try:
                reader = SequenceReader(descriptor, footer.row_group(0).chunk(0), column, len(lengths), 3)
                events = reader.read_into(out)
                same = events.tolist() == events_of(lengths) and np.array_equal(out[:20], matrix)
                assert same or not checksum, (at, bit)
            except PageError:
                refused += 1
            finally:
                os.close(descriptor)
    assert refused > (end - start) // step // 2


def test_cut_off_anywhere(tmp_path, streams):
    """A file that is truncated inside the column is refused, also inside a page that is read as a stream."""
    matrix = np.random.default_rng(3).standard_normal((20, 3000)).astype(np.float32)
    path = tmp_path / "x.parquet"
    write(path, nested([20], matrix), use_dictionary=False)
    whole = path.read_bytes()
    footer = Footer.parse(whole)
    column, chunk = footer.column("logits"), footer.row_group(0).chunk(0)
    for piece in (None, 1 << 16):
        if piece is not None:
            streams(piece)
        for length in range(4, 240_000, 7919):
            path.write_bytes(whole[:length])
            descriptor = os.open(path, os.O_RDONLY)
            try:
                with pytest.raises(PageError):
                    SequenceReader(descriptor, chunk, column, 1, 3000).read_into(np.empty((20, 3000), np.float32))
            finally:
                os.close(descriptor)


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([None, [], [[1.0, 2.0, 3.0]]], 3),
        ([[None, [1.0, 2.0]]], 2),
        ([[[], None], [[None, 1.0]]], 2),
        ([[[1.0]], [[2.0]]], 1),
        ([None, [], [None], [[]]], None),
        ([[[0.5] * 5000]], 5000),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_length_of_the_first_token(tmp_path, rows, length, stream, streams):
    """The length of the first token is found after null and empty rows and tokens, and in a token across many pages."""
    if stream:
        streams(64)
    path = tmp_path / "x.parquet"
    write(path, pa.array(rows, pa.list_(pa.list_(pa.float32()))), data_page_size=100, write_batch_size=10)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        footer = Footer.read(descriptor)
        column = footer.column("logits")
        groups = range(footer.n_row_groups)
        found = [first_inner_length(descriptor, footer.row_group(n).chunk(0), column) for n in groups]
        assert next(filter(None, found), None) == length
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([[0.5, 1.5], [0.5, 1.5]], 2),
        ([None, [], [0.5, None, 2.5], [1.5]], 3),
        ([[None], [0.5]], 1),
        ([None, []], None),
        ([[0.5] * 5000, [0.5] * 5000], 5000),
    ],
)
@pytest.mark.parametrize("nullable", [False, True], ids=["required", "optional"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_length_of_the_first_row(tmp_path, rows, length, nullable, stream, streams):
    """The length of the first row of a list column is found after null and empty rows, whatever is optional."""
    if stream:
        streams(64)
    if not nullable:
        rows = [[number or 0.0 for number in row] for row in rows if row is not None]
    path = tmp_path / "x.parquet"
    kind = pa.list_(pa.field("element", pa.float32(), nullable=nullable))
    schema = pa.schema([pa.field("logits", kind, nullable=nullable)])
    pq.write_table(pa.table([pa.array(rows, kind)], schema=schema), path, data_page_size=100, write_batch_size=10)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        footer = Footer.read(descriptor)
        assert first_inner_length(descriptor, footer.row_group(0).chunk(0), footer.column("logits")) == length
    finally:
        os.close(descriptor)


# Snappy as a stream


def text_of(random, parts):
    """Return bytes made of parts: random bytes, repetitions of the last byte, and repetitions of earlier bytes."""
    made = bytearray()
    for kind, size in parts:
        if kind == "random" or not made:
            made += random.bytes(size)
        elif kind == "same":
            made += bytes([made[-1]]) * size
        else:
            start = int(random.integers(0, len(made)))
            made += (made[start:] * (size // (len(made) - start) + 1))[:size]
    return bytes(made)


def unpacked(folder, body, size, pieces):
    """Return the result of decompressing Snappy data as a stream, in pieces of the given sizes."""
    path = folder / "body"
    path.write_bytes(b"before" + body)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        feed = DecompressedStream(raw_pages.CompressedBody(descriptor, {}, 6, 6 + len(body)), SNAPPY, size)
        taken = []
        for count in itertools.cycle(pieces):
            if not feed.left:
                return b"".join(taken)
            taken.append(feed.take(min(count, feed.left)).tobytes())
    finally:
        os.close(descriptor)


@settings(max_examples=80)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(["random", "same", "again"]), st.integers(1, 200_000)), min_size=1, max_size=6
    ),
    pieces=st.lists(st.sampled_from([1000, 4096, 65_536, 65_537, 99_999, 1 << 20]), min_size=1, max_size=4),
    piece=st.sampled_from([8, 100, 1 << 12, 1 << 18]),
    blocks=st.sampled_from([1, 2, 64]),
)
@example(parts=[("random", 65_536 * 5)], pieces=[65_536], piece=1 << 12, blocks=1)
@example(parts=[("random", 65_536 * 5 + 1)], pieces=[65_537], piece=100, blocks=2)
def test_a_stream_of_snappy_is_what_was_packed(tmp_path_factory, parts, pieces, piece, blocks):
    """A Snappy stream decompresses to the original bytes, wherever it is cut.

    The data have literals of whole and partial blocks, and copies between them.
    """
    text = text_of(np.random.default_rng(len(parts)), parts)
    body = pa.Codec("snappy").compress(text).to_pybytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_pages, "SNAPPY_PIECE", piece)
        patch.setattr(large_pages, "FIRST_BLOCKS", blocks)
        assert unpacked(tmp_path_factory.mktemp("body"), body, len(text), pieces) == text


def test_literals_are_read_to_where_they_go(tmp_path, monkeypatch):
    """Blocks that Snappy can't compress are read directly into the output, not into the compressed buffer."""
    text = np.random.default_rng(0).bytes(40 << 16)
    body = pa.Codec("snappy").compress(text).to_pybytes()
    assert body.count(BLOCK_TAG) >= 40
    read_in = []
    plain = raw_pages.CompressedBody.readinto
    monkeypatch.setattr(
        raw_pages.CompressedBody, "readinto", lambda self, out: read_in.append(len(out)) or plain(self, out)
    )
    assert unpacked(tmp_path, body, len(text), [len(text)]) == text
    assert sum(read_in) <= large_pages.SNAPPY_PIECE + 1000


def test_a_system_that_reads_less_than_asked_for(tmp_path, monkeypatch):
    """A short read, in a tag or in a literal, is continued where it ended."""
    real, given_up = os.preadv, itertools.cycle([1, 70_000, 65_535, 2, 65_538, 131_072])

    def short(descriptor, buffers, at):
        most, some = next(given_up), []
        for buffer in buffers:
            some.append(memoryview(buffer)[:most])
            most -= len(some[-1])
            if not most:
                break
        return real(descriptor, some, at)

    monkeypatch.setattr(os, "preadv", short)
    text = np.random.default_rng(0).bytes(9 << 16)
    assert unpacked(tmp_path, pa.Codec("snappy").compress(text).to_pybytes(), len(text), [3 << 16]) == text


@settings(max_examples=150)
@given(
    data=st.binary(max_size=80),
    size=st.integers(0, 300),
    pieces=st.lists(st.integers(1, 50), min_size=1, max_size=3),
)
def test_any_bytes_are_unpacked_or_refused(tmp_path_factory, data, size, pieces):
    """Arbitrary bytes are refused as Snappy data or decompressed.

    The result has the declared size and equals that of pyarrow's decoder.
    """
    length = bytes([size & 0x7F | 0x80, size >> 7])
    folder = tmp_path_factory.mktemp("body")
    try:
        found = unpacked(folder, length + data, size, pieces)
    except PageError:
        return
    assert len(found) == size
    if size:
        assert found == pa.Codec("snappy").decompress(length + data, size).to_pybytes()


@settings(max_examples=300)
@given(
    data=st.one_of(
        st.binary(max_size=80),
        st.lists(st.sampled_from([b"abcd", b"\0\0\0\0", b"xyz" * 40, bytes(range(200))]), max_size=9).map(
            lambda parts: pa.Codec("snappy").compress(b"".join(parts)).to_pybytes()[1:]
        ),
    ),
    size=st.integers(0, 1 << 11),
    change=st.tuples(st.integers(0, 1 << 11), st.integers(0, 255)),
    count=st.integers(0, 70),
)
@example(data=bytes([0xF0, 3, 1, 2, 3, 4]), size=4, change=(1 << 11, 0), count=4)
def test_snappy_is_checked_as_it_is_unpacked(data, size, change, count):
    """Data are valid if pyarrow unpacks them to the declared size, and the first bytes are the same."""
    data = bytearray(data)
    if change[0] < len(data):
        data[change[0]] = change[1]
    for length in {size, size & 0xFF, *range(0, 260, 4)}:
        whole = np.frombuffer(bytes([length & 0x7F | 0x80, length >> 7]) + data, np.uint8)
        head = np.empty(min(count, length), np.uint8)
        valid = check_snappy(whole, length, head)
        try:
            text = pa.Codec("snappy").decompress(whole, length).to_pybytes()
        except (OSError, pa.ArrowInvalid):
            assert not valid
        else:
            assert valid
            assert head.tobytes() == text[:count]


def test_damage_beyond_the_first_block_is_seen(tmp_path):
    """A wrong tag, a wrong length of a literal, and missing bytes are refused in blocks after the first."""
    text = np.random.default_rng(0).bytes(6 << 16)
    body = bytearray(pa.Codec("snappy").compress(text).to_pybytes())
    tag = body.index(BLOCK_TAG, 3 << 16)
    for at, value in ((tag, 0), (tag, 0xFE), (tag + 1, 0), (tag + 2, 0x7F)):
        wrong = body.copy()
        wrong[at] = value
        with pytest.raises(PageError):
            unpacked(tmp_path, bytes(wrong), len(text), [1 << 16])
    for end in (tag, tag + 2, tag + 1000, len(body) - 1):
        with pytest.raises(PageError):
            unpacked(tmp_path, bytes(body[:end]), len(text), [1 << 17])

"""Tests the Parquet writer: pyarrow reads back what was written or copied, and no metadata are stale."""

from __future__ import annotations

import decimal
import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchmax
import batchmax.sources.chunks
from batchmax.errors import BatchmaxError
from batchmax.kernels.parquet.rle import varint
from batchmax.parquet import (
    ChunkCopyError,
    FileSchema,
    FileWriter,
    Footer,
    FooterError,
    MatrixFormat,
    MatrixReader,
    MatrixRows,
    copy_column,
    encode_matrix,
)
from batchmax.parquet.fields import COLUMN_CHUNK, check_fields, read_page_header
from batchmax.parquet.writing import list_writer
from tests.support.progress import Recorder

CODECS = ("NONE", "SNAPPY", "ZSTD", "GZIP", "BROTLI", "LZ4")


def write(path, runs, form, *, nullable=True):
    """Write one row group of a list column ``x``."""
    item = pa.field("element", pa.from_numpy_dtype(runs[0].values.dtype), nullable=nullable)
    schema = FileSchema(pa.schema([pa.field("x", pa.list_(item))]))
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        writer = FileWriter(descriptor, schema, "test version 1")
        writer.append(sum(run.n_rows for run in runs), {"x": [encode_matrix(runs, form)]}, ())
        writer.finish()
    finally:
        os.close(descriptor)


def read(path):
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read()["x"].to_pylist()


def want(runs):
    """Return the rows as lists; a null row is None."""
    rows = []
    for run in runs:
        values = iter(run.values.tolist())
        missing = [False] * len(run.values) if run.missing is None else run.missing.tolist()
        rows += [None if null else next(values) for null in missing]
    return rows


N_CLASSES = [1, 2, 3, 8, 10, 63, 64, 65, 1000]


@pytest.mark.sweep(keep=lambda n_classes, codec: (N_CLASSES.index(n_classes) + CODECS.index(codec)) % 3 == 0)
@pytest.mark.parametrize("n_classes", N_CLASSES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("split", [False, True], ids=["plain", "split"])
@pytest.mark.parametrize("nulls", ["none", "some", "all"])
def test_pages_of_every_kind_are_read(tmp_path, monkeypatch, n_classes, codec, split, nulls):
    """The pages that the writer makes are read correctly by pyarrow.

    Cases: every codec and encoding; rows shorter and longer than a run of levels; null rows; several pages and runs.
    """
    monkeypatch.setattr(list_writer, "PAGE_BYTES", 3000)
    random = np.random.default_rng(n_classes)
    for dtype, repeats in itertools.product((np.float32, np.float64), (False, True)):
        runs = []
        for n_rows in (1, 257, 90):
            values = random.standard_normal((n_rows, n_classes)).astype(dtype)
            if repeats:  # values that a codec can compress
                values = np.zeros_like(values)
            missing = {"none": None, "some": random.random(n_rows) < 0.2, "all": np.ones(n_rows, bool)}[nulls]
            runs.append(MatrixRows(values if missing is None else values[~missing], missing))
        path = tmp_path / f"{np.dtype(dtype)}-{repeats}.parquet"
        write(path, runs, MatrixFormat(codec, 3, split))
        assert read(path) == want(runs)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_written_is_read_as_a_matrix(tmp_path, codec):
    """The matrix reader reads pages of 1 MiB from the writer, including lists whose values can't be null."""
    matrix = np.random.default_rng(0).standard_normal((4000, 200)).astype(np.float32)
    for definition, split in itertools.product((2, 3), (False, True)):
        path = tmp_path / f"{definition}-{split}.parquet"
        write(path, [MatrixRows(matrix)], MatrixFormat(codec, definition, split), nullable=definition == 3)
        out = np.empty_like(matrix)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            footer = Footer.read(descriptor)
            MatrixReader(descriptor, footer.row_group(0).chunk(0), footer.leaves[0], *matrix.shape).read_into(out)
        finally:
            os.close(descriptor)
        assert np.array_equal(out, matrix)
        assert pq.read_table(path)["x"].combine_chunks().flatten().to_numpy().tobytes() == matrix.tobytes()


@given(st.data())
def test_any_rows_are_read(tmp_path_factory, data):
    """Random rows with random nulls, page sizes, codecs and encodings are read correctly by pyarrow."""
    n_rows = data.draw(st.integers(1, 300))
    n_classes = data.draw(st.integers(1, 130))
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    values = random.integers(0, data.draw(st.sampled_from([2, 2**30])), (n_rows, n_classes)).astype(np.float32)
    missing = random.random(n_rows) < data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    run = MatrixRows(values[~missing], missing) if missing.any() else MatrixRows(values)
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_writer, "PAGE_BYTES", data.draw(st.sampled_from([1, 64, 5000, 1 << 20])))
        write(path, [run], MatrixFormat(data.draw(st.sampled_from(CODECS)), 3, data.draw(st.booleans())))
    assert read(path) == want([run])


def test_pages_end_with_rows_and_have_a_checksum(tmp_path):
    """Pages end at the end of a row and have about 1 MiB each.

    They have a checksum, so a changed byte is an error for readers that check it.
    """
    matrix = np.random.default_rng(0).standard_normal((3000, 1000)).astype(np.float32)
    path = tmp_path / "x.parquet"
    write(path, [MatrixRows(matrix)], MatrixFormat("SNAPPY"))
    pages = -(-3000 // (list_writer.PAGE_BYTES // 4000))
    chunk = pq.read_metadata(path).row_group(0).column(0)
    assert 0 < chunk.total_compressed_size - matrix.nbytes < pages * 3000
    whole = bytearray(path.read_bytes())
    whole[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(OSError, match="CRC"):
        read(path)


# Column chunks that a job copies from its input.


def counts(way, tmp_path, table, options=None, **given):
    """Write a table and score it; return the output file and the statistics of how columns were read."""
    source, out = tmp_path / "in.parquet", tmp_path / f"{way}.parquet"
    pq.write_table(table, source, **{"row_group_size": 100, **(options or {})})
    recorder = Recorder()
    batchmax.score(source, str(out), progress=recorder, if_exists="overwrite", **given)
    return pq.ParquetFile(out), recorder.details[0]


def rows(n_rows=300, n_classes=5):
    random = np.random.default_rng(1)
    matrix = random.standard_normal((n_rows, n_classes)).astype(np.float32)
    some = random.random(n_rows) < 0.2
    number = np.arange(n_rows)
    return pa.table(
        {
            "id": pa.array(number),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), n_classes),
            "label": pa.array(number % n_classes, mask=some),
            "text": pa.array([f"row {one // 3}" for one in number], mask=some),
            "group": pa.array([f"{one % 4}" for one in number]).dictionary_encode(),
            "when": pa.array(number * 1_000_000, pa.timestamp("us", "Europe/Berlin")),
            "price": pa.array([decimal.Decimal(int(one)) / 4 for one in number], pa.decimal128(12, 2)),
            "tags": pa.array([[f"{one}"] * (one % 3) if one % 7 else None for one in number]),
            "inner": pa.array([{"a": int(one), "b": [float(one)]} for one in number]),
            "flag": pa.array(number % 2 == 0),
            "code": pa.array([bytes([one % 256] * 4) for one in number], pa.binary(4)),
            "map": pa.array([[(f"{one}", int(one))] for one in number], pa.map_(pa.string(), pa.int64())),
        }
    )


def test_carried_columns_are_copied(tmp_path):
    """If row groups match, every carried column that is stored as pyarrow would store it is copied unchanged."""
    table = rows()
    out, detail = counts("out", tmp_path, table)
    assert "copied as they are: 33" in detail
    carried = table.drop_columns(["logits"])
    assert out.read(carried.column_names).equals(carried)
    assert out.schema_arrow.names == [*carried.column_names, "probs", "loss"]
    source = pq.read_metadata(tmp_path / "in.parquet")
    for group in range(3):
        for leaf in range(out.metadata.num_columns):
            ours = out.metadata.row_group(group).column(leaf)
            theirs = [source.row_group(group).column(index) for index in range(source.num_columns)]
            same = [one for one in theirs if one.path_in_schema == ours.path_in_schema]
            assert not same or same[0].total_compressed_size == ours.total_compressed_size


@pytest.mark.parametrize(
    "given",
    [
        {"row_group_size": 70},
        {"compression": "zstd"},
        {"limit": 130},
        {"columns": "id,tags"},
        {"exclude": "text"},
        {"on_bad_row": "drop"},
        {"on_bad_row": "null"},
    ],
    ids=str,
)
def test_whatever_is_asked_the_rows_are_the_same(tmp_path, monkeypatch, given):
    """With any options, the table and row groups are the same as with pyarrow only.

    Nothing is copied if the row group size or the codec is given.
    """
    table = rows()
    matrix = table["logits"].combine_chunks().flatten().to_numpy().copy()
    if "on_bad_row" in given:
        matrix[5 * 105] = np.nan
    table = table.set_column(1, "logits", pa.FixedSizeListArray.from_arrays(pa.array(matrix), 5))
    out, detail = counts("fast", tmp_path, table, **given)
    monkeypatch.setenv("BATCHMAX_PARQUET", "pyarrow")
    slow, _ = counts("pyarrow", tmp_path, table, **given)
    assert out.read().equals(slow.read())
    groups = [[file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] for file in (out, slow)]
    assert groups[0] == groups[1]
    assert ("copied as they are: 0" in detail) == (not {"row_group_size", "compression"}.isdisjoint(given))


def test_a_row_group_that_lost_rows_is_encoded_again(tmp_path):
    """Only a row group that lost rows to ``drop`` is encoded again; the others are copied."""
    table = rows()
    matrix = table["logits"].combine_chunks().flatten().to_numpy().copy()
    matrix[5 * 105] = np.nan
    table = table.set_column(1, "logits", pa.FixedSizeListArray.from_arrays(pa.array(matrix), 5))
    out, _ = counts("out", tmp_path, table, on_bad_row="drop")
    carried = table.drop_columns(["logits"]).to_pylist()
    assert out.read(table.drop_columns(["logits"]).column_names).to_pylist() == carried[:105] + carried[106:]
    assert [out.metadata.row_group(group).num_rows for group in range(3)] == [100, 99, 100]


def test_nothing_is_stale(tmp_path):
    """Page indexes, Bloom filters and deprecated statistics aren't copied; valid statistics and sorting columns are."""
    table = rows()
    sorting = [pq.SortingColumn(0), pq.SortingColumn(3)]
    options = {
        "write_page_index": True,
        "sorting_columns": sorting,
        "bloom_filter_options": {"id": {"ndv": 100, "fpp": 0.01}},
    }
    out, detail = counts("out", tmp_path, table.select(["id", "logits", "label", "flag"]), options)
    assert "copied as they are: 9" in detail
    assert pq.read_metadata(tmp_path / "in.parquet").row_group(0).column(0).has_column_index
    for group in range(3):
        found = out.metadata.row_group(group)
        assert found.sorting_columns == (pq.SortingColumn(0), pq.SortingColumn(2))
        for leaf in range(found.num_columns):
            assert not found.column(leaf).has_column_index
            assert not found.column(leaf).has_offset_index
        statistics = found.column(0).statistics
        assert (statistics.min, statistics.max) == (group * 100, group * 100 + 99)
    footer = Footer.parse((tmp_path / "out.parquet").read_bytes())
    for group in map(footer.row_group, range(3)):
        for entry in map(group.chunk, range(group.n_columns)):
            assert set(entry) == {2, 3}
            metadata = entry[3].value
            assert not {10, 14, 15} & set(metadata)
            assert 12 not in metadata or not {1, 2} & set(metadata[12].value)


def test_matrices_are_encoded_as_the_logits_are(tmp_path):
    """Computed matrices use BYTE_STREAM_SPLIT if the logits do, and the codec of the logits."""
    for split in (False, True):
        options = {"use_byte_stream_split": ["logits.list.element"] if split else False, "compression": "zstd"}
        options["use_dictionary"] = False
        out, detail = counts(f"{split}", tmp_path, rows().select(["id", "logits", "label"]), options)
        assert "read as matrices: 3" in detail
        probs = out.metadata.row_group(0).column(2)
        assert ("BYTE_STREAM_SPLIT" in probs.encodings) == split
        assert probs.compression == "ZSTD"
        want = batchmax.softmax(np.array(rows()["logits"].to_pylist(), np.float32))
        assert np.array_equal(np.array(out.read()["probs"].to_pylist(), np.float32), want)


def test_our_own_outputs_are_copied_from(tmp_path):
    """Columns that an earlier job computed are copied unchanged when its output is scored again."""
    table = rows().select(["id", "logits", "label"])
    counts("first", tmp_path, table, columns="*")
    recorder = Recorder()
    batchmax.score(tmp_path / "first.parquet", str(tmp_path / "second.parquet"), prefix="new_", progress=recorder)
    assert "copied as they are: 12" in recorder.details[0]
    found = pq.read_table(tmp_path / "second.parquet")
    assert found["new_probs"].equals(found["probs"])
    assert found["new_loss"].equals(found["loss"])


def test_names_that_look_alike(tmp_path):
    """A column named ``a.b`` isn't confused with the field ``b`` of a struct ``a``."""
    table = rows().select(["id", "logits", "label"])
    number = pa.array(range(300))
    table = table.append_column("a.b", number).append_column("a", pa.StructArray.from_arrays([number], ["b"]))
    out, detail = counts("out", tmp_path, table)
    assert "copied as they are: 12" in detail
    assert out.read(["id", "label", "a.b"]).num_rows == 300


@pytest.mark.parametrize("limit", [99, 100, 101, 150])
def test_a_limit_leaves_what_is_sorted_sorted(tmp_path, monkeypatch, limit):
    """Every row group keeps its sorting columns, wherever a limit falls among chunks and row groups."""
    monkeypatch.setattr(batchmax.sources.chunks, "MAX_CHUNK_BYTES", 5 * 50 * 4)
    options = {"sorting_columns": [pq.SortingColumn(0)]}
    out, _ = counts("out", tmp_path, rows().select(["id", "logits", "label"]), options, limit=limit)
    assert out.metadata.num_rows == limit
    for group in range(out.num_row_groups):
        assert out.metadata.row_group(group).sorting_columns == (pq.SortingColumn(0),)


def test_what_arrow_has_no_word_for_survives(tmp_path):
    """Field ids, nullability and logical types such as JSON are kept from the input."""
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "7"}),
            pa.field("logits", pa.list_(pa.float32()), metadata={"PARQUET:field_id": "8"}),
            pa.field("data", pa.json_()),
        ]
    )
    table = pa.table({"id": [1, 2], "logits": [[1.0, 2.0], [3.0, 4.0]], "data": ["{}", "[]"]}, schema=schema)
    out, detail = counts("out", tmp_path, table)
    assert "copied as they are: 2" in detail
    assert out.schema_arrow.field("id").metadata == {b"PARQUET:field_id": b"7"}
    assert not out.schema_arrow.field("id").nullable
    assert out.schema.column(1).logical_type.type == "JSON"


def test_files_with_other_columns_are_copied_where_they_agree(tmp_path):
    """A column that one file stores differently is encoded again for that file only; other column chunks are copied."""
    table = rows().select(["id", "logits", "when"])
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=100)
    pq.write_table(table, tmp_path / "in" / "b.parquet", row_group_size=100, use_deprecated_int96_timestamps=True)
    other = table.cast(pa.schema([field.with_nullable(field.name != "id") for field in table.schema]))
    pq.write_table(other, tmp_path / "in" / "c.parquet", row_group_size=100)
    recorder = Recorder()
    source = [str(tmp_path / "in" / f"{name}.parquet") for name in ("a", "c")]
    batchmax.score(source, str(tmp_path / "out.parquet"), progress=recorder)
    assert "copied as they are: 9" in recorder.details[0]
    want = pa.concat_tables([table, table]).drop_columns(["logits"])
    assert pq.read_table(tmp_path / "out.parquet", columns=["id", "when"]).equals(want)
    batchmax.score(str(tmp_path / "in" / "b.parquet"), str(tmp_path / "b.parquet"))
    assert pq.read_table(tmp_path / "b.parquet", columns=["id"]).equals(table.select(["id"]))


@pytest.mark.faults(keep=lambda: True)
@pytest.mark.parametrize("checksum", [True, False], ids=["checksums", "no checksums"])
def test_no_flipped_byte_of_a_file_goes_unnoticed(tmp_path, everything, checksum):
    """A file with a flipped bit gives the same rows or one clean error; with checksums, no value is wrong.

    One bit of each byte of a file is flipped in turn, by default of every fifth byte only. Without checksums, a page
    may have other values, for any reader. In the footer, names, metadata and statistics may change, because nothing
    protects them.
    """
    table = pa.table(
        {
            "id": pa.array(range(12)),
            "logits": pa.array([[float(one), 1.0] for one in range(12)], pa.list_(pa.float32())),
            "text": pa.array([f"{one % 5}" for one in range(12)]),
        }
    )
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source, row_group_size=6, write_page_checksum=checksum, store_schema=False)
    whole = source.read_bytes()
    batchmax.score(source, str(out))
    right = pq.read_table(out)
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused, renamed = 0, 0
    step = 1 if everything else 5
    for at in range(0, len(whole), step):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        source.write_bytes(flipped)
        try:
            batchmax.score(source, str(out), if_exists="overwrite", n_classes=2)
        except BatchmaxError:
            refused += 1
            continue
        try:
            found = pq.read_table(out)
        except (OSError, pa.ArrowInvalid):
            assert not checksum, at
            continue
        if found.equals(right):
            continue
        assert at >= start or not checksum, at
        renamed += at >= start
    assert refused > len(whole) // step // 3
    assert renamed < (len(whole) - start) // step // 4


@pytest.mark.parametrize(
    "what",
    [
        *("another file", "encrypted", "rows", "offset", "another offset", "size", "unpacked size", "values", "name"),
        *("type", "codec", "no codec", "encodings", "counts"),
    ],
)
def test_a_footer_that_lies_is_not_copied_from(tmp_path, what):
    """Column chunks whose footer is wrong aren't copied, and are refused before memory is allocated.

    Cases: chunks in another file, encrypted, or with wrong offsets, sizes, counts, names, types, codecs or encodings.
    """
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": range(100)}), path)
    with path.open("rb") as stream:
        footer = Footer.read(stream.fileno())
        column = footer.columns[0]
        assert copy_column(stream.fileno(), footer, 0, column)[0].n_bytes > 100
        group = footer.row_group(0)
        entry = group.chunk(0)
        metadata = entry[3].value
        changes = {
            "another file": lambda: entry.__setitem__(1, metadata[3]),
            "encrypted": lambda: entry.__setitem__(8, metadata[3]),
            "rows": lambda: setattr(group, "n_rows", 99),
            "offset": lambda: [setattr(metadata[field], "value", 1 << 40) for field in (9, 11)],
            "another offset": lambda: setattr(metadata[9], "value", metadata[9].value + 1),
            "size": lambda: setattr(metadata[7], "value", -1),
            "unpacked size": lambda: setattr(metadata[6], "value", 5),
            "values": lambda: setattr(metadata[5], "value", 99),
            "name": lambda: setattr(metadata[3].value, "values", [b"other"]),
            "type": lambda: setattr(metadata[1], "value", 1),
            "codec": lambda: setattr(metadata[4], "value", 6),
            "no codec": lambda: metadata.pop(4),
            "encodings": lambda: setattr(metadata[2].value, "values", [0]),
            "counts": lambda: setattr(metadata[13].value.values[0][3], "value", 7),
        }
        changes[what]()

        def chunk(_):
            check_fields(entry, COLUMN_CHUNK)  # parsing a footer does this check
            return entry

        group.chunk = chunk
        footer.row_group = lambda _: group
        with pytest.raises(ChunkCopyError):
            copy_column(stream.fileno(), footer, 0, column)


@pytest.mark.parametrize("what", ["values", "levels", "dictionary"])
@pytest.mark.parametrize("rows", [100, 60_000])
def test_damaged_snappy_is_not_copied(tmp_path, what, rows):
    """A chunk is refused if the Snappy data of a page can't be unpacked, or its levels exceed the page."""
    path = tmp_path / "x.parquet"
    values = np.random.default_rng(0).integers(0, 1 << 60, rows) * 8
    pq.write_table(pa.table({"id": values}), path, use_dictionary=what == "dictionary")
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        footer = Footer.read(stream.fileno())
        column = footer.columns[0]
        (chunk,) = copy_column(stream.fileno(), footer, 0, column)
        _, header_bytes = read_page_header(chunk.pieces[0].data)
        body = 4 + header_bytes
        size, at = varint(np.frombuffer(data, np.uint8), body, 28)
        if what == "levels":
            # The literal's tag has the length in the bytes after it.
            at += 1 + max(0, (data[at] >> 2) - 59)
            data[at : at + 4] = (int(size) - 3).to_bytes(4, "little")
        else:
            data[body] ^= 1
        path.write_bytes(data)
        with pytest.raises(ChunkCopyError):
            copy_column(stream.fileno(), footer, 0, column)


def test_what_is_no_footer_is_refused(tmp_path):
    """Files without a footer, or with an invalid footer length, are refused."""
    path = tmp_path / "x.parquet"
    for data in (b"", b"PAR1", b"\xff\xff\xff\xffPAR1", b"\x00\x00\x00\x00PAR1", b"\x15\x15\x02\x00\x00\x00PAR1"):
        path.write_bytes(data)
        with path.open("rb") as stream, pytest.raises(FooterError):
            Footer.read(stream.fileno())
        with pytest.raises(FooterError):
            Footer.parse(data)

"""The Parquet sink writes row groups that can be read back, are encoded as requested, and have checksums."""

from __future__ import annotations

import gc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.errors import OutputError
from batchmax.parquet import FileSchema, Footer
from batchmax.sinks.parquet_sink import ParquetSink, input_codecs, kept_metadata
from batchmax.sinks.row_group_encoder import RowGroupEncoder, leaf_columns

ROWS = 500
PROBS = np.random.default_rng(3).random((ROWS, 8), np.float32)
BATCH = pa.record_batch(
    {
        "id": pa.array([f"row {row % 7}" for row in range(ROWS)]),
        "a.b": pa.array(range(ROWS)),
        "nested": pa.array([{"x": row, "y": [row]} for row in range(ROWS)]),
        "probs": pa.FixedSizeListArray.from_arrays(PROBS.ravel(), 8),
    }
)
CODECS = {"id": "GZIP", "a.b": "ZSTD", "nested": "LZ4", "probs": "NONE"}


def opened(path, codecs=None, plain=()):
    """Return a sink of such batches."""
    return ParquetSink(path, RowGroupEncoder(FileSchema(BATCH.schema), codecs or CODECS, frozenset(plain)))


def written(path, batches, codecs=None, plain=("probs",)):
    """Write one row group per batch, and return the size."""
    with opened(path, codecs, plain) as sink:
        for batch in batches:
            sink.write([batch])
        return sink.close()


def test_what_is_written_is_there(tmp_path):
    """Each write is one row group of any number of batches; an empty write makes none; the size is that of the file."""
    path = tmp_path / "x.parquet"
    with opened(path, plain=("probs",)) as sink:
        sink.write([BATCH.slice(0, 100), BATCH.slice(100, 50)])
        sink.write([])
        sink.write([BATCH.slice(0, 0)])
        sink.write([BATCH.slice(150)])
        size = sink.close()
    assert size == path.stat().st_size
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [150, 350]
    assert pq.read_table(path) == pa.table(BATCH)


def test_a_file_without_rows_has_columns(tmp_path):
    """An output without rows can be read, and has every column."""
    written(tmp_path / "x.parquet", [])
    assert pq.read_table(tmp_path / "x.parquet").schema.equals(BATCH.schema)


def test_each_column_has_its_codec(tmp_path):
    """The codec, the dictionary and the statistics are set per column, also for names with a dot."""
    written(tmp_path / "x.parquet", [BATCH])
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    columns = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    assert {column.path_in_schema.split(".list")[0]: column.compression for column in columns} == {
        "id": "GZIP",
        "a.b": "ZSTD",
        "nested.x": "LZ4",
        "nested.y": "LZ4",
        "probs": "UNCOMPRESSED",
    }
    *carried, probs = columns
    assert probs.dictionary_page_offset is None
    assert not probs.is_stats_set
    assert all(column.dictionary_page_offset is not None and column.is_stats_set for column in carried)
    assert input_codecs(Footer.parse((tmp_path / "x.parquet").read_bytes())) == CODECS


@pytest.mark.parametrize("codec", ["SNAPPY", "ZSTD", "LZ4", "GZIP", "BROTLI", "NONE"])
def test_codecs_come_back(tmp_path, codec):
    """The codec of a file is detected under the name that selects it."""
    codecs = dict.fromkeys(BATCH.schema.names, codec)
    written(tmp_path / "x.parquet", [BATCH], codecs)
    assert input_codecs(Footer.parse((tmp_path / "x.parquet").read_bytes())) == codecs
    assert pq.read_table(tmp_path / "x.parquet") == pa.table(BATCH)


def test_no_codecs_of_nothing(tmp_path):
    """A missing footer has no codecs, and a file without row groups gives only known columns."""
    pq.write_table(BATCH.schema.empty_table(), tmp_path / "x.parquet")
    assert input_codecs(None) == {}
    assert set(input_codecs(Footer.parse((tmp_path / "x.parquet").read_bytes()))) <= set(CODECS)


def test_leaves_belong_to_columns():
    """Each leaf of lists, structs, maps, extensions and names with dots belongs to the right column."""
    schema = pa.schema(
        {
            "a": pa.struct({"b": pa.int8(), "c": pa.list_(pa.struct({"d": pa.int8(), "e": pa.int8()}))}),
            "a.b.c": pa.int8(),
            "m": pa.map_(pa.string(), pa.list_(pa.float32())),
            "t": pa.fixed_shape_tensor(pa.float32(), (4,)),
            "d": pa.dictionary(pa.int8(), pa.string()),
            "l": pa.large_list(pa.int8()),
        }
    )
    assert list(leaf_columns(schema).values()) == ["a", "a", "a", "a.b.c", "m", "m", "t", "d", "l"]


def test_every_page_has_a_checksum(tmp_path):
    """A flipped byte in the pages of any column is detected by a reader that verifies checksums."""
    path = tmp_path / "x.parquet"
    written(path, [BATCH], dict.fromkeys(BATCH.schema.names, "NONE"))
    whole = path.read_bytes()
    metadata = pq.read_metadata(path)
    for index in range(metadata.num_columns):
        column = metadata.row_group(0).column(index)
        end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
        damaged = bytearray(whole)
        damaged[end - 3] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="CRC checksum"):
            pq.read_table(path, page_checksum_verification=True)


@pytest.mark.parametrize("is_link", [False, True])
def test_nothing_is_overwritten(tmp_path, is_link):
    """An existing file or link isn't overwritten, and the error names it."""
    path = tmp_path / "x.parquet"
    target = tmp_path / "target"
    target.write_text("old")
    if is_link:
        path.symlink_to(target)
    else:
        target.rename(path)
    with pytest.raises(OutputError, match=r"x\.parquet: cannot be written: File exists; "):
        opened(path)
    assert path.read_text() == "old"


def test_a_file_with_other_rows_is_refused(tmp_path):
    """The footer is read back: a file with another number of rows is an error."""
    with opened(tmp_path / "x.parquet") as sink:
        sink.write([BATCH])
        sink.rows += 1
        with pytest.raises(OutputError, match="the written file is incomplete"):
            sink.close()


def test_an_abandoned_file_says_nothing_later(tmp_path, capsys):
    """Abandoning an incomplete file prints nothing when it is garbage-collected, even if it can't be closed."""
    for break_it in (False, True):
        sink = opened(tmp_path / f"{break_it}.parquet")
        sink.write([BATCH])
        if break_it:
            sink._file.close()
        sink.abandon()
        del sink
        gc.collect()
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_an_output_error(tmp_path):
    """The error for a full disk has the system's message and the file."""
    with opened(tmp_path / "x.parquet") as sink:

        def full(*_):
            raise OSError(28, "No space left on device")

        sink._writer.write = full
        with pytest.raises(OutputError, match=r"x\.parquet: cannot be written: No space left on device; free space"):
            sink.write([BATCH])


def test_what_metadata_is_kept():
    """Metadata that describes the columns of the input, or from which Spark reads the schema, isn't copied."""
    keys = [b"pandas", b"huggingface", b"ARROW:schema", b"batchmax", b"org.apache.spark.sql.parquet.row.metadata"]
    assert kept_metadata(dict.fromkeys([*keys, b"model", b"pandas2"], b"x")) == {b"model": b"x", b"pandas2": b"x"}
    assert kept_metadata(None) == {}

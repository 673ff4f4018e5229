"""Sources give every row once, in order and with its position, and report invalid files."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchmax.errors import DataError, UsageError
from batchmax.options.score_options import score_options
from batchmax.sources import chunks as module
from batchmax.sources.parquet_source import ParquetSource, open_source
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.streams.stream_source import StreamSource

OPTIONS = score_options()


def table(rows, k=3, start=0):
    logits = np.arange(start * k, (start + rows) * k, dtype=np.float32).reshape(rows, k)
    return pa.table(
        {
            "id": pa.array(range(start, start + rows), pa.int64()),
            "logits": pa.array(list(logits), pa.list_(pa.float32())),
            "label": pa.array([0] * rows, pa.int64()),
        }
    )


def read(source, columns=None):
    parts = plan_parts(source.group_rows(), source.job.row_bytes)
    return list(source.chunks(parts, ReadPlan(columns)))


def groups(chunks):
    """Return the number of rows of each row group that the chunks form."""
    sizes = [0]
    for chunk in chunks:
        sizes[-1] += chunk.batch.num_rows
        if chunk.ends_group:
            sizes.append(0)
    assert sizes.pop() == 0
    return sizes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=3).filter(
        lambda files: any(rows for rows, _ in files)
    ),
    st.none() | st.integers(1, 9),
    st.integers(24, 200),
)
def test_every_row_comes_once_with_its_place(tmp_path, files, size, most_bytes):
    """For any files, row groups and sizes, ids come in order, and each row has its file, row number and row group."""
    paths, expected = [], []
    for number, (rows, group) in enumerate(files):
        paths.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(table(rows, start=len(expected)), paths[-1], row_group_size=group)
        expected += [(len(expected) + row, paths[-1], row, row // group) for row in range(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_CHUNK_BYTES", most_bytes)
        patch.setattr(module, "MAX_ROW_GROUP_BYTES", 2 * most_bytes)
        source = ParquetSource(paths, score_options(row_group_size=size))
        chunks = read(source)
    found = [
        (number, chunk.origin.file, row, chunk.origin.row_group)
        for chunk in chunks
        for number, row in zip(chunk.batch["id"].to_pylist(), chunk.rows_of(np.arange(chunk.n_rows)), strict=True)
    ]
    if size is None:
        assert found == expected
    else:
        assert [place[:3] for place in found] == [place[:3] for place in expected]
        assert groups(chunks) == [min(size, len(expected) - at) for at in range(0, len(expected), size)]


@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 9))
def test_streams_are_cut_like_files(sizes, size):
    """Batches of any size become row groups of one size, except the last; no row is lost or duplicated."""
    whole = table(sum(sizes) + 1)
    edges = np.cumsum([0, *sizes, 1])
    batches = [whole.slice(start, end - start) for start, end in itertools.pairwise(edges)]
    stream = pa.concat_tables(batches)
    chunks = read(open_source(stream, score_options(row_group_size=size)))
    ids = [value for chunk in chunks for value in chunk.batch["id"].to_pylist()]
    assert ids == list(range(len(whole)))
    assert groups(chunks) == [min(size, len(ids) - at) for at in range(0, len(ids), size)]


def test_the_number_of_classes_is_looked_for(tmp_path):
    """The first row with logits determines the number of classes, also if earlier files have none."""
    none = pa.table({"logits": pa.array([None, []], pa.list_(pa.float32()))})
    pq.write_table(none, tmp_path / "a.parquet")
    pq.write_table(table(2, k=5).select(["logits"]), tmp_path / "b.parquet")
    assert ParquetSource([str(tmp_path)], OPTIONS).job.n_classes == 5
    assert StreamSource(pa.concat_tables([none, table(2, k=4).select(["logits"])]), OPTIONS).job.n_classes == 4
    with pytest.raises(DataError, match=r"^.*a\.parquet: no row has logits.*; give it: --n-classes N$"):
        ParquetSource([str(tmp_path / "a.parquet")], OPTIONS)
    assert ParquetSource([str(tmp_path / "a.parquet")], score_options(n_classes=2)).job.n_classes == 2


def test_only_the_columns_asked_for_are_read(tmp_path):
    """Only the requested columns are read."""
    pq.write_table(table(4), tmp_path / "x.parquet")
    (chunk,) = read(ParquetSource([str(tmp_path)], OPTIONS), ["id", "logits"])
    assert chunk.batch.schema.names == ["id"]
    assert chunk.logits is not None


def test_one_row_over_all_files(tmp_path):
    """Rows count from 0 over all files, and a row out of range is refused."""
    for number, start in enumerate((0, 5, 5)):
        pq.write_table(table(5 if number != 1 else 0, start=start), tmp_path / f"{number}.parquet", row_group_size=2)
    source = ParquetSource([str(tmp_path)], OPTIONS)
    for row in range(10):
        path, batch = source.row(row)
        assert path == str(tmp_path / f"{0 if row < 5 else 2}.parquet")
        assert batch["id"].to_pylist() == [row]
    for row in (-1, 10):
        with pytest.raises(UsageError, match="is out of range for 10 rows"):
            source.row(row)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"PAR1", "the file is incomplete"),
        (b"PAR1" + b"x" * 100, "the file is incomplete"),
        (b"notes, and no table", "not a Parquet file"),
        (b"PAR1" + b"\xff" * 100 + b"\x10\x00\x00\x00PAR1", "cannot be read"),
        (b"PAR1" + b"\xff\xff\xff\x7fPAR1", "the file is incomplete"),
    ],
    ids=["empty", "head", "cut", "text", "footer", "long footer"],
)
def test_files_that_are_no_parquet(tmp_path, content, what):
    """Invalid files give an error that names the file and a remedy."""
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(path, OPTIONS)
    assert caught.value.where == str(path)
    assert caught.value.what.startswith(what)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused(tmp_path):
    """A pipe, which would block when opened, is refused."""
    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a regular file"):
        open_source(tmp_path / "x.parquet", OPTIONS)


def test_every_checksum_is_checked(tmp_path):
    """A flipped byte in a page is an error that names the file."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(1000), path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read: .*CRC.*; the file is damaged"):
        read(open_source(path, OPTIONS))


def test_a_file_that_goes_away(tmp_path):
    """A file that is deleted or truncated between opening and reading is an error, not a signal."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(100_000), path)
    source = open_source(path, OPTIONS)
    os.truncate(path, path.stat().st_size // 4)
    with pytest.raises(DataError, match=r"x\.parquet: the file was changed while it was being read; wait until"):
        read(source)
    path.unlink()
    with pytest.raises(DataError, match=r"x\.parquet: the file no longer exists"):
        read(source)


def test_errors_of_the_schema_name_the_file(tmp_path):
    """The error for a missing column names the file, and its remedy quotes the path."""
    path = tmp_path / "my file.parquet"
    pq.write_table(table(2), path)
    with pytest.raises(UsageError) as caught:
        open_source(path, score_options(logits="nothing"))
    assert caught.value.where == f"{path}: --logits"
    assert caught.value.remedy == f"batchmax inspect '{path}' shows the columns"


@pytest.mark.parametrize("src", [5, None, [5], [None]])
def test_what_is_no_source(src):
    """Input that is neither paths nor a stream is a usage error."""
    with pytest.raises(UsageError, match=r"are not supported; give paths"):
        open_source(src, OPTIONS)


def test_the_footers_digest_knows_files_apart(tmp_path):
    """The digest of a footer is the same for the same bytes, and differs for other rows."""
    digests = []
    for name, content in {"a": table(3), "b": table(3), "c": table(3, start=1)}.items():
        pq.write_table(content, tmp_path / f"{name}.parquet")
        digests.append(ParquetSource([str(tmp_path / f"{name}.parquet")], OPTIONS).files[0].footer_digest())
    assert digests[0] == digests[1] != digests[2]

"""Tests reading files of Polars, DuckDB, fastparquet and older writers.

The fast reader and pyarrow give the same results.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.interchange import CLASSES, CODECS, check_readers_agree, matrix_of, score_with_statistics, table_of
from tests.support.parquet_anatomy import chunks_of, write_pages
from tests.support.parquet_readers import numbers_of
from tests.support.requirements import optional, package

duckdb = optional("duckdb")
pd = optional("pandas")
pl = optional("polars")
special = optional("scipy.special")

pytestmark = pytest.mark.usefixtures("no_sync")


def n_data_pages(path):
    return [len(chunk.data_pages) for chunk in chunks_of(path) if chunk.path.startswith("logits")]


@pytest.mark.parametrize("kind", ["List", "Array"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_polars_files_are_read(dtype, kind, tmp_path, monkeypatch):
    """The fast reader reads Polars' files: class counts, codecs, dictionaries, page sizes, several row groups."""
    path = tmp_path / "x.parquet"
    for number, (n_classes, codec) in enumerate(itertools.product(CLASSES, CODECS)):
        if (CODECS.index(codec) + CLASSES.index(n_classes)) % 2 == (kind == "Array"):
            continue  # each kind tests half of the grid
        matrix = matrix_of(max(30, 3000 // n_classes), n_classes, dtype, few=number % 4 < 2)
        inner = pl.Float32 if dtype == np.float32 else pl.Float64
        logits = pl.List(inner) if kind == "List" else pl.Array(inner, n_classes)
        frame = pl.from_arrow(table_of(matrix)).with_columns(pl.col("logits").cast(logits))
        pages = {"data_page_size": 300} if number % 3 else {}
        frame.write_parquet(
            path,
            compression=codec.replace("none", "uncompressed"),
            row_group_size=len(matrix) // 3 + 1,
            statistics=("full", True, False)[number % 3],
            **pages,
        )
        assert pq.read_metadata(path).num_row_groups == 3
        assert not pages or max(n_data_pages(path)) > 1
        check_readers_agree(path, matrix, monkeypatch)


@pytest.mark.parametrize("writer", ["sink", "pyarrow"])
def test_polars_streamed_files_are_read(writer, tmp_path, monkeypatch):
    """The fast reader reads files of Polars' streaming sink, and of Polars with ``use_pyarrow=True``."""
    for n_classes in CLASSES:
        matrix = matrix_of(max(30, 3000 // n_classes), n_classes)
        frame = pl.from_arrow(table_of(matrix))
        if writer == "sink":
            frame.lazy().sink_parquet(tmp_path / "x.parquet", row_group_size=len(matrix) // 2 + 1)
        else:
            frame.write_parquet(tmp_path / "x.parquet", use_pyarrow=True, row_group_size=len(matrix) // 2 + 1)
        check_readers_agree(tmp_path / "x.parquet", matrix, monkeypatch)


@pytest.mark.sweep(keep=lambda: True)
@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_duckdb_files_are_read(dtype, version, tmp_path, monkeypatch, everything):
    """The fast reader reads DuckDB's files: V1, V2 (BYTE_STREAM_SPLIT), every codec, LIST and ARRAY.

    DuckDB bit-packs levels in runs of 256, so the last run may be padded by more than one group of eight.
    """
    path = tmp_path / "x.parquet"
    number_type = "FLOAT" if dtype == np.float32 else "DOUBLE"
    with duckdb.connect(config={"threads": 1}) as connection:
        for number, (n_classes, codec) in enumerate(itertools.product(CLASSES, CODECS)):
            if not everything and number % 7 not in {0, 3}:
                continue  # a sample that has each number of classes and each codec
            if n_classes >= 100 and codec not in {"snappy", "zstd"}:
                continue  # a row group has at least 2,048 rows, and brotli is slow for so many
            matrix = matrix_of(2100 if n_classes == 1000 else 2500, n_classes, dtype, few=number % 2 == 0)
            logits = f"{number_type}[]" if number % 3 else f"{number_type}[{n_classes}]"
            connection.register("rows", table_of(matrix))
            connection.execute(
                f"COPY (SELECT id, logits::{logits} AS logits, label FROM rows) TO '{path}' (FORMAT parquet, "
                f"CODEC '{codec.replace('none', 'uncompressed')}', PARQUET_VERSION {version}, ROW_GROUP_SIZE 2048)"
            )
            assert pq.read_metadata(path).num_row_groups == 2
            check_readers_agree(path, matrix, monkeypatch)


def test_fastparquet_lists_are_refused(tmp_path):
    """Files of fastparquet have no list columns: it writes lists as JSON, which score refuses, and refuses arrays."""
    fastparquet = package("fastparquet")
    matrix = matrix_of(20, 3)
    frame = pd.DataFrame({"logits": matrix.tolist()})
    fastparquet.write(str(tmp_path / "x.parquet"), frame, object_encoding={"logits": "json"})
    assert pq.read_schema(tmp_path / "x.parquet").field("logits").type == pa.json_()
    with pytest.raises(ValueError, match="object"):
        fastparquet.write(str(tmp_path / "y.parquet"), pd.DataFrame({"logits": list(matrix)}))
    with pytest.raises(batchmax.UsageError, match="logits"):
        batchmax.score(tmp_path / "x.parquet", tmp_path / "out.parquet")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("codec", ["SNAPPY", "ZSTD", "LZ4_RAW", "GZIP", "BROTLI", None])
def test_fastparquet_files_are_read(codec, dtype, tmp_path, monkeypatch):
    """Logits that fastparquet wrote as one column per class, or as bytes, are read by pyarrow and scored right."""
    fastparquet = package("fastparquet")
    matrix = matrix_of(70, 10, dtype)
    wide = pd.DataFrame({f"logit_{number}": matrix[:, number] for number in range(10)})
    rows = pd.DataFrame({"logits": [row.astype(np.float32).tobytes() for row in matrix]})
    monkeypatch.setenv("BATCHMAX_PARQUET", "")
    for name, frame, options in (("wide", wide, {}), ("rows", rows, {"logits_dtype": "float32"})):
        path = tmp_path / f"{name}.parquet"
        encoding = {"logits": "bytes"} if name == "rows" else "infer"
        fastparquet.write(str(path), frame, compression=codec, row_group_offsets=30, object_encoding=encoding)
        statistics, got = score_with_statistics(path, outputs="probs", layout="list", **options)
        assert statistics[:2] == (0, 3)
        want = special.softmax((matrix if name == "wide" else matrix.astype(np.float32)).astype(np.float64), 1)
        np.testing.assert_allclose(numbers_of(got["probs"], 10)[0], want, rtol=3e-7)


@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_across_page_borders_are_read(dtype, n_classes, tmp_path, monkeypatch):
    """Pages that begin in the middle of a row, as older writers made them, are read by the fast reader.

    Current writers don't make such pages, so the test does.
    """
    matrix = matrix_of(max(20, 1500 // n_classes), n_classes, dtype)
    random = np.random.default_rng(n_classes)
    for longest in (3, 5 * n_classes + 1, matrix.size // 3):
        sizes = random.integers(1, longest + 1, matrix.size)
        write_pages(tmp_path / "x.parquet", table_of(matrix).select(["id", "label", "logits"]), sizes)
        pages = [page.n_values for page in chunks_of(tmp_path / "x.parquet")[2].data_pages]
        assert sum(pages) == matrix.size
        assert n_classes == 1 or any(size % n_classes for size in pages)
        check_readers_agree(tmp_path / "x.parquet", matrix, monkeypatch)

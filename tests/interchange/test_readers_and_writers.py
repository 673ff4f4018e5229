"""Tests interchange of Parquet files with pyarrow, Polars, DuckDB, fastparquet, pandas, Hugging Face and Spark.

Files of other writers give the same results with the fast reader and with pyarrow, and other readers read the same
rows from the outputs.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import itertools
import os
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchmax
from tests.support.parquet_anatomy import check_file, chunks_of, write_pages
from tests.support.parquet_readers import (
    READERS,
    as_type,
    ask_duckdb,
    duckdb_files,
    fastparquet_file,
    files_of,
    hugging_face,
    in_schema,
    numbers_of,
    same,
)
from tests.support.progress import Recorder
from tests.support.requirements import is_older, optional, package
from tests.support.rows import lists

duckdb = optional("duckdb")
pd = optional("pandas")
pl = optional("polars")
torch = optional("torch")
special = optional("scipy.special")


pytestmark = pytest.mark.usefixtures("no_sync")

CLASSES = (2, 3, 10, 64, 100, 1000)
CODECS = ("snappy", "zstd", "none", "lz4", "gzip", "brotli")
LAYOUTS = ("list", "fixed", "wide")
PAGE_BYTES = 1 << 20
"""The approximate size of the pages that batchmax writes; page borders are near its multiples."""


def matrix_of(n_rows, n_classes, dtype=np.float32, *, few=False, seed=0):
    """Return (n_rows, n_classes) logits: random ones, or few distinct values, so that writers use a dictionary."""
    random = np.random.default_rng([seed, n_rows, n_classes])
    if few:
        return random.integers(-20, 20, (n_rows, n_classes)).astype(dtype) / dtype(4)
    return (4 * random.standard_normal((n_rows, n_classes))).astype(dtype)


def table_of(matrix, **more):
    n_rows, n_classes = matrix.shape
    label = pa.array(np.arange(n_rows) * 7 % n_classes)
    return pa.table({"id": pa.array(np.arange(n_rows)), "logits": lists(matrix), "label": label, **more})


# Files of other writers, read by batchmax


def check_reads_alike(path, matrix, monkeypatch, *, falls_back=None):
    """Check a file's logits, that both readers give the same scores, and which reader was used.

    The fast reader must read every row group unless ``falls_back`` is given, the reason for which pyarrow reads them.
    """
    groups = pq.read_metadata(path).num_row_groups
    n_classes = matrix.shape[1]
    theirs, missing = numbers_of(pq.read_table(path, columns=["logits"])["logits"], n_classes)
    assert not missing.any()
    assert theirs.tobytes() == matrix.tobytes()

    wide = torch.tensor(matrix.astype(np.float64))
    tables = {}
    for way in ("", "pyarrow"):
        monkeypatch.setenv("BATCHMAX_PARQUET", way)
        ways, tables[way] = scored(path, outputs="probs,loss,logsumexp")
        slow = way == "pyarrow" or falls_back
        assert ways[:2] == ((0, groups) if slow else (groups, 0)), ways
        assert way == "pyarrow" or (falls_back or "") in ways[2]
    assert tables[""].equals(tables["pyarrow"])
    probs, _ = numbers_of(tables[""]["probs"], n_classes)
    assert probs.dtype == matrix.dtype
    tolerance = 1e-6 if matrix.dtype == np.float32 else 1e-14
    np.testing.assert_allclose(probs, torch.softmax(wide, 1), rtol=tolerance)
    np.testing.assert_allclose(tables[""]["logsumexp"], torch.logsumexp(wide, 1), rtol=tolerance, atol=tolerance)


def scored(path, **options):
    """Score a file; return the output table, and the read statistics.

    Read statistics are the numbers of logit chunks read as matrices and by pyarrow, and the detail text.
    """
    out = path.with_name("scored.parquet")
    recorder = Recorder()
    batchmax.score(path, out, if_exists="overwrite", progress=recorder, **options)
    detail = "".join(recorder.details)
    fast, slow = re.search(r"read as matrices: ([\d,]+), by pyarrow: ([\d,]+)", detail).groups()
    return (int(fast.replace(",", "")), int(slow.replace(",", "")), detail), pq.read_table(out)


def n_data_pages(path):
    return [len(chunk.data_pages) for chunk in chunks_of(path) if chunk.path.startswith("logits")]


@pytest.mark.parametrize("kind", ["List", "Array"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_polars_writes_is_read(dtype, kind, tmp_path, monkeypatch):
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
        check_reads_alike(path, matrix, monkeypatch)


@pytest.mark.parametrize("writer", ["sink", "pyarrow"])
def test_what_polars_streams_out_is_read(writer, tmp_path, monkeypatch):
    """The fast reader reads files of Polars' streaming sink, and of Polars with ``use_pyarrow=True``."""
    for n_classes in CLASSES:
        matrix = matrix_of(max(30, 3000 // n_classes), n_classes)
        frame = pl.from_arrow(table_of(matrix))
        if writer == "sink":
            frame.lazy().sink_parquet(tmp_path / "x.parquet", row_group_size=len(matrix) // 2 + 1)
        else:
            frame.write_parquet(tmp_path / "x.parquet", use_pyarrow=True, row_group_size=len(matrix) // 2 + 1)
        check_reads_alike(tmp_path / "x.parquet", matrix, monkeypatch)


@pytest.mark.sweep(keep=lambda: True)
@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_duckdb_writes_is_read(dtype, version, tmp_path, monkeypatch, everything):
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
            check_reads_alike(path, matrix, monkeypatch)


def test_fastparquet_writes_no_lists(tmp_path):
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
def test_what_fastparquet_writes_is_read(codec, dtype, tmp_path, monkeypatch):
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
        ways, got = scored(path, outputs="probs", layout="list", **options)
        assert ways[:2] == (0, 3)
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
        check_reads_alike(tmp_path / "x.parquet", matrix, monkeypatch)


# Outputs of batchmax, read by other readers


def computed(matrix, label):
    """Return probabilities and losses, computed by PyTorch and SciPy in float64."""
    wide = matrix.astype(np.float64)
    probs = torch.softmax(torch.tensor(wide), 1).numpy()
    with np.errstate(invalid="ignore"):
        losses = -special.log_softmax(wide, axis=1)[np.arange(len(wide)), label]
    return probs, losses


def only(*names):
    return {name: READERS[name] for name in names}


def null_rows(pattern, n_rows, n_classes):
    """Return (n_rows,) bool: which rows are null."""
    missing = np.zeros(n_rows, bool)
    page = max(1, PAGE_BYTES // (4 * n_classes))
    if pattern == "few":
        missing[np.random.default_rng(n_rows).integers(0, n_rows, max(1, n_rows // 100))] = True
    elif pattern == "borders":
        missing[[0, -1]] = True
        for border in range(page, n_rows, page):
            missing[border - 1 : border + 1] = True
    elif pattern == "pages":
        missing[page // 2 : page * 3 + page // 3] = True
    elif pattern == "most":
        missing[:] = True
        missing[n_rows // 2] = False
    elif pattern == "all":
        missing[:] = True
    return missing


def check_scored(out, source, matrix, missing, readers=READERS, dtype=np.float32):
    """Check every row of an output: copied columns equal the source, computed ones are right, all readers agree."""
    n_classes = matrix.shape[1]
    probs, losses = computed(matrix, source["label"].to_numpy())
    whole = pq.read_table(out)
    carried = [name for name in source.column_names if name != "logits"]
    layouts = ["probs"] if "probs" in whole.column_names else [f"prob_{number}" for number in range(n_classes)]
    assert whole.column_names == [*carried, *layouts, "loss"]
    for name in carried:
        assert same(as_type(whole[name], source[name].type), as_type(source[name], source[name].type)), name
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    if layouts == ["probs"]:
        got, nulls = numbers_of(whole["probs"], n_classes)
        assert np.array_equal(nulls, missing)
    else:
        for name in layouts:
            assert np.array_equal(whole[name].is_null().to_numpy(), missing)
        got = np.stack([whole[name].drop_null().to_numpy() for name in layouts], 1)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, probs[~missing], rtol=tolerance, atol=1e-37)
    assert np.array_equal(whole["loss"].is_null().to_numpy(), missing)
    np.testing.assert_allclose(whole["loss"].drop_null().to_numpy(), losses[~missing], rtol=1e-5, atol=1e-7)

    schema = pq.read_schema(files_of(out)[0] if Path(out).is_dir() else out).remove_metadata()
    want = in_schema(whole, schema)
    for reader, read in readers.items():
        found = read(out, schema)
        for name in schema.names:
            assert same(found[name].combine_chunks(), want[name].combine_chunks()), (reader, name)
    for file in [files_of(out)] if not Path(out).is_dir() else files_of(out):
        check_file(file, checksums=[*layouts, "loss"])


CASES = [
    # n_classes, rows, rows per row group, layout, codec, null rows
    (2, 500, 200, "list", "snappy", "few"),
    (2, 300_000, 300_000, "list", "zstd", "borders"),
    (2, 400, 100, "list", "none", "few"),
    (3, 150_000, 100_000, "list", "none", "pages"),
    (7, 100, 33, "list", "gzip", "none"),
    (8, 100, 33, "fixed", "lz4", "few"),
    (9, 100, 33, "list", "brotli", "few"),
    (10, 600, 100, "list", "lz4", "none"),
    (10, 40_000, 40_000, "list", "none", "borders"),
    (10, 100, 1, "list", "snappy", "few"),
    (63, 300, 100, "list", "snappy", "few"),
    (63, 15_000, 15_000, "list", "none", "borders"),
    (64, 300, 100, "list", "zstd", "few"),
    (64, 20_000, 20_000, "list", "snappy", "borders"),
    (64, 20_000, 20_000, "fixed", "none", "pages"),
    (65, 300, 100, "list", "none", "few"),
    (65, 15_000, 15_000, "fixed", "lz4", "borders"),
    (100, 300, 299, "list", "gzip", "most"),
    (100, 60, 50, "list", "none", "none"),
    (100, 9_000, 9_000, "fixed", "snappy", "none"),
    (10, 300, 100, "list", "snappy", "all"),
    (10, 300, 100, "fixed", "none", "all"),
    (1000, 40, 40, "fixed", "brotli", "few"),
    (1000, 20, 20, "fixed", "none", "none"),
    (1000, 1000, 900, "list", "none", "pages"),
    (1000, 600, 600, "list", "snappy", "none"),
    (32_000, 25, 20, "list", "zstd", "borders"),
    (300_000, 5, 3, "list", "snappy", "few"),
    (3, 400, 150, "wide", "snappy", "few"),
    (10, 400, 150, "wide", "none", "none"),
    (64, 200, 64, "wide", "gzip", "most"),
    (10, 400, 150, "wide", "zstd", "all"),
]


@pytest.mark.parametrize(
    ("n_classes", "n_rows", "group", "layout", "codec", "nulls"),
    CASES,
    ids=["-".join(map(str, case)) for case in CASES],
)
def test_everyone_reads_what_we_write(n_classes, n_rows, group, layout, codec, nulls, tmp_path):
    """All readers read outputs of 2 to 300,000 classes, small and large row groups, and null rows at page borders."""
    missing = null_rows(nulls, n_rows, n_classes)
    matrix = matrix_of(n_rows, n_classes)
    matrix[missing, n_classes // 2] = np.nan
    source = table_of(matrix)
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=group, compression=codec.replace("none", "NONE"))
    out = tmp_path / "out.parquet"
    summary = batchmax.score(tmp_path / "in.parquet", out, layout=layout, on_bad_row="null")
    assert summary.bad_rows == missing.sum()
    assert pq.read_metadata(out).num_row_groups == -(-n_rows // group)
    check_scored(out, source, matrix, missing)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_everyone_reads_each_codec(codec, layout, tmp_path):
    """All readers read float64 outputs in each layout and codec, and ``compression`` sets the codec."""
    matrix = matrix_of(200, 12, np.float64)
    missing = null_rows("few", 200, 12)
    matrix[missing] = np.nan
    source = table_of(matrix)
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=70)
    out = tmp_path / "out.parquet"
    batchmax.score(tmp_path / "in.parquet", out, layout=layout, compression=codec, on_bad_row="null")
    group = pq.read_metadata(out).row_group(0)
    found = {group.column(index).compression for index in range(group.num_columns)}
    assert found == {{"none": "UNCOMPRESSED"}.get(codec, codec.upper())}
    check_scored(out, source, matrix, missing, dtype=np.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nulls", ["none", "few", "all"])
def test_everyone_reads_folders(nulls, layout, tmp_path):
    """All readers read an output folder of several parts as the rows in their order."""
    matrix = matrix_of(900, 10)
    missing = null_rows(nulls, 900, 10)
    matrix[missing] = np.inf
    source = table_of(matrix)
    for number in range(3):
        part = source.slice(300 * number, 300)
        pq.write_table(part, tmp_path / f"in{number}.parquet", row_group_size=(100, 300, 70)[number])
    out = tmp_path / "out"
    batchmax.score(str(tmp_path / "in?.parquet"), str(out), layout=layout, on_bad_row="null")
    assert [Path(file).name for file in files_of(out)] == [
        "_batchmax.parquet",
        *(f"part-0000{n}.parquet" for n in range(3)),
    ]
    check_scored(out, source, matrix, missing)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everyone_reads_no_rows(layout, tmp_path):
    """All readers read an output without rows, which has its columns, and one of an input with empty row groups."""
    matrix = matrix_of(40, 4)
    source = table_of(matrix)
    pq.write_table(source.slice(0, 0), tmp_path / "none.parquet")
    batchmax.score(tmp_path / "none.parquet", tmp_path / "out.parquet", layout=layout, n_classes=4)
    schema = pq.read_schema(tmp_path / "out.parquet").remove_metadata()
    for reader, read in READERS.items():
        if reader not in {"load_dataset", "Dataset.from_parquet"}:  # they refuse a split without rows
            found = read(tmp_path / "out.parquet", schema)
            assert (found.num_rows, found.schema.names) == (0, schema.names), reader
    check_file(tmp_path / "out.parquet")

    with pq.ParquetWriter(tmp_path / "some.parquet", source.schema) as writer:
        for start, end in ((0, 0), (0, 15), (15, 15), (15, 40), (40, 40)):
            writer.write_table(source.slice(start, end - start))
    assert pq.read_metadata(tmp_path / "some.parquet").num_row_groups == 5
    batchmax.score(tmp_path / "some.parquet", tmp_path / "whole.parquet", layout=layout)
    check_scored(tmp_path / "whole.parquet", source, matrix, np.zeros(40, bool))


UNREADABLE = {
    # It returns the leaves of structs, and strips trailing zeros from fixed-size binary values
    "fastparquet": {"nest", "code", "points"},
    # Integers with nulls become float64
    "pandas": {"huge"},
    # Booleans with nulls in data pages V2, and pages without a value
    ("fastparquet", "second version"): {"flag"},
    ("fastparquet", "page index"): {"nothing"},
}
"""Columns that a reader changes or doesn't support, whatever wrote them."""
REFUSING = set()
"""Readers that refuse a file with a column of every type."""
if is_older("datasets", "5.1"):
    REFUSING = {"load_dataset", "Dataset.from_parquet"}  # they don't support fixed-size binary


def all_types(n_rows):
    """Return a column of each type, with nulls, empty values and repeated values."""
    some = lambda values: [None if number % 7 == 3 else value for number, value in enumerate(values)]
    rows = range(n_rows)
    noon = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    return {
        "count": pa.array(some(rows), pa.int64()),
        "small": pa.array(some(row % 200 - 100 for row in rows), pa.int8()),
        "huge": pa.array(some(2**63 + row for row in rows), pa.uint64()),
        "real": pa.array(some(row / 8 for row in rows), pa.float64()),
        "flag": pa.array(some(row % 3 == 0 for row in rows), pa.bool_()),
        "text": pa.array(some("" if row % 5 == 0 else f"row {row} ü" for row in rows), pa.string()),
        "kind": pa.array(some("abc"[row % 3] for row in rows)).dictionary_encode(),
        "blob": pa.array(some(bytes([row % 256, 0, 255][: row % 4]) for row in rows), pa.binary()),
        "code": pa.array(some(bytes([row % 256] * 4) for row in rows), pa.binary(4)),
        "when": pa.array(some(noon + dt.timedelta(seconds=row) for row in rows), pa.timestamp("us", "UTC")),
        "day": pa.array(some(noon.date() + dt.timedelta(row % 99) for row in rows), pa.date32()),
        "price": pa.array(some(decimal.Decimal(row) / 4 for row in rows), pa.decimal128(12, 2)),
        "words": pa.array(some([f"w{word}" for word in range(row % 4)] for row in rows), pa.list_(pa.string())),
        "nest": pa.array(
            some({"a": row, "b": {"c": [f"x{row}"] * (row % 3)}} for row in rows),
            pa.struct({"a": pa.int32(), "b": pa.struct({"c": pa.list_(pa.string())})}),
        ),
        "points": pa.array(
            some([{"x": row, "y": None}] * (row % 3) for row in rows),
            pa.list_(pa.struct({"x": pa.int16(), "y": pa.float32()})),
        ),
        "nothing": pa.nulls(n_rows, pa.string()),
    }


INPUTS = {
    "plain": {"row_group_size": 100, "compression": "snappy"},
    "one group": {"compression": "zstd", "data_page_size": 400, "write_batch_size": 20},
    "page index": {
        "row_group_size": 60,
        "write_page_index": True,
        "data_page_size": 200,
        "write_batch_size": 10,
        "compression": "none",
    },
    "second version": {"row_group_size": 90, "data_page_version": "2.0", "version": "2.6", "data_page_size": 300},
    "no statistics": {"row_group_size": 100, "write_statistics": False, "use_dictionary": False, "compression": "gzip"},
    "many groups": {"row_group_size": 3, "compression": "lz4"},
    "no Arrow schema": {"row_group_size": 100, "store_schema": False},
    "old types": {
        "row_group_size": 80,
        "version": "1.0",
        "use_deprecated_int96_timestamps": True,
        "use_compliant_nested_type": False,
    },
    "checksums": {"row_group_size": 50, "write_page_checksum": True, "compression": "brotli"},
}


def carrying(n_rows=250, n_classes=5, nulls="few"):
    """Return a table with columns of all types, its logits, and which rows are null."""
    matrix = matrix_of(n_rows, n_classes)
    missing = null_rows(nulls, n_rows, n_classes)
    matrix[missing, 0] = np.nan
    columns = list(all_types(n_rows).items())
    head, tail = dict(columns[:4]), dict(columns[4:])
    label = pa.array(np.arange(n_rows) % n_classes)
    columns = {**head, "logits": lists(matrix), "id": pa.array(range(n_rows)), **tail, "label": label}
    return pa.table(columns), matrix, missing


def check_carried(out, source, keep=slice(None), readers=READERS, how=""):
    """Check that every reader finds the source's columns, or the rows ``keep`` of them, in an output."""
    names = [name for name in source.column_names if name != "logits"]
    rows = pa.array(np.arange(source.num_rows)[keep])
    want = source.select(names).take(rows)
    for reader, read in readers.items():
        if reader in REFUSING and "code" in names and pa.types.is_fixed_size_binary(want.schema.field("code").type):
            with pytest.raises(ValueError, match="does not have a datasets dtype equivalent"):
                read(out, want.schema.remove_metadata())
            continue
        unreadable = UNREADABLE.get(reader, set()) | UNREADABLE.get((reader, how), set())
        mine = [name for name in names if name not in unreadable]
        schema = want.select(mine).schema.remove_metadata()
        found = read(out, schema)
        for name in mine:
            assert same(found[name].combine_chunks(), as_type(want[name], schema.field(name).type)), (reader, name)


@pytest.mark.parametrize("how", INPUTS)
def test_everyone_reads_what_was_carried(how, tmp_path):
    """Column chunks of every type are copied unchanged, for all page formats, statistics and row groups."""
    source, matrix, missing = carrying()
    pq.write_table(source, tmp_path / "in.parquet", **INPUTS[how])
    # A file without an Arrow schema contains what pyarrow reads from it.
    source = pq.read_table(tmp_path / "in.parquet")
    ways, _ = scored(tmp_path / "in.parquet", on_bad_row="null")
    groups = pq.read_metadata(tmp_path / "in.parquet").num_row_groups
    assert ways[:2] == (groups, 0)
    # INT96 timestamps are copied too.
    copied = groups * (source.num_columns - 1)
    assert f"copied as they are: {copied:,}" in ways[2]
    out = tmp_path / "scored.parquet"
    check_carried(out, source, how=how)
    got, nulls = numbers_of(pq.read_table(out)["probs"], 5)
    assert np.array_equal(nulls, missing)
    np.testing.assert_allclose(got, computed(matrix, np.zeros(250, int))[0][~missing], rtol=1e-6)
    check_file(out, checksums=["probs", "loss"])


def test_maps_are_carried(tmp_path):
    """Map columns are copied. Hugging Face doesn't support maps, and fastparquet doesn't keep their pairs."""
    pairs = [None if row % 7 == 3 else [("k", row)] * (row % 2) for row in range(100)]
    source = table_of(matrix_of(100, 4), pairs=pa.array(pairs, pa.map_(pa.string(), pa.int32())))
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=30)
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    check_carried(tmp_path / "out.parquet", source, readers=only("pyarrow", "polars", "duckdb", "pandas_arrow"))


@pytest.mark.parametrize("change", ["drop", "drop few", "split", "merge", "limit", "exclude", "reorder"])
@pytest.mark.parametrize("how", ["plain", "page index", "second version", "one group"])
def test_carried_columns_follow_rows_that_leave_or_move(how, change, tmp_path):
    """Copied columns stay aligned with results if rows are dropped, row groups change, or columns are left out."""
    source, matrix, missing = carrying(nulls="none")
    if change == "drop":
        missing[::3] = True
    elif change == "drop few":
        missing[[60, 61, 120]] = True
    bad = matrix.copy()
    bad[missing] = np.nan
    source = source.set_column(source.column_names.index("logits"), "logits", lists(bad))
    pq.write_table(source, tmp_path / "in.parquet", **INPUTS[how])
    options = {
        "split": {"row_group_size": 17},
        "merge": {"row_group_size": 220},
        "limit": {"limit": 130},
        "exclude": {"exclude": "count,kind,label"},
        "reorder": {"columns": "words,id,label,count"},
    }.get(change, {})
    out = tmp_path / "out.parquet"
    batchmax.score(tmp_path / "in.parquet", out, on_bad_row="drop", **options)
    keep = np.flatnonzero(~missing)[: options.get("limit")]
    carried = [name for name in pq.read_schema(out).names if name not in {"probs", "loss"}]
    check_carried(out, source.select(carried), keep, how=how)
    got, nulls = numbers_of(pq.read_table(out)["probs"], 5)
    assert not nulls.any()
    np.testing.assert_allclose(got, computed(matrix, np.zeros(250, int))[0][keep], rtol=1e-6)
    check_file(out, checksums=["probs", "loss"])


# Filters, slices and projections, which rely on statistics, indexes and row counts


def searched(folder, kind):
    """Score rows whose row groups and pages have different statistics; return the output's path and its rows."""
    n_rows, n_classes = 2000, 6
    matrix = matrix_of(n_rows, n_classes, seed=3)
    numbers = np.arange(n_rows)
    bad = np.isin(numbers, [0, 99, 100, *range(400, 620), 1999])
    dropped = kind == "dropped"
    matrix[bad, 1] = np.nan
    day = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    source = pa.table(
        {
            "before": pa.array(numbers % 17),
            "logits": lists(matrix),
            "id": pa.array(numbers),
            "text": pa.array([f"row {number:05d}" for number in numbers]),
            "kind": pa.array([f"kind {number // 250}" for number in numbers]).dictionary_encode(),
            "when": pa.array([day + dt.timedelta(hours=int(number)) for number in numbers], pa.timestamp("us", "UTC")),
            "maybe": pa.array([None if number % 5 == 0 or number < 300 else number / 2 for number in numbers.tolist()]),
            "label": pa.array(numbers % n_classes),
        }
    )
    options = {"row_group_size": 100, "data_page_size": 300, "write_batch_size": 10, "write_page_index": True}
    path = folder / "in.parquet"
    if kind == "duckdb":
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("rows", source)
            connection.execute(f"COPY rows TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048, PARQUET_VERSION V2)")
        assert any(chunk.meta.get(14) for chunk in chunks_of(path)), "a Bloom filter"
    elif kind == "polars":
        pl.from_arrow(source).write_parquet(path, row_group_size=100, data_page_size=300, statistics="full")
    else:
        sorting = pq.SortingColumn.from_ordering(source.schema, [("id", "ascending")])
        pq.write_table(
            source,
            path,
            sorting_columns=sorting,
            bloom_filter_options={name: {"ndv": 100, "fpp": 0.01} for name in ("id", "text", "kind")},
            **options,
        )
        assert any(chunk.meta.get(14) for chunk in chunks_of(path)), "a Bloom filter"
    out = folder / "out.parquet"
    more = {"row_group_size": 333} if kind == "split" else {}
    batchmax.score(path, out, on_bad_row="drop" if dropped else "null", outputs="probs,loss,pred", **more)
    rows = pq.ParquetFile(out).read()
    assert rows["id"].to_pylist() == (numbers[~bad] if dropped else numbers).tolist()
    return out, rows


SEARCHES = {
    "id above": ("id", ">", 1234),
    "id below": ("id", "<", 101),
    "id is": ("id", "==", 777),
    "id is none": ("id", "==", 5000),
    "text is": ("text", "==", "row 01500"),
    "text is none": ("text", "==", "row 01500x"),
    "text from": ("text", ">=", "row 01990"),
    "kind is": ("kind", "==", "kind 3"),
    "kind is not": ("kind", "!=", "kind 3"),
    "when before": ("when", "<", dt.datetime(2024, 1, 5, tzinfo=dt.UTC)),
    "maybe above": ("maybe", ">", 890.0),
    "maybe is": ("maybe", "==", 151.0),
    "before is": ("before", "==", 16),
    "loss above": ("loss", ">", 9.0),
    "loss below": ("loss", "<", 0.05),
    "pred is": ("pred", "==", 4),
}


def ids_found(rows, search):
    """Return the ids that a filter must find: null values never match."""
    name, sign, value = search
    compare = {">": pc.greater, "<": pc.less, ">=": pc.greater_equal, "==": pc.equal, "!=": pc.not_equal}[sign]
    column = rows[name]
    column = as_type(column, pa.string()) if name == "kind" else column
    return rows["id"].filter(compare(column, pa.scalar(value, column.type))).to_pylist()


@pytest.mark.parametrize("kind", ["pyarrow", "split", "dropped", "duckdb", "polars"])
def test_filters_find_the_rows(kind, tmp_path):
    """Filters that skip by statistics, page indexes and Bloom filters find all matching rows of an output."""
    out, rows = searched(tmp_path, kind)
    datasets = hugging_face(str(tmp_path / ".hugging_face"))
    for search in SEARCHES.values():
        name, sign, value = search
        want = ids_found(rows, search)
        assert pq.read_table(out, columns=["id"], filters=[search])["id"].to_pylist() == want, ("pyarrow", search)
        assert pd.read_parquet(out, filters=[search])["id"].tolist() == want, ("pandas", search)
        column = pl.col(name).cast(pl.String) if name == "kind" else pl.col(name)
        test = {">": column > value, "<": column < value, ">=": column >= value, "==": column == value}.get(
            sign, column != value
        )
        for engine in ("in-memory", "streaming"):
            found = pl.scan_parquet(out).filter(test).select("id").collect(engine=engine)
            assert found["id"].to_list() == want, ("polars", engine, search)
        literal = f"'{value}'" if isinstance(value, str | dt.datetime) else value
        clause = f'"{name}" {sign.replace("==", "=")} {literal}'
        found = ask_duckdb(f"SELECT id FROM {duckdb_files(out)} WHERE {clause}")
        assert found["id"].to_pylist() == want, ("duckdb", search)
        if name not in {"when", "kind"}:
            # By row group only: its row filter doesn't support chunks of several pages.
            with fastparquet_file(out) as file:
                found = file.to_pandas(columns=["id"], filters=[[search]])
            assert set(want) <= set(found["id"]), ("fastparquet", search)
    data = datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache"), filters=[("id", ">", 1234)])
    assert list(data["id"]) == ids_found(rows, ("id", ">", 1234))
    missing = rows["id"].filter(rows["maybe"].is_null()).to_pylist()
    assert pl.scan_parquet(out).filter(pl.col("maybe").is_null()).collect()["id"].to_list() == missing
    assert ask_duckdb(f"SELECT id FROM {duckdb_files(out)} WHERE maybe IS NULL")["id"].to_pylist() == missing
    without = rows["id"].filter(rows["probs"].is_null()).to_pylist()
    assert pl.scan_parquet(out).filter(pl.col("probs").is_null()).collect()["id"].to_list() == without
    assert ask_duckdb(f"SELECT id FROM {duckdb_files(out)} WHERE probs IS NULL")["id"].to_pylist() == without
    assert pq.read_table(out, filters=pc.field("loss").is_null())["id"].to_pylist() == without
    check_file(out, checksums=["probs", "loss", "pred"])


@pytest.mark.parametrize("kind", ["pyarrow", "split", "duckdb", "polars"])
def test_slices_and_projections_fit_together(kind, tmp_path):
    """Slices of rows, row groups, batches and selected columns equal those of the whole table."""
    out, rows = searched(tmp_path, kind)
    probs, nulls = rows["probs"].to_pylist(), rows["probs"].is_null().to_pylist()
    for start, length in [(0, 1), (95, 10), (99, 1), (100, 1), (398, 230), (1000, 333), (1990, 10)]:
        want = probs[start : start + length]
        found = pl.scan_parquet(out).slice(start, length).select("probs", "id").collect()
        assert found["probs"].to_list() == want
        assert found["id"].to_list() == list(range(start, start + length))
        asked = ask_duckdb(f"SELECT probs, text FROM {duckdb_files(out)} LIMIT {length} OFFSET {start}")
        assert asked["probs"].to_pylist() == want
        assert asked["text"].to_pylist() == rows["text"].slice(start, length).to_pylist()
    file = pq.ParquetFile(out)
    at = 0
    for group in range(file.num_row_groups):
        found = file.read_row_group(group, columns=["probs"])["probs"].to_pylist()
        assert found == probs[at : at + len(found)]
        at += len(found)
    assert at == len(probs)
    batches = [batch["probs"].to_pylist() for batch in file.iter_batches(37, columns=["probs"])]
    assert list(itertools.chain(*batches)) == probs
    last = file.num_row_groups - 1
    assert file.read_row_groups([last, 0], columns=["probs", "loss"])["loss"].to_pylist() == [
        *file.read_row_group(last)["loss"].to_pylist(),
        *file.read_row_group(0)["loss"].to_pylist(),
    ]
    for name, reader in READERS.items():
        if name == "fastparquet" and kind == "duckdb":
            continue  # it doesn't support the string encodings of V2
        for names in (["probs"], ["loss", "before"], ["pred"], ["text", "probs"]):
            schema = rows.select(names).schema.remove_metadata()
            found = reader(out, schema)
            assert all(same(found[name].combine_chunks(), as_type(rows[name], rows[name].type)) for name in names)
    counted = ask_duckdb(
        f"SELECT count(*) AS n, count(probs) AS m, min(id) AS a, max(id) AS b FROM {duckdb_files(out)}"
    )
    assert counted.to_pylist() == [{"n": 2000, "m": 2000 - sum(nulls), "a": 0, "b": 1999}]
    assert pl.scan_parquet(out).select(pl.len()).collect().item() == 2000


# Schema and footer


def test_field_ids_and_nullability_survive(tmp_path):
    """Copied columns keep field ids and nullability; computed columns don't get the field id of another column."""
    number_of = lambda number: {"PARQUET:field_id": str(number)}
    numbered = lambda name, kind, number, **more: pa.field(name, kind, metadata=number_of(number), **more)
    schema = pa.schema(
        [
            numbered("id", pa.int64(), 1, nullable=False),
            numbered("logits", pa.list_(numbered("element", pa.float32(), 8, nullable=False)), 2, nullable=False),
            numbered("words", pa.list_(numbered("element", pa.string(), 7)), 3),
            numbered("nest", pa.struct([numbered("a", pa.int32(), 9, nullable=False)]), 4),
            numbered("label", pa.int32(), 5, nullable=False),
        ]
    )
    matrix = matrix_of(50, 3)
    source = pa.table(
        [
            pa.array(range(50)),
            lists(matrix).cast(schema.field("logits").type),
            pa.array([["a"]] * 50),
            pa.array([{"a": row} for row in range(50)], schema.field("nest").type),
            pa.array(np.arange(50) % 3, pa.int32()),
        ],
        schema=schema,
    )
    pq.write_table(source, tmp_path / "in.parquet", row_group_size=20)
    before = pq.read_metadata(tmp_path / "in.parquet").schema
    for number, options in enumerate([{}, {"row_group_size": 7}]):
        out = tmp_path / f"out{number}.parquet"
        batchmax.score(tmp_path / "in.parquet", out, **options)
        got = pq.read_schema(out)
        for name in ("id", "words", "nest", "label"):
            assert got.field(name).nullable == schema.field(name).nullable
            assert got.field(name).metadata[b"PARQUET:field_id"] == schema.field(name).metadata[b"PARQUET:field_id"]
        assert got.field("words").type.value_field.metadata == {b"PARQUET:field_id": b"7"}
        assert not got.field("nest").type.field("a").nullable
        numbers = [int((field.metadata or {}).get(b"PARQUET:field_id", -1)) for field in got]
        assert not {*numbers[-2:]} & {1, 2, 3, 4, 5, 7, 8, 9}
        after = pq.read_metadata(out).schema
        leaves = {before.column(index).path: before.column(index) for index in range(len(before))}
        for index in range(len(after)):
            leaf = after.column(index)
            if leaf.path in leaves:
                old = leaves[leaf.path]
                assert leaf.max_definition_level == old.max_definition_level
                assert (leaf.physical_type, str(leaf.logical_type)) == (old.physical_type, str(old.logical_type))
        readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
        check_carried(out, source, readers=readers)
        check_file(out, checksums=["probs", "loss"])


@pytest.mark.parametrize("options", [{}, {"row_group_size": 70}, {"row_group_size": 250}, {"exclude": "id"}])
@pytest.mark.parametrize("keys", [["id"], ["label", "id"], ["logit_1"], ["id", "logit_1"]])
def test_no_sorting_is_claimed_that_is_not_there(keys, options, tmp_path):
    """Sorting columns in an output's footer are right: row groups are sorted by them, and the column index is adjusted.

    Each row group of the input is sorted; the whole file isn't.
    """
    numbers = np.arange(300)
    within = numbers % 100
    source = pa.table(
        {
            "other": 300 - numbers,
            "logit_0": np.sin(numbers),
            "logit_1": within / 8,
            "id": within,
            "label": within // 50,
        }
    )
    sorting = pq.SortingColumn.from_ordering(source.schema, [(key, "ascending") for key in keys])
    pq.write_table(source, tmp_path / "in.parquet", sorting_columns=sorting, row_group_size=100)
    check_file(tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", layout="list", **options)
    check_file(tmp_path / "out.parquet")


DUCKDB_ROWS = """
    SELECT i AS id, ('r' || (i % 50)) AS text, (i % 4)::UTINYINT AS tiny, (i % 2 = 0) AS flag,
           DATE '2024-01-01' + i::INTEGER AS day, TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND AS at,
           (TIME '00:00:00' + INTERVAL (i) SECOND) AS clock, (i / 8)::DECIMAL(14, 3) AS price,
           CASE WHEN i % 9 = 4 THEN NULL ELSE i * 3 END AS maybe, ['a', 'b', NULL][1 : i % 4] AS words,
           {{'x': i, 'y': 'y' || i}} AS pair, (i::VARCHAR)::BLOB AS blob,
           (['low', 'high'][1 + i % 2])::ENUM ('low', 'high') AS level,
           [sin(i * 7 + k)::FLOAT FOR k IN range(5)] AS logits, (i % 5) AS label
    FROM range({rows}) t(i)
"""


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("codec", ["snappy", "zstd"])
def test_columns_that_duckdb_wrote_are_carried(codec, version, tmp_path):
    """Columns with DuckDB's encodings (delta in V2), Bloom filters and converted types are copied."""
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    with duckdb.connect(config={"threads": 1}) as connection:
        query = DUCKDB_ROWS.format(rows=3000)
        copy = f"FORMAT parquet, CODEC '{codec}', PARQUET_VERSION {version}, ROW_GROUP_SIZE 2048"
        connection.execute(f"COPY ({query}) TO '{path}' ({copy})")
    batchmax.score(path, out)
    source = pq.read_table(path)
    readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
    check_carried(out, source, readers=readers)
    # fastparquet doesn't support every delta encoding: it must read from the output what it reads from the input.
    check_carried(out, source.select(["id", "tiny", "label", "logits"]), readers=only("fastparquet"))
    check_file(out, checksums=["probs", "loss"])
    found = ask_duckdb(f"SELECT id FROM {duckdb_files(out)} WHERE text = 'r49' AND id > 2100")
    assert found["id"].to_pylist() == [row for row in range(2101, 3000) if row % 50 == 49]


@pytest.mark.parametrize("codec", CODECS)
def test_columns_that_polars_wrote_are_carried(codec, tmp_path):
    """Columns with Polars' encodings and page statistics are copied."""
    source, matrix, _ = carrying(nulls="none")
    source = source.drop(["nothing"])
    frame = pl.from_arrow(source)
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    frame.write_parquet(path, compression=codec.replace("none", "uncompressed"), row_group_size=90, data_page_size=200)
    batchmax.score(path, out)
    readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
    check_carried(out, pq.read_table(path), readers=readers)
    probs, _ = numbers_of(pq.read_table(out)["probs"], 5)
    np.testing.assert_allclose(probs, computed(matrix, np.zeros(250, int))[0], rtol=1e-6)
    check_file(out, checksums=["probs", "loss"])


@given(
    st.integers(2, 70),
    st.integers(1, 120),
    st.integers(1, 50),
    st.sampled_from(LAYOUTS),
    st.sampled_from(CODECS),
    st.sampled_from([np.float32, np.float64]),
    st.data(),
)
@settings(max_examples=25)
def test_any_shape_is_read_by_others(tmp_path_factory, n_classes, n_rows, group, layout, codec, dtype, data):
    """pyarrow, Polars and DuckDB read the right rows for any shape, row group size and null rows."""
    folder = tmp_path_factory.mktemp("any")
    matrix = matrix_of(n_rows, n_classes, dtype)
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows)))
    matrix[missing] = np.nan
    source = table_of(matrix)
    pq.write_table(source, folder / "in.parquet", row_group_size=group)
    out = folder / "out.parquet"
    batchmax.score(folder / "in.parquet", out, layout=layout, compression=codec, on_bad_row="null")
    check_scored(out, source, matrix, missing, only("pyarrow", "polars", "duckdb"), dtype)


# Spark


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Yield a Spark session, which takes seconds to start, for all tests of the module."""
    from pyspark.sql import SparkSession

    before = os.environ.get("PYSPARK_PYTHON")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    folder = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(folder),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(folder),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[1]").appName("interchange")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
    if before is None:
        del os.environ["PYSPARK_PYTHON"]
    else:
        os.environ["PYSPARK_PYTHON"] = before


def read_spark(spark, path, schema):
    frame = spark.read.parquet(str(path))
    if "id" in frame.columns:
        frame = frame.orderBy("id")
    return in_schema(frame.select(*(f"`{name}`" for name in schema.names)).toArrow(), schema)


def spark_file(folder):
    """Return the only data file in a folder that Spark wrote."""
    (file,) = folder.glob("part-*.parquet")
    return file


@pytest.mark.spark
@pytest.mark.parametrize("legacy", ["false", "true"])
@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_spark_writes_is_read(dtype, nullable, legacy, spark, tmp_path, monkeypatch):
    """The fast reader reads Spark's lists, legacy or not, nullable or not; Hadoop's LZ4 codec is left to pyarrow."""
    from pyspark.sql import types

    kind = types.FloatType() if dtype == np.float32 else types.DoubleType()
    schema = types.StructType(
        [
            types.StructField("id", types.LongType(), nullable=False),
            types.StructField("logits", types.ArrayType(kind, nullable), nullable),
            types.StructField("label", types.LongType()),
        ]
    )
    codecs = itertools.cycle(["snappy", "zstd", "gzip", "lz4", "lz4_raw", "none"])
    spark.conf.set("spark.sql.parquet.writeLegacyFormat", legacy)
    for number, n_classes in enumerate([*CLASSES, *CLASSES]):
        codec = next(codecs)
        matrix = matrix_of(max(60, 3000 // n_classes), n_classes, dtype, few=number % 2 == 0)
        options = {
            "compression": codec,
            "parquet.writer.version": ("v1", "v2")[number // 6],
            "parquet.page.size": str((300, 1 << 20)[number % 4 // 2]),
            "parquet.block.size": "20000",
            "parquet.page.row.count.limit": "37",
            "parquet.enable.dictionary": ("true", "false")[number % 3 // 2],
        }
        frame = spark.createDataFrame(table_of(matrix), schema=schema).coalesce(1)
        folder = tmp_path / f"x{number}"
        frame.write.options(**options).parquet(str(folder))
        file = spark_file(folder)
        chunk = next(chunk for chunk in chunks_of(file) if chunk.path.startswith("logits"))
        last = {("false", True): "list.element", ("false", False): "list.element", ("true", True): "bag.array"}
        assert chunk.path == f"logits.{last.get((legacy, nullable), 'array')}"
        assert len(chunk.data_pages) > 1 or len(matrix) < 300
        check_reads_alike(file, matrix, monkeypatch, falls_back="codec" if codec == "lz4" else None)
        codecs = codecs if number != 5 else itertools.cycle(["gzip", "none", "lz4_raw", "snappy", "lz4", "zstd"])


@pytest.mark.spark
@pytest.mark.parametrize("layout", LAYOUTS)
def test_spark_reads_what_we_write(layout, spark, tmp_path):
    """Spark reads output files and folders in every codec that it supports (not brotli), with null rows."""
    read = {"spark": functools.partial(read_spark, spark)}
    cases = [case for case in CASES if case[3] == layout and case[4] != "brotli" and case[1] <= 20_000]
    for number, (n_classes, n_rows, group, _, codec, nulls) in enumerate(cases):
        missing = null_rows(nulls, n_rows, n_classes)
        matrix = matrix_of(n_rows, n_classes)
        matrix[missing, 0] = np.nan
        source = table_of(matrix)
        inputs = tmp_path / f"in{number}"
        inputs.mkdir()
        half = n_rows // 2
        options = {"row_group_size": group, "compression": codec.replace("none", "NONE")}
        pq.write_table(source.slice(0, half), inputs / "0.parquet", **options)
        pq.write_table(source.slice(half), inputs / "1.parquet", **options)
        for out in (tmp_path / f"out{number}.parquet", tmp_path / f"out{number}"):
            batchmax.score(str(inputs), str(out), layout=layout, on_bad_row="null")
            check_scored(out, source, matrix, missing, read)


@pytest.mark.spark
def test_spark_reads_a_folder_with_its_manifest(spark, tmp_path):
    """Spark reads the rows of all parts of an output folder, Hive partitions included, and from its parent folder."""
    for day in (1, 2):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"logits": [[1.0, 2.0]] * 5}), tmp_path / "in" / f"day={day}" / "x.parquet")
    batchmax.score(tmp_path / "in", tmp_path / "partitioned" / "out")
    batchmax.score(tmp_path / "in" / "day=1", tmp_path / "plain" / "out")
    partitioned = spark.read.parquet(str(tmp_path / "partitioned" / "out"))
    assert sorted(partitioned.groupBy("day").count().collect()) == [(1, 5), (2, 5)]
    assert spark.read.parquet(str(tmp_path / "plain" / "out")).count() == 5
    assert spark.read.option("recursiveFileLookup", "true").parquet(str(tmp_path / "plain")).count() == 5


@pytest.mark.spark
@pytest.mark.parametrize("how", [how for how in INPUTS if how != "checksums"])  # Spark doesn't support its brotli
def test_spark_reads_what_was_carried(how, spark, tmp_path):
    """Spark reads copied columns of every type."""
    source, _, _ = carrying()
    pq.write_table(source, tmp_path / "in.parquet", **INPUTS[how])
    source = pq.read_table(tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", on_bad_row="null")
    check_carried(tmp_path / "out.parquet", source, readers={"spark": functools.partial(read_spark, spark)})


@pytest.mark.spark
@pytest.mark.parametrize("kind", ["pyarrow", "split", "dropped", "duckdb", "polars"])
def test_spark_filters_find_the_rows(kind, spark, tmp_path):
    """Spark's filters, which skip by statistics, page indexes and Bloom filters, find all matching rows."""
    from pyspark.sql import functions

    out, rows = searched(tmp_path, kind)
    frame = spark.read.parquet(str(out))
    for search in SEARCHES.values():
        name, sign, value = search
        column = functions.col(name)
        test = {"==": column == value, "!=": column != value, ">": column > value, "<": column < value}.get(
            sign, column >= value
        )
        found = [row["id"] for row in frame.filter(test).select("id", "probs").orderBy("id").collect()]
        assert found == ids_found(rows, search), search
    without = rows["id"].filter(rows["probs"].is_null()).to_pylist()
    assert sorted(row["id"] for row in frame.filter("probs IS NULL").select("id").collect()) == without
    assert frame.count() == rows.num_rows
    some = frame.filter("id BETWEEN 700 AND 705").orderBy("id").select("probs").collect()
    before = len(ids_found(rows, ("id", "<", 700)))
    assert [row["probs"] for row in some] == rows["probs"].slice(before, 6).to_pylist()


@pytest.mark.spark
@pytest.mark.parametrize("legacy", ["false", "true"])
@pytest.mark.parametrize("timestamps", ["TIMESTAMP_MICROS", "INT96"])
def test_columns_that_spark_wrote_are_carried(timestamps, legacy, spark, tmp_path):
    """Spark's INT96 timestamps and legacy lists are copied; Spark and the other readers read them."""
    source, _, _ = carrying(nulls="none")
    source = source.drop(["huge", "kind"])
    spark.conf.set("spark.sql.parquet.writeLegacyFormat", legacy)
    spark.conf.set("spark.sql.parquet.outputTimestampType", timestamps)
    frame = spark.createDataFrame(source).coalesce(1)
    frame.write.option("parquet.block.size", "20000").parquet(str(tmp_path / "in"))
    path, out = spark_file(tmp_path / "in"), tmp_path / "out.parquet"
    batchmax.score(path, out)
    written = pq.read_table(path)
    readers = {reader: read for reader, read in READERS.items() if reader != "fastparquet"}
    check_carried(out, written, readers=readers | {"spark": functools.partial(read_spark, spark)})
    check_file(out, checksums=["probs", "loss"])

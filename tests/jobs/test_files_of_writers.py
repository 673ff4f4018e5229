"""Files as other libraries write them by default are read as matrices, with the results of pyarrow's reader."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.options.score_options import score_options
from batchmax.parquet.reading import page_reader
from batchmax.sources import parquet_source
from tests.support.paths import ROOT
from tests.support.progress import Recorder
from tests.support.requirements import package

sys.path.append(str(ROOT / "scripts"))

from benchmarks import writers
from benchmarks.suites import WRITTEN

FILES = [(library, codec) for library, codecs in WRITTEN.items() for codec in codecs]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a file of 700 rows of 1000 classes: several pages of 1 MiB in every library."""
    rng = np.random.default_rng(3)
    logits = (3 * rng.standard_normal((700, 1000))).astype(np.float32)
    offsets = pa.array(np.arange(0, logits.size + 1, 1000, dtype=np.int32))
    rows = pa.ListArray.from_arrays(offsets, pa.array(logits.ravel()))
    path = tmp_path_factory.mktemp("writers") / "plain.parquet"
    labels = pa.array(rng.integers(0, 1000, 700))
    pq.write_table(pa.table({"id": pa.array(np.arange(700)), "logits": rows, "label": labels}), path)
    return path


@pytest.mark.parametrize("large", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("library", "codec"), FILES)
def test_a_file_of_a_writer_is_read_as_matrices(library, codec, large, plain, tmp_path, monkeypatch):
    """No chunk of logits leaves the fast path; values equal pyarrow's, and the bytes don't depend on the threads.

    DuckDB's pages of 100 MiB are streamed; here, small ones are.
    """
    if library != "pyarrow":
        package(library)
    source = tmp_path / "in.parquet"
    writers.LIBRARIES[library](str(plain), str(source), codec)
    if large:
        if codec == "lz4":
            pytest.skip("lz4 can't be decompressed in pieces")
        monkeypatch.setattr(page_reader, "LARGE_PAGE_BYTES", 0)
    written = {}
    for way in ("1", "2", "pyarrow"):
        monkeypatch.setenv("BATCHMAX_PARQUET", "pyarrow" if way == "pyarrow" else "")
        threads = 2 if way == "pyarrow" else int(way)
        recorder = Recorder()
        written[way] = tmp_path / f"{way}.parquet"
        batchmax.score(source, written[way], compression="zstd", threads=threads, progress=recorder)
        if way != "pyarrow":
            assert any("by pyarrow: 0;" in line for line in recorder.details), recorder.details
    assert written["1"].read_bytes() == written["2"].read_bytes()
    assert pq.read_table(written["1"]).equals(pq.read_table(written["pyarrow"]))


@pytest.mark.parametrize(("library", "codec"), FILES)
def test_the_classes_are_counted_without_decoding(library, codec, plain, tmp_path, monkeypatch):
    """The length of a row comes from the levels of the first page; pyarrow decodes no logits for it."""
    if library != "pyarrow":
        package(library)
    source = tmp_path / "in.parquet"
    writers.LIBRARIES[library](str(plain), str(source), codec)

    monkeypatch.setattr(parquet_source, "first_row_length", None)
    assert parquet_source.ParquetSource([str(source)], score_options()).job.n_classes == 1000

"""Tests the metadata of outputs: the same for the same job, and without paths or times."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax import __version__
from batchmax.options.score_options import score_options
from batchmax.sinks.codecs import output_codecs
from batchmax.sinks.metadata import output_schema, rejects_schema
from batchmax.sources.parquet_source import open_source

TABLE = pa.table(
    {"id": [1, 2], "a.b": ["x", "y"], "logits": pa.array([[0.5, 1], [2, 3]], pa.list_(pa.float32())), "label": [0, 1]}
).replace_schema_metadata({"model": "m1", "pandas": "{}", "org.apache.spark.version": "4", "batchmax": "old"})


@pytest.fixture
def path(tmp_path):
    """Return a file in which every column has a different codec."""
    codecs = {"id": "GZIP", "a.b": "ZSTD", "logits.list.element": "BROTLI", "label": "NONE"}
    pq.write_table(TABLE, tmp_path / "x.parquet", compression=codecs)
    return tmp_path / "x.parquet"


def said(path, **options):
    source = open_source(path, score_options(**options))
    return output_schema(source.job, source).metadata


def test_the_same_job_says_the_same(path, tmp_path):
    """The metadata don't depend on threads, memory limit, gate, and ``if_exists``, or on the input's path."""
    copy = tmp_path / "elsewhere" / "y.parquet"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    same = said(path)
    assert said(path) == same
    assert said(copy) == same
    assert said(path, threads=1, memory_limit="300MiB", if_exists="overwrite", fail_if="n_rows > 9") == same
    assert str(tmp_path) not in str(same)


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.5},
        {"temperature": 3.0},
        {"input": "log_probs"},
        {"ignore_index": 1},
        {"label_smoothing": 0.1},
        {"limit": 1},
        {"on_bad_row": "null"},
        {"top_k": 2},
        {"prefix": "p_"},
        {"row_group_size": 7},
        {"compression": "zstd"},
        {"outputs": "loss"},
        {"layout": "fixed"},
        {"dtype": "float64"},
        {"class_weights": [1.0, 2.0]},
        {"classes": "a,b"},
        {"label": "none"},
        {"n_classes": None, "label": "id"},
    ],
    ids=str,
)
def test_another_job_says_something_else(path, options):
    """Every option that changes the bytes of the output changes the ``batchmax`` key."""
    assert said(path, **options)[b"batchmax"] != said(path)[b"batchmax"]


@pytest.mark.parametrize("options", [{}, {"beta": 1e300}, {"beta": 1e-300}, {"class_weights": [0.0, 1e308]}], ids=str)
def test_what_is_said_is_json(path, options):
    """The ``batchmax`` key is strict JSON with the version, the number of classes, and a fingerprint of each input."""
    values = json.loads(said(path, **options)[b"batchmax"], parse_constant=pytest.fail)
    assert values["version"] == __version__
    assert values["n_classes"] == 2
    assert [set(file) for file in values["inputs"]] == [{"size", "footer_sha256", "sample_sha256"}]
    assert values["inputs"][0]["size"] == path.stat().st_size


def test_metadata_are_rebuilt(path, tmp_path):
    """Keys that still apply are kept; if inputs differ, the first one's value is used."""
    other = tmp_path / "y.parquet"
    pq.write_table(TABLE.replace_schema_metadata({"model": "m2", "run": "7"}), other)
    metadata = said([path, other])
    assert set(metadata) == {b"model", b"run", b"batchmax"}
    assert (metadata[b"model"], metadata[b"run"]) == (b"m1", b"7")
    assert said(TABLE)[b"model"] == b"m1"


def test_codecs_are_the_inputs(path):
    """Carried columns keep their codec, and computed ones have that of the logits.

    The option ``compression`` applies to all columns.
    """
    source = open_source(path, score_options())
    assert output_codecs(source.job, source) == {
        "id": "GZIP",
        "a.b": "ZSTD",
        "label": "NONE",
        "probs": "BROTLI",
        "loss": "BROTLI",
    }
    source = open_source(path, score_options(compression="lz4"))
    assert set(output_codecs(source.job, source).values()) == {"LZ4"}
    source = open_source(TABLE, score_options())
    assert set(output_codecs(source.job, source).values()) == {"SNAPPY"}


def test_rejects_say_where_from():
    """Rejects have the columns file, row and status after their own; a name that is taken gets a prefix."""
    schema = rejects_schema(pa.schema({"row": pa.string(), "logits": pa.list_(pa.float32())}))
    assert schema.names == ["row", "logits", "file", "batchmax_row", "status"]
    assert [str(field.type) for field in schema][2:] == ["string", "int64", "string"]

"""Tests output files and folders: when they are written or replaced, row limits, metadata and codecs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax import BadRowError, DataError, OutputError
from batchmax.jobs.score import score
from tests.support import oracle
from tests.support.files import damage, group_sizes, names_in, row_texts
from tests.support.layouts import digits
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.paths import DATA, ROOT
from tests.support.processes import HANGS
from tests.support.requirements import optional
from tests.support.rows import NAN, table_of

pd = optional("pandas")
ALL = SOFTMAX_OUTPUTS


# Files and folders


@pytest.mark.usefixtures("small_parts")
def test_folder_contains_only_parts_success_and_manifest(tmp_path):
    """An output folder contains only the parts, an empty ``_SUCCESS`` and the manifest.

    Parts are whole row groups. The manifest has the sizes of the parts and the summary.
    """
    pq.write_table(table_of(20), tmp_path / "in.parquet", row_group_size=5)
    summary = score(tmp_path / "in.parquet", tmp_path / "out", outputs="pred,loss")
    assert names_in(tmp_path) == ["in.parquet", "out"]
    parts = [f"part-0000{number}.parquet" for number in range(4)]
    assert names_in(tmp_path / "out") == ["_SUCCESS", "_batchmax.parquet", *parts]
    assert [group_sizes(part) for part in sorted((tmp_path / "out").glob("part-*"))] == [[5]] * 4
    assert (tmp_path / "out" / "_SUCCESS").read_bytes() == b""
    manifest = pq.read_metadata(tmp_path / "out" / "_batchmax.parquet")
    assert manifest.num_rows == 0
    assert manifest.schema.to_arrow_schema() == pq.read_schema(tmp_path / "out" / parts[0])
    content = json.loads(manifest.metadata[b"batchmax.manifest"])
    assert content["parts"] == {part: (tmp_path / "out" / part).stat().st_size for part in parts}
    passing = {"files": 0, "seconds": 0, "bytes_written": 0, "held": 0}
    assert content["summary"] | passing == json.loads(summary.to_json()) | passing


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_existing_output_is_replaced_only_with_overwrite(out, tmp_path):
    """An existing output is refused by default, and replaced as a whole by ``overwrite``."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    path = tmp_path / out
    score(tmp_path / "in.parquet", path, outputs="pred")
    with pytest.raises(OutputError, match=r"the output exists; .*--if-exists overwrite"):
        score(tmp_path / "in.parquet", path, outputs="loss")
    assert "pred" in pq.read_table(path).column_names
    score(tmp_path / "in.parquet", path, outputs="loss", if_exists="overwrite")
    assert "loss" in pq.read_table(path).column_names
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_foreign_folder_is_never_replaced(tmp_path):
    """A folder that batchmax didn't write is never overwritten."""
    pq.write_table(table_of(20), tmp_path / "in.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="not a folder that batchmax wrote"):
        score(tmp_path / "in.parquet", tmp_path / "out", if_exists="overwrite")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.usefixtures("small_parts")
def test_bad_row_error_leaves_no_output(out, tmp_path):
    """With ``on_bad_row='error'``, the error names file, row and row group, and nothing of the output remains."""
    table = table_of(30)
    logits = table["logits"].to_pylist()
    logits[23][2] = NAN
    bad = table.set_column(1, "logits", pa.array(logits, pa.list_(pa.float32())))
    pq.write_table(table, tmp_path / "1.parquet", row_group_size=5)
    pq.write_table(bad, tmp_path / "2.parquet", row_group_size=5)
    inputs = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    with pytest.raises(BadRowError) as caught:
        score(inputs, tmp_path / out)
    second = tmp_path / "2.parquet"
    assert str(caught.value) == (
        f"{second}: row 23 (row group 4): NaN at class 2; to see the row: batchmax show {second} --row 23; "
        "to write nulls instead: --on-bad-row null"
    )
    assert names_in(tmp_path) == ["1.parquet", "2.parquet"]


@pytest.mark.parametrize("out", ["in.parquet", "link.parquet", "hard.parquet"])
def test_input_as_output_is_refused(out, tmp_path):
    """An output path that is an input, also through a symbolic or hard link, is refused."""
    pq.write_table(table_of(5), tmp_path / "in.parquet")
    before = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "link.parquet").symlink_to("in.parquet")
    (tmp_path / "hard.parquet").hardlink_to(tmp_path / "in.parquet")
    with pytest.raises(OutputError, match="also an input"):
        score(tmp_path / "in.parquet", tmp_path / out, if_exists="overwrite")
    assert (tmp_path / "in.parquet").read_bytes() == before


@pytest.mark.parametrize("limit", [0, 1, 10, 20, 25, 40, 1000])
@pytest.mark.parametrize("out", ["out.pq", "out"])
@pytest.mark.usefixtures("small_parts")
def test_limit_takes_the_first_rows(limit, out, tmp_path):
    """A limit of N takes the first N rows of all files; with no rows, the output still has its columns."""
    for number in range(2):
        pq.write_table(table_of(20, seed=number), tmp_path / f"{number}.parquet", row_group_size=8)
    source_path = str(tmp_path / "?.parquet")
    score(source_path, tmp_path / "whole.pq", outputs=ALL)
    summary = score(source_path, tmp_path / out, outputs=ALL, limit=limit)
    got = pq.read_table(tmp_path / out)
    assert row_texts(got) == row_texts(pq.read_table(tmp_path / "whole.pq"))[:limit]
    assert got.column_names == ["id", "label", *ALL]
    assert summary.n_rows == min(limit, 40)


def test_damaged_row_group_is_named_and_not_read_after_the_limit(tmp_path):
    """A row group that can't be read is an error that names the file.

    A row group after the limit isn't read.
    """
    path = tmp_path / "in.parquet"
    pq.write_table(table_of(400), path, row_group_size=100)
    damage(path, 2)
    assert score(path, tmp_path / "out.parquet", limit=200).n_rows == 200
    with pytest.raises(DataError, match=rf"{path}: cannot be read: .*batchmax inspect"):
        score(path, tmp_path / "other.parquet")
    assert names_in(tmp_path) == ["in.parquet", "out.parquet"]


# Metadata


def test_metadata_is_rebuilt(tmp_path):
    """Metadata that describe the input's columns are removed.

    Other keys are kept; if files differ, the first file's value is used.
    """
    foreign = dict.fromkeys(("pandas", "huggingface", "org.apache.spark.sql.parquet.row.metadata"), "{}")
    foreign |= {"batchmax": "old", "batchmax.summary": "old"}
    first = table_of(5).replace_schema_metadata({**foreign, "owner": "first", "a": "1"})
    second = table_of(5).replace_schema_metadata({**foreign, "owner": "second", "b": "2"})
    pq.write_table(first, tmp_path / "1.parquet")
    pq.write_table(second, tmp_path / "2.parquet")
    score(str(tmp_path / "?.parquet"), tmp_path / "out.pq")
    metadata = pq.read_metadata(tmp_path / "out.pq").metadata
    assert set(metadata) == {b"ARROW:schema", b"batchmax", b"batchmax.summary", b"owner", b"a", b"b"}
    assert metadata[b"owner"] == b"first"
    assert json.loads(metadata[b"batchmax.summary"])["n_rows"] == 10
    assert pq.read_schema(tmp_path / "out.pq").names == ["id", "label", "probs", "loss"]


def test_batchmax_metadata_has_version_options_and_fingerprints(tmp_path):
    """The ``batchmax`` key has the version, the options and a fingerprint of the inputs.

    It has no paths, times, host names or numbers of threads.
    """
    score(digits(), tmp_path / "out.parquet", temperature=0.5, classes=DATA / "labels" / "classes.txt", threads=2)
    metadata = json.loads(pq.read_metadata(tmp_path / "out.parquet").metadata[b"batchmax"])
    assert metadata["version"] == batchmax.__version__
    assert metadata["temperature"] == 0.5
    assert metadata["classes"][3] == "three"
    assert metadata["outputs"] == ["probs", "loss"]
    assert [set(file) for file in metadata["inputs"]] == [{"size", "footer_sha256", "sample_sha256"}]
    assert metadata["inputs"][0]["size"] == digits().stat().st_size
    text = json.dumps(metadata)
    assert str(tmp_path) not in text
    assert not {"threads", "seconds", "host", "memory_limit", "time"} & ({*metadata} | {*metadata["options"]})


def test_pandas_metadata_is_removed(tmp_path):
    """A pandas frame with an index is scored, and pandas reads the result with the index as a column."""
    frame = pd.DataFrame({"logits": [[1.0, 2.0], [2.0, 1.0]], "label": [0, 1]}, index=pd.Index([7, 8], name="key"))
    frame.to_parquet(tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    got = pd.read_parquet(tmp_path / "out.parquet")
    assert b"pandas" not in pq.read_metadata(tmp_path / "out.parquet").metadata
    assert got["key"].tolist() == [7, 8]
    assert list(got.columns) == ["label", "key", "probs", "loss"]


def test_spark_metadata_is_removed(tmp_path):
    """Spark's metadata keys are removed, and no other metadata.

    Spark prefers its own keys to the schema, so it wouldn't see new columns.
    """
    before = pq.read_metadata(digits("spark")).metadata
    assert any(key.startswith(b"org.apache.spark") for key in before)
    score(digits("spark"), tmp_path / "out.parquet")
    after = pq.read_metadata(tmp_path / "out.parquet").metadata
    assert set(after) == {b"ARROW:schema", b"batchmax", b"batchmax.summary"}
    assert pq.read_schema(tmp_path / "out.parquet").names == ["id", "label", "probs", "loss"]


@pytest.mark.spark
def test_spark_reads_columns_added_to_its_files(tmp_path):
    """Spark reads the columns probs and loss of scored files that it wrote, with arrays and ML vectors."""
    program = ROOT / "tests/support/spark_round_trip.py"
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(DATA.parent)}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    logits = np.array(found["logits"])
    labels = np.arange(len(logits)) % 4
    assert set(found["files"]) == {"array_scored.parquet", "array_scored", "vector_scored.parquet", "vector_scored"}
    for name, file in found["files"].items():
        single = name.startswith("array")
        assert file["columns"] == ["id", "label", "probs", "loss"]
        kind = "float" if single else "double"
        assert file["types"][2:] == [f"array<{kind}>", kind]
        dtype = np.float32 if single else np.float64
        assert oracle.ulp_error(file["probs"], oracle.softmax(logits), dtype).max() <= 3
        assert oracle.ulp_error(file["loss"], oracle.cross_entropy(logits, labels), dtype).max() <= 3


# Columns


@pytest.mark.parametrize("codec", ["zstd", "gzip", "lz4", "snappy", "none"])
def test_codecs_follow_the_input(codec, tmp_path):
    """Computed columns have the codec of the logits, and carried columns keep theirs.

    The option ``compression`` applies to all columns.
    """
    codecs = {"id": "brotli", "label": "snappy", "logits.list.element": codec}
    empty, path = tmp_path / "0.parquet", tmp_path / "1.parquet"
    pq.write_table(table_of(0), empty)
    pq.write_table(table_of(40), path, compression=codecs)

    def written(**options):
        score([empty, path], tmp_path / "out.pq", if_exists="overwrite", **options)
        group = pq.read_metadata(tmp_path / "out.pq").row_group(0)
        columns = (group.column(number) for number in range(group.num_columns))
        return {column.path_in_schema.split(".")[0]: column.compression for column in columns}

    name = {"none": "UNCOMPRESSED"}.get(codec, codec.upper())
    assert written() == {"id": "BROTLI", "label": "SNAPPY", "probs": name, "loss": name}
    assert set(written(compression="gzip").values()) == {"GZIP"}


def test_pages_have_checksums(tmp_path):
    """A flipped bit in any column of the output is an error if checksums are verified."""
    score(digits(), tmp_path / "out.parquet", compression="none", outputs=ALL)
    footer = pq.read_metadata(tmp_path / "out.parquet")
    data = (tmp_path / "out.parquet").read_bytes()
    for number in range(footer.num_columns):
        column = footer.row_group(0).column(number)
        flipped = bytearray(data)
        flipped[column.data_page_offset + column.total_compressed_size - 1 - (
            column.data_page_offset - (column.dictionary_page_offset or column.data_page_offset)
        )] ^= 1  # fmt: skip
        (tmp_path / "flipped.parquet").write_bytes(flipped)
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(tmp_path / "flipped.parquet", page_checksum_verification=True)


def test_logits_are_removed_from_their_struct(tmp_path):
    """The other fields of a struct with the logits are carried; a struct with only the logits isn't."""
    table = pq.read_table(digits("nested"))
    inner = table["outputs"].combine_chunks()
    logits = inner.field("logits")
    both = pa.StructArray.from_arrays([logits, pa.array(range(60))], ["logits", "step"])
    pq.write_table(table.set_column(1, "outputs", both), tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "both.parquet", logits="outputs.logits")
    score(digits("nested"), tmp_path / "alone.parquet", logits="outputs.logits")
    got = pq.read_table(tmp_path / "both.parquet")
    assert got["outputs"].to_pylist() == [{"step": step} for step in range(60)]
    assert pq.read_table(tmp_path / "alone.parquet").column_names == ["id", "label", "probs", "loss"]

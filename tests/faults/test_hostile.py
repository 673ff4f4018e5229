"""Tests malicious files: each ends with a one-line error in bounded memory, and no code in a file is executed."""

from __future__ import annotations

import base64
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.parquet.footer import COLUMNS, GROUP_ROWS, N_ROWS, ROW_GROUPS
from batchmax.parquet.thrift import Field
from batchmax.parquet.writing.column_chunk import COMPRESSED_BYTES, METADATA, UNCOMPRESSED_BYTES
from tests.support.crafted import edited, file_of, with_arrow_schema

PAGE_AT = 9
"""Field of the column metadata with the offset of the first data page."""

LIMIT = 256 << 20
SECONDS = 60
"""Limit of CPU time per command."""
ESCAPES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def table(rows=64, **more):
    """Return a table that can be scored."""
    logits = np.random.default_rng(0).normal(size=(rows, 5)).astype(np.float32)
    columns = {
        "logits": pa.array(list(logits), pa.list_(pa.float32())),
        "label": pa.array([r % 5 for r in range(rows)]),
    }
    return pa.table(columns | more)


def edit_footer(path, edit):
    """Edit the footer of a file."""
    path.write_bytes(edited(path.read_bytes(), edit))


@pytest.fixture
def run(commands):
    """Return a function that runs a command and returns its exit code, output, errors and peak memory in bytes."""

    def ran(*words):
        answer = commands.ask({"words": [str(word) for word in words]}, SECONDS)
        assert "died" not in answer, answer
        return answer["code"], answer["out"], answer["err"], answer["peak"]

    return ran


@pytest.fixture
def check_file(run):
    """Return a function that inspects and scores a file, and returns the errors of ``score``."""

    def check(folder, path, *, codes=(1, 2), most=LIMIT + (300 << 20)):
        out_path = folder / "out.parquet"
        score = ["score", path, "-o", out_path, "--memory-limit", "256MiB", "--quiet", "--if-exists", "overwrite"]
        for words in (["inspect", path], score):
            code, out, err, peak = run(*words)
            assert code in {*codes, 0} if words[0] == "inspect" else code in codes, (words[0], code, err)
            assert "Traceback" not in err, err
            assert "is a bug" not in err, err
            assert not ESCAPES.search(out + err), out + err
            lines = [line for line in err.splitlines() if not line.startswith("batchmax: warning: ")]
            assert len(lines) == (code != 0), err
            assert peak < most, f"{words[0]}: {peak >> 20} MiB"
        return err

    return check


def chunk_metadata(fields, column=0, group=0):
    """Return the footer's metadata of a column chunk."""
    chunk = fields[ROW_GROUPS].value.values[group][COLUMNS].value.values[column]
    return chunk[METADATA].value


def set_number(where, key, value):
    """Set a field of a struct to a number."""
    where[key] = Field(where[key].kind, value)


@pytest.mark.parametrize("rows", [1 << 60, (1 << 31) + 1, -1])
def test_wrong_row_counts(check_file, tmp_path, rows):
    """A footer that declares a wrong number of rows is refused before memory is allocated."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(), path)

    def change(fields):
        set_number(fields, N_ROWS, rows)
        set_number(fields[ROW_GROUPS].value.values[0], GROUP_ROWS, rows)

    edit_footer(path, change)
    check_file(tmp_path, path)


@pytest.mark.faults(keep=lambda column, value: (column, value) in {(0, -1), (0, 1 << 40), (1, 1 << 40)})
@pytest.mark.parametrize("key", [PAGE_AT, COMPRESSED_BYTES, UNCOMPRESSED_BYTES, 5])
@pytest.mark.parametrize("value", [-1, 0, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("column", [0, 1])
def test_invalid_offsets_and_sizes(check_file, tmp_path, key, value, column):
    """Wrong offsets, sizes and numbers of values are harmless, or end with a one-line error."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(), path, use_dictionary=False)
    edit_footer(path, lambda fields: set_number(chunk_metadata(fields, column), key, value))
    check_file(tmp_path, path, codes=(0, 1, 2))


@pytest.mark.faults(keep=lambda codec: codec == "zstd")
@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("column", ["logits", "text"])
def test_pages_with_huge_decoded_sizes(check_file, tmp_path, codec, column):
    """A few kilobytes that unpack to hundreds of megabytes are refused, or read in bounded memory."""
    path = tmp_path / "x.parquet"
    rows = 1000
    grown = table(rows)
    if column == "logits":
        zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * 60_000, np.float32)), 60_000)
        grown = grown.set_column(0, "logits", zeros.cast(pa.list_(pa.float32())))
    else:
        grown = grown.append_column("text", pa.array(["x" * 300_000] * rows))
    pq.write_table(grown, path, compression=codec, use_dictionary=False, data_page_size=1 << 30)
    assert path.stat().st_size < 25 << 20

    def change(fields):
        # The footer declares a small size.
        set_number(chunk_metadata(fields, {"logits": 0, "text": 2}[column]), UNCOMPRESSED_BYTES, 1000)
        fields[ROW_GROUPS].value.values[0][2] = Field(fields[ROW_GROUPS].value.values[0][2].kind, 3000)

    check_file(tmp_path, path, codes=(0, 1, 2), most=1300 << 20)
    edit_footer(path, change)
    check_file(tmp_path, path, codes=(0, 1, 2), most=1300 << 20)


@pytest.mark.parametrize(
    "name", ["a\x1b[2J\x1b]0;owned\x07", "a\nbatchmax: error: b", "a\u202egnp", "a\x9b31m", "a\x00b"]
)
def test_escape_sequences_in_names_are_escaped(check_file, tmp_path, name):
    """Escape sequences in names of columns and files are printed escaped."""
    path = tmp_path / f"x{name.replace('/', '').replace(chr(0), '')}.parquet"
    pq.write_table(table(**{name: pa.array([1.5] * 64)}).drop_columns("logits"), path)
    check_file(tmp_path, path)


def test_nothing_is_unpickled(check_file, tmp_path):
    """An extension type that older versions of Arrow unpickled is read like any other column."""
    proof = tmp_path / "proof"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    payload = pickle.dumps(Payload())
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": payload}
    fields = [field.with_metadata(metadata) for field in table().schema]
    path = tmp_path / "x.parquet"
    pq.write_table(table().cast(pa.schema(fields)), path)
    check_file(tmp_path, path, codes=(0,))
    assert not proof.exists()


@pytest.mark.parametrize("schema", [b"", b"garbage", b"////", base64.b64encode(b"\xff" * 300), "another"])
def test_wrong_arrow_schema(check_file, tmp_path, schema):
    """An ``ARROW:schema`` that is invalid or of another table gives an error or has no effect."""
    path = tmp_path / "x.parquet"
    if schema == "another":
        schema = pa.schema([("logits", pa.list_(pa.int8())), ("label", pa.list_(pa.string()))])
    path.write_bytes(with_arrow_schema(file_of(table()), schema))
    check_file(tmp_path, path, codes=(0, 1, 2))


@pytest.mark.faults(keep=lambda depth: depth > 10)
@pytest.mark.parametrize("depth", [10, 60, 200])
@pytest.mark.parametrize("kind", ["list", "struct"])
def test_deeply_nested_columns(check_file, tmp_path, depth, kind):
    """Deeply nested columns are copied, or refused."""
    array = pa.array([1] * 64)
    for _ in range(depth):
        array = (
            pa.ListArray.from_arrays(pa.array(range(65), pa.int32()), array)
            if kind == "list"
            else pa.StructArray.from_arrays([array], ["a"])
        )
    path = tmp_path / "x.parquet"
    try:
        pq.write_table(table(deep=array), path)
    except pa.ArrowException as error:
        pytest.skip(f"pyarrow writes none: {error}")
    check_file(tmp_path, path, codes=(0, 1, 2))


def test_deeply_nested_footer(check_file, tmp_path):
    """Deeply nested Thrift structs are refused before the stack overflows."""
    footer = b"\x1c" * 200_000 + b"\x00" * 200_001
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    check_file(tmp_path, path)


def test_many_columns(check_file, tmp_path):
    """Three thousand columns don't overflow the stack or use much memory."""
    path = tmp_path / "x.parquet"
    pq.write_table(table(**{f"c{number}": pa.array([number] * 64) for number in range(3000)}), path)
    check_file(tmp_path, path, codes=(0, 2), most=900 << 20)


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1\xff\xff\xff\xffPAR1", b"PARE" * 9]
)
def test_files_of_magic_bytes_only(check_file, tmp_path, data):
    """Files with hardly more than magic bytes are refused."""
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    check_file(tmp_path, path)


def test_foreign_file_in_a_folder(run, tmp_path):
    """A foreign file in a folder is named in the error; hidden files are ignored."""
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table(), folder / "1.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".notes").write_text("hidden")
    code, _, err, _ = run("score", folder, "-o", tmp_path / "out.parquet", "--quiet")
    assert (code, err) == (0, "")
    (folder / "notes.txt").write_text("a foreign file")
    code, _, err, _ = run("score", folder, "-o", tmp_path / "other.parquet", "--quiet")
    assert code == 1
    assert "in/notes.txt: not a Parquet file" in err
    assert not Path(tmp_path / "other.parquet").exists()

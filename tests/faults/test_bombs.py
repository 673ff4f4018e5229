"""Tests small files that decode to huge sizes, and wrong declarations that only the pages reveal.

Each ends with a one-line error that names the file. Memory is bounded by ``--memory-limit`` plus the memory of the
program itself.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax.sources.parquet_source
from batchmax.errors import DataError
from batchmax.options.score_options import score_options
from batchmax.parquet.thrift import BINARY, LIST, Field, List
from batchmax.sources.parquet_source import ParquetSource
from tests.support import crafted, oracle
from tests.support.paths import ROOT
from tests.support.processes import HANGS

MIB = 1 << 20
LIMIT = 400 * MIB
PROGRAM_MEMORY = 300 * MIB
"""Memory of the program itself."""
INSPECT_LIMIT = 1 << 30
"""Memory limit for ``inspect``, which has no option for it."""
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PLAIN = {"compression": "none", "use_dictionary": False}
ROWS, CLASSES = 24, 6
ID, LOGITS, LABEL, TEXT = range(4)
CODECS = ("snappy", "zstd", "gzip", "brotli", "lz4_raw")
IDS = crafted.levels((ROWS, 1)) + np.arange(ROWS).tobytes()
LABELS = crafted.levels((ROWS, 1)) + (np.arange(ROWS, dtype=np.int32) % CLASSES).tobytes()
ROW_LEVELS = crafted.levels(*[(1, 0), (CLASSES - 1, 1)] * ROWS) + crafted.levels((ROWS * CLASSES, 3))


@pytest.fixture
def check_file(commands, tmp_path):
    """Return a function that inspects and scores a file, and returns the answer of ``score``."""

    def check(data, *, codes=(1, 2), name="x.parquet"):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        out = ["-o", str(tmp_path / "out.parquet"), "--quiet", "--on-bad-row", "null"]
        score = ["score", str(path), *out, "--memory-limit", f"{LIMIT // MIB}MiB"]
        for words, most in ((["inspect", str(path)], INSPECT_LIMIT), (score, LIMIT)):
            answer = commands.ask({"words": words})
            assert "died" not in answer, answer
            assert answer["code"] in ({0, 1, 2} if words[0] == "inspect" else codes), answer
            assert "Traceback" not in answer["err"], answer
            assert "is a bug" not in answer["err"], answer
            assert not ESCAPES.search(answer["out"] + answer["err"]), answer
            assert answer["err"].count("\n") == (answer["code"] != 0), answer
            assert answer["peak"] < most + PROGRAM_MEMORY, (words[0], answer["peak"] // MIB, answer["err"])
        if answer["code"]:
            assert not (tmp_path / "out.parquet").exists()
        return {**answer, "output": str(tmp_path / "out.parquet")}

    return check


def plain(rows=ROWS):
    """Return a file without compression and dictionaries."""
    return crafted.file_of(crafted.table(rows), row_group_size=rows, **PLAIN)


def bomb(leaf, codec, *, declared, zeros=768 * MIB):
    """Return a file with a page that unpacks to ``zeros`` unneeded bytes; if ``declared``, its header declares them."""
    values = {ID: IDS, LABEL: LABELS, LOGITS: ROW_LEVELS}[leaf]
    needed = len(values) + (4 * ROWS * CLASSES if leaf == LOGITS else 0)
    count = ROWS * CLASSES if leaf == LOGITS else ROWS
    page = crafted.page(crafted.packed(codec, values, zeros), len(values) + zeros if declared else needed, count)
    return crafted.with_pages(plain(), leaf, page, count, codec=codec)


@pytest.mark.faults(keep=lambda codec, leaf: codec == "zstd" or (codec, leaf) == ("snappy", LOGITS))
@pytest.mark.parametrize("leaf", [ID, LABEL, LOGITS], ids=["carried", "label", "logits"])
@pytest.mark.parametrize("declared", [True, False], ids=["as it says", "more than it says"])
@pytest.mark.parametrize("codec", CODECS)
def test_decompression_bomb(check_file, codec, declared, leaf):
    """A page of 768 MiB in a few kilobytes isn't unpacked, whether or not its header declares the size."""
    answer = check_file(bomb(leaf, codec, declared=declared))
    assert "x.parquet" in answer["err"]
    if declared:
        assert re.search(r"decoding column '\w+.*' takes up to [\d,]+ MiB, and the limit is 400", answer["err"])
        assert "--memory-limit" in answer["err"]


@pytest.mark.parametrize("leaf", [ID, LOGITS], ids=["carried", "logits"])
def test_page_header_that_declares_2_gib(check_file, leaf):
    """A page header that declares 2 GiB is refused before memory is allocated."""
    count = ROWS * CLASSES if leaf == LOGITS else ROWS
    page = crafted.page(crafted.packed("zstd", IDS), (1 << 31) - 1, count)
    assert "up to 2,04" in check_file(crafted.with_pages(plain(), leaf, page, count, codec="zstd"))["err"]


@pytest.mark.parametrize("first", [0, 2000], ids=["from the first row on", "after rows like any"])
def test_long_dictionary_entry_with_many_references(check_file, first):
    """16,000 rows that refer to one dictionary entry of 1 MiB aren't decoded."""
    rows, text = 1 << 14, b"a" * MIB
    entries = b"".join(len(entry).to_bytes(4, "little") + entry for entry in (b"b", text))
    dictionary = crafted.page(entries, len(entries), 2, dictionary=True)
    indices = crafted.runs(*([(first, 0)] if first else []), (rows - first, 1))
    body = crafted.levels((rows, 1)) + bytes([1]) + indices
    page = crafted.page(body, len(body), rows, crafted.RLE_DICTIONARY)
    data = crafted.with_pages(plain(rows), TEXT, dictionary + page, rows, codec="none", first=len(dictionary))
    assert re.search("decoding column 'text' takes|--memory-limit: the job needs", check_file(data)["err"])


def test_long_dictionary_entry_with_few_references(check_file):
    """A long dictionary entry is read if few rows refer to it, because references determine the decoded size."""
    rows, text = 1 << 14, b"a" * MIB
    entries = b"".join(len(entry).to_bytes(4, "little") + entry for entry in (b"b", text))
    dictionary = crafted.page(entries, len(entries), 2, dictionary=True)
    body = crafted.levels((rows, 1)) + bytes([1]) + crafted.runs((rows - 2, 0), (2, 1))
    page = crafted.page(body, len(body), rows, crafted.RLE_DICTIONARY)
    data = crafted.with_pages(plain(rows), TEXT, dictionary + page, rows, codec="none", first=len(dictionary))
    check_file(data, codes=(0,))


@pytest.mark.parametrize("where", ["logits", "a carried column", "label"])
@pytest.mark.parametrize("count", [1 << 28, (1 << 31) - 100])
def test_huge_lists_of_nulls_or_equal_values(check_file, where, count):
    """A list of nulls or of equal values that takes a few bytes in the file and gigabytes decoded is refused."""
    rows, leaf = crafted.table(), LOGITS
    if where == "a carried column":
        rows, leaf = rows.append_column("more", pa.array([[1.0]] * ROWS, pa.list_(pa.float64()))), 4
    elif where == "label":
        rows, leaf = rows.set_column(2, "label", pa.array([[1 / 6] * 6] * ROWS, pa.list_(pa.float32()))), LABEL
    total = count + ROWS - 1
    body = crafted.levels((1, 0), (count - 1, 1), (ROWS - 1, 0)) + crafted.levels((count, 2), (ROWS - 1, 2))
    page = crafted.page(body, len(body), total)
    data = crafted.with_pages(crafted.file_of(rows, row_group_size=ROWS, **PLAIN), leaf, page, total, codec="none")
    assert "MiB, and the limit is 400 MiB" in check_file(data)["err"]


def test_huge_list_from_a_dictionary(check_file):
    """A list of equal values from a dictionary with one entry, gigabytes decoded, is refused."""
    count = 1 << 29
    total = count + ROWS - 1
    dictionary = crafted.page(struct.pack("<f", 1.0), 4, 1, dictionary=True)
    levels = crafted.levels((1, 0), (count - 1, 1), (ROWS - 1, 0)) + crafted.levels((total, 3))
    body = levels + bytes([1]) + crafted.runs((total, 0))
    page = crafted.page(body, len(body), total, crafted.RLE_DICTIONARY)
    data = crafted.with_pages(plain(), LOGITS, dictionary + page, total, codec="none", first=len(dictionary))
    assert "MiB, and the limit is 400 MiB" in check_file(data)["err"]


def test_huge_fixed_size_list_type(check_file):
    """A schema that declares lists of 2³¹ - 1 elements is refused in bounded memory."""
    rows = crafted.table()
    schema = rows.schema.set(LOGITS, pa.field("logits", pa.list_(pa.float32(), (1 << 31) - 1)))
    data = crafted.with_arrow_schema(crafted.file_of(rows), schema)
    assert pq.read_schema(io.BytesIO(data)).field(LOGITS).type.list_size == (1 << 31) - 1
    check_file(data)


WRONG_SCHEMAS = {
    "nothing": b"",
    "no base64": b"\xff\xfe",
    "no flatbuffer": base64.b64encode(b"\xff" * 300),
    "half of one": base64.b64encode(crafted.table().schema.serialize().to_pybytes()[:-40]),
    "other types": pa.schema(
        [("id", pa.string()), ("logits", pa.int8()), ("label", pa.list_(pa.string())), ("text", pa.date32())]
    ),
    "other numbers": pa.schema(
        [
            ("id", pa.timestamp("ns", "Mars")),
            ("logits", pa.large_list(pa.float64())),
            ("label", pa.duration("s")),
            ("text", pa.dictionary(pa.int8(), pa.string())),
        ]
    ),
    "other columns": pa.schema([("logits", pa.list_(pa.float32()))]),
    "views": pa.schema(
        [("id", pa.int64()), ("logits", pa.list_view(pa.float32())), ("label", pa.int32()), ("text", pa.string_view())]
    ),
    "many columns": pa.schema([(f"c{number}", pa.int64()) for number in range(5000)]),
}


@pytest.mark.parametrize("kind", WRONG_SCHEMAS)
def test_arrow_schema_of_another_table(check_file, kind):
    """Whatever ``ARROW:schema`` declares, the result has the right values, or the command fails with one line."""
    answer = check_file(
        crafted.with_arrow_schema(crafted.file_of(crafted.table()), WRONG_SCHEMAS[kind]),
        codes=(0, 1, 2),
    )
    if answer["code"] == 0:
        probs = pq.read_table(answer["output"], columns=["probs"])["probs"].to_pylist()
        wanted = oracle.softmax(np.array(crafted.table()["logits"].to_pylist(), np.float32))
        np.testing.assert_allclose(np.array(probs), wanted, rtol=1e-5)


@pytest.mark.parametrize("rows", [1 << 31, 1 << 40, 1 << 60, -1])
@pytest.mark.parametrize("values", [False, True], ids=["rows", "rows and values"])
def test_consistent_wrong_row_counts(check_file, rows, values):
    """A consistent footer that declares a wrong number of rows is refused."""

    def edit(fields):
        fields[crafted.N_ROWS].value = rows
        fields[crafted.GROUPS].value.values[0][crafted.GROUP_ROWS].value = rows
        if values:
            for leaf, each in enumerate((1, CLASSES, 1, 1)):
                crafted.set_chunk(leaf, N_VALUES=min(rows * each, (1 << 63) - 1))(fields)

    check_file(crafted.edited(crafted.file_of(crafted.table()), edit))


def test_overlapping_column_chunks(check_file):
    """A column chunk at the position of another one gives an error, or a result if its bytes are valid."""

    def edit(fields):
        crafted.chunk(fields, ID)[crafted.CHUNK_METADATA] = crafted.chunk(fields, LABEL)[crafted.CHUNK_METADATA]

    check_file(crafted.edited(crafted.file_of(crafted.table()), edit))


@pytest.mark.parametrize("limited", [False, True], ids=["as it is", "with an address space of 3 GiB"])
def test_the_real_command_on_a_bomb(tmp_path, limited):
    """The real command refuses the file with the same one-line error, even with a limited address space."""
    path = tmp_path / "x.parquet"
    path.write_bytes(bomb(LOGITS, "zstd", declared=True))
    command = [sys.executable, "-m", "batchmax", "score", str(path), "-o", str(tmp_path / "o.parquet"), "--quiet"]
    command += ["--memory-limit", "400MiB"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 3145728; exec "$@"', "_", *command] if limited else command,
        capture_output=True, text=True, timeout=HANGS, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "takes up to 769 MiB" in done.stderr


# Text in files


@pytest.mark.parametrize("name", [b"\xff\xfe\x80", b"\x1b[2J", b"a\nb", "\u202egnp.".encode(), b"", b"a" * 70_000])
@pytest.mark.parametrize("leaf", [ID, LOGITS, LABEL], ids=["carried", "logits", "label"])
def test_names_that_are_not_text(check_file, name, leaf):
    """Names that are invalid UTF-8, terminal escapes, empty or very long are refused or printed escaped."""

    def edit(fields):
        elements = [e for e in fields[crafted.SCHEMA].value.values[1:] if e[4].value not in {b"list", b"element"}]
        old = elements[leaf][4].value
        elements[leaf][4] = Field(BINARY, name)
        metadata = crafted.chunk(fields, leaf)[crafted.CHUNK_METADATA].value
        path = metadata[3].value.values
        metadata[3] = Field(LIST, List(BINARY, [name if part == old else part for part in path]))

    check_file(crafted.edited(crafted.file_of(crafted.table(), store_schema=False), edit), codes=(0, 1, 2))


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\x1b]0;a\x07\n\n", "\u202e".encode()])
def test_metadata_that_is_not_text(check_file, text):
    """Keys, values and ``created_by`` of the metadata are printed escaped."""

    def edit(fields):
        fields[6] = Field(BINARY, text)
        for pair in fields[crafted.KEY_VALUES].value.values:
            pair[1], pair[2] = Field(BINARY, text), Field(BINARY, text)

    check_file(crafted.edited(crafted.file_of(crafted.table()), edit), codes=(0, 1))


EXTENSIONS = {
    "arrow.py_extension_type": None,
    "arrow.fixed_shape_tensor": b'{"shape": [-1, 1180591620717411303424]}',
    "arrow.variable_shape_tensor": b"{",
    "arrow.json": b"\xff",
    "arrow.opaque": b'{"type_name": "\x1b[2J"}',
    "arrow.uuid": b"x" * 100_000,
    "arrow.bool8": b"",
    "foreign.\x1b[2J": b"\x80\x04.",
}


@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize("column", ["logits", "label", "text"])
def test_no_code_of_extension_types_is_run(check_file, tmp_path, name, column):
    """Extension types with foreign metadata are read as their storage types, or refused; nothing is unpickled."""
    proof = tmp_path / "proof"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    payload = EXTENSIONS[name] if EXTENSIONS[name] is not None else pickle.dumps(Payload())
    if name == "arrow.py_extension_type":
        # Check that the payload would do harm.
        pickle.loads(payload)  # noqa: S301
        proof.rmdir()
    rows = crafted.table()
    at = rows.schema.get_field_index(column)
    metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": payload}
    schema = rows.schema.set(at, rows.schema.field(at).with_metadata(metadata))
    check_file(crafted.with_arrow_schema(crafted.file_of(rows), schema), codes=(0, 1, 2))
    assert not proof.exists()


# Several files


def test_schemas_that_differ_between_files(commands, tmp_path):
    """A file whose columns differ from those of the first is named before anything is scored."""
    (tmp_path / "in").mkdir()
    rows = crafted.table()
    drifted = {
        "a type": rows.set_column(LABEL, "label", pa.array([[1.0]] * ROWS)),
        "no logits": rows.drop_columns("logits"),
        "other classes": crafted.table(ROWS, CLASSES + 1),
        "twice": pa.Table.from_arrays([*rows.columns, rows["text"]], names=[*rows.schema.names, "text"]),
    }
    pq.write_table(rows, tmp_path / "in" / "0.parquet")
    for kind, other in drifted.items():
        pq.write_table(other, tmp_path / "in" / "1.parquet")
        out = tmp_path / "out.parquet"
        answer = commands.ask({"words": ["score", str(tmp_path / "in"), "-o", str(out), "--quiet"]})
        assert answer["code"] in {1, 2}, (kind, answer)
        assert answer["err"].count("\n") == 1, (kind, answer)
        assert "1.parquet" in answer["err"], (kind, answer)
        assert not out.exists()


@pytest.mark.parametrize("fate", ["vanishes", "shrinks", "becomes a folder", "becomes a pipe"])
def test_file_that_changes_after_it_was_listed(tmp_path, monkeypatch, fate):
    """If a file changes after the folder was listed, the error names that file."""
    for number in range(2):
        pq.write_table(crafted.table(), tmp_path / f"{number}.parquet")
    victim = tmp_path / "1.parquet"
    real = batchmax.sources.parquet_source.find_inputs

    def listed(*inputs):
        found = real(*inputs)
        data = victim.read_bytes()
        victim.unlink()
        {
            "vanishes": lambda: None,
            "shrinks": lambda: victim.write_bytes(data[:100]),
            "becomes a folder": victim.mkdir,
            "becomes a pipe": lambda: os.mkfifo(victim),
        }[fate]()
        return found

    monkeypatch.setattr(batchmax.sources.parquet_source, "find_inputs", listed)
    with pytest.raises(DataError) as caught:
        ParquetSource([str(tmp_path)], score_options())
    assert caught.value.where == str(victim)


def test_an_encrypted_footer(check_file):
    """Files with the magic bytes of an encrypted footer are refused."""
    data = crafted.file_of(crafted.table())
    check_file(data[:-4] + b"PARE")
    check_file(b"PARE" + data[4:-4] + b"PARE")


def test_deeply_nested_thrift(check_file):
    """Structs, lists and maps nested 100,000 deep, in footer or page header, don't overflow the stack."""
    data = plain()
    for head, tail in ((b"\x1c", b"\0"), (b"\x19\x19", b""), (b"\x1b\x01\x5b", b""), (b"\x1c\x19\x1c", b"")):
        nested = head * 100_000 + tail * 100_001
        check_file(crafted.with_footer(data[:100], nested))
        for leaf in (ID, LOGITS):
            check_file(crafted.with_pages(data, leaf, nested, ROWS, codec="none"))


def test_json_error_of_a_bomb(commands, tmp_path):
    """With ``--json``, the error is one object with where, what and remedy."""
    path = tmp_path / "x.parquet"
    path.write_bytes(bomb(ID, "zstd", declared=True))
    words = ["score", str(path), "-o", str(tmp_path / "o.parquet"), "--memory-limit", "400MiB", "--json"]
    answer = commands.ask({"words": words})
    error = json.loads(answer["out"])["error"]
    assert error["where"] == str(path)
    assert error["what"].startswith("row group 0: decoding column 'id' takes up to 769 MiB")
    assert error["remedy"].startswith("allow more: --memory-limit")

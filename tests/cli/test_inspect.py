"""``batchmax inspect``: what a file contains, and the command that scores it."""

from __future__ import annotations

import functools
import json
import shlex
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.processes import HANGS


@pytest.fixture
def run(run, monkeypatch, tmp_path_factory):
    """Return a function that runs ``inspect`` in an empty folder and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))  # the suggested output name is one that is free there
    return functools.partial(run, "inspect", columns=120)


@pytest.fixture
def file(tmp_path):
    """Write 100 rows of 5 classes in row groups of 40, with a file name that needs shell quoting."""
    logits = np.random.default_rng(1).normal(size=(100, 5)).astype(np.float32)
    table = pa.table({"id": range(100), "logits": list(logits), "label": [0] * 100})
    path = tmp_path / "it's a file.parquet"
    pq.write_table(table.replace_schema_metadata({"model": "m"}), path, row_group_size=40, compression="zstd")
    return path


def test_the_facts_for_programs(run, file):
    """``--json`` has rows, row groups, columns with codecs and encodings, logits, label, classes and the command."""
    code, out, err = run(file, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    facts = json.loads(out)
    assert facts["n_rows"] == 100
    assert facts["row_groups"]["count"] == 3
    assert facts["row_groups"]["rows"] == {"smallest": 20, "largest": 40}
    assert [column["name"] for column in facts["columns"]] == ["id", "logits", "label"]
    logits = facts["columns"][1]
    assert logits["codecs"] == ["ZSTD"]
    assert "PLAIN" in logits["encodings"]
    assert facts["bytes"] == sum(column["bytes"] for column in facts["columns"])
    assert "model" in facts["metadata_keys"]
    assert facts["logits"]["columns"] == ["logits"]
    assert facts["label"]["column"] == "label"
    assert (facts["n_classes"], facts["classes"], facts["problem"]) == (5, None, None)


def test_the_command_scores_the_file(run, file):
    """The command can be pasted into a shell: it has the file and the options that ``inspect`` was given."""
    command = json.loads(run(file, "--json", "--label", "none", "--n-classes", "5")[1])["command"]
    assert shlex.split(command) == [
        *("batchmax", "score", str(file), "-o", "scored.parquet"),
        *("--label", "none", "--n-classes", "5"),
    ]


def test_reading_options_are_those_of_score(run, file):
    """Options for reading and scaling are added to the command; contradictions are rejected as in ``score``."""
    words = ["--input", "log_probs", "--temperature", "2.5", "--ignore-index", "-1"]
    command = json.loads(run(file, "--json", *words)[1])["command"]
    given = shlex.split(command)[5:]
    assert sorted(zip(given[::2], given[1::2], strict=True)) == sorted(zip(words[::2], words[1::2], strict=True))
    code, _, err = run(file, "--temperature", "2", "--beta", "3")
    assert code == 2
    assert "--beta" in err


def test_quiet_hides_the_result(run, file):
    """``--quiet`` hides the result, as in every command; it doesn't hide that of ``--json``."""
    assert run(file, "-q") == (0, "", "")
    assert run(file, "-q", "--json") == run(file, "--json")


def test_the_facts_for_people(run, file):
    """The same facts are printed as tables, with the command unbroken on one line."""
    code, out, err = run(file)
    assert (code, err) == (0, "")
    assert "3 of 20 to 40 rows" in out
    assert "zstd" in out
    assert "by its name" in out
    command = json.loads(run(file, "--json")[1])["command"]
    assert command in out


def test_classes_are_named(run, file):
    """Known class names are shown."""
    out = run(file, "--classes", "a,b,c,d,e")[1]
    assert "5: a, b, c, d, e" in out


def test_a_file_without_logits_is_described(run, tmp_path):
    """If no logits are found, the columns are shown with the reason."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [[1.0, 2.0]], "b": [[1.0, 2.0]], "c\x1b": ["t"]}), path)
    code, out, err = run(path)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "can't be scored as it is" in out
    assert "--logits NAME" in out
    facts = json.loads(run(path, "--json")[1])
    assert facts["logits"] is None
    assert facts["command"] is None
    assert "--logits NAME" in facts["problem"]


def test_an_empty_file_is_described(run, tmp_path):
    """A file without rows and row groups is described."""
    path = tmp_path / "x.parquet"
    schema = pa.schema({"logits": pa.list_(pa.float32())})
    with pq.ParquetWriter(path, schema):
        pass
    code, out, _ = run(path)
    assert code == 0
    assert "logits" in out


def test_many_columns_are_cut_short(run, tmp_path):
    """With a column for each class, the table is truncated, and JSON isn't."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({f"logit_{number}": [1.0] for number in range(100)}), path)
    assert "and 60 more columns; for all: --json" in run(path)[1]
    assert len(json.loads(run(path, "--json")[1])["columns"]) == 100


def test_what_is_no_parquet_file_fails(run, tmp_path):
    """A missing file, a file that isn't Parquet and a folder without Parquet files are one-line errors."""
    (tmp_path / "text").write_text("no Parquet")
    for path in (tmp_path / "nothing.parquet", tmp_path / "text", tmp_path):
        code, out, err = run(path)
        assert code in {1, 2}
        assert out == ""
        assert err.startswith("batchmax: error: ")
        assert err.count("\n") == 1


def test_several_files_are_shown_together(run, tmp_path):
    """A folder, a glob or several files are described together.

    There are totals over all files, one entry for each column with what differs, and one command.
    """
    rows = {"a": ([[1.0, 2.0]] * 3, pa.int32(), "snappy"), "b": ([[1.0, 2.0]] * 5, pa.int64(), "zstd")}
    for name, (logits, kind, codec) in rows.items():
        table = pa.table({"id": pa.array(range(len(logits)), kind), "logits": logits})
        if name == "b":
            table = table.append_column("x", pa.array(["t"] * 5))
        pq.write_table(table, tmp_path / f"{name}.parquet", compression=codec)
    for given in ([tmp_path], [f"{tmp_path}/*.parquet"], [tmp_path / "a.parquet", tmp_path / "b.parquet"]):
        code, out, _ = run(*given, "--json")
        facts = json.loads(out)
        assert (code, facts["n_rows"], facts["row_groups"]["count"]) == (0, 8, 2)
        assert facts["files"] == [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
        footers = [pq.read_metadata(tmp_path / f"{name}.parquet").row_group(0) for name in rows]
        wanted = sum(group.column(leaf).total_compressed_size for group in footers for leaf in range(group.num_columns))
        assert facts["bytes"] == wanted
        columns = {one["name"]: one for one in facts["columns"]}
        assert columns["id"]["type"] == "int32, int64"
        assert columns["id"]["codecs"] == ["SNAPPY", "ZSTD"]
        assert [one["column"] for one in facts["unified"]] == ["id", "x"]
        assert shlex.split(facts["command"])[2 : 2 + len(given)] == list(map(str, given))
    code, out, _ = run(tmp_path)
    assert "files       2\n" in out
    assert "differs   column 'id': read as int64 (int32 in 1, int64 in 1)" in out


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False, "write_statistics": False}, {"write_page_index": True}]
)
def test_what_is_said_of_chunks_is_what_pyarrow_says(run, tmp_path, codec, options):
    """Sizes, codecs, encodings, dictionaries, page indexes and null counts over all row groups match pyarrow."""
    path = tmp_path / "x.parquet"
    table = pa.table({"logits": [[1.0, 2.0]] * 9, "label": [0, None, 1] * 3, "text": ["a", "b", None] * 3})
    pq.write_table(table, path, compression=codec, row_group_size=4, **options)
    metadata = pq.read_metadata(path)
    said = json.loads(run(path, "--json")[1])["columns"]
    assert len(said) == metadata.num_columns
    for position, column in enumerate(said):
        chunks = [metadata.row_group(group).column(position) for group in range(3)]
        assert column["bytes"] == sum(chunk.total_compressed_size for chunk in chunks)
        assert column["codecs"] == sorted({chunk.compression for chunk in chunks})
        assert column["encodings"] == sorted({encoding for chunk in chunks for encoding in chunk.encodings})
        assert column["has_dictionary"] == any(chunk.has_dictionary_page for chunk in chunks)
        assert column["has_page_index"] == any(chunk.has_offset_index for chunk in chunks)
        counted = all(chunk.is_stats_set for chunk in chunks)
        assert column["nulls"] == (sum(chunk.statistics.null_count for chunk in chunks) if counted else None)


def test_a_footer_that_contradicts_itself_is_described(tmp_path):
    """A footer with level statistics that the schema doesn't allow is described; pyarrow's metadata would crash."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [1, 2], "logits": [[1.0, 2.0]] * 2}), path, store_schema=False)
    whole = bytearray(path.read_bytes())
    optional = whole.index(b"%\x02\x18\x02id")
    whole[optional + 1] = 0  # now a required field
    path.write_bytes(whole)
    command = [sys.executable, "-m", "batchmax", "inspect", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    assert (done.returncode, done.stderr) == (0, "")
    assert [column["name"] for column in json.loads(done.stdout)["columns"]] == ["id", "logits"]

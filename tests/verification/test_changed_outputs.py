"""Tests that ``verify`` refuses incomplete folders, changed metadata and other inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError, UsageError
from tests.support.paths import DATA
from tests.support.rows import lists
from tests.support.scored_outputs import K, refusal, write_rows


def alter(manifest, **changed):
    """Rewrite a manifest with other figures in its summary."""
    metadata = dict(pq.read_metadata(manifest).metadata)
    content = json.loads(metadata[b"batchmax.manifest"])
    content["summary"] |= changed
    kept = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
    table = pq.read_table(manifest).replace_schema_metadata(kept | {b"batchmax.manifest": json.dumps(content)})
    pq.write_table(table, manifest)


# Folders


def test_a_folder_passes_with_its_summary(folder):
    """The rows of all parts agree with the summary in the manifest."""
    out, sources, _ = folder
    found = batchmax.verify(out, sources, sample=63)
    assert [Path(file).name for file in found.files] == [f"part-0000{number}.parquet" for number in range(3)]
    assert found.summary == [
        "n_rows",
        "n_classes",
        "status_counts",
        "bad_rows",
        "infinite_losses",
        "mean_loss",
        "accuracy",
    ]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_part_is_found(folder, number):
    """A missing part is found at any position."""
    out, _, _ = folder
    (out / f"part-0000{number}.parquet").unlink()
    assert f"part-0000{number}.parquet is missing" in refusal(out)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_output_of_an_earlier_version_passes(folder, number):
    """For an output of an earlier version, with a JSON manifest next to the folder, a missing part is found."""
    out, sources, manifest = folder
    content = json.loads(pq.read_metadata(manifest).metadata[b"batchmax.manifest"])
    manifest.unlink()
    out.with_name("scored.batchmax.json").write_text(json.dumps(content["summary"]))
    assert len(batchmax.verify(out, sources, sample=63).files) == 3
    assert batchmax.evaluate(str(out.parent / "scored")).n_rows == 63
    (out / f"part-0000{number}.parquet").unlink()
    assert ("is missing" if number < 2 else "the manifest lists 63") in refusal(out)


def test_incomplete_folder_or_foreign_file_is_refused(folder):
    """A folder without _SUCCESS, without a valid manifest, or with a foreign file is refused."""
    out, _, manifest = folder
    (out / "notes.txt").touch()
    assert "notes.txt" in refusal(out)
    (out / "notes.txt").unlink()
    (out / "_SUCCESS").unlink()
    assert "_SUCCESS" in refusal(out)
    (out / "_SUCCESS").touch()
    whole = manifest.read_bytes()
    for data in (b"", b"PAR1", whole[:-1], (out / "part-00000.parquet").read_bytes()):
        manifest.write_bytes(data)
        assert "no manifest" in refusal(out)
    manifest.write_bytes(whole)
    batchmax.verify(out)
    manifest.unlink()
    assert "no manifest" in refusal(out)


def test_a_part_of_another_job_is_found(folder, tmp_path):
    """A part of another job is refused."""
    out, sources, _ = folder
    other = tmp_path / "other"
    batchmax.score(sources, str(other), outputs="probs,loss,status,correct", temperature=2)
    shutil.copy(other / "part-00001.parquet", out)
    assert "differ from those of" in refusal(out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_rows", 64),
        ("n_rows", None),
        ("n_classes", 7),
        ("bad_rows", 1),
        ("status_counts", {"ok": 62, "ignored": 1}),
        ("mean_loss", 1.0),
        ("accuracy", 0.5),
        ("infinite_losses", 77),
    ],
)
def test_altered_values_of_the_manifest_are_found(tmp_path, name, value):
    """Every figure of the manifest that the columns determine is compared."""
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"logits": lists(rng.standard_normal((63, K))), "label": np.arange(63) % K}), source)
    batchmax.score(
        source, str(tmp_path / "scored"), outputs="probs,loss,status,correct", class_weights=[1, 2, 3, 4, 5, 6]
    )
    found = batchmax.verify(tmp_path / "scored")
    assert name in found.summary
    alter(tmp_path / "scored" / "_batchmax.parquet", **{name: value})
    line = refusal(tmp_path / "scored")
    assert "manifest" in line
    assert str(value) in line or "no number of rows" in line


# Metadata


def test_a_summary_in_the_footer_is_compared(all_outputs, out):
    """A summary in a file's metadata is compared with the rows."""
    table = pq.read_table(all_outputs[1])
    summary = {"n_rows": 60, "bad_rows": 0, "status_counts": {"ok": 54, "ignored": 6}}
    for changed, holds in ((summary, True), (summary | {"n_rows": 61}, False), ([], False)):
        metadata = table.schema.metadata | {b"batchmax.summary": json.dumps(changed).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), out, write_page_checksum=True)
        masked = pq.read_table(out).column("status").to_pylist().count("masked_label")
        if holds and not masked:
            assert batchmax.verify(out).summary == ["n_rows", "status_counts", "bad_rows"]
        else:
            assert "summary in" in refusal(out)


METADATA = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b"[" * 5000,
    {"n_classes": "six"},
    {"n_classes": 7},
    {"outputs": ["nothing"]},
    {"outputs": [["probs"]]},
    {"outputs": ["probs"]},
    {"layout": "wide"},
    {"layout": []},
    {"dtype": "float64"},
    {"logits": []},
    {"classes": 5},
    {"class_weights": [-1]},
    {"class_weights": []},
    {"inputs": [{}]},
    {"options": {}},
]


@pytest.mark.parametrize("changed", METADATA, ids=lambda changed: str(changed)[:30])
def test_invalid_metadata_is_a_one_line_error(all_outputs, out, changed):
    """Invalid metadata in the footer are refused with one line."""
    table = pq.read_table(all_outputs[1])
    if isinstance(changed, dict):
        changed = json.dumps(json.loads(table.schema.metadata[b"batchmax"]) | changed).encode()
    table = table.replace_schema_metadata(table.schema.metadata | {b"batchmax": changed})
    pq.write_table(table, out, write_page_checksum=True)
    assert out in refusal(out)


def test_files_that_score_did_not_write_are_refused(tmp_path, logits, out):
    """Inputs, missing paths, text, converted files and rejected rows are refused with a specific one-line error."""
    assert "not an output of score" in refusal(logits)
    assert "no such file" in refusal(tmp_path / "nothing.parquet")
    assert "not a Parquet file" in refusal(Path(__file__))
    batchmax.score(
        write_rows(tmp_path / "bad.parquet", 10), out, on_bad_row="drop", rejects=str(tmp_path / "rejects.parquet")
    )
    batchmax.convert([logits], str(tmp_path / "wide.parquet"), "wide")
    assert "batchmax convert wrote this" in refusal(tmp_path / "wide.parquet")
    assert "rejected rows" in refusal(tmp_path / "rejects.parquet")


# Inputs


def test_other_inputs_are_found(tmp_path, logits, out):
    """A different or changed input, or more inputs than were scored, are refused."""
    batchmax.score(logits, out)
    other = write_rows(tmp_path / "other.parquet", 61)
    assert "bytes" in refusal(out, other)
    again = shutil.copy(logits, tmp_path / "again.parquet")
    assert "made from 1 file, not from 2" in refusal(out, logits, again)
    table = pq.read_table(logits)
    sizes = set()
    for model in ("one", "two"):
        source = tmp_path / f"{model}.parquet"
        pq.write_table(table.replace_schema_metadata({"model": model}), source)
        sizes.add(source.stat().st_size)
    assert len(sizes) == 1
    batchmax.score(tmp_path / "one.parquet", out, if_exists="overwrite")
    batchmax.verify(out, tmp_path / "one.parquet")
    assert "the footer is not the same" in refusal(out, tmp_path / "two.parquet")
    with pytest.raises(UsageError):
        batchmax.verify(out, DATA / "labels/digits_string.parquet", logits="nothing")


def test_stream_output_is_compared_with_the_named_input(logits, out):
    """Rows from a stream are compared with the named input, and differences are found."""
    batchmax.score(pq.read_table(logits).slice(1), out)
    assert "rows" in refusal(out, logits)
    batchmax.score(pq.read_table(logits).take([*range(1, 60), 0]), out, if_exists="overwrite")
    assert "differs from the input" in refusal(out, logits)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"sample": 5}, "--sample"),
        ({"logits": "x"}, "--logits"),
        ({"sample": -1}, "--sample"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_options_that_cannot_be(all_outputs, options, where):
    """``sample`` and ``logits`` need inputs, and counts can't be negative."""
    with pytest.raises(UsageError, match=where):
        batchmax.verify(all_outputs[1], **options)


def test_very_many_inputs_have_one_digest(tmp_path, monkeypatch):
    """The metadata of very many inputs is one digest, which ``verify`` compares."""
    monkeypatch.setattr("batchmax.sinks.metadata.MAX_INPUTS", 2)
    (tmp_path / "in").mkdir()
    for number in range(4):
        write_rows(tmp_path / "in" / f"{number}.parquet", n=30 + number)
    out = str(tmp_path / "out")
    batchmax.score(str(tmp_path / "in"), out)
    assert batchmax.verify(out, inputs=[str(tmp_path / "in")]).inputs == 4
    inputs = json.loads(pq.read_metadata(f"{out}/part-00000.parquet").metadata[b"batchmax"])["inputs"]
    assert [one["files"] for one in inputs] == [4]
    write_rows(tmp_path / "in" / "2.parquet", n=32, groups=7)
    with pytest.raises(DataError, match="was made from other files"):
        batchmax.verify(out, inputs=[str(tmp_path / "in")])
    (tmp_path / "in" / "3.parquet").unlink()
    with pytest.raises(DataError, match="was made from 4 files, not from 3"):
        batchmax.verify(out, inputs=[str(tmp_path / "in")])

"""Tests that a bug in batchmax is reported as a bug, never as a damaged file, and never ignored.

Also tests that invalid JSON in metadata and calibration files is no bug.
"""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import DataError
from batchmax.sources.read_errors import read_errors

ERRORS = [AttributeError, TypeError, NameError, KeyError, IndexError, AssertionError, ValueError, RuntimeError]

SCORE = ("score", "in.parquet", "-o", "new.parquet", "--quiet", "--if-exists", "overwrite")
SEQUENCES = ("score", "sequences.parquet", *SCORE[2:])
RESUME = (*SCORE[:-1], "resume")
FOLDER = ("score", "in.parquet", "-o", "new", *RESUME[4:])
VERIFY = ("verify", "scored.parquet", "in.parquet")
INSPECT = ("inspect", "in.parquet")
CALIBRATED = (*SCORE, "--calibration", "calibration.json")
DECIDED = (*SCORE, "--decision", "decision.json")

PLACES = [
    ("batchmax.parquet.thrift._Reader.struct", SCORE),
    ("batchmax.parquet.fields.check_fields", SCORE),
    ("batchmax.parquet.footer._subtree", SCORE),
    ("batchmax.parquet.footer.RowGroup.chunk", SCORE),
    ("batchmax.parquet.footer.read_integers", SCORE),
    ("batchmax.parquet.footer.Footer.row_group", SCORE),
    ("batchmax.parquet.footer.read_at", SCORE),
    ("batchmax.parquet.reading.raw_pages.read_into", SCORE),
    ("batchmax.parquet.reading.raw_pages.read_page_header", SCORE),
    ("batchmax.parquet.reading.raw_pages.CompressedPage.check", SCORE),
    ("batchmax.parquet.reading.page_body.decompress", SCORE),
    ("batchmax.parquet.reading.page_reader.split_body", SCORE),
    ("batchmax.parquet.reading.page_reader.PageLayout.of", SCORE),
    ("batchmax.parquet.reading.value_reader.chunk_range", SCORE),
    ("batchmax.parquet.reading.value_reader.FlatLevels.check", SCORE),
    ("batchmax.parquet.reading.list_reader.MatrixReader.read_into", SCORE),
    ("batchmax.parquet.reading.nested_list_reader.NestedLevels.check", SEQUENCES),
    ("batchmax.parquet.reading.nested_list_reader.SequenceReader._take", SEQUENCES),
    ("batchmax.parquet.reading.decoded_size._header", SCORE),
    ("batchmax.parquet.reading.decoded_size.DecodedSize.take", SCORE),
    ("batchmax.parquet.writing.chunk_copy._check_pages", SCORE),
    ("batchmax.parquet.writing.chunk_copy.relative_metadata", SCORE),
    ("batchmax.parquet.writing.chunk_copy.check_fields", SCORE),
    ("batchmax.sources.decode_budget.fixed_row_bytes", SCORE),
    ("batchmax.sources.decode_budget.DecodeBudget.take", SCORE),
    ("batchmax.sources.row_group_reader.pooled_matrix", SCORE),
    ("batchmax.sources.row_group_reader.GroupReader._chunk_sizes", SCORE),
    ("batchmax.sources.row_group_reader.GroupReader.n_values", SEQUENCES),
    ("batchmax.sources.parquet_file.decoded_batch", SCORE),
    ("batchmax.sources.parquet_file.OpenFile.check_unchanged", SCORE),
    ("batchmax.sources.parquet_file._parquet_file", SCORE),
    ("batchmax.sources.part_reader.PartReader._with_partitions", SCORE),
    ("batchmax.sinks.codecs.input_codecs", SCORE),
    ("batchmax.storage.system_calls.sync", SCORE),
    ("batchmax.storage.system_calls.sync_data", SCORE),
    ("batchmax.parquet.writing.direct_io.DirectWriter.write", SCORE),
    ("batchmax.parquet.writing.direct_io.DirectWriter._flush", SCORE),
    ("batchmax.parquet.writing.file_writer.FileWriter.append", SCORE),
    ("batchmax.sinks.commit.journal.Journal._write", SCORE),
    ("batchmax.sinks.commit.journal._replay", RESUME),
    ("batchmax.sinks.commit.journal._files", RESUME),
    ("batchmax.sinks.commit.journal.CompletedPart", FOLDER),
    ("batchmax.columns.class_names.json_object", SCORE),
    ("batchmax.options.calibration_file._parsed", CALIBRATED),
    ("batchmax.options.calibration_file.is_number", CALIBRATED),
    ("batchmax.options.decision_file._rule_text", DECIDED),
    ("batchmax.options.decision_file.is_number", DECIDED),
    ("batchmax.scoring.decisions.expected_costs", DECIDED),
    ("batchmax.sinks.commit.existing_output._is_our_file", (*RESUME[:3], "scored.parquet", *RESUME[4:])),
    ("batchmax.verification.verify.check_pages", VERIFY),
    ("batchmax.parquet.reading.checksums.CompressedPages", VERIFY),
    ("batchmax.verification.output_metadata.ScoreOptions", VERIFY),
    ("batchmax.verification.output_metadata.OutputMetadata", VERIFY),
    ("batchmax.verification.invariants.RowChecks.add", VERIFY),
    ("batchmax.columns.scored_input.json_list", ("evaluate", "scored.parquet")),
    ("batchmax.columns.find_logits.as_written", ("evaluate", "scored.parquet")),
    ("batchmax.sources.inspection.facts._leaves", INSPECT),
    ("batchmax.parquet.footer.Footer.read", INSPECT),
    ("batchmax.sources.row_lookup.batch_rows", VERIFY),
    ("batchmax.evaluation.comparison.join_keys.read_errors", ("compare", "in.parquet", "in.parquet", "--key", "id")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with inputs, an output, a calibration and a decision rule."""
    random = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("bugs")
    logits = random.normal(size=(60, 5)).astype(np.float32)
    columns = {
        "id": range(60),
        "logits": pa.array(list(logits), pa.list_(pa.float32())),
        "label": random.integers(0, 5, 60),
        "text": pa.array([f"text {row % 7}" for row in range(60)]),
    }
    pq.write_table(pa.table(columns), folder / "in.parquet", row_group_size=20, use_dictionary=["text"])
    tokens = pa.array([[list(row)] * (at % 3) for at, row in enumerate(logits)], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"logits": tokens}), folder / "sequences.parquet")
    batchmax.score(str(folder / "in.parquet"), str(folder / "scored.parquet"))
    members = {"n_classes": 5, "temperature": 2.0, "classes": None, "scale": None, "bias": None}
    (folder / "calibration.json").write_text(json.dumps(members))
    costs = ["true,0,1", *(f"{label},1,0" for label in range(5))]
    (folder / "costs.csv").write_text("\n".join(costs))
    batchmax.decide(str(folder / "in.parquet"), folder / "decision.json", costs=folder / "costs.csv")
    return folder


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """Change to a copy of the folder and return it."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(PLACES)), ids=[place for place, _ in PLACES])
@pytest.mark.usefixtures("here")
def test_a_bug_is_reported_as_one(monkeypatch, capsys, number):
    """An unexpected exception from any place is reported as a bug with its name, not as damage of a file."""
    place, words = PLACES[number]
    monkeypatch.setattr("batchmax.parquet.writing.direct_io.SYNC_BYTES", 1)
    if "resume" in words and "new" in words[3]:
        with monkeypatch.context() as patch:
            patch.setattr("batchmax.sinks.commit.commit.Commit.publish", lambda *_: 1 / 0)
            assert main([*words]) == 1
    for error in (ERRORS[number % len(ERRORS)], AttributeError):

        def broken(*_, error=error, **__):
            raise error("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            assert main([*words]) == 1
        if words == SCORE:
            shutil.rmtree(".new.parquet.batchmax", ignore_errors=True)
        said = capsys.readouterr().err
        assert f"unexpected {error.__name__}: " in said
        assert "this is a bug in batchmax" in said
        assert "damaged" not in said
        assert "make it again" not in said


@pytest.mark.parametrize("error", [pa.lib.ArrowTypeError, pa.lib.ArrowKeyError, *ERRORS])
def test_what_is_no_damage(error):
    """``read_errors`` doesn't convert pyarrow's errors about arguments, nor Python's errors."""
    with pytest.raises(error, match="a bug"), read_errors("x.parquet"):
        raise error("a bug")


@pytest.mark.parametrize(
    "error",
    [
        OSError("Corrupt data"), pa.ArrowInvalid("Corrupt data"), pa.lib.ArrowIndexError("Corrupt data"),
        pa.lib.ArrowSerializationError("Corrupt data"), pa.ArrowNotImplementedError("Corrupt data"),
    ],
)  # fmt: skip
def test_what_is_damage(error):
    """``read_errors`` converts the errors of pyarrow's parsers into DataError: the file is damaged."""
    with (
        pytest.raises(DataError, match=r"x\.parquet: cannot be read: Corrupt data; the file is damaged"),
        read_errors("x.parquet"),
    ):
        raise error


def test_an_error_of_the_disk_is_no_damage():
    """An OSError with an errno isn't reported as damage: the file may be intact."""
    with pytest.raises(DataError, match="Input/output error") as caught, read_errors("x.parquet"):
        raise OSError(5, "Input/output error")
    assert "damaged" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


# JSON in metadata


STRANGE = [None, 1, -1, 1.5, 10**400, True, "x", "", [], [None], [[]], ["x", "x"], {}, {"a": 1}]


def variants(value, strange=itertools.cycle(STRANGE)):  # noqa: B008 - calls share the iterator
    """Yield copies of a JSON value in which one member, at any depth, is missing or has an invalid value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        for instead in itertools.islice(strange, 5):
            yield {**value, key: instead} if isinstance(value, dict) else [*value[:key], instead, *value[key + 1 :]]
        if isinstance(value, dict):
            yield {name: item for name, item in value.items() if name != key}
        for changed in variants(inner, strange):
            yield {**value, key: changed} if isinstance(value, dict) else [*value[:key], changed, *value[key + 1 :]]


@pytest.mark.parametrize("key", ["batchmax", "batchmax.summary"])
@pytest.mark.usefixtures("here")
def test_metadata_that_are_not_what_they_should_be(capsys, key):
    """An invalid or missing member of an output's metadata is never reported as a bug by verify and evaluate."""
    table, known = pq.read_table("scored.parquet"), pq.read_metadata("scored.parquet").metadata
    original = json.loads(known[key.encode()])
    answers = set()
    for changed in [*STRANGE, *variants(original)]:
        metadata = {**known, key.encode(): json.dumps(changed).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), "changed.parquet")
        for words in (["verify", "changed.parquet"], ["evaluate", "changed.parquet"]):
            answers.add(main(words))
            said = capsys.readouterr().err
            assert "is a bug" not in said, (changed, said)
    assert answers <= {0, 1, 2}
    assert {0, 1} <= answers


def test_calibrations_that_are_not_what_they_should_be(here, capsys):
    """An invalid or missing member of a calibration file is never reported as a bug."""
    original = json.loads((here / "calibration.json").read_text())
    original |= {"classes": list("abcde"), "scale": [1.0] * 5, "bias": [0.0] * 5}
    for changed in [*STRANGE, *variants(original)]:
        (here / "calibration.json").write_text(json.dumps(changed))
        assert main([*CALIBRATED]) in {0, 1, 2}
        said = capsys.readouterr().err
        assert "is a bug" not in said, (changed, said)

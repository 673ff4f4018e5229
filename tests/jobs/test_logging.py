"""Tests what Python callers learn from the logger ``batchmax``."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.paths import ROOT

DIGITS = ROOT / "data" / "digits.parquet"
CALLS = {
    "score": lambda src, out: batchmax.score(src, out / "scored.parquet"),
    "convert": lambda src, out: batchmax.convert(src, out / "wide.parquet", "wide"),
    "evaluate": lambda src, _: batchmax.evaluate(src),
    "calibrate": lambda src, _: batchmax.calibrate(src),
    "worst_rows": lambda src, _: batchmax.worst_rows(src, 3),
    "compare": lambda src, _: batchmax.compare(src, src),
    "report": lambda src, out: batchmax.report(src, str(out / "page.html")),
}


@pytest.mark.parametrize("name", CALLS)
def test_notes_are_logged_once(name, tmp_path, caplog):
    """Each function logs the choice of the logits column once for each input, at the level INFO."""
    with caplog.at_level(logging.INFO, "batchmax"):
        CALLS[name](DIGITS, tmp_path)
    notes = [record.getMessage() for record in caplog.records if "'logits'" in record.getMessage()]
    assert len(notes) == (2 if name == "compare" else 1), notes
    assert {(record.name, record.levelno) for record in caplog.records} == {("batchmax", logging.INFO)}


def test_warnings_and_details_have_their_levels(tmp_path, caplog):
    """What the command prints as a warning is logged as a WARNING; what only ``--verbose`` prints, as DEBUG."""
    src = pa.table({"logits": [[0.25, 0.75], [0.5, 0.5]], "label": [0, 1]})
    with caplog.at_level(logging.DEBUG, "batchmax"):
        summary = batchmax.score(src, tmp_path / "scored.parquet")
    levels = {record.getMessage(): record.levelno for record in caplog.records}
    assert summary.warnings
    assert {text for text in levels if levels[text] == logging.WARNING} == set(summary.warnings)
    assert logging.DEBUG in levels.values()
    assert summary.notes
    assert all(levels[text] == logging.INFO for text in summary.notes)


def test_a_callback_replaces_the_log(tmp_path, caplog):
    """An overridden method of ``Progress`` gets the texts in place of the logger."""
    texts = []

    class Notes(batchmax.Progress):
        def note(self, text):
            texts.append(text)

    with caplog.at_level(logging.DEBUG, "batchmax"):
        summary = batchmax.score(DIGITS, tmp_path / "scored.parquet", progress=Notes())
    assert texts == summary.notes
    assert not set(texts) & {record.getMessage() for record in caplog.records}


def test_nothing_is_printed_by_default(tmp_path):
    """Without a configured handler, warnings aren't printed."""
    code = "import batchmax; print(batchmax.score('probs.parquet', 'out.parquet').warnings)"
    table = pa.table({"logits": [[0.25, 0.75]]})
    pq.write_table(table, tmp_path / "probs.parquet")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert len(done.stdout) > 3
    assert done.stderr == ""

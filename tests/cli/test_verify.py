"""``batchmax verify``: its output, options and exit codes."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.processes import HANGS
from tests.support.rows import lists, some_logits


@pytest.fixture
def run(run):
    """Return a function that runs ``verify`` and returns exit code, stdout and stderr."""
    return functools.partial(run, "verify")


@pytest.fixture
def files(tmp_path):
    """Write 50 rows of 4 classes, score them, and return both paths."""
    logits, scored = tmp_path / "logits.parquet", tmp_path / "scored.parquet"
    table = pa.table({"logits": lists(some_logits(50, 4)), "label": np.arange(50) % 4})
    pq.write_table(table, logits, row_group_size=20)
    batchmax.score(logits, str(scored), outputs="probs,loss,pred")
    return logits, scored


def break_a_row(scored):
    table = pq.read_table(scored)
    losses = table.column("loss").to_numpy().copy()
    losses[17] += 1
    table = table.set_column(table.schema.get_field_index("loss"), "loss", pa.array(losses))
    pq.write_table(table, scored, write_page_checksum=True)


def test_what_was_checked_is_listed(run, files):
    """There is a line for rows, pages, each new column, inputs, and each error in ULP."""
    logits, scored = files
    code, out, err = run(scored, logits)
    assert (code, err) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.replace("  probs", "ULP of probs").splitlines())
    assert lines["rows"].strip() == "50 of 4 classes, 3 row groups"
    assert "checksums correct" in lines["pages"]
    assert re.search(r"sums differ from 1 by at most \S+ \(tolerance \S+\)", out)
    assert lines["loss"].strip() == "agrees with probs"
    assert lines["inputs"].strip() == "1 file, unchanged (sizes, footers, rows)"
    assert lines["recomputed"].strip() == "20 rows (--seed 0), tolerance 3 ULP"
    assert len(re.findall(r"at most \S+ ULP, in row", out)) == 2


def test_without_inputs_nothing_is_worked_out(run, files):
    """Without inputs nothing is recomputed, and the list has no lines about it."""
    code, out, err = run(files[1])
    assert (code, err) == (0, "")
    assert not {"inputs", "recomputed"} & {line.split()[0] for line in out.splitlines()}
    assert "ULP" not in out


def test_json_is_one_line(run, files):
    """``--json`` prints the result's fields on one line."""
    code, out, err = run(files[1], files[0], "--json", "--sample", "7", "--seed", "3")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert (found["n_rows"], found["sampled_rows"], found["seed"], found["inputs"]) == (50, 7, 3, 1)
    assert found["largest_errors"]["probs"]["ulp"] <= 3
    assert found["largest_errors"]["probs"]["row"] < 50


def test_options_are_passed_on_as_they_are(run, monkeypatch, files):
    """Options are passed to the function of the same name; options that aren't given have its defaults."""
    given = {}
    real = batchmax.verify

    def verify(file, inputs, *, progress, **options):  # noqa: ARG001 - passed by the command
        given.update(file=file, inputs=inputs, **options)
        return real(file)

    monkeypatch.setattr("batchmax.verification.verify.verify", verify)
    run(files[1], "a", "b", "--sample", "5", "--seed", "9", "--logits", "x_*")
    usual = {"file": str(files[1]), "inputs": (), "sample": None, "seed": 0, "logits": None, "storage_options": ()}
    assert given == usual | {"inputs": ("a", "b"), "sample": 5, "seed": 9, "logits": "x_*"}
    run(files[1])
    assert given == usual


def test_quiet_says_nothing(run, files):
    """``--quiet`` prints nothing; the exit code is the result."""
    assert run(files[1], files[0], "--quiet") == (0, "", "")


def test_what_does_not_hold_is_one_line(run, files):
    """A failed check exits with 1 and prints one line on stderr with the file and the row.

    With ``--json`` the error is also on stdout, as one line of JSON.
    """
    break_a_row(files[1])
    code, out, err = run(files[1])
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"batchmax: error: {files[1]}: row 17 (row group 0): loss is ")
    assert "; the file was changed after it was written; score the inputs again" in err
    code, out, err = run(files[1], "--json")
    assert (code, out.count("\n")) == (1, 1)
    assert json.loads(out)["error"]["where"] == f"{files[1]}: row 17 (row group 0)"


def test_what_cannot_be_asked_is_a_usage_error(run, files):
    """``--sample`` without inputs and a missing file are usage errors with exit code 2 and a command to type."""
    code, out, err = run(files[1], "--sample", "3")
    assert (code, out) == (2, "")
    assert err.endswith("name the files that were scored: batchmax verify FILE INPUT...\n")
    assert run() == (2, "", "batchmax: error: FILE is missing; try: batchmax verify -h\n")


def test_names_cannot_act_on_the_terminal(run, tmp_path):
    """Escape sequences in file, column and label names are escaped, in the list and in errors."""
    odd = "\x1b[2J\u202e"
    logits, scored = tmp_path / "in.parquet", tmp_path / f"{odd}.parquet"
    table = pa.table({"logits": lists(some_logits(9, 3)), odd: np.arange(9) % 3})
    pq.write_table(table, logits)
    batchmax.score(logits, str(scored), label=odd, prefix=odd, columns="")
    code, out, err = run(scored, logits)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\u202e" not in out  # unlike escape sequences, direction marks aren't removed by anything else
    assert "\\x1b[2J" in out
    whole = bytearray(scored.read_bytes())
    whole[200] ^= 1
    scored.write_bytes(whole)
    code, _, err = run(scored)
    assert code == 1
    assert "\x1b" not in err
    assert "\u202e" not in err


def test_a_folder_is_verified_as_a_process(files, tmp_path):
    """The command accepts a folder, and rejects it when its last part is missing."""
    logits, _ = files
    out = tmp_path / "out"
    again = shutil.copy(logits, tmp_path / "again.parquet")
    batchmax.score([logits, again], str(out))
    command = [sys.executable, "-m", "batchmax", "verify", str(out), str(logits), str(again)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "100 of 4 classes, 6 row groups in 2 parts" in done.stdout
    assert "agrees: n_rows" in done.stdout
    Path(out, "part-00001.parquet").unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)

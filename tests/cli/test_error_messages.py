"""Tests error messages: one line with the place, the problem and the remedy."""

# ruff: noqa: E501 - a message is on one line, as in a terminal

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import main
from tests.support.paths import ROOT
from tests.support.processes import HANGS

ROWS, K = 20, 4


def table(k=K, rows=ROWS, **columns):
    """Return a table of ids, logits and labels, with columns replaced or added."""
    logits = np.random.default_rng(7).normal(size=(rows, k)).astype(np.float32)
    base = {"id": np.arange(rows), "logits": pa.array(list(logits)), "label": np.arange(rows) % k}
    return pa.table(base | columns)


def changed(row, value):
    """Return the table's logits with one row replaced."""
    rows = table()["logits"].to_pylist()
    rows[row] = value
    return pa.array(rows, pa.list_(pa.float32()))


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Return a folder with all inputs of the cases."""
    folder = tmp_path_factory.mktemp("stage")
    logits = table()["logits"]
    labels = [row % K for row in range(ROWS)]
    for name, content in {
        "x": table(),
        "my file": table(logits=changed(5, [0, 0, float("nan"), 0])),
        "three": table(k=3),
        "two": table(a=logits, b=logits).drop_columns(["logits"]),
        "gap": pa.table({f"logit_{number}": [1.0, 2.0] for number in (0, 1, 3)}),
        "ragged": table(logits=changed(7, [1.0, 2.0])),
        "nan": table(logits=changed(5, [0, 0, float("nan"), 0])),
        "bad_label": table(label=[17 if row == 3 else label for row, label in enumerate(labels)]),
        "from_one": table(label=[label + 1 for label in labels]),
        "text": table(label=["cat", "dog"] * 10),
        "no_logits": table().drop_columns(["logits"]),
        "null_logits": table(logits=pa.nulls(ROWS, pa.list_(pa.float32()))),
        "sequences": table(logits=[[[1.0, 2.0]]] * ROWS),
        "clash": table(loss=[0.5] * ROWS),
    }.items():
        pq.write_table(content, folder / f"{name}.parquet")
    whole = (folder / "x.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "hollow.parquet").write_bytes(b"")
    (folder / "notes.parquet").write_text("these are notes, and no table at all\n")
    (folder / "old.parquet").write_text("old")
    (folder / "bad.txt").write_text("1\n2\nthree\n4\n")
    (folder / "few.txt").write_text("1\n2\n3\n")
    (folder / "named.txt").write_text("a,1\nb,2\nc,3\nd,4\n")
    (folder / "empty").mkdir()
    (folder / "sub").mkdir()
    (folder / "theirs").mkdir()
    (folder / "theirs" / "thesis.tex").write_text("years of work")
    (folder / "mine.parquet.held").write_text("years of work")
    shutil.copy(folder / "x.parquet", folder / "again.parquet.held")
    (folder / "link.parquet").symlink_to("x.parquet")
    (folder / "hard.parquet").hardlink_to(folder / "x.parquet")
    os.mkfifo(folder / "pipe.parquet")
    return folder


def snapshot(folder):
    """Return the paths of everything below a folder, with the contents of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


BAD_LOGITS = "to write nulls instead: --on-bad-row null"
OVER = ["--if-exists", "overwrite"]

CASES = {
    # arguments of `batchmax score`, exit code, the message after `batchmax: error: `
    "a wrong column": (
        ["x.parquet", "--logits", "logitz"],
        2,
        (
            "x.parquet: --logits: there is no column 'logitz'; candidates: 'logits'; did you mean 'logits'? "
            "batchmax inspect x.parquet shows the columns"
        ),
    ),
    "a wrong column like one that is no list": (
        ["x.parquet", "--logits", "idd"],
        2,
        (
            "x.parquet: --logits: there is no column 'idd'; candidates: 'logits'; "
            "batchmax inspect x.parquet shows the columns"
        ),
    ),
    "a wrong label column": (
        ["x.parquet", "--label", "labl"],
        2,
        (
            "x.parquet: --label: there is no column 'labl'; did you mean 'label'? "
            "batchmax inspect x.parquet shows the columns"
        ),
    ),
    "a wrong column to carry": (
        ["x.parquet", "--columns", "idd"],
        2,
        "x.parquet: --columns: there is no column 'idd'; did you mean 'id'? the columns are id, logits, label",
    ),
    "two candidates": (
        ["two.parquet"],
        2,
        "two.parquet: 2 columns could be the logits: 'a', 'b'; choose one: --logits NAME",
    ),
    "a gap": (
        ["gap.parquet"],
        2,
        (
            "gap.parquet: --logits: class 2 is missing between 'logit_1' and 'logit_3'; "
            "add the missing columns, or give a pattern that matches only the classes"
        ),
    ),
    "a ragged list": (
        ["ragged.parquet"],
        1,
        "ragged.parquet: row 7 (row group 0): 2 logits, not 4; "
        "to see the row: batchmax show ragged.parquet --row 7; " + BAD_LOGITS,
    ),
    "a NaN": (
        ["nan.parquet"],
        1,
        "nan.parquet: row 5 (row group 0): NaN at class 2; to see the row: batchmax show nan.parquet --row 5; "
        + BAD_LOGITS,
    ),
    "a name with a space": (
        ["my file.parquet"],
        1,
        "my file.parquet: row 5 (row group 0): NaN at class 2; "
        "to see the row: batchmax show 'my file.parquet' --row 5; " + BAD_LOGITS,
    ),
    "a bad label": (
        ["bad_label.parquet"],
        1,
        "bad_label.parquet: row 3 (row group 0): label 17 is not a class: valid labels are 0 to 3; "
        "to see the row: batchmax show bad_label.parquet --row 3; " + BAD_LOGITS,
    ),
    "labels from 1": (
        ["from_one.parquet"],
        1,
        "from_one.parquet: row 3 (row group 0): label 4 is not a class: valid labels are 0 to 3; "
        "if labels start at 1: --classes 1,2,3,4; "
        "to see the row: batchmax show from_one.parquet --row 3; " + BAD_LOGITS,
    ),
    "text labels without names": (
        ["text.parquet"],
        2,
        (
            "text.parquet: --label: column 'label' (string) holds text, and the class names are unknown; "
            "give them in the order of the logits: --classes A,B,C; or use no labels: --label none"
        ),
    ),
    "an unknown name": (
        ["text.parquet", "--classes", "cat,cow,dogs,ant"],
        1,
        "text.parquet: row 1 (row group 0): label 'dog' is not a class name; did you mean 'dogs'?; "
        "to see the row: batchmax show text.parquet --row 1 --classes cat,cow,dogs,ant; " + BAD_LOGITS,
    ),
    "a missing file": (["nothing.parquet"], 1, "nothing.parquet: no such file or folder; see: ls ."),
    "a missing folder": (["far/x.parquet"], 1, "far/x.parquet: no such file or folder; see: ls ."),
    "a glob for nothing": (["sub/*.pq"], 1, "sub/*.pq: no files match this pattern; see: ls sub"),
    "an empty folder": (["empty"], 1, "empty: the folder has no Parquet files; see: ls -a empty"),
    "an existing output": (
        ["x.parquet", "-o", "old.parquet"],
        1,
        "old.parquet: the output exists; replace it: --if-exists overwrite, or name another output",
    ),
    "a folder of somebody's": (
        ["x.parquet", "-o", "theirs", *OVER],
        1,
        (
            "theirs: this is not a folder that batchmax wrote, or other files are in it, so it is not replaced; "
            "delete it yourself, or name another output"
        ),
    ),
    "an output below a file": (
        ["x.parquet", "-o", "x.parquet/deep/out.parquet"],
        1,
        (
            "x.parquet/deep/out.parquet: x.parquet is not a folder, so nothing can be written below it; "
            "name another output"
        ),
    ),
    "an output without a name": (
        ["x.parquet", "-o", "."],
        1,
        ".: no file or folder can be made under this name; name a file or a folder: -o",
    ),
    **{
        f"output = input, {how}": (
            ["x.parquet", "-o", out, *OVER],
            1,
            f"{out}: the output is also an input (x.parquet); name another output",
        )
        for how, out in {
            "by path": "x.parquet",
            "by ..": "sub/../x.parquet",
            "by symlink": "link.parquet",
            "by hard link": "hard.parquet",
        }.items()
    },
    "rejects = input": (
        ["x.parquet", "--on-bad-row", "drop", "--rejects", "hard.parquet", *OVER],
        1,
        "hard.parquet: the output is also an input (x.parquet); name another output",
    ),
    "inputs that differ": (
        ["x.parquet", "three.parquet"],
        2,
        "three.parquet: 3 classes, but 4 in x.parquet; score the files one by one",
    ),
    "too few names": (
        ["x.parquet", "--classes", "a,b,c"],
        2,
        (
            "x.parquet: --classes: 3 class names, but the logits have 4 classes; "
            "give one name per class, in the order of the logits"
        ),
    ),
    "no logits": (
        ["no_logits.parquet"],
        2,
        (
            "no_logits.parquet: no column can hold logits; the columns are 'id', 'label'; "
            "name a column of lists of numbers, or one column per class: --logits 'score_*'"
        ),
    ),
    "only null logits": (
        ["null_logits.parquet"],
        1,
        "null_logits.parquet: no row has logits, so the number of classes is unknown; give it: --n-classes N",
    ),
    "sequences": (
        ["sequences.parquet"],
        2,
        (
            "sequences.parquet: --label: column 'label' (int64) has one label per row, but the rows are sequences; "
            "name a column of lists with one label per token; or use no labels: --label none"
        ),
    ),
    "a file cut short": (
        ["cut.parquet"],
        1,
        "cut.parquet: the file is incomplete: it begins as a Parquet file, but has no footer; copy or write it again",
    ),
    "an empty file": (
        ["hollow.parquet"],
        1,
        ("hollow.parquet: the file is empty; choose other files with a quoted glob: '*.parquet'"),
    ),
    "a text file": (
        ["notes.parquet"],
        1,
        ("notes.parquet: not a Parquet file; convert it first, or choose other files with a quoted glob: '*.parquet'"),
    ),
    "a pipe": (
        ["pipe.parquet"],
        1,
        "pipe.parquet: not a regular file; write it to a file first: cat INPUT > FILE",
    ),
    "an unknown option": (
        ["x.parquet", "--outptus", "probs"],
        2,
        "no such option '--outptus' (did you mean one of: '--out', '--outputs'?); try: batchmax score -h",
    ),
    "an unknown output": (
        ["x.parquet", "--outputs", "prob"],
        2,
        (
            "--outputs: unknown output 'prob'; choose from probs, log_probs, loss, losses, pred, preds, confidence, "
            "margin, entropy, logsumexp, rank, correct, el2n, sample, status"
        ),
    ),
    "a top K of too many": (
        ["x.parquet", "--top-k", "5"],
        2,
        "x.parquet: --top-k: 5 exceeds the 4 classes; give at most 4",
    ),
    "a condition on no name": (
        ["x.parquet", "--fail-if", "mean_los > 1"],
        2,
        (
            "--fail-if: 'mean_los > 1': unknown metric 'mean_los'; choose from n_rows, n_classes, mean_loss, "
            "log_likelihood, accuracy, perplexity, bad_rows, bad_rate, infinite_losses, n_tokens, bits_per_token, "
            "bits_per_byte, bytes_read, bytes_written, seconds"
        ),
    ),
    "half a condition": (
        ["x.parquet", "--fail-if", "mean_loss >"],
        2,
        "--fail-if: 'mean_loss >' is an invalid condition: expected NAME < NUMBER; write it like: mean_loss > 1.2 or bad_rows > 100",
    ),
    "a condition that is decided early": (
        ["bad_label.parquet", "--on-bad-row", "null", "--fail-if", "bad_rows > 0"],
        4,
        (
            "out.parquet: --fail-if 'bad_rows > 0' is true after 20 rows; "
            "the run was stopped and nothing is written; fix the input, or change the condition"
        ),
    ),
    "weights with a bad line": (
        ["x.parquet", "--class-weights", "bad.txt"],
        2,
        "--class-weights: line 3 of bad.txt is 'three'; write one number per line, or name,number",
    ),
    "too few weights": (
        ["x.parquet", "--class-weights", "few.txt"],
        2,
        "x.parquet: --class-weights: 3 weights for 4 classes; give one weight per class, in the order of the logits",
    ),
    "weights for names that nobody gave": (
        ["x.parquet", "--class-weights", "named.txt"],
        2,
        (
            "x.parquet: --class-weights: there is no class 'a'; give one line NAME,WEIGHT per class, "
            "and the class names in the order of the logits: --classes A,B,C"
        ),
    ),
    "rejects of nothing": (
        ["x.parquet", "--rejects", "rejects.parquet"],
        2,
        "--rejects: rejected rows are written only if bad rows are dropped; add --on-bad-row drop",
    ),
    "a name that is taken": (
        ["clash.parquet"],
        2,
        (
            "clash.parquet: --outputs: the input already has a column 'loss'; add a prefix to the new "
            "columns: --prefix batchmax_; or leave it out: --exclude loss"
        ),
    ),
    "a file where the output would be held": (
        ["x.parquet", "-o", "mine.parquet", "--fail-if", "n_rows > 0", *OVER],
        1,
        (
            "mine.parquet.held: an output that is held back goes here, and what is there is not one that batchmax wrote; "
            "move it: mv mine.parquet.held mine.parquet.held.old, or name another output"
        ),
    ),
    "an input where the output would be held": (
        ["again.parquet.held", "-o", "again.parquet", "--fail-if", "n_rows > 0", *OVER],
        1,
        ("again.parquet.held: the output is also an input (again.parquet.held); name another output"),
    ),
    "rejects of a stream": (
        ["x.parquet", "-o", "-", "--on-bad-row", "drop", "--rejects", "r.parquet"],
        2,
        "--rejects: a stream doesn't support this; leave it out, or name a file: -o",
    ),
    "a stream among files": (
        ["-", "x.parquet"],
        2,
        (
            "-: a stream can only be the only input of a command that reads rows once, or the output of score; "
            "name a path; for a file named -, write ./-"
        ),
    ),
    "a store nobody knows as output": (
        ["x.parquet", "-o", "nosuch://b/x"],
        2,
        "nosuch://b: nosuch:// is not supported: Protocol not known: nosuch; install the package that fsspec needs for it",
    ),
    "a store nobody knows as input": (
        ["nosuch://b/x.parquet"],
        2,
        "nosuch://b: nosuch:// is not supported: Protocol not known: nosuch; install the package that fsspec needs for it",
    ),
    "credentials in a URI": (
        ["s3://me:secret@b/x.parquet"],
        2,
        (
            "s3://…@…: the URI contains credentials; "
            "set them in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
        ),
    ),
    "no size": (
        ["x.parquet", "--memory-limit", "lots"],
        2,
        "--memory-limit: 'lots' is not a size; write it like 512MiB or 2GB",
    ),
}


@pytest.fixture
def score(capsys, monkeypatch):
    """Return a function that runs ``batchmax score`` in a folder; it returns the exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def scored(folder, *words):
        monkeypatch.chdir(folder)
        code = main(["score", *words])
        return code, *capsys.readouterr()

    return scored


@pytest.mark.parametrize(("words", "code", "line"), CASES.values(), ids=list(CASES))
def test_a_failure_is_one_line(stage, score, words, code, line):
    """An error is one line on stderr and the same parts in JSON on stdout; the exit code is right; no file is left."""
    before = snapshot(stage)
    out = [] if "-o" in words else ["-o", "out.parquet"]
    found, stdout, stderr = score(stage, *words, *out, "--json")
    assert stderr == f"batchmax: error: {line}\n"
    assert found == code
    (said,) = stdout.splitlines()
    error = json.loads(said)["error"]
    assert "; ".join(filter(None, [": ".join(filter(None, [error["where"], error["what"]])), error["remedy"]])) == line
    assert error["what"]
    assert error["remedy"]
    assert snapshot(stage) == before


def test_a_process_fails_in_the_same_way(stage):
    """As a separate process the command prints the same line and has the same exit code."""
    words, code, line = CASES["a wrong column"]
    done = subprocess.run(
        [sys.executable, "-m", "batchmax", "score", *words, "-o", "out.parquet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
        cwd=stage,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"batchmax: error: {line}\n")


def test_a_held_output_is_one_line(stage, score, tmp_path):
    """If --fail-if is true at the end, the finished output is held, and the message says how to keep it."""
    shutil.copy(stage / "x.parquet", tmp_path / "x.parquet")
    code, _, err = score(tmp_path, "x.parquet", "-o", "my out.parquet", "--fail-if", "n_rows > 19")
    assert err == (
        "batchmax: error: my out.parquet: --fail-if 'n_rows > 19' is true: n_rows is 20; the finished output is "
        "my out.parquet.held; to publish it: --if-exists resume with another --fail-if, or with none\n"
    )
    assert code == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my out.parquet.held", "x.parquet"]
    assert pq.read_metadata(tmp_path / "my out.parquet.held").num_rows == ROWS


def test_held_rejects_are_named_too(stage, score, tmp_path):
    """Rejected rows are held with the output, and the message gives one command that keeps both."""
    shutil.copy(stage / "nan.parquet", tmp_path / "x.parquet")
    words = ["-o", "y.pq", "--fail-if", "bad_rate > 0", "--on-bad-row", "drop", "--rejects", "r.pq"]
    code, _, err = score(tmp_path, "x.parquet", *words)
    assert code == 4
    remedy = (
        "the finished output is y.pq.held; to publish it: --if-exists resume with another --fail-if, or with none\n"
    )
    assert err.endswith(f"; {remedy}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.pq.held", "x.parquet", "y.pq.held"]

"""``batchmax score``, ``convert`` and ``warmup``: the options that they pass on, and their summaries."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import pytest

from batchmax.options.score_options import score_options
from batchmax.scoring.summary import ScoreSummary
from tests.support.paths import DATA
from tests.support.processes import HANGS

DIGITS = DATA / "digits.parquet"


@pytest.fixture
def calls(monkeypatch):
    """Replace the jobs; return the list of the arguments that they are called with."""
    made = []

    def score(src, out, options, *, progress):
        made.append((src, out, options))
        progress.start(10, 40)
        progress.advance(10, 40)
        progress.note("logits: column 'logits'")
        progress.warn("3 rows look odd")
        return SUMMARY

    def convert(src, out, layout, *, progress, **given):  # noqa: ARG001
        made.append((src, out, layout, {name: value for name, value in given.items() if value is not None}))
        return SUMMARY

    def dry_run(src, out, options):
        made.append((src, out, options))
        return {"parts": 2, "schema": {"id": "int64", "a\x1b": "string"}, "memory_bytes": 2**20, "inputs": list("xy")}

    monkeypatch.setattr("batchmax.jobs.score.score", score)
    monkeypatch.setattr("batchmax.jobs.convert.convert", convert)
    monkeypatch.setattr("batchmax.jobs.score.dry_run", dry_run)
    return made


SUMMARY = ScoreSummary(
    n_rows=12345,
    n_classes=10,
    mean_loss=0.123456789,
    accuracy=0.97,
    perplexity=None,
    bad_rows=3,
    infinite_losses=2,
    status_counts={"ok": 12325, "bad_label": 3, "ignored": 17},
    bytes_read=5 * 2**20,
    seconds=2.5,
    notes=["logits: column 'logits'"],
    version="0",
)


def test_nothing_given_is_the_defaults(run, calls):
    """Inputs and output are passed on; options that aren't given have the defaults of ``score_options``."""
    code, _, _ = run("score", "a", "b", "-o", "c")
    assert code == 0
    assert calls == [(["a", "b"], "c", score_options())]


OPTIONS = [
    ("--logits", "z_*", {"logits": "z_*"}),
    ("--label", "none", {"label": "none"}),
    ("--classes", "x,y", {"classes": ("x", "y")}),
    ("--n-classes", "7", {"n_classes": 7}),
    ("--ignore-index", "-1", {"ignore_index": -1}),
    ("--logits-dtype", "bfloat16", {"logits_dtype": "bfloat16"}),
    ("--input", "probs", {"input": "probs"}),
    ("--limit", "0", {"limit": 0}),
    ("--temperature", "4", {"beta": 0.25}),
    ("--beta", "3", {"beta": 3.0}),
    ("--outputs", "loss,pred", {"outputs": ("loss", "pred")}),
    ("--top-k", "5", {"top_k": 5}),
    ("--label-smoothing", "0.1", {"label_smoothing": 0.1}),
    ("--layout", "wide", {"layout": "wide"}),
    ("--dtype", "float16", {"dtype": "float16"}),
    ("--columns", "id,name", {"columns": ("id", "name")}),
    ("--exclude", "id", {"exclude": ("id",)}),
    ("--prefix", "m_", {"prefix": "m_"}),
    ("--compression", "zstd", {"compression": "zstd"}),
    ("--row-group-size", "1000", {"row_group_size": 1000}),
    ("--if-exists", "overwrite", {"if_exists": "overwrite"}),
    ("--on-bad-row", "null", {"on_bad_row": "null"}),
    ("--fail-if", "mean_loss > 1", {"fail_if": "mean_loss > 1"}),
    ("--threads", "2", {"threads": 2}),
    ("--memory-limit", "512MiB", {"memory_limit": 2**29}),
]


@pytest.mark.parametrize(("option", "value", "fields"), OPTIONS, ids=[option for option, *_ in OPTIONS])
def test_each_option_is_passed_on(run, calls, option, value, fields):
    """An option sets its own field and no other."""
    assert run("score", "a", "-o", "b", option, value)[0] == 0
    ((_, _, options),) = calls
    default = score_options()
    assert options == type(default)(**{**vars(default), **fields})


@pytest.mark.parametrize(("option", "value", "fields"), OPTIONS, ids=[option for option, *_ in OPTIONS])
def test_each_option_is_read_from_the_environment(run, calls, monkeypatch, option, value, fields):
    """BATCHMAX_SCORE_<OPTION> sets the option."""
    monkeypatch.setenv(f"BATCHMAX_SCORE_{option[2:].replace('-', '_').upper()}", value)
    assert run("score", "a", "-o", "b")[0] == 0
    assert {name: getattr(calls[0][2], name) for name in fields} == fields


def test_rejects_are_passed_on(run, calls):
    """``--rejects`` is passed on with ``--on-bad-row drop``, and rejected without it."""
    assert run("score", "a", "-o", "b", "--on-bad-row", "drop", "--rejects", "r")[0] == 0
    assert calls[0][2].rejects == "r"
    assert run("score", "a", "-o", "b", "--rejects", "r")[0] == 2


def test_class_weights_are_passed_on(run, calls, tmp_path):
    """``--class-weights`` reads a file of numbers."""
    path = tmp_path / "weights.txt"
    path.write_text("1\n0.5\n")
    assert run("score", "a", "-o", "b", "--class-weights", path)[0] == 0
    assert calls[0][2].class_weights == (1.0, 0.5)


@pytest.mark.usefixtures("calls")
def test_the_summary_is_a_table_on_stdout(run):
    """The summary is a table on stdout, with a dash for missing values and flagged rows by status.

    Warnings are on stderr.
    """
    code, out, err = run("score", "a", "-o", "b\x1b.parquet")
    assert code == 0
    pairs = [line.split("  ", 1) for line in out.splitlines()]
    assert {name: value.strip() for name, value in pairs} == {
        "rows": "12,345",
        "classes": "10",
        "mean loss": "0.123457",
        "accuracy": "0.97",
        "perplexity": "–",
        "flagged rows": "3 bad_label, 17 ignored",
        "infinite losses": "2",
        "time": "2.5 s  (4,938 rows/s, 2 MiB/s read)",
        "output": "b\\x1b.parquet",
        "note": "logits: column 'logits'",
    }
    assert err == "batchmax: warning: 3 rows look odd\n"


@pytest.mark.usefixtures("calls")
def test_verbose_says_notes_while_they_come_up(run):
    """``-v`` adds the notes on stderr."""
    err = run("score", "a", "-o", "b", "-v")[2]
    assert err == "batchmax: note: logits: column 'logits'\nbatchmax: warning: 3 rows look odd\n"


@pytest.mark.usefixtures("calls")
def test_quiet_success_shows_warnings_alone(run):
    """``-q`` hides the summary, but no warnings and not the line of ``--json``."""
    warning = "batchmax: warning: 3 rows look odd\n"
    assert run("score", "a", "-o", "b", "-q") == (0, "", warning)
    assert run("score", "a", "-o", "b", "-q", "--json") == (0, SUMMARY.to_json() + "\n", warning)


@pytest.mark.usefixtures("calls")
def test_json_is_the_summary_on_one_line(run):
    """With ``--json``, stdout is one line, the summary as JSON."""
    code, out, _ = run("score", "a", "-o", "b", "--json")
    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out)["n_rows"] == 12345


def test_dry_run_says_the_plan(run, calls):
    """``--dry-run`` only makes the plan, and prints it as text or JSON."""
    code, out, err = run("score", "a", "-o", "b", "--dry-run")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["parts", "2"],
        ["schema", "id:", "int64"],
        ["a\\x1b:", "string"],
        ["memory", "bytes", "1", "MiB"],
        ["inputs", "x"],
        ["y"],
    ]
    assert calls == [(["a"], "b", score_options())]
    out = run("score", "a", "-o", "b", "--dry-run", "--json")[1]
    assert json.loads(out)["memory_bytes"] == 2**20


def test_convert_passes_on(run, calls):
    """``convert`` passes on inputs, output, layout and options."""
    code, out, _ = run("convert", "a", "-o", "b", "--layout", "wide", "--logits", "z", "--if-exists", "overwrite")
    assert code == 0
    assert calls == [(["a"], "b", "wide", {"logits": "z", "storage_options": (), "if_exists": "overwrite"})]
    assert "12,345" in out
    assert "accuracy" not in out


def test_warmup_says_how_long_and_where(run, monkeypatch, tmp_path):
    """``warmup`` prints the time and the cache folder."""
    monkeypatch.setattr("batchmax.functional.warmup.compile_kernels", lambda _: tmp_path)
    code, out, err = run("warmup")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"time   .* s\ncache  {tmp_path}\n", out)
    record = json.loads(run("warmup", "--json")[1])
    assert record["cache"] == str(tmp_path)
    assert record["seconds"] >= 0
    assert run("warmup", "-q") == (0, "", "")


def test_score_for_real(run, tmp_path):
    """``score`` writes the output and prints its number of rows; a second run is rejected."""
    import pyarrow.parquet as pq

    out_path = tmp_path / "scored.parquet"
    code, out, err = run("score", DIGITS, "-o", out_path)
    assert (code, err) == (0, "")
    table = pq.read_table(out_path)
    assert f"{table.num_rows:,}" in out
    assert {"probs", "loss"} <= set(table.column_names)
    code, out, err = run("score", DIGITS, "-o", out_path)
    assert (code, out) == (1, "")
    assert err.startswith("batchmax: error: ")
    assert err.count("\n") == 1


def test_score_for_real_as_json(run, tmp_path):
    """The JSON summary has the documented keys; a gate that fails exits with 4 and holds the output."""
    code, out, _ = run("score", DIGITS, "-o", tmp_path / "a.parquet", "--json")
    assert code == 0
    summary = json.loads(out)
    keys = {"n_rows", "n_classes", "mean_loss", "log_likelihood", "accuracy", "perplexity", "bad_rows", "bad_rate"}
    keys |= {"infinite_losses", "status_counts", "files", "bytes_read", "bytes_written", "seconds", "warnings"}
    assert keys | {"version"} <= summary.keys()
    code, out, _ = run("score", DIGITS, "-o", tmp_path / "b.parquet", "--json", "--fail-if", "accuracy < 1.1")
    assert code == 4
    assert out.count("\n") == 1
    assert (tmp_path / "b.parquet.held").exists()
    assert not (tmp_path / "b.parquet").exists()


def test_a_bad_row_is_one_line_for_real(tmp_path):
    """A bad row ends the process with one line on stderr, and no output is left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"logits": [[1.0, 2.0], [1.0, math.nan]], "label": [0, 1]}), tmp_path / "x.parquet")
    command = [sys.executable, "-m", "batchmax", "score", "x.parquet", "-o", "y.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "batchmax: error: x.parquet: row 1 (row group 0): NaN at class 1; "
        "to see the row: batchmax show x.parquet --row 1; to write nulls instead: --on-bad-row null\n"
    )
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".parquet"] == ["x.parquet"]


def test_dry_run_for_real(run, tmp_path):
    """A dry run of a real file prints a plan and writes nothing."""
    code, out, _ = run("score", DIGITS, "-o", tmp_path / "a.parquet", "--dry-run")
    assert code == 0
    assert out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
def test_convert_for_real(run, tmp_path, layout):
    """Converted logits have the same mean loss."""
    code, _, err = run("convert", DIGITS, "-o", tmp_path / "c.parquet", "--layout", layout)
    assert (code, err) == (0, "")
    losses = []
    for number, path in enumerate((DIGITS, tmp_path / "c.parquet")):
        out = run("score", path, "-o", tmp_path / f"{number}.parquet", "--json")[1]
        losses.append(json.loads(out)["mean_loss"])
    assert losses[0] == losses[1]


def test_verbose_explains_for_real(run, tmp_path):
    """``-v`` prints the choice of columns, the parts of a folder, and how logits were read."""
    quiet = run("score", DIGITS, "-o", tmp_path / "a")[2]
    assert quiet == ""
    said = run("score", DIGITS, "-o", tmp_path / "b", "-v")[2]
    assert "logits: " in said
    assert "batchmax: parts: 1, of at most 899 rows\n" in said
    assert "column chunks of logits read as matrices: " in said

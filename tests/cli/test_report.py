"""``batchmax report``: its output, options and exit codes."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.commands.report import command
from batchmax.reports import report as reporting
from tests.support.paths import DATA

DIGITS = DATA / "digits.parquet"


@pytest.fixture
def run(run, tmp_path, monkeypatch):
    """Return a function that runs ``report`` in its own folder and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(run, "report")


def test_a_page_and_a_few_lines(run):
    """The report is written to ``-o``, and its main metrics are printed."""
    code, out, err = run(DIGITS, "-o", "page.html")
    assert (code, err) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert lines["rows"].strip() == "899"
    assert lines["accuracy"].strip() == "0.965517"
    assert lines["row drawn"].strip().endswith("digits.parquet: row 388")
    assert lines["output"].strip().startswith("page.html  (")
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")


def test_json_is_one_line(run):
    """``--json`` prints the results and the size of the page on one line."""
    code, out, _ = run(DIGITS, "-o", "page.html", "--json", "--row", 3)
    assert code == 0
    (line,) = out.splitlines()
    said = json.loads(line)
    assert said["bytes_written"] == Path("page.html").stat().st_size
    assert said["row"] == {"file": str(DIGITS), "row": 3}
    assert (said["n_rows"], said["worst_rows"], said["accuracy"]) == (899, 20, pytest.approx(0.9655172413793104))


def test_quiet_says_nothing(run):
    """``-q`` prints nothing; the report is written."""
    assert run(DIGITS, "-o", "page.html", "-q") == (0, "", "")
    assert Path("page.html").exists()


def test_the_options_of_the_command_are_those_of_the_function(run, monkeypatch):
    """Each option is passed to the function under its name."""
    seen = {}

    def report(src, out, **given):
        seen.update(given, src=src, out=out)
        return reporting.Report()

    monkeypatch.setattr(reporting, "report", report)
    words = ["--row", 5, "--worst", 7, "--by", "a,b", "--bins", 9, "--title", "T", "--columns", "id", "--exclude", "x"]
    words += ["--if-exists", "overwrite", "--on-bad-row", "null", "--limit", 10, "--temperature", 2, "--label", "y"]
    assert run("in.parquet", "-o", "out.html", *words)[0] == 0
    wanted = {"row": 5, "worst": 7, "by": "a,b", "bins": 9, "title": "T", "columns": "id", "exclude": "x"}
    wanted |= {"if_exists": "overwrite", "on_bad_row": "null", "limit": 10, "temperature": 2.0, "label": "y"}
    assert seen.items() >= (wanted | {"src": ["in.parquet"], "out": "out.html"}).items()


def test_the_page_says_the_command_that_makes_it_again(run):
    """The command in the report makes the same report."""
    import html
    import re
    import shlex

    table = pq.read_table(DIGITS).append_column("it's", pa.array([i % 3 for i in range(899)]))
    pq.write_table(table, "a b.parquet")
    code, *_ = run("a b.parquet", "-o", "page.html", "--by", "it's", "--beta", 0.5, "--worst", 3, "--row", 7)
    assert code == 0
    text = Path("page.html").read_text()
    said = html.unescape(re.search(r"<pre><code>(.*?)</code>", text)[1])
    words = shlex.split(said)
    assert words[:2] == ["batchmax", "report"]
    assert run(*words[2:])[0] == 0
    assert Path("report.html").read_text() == text


FAILURES = {
    "an output that is there": (["-o", "there.html"], 1, "--if-exists overwrite"),
    "another ending": (["-o", "page.parquet"], 2, "name it page.html"),
    "no output": ([], 2, "-o"),
    "a row that is not there": (["-o", "page.html", "--row", "899"], 2, "rows count from 0"),
    "too many rows": (["-o", "page.html", "--worst", "500"], 2, "show --worst 500"),
    "a group that is not there": (["-o", "page.html", "--by", "idd"], 2, "id"),
    "a bad label": (["-o", "page.html", "--label", "id"], 1, "--on-bad-row null"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_line_with_a_remedy(run, name):
    """Errors are one line on stderr with a remedy and the exit code, and no report is written."""
    Path("there.html").touch()
    words, wanted, remedy = FAILURES[name]
    code, out, err = run(DIGITS, *words)
    assert (code, out) == (wanted, "")
    assert err.startswith("batchmax: error: ")
    assert err.count("\n") == 1
    assert remedy in err
    assert not Path("page.html").exists()


def test_every_option_has_help():
    """Every option has a help text, and the example runs ``report``."""
    for parameter in command.get_params(click.Context(command, **command.context_settings)):
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    assert command.example.startswith("batchmax report ")

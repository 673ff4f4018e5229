"""``batchmax evaluate``: its table, JSON, exit codes and gates."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import main
from tests.support.paths import DATA

DIGITS = str(DATA / "digits.parquet")


def test_the_table_has_the_headline_figures_and_the_classes(capsys):
    """The table has the main metrics and a line for each class."""
    assert main(["evaluate", DIGITS]) == 0
    out = capsys.readouterr().out
    for line in (
        "accuracy           0.965517",
        "top-5 accuracy     0.997775",
        "ECE                0.00998504  [0, 0.01251]  (over 15 bins)",
    ):
        assert line in out
    assert [line.split()[0] for line in out.splitlines()[-10:]] == (
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    )


def test_json_is_one_line_with_everything(capsys):
    """``--json`` prints all metrics without NaN on one line, and errors as JSON too."""
    assert main(["evaluate", DIGITS, "--json", "--top-k", "1,3", "--bins", "5"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out, parse_constant=pytest.fail)
    assert set(found["top_k_accuracy"]) == {"1", "3"}
    assert len(found["bins"]) == 5
    assert main(["evaluate", DIGITS, "--json", "--label", "nothing"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["where"].endswith("--label")


def test_groups_that_could_harm_a_terminal(tmp_path, capsys):
    """Control characters in values of the grouping column are escaped, and a null is printed as null."""
    table = pa.table({"logits": [[1.0, 2.0]] * 3, "label": [0, 1, 1], "k\x1b[2J": ["a\x1b[31m", None, "b\nc"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert main(["evaluate", str(tmp_path / "a.parquet"), "--by", "k\x1b[2J"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31m" in out
    assert "null" in out
    assert "b\\nc" in out


def test_a_gate_exits_with_4(tmp_path, capsys):
    """A gate that fails exits with 4; its one-line error has the metric and its value, and nothing is written."""
    out = tmp_path / "m.parquet"
    assert main(["evaluate", DIGITS, "-o", str(out), "--fail-if", "ece > 0.001"]) == 4
    err = capsys.readouterr().err
    assert "ece is 0.00998504" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--top-k", "a"], "not a list of integers"),
        (["--top-k", "11"], "for 10 classes"),
        (["--bins", "0"], "--bins: 0 is out of range"),
        (["--by", "nothing"], "--by: there is no column 'nothing'"),
        (["--sample-weight", "nothing"], "--sample-weight: there is no column 'nothing'"),
        (["--by", "pixels"], "there is no column"),
        (["--fail-if", "bytes_written > 3"], "unknown metric 'bytes_written'"),
        (["--label", "none"], "metrics need labels"),
        (["-o", "folder"], "one file"),
        (["--fail-if", "ece"], "invalid condition"),
    ],
)
def test_what_cannot_be_is_one_line(words, what, capsys):
    """Invalid options are one-line errors with exit code 2."""
    assert main(["evaluate", DIGITS, *words]) == 2
    err = capsys.readouterr().err
    assert what in err
    assert err.count("\n") == 1


def test_many_classes_show_the_worst(tmp_path, capsys):
    """With more than 20 classes, the table lists those with the lowest F1."""
    table = pa.table(
        {"logits": [[float(row == at) for at in range(30)] for row in range(30)], "label": [*range(29), 3]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert main(["evaluate", str(tmp_path / "a.parquet")]) == 0
    out = capsys.readouterr().out
    assert "20 classes with the lowest F1, of 30" in out
    assert out.splitlines()[-20].split()[:2] == ["29", "0"]

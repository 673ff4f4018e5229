"""``batchmax show``: the arithmetic of a row, and the worst rows."""

from __future__ import annotations

import functools
import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.render import row as row_table
from batchmax.errors import BadRowError
from batchmax.jobs.row_trace import trace_values


@pytest.fixture
def run(run):
    """Return a function that runs ``show`` at a terminal width and returns exit code, stdout and stderr."""
    return functools.partial(run, "show", columns=120)


def table(out, heading):
    """Return the cells below a heading of a printed table."""
    lines = out.splitlines()
    top = next(number for number, line in enumerate(lines) if heading in line)
    end = lines[top].index(heading) + len(heading)
    cells = []
    for line in lines[top + 2 :]:
        if not line.strip() or line.startswith("and "):
            break
        cells.append(line[:end].split("  ")[-1].strip())
    return cells


HAND_WORKED = [
    ("0.95,0.99,0.98", 500, ["2.05e-9", "0.993307", "0.00669285"]),
    ("0.95,0.99,0.98", 1, ["0.3256", "0.3389", "0.3355"]),
    ("1.5,0.8,-0.2", 1, ["0.5955", "0.2957", "0.1088"]),
    ("-1,1,2,3", 1, ["0.0120", "0.0889", "0.2418", "0.6572"]),
    ("1,2", 1, ["0.26894142", "0.73105858"]),
    ("10,20", 1, ["4.53978687e-05", "0.999954602"]),
    ("3.2,1.3,0.2,0.8", 1, ["0.775"]),
    ("2,1,0.5", 1, ["0.6285", "0.2312", "0.1402"]),
]


@pytest.mark.parametrize(("values", "beta", "expected"), HAND_WORKED)
def test_hand_worked_cases(run, values, beta, expected):
    """The printed probabilities match hand-computed ones to all their digits."""
    code, out, err = run("--values", values, "--beta", beta)
    assert (code, err) == (0, "")
    shown = table(out, "softmax")
    for text, by_hand in zip(shown, expected, strict=False):
        mantissa = by_hand.split("e")[0].replace(".", "").lstrip("0")
        assert f"{float(text):.{len(mantissa) - 1}e}" == f"{float(by_hand):.{len(mantissa) - 1}e}"


def test_all_columns_of_the_arithmetic(run):
    """z, e^(βz), βz − max, softmax, log-softmax and one-hot argmax match plain float arithmetic."""
    z, beta, label = [1.5, 0.8, -0.2], 2.0, 1
    out = run("--values", "1.5,0.8,-0.2", "--beta", beta, "--label", label)[1]
    total = sum(math.exp(beta * value) for value in z)
    wanted = {
        "z": z,
        "e^(βz)": [math.exp(beta * value) for value in z],
        "βz − max": [beta * (value - max(z)) for value in z],
        "softmax": [math.exp(beta * value) / total for value in z],
        "log-softmax": [beta * value - math.log(total) for value in z],
        "argmax": [1, 0, 0],
    }
    for heading, values in wanted.items():
        place = re.compile(rf"(?<!\S){re.escape(heading)}(?!\S)").search(out).group()
        assert [float(cell) for cell in table(out, place)] == pytest.approx(values, rel=1e-5), heading
    facts = dict(re.split(r"\s{2,}", line.strip()) for line in out.split("\n\n")[1].splitlines())
    assert float(facts["loss"]) == pytest.approx(math.log(total) - beta * z[label], rel=1e-8)
    assert float(facts["log Σ e^(βz)"]) == pytest.approx(math.log(total), rel=1e-5)
    assert float(facts["Σ e^(βz − max)"]) == pytest.approx(total / math.exp(beta * max(z)), rel=1e-5)
    assert (facts["β"], facts["max z"], facts["status"]) == ("2", "1.5", "ok")


def test_betas_side_by_side(run):
    """Several β share one table, which fits 80 columns; each has its own probabilities."""
    for columns in (80, 120):
        code, out, _ = run("--values", "0.95,0.99,0.98", "--beta", "1,500", columns=columns)
        assert code == 0
        assert "β = 1" in out
        assert "β = 500" in out
        line = next(line for line in out.splitlines() if "0.95" in line)
        assert "0.325598703" in line
        assert "2.04735862e-09" in line
        assert max(map(len, out.splitlines())) <= columns


def test_an_overflowing_power_is_shown_by_its_exponent(run):
    """e^800 overflows float64, so it is printed as e^800; the probabilities are right all the same."""
    out = run("--values", "800,799,-800")[1]
    assert table(out, "e^(βz)") == ["e^800", "e^799", "e^-800"]
    assert table(out, "softmax")[0].startswith("0.7310585")


@pytest.mark.parametrize(
    ("values", "label", "status"),
    [
        ("1,nan", None, "nan_logit"),
        ("1,inf", None, "inf_logit"),
        ("-inf,-inf", None, "all_masked"),
        ("1,-inf", "1", "masked_label"),
        ("1,2", "2", "bad_label"),
        ("1,2", "-100", "ignored"),
        ("1,-inf", "0", "ok"),
    ],
)
def test_odd_rows_are_shown_with_their_status(run, values, label, status):
    """Rows with NaN, infinities or invalid labels are shown with their status, not rejected."""
    words = ["--values", values, *(["--label", label] if label else [])]
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines() if "status" in line] == [["status", status]]
    record = json.loads(run(*words, "--json")[1])
    assert record["scores"][0]["status"] == status


def test_names_for_values(run):
    """With ``--classes``, the label may be a name, and names are printed next to class numbers."""
    out = run("--values", "1,2", "--classes", "cat,dog", "--label", "cat")[1]
    assert "0 cat" in out
    assert "1 dog" in out
    assert table(out, "label") == ["1", "0"]


@pytest.fixture
def file(tmp_path):
    """Write a file of 30 rows and 100 classes in row groups of 8, with a NaN in row 20."""
    logits = np.random.default_rng(1).normal(0, 3, (30, 100)).astype(np.float32)
    logits[20, 7] = np.nan
    path = tmp_path / "x.parquet"
    labels = logits.argmin(axis=1)
    pq.write_table(pa.table({"logits": list(logits), "label": labels, "probs": labels}), path, row_group_size=8)
    return path, logits, labels


def test_a_row_of_a_file(run, file):
    """The ten largest classes are listed in order, then the label's; ``--all`` lists all classes by number."""
    path, logits, labels = file
    code, out, err = run(path, "--row", 17)
    assert (code, err) == (0, "")
    assert f"{path}: row 17" in out
    order = [int(index) for index in np.argsort(-logits[17])[:10]] + [int(labels[17])]
    assert [int(cell) for cell in table(out, "class")] == order
    assert [float(cell) for cell in table(out, "z")] == pytest.approx(logits[17][order].tolist(), rel=1e-5)
    assert "and 89 more classes; for all: --all" in out
    everything = run(path, "--row", 17, "--all")[1]
    assert [int(cell) for cell in table(everything, "class")] == list(range(100))


def test_what_is_shown_is_what_is_scored(run, file):
    """The JSON has the row's logits unchanged, and float32 probabilities and the loss that match float64."""
    path, logits, labels = file
    record = json.loads(run(path, "--row", 3, "--json")[1])
    assert record["logits"] == logits[3].tolist()
    assert record["label"] == labels[3]
    (scores,) = record["scores"]
    z = logits[3].astype(np.float64)
    exact = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    assert scores["probs"] == pytest.approx(exact.tolist(), rel=5e-7)
    assert scores["probs"] == np.array(scores["probs"], np.float32).tolist()
    assert scores["loss"] == pytest.approx(-math.log(exact[labels[3]]), rel=1e-6)


def test_a_bad_row_is_shown(run, file):
    """A bad row, which would stop a job, is shown."""
    code, out, _ = run(file[0], "--row", 20)
    assert code == 0
    assert "nan_logit" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no input is given; name a file, or try: batchmax show --values 1,2,3"),
        (["x.parquet"], "--row: no row is given; the first is --row 0"),
        (["x.parquet", "--row", "-1"], "--row: there is no row -1; the first is --row 0"),
        (["x.parquet", "--values", "1"], "--values and a file are both given; give one of them"),
        (["--values", "1", "--token", "1"], "--values and a file are both given; give one of them"),
        (["--values", "1,,2"], "--values: '' is not a number; separate numbers by commas: 0.5,1,-inf"),
        (["--values", "1", "--beta", "x"], "--beta: 'x' is not a number; separate numbers by commas: 0.5,1,-inf"),
        (
            ["--values", "1", "--beta", "1,0"],
            "--beta: 0.0 is out of range; give a number from 1e-300 to 1e+300",
        ),
        (
            ["--values", "1", "--beta", "1", "--temperature", "1"],
            "both --temperature and --beta are given; give one",
        ),
    ],
)
def test_usage(run, words, message):
    """Invalid options are one-line errors with exit code 2."""
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"batchmax: error: {message}")
    assert err.count("\n") == 1


def test_a_row_that_is_not_there(run, file):
    """A row number beyond the file is an error with exit code 2 that has the number of rows."""
    code, out, err = run(file[0], "--row", 30)
    assert (code, out) == (2, "")
    assert "30" in err


@pytest.mark.parametrize("room", range(20, 140, 5))
def test_the_table_fits_the_room(room):
    """If the probabilities fit, the table is never wider than the available width."""
    row = trace_values([1.5, -2.25, 3.125], [None], label="1")
    columns, gap = row_table.fitting(row, [0, 1, 2], room)
    assert [column.heading for column in columns][:2] == ["class", "z"]
    assert "softmax" in [column.heading for column in columns]
    width = sum(column.width for column in columns) + gap * (len(columns) - 1)
    assert width <= max(room, 39)


@pytest.mark.parametrize(
    ("share", "width", "text"),
    [(0, 8, ""), (1, 8, "████████"), (0.5, 8, "████"), (1 / 16, 8, "▌"), (float("nan"), 8, ""), (1e-9, 8, "")],
)
def test_bars(share, width, text):
    """A bar's length is proportional to the probability, to an eighth of a character."""
    assert row_table.bar(share, width) == text


def test_a_bad_row_says_what_is_wrong_with_it(run):
    """For a label that isn't a class, the table and the JSON have the label's value."""
    words = ["--values", "1,2", "--label", "10"]
    assert "bad row: label 10 is not a class: valid labels are 0 to 1" in run(*words)[1]
    assert json.loads(run(*words, "--json")[1])["trouble"] == "label 10 is not a class: valid labels are 0 to 1"
    assert json.loads(run("--values", "1,2", "--label", "1", "--json")[1])["trouble"] is None


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        (-1, "if it marks rows without a label: --ignore-index -1"),
        (2, "if labels start at 1: --classes 1,2"),
    ],
)
def test_a_bad_label_has_the_hint_of_other_commands(run, tmp_path, label, hint):
    """For a label that is probably a marker, or counts from 1, the hint is that of ``score``, and it works."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"logits": [[1.0, 2.0]], "label": [label]}), path)
    shown = f"label {label} is not a class: valid labels are 0 to 1; {hint}"
    assert f"bad row: {shown}" in run(path, "--row", 0)[1]
    assert json.loads(run(path, "--row", 0, "--json")[1])["trouble"] == shown
    with pytest.raises(BadRowError, match=hint):
        batchmax.score(path, tmp_path / "out.parquet")
    assert "bad row" not in run(path, "--row", 0, *hint.split(": ")[1].split())[1]


# Other activations


def test_alternatives_lists_the_same_classes(run, file):
    """Other activations are shown for the ten largest classes and the label's, or with ``--all`` for all classes."""
    for more, n_classes in ([], 11), (["--all"], 100):
        assert len(table(run(file[0], "--row", 17, "--alternatives", *more)[1], "class")) == n_classes


def test_alternatives_of_a_sequence_need_a_token(run, tmp_path):
    """Other activations are shown for a token of a sequence; without ``--token``, the option is refused."""
    pq.write_table(pa.table({"logits": [[[1.0, 2.0], [3.0, 1.0]]], "label": [[0, 1]]}), tmp_path / "s.parquet")
    code, out, err = run(tmp_path / "s.parquet", "--row", 0, "--alternatives")
    assert (code, out) == (2, "")
    assert err == (
        "batchmax: error: --alternatives: activations can be compared for only one token of a sequence; "
        "choose a token: --token 0\n"
    )
    assert "spherical" in run(tmp_path / "s.parquet", "--row", 0, "--alternatives", "--token", 1)[1]


# The worst rows


@pytest.fixture
def scored_rows(tmp_path):
    """Return a file of a right row, a wrong row with escape sequences in its text, and one with a masked label."""
    path = tmp_path / "rows.parquet"
    texts = ["fine", "\x1b[2J" + "long " * 30, "last"]
    columns = {"logits": [[3.0, 0.0], [5.0, 0.0], [0.0, -math.inf]], "label": [0, 1, 1], "text": texts}
    pq.write_table(pa.table(columns), path)
    return path


def test_the_worst_rows_are_a_table(run, scored_rows):
    """The worst rows are listed by falling loss, with label, prediction and probabilities.

    Texts are truncated and escaped.
    """
    code, out, err = run(scored_rows, "--worst", 2)
    assert (code, err) == (0, "")
    assert [line.split()[:6] for line in out.splitlines()[3:5]] == [
        ["2", "1", "0", "0", "1", "inf"],
        ["1", "1", "0", "0.00669285", "0.993307", "5.00672"],
    ]
    assert "\x1b" not in out
    assert "\\x1b[2Jlong" in out
    assert "…" in out
    assert "fine" not in out


def test_columns_without_room_are_named(run, scored_rows):
    """In a narrow terminal, carried columns that don't fit are named below the table."""
    out = run(scored_rows, "--worst", 1, columns=45)[1]
    assert "not shown for lack of space: text" in out


def test_the_worst_rows_of_several_files_name_them(run, scored_rows, tmp_path):
    """With several files, rows have a file name, and row numbers count within each file."""
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"logits": [[9.0, 0.0]], "label": [1], "text": ["x"]}), other)
    found = json.loads(run(other, scored_rows, "--worst", 3, "--json")[1])
    assert [(row["file"], row["row"]) for row in found] == [
        (str(scored_rows), 2),
        (str(other), 0),
        (str(scored_rows), 1),
    ]
    assert found[0]["loss"] is None
    out = run(other, scored_rows, "--worst", 3)[1].splitlines()
    assert out[0] == str(tmp_path)
    assert [line.split()[0] for line in out[1:]] == ["file", out[2], "rows.parquet", "other.parquet", "rows.parquet"]


def test_the_worst_rows_become_a_file(run, scored_rows, tmp_path):
    """``-o`` writes the worst rows with all their columns.

    An existing file is only replaced with ``--if-exists overwrite``, and the input never is.
    """
    out = tmp_path / "worst.parquet"
    code, said, _ = run(scored_rows, "--worst", 2, "-o", out, "--columns", "text")
    assert code == 0
    assert "5" not in pq.read_table(out)["text"][1].as_py()
    assert pq.read_table(out).column_names == ["file", "row", "text", "label", "pred", "p_label", "p_pred", "loss"]
    assert [words[0] for words in map(str.split, said.splitlines())] == ["rows", "largest", "output"]
    before = out.read_bytes()
    assert run(scored_rows, "--worst", 1, "-o", out)[0] == 1
    assert out.read_bytes() == before
    assert run(scored_rows, "--worst", 1, "-o", out, "--if-exists", "overwrite", "-q")[:2] == (0, "")
    assert pq.read_table(out)["row"].to_pylist() == [2]
    assert run(scored_rows, "--worst", 1, "-o", scored_rows, "--if-exists", "overwrite")[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--worst", 0),
        ("--worst", 1, "--row", 1),
        ("--worst", 1, "--values", "1,2"),
        ("--worst", 1, "--beta", "1,2"),
        ("--worst", 1, "--alternatives"),
        ("--row", 1, "--alternatives", "--beta", "1,2"),
        ("--worst", 1, "--label", "none"),
        ("--worst", 1, "-o", "folder"),
        ("--worst", 1, "--if-exists", "overwrite"),
        ("--row", 1, "--columns", "text"),
        ("--row", 1, "--on-bad-row", "null"),
    ],
)
def test_what_cannot_be_asked_of_the_worst_rows_is_refused(run, scored_rows, words):
    """Contradicting options are one-line errors with exit code 2."""
    code, out, err = run(scored_rows, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_bytes_and_dates_are_text_in_json(run, tmp_path):
    """Carried values that JSON has no type for are text; bytes are base64, and NaN is null."""
    path = tmp_path / "odd.parquet"
    dates = pa.array([0], pa.date32())
    columns = {"logits": [[0.0, 1.0]], "label": [0], "raw": [b"\xff"], "day": dates}
    columns["deep"] = [{"x": [b"a"], "y": math.nan}]
    columns["at"] = pa.array([[1]], pa.list_(pa.timestamp("ns")))
    pq.write_table(pa.table(columns), path)
    (row,) = json.loads(run(path, "--worst", 1, "--json")[1])
    assert (row["raw"], row["day"], row["deep"]) == ("/w==", "1970-01-01", {"x": ["YQ=="], "y": None})
    assert row["at"] == ["1970-01-01 00:00:00.000000001"]
    assert "1970-01-01" in run(path, "--worst", 1)[1]

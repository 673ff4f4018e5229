"""Messages on stderr: colored labels and line breaks in a terminal, what ``-q`` hides, and their wording."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.messages import print_message, wrapped
from batchmax.cli.progress import COMPILING, TerminalProgress
from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.runtime import compilation
from tests.support.processes import HANGS
from tests.support.requirements import optional, package

special = package("scipy.special")
pl = optional("polars")

Z = np.random.default_rng(3).normal(size=(30, 3))
LABELS = np.random.default_rng(4).integers(0, 3, 30)


def write(path, z=Z, labels=LABELS, **columns):
    """Write logits and labels into a file, and return its path as text."""
    pq.write_table(pa.table({"logits": np.asarray(z).tolist(), "label": labels, **columns}), path)
    return str(path)


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Return a function that runs a command in an empty folder and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return run


# Terminals


@pytest.mark.parametrize("colored", [False, True])
def test_a_long_path_follows_the_label_once(monkeypatch, capsys, colored):
    """If the first word of a message is wider than the terminal, the label is still printed once."""
    monkeypatch.setattr("batchmax.cli.messages._is_terminal", lambda: True)
    monkeypatch.setattr("batchmax.cli.messages.has_colors", lambda: colored)
    monkeypatch.setenv("COLUMNS", "80")
    print_message(f"{'a' * 90}: not found", label="error")
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().err)
    assert shown == f"batchmax: error:\n  {'a' * 90}:\n  not found\n"


def test_lines_break_at_words_only():
    """Lines break at words and are at most as wide as the terminal; a longer word has its own line.

    Wide characters count as two columns.
    """
    text = f"batchmax: error: x.parquet: {'word ' * 30}and a path /{'very/' * 30}long"
    for width in (20, 40, 80, 200):
        lines = wrapped(text, width).split("\n")
        assert " ".join(line.strip() for line in lines) == text
        for line in lines:
            assert len(line) <= width or len(line.split()) == 1
    assert wrapped("a 漢字漢字", 8).split("\n") == ["a", "  漢字漢字"]


def in_terminal(words, folder, stream="stderr", **environment):
    """Return what a command prints on a stream that is a terminal of 60 columns, and its exit code."""
    main_end, other_end = pty.openpty()
    base = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "TERM"}}
    done = subprocess.Popen(
        [sys.executable, "-m", "batchmax", *words],
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: other_end},
        cwd=folder,
        env=base | {"COLUMNS": "60", "TERM": "xterm"} | environment,
    )
    os.close(other_end)
    shown = b""
    try:
        while part := os.read(main_end, 4096):
            shown += part
    except OSError:  # Linux raises EIO at the end
        pass
    os.close(main_end)
    return shown.decode().replace("\r\n", "\n"), done.wait(HANGS)


def test_errors_in_a_terminal_have_a_colored_label(tmp_path):
    """In a terminal the label is red and lines break at words.

    With ``NO_COLOR`` there are no colors; in a pipe the error is one line.
    """
    words = ["evaluate", "nothing.parquet", "--label", "x" * 50]
    shown, code = in_terminal(words, tmp_path)
    assert code == 1
    assert shown.startswith("batchmax: \x1b[31m\x1b[1merror:\x1b[0m nothing.parquet: ")
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= 60 for line in shown.split("\n"))
    plain, code = in_terminal(words, tmp_path, NO_COLOR="1")
    assert code == 1
    assert plain == re.sub(r"\x1b\[\d+m", "", shown)
    piped = subprocess.run(
        [sys.executable, "-m", "batchmax", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert piped.stderr == " ".join(line.strip() for line in plain.split("\n")).strip() + "\n"


@pytest.mark.parametrize(
    "words", ["show --values 1,2", "inspect x.parquet", "show x.parquet --worst 2", "compare x.parquet x.parquet"]
)
@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_results_have_styles_only_where_they_are_wanted(tmp_path, words, plain):
    """In a terminal results have bold text; with ``NO_COLOR`` and in a dumb terminal they have no escape sequences."""
    write(tmp_path / "x.parquet")
    shown, code = in_terminal(words.split(), tmp_path, "stdout")
    assert code == 0
    assert "\x1b[1m" in shown
    assert "\x1b" not in in_terminal(words.split(), tmp_path, "stdout", **plain)[0]


def test_kernels_that_are_compiled_are_named(capsys, monkeypatch):
    """While kernels are compiled, the progress line says so; afterwards it counts rows again.

    Without a running job nothing is printed.
    """
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with TerminalProgress() as progress:
        progress.start(10, 10)
        clock[0] = 61.0
        with compilation.compiling():
            progress.advance(0, 0)
        clock[0] = 122.0
        progress.advance(1, 1)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"batchmax: {COMPILING}")
    assert second.startswith("batchmax: 1 of 10 rows")
    with compilation.compiling():
        pass
    assert capsys.readouterr().err == ""


# -q


PROBS = special.softmax(Z, 1)


@pytest.mark.parametrize(
    "words",
    [
        "score p.parquet -o s.parquet",
        "evaluate p.parquet",
        "calibrate p.parquet -o c.json",
        "compare p.parquet p.parquet",
        "report p.parquet -o r.html",
        "show p.parquet --worst 3 -o w.parquet",
    ],
)
def test_quiet_hides_the_summary_and_no_warning(words, run, tmp_path):
    """``-q`` hides everything but warnings, such as that logits look like probabilities, in every command."""
    write(tmp_path / "p.parquet", PROBS)
    code, out, err = run(*words.split(), "-q")
    assert (code, out) == (0, "")
    assert re.fullmatch(r"(batchmax: warning: .*\n)+", err)
    assert "the rows look like probabilities" in err


@pytest.mark.parametrize(
    "words", ["show p.parquet --row 0 -q", "show --values 0.25,0.75 -q", "show s.parquet --row 0 -q"]
)
def test_a_row_that_looks_like_probabilities_is_warned_of(words, run, tmp_path):
    """``show`` warns if a row, a sequence or typed values look like probabilities."""
    write(tmp_path / "p.parquet", PROBS)
    sequences = {"logits": [PROBS[:4].tolist()], "label": [LABELS[:4].tolist()]}
    pq.write_table(pa.table(sequences), tmp_path / "s.parquet")
    code, _, err = run(*words.split())
    assert (code, err.count("look like probabilities")) == (0, 1)


def test_warnings_are_in_results(tmp_path):
    """Warnings are also in the results of functions; ``compare`` has those of both inputs."""
    path, good = write(tmp_path / "p.parquet", PROBS), write(tmp_path / "z.parquet")
    for found in (
        batchmax.evaluate(path),
        batchmax.calibrate(path),
        batchmax.report(path, tmp_path / "r.html"),
        batchmax.compare(path, good),
        batchmax.compare(good, path),
    ):
        assert sum("look like probabilities" in text for text in found.warnings) == 1
    assert [text[:3] for text in batchmax.compare(good, path).warnings] == ["b: "]


# Options


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "0", "-1", "1e-320", "1e301"])
@pytest.mark.parametrize(("option", "what"), [("--temperature", "out of range"), ("--beta", "out of range")])
def test_numbers_that_are_no_temperatures(option, what, value, run, tmp_path):
    """The error for an invalid temperature names the option, the number and the valid range."""
    write(tmp_path / "x.parquet")
    for words in (
        ["score", "x.parquet", "-o", "o.parquet"],
        ["evaluate", "x.parquet"],
        ["show", "x.parquet", "--row", "0"],
    ):
        code, _, err = run(*words, option, value)
        assert code == 2
        assert err.startswith(f"batchmax: error: {option}: {float(value)} is ")
        assert what in err
        assert "from 1e-300 to 1e+300" in err


def test_options_of_the_environment_do_not_contradict_those_that_were_typed(run, tmp_path, monkeypatch):
    """Options from the environment never contradict typed ones.

    Those that ``show`` doesn't use for a single row are ignored, and a typed temperature replaces one that is set.
    """
    write(tmp_path / "x.parquet")
    for name, value in (("MEMORY_LIMIT", "1GiB"), ("THREADS", "1"), ("ON_BAD_ROW", "null"), ("IF_EXISTS", "overwrite")):
        monkeypatch.setenv(f"BATCHMAX_SHOW_{name}", value)
    assert run("show", "x.parquet", "--row", "0")[0] == 0
    assert run("show", "x.parquet", "--worst", "2")[0] == 0
    assert run("show", "x.parquet", "--row", "0", "--memory-limit", "512MiB")[0] == 0
    code, _, err = run("show", "x.parquet", "--row", "0", "--on-bad-row", "null")
    assert (code, "--on-bad-row: this option applies only to --worst" in err) == (2, True)
    typed = json.loads(run("evaluate", "x.parquet", "--temperature", "2", "--json")[1])
    monkeypatch.setenv("BATCHMAX_EVALUATE_BETA", "7")
    assert (
        json.loads(run("evaluate", "x.parquet", "--temperature", "2", "--json")[1])["mean_loss"] == typed["mean_loss"]
    )
    assert json.loads(run("evaluate", "x.parquet", "--json")[1])["mean_loss"] != typed["mean_loss"]
    assert run("evaluate", "x.parquet", "--temperature", "2", "--beta", "1")[0] == 2


@pytest.mark.parametrize("label", [-1, -7])
def test_negative_labels_have_a_hint(label, run, tmp_path):
    """The error for a negative label suggests ``--ignore-index``, and with it the command succeeds.

    Labels that are too large have no such hint.
    """
    write(tmp_path / "x.parquet", labels=[label, *LABELS[1:]])
    code, _, err = run("evaluate", "x.parquet")
    assert code == 1
    assert f"label {label} is not a class: valid labels are 0 to 2; if it marks rows without a label" in err
    option = re.search(r"(--ignore-index) (-\d+)", err).groups()
    assert run("evaluate", "x.parquet", *option)[0] == 0
    write(tmp_path / "x.parquet", labels=[9, *LABELS[1:]])
    assert "--ignore-index" not in run("evaluate", "x.parquet")[2]


def test_names_in_metadata_of_another_number(run, tmp_path):
    """An error about class names from metadata names the metadata, not an option that wasn't given."""
    features = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    table = pa.table({"logits": Z.tolist(), "label": LABELS})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    code, _, err = run("evaluate", "x.parquet")
    assert code == 2
    assert "x.parquet: the Hugging Face ClassLabel of column 'label' has 2 class names, but the logits have 3" in err
    assert run("evaluate", "x.parquet", "--classes", "a,b,c")[0] == 0
    assert "x.parquet: --classes: 2 class names" in run("evaluate", "x.parquet", "--classes", "a,b")[2]


# compare


def test_columns_of_each_side_can_be_named(run, tmp_path):
    """``--logits-b``, ``--input-b`` and ``--label-b`` name the columns of the second input.

    Logits, their probabilities and their scored file compare as equal.
    """
    write(tmp_path / "a.parquet")
    pq.write_table(pa.table({"p": PROBS.tolist(), "y": LABELS}), tmp_path / "b.parquet")
    named = ["--logits-b", "p", "--input-b", "probs", "--label-b", "y"]
    found = json.loads(run("compare", "a.parquet", "b.parquet", "--logits", "logits", *named, "--json")[1])
    assert found["mean_loss_change"] == pytest.approx(0, abs=1e-12)
    assert found["mean_kl"] == pytest.approx(0, abs=1e-12)
    assert found["n_judged"] == 30
    code, _, err = run("compare", "a.parquet", "b.parquet", "--logits-b", "q")
    assert (code, "b.parquet: --logits-b: there is no column 'q'" in err) == (2, True)
    batchmax.score(tmp_path / "a.parquet", tmp_path / "s.parquet")
    for files in (("a.parquet", "s.parquet"), ("s.parquet", "a.parquet")):
        found = json.loads(run("compare", *files, "--json")[1])
        assert found["mean_loss_change"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("ids", "kind"), [(list(map(str, range(30))), "string"), ([b"a"] * 30, "binary")])
def test_keys_of_different_types_are_named(ids, kind, run, tmp_path):
    """The error for keys of different types has the types in both files."""
    write(tmp_path / "a.parquet", id=range(30))
    write(tmp_path / "b.parquet", id=ids)
    code, _, err = run("compare", "a.parquet", "b.parquet", "--key", "id")
    assert code == 2
    assert f"--key: column 'id' is int64 in a.parquet and {kind} in b.parquet, so no keys are equal" in err


def test_short_sequences_need_little_memory(run, tmp_path):
    """Ten sequences of four tokens and six classes fit into the smallest memory limit."""
    random = np.random.default_rng(0)
    logits = pa.array(random.normal(size=(10, 4, 6)).tolist(), pa.list_(pa.list_(pa.float32())))
    table = pa.table({"logits": logits, "label": random.integers(0, 6, (10, 4)).tolist()})
    pq.write_table(table, tmp_path / "s.parquet")
    for words in (
        ["compare", "s.parquet", "s.parquet"],
        ["evaluate", "s.parquet"],
        ["score", "s.parquet", "-o", "o.parquet"],
    ):
        assert run(*words, "--memory-limit", "256MiB")[0] == 0


# calibrate


def test_rows_that_are_all_held_out(run, tmp_path):
    """A single row is either held out or fitted to.

    The error or the warning says which, and suggests ``--holdout 0``.
    """
    seen = set()
    write(tmp_path / "x.parquet", Z[:1], LABELS[:1])
    words = ["calibrate", "x.parquet", "-o", "c.json", "--if-exists", "overwrite"]
    for seed in range(12):
        code, _, err = run(*words, "--holdout", "0.5", "--seed", seed)
        seen.add(code)
        if code:
            assert "there are no rows to fit to (1 ok, 1 held out)" in err
        else:
            assert "the only row was not held out, so there are no metrics before and after" in err
        assert "--holdout 0" in err
    assert seen == {0, 1}
    assert run(*words, "--holdout", "0")[0] == 0


@pytest.mark.parametrize(
    ("z", "labels", "what"),
    [
        (Z[:2], [None, -100], "there are no rows to fit to (1 ignored, 1 unlabelled)"),
        ([[-math.inf, 1.0, 0.0]] * 2, [0, 0], "there are no rows to fit to (2 masked_label)"),
        (np.zeros((0, 3)), [], "there are no rows"),
    ],
)
def test_why_there_is_nothing_to_fit_to(z, labels, what):
    """The error counts the rows by status."""
    table = pa.table(
        {"logits": pa.array(np.asarray(z).tolist(), pa.list_(pa.float64(), 3)), "label": pa.array(labels, pa.int64())}
    )
    with pytest.raises(DataError) as caught:
        batchmax.calibrate(table)
    assert what in caught.value.what


def test_messages_about_sequences_count_tokens(run, tmp_path):
    """For sequences, what is fitted to and held out are tokens, and the messages say so."""
    logits = Z[:5].tolist()
    pq.write_table(
        pa.table({"logits": [logits, logits[:2]], "label": [[0, 1, 2, 0, 1], [0, 2]]}), tmp_path / "x.parquet"
    )
    words = ["calibrate", "x.parquet", "-o", "c.json", "--if-exists", "overwrite"]
    shown = set()
    for seed in range(12):
        code, out, err = run(*words, "--holdout", "0.5", "--seed", seed)
        shown |= set(
            re.findall(r"none of the \d+ \w+ was|no \w+ to fit to|\d+ held-out \w+|fitted to \d+ \w+", out + err)
        )
        assert code == 0 or "no tokens to fit to" in err
    assert {"none of the 7 tokens was", "no tokens to fit to", "5 held-out tokens", "fitted to 2 tokens"} <= shown
    assert "unit" not in json.loads((tmp_path / "c.json").read_text())
    logits[0][0] = -math.inf
    pq.write_table(pa.table({"logits": [logits], "label": [[0, 1, 2, 0, 1]]}), tmp_path / "x.parquet")
    err = " ".join(run(*words, "--holdout", "0")[2].split())
    assert "1 token has an infinite loss at every temperature; the metrics leave it out" in err


def test_messages_about_one_row_use_the_singular(run, tmp_path):
    """A count of one is followed by a noun and a verb in the singular."""
    write(tmp_path / "one.parquet", [[-math.inf, 1.0, 0.0]], [0])
    write(tmp_path / "two.parquet", Z[:2], LABELS[:2])
    assert "1 row has an infinite loss" in run("evaluate", "one.parquet")[2]
    assert "1 row, but 2 in two.parquet" in run("compare", "one.parquet", "two.parquet")[2]
    assert "row 3 is out of range for 1 row" in run("show", "one.parquet", "--row", "3")[2]
    assert "  1 pair\n" in run("compare", "one.parquet", "one.parquet", "--label", "none")[1]


def test_rows_that_are_left_out_are_counted():
    """Rows with an infinite loss are left out, because it is infinite at any temperature; a warning counts them."""
    z = Z.copy()
    z[3, LABELS[3]] = z[7, LABELS[7]] = -np.inf
    found = batchmax.calibrate(pa.table({"logits": z.tolist(), "label": LABELS}), holdout=0.0)
    assert (found.infinite_losses, found.n_fit) == (2, 28)
    assert any("2 rows have an infinite loss" in text for text in found.warnings)


def test_vector_scaling_at_its_bound_is_told():
    """A warning says that scales or biases are at the bound of the search, as when every row is right."""
    z = np.random.default_rng(0).normal(size=(300, 3))
    labels = z.argmax(axis=1)
    found = batchmax.calibrate(pa.table({"logits": z.tolist(), "label": labels}), method="vector", holdout=0.0)
    at_bound = {round(value, 6) for value in (*found.scale, *map(abs, found.bias))} & {1e-3, 1e3}
    assert found.at_bound == bool(at_bound)
    assert at_bound
    assert any("at a bound of the search" in text for text in found.warnings)
    likely = (z + np.random.default_rng(1).gumbel(size=z.shape)).argmax(axis=1)  # labels drawn from the softmax
    usual = batchmax.calibrate(pa.table({"logits": z.tolist(), "label": likely}), method="vector", holdout=0.0)
    assert not usual.at_bound
    assert usual.warnings == []


# Python


INPUTS = {
    "an array": lambda: np.zeros((2, 2)),
    "a dictionary": lambda: {"logits": [[1.0, 2.0]], "label": [0]},
    "a lazy frame": lambda: pl.DataFrame({"logits": [[1.0, 2.0]]}).lazy(),
    "a number": lambda: 5,
    "a list of numbers": lambda: [5],
    "a list of arrays": lambda: [np.zeros(2)],
    "bytes": lambda: b"x",
    "nothing": lambda: None,
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_other_types_are_type_errors(name, tmp_path):
    """Functions that read rows raise TypeError for other inputs, with the types that they accept."""
    given = INPUTS[name]()
    for run in (
        batchmax.evaluate,
        batchmax.scan,
        batchmax.calibrate,
        lambda src: batchmax.score(src, tmp_path / "o.parquet"),
        lambda src: batchmax.compare(src, src),
        lambda src: batchmax.report(src, tmp_path / "r.html"),
        lambda src: batchmax.worst_rows(src, 1),
        lambda src: batchmax.convert(src, tmp_path / "c.parquet", "wide"),
    ):
        with pytest.raises(TypeError, match=r"not supported; give paths, or tables and readers") as caught:
            run(given)
        assert isinstance(caught.value, BatchmaxError)
        assert caught.value.exit_code == 2


def test_convert_takes_options_as_keywords(tmp_path):
    """``convert`` has the keyword arguments of ``score``."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"logits": [[1.0, 2.0], [1.0], [3.0, 4.0]]}), path)
    found = batchmax.convert(path, tmp_path / "w.parquet", "wide", on_bad_row="drop")
    assert (found.n_rows, found.bad_rows) == (3, 1)
    batchmax.convert(path, tmp_path / "w.parquet", "wide", on_bad_row="null", if_exists="overwrite")
    assert pq.read_table(tmp_path / "w.parquet")["logit_0"].to_pylist() == [1.0, None, 3.0]
    with pytest.raises(UsageError, match="is not a valid choice"):
        batchmax.convert(path, tmp_path / "v.parquet", "tall")
    with pytest.raises(UsageError, match="unknown option 'nonsense'"):
        batchmax.convert(path, tmp_path / "v.parquet", "wide", nonsense=1)


def test_a_folder_called_tilde_is_a_folder(run, tmp_path):
    """Every command takes ``~`` in a path literally."""
    (tmp_path / "~").mkdir()
    write(tmp_path / "~" / "x.parquet")
    for words in (
        "score ~ -o ~/s.parquet",
        "verify ~/s.parquet ~/x.parquet",
        "inspect ~/s.parquet",
        "evaluate ~/x.parquet",
        "compare ~/x.parquet ~/s.parquet",
        "show ~/x.parquet --row 1",
        "calibrate ~/x.parquet -o ~/c.json",
        "score ~/x.parquet -o ~/t.parquet --calibration ~/c.json",
        "report ~/x.parquet -o ~/r.html",
        "convert ~/x.parquet -o ~/w.parquet --layout wide",
    ):
        assert run(*words.split())[0] == 0, words
    assert len(list((tmp_path / "~").iterdir())) == 6

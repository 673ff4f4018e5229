"""``batchmax compare``: its tables, JSON, exit codes and gates."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax


@pytest.fixture
def run(run):
    """Return a function that runs ``compare`` at a terminal width and returns exit code, stdout and stderr."""
    return functools.partial(run, "compare", columns=120)


@pytest.fixture
def files(tmp_path):
    """Return two files of the same four rows, the second in reverse order.

    From the first file to the second, one row becomes wrong and one becomes right.
    """
    a = [[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]]
    b = [[0.0, 2.0], [1.0, 0.0], [3.0, 0.0], [0.0, 0.5]]
    paths = []
    for name, logits, order in (("a", a, [0, 1, 2, 3]), ("b", b, [3, 2, 1, 0])):
        table = pa.table({"name": ["w", "x", "y\x1b[2J", "z"], "logits": logits, "label": [0, 0, 0, 1]})
        paths.append(str(tmp_path / f"{name}.parquet"))
        pq.write_table(table.take(pa.array(order)), paths[-1])
    return paths


def test_figures_for_people(run, files):
    """The table lists both inputs, the change with its interval, flips, and the rows that changed most."""
    code, out, err = run(*files, "--key", "name")
    assert (code, err) == (0, "")
    facts = dict(line.split(None, 1) for line in out[: out.index("changes, with")].splitlines() if line)
    assert facts["A"] == files[0]
    assert facts["rows"] == "4 pairs by name"
    assert facts["accuracy"] == "0.75 → 0.75  (0)"
    assert facts["flips"] == "1 right → wrong, 1 wrong → right"
    assert facts["McNemar"] == "p = 1 (exact)"
    assert facts["agreement"] == "50 % of predictions"
    changes = out[out.index("changes, with 95 % intervals") : out.index("largest changes")].splitlines()
    assert changes[1].split() == ["metric", "A", "B", "change", "lower", "upper", "p", "mde"]
    assert next(line for line in changes if line.startswith("accuracy")).split()[1:4] == ["0.75", "0.75", "0"]
    moved = out[out.index("largest changes") :].splitlines()
    assert moved[1].split() == [
        "row",
        "row",
        "b",
        "key",
        "label",
        "pred",
        "a",
        "pred",
        "b",
        "loss",
        "a",
        "loss",
        "b",
        "kl",
    ]
    assert [line.split()[:6] for line in moved[3:]] == [["0", "3", "w", "0", "0", "1"], ["1", "2", "x", "0", "1", "0"]]


def test_counts_of_what_was_left_out(run, files, tmp_path):
    """Unpaired rows, bad rows and rows with a label are counted.

    Escape sequences in keys don't reach the terminal.
    """
    table = pq.read_table(files[0])
    logits, labels = table["logits"].to_pylist(), [0, None, 1, 1]
    other = str(tmp_path / "other.parquet")
    names = pa.array(["w", "x", "y\x1b[2J", "v"])
    pq.write_table(pa.table({"name": names, "logits": logits, "label": labels}), other)
    out = run(files[0], other, "--key", "name", "--labels-from", "b")[1]
    assert "rows          3 pairs by name, 1 only in A, 1 only in B, 2 with a label" in out
    assert "\x1b" not in out
    logits[0] = None
    pq.write_table(pa.table({"name": names, "logits": logits}), other)
    out = run(other, files[0], "--on-bad-row", "null", "--label", "none")[1]
    assert "rows          4 pairs, 1 left out because a row is bad" in out
    assert "losses        none, because there are no labels" in out


def test_json_is_the_result(run, files):
    """``--json`` prints the function's result on one line, and nothing else."""
    code, out, err = run(*files, "--key", "name", "--json", "--worst", 1)
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    wanted = batchmax.compare(*files, key="name", worst=1).as_dict()
    assert {**found, "seconds": 0} == {**wanted, "seconds": 0}
    assert set(found["moved"][0]) == {
        "file", "row", "file_b", "row_b", "key", "label", "pred_a", "pred_b", "loss_a", "loss_b", "kl",
    }  # fmt: skip


def test_a_true_condition_ends_with_4(run, files):
    """A gate that fails exits with 4; the table is printed all the same, but ``--json`` prints only the error."""
    code, out, err = run(*files, "--key", "name", "--fail-if", "right_to_wrong > 0")
    assert (code, err.count("\n")) == (4, 1)
    assert "right_to_wrong is 1" in err
    assert "largest changes" in out
    code, out, err = run(*files, "--key", "name", "--fail-if", "right_to_wrong > 0", "--json")
    assert (code, list(json.loads(out))) == (4, ["error"])
    assert run(*files, "--key", "name", "--fail-if", "right_to_wrong > 1", "-q") == (0, "", "")


def test_it_says_what_is_done_to_those_who_ask(run, files):
    """``-v`` prints the columns of both inputs and how rows were paired."""
    err = run(*files, "--key", "name", "-v")[2]
    assert "note: a: logits: column 'logits'" in err
    assert "note: b: labels: column 'label'" in err
    assert "so 4 rows are kept" in err


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--key", "nmae"], 2, "did you mean 'name'"),
        (["--fail-if", "kl > 1"], 2, "unknown metric 'kl'"),
        (["--worst", "-1"], 2, "less than 0"),
        (["--labels-from", "c"], 2, "--labels-from"),
        ([], 1, "a different label"),
        (["--limit", "0"], 0, ""),
    ],
)
def test_failures_are_one_line(run, files, words, code, what):
    """Invalid options and labels that differ are one-line errors; an empty input isn't an error."""
    got, _, err = run(*files, *words)
    assert got == code
    assert what in err
    assert err.count("\n") == (code != 0)


def test_rows_of_folders_name_their_files(run, tmp_path):
    """With several files, rows have a file name, and row numbers count within each file."""
    rng = np.random.default_rng(0)
    for side in "ab":
        (tmp_path / side).mkdir()
        for part in range(3):
            table = pa.table({"logits": list(rng.standard_normal((5, 3))), "label": [0] * 5})
            pq.write_table(table, tmp_path / side / f"{part}.parquet")
    code, out, _ = run(tmp_path / "a", tmp_path / "b", columns=200)
    assert code == 0
    assert "0.parquet and 2 more" in out
    found = json.loads(run(tmp_path / "a", tmp_path / "b", "--json", "--worst", 15)[1])["moved"]
    assert sorted((row["file"], row["row"]) for row in found) == [
        (str(tmp_path / "a" / f"{part}.parquet"), row) for part in range(3) for row in range(5)
    ]
    assert all(row["file_b"] == row["file"].replace("/a/", "/b/") for row in found)


def test_messages_about_b_name_the_options_of_b(run, tmp_path, monkeypatch):
    """Errors, notes and warnings about the second input advise ``--logits-b``, ``--input-b`` and ``--label-b``.

    An option that was given for both inputs keeps its name where it is wrong, and the remedy is the option of b alone.
    """
    random = np.random.default_rng(3)
    z, labels = random.normal(size=(30, 3)), random.integers(0, 3, 30)
    probs = (np.exp(z) / np.exp(z).sum(1, keepdims=True)).tolist()
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"logits": z.tolist(), "label": labels}), "a.parquet")
    rows = {"z": z.tolist(), "y": z.tolist(), "label": labels}
    pq.write_table(pa.table(rows), "two.parquet")
    pq.write_table(pa.table({"logits": probs, "label": labels}), "unnamed.parquet")
    pq.write_table(pa.table({"probs": probs, "label": labels}), "probs.parquet")
    pq.write_table(pa.table({"logits": z.tolist(), "label": [str(at) for at in labels]}), "text.parquet")

    def told(*words):
        _, _, err = run("a.parquet", *words)
        return " ".join(err.split())

    assert "choose one: --logits-b NAME" in told("two.parquet")
    assert "two.parquet: --logits: there is no column 'logits'" in told("two.parquet", "--logits", "logits")
    assert "; if they are logits: --input-b logits" in told("probs.parquet", "-v")
    assert "b: the rows look like probabilities; if they are: --input-b probs" in told("unnamed.parquet")
    assert "--label-b" in told("text.parquet")
    for words in (["two.parquet"], ["probs.parquet", "-v"], ["unnamed.parquet"], ["text.parquet"]):
        assert not re.search(r"--(logits|input|label)(?![\w-])", told(*words)), words


def test_multi_label_rows(run, tmp_path):
    """Tables show the changes of multi-label metrics and of each label, the worst first, and sets of classes."""
    random = np.random.default_rng(0)
    z = 2 * random.normal(size=(300, 3))
    y = random.random(z.shape) < 1 / (1 + np.exp(-z))
    b = z.copy()
    b[:, 1] = random.normal(size=300)
    labels = [[name for name, has in zip(("cat", "dog", "car"), row, strict=True) if has] for row in y]
    paths = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    pq.write_table(pa.table({"logits": list(z), "labels": labels, "site": ["x", "y"] * 150}), paths[0])
    pq.write_table(pa.table({"logits": list(b)}), paths[1])
    code, out, err = run(*paths, "--classes", "cat,dog,car", "--by", "site", "--worst", "2")
    assert (code, err) == (0, "")
    assert re.search(r"agreement +[0-9.]+ % of rows have the same predicted labels", out)
    lines = [line.split() for line in out.splitlines()]
    assert {"subset", "Hamming", "LRAP", "micro"} <= {words[0] for words in lines if words}
    for heading in ("change of F1 by class, worst first", "change of AUROC by class, worst first"):
        table = lines[out.splitlines().index(heading) + 3 :][:3]
        assert (table[0][0], table[0][-1]) == ("dog", "worse")
        assert {words[0] for words in table} == {"cat", "dog", "car"}
    assert "change of macro AUROC by site" in out
    moved = json.loads(run(*paths, "--classes", "cat,dog,car", "--worst", "1", "--json")[1])["moved"][0]
    text = ", ".join(moved["label"]) or "none"
    assert text in out[out.index("largest changes") :]
    code, out, err = run(*paths, "--label", "none", "--activation", "sigmoid")
    assert (code, err) == (0, "")
    assert "none, because there are no labels" in out

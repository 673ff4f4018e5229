"""Columns of probabilities as inputs: outputs of ``score``, and columns recognized by name."""

from __future__ import annotations

import json
import math
import shlex
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import UsageError
from tests.support.requirements import optional, package

duckdb = optional("duckdb")
special = package("scipy.special")
softmax, log_softmax = special.softmax, special.log_softmax

Z = np.random.default_rng(5).normal(size=(40, 4)) * 2
LABELS = np.random.default_rng(6).integers(0, 4, 40)
NLL = -log_softmax(Z, axis=1)[np.arange(40), LABELS]


def lists(matrix, kind=None):
    """Return a matrix as a column of lists of float64."""
    return pa.array(np.asarray(matrix).tolist(), kind or pa.list_(pa.float64()))


def table(**columns):
    """Return columns with the labels added."""
    return pa.table({**columns, "label": LABELS})


NAMED = {
    "probs": {"probs": lists(softmax(Z, 1))},
    "log_probs": {"log_probs": lists(log_softmax(Z, 1))},
    "both": {"log_probs": lists(log_softmax(Z, 1)), "probs": lists(softmax(Z, 1))},
}
"""Columns whose names say what they hold."""

READERS = {
    "evaluate": lambda src, **given: batchmax.evaluate(src, **given).mean_loss,
    "calibrate": lambda src, **given: batchmax.calibrate(src, holdout=0.0, **given).nll_before,
    "compare": lambda src, **given: (
        batchmax.compare(
            src, table(logits=lists(Z)), **given, **({"logits_b": "logits", "input_b": "logits"} if given else {})
        ).mean_loss_a
    ),
    "worst_rows": lambda src, **given: np.mean(batchmax.worst_rows(src, 40, **given)["loss"].to_pylist()),
    "scan": lambda src, **given: np.mean(batchmax.scan(src, outputs="loss", **given).read_all()["loss"].to_pylist()),
    "score_batch": lambda src, **given: np.mean(batchmax.score_batch(src, outputs="loss", **given)["loss"].to_pylist()),
}
"""The mean loss of rows, as each function computes it."""


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("reader", READERS)
def test_names_say_what_columns_hold(reader, kind):
    """Columns named probs or log_probs are read as such: the losses equal those of the logits."""
    assert READERS[reader](table(**NAMED[kind])) == pytest.approx(NLL.mean(), rel=1e-9)


@pytest.mark.parametrize("reader", READERS)
def test_what_was_asked_for_holds(reader):
    """``--input logits`` reads a column named probs as logits; ``--logits`` alone doesn't."""
    rows = table(**NAMED["probs"])
    again = -log_softmax(softmax(Z, 1), axis=1)[np.arange(40), LABELS].mean()
    assert READERS[reader](rows, input="logits") == pytest.approx(again, rel=1e-9)
    assert READERS[reader](rows, logits="probs") == pytest.approx(NLL.mean(), rel=1e-9)
    assert READERS[reader](rows, logits="probs", input="logits") == pytest.approx(again, rel=1e-9)


def test_logits_come_before_probabilities():
    """If there are logits and probabilities, the logits are read; ``--input probs`` selects the probabilities."""
    rows = table(logits=lists(Z * 3), probs=lists(softmax(Z, 1)))
    tripled = -log_softmax(Z * 3, axis=1)[np.arange(40), LABELS].mean()
    assert batchmax.evaluate(rows).mean_loss == pytest.approx(tripled, rel=1e-9)
    assert batchmax.evaluate(rows, input="probs").mean_loss == pytest.approx(NLL.mean(), rel=1e-9)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "name", ["top_logprobs", "probabilities", "token_logprobs", "softmax_out", "sigmoid", "confidence", "losses"]
)
def test_doubtful_names_are_not_taken_unasked(name, reader):
    """A column whose name doesn't suggest logits must be given with ``--logits``."""
    rows = table(**{name: lists(Z)})
    with pytest.raises(UsageError, match=f"--logits {name} --input") as caught:
        READERS[reader](rows)
    assert name in caught.value.what
    assert READERS[reader](rows, logits=name) == pytest.approx(NLL.mean(), rel=1e-9)


def test_probabilities_beside_another_candidate_are_not_taken_unasked():
    """Two candidate columns are ambiguous, and the input is refused."""
    with pytest.raises(UsageError, match="2 columns could be the logits"):
        batchmax.evaluate(table(probs=lists(softmax(Z, 1)), scores=lists(Z)))


def write(path, **given):
    """Score the logits into a file, and return its path as text."""
    batchmax.score(table(logits=lists(Z)), path, **given)
    return str(path)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"outputs": "log_probs"},
        {"outputs": "probs"},
        {"layout": "wide"},
        {"layout": "wide", "prefix": "p_"},
        {"prefix": "p_", "outputs": "probs,loss,entropy,status", "top_k": 2},
        {"columns": "*"},
        {"outputs": "log_probs,probs,loss", "columns": "*", "layout": "wide"},
        {"label_smoothing": 0.1},
        {"class_weights": [1.0, 2.0, 3.0, 4.0]},
    ],
    ids=str,
)
@pytest.mark.parametrize("reader", [name for name in READERS if name != "score_batch"])
def test_outputs_of_score_are_recognized(reader, given, tmp_path):
    """The probabilities in an output of ``score`` are found in every layout; the losses equal those of the logits."""
    path = write(tmp_path / "s.parquet", **given)
    more = {"columns": ()} if reader == "scan" else {}
    assert READERS[reader](path, **more) == pytest.approx(NLL.mean(), rel=1e-6)


def test_outputs_of_score_in_memory_are_recognized(tmp_path):
    """A table that was read from an output keeps the metadata that says what its columns hold."""
    read = pq.read_table(write(tmp_path / "s.parquet", prefix="p_"))
    assert batchmax.evaluate(read).mean_loss == pytest.approx(NLL.mean(), rel=1e-6)
    with pytest.raises(UsageError, match=r"column 'p_loss' holds loss, which score computed"):
        batchmax.evaluate(read, logits="p_loss")


def test_labels_of_a_class_label_whose_names_are_numbers(tmp_path):
    """A ClassLabel of Hugging Face is a class index, also in an output of ``score``, even if its names are numbers."""
    features = {"label": {"_type": "ClassLabel", "names": ["3", "1", "0", "2"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    said = batchmax.score(table(logits=lists(Z)).replace_schema_metadata(metadata), tmp_path / "s.parquet")
    found = batchmax.evaluate(str(tmp_path / "s.parquet"))
    assert (found.accuracy, found.mean_loss) == (said.accuracy, pytest.approx(NLL.mean(), rel=1e-6))
    assert found.classes == ["3", "1", "0", "2"]
    named = batchmax.evaluate(table(logits=lists(Z)), classes=["3", "1", "0", "2"])
    assert named.accuracy != said.accuracy


def test_a_note_says_what_was_assumed(tmp_path, capsys):
    """Every command prints a note on how it interprets a column, also without ``-v``, unless ``--input`` is given."""
    path = tmp_path / "p.parquet"
    pq.write_table(table(**NAMED["probs"]), path)
    for words in ("evaluate", "calibrate -o c.json --holdout 0", "show --worst 3", "compare"):
        name, *rest = words.split()
        if "-o" in rest:
            rest[rest.index("-o") + 1] = str(tmp_path / "c.json")
        files = [str(path)] * (2 if name == "compare" else 1)
        assert main([name, *files, *rest]) == 0
        assert "input: column 'probs' holds probabilities, by the name" in capsys.readouterr().err
        if "-o" in rest:
            (tmp_path / "c.json").unlink()
        assert main([name, *files, *rest, "--input", "probs"]) == 0
        assert capsys.readouterr().err == ""


# Other activations


OTHERS = ("argmax", "sum", "taylor", "spherical")


@pytest.mark.parametrize("activation", OTHERS)
@pytest.mark.parametrize("columns", [None, "*"])
def test_distributions_of_other_activations_are_read(activation, columns, tmp_path):
    """Outputs of other activations that sum to 1 are evaluated with the accuracy and loss that ``score`` reports.

    The same holds if the output has the logits as well. ``calibrate`` refuses such outputs.
    """
    rows = table(logits=lists(np.abs(Z) + 0.1))
    given = {} if activation == "argmax" else {"loss": "cross_entropy"}
    path = tmp_path / "s.parquet"
    said = batchmax.score(rows, path, activation=activation, columns=columns, **given)
    found = batchmax.evaluate(str(path))
    assert found.accuracy == said.accuracy
    if activation != "argmax":
        assert found.mean_loss == pytest.approx(said.mean_loss, rel=1e-6)
    with pytest.raises(UsageError, match=f"{activation} probabilities, which score computed"):
        batchmax.calibrate(str(path))


SIGMOID = pa.table({"logits": [[0.0, 1.0], [0.0, -1.0], [0.0, 2.0]], "label": [1, 0, 0]})
# Of each class: log(1 + exp(-z)) if it is the label, log(1 + exp(z)) if it isn't.
SIGMOID_LOSS = np.mean([math.log1p(math.exp(s)) + math.log(2) for s in (-1.0, -1.0, 2.0)])


def test_probabilities_of_sigmoid_are_refused(tmp_path):
    """All commands refuse outputs of sigmoid as distributions; the error names the column of losses."""
    path, page, first = tmp_path / "s.parquet", tmp_path / "r.html", tmp_path / "first.parquet"
    assert batchmax.score(SIGMOID, path, activation="sigmoid").mean_loss == pytest.approx(SIGMOID_LOSS)
    for run in (
        *(READERS[name] for name in READERS if name != "score_batch"),
        lambda src: batchmax.compare(SIGMOID, src),
        lambda src: batchmax.report(src, page),
        lambda src: batchmax.score(src, tmp_path / "again.parquet"),
        lambda src: batchmax.evaluate(src, logits="probs"),
        lambda src: batchmax.evaluate(src, logits="probs", input="probs"),
        lambda src: batchmax.evaluate(pq.read_table(src)),
        lambda src: batchmax.evaluate([write(first, if_exists="overwrite"), src]),
    ):
        with pytest.raises(UsageError, match=r"--activation sigmoid .* the losses are in column 'loss'"):
            run(str(path))


def test_logits_in_outputs_of_sigmoid_are_read_with_sigmoid(tmp_path):
    """If an output of sigmoid has the logits, commands compute sigmoid."""
    path = str(tmp_path / "s.parquet")
    batchmax.score(SIGMOID, path, activation="sigmoid", columns="*")
    for given in ({}, {"logits": "logits"}):
        assert batchmax.evaluate(path, **given).mean_loss == pytest.approx(SIGMOID_LOSS)
        again = batchmax.score(path, tmp_path / "again.parquet", prefix="p_", if_exists="overwrite", **given)
        assert again.mean_loss == pytest.approx(SIGMOID_LOSS)
    assert batchmax.calibrate(path, holdout=0).nll_before == pytest.approx(SIGMOID_LOSS)
    assert batchmax.worst_rows(path, 3)["loss"].to_pylist()[0] == pytest.approx(math.log1p(math.e**2) + math.log(2))
    assert batchmax.compare(path, path).mean_loss_b == pytest.approx(SIGMOID_LOSS)
    plain = batchmax.evaluate(SIGMOID).mean_loss
    assert batchmax.evaluate(path, logits="logits", activation="softmax").mean_loss == pytest.approx(plain)
    first = write(tmp_path / "first.parquet", if_exists="overwrite", columns="*")
    with pytest.raises(UsageError, match=r"s\.parquet: the activation is sigmoid, but softmax in"):
        batchmax.evaluate([first, path])


def test_files_that_hold_different_things_are_refused(tmp_path):
    """A column with probabilities in one file and logits in another isn't read as one input."""
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    batchmax.score(table(logits=lists(Z)), a, outputs="probs")
    pq.write_table(table(probs=lists(softmax(Z, 1))), b)
    assert batchmax.evaluate([str(a), str(b)]).n_rows == 80
    # A file of logits in a column named probs, which was scored as logits.
    kept = pa.table({"probs": lists(Z), "label": LABELS})
    batchmax.score(kept, tmp_path / "c.parquet", columns="*", logits="probs", input="logits", prefix="p_")
    with pytest.raises(UsageError, match=r"b.parquet: the logits column holds probabilities, but logits in"):
        batchmax.evaluate([str(tmp_path / "c.parquet"), str(b)])


@pytest.mark.parametrize("entry", ["scan", "table", "batch"])
def test_results_of_python_functions_describe_themselves(entry):
    """Results of ``scan`` and ``score_batch`` are used as what they are, as files are: sigmoid outputs are refused."""
    table = pa.table({"logits": [[0.0, 1.0], [0.0, -1.0], [0.0, 2.0]], "label": [1, 0, 0]})

    def scored(**options):
        if entry == "scan":
            return batchmax.scan(table, **options)
        if entry == "table":
            return batchmax.score_batch(table, **options)
        return pa.table(batchmax.score_batch(table.to_batches()[0], **options))

    assert batchmax.evaluate(scored()).mean_loss == pytest.approx(batchmax.evaluate(table).mean_loss, rel=1e-7)
    with pytest.raises(UsageError, match="computed with --activation sigmoid"):
        batchmax.evaluate(scored(activation="sigmoid"))


# Suggestions of inspect


def sequences():
    """Return the rows as sequences of ten tokens."""
    return pa.table({"logits": Z.reshape(4, 10, 4).tolist(), "label": LABELS.reshape(4, 10).tolist()})


KINDS = {
    "logits": lambda: table(logits=lists(Z)),
    "wide": lambda: table(**{f"logit_{k}": Z[:, k] for k in range(4)}),
    "sequences": sequences,
    **{name: (lambda name=name: table(**NAMED[name])) for name in NAMED},
    "labels 1 to K": lambda: pa.table({"logits": lists(Z), "label": LABELS + 1}),
    "labels 1 to K, many": lambda: pa.table({"logits": lists(5 * np.eye(12)), "label": range(1, 13)}),
    "labels 1 to K, of sequences": lambda: sequences().set_column(
        1, "label", pa.array((LABELS + 1).reshape(4, 10).tolist())
    ),
    "label -1": lambda: pa.table({"logits": lists(Z), "label": [-1, *LABELS[1:]]}),
    "label -1, and 1 to K": lambda: pa.table({"logits": lists(Z), "label": [-1, *(LABELS[1:] + 1)]}),
    "no labels": lambda: pa.table({"logits": lists(Z)}),
    "a column in the way": lambda: table(logits=lists(Z), loss=NLL, probs=lists(softmax(Z, 1))),
}
SCORED = {
    "scored": {},
    "scored, wide": {"layout": "wide"},
    "scored, losses alone": {"outputs": "loss"},
    "scored, without labels": {"label": "none"},
    "scored with sigmoid": {"activation": "sigmoid"},
    "scored with taylor": {"activation": "taylor"},
    "scored, all columns": {"columns": "*"},
}


@pytest.mark.parametrize("kind", [*KINDS, *SCORED, "scored sequences"])
def test_every_suggested_command_runs_and_is_right(kind, tmp_path, capsys, monkeypatch):
    """The command that ``inspect`` suggests succeeds without a warning, and its losses equal those of the logits."""
    monkeypatch.chdir(tmp_path)
    if kind in SCORED:
        batchmax.score(table(logits=lists(Z)), "it's.parquet", **SCORED[kind])
    elif kind == "scored sequences":
        batchmax.score(sequences(), "it's.parquet")
    else:
        pq.write_table(KINDS[kind](), "it's.parquet")
    (tmp_path / "scored.parquet").write_text("this name is taken")
    assert main(["inspect", "it's.parquet", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    command = facts["command"]
    if " && " in command:
        first, command = command.split(" && ")
        subprocess.run(["bash", "-c", first], check=True)
    words = shlex.split(command)
    assert words[:2] == ["batchmax", facts["task"]]
    assert main([*words[1:], "--json"]) == 0
    out, err = capsys.readouterr()
    assert "warning" not in err
    found = json.loads(out)
    if facts["task"] == "verify":
        assert found["n_rows"] == 40
    elif kind == "labels 1 to K, many":
        assert found["mean_loss"] == pytest.approx(-log_softmax(5 * np.eye(12), axis=1)[0, 0])
    elif kind == "no labels":
        assert found["mean_loss"] is None
    elif kind == "scored with taylor":
        assert found["accuracy"] is not None
    else:
        expected = NLL[1:] if kind.startswith("label -1") else NLL
        assert found["mean_loss"] == pytest.approx(expected.mean(), rel=1e-6)


NAN = float("nan")
MULTI_HOT = [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
NULLS = ["--on-bad-row", "null"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": MULTI_HOT}, ["--activation", "sigmoid"]),
        ({"label": [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]}, []),
        ({"label": [[5.0, 0.5], [0.0, 1.0], [1.0, 0.0]]}, NULLS),
        ({"label": [0, 1, None]}, []),
        ({"logits": [[0.0, 1.0], [0.0, NAN], [1.0, 1.0]]}, NULLS),
        ({"logits": [None, [0.0, 1.0], [1.0, 1.0]]}, NULLS),
        ({"logits": [[0.0, 1.0], [0.0], [1.0, 1.0]]}, NULLS),
        ({"logits": [None, [0.0, 1.0], [1.0, 1.0]], "label": MULTI_HOT}, ["--activation", "sigmoid", *NULLS]),
        ({"logits": [[[0.0, 1.0]], None, [[1.0, NAN]]], "label": [[0], [1], [0]]}, NULLS),
        ({"label": [1, 2, 2]}, ["--classes", "1,2"]),
    ],
)
def test_commands_for_the_first_rows(columns, words, tmp_path, capsys, monkeypatch):
    """The suggested command has options for rows near the start of a file that would stop it, and runs."""
    monkeypatch.chdir(tmp_path)
    given = {"logits": [[0.0, 1.0]] * 3, "label": [0, 1, 0]} | columns
    pq.write_table(pa.table(given), "x.parquet", write_statistics=False)
    assert main(["inspect", "x.parquet", "--json"]) == 0
    command = shlex.split(json.loads(capsys.readouterr().out)["command"])
    assert command == ["batchmax", "score", "x.parquet", "-o", "scored.parquet", *words]
    assert main(command[1:]) == 0


def test_the_command_for_bad_rows_of_an_output(tmp_path, capsys, monkeypatch):
    """``evaluate`` is suggested with an option for the rows of a scored file that have no results."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"logits": [[0.0, 1.0], [0.0, NAN]], "label": [0, 1]}), "x.parquet")
    batchmax.score("x.parquet", "scored.parquet", on_bad_row="null")
    assert main(["inspect", "scored.parquet", "--json"]) == 0
    command = shlex.split(json.loads(capsys.readouterr().out)["command"])
    assert command == ["batchmax", "evaluate", "scored.parquet", *NULLS]
    assert main(command[1:]) == 0


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"logits": lists(Z), "label": [9, *LABELS[1:]]}, "label 9 is not a class: valid labels are 0 to 3"),
        ({"top_logprobs": lists(Z), "label": LABELS}, "does not suggest logits"),
    ],
)
def test_nothing_is_suggested_that_fails(columns, what, tmp_path, capsys):
    """If no command would be right, ``inspect`` gives a reason and no command."""
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert main(["inspect", str(tmp_path / "x.parquet"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["command"] is None
    assert what in facts["problem"]


def test_flags_are_suggested_as_flags(tmp_path, capsys):
    """``inspect --shift`` suggests ``--shift`` without a value."""
    pq.write_table(sequences(), tmp_path / "x.parquet")
    assert main(["inspect", str(tmp_path / "x.parquet"), "--shift", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)["command"]
    assert command.endswith(" --shift")

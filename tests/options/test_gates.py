"""Tests conditions such as ``--fail-if 'mean_loss > 1.2'``: their syntax, and that a missing value fails the gate."""

from __future__ import annotations

import math
import re
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import GateError, UsageError
from batchmax.evaluation.comparison.result import COMPARISON_NAMES
from batchmax.evaluation.result import EVALUATION_GATES
from batchmax.options.gates import SCORE_FIGURES, Figure, Gate, figure

INF, NAN = math.inf, math.nan
OF_TOKENS = {
    *("n_tokens", "bits_per_token", "bits_per_token.lower", "bits_per_token.upper", "bits_per_byte"),
    *("tokens_only_a", "tokens_only_b"),
}

SITUATIONS = ("no rows", "all rows bad", "all labels ignored", "one infinite value", "one NaN")
GOOD = [[2.0, 1.0, 0.0], [0.0, 1.0, -1.0], [0.5, 0.0, 3.0]]


def rows_of(situation):
    """Return three rows of logits and labels for a situation; a masked label gives an infinite loss."""
    logits, labels = [list(row) for row in GOOD], [0, 1, 2]
    if situation == "no rows":
        logits, labels = [], []
    if situation == "all rows bad":
        logits = [[NAN] * 3] * 3
    if situation == "all labels ignored":
        labels = [-100] * 3
    if situation == "one infinite value":
        logits[0] = [-INF, 1.0, 0.0]
    if situation == "one NaN":
        logits[1] = [0.0, NAN, 0.0]
    return pa.table({"logits": pa.array(logits, pa.list_(pa.float64(), 3)), "label": pa.array(labels, pa.int64())})


def sequences_of(situation):
    """Return the rows of a situation as one sequence; its text has 7 bytes."""
    rows = rows_of(situation)
    kind = pa.list_(pa.list_(pa.float64(), 3))
    n = 1 if rows.num_rows else 0
    nested = {"logits": pa.array([rows["logits"].to_pylist()] * n, kind), "n": pa.array([7] * n, pa.int64())}
    return pa.table(nested | {"label": pa.array([rows["label"].to_pylist()] * n, pa.list_(pa.int64()))})


def score(situation, folder, condition):
    """Score rows with a condition."""
    pq.write_table(rows_of(situation), folder / "in.parquet")
    batchmax.score(folder / "in.parquet", folder / "out.parquet", on_bad_row="null", fail_if=condition)


def score_sequences(situation, folder, condition):
    """Score sequences with a condition."""
    pq.write_table(sequences_of(situation), folder / "in.parquet")
    given = {"on_bad_row": "null", "bytes": "n", "n_classes": 3, "fail_if": condition}
    batchmax.score(folder / "in.parquet", folder / "out.parquet", **given)


def evaluate(situation, folder, condition):
    """Evaluate rows with a condition."""
    pq.write_table(rows_of(situation), folder / "in.parquet")
    batchmax.evaluate(str(folder / "in.parquet"), on_bad_row="null", top_k=[1, 2], fail_if=condition)


def evaluate_sequences(situation, folder, condition):
    """Evaluate sequences with a condition."""
    pq.write_table(sequences_of(situation), folder / "in.parquet")
    given = {"on_bad_row": "null", "bytes": "n", "n_classes": 3, "top_k": [1, 2]}
    batchmax.evaluate(str(folder / "in.parquet"), fail_if=condition, **given)


def compare_sequences(situation, folder, condition):
    """Compare good sequences with those of a situation, with a condition."""
    rows = sequences_of(situation)
    good = sequences_of("").slice(0, rows.num_rows).set_column(2, "label", rows["label"])
    pq.write_table(good, folder / "a.parquet")
    pq.write_table(rows, folder / "b.parquet")
    given = {"on_bad_row": "null", "n_classes": 3, "memory_limit": "2GiB", "fail_if": condition}
    batchmax.compare(str(folder / "a.parquet"), str(folder / "b.parquet"), **given)


def compare(situation, folder, condition):
    """Compare good rows with those of a situation, with a condition."""
    rows = rows_of(situation)
    good = rows_of("").slice(0, rows.num_rows).set_column(1, "label", rows["label"])
    pq.write_table(good, folder / "a.parquet")
    pq.write_table(rows, folder / "b.parquet")
    batchmax.compare(str(folder / "a.parquet"), str(folder / "b.parquet"), on_bad_row="null", fail_if=condition)


ALWAYS = {"n_rows", "n_classes", "bytes_read", "bytes_written", "seconds", "n_compared", "n_judged", "n_tokens"}
"""Counts of rows and metrics of the run: they always have a value."""

WITHOUT_LOSSES = {"bad_rows", "bad_rate", "only_a", "only_b", "tokens_only_a", "tokens_only_b"}
OF_PAIRS = {"agreement", "mean_kl", "infinite_kl"}

KNOWN = {
    "no rows": ALWAYS,
    "all rows bad": ALWAYS | WITHOUT_LOSSES,
    "all labels ignored": ALWAYS | WITHOUT_LOSSES | OF_PAIRS,
}
"""The metrics that have a value in a situation, of those that a command knows."""

LACKING = {
    "one NaN": set(),
    "one infinite value": {
        *("mean_loss", "log_likelihood", "perplexity", "bits_per_token", "bits_per_byte", "d2_log_loss"),
        *("mean_loss_b", "mean_loss_change", "mean_loss_change_low", "mean_loss_change_high", "mean_kl"),
        *(f"changes.mean_loss.{of}" for of in ("b", "change", "lower", "upper", "p_value", "mde")),
        *("changes.d2_log_loss.b", "changes.d2_log_loss.change"),
    },
}
"""The metrics without a value, in situations in which most have one."""

OF_TWO_CLASSES = {
    *("prevalence", "precision", "recall", "specificity", "f1"),
    *("auroc", "average_precision", "partial_auroc"),
}
"""Metrics of the positive class; these rows have more than two classes."""

OF_LABELS = {
    *("subset_accuracy", "hamming_loss", "label_ranking_average_precision", "mean_label_loss"),
    *(f"samples.{name}" for name in ("precision", "recall", "f1", "jaccard")),
    *(f"{average}.{name}" for average in ("micro", "samples") for name in ("auroc", "average_precision")),
}
"""Metrics of multi-label rows."""

NO_CHANGES = (
    OF_TWO_CLASSES
    | OF_LABELS
    | {f"{average}.{name}" for average in ("macro", "weighted") for name in ("auroc", "average_precision")}
)
"""Metrics of which these rows have no changes: averages of areas only have them if rows are multi-label."""

PROPORTIONS = {
    *("accuracy", "top_k_accuracy", "weighted.recall"),
    *("micro.precision", "micro.recall", "micro.f1", "micro.jaccard"),
}
"""The metrics whose intervals need no ten rows; sequences are clusters, and intervals need ten."""

CHANGES_OF_PAIRS = {f"changes.{name}" for name in ("mean_loss", "brier", "accuracy")}
"""The same for changes of metrics."""

COMMANDS = {
    "score": (score, sorted(set(SCORE_FIGURES) - OF_TOKENS)),
    "score of sequences": (score_sequences, SCORE_FIGURES),
    "evaluate": (evaluate, sorted(set(EVALUATION_GATES) - OF_TOKENS)),
    "evaluate of sequences": (evaluate_sequences, EVALUATION_GATES),
    "compare": (compare, sorted(set(COMPARISON_NAMES) - OF_TOKENS)),
    "compare of sequences": (compare_sequences, COMPARISON_NAMES),
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_gate_passes_without_evidence(command, situation, tmp_path):
    """For every metric of every command, ``NAME > 1e300`` is true if and only if the metric has no value."""
    run, names = COMMANDS[command]
    failed = {}
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            run(situation, folder, f"{name} > 1e300")
        except GateError as error:
            failed[name] = str(error)
    known = KNOWN.get(situation, set(names) - LACKING.get(situation, set())) - OF_TWO_CLASSES - OF_LABELS
    known = {name for name in known if name.removeprefix("changes.").rpartition(".")[0] not in NO_CHANGES}
    intervals = {name for name in names if name.endswith((".lower", ".upper", ".p_value", ".mde"))} | {"calibration_p"}
    with_few_rows = {name for name in intervals if name.rpartition(".")[0] in PROPORTIONS | CHANGES_OF_PAIRS}
    known = known - (intervals if "sequences" in command else intervals - with_few_rows)
    if command == "compare of sequences":
        known = known - {"mean_loss_change_low", "mean_loss_change_high"}
    if situation == "one NaN":
        # The only sequence is bad, so there is no sequence whose tokens all have a loss.
        known = known - {"bits_per_byte"}
        # The other rows are the same in both inputs, so their changes don't vary.
        known = {name for name in known if not name.endswith(".mde")}
    assert set(failed) == set(names) - known
    for name, message in failed.items():
        assert re.search(rf"{name} has no value \([a-z0-9].+?\)", message), message


@pytest.mark.parametrize("name", sorted(OF_TOKENS))
def test_figures_of_sequences_are_refused_for_rows(name, tmp_path):
    """A condition on a metric of sequences is invalid for rows in every command, and nothing is written."""
    for command, names in (score, SCORE_FIGURES), (evaluate, EVALUATION_GATES), (compare, COMPARISON_NAMES):
        metric = name.removesuffix(".lower").removesuffix(".upper")
        told = f"{metric} is a metric of sequences" if name in names else f"unknown metric '{name}'"
        with pytest.raises(UsageError, match=told):
            command("one NaN", tmp_path, f"{name} > 1")
    assert not (tmp_path / "out.parquet").exists()


def test_bits_per_byte_need_bytes(tmp_path):
    """Without ``--bytes`` a condition on bits per byte is invalid."""
    pq.write_table(sequences_of("one NaN"), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="--bytes NAME"):
        batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", fail_if="bits_per_byte > 1")


def test_top_k_accuracy_needs_a_k(tmp_path):
    """By default no top-k accuracy is computed for three classes, so a condition on it is invalid."""
    pq.write_table(rows_of(""), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="--top-k"):
        batchmax.evaluate(str(tmp_path / "in.parquet"), fail_if="top_k_accuracy < 0.5")


def test_the_size_of_a_stream_is_not_known(tmp_path):
    """``bytes_read`` of a table in memory has no value, so a condition on it is true."""
    table = rows_of("")
    for run in (
        lambda **given: batchmax.score(table, tmp_path / "out.parquet", **given),
        lambda **given: batchmax.evaluate(table, **given),
        lambda **given: batchmax.compare(table, table, **given),
    ):
        with pytest.raises(GateError, match=r"bytes_read has no value .the size of a stream is not known"):
            run(fail_if="bytes_read > 1e300")


def test_a_finished_output_that_is_judged_again_lacks_its_time(tmp_path):
    """``seconds`` and ``bytes_written`` of a finished output that is resumed have no value."""
    pq.write_table(rows_of(""), tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    again = {"if_exists": "resume"}
    for name in ("seconds", "bytes_written"):
        with pytest.raises(GateError, match=f"{name} has no value .the finished output does not record it"):
            batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", fail_if=f"{name} > 1e300", **again)
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", fail_if="bytes_read > 1e300", **again)


@pytest.mark.parametrize("value", [None, NAN, INF, -INF])
def test_what_is_no_value(value):
    """A metric that is None, NaN or infinite, or has a reason, has no value; the first reason is kept."""
    assert figure(value) == Figure(None, "it is not a finite number")
    assert figure(value, "", "no rows", "no labels") == Figure(None, "no rows")
    assert figure(1.5, "", "") == Figure(1.5)
    assert figure(1.5, "no rows") == Figure(None, "no rows")


def test_why_a_condition_holds():
    """The message for a true condition gives the value of each metric in it, or the reason why it has none."""
    gate = Gate("mean_loss > 1 or bad_rows > 0", SCORE_FIGURES)
    figures = {"mean_loss": Figure(None, "2 rows have an infinite loss"), "bad_rows": Figure(0)}
    assert gate.failure(figures) == (
        "--fail-if 'mean_loss > 1 or bad_rows > 0' is true: "
        "mean_loss has no value (2 rows have an infinite loss), bad_rows is 0"
    )
    assert gate.failure({"mean_loss": Figure(0.5), "bad_rows": Figure(0)}) == ""


# Conditions


@pytest.mark.parametrize(
    ("condition", "values", "is_true"),
    [
        ("mean_loss > 1.2", {"mean_loss": 1.3}, True),
        ("mean_loss > 1.2", {"mean_loss": 1.2}, False),
        ("mean_loss >= 1.2", {"mean_loss": 1.2}, True),
        ("mean_loss < -1e-3", {"mean_loss": -0.5}, True),
        (" n_rows != 10 ", {"n_rows": 10}, False),
        ("n_rows == 10", {"n_rows": 10}, True),
        ("0.9 > accuracy", {"accuracy": 0.8}, True),
        ("0.9 <= accuracy", {"accuracy": 0.8}, False),
        ("mean_loss > 1 or bad_rows > 5", {"mean_loss": 0.5, "bad_rows": 6}, True),
        ("mean_loss > 1 and bad_rows > 5", {"mean_loss": 0.5, "bad_rows": 6}, False),
        ("mean_loss > 1 and (bad_rows > 5 or n_rows < 3)", {"mean_loss": 2, "bad_rows": 0, "n_rows": 2}, True),
        ("mean_loss > 9", {"mean_loss": None}, True),
        ("mean_loss > 9", {}, True),
        ("mean_loss > 9", {"mean_loss": NAN}, True),
        ("mean_loss < 9", {"mean_loss": INF}, True),
        ("mean_loss < 9 or accuracy > 2", {"mean_loss": 10.0, "accuracy": None}, True),
    ],
)
def test_conditions(condition, values, is_true):
    """Conditions compare names with numbers on either side, with ``and``, ``or`` and parentheses.

    A comparison with a missing value is true.
    """
    assert Gate(condition, SCORE_FIGURES).is_true(values) is is_true


@pytest.mark.parametrize(
    "condition",
    [
        "",
        " ",
        "mean_loss",
        "1.2",
        "mean_loss >",
        "mean_loss > 1.2 or",
        "mean_loss > x",
        "mean_loss > bad_rows",
        "1 > 2",
        "0 < mean_loss < 1",
        "not mean_loss > 1",
        "mean_loss > True",
        "mean_loss > 'a'",
        "mean_loss > 1j",
        "mean_loss > 1+1",
        "mean_loss is 1",
        "mean_loss in 1",
        "mean_loss = 1",
        "mean_loss > None",
        "len(mean_loss) > 1",
        "mean_loss.real > 1",
        "__import__('os').system('true') > 0",
        "mean_loss > (lambda: 1)()",
        "mean_loss > 1\nbad_rows > 1",
        "a\0b",
        "(" * 500,
        "mean_loss > " + "9" * 10_000,
        "files > 1",
        "mean_los > 1",
    ],
)
def test_what_is_no_condition(condition):
    """An invalid condition raises UsageError before the job starts, and is never executed as Python code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # Python warns about "1 is", "1in"
        with pytest.raises(UsageError) as caught:
            Gate(condition, SCORE_FIGURES)
    assert caught.value.where == "--fail-if"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("condition", "bad_rows", "is_decided"),
    [
        ("bad_rows > 5", 6, True),
        ("bad_rows > 5", 5, False),
        ("bad_rows >= 5", 5, True),
        ("5 < bad_rows", 6, True),
        ("5 <= bad_rows", 5, True),
        ("bad_rows < 5", 0, False),
        ("5 > bad_rows", 0, False),
        ("bad_rows == 5", 5, False),
        ("bad_rows != 5", 6, False),
        ("mean_loss > 1", 9, False),
        ("bad_rows > 5 or mean_loss > 1", 6, True),
        ("bad_rows > 5 and mean_loss > 1", 6, False),
        ("bad_rows > 5 and infinite_losses >= 0", 6, True),
    ],
)
def test_early_decisions(condition, bad_rows, is_decided):
    """A run stops early only if a count exceeds its limit, so that no later row can make the condition false."""
    assert Gate(condition, SCORE_FIGURES).is_decided({"bad_rows": bad_rows, "infinite_losses": 0}) is is_decided


def test_a_condition_knows_its_names():
    """``names`` has the names in the condition, each once, in order."""
    assert Gate("mean_loss > 1 or 2 < bad_rows or mean_loss < 0", SCORE_FIGURES).names == ["mean_loss", "bad_rows"]

"""Every command with every option, on sequences and on the same tokens as plain rows.

Where an option has the same meaning, the results are the same; where it has none, it is refused. The options are those
that the commands declare, so a new option needs a line in the table of ``tests/support/sequence_options.py``.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import COMMANDS, group, main
from tests.support.sequence_options import OPTIONS, Refused, Same

CLASSES = ["a", "b", "c"]
LENGTHS = [3, 1, 4, 2]
N = sum(LENGTHS)
SINGULARS = {
    "losses": "loss",
    "preds": "pred",
    "confidences": "confidence",
    "margins": "margin",
    "entropies": "entropy",
    "logsumexps": "logsumexp",
    "ranks": "rank",
    "corrects": "correct",
    "el2ns": "el2n",
    "statuses": "status",
}
OF_ROWS = {"mean_loss", "sum_loss", "perplexity", "n_tokens", "status"}
"""Columns with one value per scored sequence."""


def nested(values: Sequence[Any]) -> list[list[Any]]:
    """Return values of tokens as a list for each sequence."""
    ends = np.cumsum(LENGTHS).tolist()
    return [list(values[end - length : end]) for end, length in zip(ends, LENGTHS, strict=True)]


def repeated(values: Sequence[Any]) -> list[Any]:
    """Return values of sequences, repeated for each token."""
    return [value for value, length in zip(values, LENGTHS, strict=True) for _ in range(length)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Write sequences, the same tokens as rows, and files for options; return the folder."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(4)
    logits = (3 * random.standard_normal((N, 3))).astype(np.float32)
    other = (3 * random.standard_normal((N, 3))).astype(np.float32)
    powers = np.exp(logits.astype(np.float64))
    labels = random.integers(0, 3, N).tolist()
    labels[2] = -100
    columns = {
        "logits": (logits.tolist(), pa.list_(pa.float32())),
        "other": (other.tolist(), pa.list_(pa.float32())),
        "p": ((powers / powers.sum(axis=1, keepdims=True)).tolist(), pa.list_(pa.float64())),
        "bits": ([row.tobytes() for row in logits], pa.binary(12)),
        "label": (labels, pa.int64()),
        "second": (random.integers(0, 3, N).tolist(), pa.int64()),
        "name": (random.choice(CLASSES, N).tolist(), pa.string()),
    }
    theirs = {
        "id": ([13, 11, 17, 12], pa.int64()),
        "group": (["x", "y", "x", "z"], pa.string()),
        "weight": ([0.5, 1.0, 2.0, 1.5], pa.float64()),
        "size": ([4, 1, 9, 5], pa.int64()),
    }
    of_sequences = {name: pa.array(nested(values), pa.list_(kind)) for name, (values, kind) in columns.items()}
    of_rows = {name: pa.array(values, kind) for name, (values, kind) in columns.items()}
    of_sequences |= {name: pa.array(values, kind) for name, (values, kind) in theirs.items()}
    of_rows |= {name: pa.array(repeated(values), kind) for name, (values, kind) in theirs.items()}
    of_sequences["place"] = pa.array(range(len(LENGTHS)))
    of_rows["place"] = pa.array(range(N))
    tables = {"s": pa.table(of_sequences), "r": pa.table(of_rows)}
    bad = np.array(logits)
    bad[4, 1] = math.nan
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=3 if name == "s" else 8)
        values = pa.array(nested(bad.tolist()) if name == "s" else bad.tolist(), table.schema.field("logits").type)
        pq.write_table(table.set_column(0, "logits", values), folder / f"{name}-bad.parquet")
        moved = table.set_column(0, "logits", table["other"])
        pq.write_table(moved, folder / f"{name}-b.parquet")
        words = ["score", str(folder / f"{name}.parquet"), "-o", str(folder / f"{name}-scored.parquet"), "-q"]
        assert main([*words, "--outputs", "probs,loss,status", "--columns", "label,id,place"]) == 0
    words = ["calibrate", str(folder / "r.parquet"), "-o", str(folder / "calibration.json"), "-q"]
    assert main(words) == 0
    (folder / "costs.csv").write_text("true,0,1,2\n0,0,1,1\n1,1,0,1\n2,1,1,0\n")
    (folder / "weights.txt").write_text("1\n2\n0.5\n")
    words = ["decide", str(folder / "r.parquet"), "-o", str(folder / "decision.json"), "-q"]
    assert main([*words, "--costs", str(folder / "costs.csv")]) == 0
    return folder


def declared(name: str) -> set[str]:
    """Return the long names of the options that a command declares."""
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return {max(param.opts, key=len) for param in command.params if isinstance(param, click.Option)}


@pytest.mark.parametrize("name", [name for names in COMMANDS.values() for name in names])
def test_the_table_has_every_option(name):
    """The table has exactly the options that each command declares."""
    assert set(OPTIONS[name]) == (set() if name in {"warmup", "completion", "guide"} else declared(name))


# Running a command


def words_of(name: str, kind: str, given: str, inputs: Path, folder: Path) -> list[str]:
    """Return the command line for sequences (``s``) or rows (``r``) with these options."""
    out = {"calibrate": "out.json", "decide": "out.json", "report": "out.html"}.get(name, "out.parquet")
    places = {"out": folder / out, "folder": folder / "parts", "rejects": folder / "rejects.parquet", "bad": ""}
    places |= {file.name: file for file in inputs.iterdir()}
    options = given
    for word, path in places.items():
        options = options.replace(f"{{{word}}}", str(path))
    source = inputs / (f"{kind}-bad.parquet" if "{bad}" in given else f"{kind}.parquet")
    files = {"compare": [source, inputs / f"{kind}-b.parquet"], "verify": [inputs / f"{kind}-scored.parquet", source]}
    named = [] if "--values" in given else files.get(name, [source])
    words = [name, *map(str, named), *shlex.split(options)]
    if name in {"score", "convert", "calibrate", "decide", "report"} and "-o" not in words:
        words += ["-o", str(places["out"])]
    if name == "convert" and "--layout" not in words:
        words += ["--layout", "list"]
    if name == "calibrate" and "--holdout" not in words:
        words += ["--holdout", "0"]
    if name == "decide" and not {"--at", "--maximize", "--costs"} & set(words):
        words += ["--at", "accuracy>=0.01"]
    if name == "show" and not {"--row", "--worst", "--values"} & set(words):
        words += ["--row", "2", "--token", "1"] if kind == "s" else ["--row", "5"]
    return words if "--json" in words else [*words, "--json"]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """Run a command; return its exit code and its parsed JSON output."""
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    assert "this is a bug" not in err, (words, err)
    return code, json.loads(out) if out else None


# Comparable results


def flat_row(row: int, token: int) -> int:
    """Return the plain row that holds a token."""
    return sum(LENGTHS[:row]) + token


def scored(path: Path, kind: str) -> dict[str, list[Any]]:
    """Return the columns of an output by their names for rows, with one value per token."""
    table = pq.read_table(path)
    lengths = LENGTHS[: table.num_rows]
    found = {}
    for name in table.schema.names:
        prefix = "p_" if name.startswith("p_") else ""
        plain, values = name.removeprefix(prefix), table[name].to_pylist()
        if kind == "s" and (plain in OF_ROWS or plain == "tail_mass"):
            continue
        if kind == "s" and not isinstance(values[0], list):
            values = [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
        elif kind == "s":
            values = [one for value in values for one in value]
        if plain == "top_k_log_probs":
            plain, values = "top_k_probs", [[math.exp(one) for one in value] for value in values]
        if plain == "top_k_probs":
            values = [[pytest.approx(one, rel=1e-6) for one in value] for value in values]
        found[prefix + SINGULARS.get(plain, plain)] = values
    found.pop("place", None)
    return found


def statuses(found: dict[str, Any]) -> dict[str, int]:
    """Return the number of tokens with each status."""
    counts: dict[str, int] = found.get("token_status_counts") or found["status_counts"]
    return counts


def only(found: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return some members of a result."""
    return {name: found[name] for name in names}


def figures(name: str, kind: str, found: Any, words: list[str]) -> Any:
    """Return the part of a command's result that must be the same for sequences and rows."""
    if name == "score":
        names = ("n_classes", "mean_loss", "log_likelihood", "accuracy", "perplexity", "infinite_losses")
        columns = scored(Path(words[words.index("-o") + 1]), kind)
        return only(found, *names), statuses(found), found["bad_rows"] > 0, columns
    if name == "evaluate":
        apart = {"n_rows", "status_counts", "token_status_counts", "bad_rows", "bad_rate", "n_tokens", "bits_per_token"}
        # Sequences are clusters of tokens.
        apart |= {"intervals", "n_clusters", "calibration_p"}
        for one in found["per_class"]:
            del one["intervals"]
        apart |= {"bits_per_byte", "files", "bytes_read", "seconds", "notes", "slices", "warnings"}
        own = {"n_rows", "n_tokens", "intervals"}
        slices = {
            by: [{key: one[key] for key in one if key not in own} for one in sorted_groups(groups)]
            for by, groups in found["slices"].items()
        }
        whole = {key: value for key, value in found.items() if key not in apart}
        return whole, slices, statuses(found), found["bad_rows"] > 0, len(found["warnings"])
    if name == "calibrate":
        names = ("temperature", "scale", "bias", "nll_before", "nll_after", "ece_before", "ece_after", "n_fit")
        return only(found, *names, "n_holdout", "n_classes", "classes", "at_bound"), found["bad_rows"] > 0
    if name == "compare":
        apart = {
            "files_a",
            "files_b",
            "key",
            "n_rows",
            "only_a",
            "only_b",
            "bad_rows",
            "moved",
            "bytes_read",
            "seconds",
        }
        apart |= {"tokens_only_a", "tokens_only_b"}
        # Sequences are clusters of tokens.
        apart |= {"interval", "n_clusters", "changes", "groups"}
        apart |= {"mean_loss_change", "mean_loss_change_low", "mean_loss_change_high"}
        apart |= {"warnings"}
        groups = sorted_groups(found["groups"], "by")
        changes = [(one.get("by"), values_of(one["changes"])) for one in (found, *groups)]
        moved = [
            (flat_row(row["row"], row["token"]) if kind == "s" else row["row"])
            for row in found["moved"]
            if row["row"] == row["row_b"]
        ]
        assert len(moved) == len(found["moved"])
        values = [only(row, "label", "pred_a", "pred_b", "loss_a", "loss_b", "kl") for row in found["moved"]]
        whole = {key: value for key, value in found.items() if key not in apart}
        return whole, changes, moved, values, found["bad_rows"] > 0
    if name == "report":
        row = found["row"]
        at = flat_row(row["row"], row["token"]) if kind == "s" else row["row"]
        return only(found, "n_classes", "mean_loss", "accuracy", "ece", "worst_rows"), at, found["bad_rows"] > 0
    if name == "verify":
        return only(found, "outputs", "compared", "sums", "n_classes", "inputs"), set(found["summary"]) & {"mean_loss"}
    if name == "inspect":
        label = None if found["label"] is None else found["label"]["column"]
        return found["logits"]["columns"], found["n_classes"], label, found["classes"], found["problem"]
    if "--worst" in words:
        if "-o" in words:
            found = pq.read_table(words[words.index("-o") + 1]).to_pylist()
        places = [flat_row(row["row"], row["token"]) if kind == "s" else row["row"] for row in found]
        names = ("label", "pred", "p_label", "p_pred", "loss")
        return places, [only(row, *names) | {key: row[key] for key in ("id", "group") if key in row} for row in found]
    return {key: value for key, value in found.items() if key != "row"}


def sorted_groups(groups: list[dict[str, Any]], key: str = "value") -> list[dict[str, Any]]:
    """Return groups in the order of their values."""
    return sorted(groups, key=lambda one: str(one[key]))


def values_of(changes: dict[str, Any]) -> Any:
    """Return the values of changes in both inputs, without intervals and p-values."""
    if "a" in changes:
        return [value and float(f"{value:.12g}") for value in (changes["a"], changes["b"])]
    return {name: values_of(one) for name, one in changes.items()}


CASES = [(name, option, meaning) for name, options in OPTIONS.items() for option, meaning in options.items()]


@pytest.mark.parametrize(("name", "option", "meaning"), CASES, ids=[f"{name} {option}" for name, option, _ in CASES])
def test_options_of_sequences(name, option, meaning, inputs, tmp_path, capsys, monkeypatch):
    """With any option, sequences give the same results as their tokens as rows, or a specific error."""
    if name == "report" and option not in {"--by", "--row"}:
        # Rendering takes a second, and the page is the same.
        monkeypatch.setattr("batchmax.reports.html.page.page", lambda _: "")
    results = {}
    for kind in "sr":
        folder = tmp_path / kind
        folder.mkdir()
        given = meaning.rows if kind == "r" and isinstance(meaning, Same) and meaning.rows else meaning.words
        words = words_of(name, kind, given, inputs, folder)
        code, found = run(words, capsys)
        if isinstance(meaning, Refused) and kind in meaning.kinds:
            assert code == 2, (words, found)
            assert meaning.message in found["error"]["what"], found
            assert list(folder.iterdir()) == [], option
            continue
        assert code == 0, (words, found)
        results[kind] = figures(name, kind, found, words) if isinstance(meaning, Same) else None
    if isinstance(meaning, Same):
        assert results["s"] == results["r"], option

"""Tests every path parameter of every command with local paths, globs, ``file:`` URIs and an object store."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import COMMANDS, group, main
from tests.support.requirements import package

fsspec = package("fsspec")

N_ROWS = 40

INPUTS = {
    ("score", "inputs"): ["{}", "-o", "OUT"],
    ("inspect", "inputs"): ["{}", "--json"],
    ("show", "inputs"): ["{}", "--row", "3", "--json"],
    ("evaluate", "inputs"): ["{}", "--json"],
    ("calibrate", "inputs"): ["{}", "-o", "c.json"],
    ("decide", "inputs"): ["{}", "-o", "d.json", "--at", "accuracy>=0.1"],
    ("compare", "a"): ["{}", "LOGITS", "--json"],
    ("compare", "b"): ["LOGITS", "{}", "--json"],
    ("report", "inputs"): ["{}", "-o", "r.html"],
    ("verify", "inputs"): ["SCORED", "{}"],
    ("convert", "inputs"): ["{}", "-o", "OUT", "--layout", "wide"],
}
"""Parameters that are inputs, with the arguments of a command."""

SCORED = {("verify", "file"): ["{}"]}
"""Parameters that take an output of ``score``, with the arguments of a command."""

TEXTS = {
    ("score", "classes"): ("classes.txt", ["LOGITS", "-o", "OUT", "--classes", "{}", "--outputs", "pred"]),
    ("score", "class_weights"): ("weights.txt", ["LOGITS", "-o", "OUT", "--class-weights", "{}"]),
    ("score", "pos_weight"): (
        "weights.txt",
        ["LOGITS", "-o", "OUT", "--activation", "sigmoid", "--pos-weight", "{}"],
    ),
    ("score", "calibration"): ("calibration.json", ["LOGITS", "-o", "OUT", "--calibration", "{}"]),
    ("inspect", "classes"): ("classes.txt", ["LOGITS", "--classes", "{}"]),
    ("show", "classes"): ("classes.txt", ["LOGITS", "--row", "3", "--classes", "{}"]),
    ("score", "decision"): ("decision.json", ["LOGITS", "-o", "OUT", "--decision", "{}"]),
    ("show", "calibration"): ("calibration.json", ["LOGITS", "--row", "3", "--calibration", "{}"]),
    ("evaluate", "classes"): ("classes.txt", ["LOGITS", "--classes", "{}"]),
    ("evaluate", "calibration"): ("calibration.json", ["LOGITS", "--calibration", "{}"]),
    ("calibrate", "classes"): ("classes.txt", ["LOGITS", "-o", "c.json", "--classes", "{}"]),
    ("decide", "classes"): ("classes.txt", ["LOGITS", "-o", "d.json", "--at", "accuracy>=0.1", "--classes", "{}"]),
    ("decide", "calibration"): (
        "calibration.json",
        ["LOGITS", "-o", "d.json", "--at", "accuracy>=0.1", "--calibration", "{}"],
    ),
    ("decide", "costs"): ("costs.csv", ["LOGITS", "-o", "d.json", "--costs", "{}"]),
    ("compare", "classes"): ("classes.txt", ["LOGITS", "LOGITS", "--classes", "{}"]),
    ("compare", "calibration"): ("calibration.json", ["LOGITS", "LOGITS", "--calibration", "{}"]),
    ("report", "classes"): ("classes.txt", ["LOGITS", "-o", "r.html", "--classes", "{}"]),
    ("report", "calibration"): ("calibration.json", ["LOGITS", "-o", "r.html", "--calibration", "{}"]),
}
"""Parameters that are small text files, with the file and the arguments of a command."""

OUTPUTS = {
    ("score", "out"): ([".parquet", "/"], ["LOGITS", "-o", "{}"]),
    ("score", "rejects"): ([".parquet"], ["LOGITS", "-o", "OUT", "--on-bad-row", "drop", "--rejects", "{}"]),
    ("show", "out"): ([".parquet"], ["LOGITS", "--worst", "3", "-o", "{}"]),
    ("evaluate", "out"): ([".parquet"], ["LOGITS", "-o", "{}"]),
    ("calibrate", "out"): ([".json"], ["LOGITS", "-o", "{}"]),
    ("decide", "out"): ([".json"], ["LOGITS", "-o", "{}", "--at", "accuracy>=0.1"]),
    ("report", "out"): ([".html"], ["LOGITS", "-o", "{}"]),
    ("evaluate", "curves_out"): ([".parquet", ".csv"], ["LOGITS", "--curves-out", "{}"]),
    ("convert", "out"): ([".parquet", "/"], ["LOGITS", "-o", "{}", "--layout", "wide"]),
    ("convert", "rejects"): (
        [".parquet"],
        ["LOGITS", "-o", "OUT", "--layout", "wide", "--on-bad-row", "drop", "--rejects", "{}"],
    ),
}
"""Parameters that are outputs, with their possible endings and the arguments of a command."""

NO_PATHS = {
    *("logits", "label", "bytes", "outputs", "columns", "exclude", "prefix", "shard", "fail_if", "memory_limit"),
    *(
        "storage_options",
        "top_k",
        "by",
        "sample_weight",
        "positive",
        "cluster",
        "values",
        "beta",
        "key",
        "title",
        "logits_b",
        "label_b",
        "at",
    ),
    "topic",
}
"""Parameters that take text that isn't a path."""


def parameters():
    """Yield the command and the name of each parameter that takes text."""
    numbers_and_choices = click.types.IntParamType, click.types.FloatParamType, click.types.BoolParamType, click.Choice
    for command in itertools.chain(*COMMANDS.values()):
        loaded = group.get_command(click.Context(group), command)
        for parameter in loaded.params:
            if not isinstance(parameter.type, numbers_and_choices):
                yield command, parameter.name


def test_no_parameter_is_forgotten():
    """Every parameter that takes text is in one of the tables of this module; a new one has to be added."""
    known = {*INPUTS, *SCORED, *TEXTS, *OUTPUTS}
    found = {(command, name) for command, name in parameters() if name not in NO_PATHS}
    assert found == known


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write logits, a scored file, a scored folder and text files; return their folder."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("0", "1"):
        logits = random.normal(size=(N_ROWS // 2, 3)).astype(np.float32)
        columns = {"id": range(N_ROWS // 2), "logits": list(logits), "label": random.integers(0, 3, N_ROWS // 2)}
        path = folder / "logits" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), path)
    (folder / "classes.txt").write_text("x\ny\nz\n")
    (folder / "costs.csv").write_text("true,0,1,2\n0,0,1,1\n1,1,0,1\n2,1,1,0\n")
    (folder / "weights.txt").write_text("1\n2\n3\n")
    batchmax.score(folder / "logits", folder / "scored.parquet")
    batchmax.score(folder / "logits", folder / "scored")
    batchmax.decide(str(folder / "logits"), str(folder / "decision.json"), costs=str(folder / "costs.csv"))
    batchmax.calibrate(str(folder / "logits"), out=str(folder / "calibration.json"))
    return folder


@pytest.fixture
def store(data, tmp_path, monkeypatch):
    """Change to an empty folder and copy the data to fsspec's memory store; yield its file system."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for path in data.rglob("*"):
        if path.is_file():
            system.pipe_file(f"/data/{path.relative_to(data).as_posix()}", path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield system
    system.store.clear()


def run(command, words, data, value):
    """Run a command line, check that it succeeds, and return its stdout."""
    known = {"LOGITS": str(data / "logits"), "SCORED": str(data / "scored.parquet"), "OUT": "out.parquet", "{}": value}
    Path("out.parquet").unlink(missing_ok=True)
    for name in ("c.json", "d.json", "r.html"):
        Path(name).unlink(missing_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([command, *(known.get(word, word) for word in words)])
    assert (code, err.getvalue().count("error")) == (0, 0), err.getvalue()
    return out.getvalue()


def without_time(text):
    """Return a command's JSON output without the members that change between runs; None if it isn't JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    changing = {"seconds", "file", "files", "files_a", "files_b", "command", "row", "moved"}
    return {name: value for name, value in found.items() if name not in changing}


@pytest.mark.parametrize(("command", "name"), INPUTS)
def test_inputs_are_anywhere(command, name, data, store):
    """Inputs can be folders, globs, ``file:`` URIs or in a store, with the same result."""
    del store
    words = INPUTS[command, name]
    want = without_time(run(command, words, data, str(data / "logits")))
    places = (
        f"{data}/logits/",
        f"{data}/logits/*.parquet",
        f"{data}/**/[01].parquet",
        (data / "logits").as_uri(),
        "memory://data/logits",
        "memory://data/logits/",
        "memory://data/logits/*.parquet",
    )
    if command == "report":  # drawing takes seconds
        places = places[-1:]
    for place in places:
        assert without_time(run(command, words, data, place)) == want


@pytest.mark.parametrize(("command", "name"), SCORED)
def test_scored_outputs_are_anywhere(command, name, data, store):
    """``verify`` accepts a file, a folder and a glob of its parts, locally and in a store."""
    del store
    words = SCORED[command, name]
    for place in (
        *(f"{data}/scored", f"{data}/scored.parquet", f"{data}/scored/*.parquet", f"{data}/scored*.parquet"),
        *((data / "scored").as_uri(), (data / "scored.parquet").as_uri()),
        *("memory://data/scored.parquet", "memory://data/scored", "memory://data/scored/part-*.parquet"),
    ):
        assert f"{N_ROWS}" in run(command, words, data, place)


@pytest.mark.parametrize(("command", "name"), TEXTS)
def test_texts_are_anywhere(command, name, data, store):
    """Text files can be a path, a glob that matches one file, a ``file:`` URI, or in a store."""
    del store
    file, words = TEXTS[command, name]
    places = (f"{data}/{file}", f"{data}/{file[:5]}*", (data / file).as_uri(), f"memory://data/{file}")
    for place in places if command == "score" else places[-1:]:  # all commands read text files with the same function
        run(command, words, data, place)


@pytest.mark.parametrize(("command", "name"), OUTPUTS)
def test_outputs_are_anywhere(command, name, data, store):
    """Outputs can be a path, a ``file:`` URI or in a store; parts have the same bytes in all of them.

    An existing output is never overwritten by default.
    """
    endings, words = OUTPUTS[command, name]
    for ending in endings:
        path = Path(f"here{ending}")
        run(command, words, data, str(path))
        files = {"": path} if path.is_file() else {one.name: one for one in path.iterdir()}
        uri = Path(f"by_uri{ending}").absolute().as_uri()
        run(command, words, data, uri)
        assert Path(f"by_uri{ending}").exists()
        run(command, words, data, f"memory://out/there{ending}")
        stored = {key: value for key, value in store.store.items() if key.startswith(f"/out/there{ending}".rstrip("/"))}
        assert stored
        if ending != "/":
            (value,) = stored.values()
            assert value.getvalue()[:4] == files[""].read_bytes()[:4]
        elif command == "score":
            parts = sorted(key for key in stored if "/part-" in key)
            wanted = sorted(name for name in files if name.startswith("part-"))
            assert [stored[key].getvalue() for key in parts] == [files[name].read_bytes() for name in wanted]
        known = {"LOGITS": str(data / "logits"), "OUT": "out2.parquet", "{}": f"memory://out/there{ending}"}
        with contextlib.redirect_stderr(io.StringIO()) as err:
            assert main([command, *(known.get(word, word) for word in words)]) == 1
        assert "the output exists" in err.getvalue()


@pytest.mark.parametrize(("command", "name"), INPUTS)
@pytest.mark.parametrize("where", ["file system", "store"])
def test_tables_are_refused_everywhere(command, name, where, data, store):
    """Every command refuses files of a Delta Lake table with exit code 2, wherever the table is."""
    words = INPUTS[command, name]
    if where == "store":
        system = store
        system.pipe_file("/lake/table/_delta_log/00000000000000000000.json", b"{}")
        system.pipe_file("/lake/table/day=1/a.parquet", (data / "logits/0.parquet").read_bytes())
        root = "memory://lake"
    else:
        Path("lake/table/_delta_log").mkdir(parents=True)
        Path("lake/table/day=1").mkdir()
        shutil.copy(data / "logits/0.parquet", "lake/table/day=1/a.parquet")
        root = "lake"
    for path in ("", "/table", "/table/day=1", "/table/day=1/a.parquet", "/table/*/*.parquet"):
        known = {"LOGITS": str(data / "logits"), "SCORED": str(data / "scored.parquet"), "OUT": "out.parquet"}
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = main([command, *(f"{root}{path}" if word == "{}" else known.get(word, word) for word in words)])
        assert (code, "Delta Lake table" in err.getvalue()) == (2, True), err.getvalue()

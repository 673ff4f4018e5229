"""Tests ``-`` as the input of every command: an Arrow stream, a Parquet file, nothing, and a terminal."""

from __future__ import annotations

import io
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import COMMANDS

READS_STREAMS = {
    "score": ["score", "-", "-o", "out.parquet"],
    "convert": ["convert", "-", "-o", "out.parquet", "--layout", "wide"],
    "evaluate": ["evaluate", "-"],
    "evaluate by": ["evaluate", "-", "--by", "id", "-o", "table.parquet"],
    "calibrate": ["calibrate", "-", "-o", "out.json"],
    "decide": ["decide", "-", "-o", "out.json", "--at", "accuracy>=0.1"],
    "compare a": ["compare", "-", "x.parquet"],
    "compare b": ["compare", "x.parquet", "-"],
    "show worst": ["show", "-", "--worst", "2"],
    "show worst as file": ["show", "-", "--worst", "2", "-o", "worst.parquet"],
}
ONLY_INPUT = "a stream can only be the only input of a command that reads rows once, or the output of score"
READS_FILES = {
    "inspect": (["inspect", "-"], ONLY_INPUT),
    "show row": (["show", "-", "--row", "0"], ONLY_INPUT),
    "report": (["report", "-", "-o", "out.html"], "a stream can be read only once, and a report needs two passes"),
    "verify": (["verify", "-"], ONLY_INPUT),
    "verify inputs": (["verify", "scored.parquet", "-"], ONLY_INPUT),
    "compare both": (["compare", "-", "-"], "stdin can't be both inputs"),
    "several": (["evaluate", "-", "x.parquet"], ONLY_INPUT),
}
"""Command lines that don't read streams, with their errors."""

UNLIKE = {"seconds", "files", "files_a", "files_b", "bytes_read", "bytes_written"}
"""Members of results that differ between a stream and a file."""

WITHOUT_INPUTS = {"warmup", "completion", "guide"}


@pytest.fixture
def table():
    """Return 20 rows of 4 classes with IDs and labels."""
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    labels = np.where(np.arange(20) % 3, logits.argmax(axis=1), 0)
    return pa.table({"id": np.arange(20), "logits": list(logits), "label": labels})


@pytest.fixture
def contents(table):
    """Return what a pipe may contain."""
    stream, file = io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, file)
    return {"arrow": stream.getvalue(), "parquet": file.getvalue(), "nothing": b""}


@pytest.fixture
def piped(run, table, contents, tmp_path, monkeypatch):
    """Return a function that runs a command line with a kind of content on stdin."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(table, "x.parquet")
    assert run("score", "x.parquet", "-o", "scored.parquet", "-q")[0] == 0

    def run_with(content, *words):
        if content == "terminal":
            descriptors = os.openpty()
            stdin = os.fdopen(descriptors[1])
        else:
            descriptors, stdin = (), io.TextIOWrapper(io.BytesIO(contents[content]))
        monkeypatch.setattr(sys, "stdin", stdin)
        try:
            return run(*words)
        finally:
            stdin.close()
            for descriptor in descriptors[:1]:
                os.close(descriptor)

    return run_with


def test_every_command_with_inputs_is_tested():
    """The cases have every command that reads inputs."""
    tested = {words[0] for words in (*READS_STREAMS.values(), *(words for words, _ in READS_FILES.values()))}
    assert tested == {name for names in COMMANDS.values() for name in names} - WITHOUT_INPUTS


@pytest.mark.parametrize("words", READS_STREAMS.values(), ids=READS_STREAMS)
def test_a_stream_is_read_like_a_file(piped, words):
    """The result for a stream is that for a file with the same rows."""
    code, out, err = piped("arrow", *words, "--json")
    assert (code, err) == (0, "")
    ours = json.loads(out)
    again = ["x.parquet" if word == "-" else word for word in words]
    again += ["--if-exists", "overwrite"] if "-o" in words else []
    theirs = json.loads(piped("nothing", *again, "--json")[1])
    if isinstance(ours, list):
        assert [row | {"file": None} for row in ours] == [row | {"file": None} for row in theirs]
        return
    for name in ours.keys() - UNLIKE:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("words", READS_STREAMS.values(), ids=READS_STREAMS)
@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("parquet", 2, "-: stdin is a Parquet file, not an Arrow IPC stream; name the file instead of -"),
        ("terminal", 2, "-: stdin is a terminal; pipe an Arrow IPC stream to it, or name a file"),
        ("nothing", 1, "-: stdin is empty; check the program that writes to it"),
    ],
)
def test_other_contents_are_refused(piped, words, content, code, message):
    """A Parquet file, a terminal and an empty pipe have errors of their own."""
    assert piped(content, *words) == (code, "", f"batchmax: error: {message}\n")


@pytest.mark.parametrize("content", ["arrow", "parquet", "nothing", "terminal"])
@pytest.mark.parametrize(("words", "message"), READS_FILES.values(), ids=READS_FILES)
def test_where_a_stream_is_impossible_it_is_refused(piped, words, message, content):
    """Commands that need a file refuse ``-`` with exit code 2 and a remedy, whatever stdin is."""
    code, out, err = piped(content, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{message}; " in err


def test_a_scored_stream_is_evaluated_like_its_file(piped, contents):
    """In a stream of ``score``, the probabilities and the losses are found by the metadata."""
    scored, stream = pq.read_table("scored.parquet"), io.BytesIO()
    with pa.ipc.new_stream(stream, scored.schema) as writer:
        writer.write_table(scored)
    contents["scored"] = stream.getvalue()
    ours, theirs = (json.loads(piped("scored", "evaluate", name, "--json")[1]) for name in ("-", "scored.parquet"))
    for name in ours.keys() - UNLIKE:
        assert ours[name] == theirs[name], name

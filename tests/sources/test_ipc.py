"""Tests Arrow IPC streams on stdin and stdout: incomplete streams are detected, and memory is bounded."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError
from batchmax.sinks.ipc_writer import OutgoingStream
from batchmax.sources.streams.ipc_reader import IncomingStream
from tests.support.paths import ROOT
from tests.support.peaks import PEAK
from tests.support.processes import HANGS
from tests.support.requirements import optional

duckdb = optional("duckdb")
pl = optional("polars")

DIGITS = ROOT / "data" / "digits.parquet"
BATCHMAX = [sys.executable, "-m", "batchmax"]
END = b"\xff\xff\xff\xff\0\0\0\0"
"""The end-of-stream marker of Arrow's format."""


def stream_of(table, rows=100):
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def run(*words, data=b""):
    return subprocess.run([*BATCHMAX, *map(str, words)], input=data, capture_output=True, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def digits():
    return stream_of(pq.read_table(DIGITS))


def test_a_stream_in_and_a_stream_out(digits):
    """Scoring a stream gives the rows of scoring a file; stdout has only the stream, stderr the summary."""
    done = run("score", "-", "-o", "-", data=digits)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(END)
    found = pa.ipc.open_stream(done.stdout).read_all()
    want = pa.Table.from_batches(batchmax.scan(str(DIGITS)))
    assert found.equals(want)
    assert b"mean loss" in done.stderr
    assert b"batchmax" in found.schema.metadata


def test_files_and_streams_mix(digits, tmp_path):
    """Stream to file and file to stream give equal results."""
    assert run("score", "-", "-o", tmp_path / "a.parquet", data=digits).returncode == 0
    out = run("score", DIGITS, "-o", "-", "--json")
    assert out.stderr.startswith(b'{"n_rows": 899')
    assert pa.ipc.open_stream(out.stdout).read_all()["probs"].equals(pq.read_table(tmp_path / "a.parquet")["probs"])


@pytest.mark.parametrize("kept", [0, 5, 700, -len(END), -1])
def test_a_stream_that_was_cut_off_is_refused(digits, kept, tmp_path):
    """A stream cut off anywhere, even between batches, gives one line of error, exit code 1 and no output."""
    done = run("score", "-", "-o", tmp_path / "a.parquet", data=digits[:kept])
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"batchmax: error: -: ")
    assert not list(tmp_path.glob("*.parquet"))


def test_a_failure_leaves_the_stream_without_its_end(digits):
    """After an error or a failed gate the output stream has no end marker, so that its reader fails too."""
    cut = run("score", "-", "-o", "-", data=digits[:-500])
    judged = run("score", "-", "-o", "-", "--fail-if", "mean_loss > 0", data=digits)
    assert (cut.returncode, judged.returncode) == (1, 4)
    for done in (cut, judged):
        assert not done.stdout.endswith(END)
        with pytest.raises(DataError, match=r"no end-of-stream marker|stdin is empty"):
            list(IncomingStream(io.BytesIO(done.stdout), "-"))


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "-", "--if-exists", "resume"],
        ["-o", "-", "--rejects", "r.parquet", "--on-bad-row", "drop"],
        ["-o", "-", "--row-group-size", "10"],
        ["data/digits.parquet", "-o", "x.parquet"],
        ["-o", "x.parquet", "--if-exists", "resume"],
    ],
)
def test_what_a_stream_cannot_do(words, digits):
    """Options and inputs that can't go with a stream give one line of error and exit code 2; stdout stays empty."""
    done = run("score", "-", *words, data=digits)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


@pytest.mark.parametrize("command", [["inspect", "-"], ["show", "-", "--row", "1"], ["verify", "-"]])
def test_other_commands_say_that_they_take_no_stream(command):
    """inspect, show and verify refuse a stream with exit code 2."""
    done = run(*command)
    assert done.returncode == 2
    assert b"stream" in done.stderr


def test_a_consumer_that_has_seen_enough():
    """If the consumer closes the pipe early, the command exits with 0 and prints nothing."""
    process = subprocess.Popen(
        [*BATCHMAX, "score", str(DIGITS), "-o", "-", "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(HANGS), err) == (0, b"")


def test_a_long_stream_takes_no_more_memory(tmp_path):
    """Scoring a stream of 2 GB through pipes takes less than 600 MB of memory."""
    batch = pa.record_batch(
        {"logits": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(5_000_000, np.float32)), 1000)}
    )
    peak = tmp_path / "peak"
    code = (
        f"import sys; from batchmax.cli.app import main{PEAK}"
        "code = main(sys.argv[2:]); open(sys.argv[1], 'w').write(str(peak())); sys.exit(code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(peak), "score", "-", "-o", "-", "-q"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )

    def feed():
        outgoing = OutgoingStream(process.stdin, batch.schema)
        for _ in range(100):
            outgoing.write([batch])
        outgoing.close()
        process.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    rows = sum(one.num_rows for one in IncomingStream(process.stdout, "-"))
    feeder.join()
    process.stdout.close()
    assert process.wait(HANGS) == 0
    assert rows == 500_000
    assert int(peak.read_text()) < 600_000 * 1024


def test_polars_and_duckdb_at_both_ends():
    """Streams that Polars writes can be scored, and Polars and DuckDB read the output stream."""
    frame = pl.read_parquet(DIGITS)
    data = io.BytesIO()
    frame.write_ipc_stream(data)
    done = run("score", "-", "-o", "-", "-q", data=data.getvalue())
    assert done.returncode == 0, done.stderr
    found = pl.read_ipc_stream(io.BytesIO(done.stdout))
    assert found["probs"].list.sum().is_close(1.0, abs_tol=1e-6).all()
    scored = pa.ipc.open_stream(done.stdout)
    ((mean,),) = duckdb.from_arrow(scored).aggregate("avg(loss)").fetchall()
    assert mean == pytest.approx(found["loss"].mean(), rel=1e-6)


def test_stdout_on_a_terminal_is_refused():
    """Writing a stream to a terminal is refused with exit code 2."""
    own, other = os.openpty()
    done = subprocess.run(
        [*BATCHMAX, "score", str(DIGITS), "-o", "-"], stdout=other, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    os.close(other)
    os.close(own)
    assert done.returncode == 2
    assert b"shown in a terminal" in done.stderr

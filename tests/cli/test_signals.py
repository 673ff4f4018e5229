"""Signals: the command ends with one line and the right exit code, and nothing is left over."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import pytest

from batchmax.cli.app import main
from batchmax.errors import DataError
from tests.support.processes import HANGS, wait_until

SLEEPER = """
import sys, time
import batchmax.jobs.score
def score(*_, **__):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(3600)
batchmax.jobs.score.score = score
from batchmax.cli.app import main
sys.exit(main(["score", "a", "-o", "b"]))
"""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_in_one_line(number, code, word):
    """SIGINT and SIGTERM end the job with one line and the exit codes 130 and 143."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=HANGS)
    assert process.returncode == code
    assert err == f"batchmax: error: {word}, the output is unchanged; run the command again\n"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Write files that take a good part of a second to score, and return their folder."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("large")
    # With two distinct values, the dictionary encoding takes one bit for each value.
    logits = np.random.default_rng(1).integers(0, 2, 20_000 * 1000).astype(np.float32)
    table = pa.table({"logits": pa.FixedSizeListArray.from_arrays(pa.array(logits), 1000)})
    pq.write_table(table, folder / "0.parquet", row_group_size=4000, compression="none")
    for number in range(1, 12):
        shutil.copy(folder / "0.parquet", folder / f"{number}.parquet")
    return folder


@pytest.mark.faults(keep=lambda out, gap: gap == {"out.parquet": 0.01, "out": 0.15}[out])
@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize("gap", [0.01, 0.03, 0.15])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_further_signals_do_not_disturb_the_end(large, tmp_path, out, gap, first):
    """However many signals follow and how soon, the job prints one line and exits with 130 or 143.

    If its staging directory is left, the line says that the job can be resumed.
    """
    other = signal.SIGTERM if first == signal.SIGINT else signal.SIGINT
    command = [sys.executable, "-m", "batchmax", "score", str(large), "-o", out]
    command += ["--if-exists", "overwrite"]
    for _ in range(20):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            wait_until(lambda job=process: any(tmp_path.iterdir()) or job.poll() is not None)
            time.sleep(0.1)
            turn = 0
            while process.poll() is None:
                process.send_signal(other if turn % 3 == 1 else first)
                turn += 1
                time.sleep(gap)
            _, err = process.communicate(timeout=HANGS)
        if process.returncode:
            break
        # The job finished before the first signal, because this process was delayed: try again.
    assert process.returncode in {130, 143}, err
    word = "interrupted" if process.returncode == 130 else "terminated"
    kept = [path.name for path in tmp_path.iterdir()]
    advice = "completed work is kept; continue with --if-exists resume" if kept else "run the command again"
    assert err == f"batchmax: error: {word}, the output is unchanged; {advice}\n"
    assert kept in ([], [f".{out}.batchmax"])


def test_a_signal_that_was_swallowed_is_not_the_last(monkeypatch):
    """If a library swallows the first signal, the next one still ends the job."""

    def score(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)  # ignored, because an interruption is being handled
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("batchmax.jobs.score.score", score)
    assert main(["score", "a", "-o", "b"]) == 143


FINALIZED = """
import signal, sys, time
import batchmax.jobs.score
class Finalized:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))
def score(*_, **__):
    Finalized()
    time.sleep(3600)
batchmax.jobs.score.score = score
from batchmax.cli.app import main
sys.exit(main(["score", "a", "-o", "b"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_finalizer_is_not_lost(number, code):
    """A signal that arrives in a finalizer ends the job a moment later.

    Python can't raise exceptions from finalizers, and would print a traceback.
    """
    command = [sys.executable, "-c", FINALIZED, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr


def test_a_failure_that_unwinds_is_not_interrupted(monkeypatch, run):
    """A signal doesn't interrupt the cleanup after an error; the error is what is reported."""

    def score(*_, **__):
        try:
            raise DataError("torn")
        finally:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("batchmax.jobs.score.score", score)
    assert run("score", "a", "-o", "b") == (1, "", "batchmax: error: torn\n")


def test_signals_that_are_ignored_stay_ignored(monkeypatch, run):
    """SIGINT stays ignored if it was ignored before, as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        monkeypatch.setattr("batchmax.jobs.score.score", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        code, _, err = run("score", "a", "-o", "b", "-q")
        assert (code, err) == (0, "")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_signal_handlers_are_given_back(run, failing):
    """``main`` restores the SIGINT and SIGTERM handlers, also after an interrupt."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run("-h")
    failing(KeyboardInterrupt())
    assert run("score", "a", "-o", "b")[0] == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

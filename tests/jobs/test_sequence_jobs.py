"""Jobs on sequences give the same bytes when killed and resumed, with any threads, little memory, and in shards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.processes import HANGS

N_ROWS, N_CLASSES = 60, 3000
WORDS = ["--outputs", "probs,loss,pred,status", "--top-k", "4", "--on-bad-row", "null", "--quiet"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Write 60 sequences, 54 MB: long and short ones, a null row, and a null token."""
    random = np.random.default_rng(9)
    lengths = random.integers(0, 150, N_ROWS)
    folder = tmp_path_factory.mktemp("sequences")
    path = folder / "in.parquet"
    outer = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    n_tokens = int(lengths.sum())
    values = pa.array(random.standard_normal(n_tokens * N_CLASSES, dtype=np.float32))
    starts = pa.array(np.arange(n_tokens + 1, dtype=np.int32) * N_CLASSES)
    tokens = pa.ListArray.from_arrays(starts, values, mask=pa.array(np.arange(n_tokens) == n_tokens - 5))
    rows = pa.ListArray.from_arrays(outer, tokens, mask=pa.array(np.arange(N_ROWS) == 40))
    labels = pa.ListArray.from_arrays(outer, pa.array(random.integers(0, N_CLASSES, n_tokens)))
    pq.write_table(
        pa.table({"id": range(N_ROWS), "logits": rows, "labels": labels}), path, row_group_size=9, use_dictionary=False
    )
    return path


def command(source, out, *words):
    return [sys.executable, "-m", "batchmax", "score", str(source), "-o", str(out), *WORDS, *words]


def run(source, out, *words, **environment):
    done = subprocess.run(
        command(source, out, *words), capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr or "warning" in done.stderr, done.stderr
    return bytes_of(out)


def bytes_of(out):
    """Return the bytes of a Parquet file, or of each part in a folder."""
    files = [out] if Path(out).is_file() else sorted(Path(out).glob("part-*.parquet"))
    return {file.name if file != out else "": file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(source):
    """Return the output of an undisturbed run, and how long the run takes."""
    out = source.with_name("whole.parquet")
    run(source, out)
    start = time.monotonic()
    return run(source, out, "--if-exists", "overwrite"), time.monotonic() - start


@pytest.mark.parametrize(
    "words",
    [["--threads", "1"], ["--threads", "2"], ["--memory-limit", "600MiB"]],
    ids=" ".join,
)
def test_threads_and_memory_change_nothing(words, source, whole, tmp_path):
    """The output has the same bytes for any number of threads, and with just enough memory."""
    assert run(source, tmp_path / "out.parquet", *words) == whole[0]


@pytest.mark.parametrize("part", [0.3, 0.6, 0.75, 0.9])
def test_a_killed_run_goes_on_with_the_same_bytes(part, source, whole, tmp_path):
    """After SIGKILL, there is no output or the whole one; the resuming run gives the bytes of an undisturbed run."""
    out = tmp_path / "out.parquet"
    running = subprocess.Popen(command(source, out))
    time.sleep(part * whole[1])
    running.send_signal(signal.SIGKILL)
    assert running.wait(HANGS) in {-signal.SIGKILL, 0}
    assert not out.exists() or bytes_of(out) == whole[0]
    assert run(source, out, "--if-exists", "resume") == whole[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet"]


def test_killed_in_the_middle_of_a_row_group(source, whole, tmp_path):
    """Matrices written for an incomplete row group are overwritten by the run that resumes."""
    out = tmp_path / "out.parquet"
    running = subprocess.Popen(command(source, out))
    grown = 0
    while running.poll() is None and grown < 30_000_000:
        grown = max((path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()), default=0)
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    running.wait(HANGS)
    assert grown >= 30_000_000
    assert run(source, out, "--if-exists", "resume") == whole[0]


def test_shards_of_sequences(source, tmp_path, monkeypatch):
    """Shards make the parts of a folder, and the last run publishes the same output as one run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(3):
        shutil.copy(source, tmp_path / "in" / f"{number}.parquet")
    one = run("in", tmp_path / "one")
    assert len(one) == 3
    for shard in ("1/2", "0/2"):
        assert run("in", tmp_path / "out", "--shard", shard) == {}
    assert run("in", tmp_path / "out", "--if-exists", "resume") == one


def test_both_ways_of_reading_give_the_same_values(source, whole, tmp_path):
    """Reading with pyarrow instead of our reader gives the same values."""
    out = tmp_path / "out.parquet"
    run(source, out, BATCHMAX_PARQUET="pyarrow")
    (tmp_path / "want.parquet").write_bytes(whole[0][""])
    want, found = pq.read_table(tmp_path / "want.parquet"), pq.read_table(out)
    assert found.schema.equals(want.schema)
    assert repr(found.to_pylist()[38:42]) == repr(want.to_pylist()[38:42])
    for name in want.column_names:
        assert found[name].combine_chunks().equals(want[name].combine_chunks()), name

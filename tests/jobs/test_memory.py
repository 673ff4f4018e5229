"""Tests that peak memory doesn't grow with the file, and that buffers reuse their memory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import main
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.cores import usable_cores
from tests.support.paths import ROOT

MIB = 2**20
# Not ru_maxrss: a child process inherits that of its parent, which is large if the tests have loaded PyTorch.
PEAK = "peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM:')) * 1024"
SCORE = f"""
import sys
from batchmax import score
summary = score(sys.argv[1], sys.argv[2], limit=int(sys.argv[3]))
{PEAK}
print(summary.n_rows, peak)
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def make(path, n_rows, n_classes, *more):
    command = [sys.executable, "scripts/make_data.py", path, "--rows", n_rows, "--classes", n_classes, *more]
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def peak_of_scoring(path, n_rows):
    """Score the first rows of a file in a new process and return its peak resident memory in bytes."""
    out = path.with_name("out.parquet")
    command = [sys.executable, "-c", SCORE, str(path), str(out), str(n_rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    rows, peak = map(int, done.stdout.split())
    assert rows == n_rows == pq.read_metadata(out).num_rows
    out.unlink()
    return peak


@LINUX
@pytest.mark.parametrize("one_group", [False, True], ids=["row groups", "one row group"])
def test_twice_the_rows_take_the_same_memory(one_group, tmp_path):
    """Peak memory grows by less than 100 MiB from 400 MB to 800 MB of logits, in one row group or several.

    Smaller files don't fill all the buffers of a job.
    """
    few, many = 400_000, 800_000
    make(tmp_path / "in.parquet", many, 250, *(["--row-group-size", many] if one_group else []))
    peaks = [peak_of_scoring(tmp_path / "in.parquet", n_rows) for n_rows in (few, many)]
    assert peaks[1] - peaks[0] < 100 * MIB
    assert peaks[1] < 900 * MIB


@LINUX
@pytest.mark.parametrize("limit", [640 * MIB, 1024 * MIB])
@pytest.mark.parametrize("pyarrow", [False, True], ids=["matrices", "pyarrow"])
def test_several_readers_stay_below_the_memory_limit(pyarrow, limit, tmp_path):
    """With eight threads, of which up to four read, peak memory is less than the limit, also if pyarrow decodes."""
    make(tmp_path / "in.parquet", 800_000, 100, "--row-group-size", 40_000)
    environment = {**os.environ, **({"BATCHMAX_PARQUET": "pyarrow"} if pyarrow else {})}
    program = f"import batchmax, sys\nbatchmax.score('in.parquet', 'out.parquet', threads=8, memory_limit={limit})\n"
    command = [sys.executable, "-c", f"{program}{PEAK}\nprint(peak)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert int(done.stdout) < limit


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("one_group", [False, True], ids=["row groups", "one row group"])
def test_a_gigabyte_is_scored_in_little_memory(one_group, tmp_path):
    """1 GiB of logits is scored in less than 1.2 GB of resident memory, in one row group or several."""
    n_rows = 268_000
    make(tmp_path / "in.parquet", n_rows, 1000, *(["--row-group-size", n_rows] if one_group else []))
    assert peak_of_scoring(tmp_path / "in.parquet", n_rows) < 1.2e9


@LINUX
def test_text_that_is_stored_once_is_counted_as_often_as_it_is_there(tmp_path):
    """A file whose dictionary holds one long string for 60,000 rows is scored in less than 1 GiB.

    Decoded at once, the strings would take 1.2 GB.
    """
    n_rows = 60_000
    logits = pa.FixedSizeListArray.from_arrays(np.zeros(n_rows * 10, np.float32), 10)
    indices = pa.array(np.zeros(n_rows, np.int32))
    text = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 20_000]))
    table = pa.table({"text": text, "logits": logits, "label": np.zeros(n_rows, np.int64)})
    schema = pa.schema([pa.field("text", pa.large_string()), *list(table.schema)[1:]])
    with pq.ParquetWriter(tmp_path / "in.parquet", schema) as writer:
        writer.write_table(table.cast(schema), row_group_size=n_rows)
    assert (tmp_path / "in.parquet").stat().st_size < 5 * MIB
    assert peak_of_scoring(tmp_path / "in.parquet", n_rows) < 2**30


def test_buffers_hand_out_the_same_memory_again():
    """After a reset the same requests return the same memory; without a reset no arrays share memory."""
    buffers = Buffers()
    requests = [((5, 3), np.float32), ((7,), np.uint8), ((0, 4), np.float64), ((2, 2), np.float64)]
    first = [buffers.take(*request) for request in requests]
    for array, (shape, dtype) in zip(first, requests, strict=True):
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.aligned
        assert array.flags.writeable
    for number, array in enumerate(first):
        array.fill(number)
    assert [np.unique(array).tolist() for array in first] == [[0], [1], [], [3]]
    buffers.reset()
    again = [buffers.take(*request) for request in requests]
    assert [a.ctypes.data for a in again if a.size] == [a.ctypes.data for a in first if a.size]


def test_buffers_grow_and_serve_smaller_requests():
    """A larger request reallocates a buffer; a smaller one, of any dtype, returns the beginning of the buffer."""
    buffers = Buffers()
    buffers.take((4,), np.float32)
    buffers.reset()
    large = buffers.take((1000,), np.float64)
    large.fill(1.0)
    buffers.reset()
    assert buffers.take((3, 5), np.float32).ctypes.data == large.ctypes.data
    assert large.size == 1000


@LINUX
def test_usable_cores_are_within_the_machine():
    """``usable_cores`` is at least 1 and at most the number of cores in the CPU affinity."""
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@LINUX
def test_the_measure_of_memory_measures():
    """The measured peak of a process that fills 300 MiB is 300 to 400 MiB, even if its parent has more."""
    ours = bytearray(os.urandom(1)) * (600 * MIB)
    code = f"x = b'1' * (300 * 2**20)\n{PEAK}\nprint(peak)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 300 * MIB <= int(done.stdout) < 400 * MIB < len(ours)


@pytest.mark.parametrize(
    "words",
    [
        ("score", "in put.parquet", "-o", "out.parquet"),
        ("evaluate", "in put.parquet"),
        ("show", "in put.parquet", "--worst", "2"),
        ("compare", "in put.parquet", "in put.parquet"),
        ("report", "in put.parquet", "-o", "out.html"),
    ],
)
def test_the_remedy_for_a_limit_helps(tmp_path, monkeypatch, capsys, words):
    """An error about the memory limit suggests row groups that fit: an option, or a command that writes them."""
    monkeypatch.chdir(tmp_path)
    logits = np.random.default_rng(0).normal(size=64 * 50_000).astype(np.float32)
    table = pa.table({"logits": pa.FixedSizeListArray.from_arrays(logits, 50_000), "label": [0] * 64})
    pq.write_table(table, "in put.parquet")
    limit = ("-q", "--memory-limit", "300MiB")
    # compare also checks both inputs together.
    for _ in range(2 if words[0] == "compare" else 1):
        assert main([*words, *limit]) == 2
        remedy = capsys.readouterr().err.strip().partition("; ")[2]
        assert re.match(r"allow at least \d+MiB, or ", remedy)
        if words[0] == "score":
            words = (*words, *remedy.partition("row groups smaller: ")[2].split())
        else:
            command = shlex.split(remedy.partition("smaller: batchmax ")[2])
            assert main([*command, *limit]) == 0
            Path("smaller.parquet").replace("in put.parquet")
    assert main([*words, *limit]) == 0

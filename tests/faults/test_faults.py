"""Faults of the machine: the output path holds its old content or the whole new output, and the job can be resumed."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from itertools import count

import pytest

from tests.faults.harness import N_GROUPS, strace, strace_works
from tests.support.processes import HANGS, wait_until

needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is missing, or may not trace here")
KINDS = [("out.parquet", False), ("out.parquet", True), ("out", False), ("out", True)]
IDS = ["file", "file over another", "folder", "folder over another"]
WRITES = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate")
NAMES = ("mkdir", "link", "rename", "renameat2", "unlink", "unlinkat", "rmdir")


@pytest.fixture(params=KINDS, ids=IDS)
def job(request, jobs):
    """Return a job of each kind."""
    out, replacing = request.param
    return jobs(out, replacing=replacing)


KILLED_BY_DEFAULT = {
    ("out.parquet", False): {"write", "fsync", "link"},
    ("out", True): {"write", "renameat2"},
}
"""System calls at which the default run kills each kind of job: a new file, and a folder over another."""


def of_two_kinds(job):
    """Return whether the default run has this kind of job: a new file, or a folder over another."""
    return job in KILLED_BY_DEFAULT


def of_one_kind(job):
    """Return whether this is the job that writes a new file."""
    return job == ("out.parquet", False)


def ours(job):
    """Return every path that the job writes to, by its name at the time of the call, as strace needs them."""
    files = ("_SUCCESS", "_batchmax.parquet", "part-00000.parquet")
    inside = ("output", *(f"output/{name}" for name in files), "making", "journal", "new-journal", "lock", "old")
    beside = (job.out, *(job.out / name for name in files))
    return [job.staging, *(job.staging / name for name in inside), *beside, job.folder]


@needs_strace
@pytest.mark.faults(keep=lambda job, call: call in KILLED_BY_DEFAULT.get(job, ()))
@pytest.mark.parametrize("call", [*WRITES, *NAMES])
def test_killed_at_the_nth_call(job, table, everything, call):
    """A process that is killed at a write, a sync or a change of names leaves no partial output."""
    for number in count(1) if everything else (2,) if call == "write" else (1,):
        job.restart()
        done = job.run(wrap=strace(call, "signal=SIGKILL", number, *ours(job)))
        if done.returncode == 0:
            assert job.found() == "new"
            break
        job.judge(done, f"SIGKILL at `{call}` number 1, 2, … of each thread", job.name, table)


@needs_strace
@pytest.mark.faults(keep=lambda job, call: of_one_kind(job) and call in {"write", "fsync"})
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "renameat2"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_the_nth_call_fails(job, table, everything, call, error):
    """A failing or full disk ends the job with a one-line error."""
    for number in count(1) if everything else (2,):
        job.restart()
        done = job.run(wrap=strace(call, f"error={error}", number, *ours(job)))
        if done.returncode == 0:
            # Without links or exchanges, the job uses a fallback.
            assert job.found() == "new"
            if number > 3:
                break
            continue
        job.judge(done, f"{error} from `{call}` number 1, 2, … of each thread", job.name, table)


@needs_strace
@pytest.mark.faults(keep=lambda job, call: of_one_kind(job) and call in {"pread64", "preadv"})
@pytest.mark.parametrize("call", ["read", "pread64", "preadv", "preadv2"])
def test_reading_fails(job, table, everything, call):
    """An input that becomes unreadable ends the job with a one-line error; once it is readable, the job resumes."""
    for number in (1, 2, 4, 8, 16) if everything else (3,):
        job.restart()
        done = job.run(wrap=strace(call, "error=EIO", number, job.folder / "in.parquet"))
        if done.returncode == 0:
            break
        assert "in.parquet" in done.stderr
        job.judge(done, f"EIO from `{call}` of the input, number 1, 2, … of each thread", job.name, table)


@pytest.mark.faults(keep=of_two_kinds)
def test_killed_at_random(job, table, everything):
    """A process that is killed at a random moment leaves no partial output."""
    randomly = random.Random(7)
    start = time.monotonic()
    assert job.run().returncode == 0
    whole = time.monotonic() - start
    killed = 0
    while killed < (50 if everything else 2):
        job.restart()
        start = time.monotonic()
        with subprocess.Popen(job.command(), stderr=subprocess.PIPE, text=True) as process:
            try:
                process.wait(randomly.uniform(0.3, 1.0) * whole)
            except subprocess.TimeoutExpired:
                process.kill()
            _, err = process.communicate()
        if process.returncode == 0:
            # The run was faster than before and ended before the kill.
            whole = min(whole, time.monotonic() - start)
            continue
        killed += 1
        done = subprocess.CompletedProcess([], process.returncode, "", err)
        job.judge(done, "SIGKILL at a random moment", job.name, table)


@pytest.mark.faults(keep=of_two_kinds)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_random(job, table, everything, number):
    """A signal ends the job with a one-line message and its exit code, unless the job was already done."""
    randomly = random.Random(8)
    for _ in range(12 if everything else 1):
        job.restart()
        # A shell may start background jobs with SIGINT ignored.
        command = ["env", "--default-signal=INT", *job.command()]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: job.staging.exists() or process.poll() is not None, 0.002)
            time.sleep(randomly.uniform(0, 0.4))
            process.send_signal(number)
            _, err = process.communicate(timeout=HANGS)
        assert process.returncode in {0, 128 + number}, err
        done = subprocess.CompletedProcess([], process.returncode, "", err)
        job.judge(done, f"{number.name} at a random moment", job.name, table)


@pytest.mark.faults(keep=lambda job, limit: of_one_kind(job) and limit in {0, 5 << 20})
@pytest.mark.parametrize("limit", [0, 100_000, 1 << 20, 5 << 20, 11 << 20])
def test_a_limit_on_the_size_of_files(job, table, limit):
    """Exceeding the limit on file sizes gives an error with the path, not a signal."""
    done = job.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1
    assert "File too large" in done.stderr
    job.judge(done, "RLIMIT_FSIZE, from nothing to nearly enough", job.name, table)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses limits of the address space")
@pytest.mark.faults(keep=lambda job, megabytes: of_one_kind(job) and megabytes == 1300)
@pytest.mark.parametrize("megabytes", [600, 800, 1000, 1300, 1600, 2000])
def test_a_limit_on_memory(job, table, megabytes):
    """If memory is limited, the output path keeps its old content or holds the whole new output."""
    limit = megabytes << 20
    done = job.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    job.judge(done, "RLIMIT_AS, 600 to 2000 MB", job.name, table, says=False)


def test_a_full_disk(jobs, table, tmp_path):
    """The error for a full disk names the path; once there is space, the job resumes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount], check=False, capture_output=True
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        job = jobs("out.parquet", replacing=False)
        done = subprocess.run(
            [*job.command()[:-3], "-o", str(mount / "out.parquet"), "--quiet"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"batchmax: error: {mount}/.out.parquet.batchmax/output: cannot be written: No space"
        )
        assert list(mount.iterdir()) in ([], [mount / ".out.parquet.batchmax"])
        subprocess.run(["mount", "-o", "remount,size=40m", mount], check=True)
        again = subprocess.run(
            [*job.command()[:-3], "-o", str(mount / "out.parquet"), "--quiet", "--if-exists", "resume"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert again.returncode == 0, again.stderr
        assert (mount / "out.parquet").read_bytes() == job.new["out.parquet"]
        row = table.rows["a tmpfs of 8 MB", job.name]
        row.times, row.resumed = row.times + 1, row.resumed + 1
        row.exits["1"] += 1
        row.found["none"] += 1
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.faults(keep=of_one_kind)
def test_a_folder_that_may_not_be_written_to(job, table):
    """The error for a read-only folder is "Permission denied"."""
    wrap = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere")
        wrap = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    job.folder.chmod(0o555)
    try:
        done = job.run(wrap=wrap)
    finally:
        job.folder.chmod(0o755)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    job.judge(done, "a folder that is read-only", job.name, table)


@pytest.mark.faults(keep=of_one_kind)
def test_two_runs_at_once(job, table, everything):
    """Of several runs at once, one succeeds; the others report that another run makes the output, or that it exists."""
    for _ in range(10 if everything else 1):
        job.restart()
        runs = [subprocess.Popen(job.command(), stderr=subprocess.PIPE, text=True) for _ in range(3)]
        errors = [run.communicate(timeout=HANGS)[1] for run in runs]
        codes = [run.returncode for run in runs]
        assert 0 in codes
        for code, error in zip(codes, errors, strict=True):
            said = "another run is making this output" in error or "the output exists" in error
            assert code == 0 or (code == 1 and said), error
        assert job.found() == "new"
        job.judge(subprocess.CompletedProcess([], 0, "", ""), "three runs at once", job.name, table)


@pytest.mark.faults(keep=of_one_kind)
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_threading_layers(job, table, layer):
    """Numba's threading layers give the same bytes."""
    done = job.run(env={**os.environ, "NUMBA_THREADING_LAYER": layer})
    assert done.returncode == 0, done.stderr
    job.judge(done, f"Numba's {layer} layer", job.name, table)


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "may not be written to"])
def test_a_kernel_cache_that_is_no_good(jobs, table, tmp_path, damage):
    """A damaged kernel cache causes a warning and a recompilation, and the job succeeds."""
    job = jobs("out.parquet", replacing=False)
    environment = {**os.environ, "BATCHMAX_CACHE_DIR": str(tmp_path / "cache")}
    assert job.run(env=environment).returncode == 0
    job.restart()
    for path in (tmp_path / "cache").rglob("*.nb*"):
        data = path.read_bytes()
        half = len(data) // 2
        if damage == "cut short":
            path.write_bytes(data[:half])
        elif damage == "a flipped bit":
            path.write_bytes(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
        else:
            path.unlink()
            path.mkdir()
    words = [word for word in job.command() if word != "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    # A flipped bit in the index may hide the kernel, and then there is no warning.
    assert "compiling again" in done.stderr or damage == "a flipped bit"
    done = subprocess.CompletedProcess([], 0, "", "")
    job.judge(done, f"a kernel cache: {damage}", job.name, table)


def test_there_is_something_to_go_on_with(jobs, table):
    """A job that is killed after rows are recorded in the journal resumes and gives the whole output."""
    del table
    job = jobs("out.parquet", replacing=False)
    journal = job.staging / "journal"

    def has_rows():
        with contextlib.suppress(FileNotFoundError):
            return b'"position":1000' in journal.read_bytes()
        return False

    while True:
        job.restart()
        with subprocess.Popen(job.command(), stderr=subprocess.DEVNULL) as process:
            wait_until(lambda: has_rows() or process.poll() is not None, 0.001)
            process.kill()
        if has_rows():
            break
        # The run ended before the journal was checked again.
        assert process.returncode == 0
    again = job.run("--if-exists", "resume", "--debug")
    assert again.returncode == 0
    assert N_GROUPS == 6
    assert job.found() == "new"

"""Results are right, and nothing hangs, with many threads, all threading layers of Numba, and forked processes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import HANGS
from tests.support.requirements import is_missing, package


def run_program(arguments: list[str], layer: str) -> list[str]:
    """Run Python with a threading layer and four threads; return the lines that it prints."""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    if layer == "tbb":
        libraries = {file.locate().parent for file in importlib.metadata.files("tbb") or () if "libtbb.so" in file.name}
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == 0, f"exit {done.returncode} under {layer}: {done.stdout}{done.stderr}"
    return done.stdout.splitlines()


@pytest.fixture(params=["omp", "tbb", "workqueue"])
def layer(request: pytest.FixtureRequest) -> str:
    """Return each threading layer that this installation of Numba has."""
    name = str(request.param)
    if name != "workqueue" and importlib.util.find_spec(f"numba.np.ufunc.{name}pool") is None:
        pytest.skip(f"this build of Numba has no threading layer {name}")
    if name == "tbb" and not any(importlib.metadata.distributions(name="tbb")):
        pytest.skip("TBB is not installed: pip install tbb (for x86-64 only)")
    return name


def test_threads_and_forks(layer: str, tmp_path: Path) -> None:
    """Threads and forked processes compute the right result with each layer.

    The processes are forked before and after PyTorch or kernels have used threads, while another thread runs a kernel,
    and while another thread compiles one.
    """
    torch = [] if is_missing("torch") else ["torch"]
    compiles = ["compile"] if layer == "workqueue" else []  # compilation doesn't depend on the layer, so one is enough
    lines = run_program(["-m", "tests.support.thread_cases", str(tmp_path), *torch, *compiles], layer)
    assert lines[-1] == "the parent right"
    assert len(lines) == 11 + 2 * len(compiles)
    assert [line for line in lines if not line.endswith(" right")] == []


WORKERS = """
import numpy as np, torch
import batchmax
torch.randn(2000, 2000).exp().sum()
logits = np.random.default_rng(0).standard_normal((64, 20)).astype(np.float32)
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(logits)
    def __getitem__(self, i):
        return batchmax.softmax(logits[i])
loader = torch.utils.data.DataLoader(Rows(), batch_size=16, num_workers=2, multiprocessing_context="fork")
found = torch.cat(list(loader)).numpy()
assert found.tobytes() == batchmax.softmax(logits).tobytes()
import datasets
rows = datasets.Dataset.from_dict({"logits": logits.tolist()})
mapped = rows.map(lambda row: {"probs": batchmax.softmax(np.float32(row["logits"]))}, num_proc=2)
np.testing.assert_array_equal(np.float32(mapped["probs"]), found)
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert np.array(pool.map(batchmax.softmax, list(logits))).tobytes() == found.tobytes()
print("right")
"""


NO_HELPER = """
import multiprocessing, os
import numpy as np
multiprocessing.set_start_method("forkserver")
import batchmax
batchmax.softmax(np.zeros((1000, 100), np.float32))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("alone")
"""


def test_threads_need_no_other_process() -> None:
    """With the start method forkserver, the default from Python 3.14 on, no helper process is started."""
    ran = subprocess.run([sys.executable, "-c", NO_HELPER], capture_output=True, text=True, check=True)
    assert ran.stdout == "alone\n"


@pytest.mark.slow
def test_workers_of_other_libraries(tmp_path: Path) -> None:
    """Forked workers of a DataLoader, of ``datasets.map`` and of a pool give the same bits as the parent process."""
    package("torch")
    package("datasets")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", WORKERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "right"


INTERRUPTED = """
import signal, sys, threading, time
import numpy as np
import batchmax
batchmax.softmax(np.zeros((2, 3)))  # so that the threads run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background jobs ignore it
main = threading.get_ident()
threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
try:
    batchmax.softmax(np.zeros((2, 1024), np.float32))
except KeyboardInterrupt:
    compiling = [thread.name for thread in threading.enumerate() if thread.name.startswith("compile")]
    print(len(compiling), flush=True)
print(batchmax.softmax(np.zeros((2, 1024), np.float32)).sum())
"""


def test_an_interruption_does_not_disturb_compiling(tmp_path: Path) -> None:
    """An interrupt ends the wait for a kernel at once; the compilation is completed, and the kernel can be used."""
    environment = {**os.environ, "BATCHMAX_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2.0\n", "")

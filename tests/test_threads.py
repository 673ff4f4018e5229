"""From many Python threads, under each threading layer of Numba, after a fork: right, or a Python error.

Each test runs a program of its own, because a threading layer is chosen once in a process and because what
must not happen (an abort, a hang) would take the test run with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 150

LAYERS = ["omp", "workqueue"]

COMMON = """
import os, signal, sys, threading, time
import numpy as np
import batchmax

rng = np.random.default_rng(0)
CASES = []
for n_rows, n_classes, dtype in ((400, 10, np.float32), (300, 100, np.float64), (64, 2000, np.float32)):
    logits = rng.standard_normal((n_rows, n_classes)).astype(dtype)
    labels = rng.integers(0, n_classes, n_rows)
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    sums = np.exp(wide).sum(axis=1)
    losses = np.log(sums) - wide[np.arange(n_rows), labels]
    CASES.append((logits, labels, np.exp(wide) / sums[:, None], losses))


def run(times):
    for turn in range(times):
        for logits, labels, probs, losses in CASES:
            got = batchmax.softmax_cross_entropy(logits, labels)
            np.testing.assert_allclose(got[0], probs, rtol=1e-6)
            np.testing.assert_allclose(got[1], losses, rtol=1e-5, atol=1e-7)


def watch(child, what):
    # A child that hangs is ended and reported; it must not hang the test.
    until = time.monotonic() + 30
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            print(what, {0: "right", 3: "python error"}.get(code, f"exit {code}"), flush=True)
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(what, "hang", flush=True)


def in_child(what, times=2):
    child = os.fork()
    if child == 0:
        code = 4
        try:
            run(times)
            code = 0
        except AssertionError as error:
            print(error, file=sys.stderr, flush=True)
        except Exception as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            code = 3
        finally:
            os._exit(code)
    watch(child, what)
"""

TOGETHER = """
errors = []


def guarded(barrier):
    barrier.wait()
    try:
        run(15)
    except BaseException as error:
        errors.append(error)


for warm in (False, True):
    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=guarded, args=(barrier,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("together", "wrong" if errors else "right", flush=True)
for error in errors:
    print(error, file=sys.stderr)
"""

AFTER_RUNNING = """
run(1)
in_child("after running")
run(1)
in_child("and again")
run(1)
print("parent right", flush=True)
"""

BEFORE_RUNNING = """
in_child("before running")
run(1)
print("parent right", flush=True)
"""

WHILE_RUNNING = """
run(1)
large = rng.standard_normal((2000, 2000)).astype(np.float32)
stop = threading.Event()
failures = []


def keep_busy():
    out = np.empty_like(large)
    try:
        while not stop.is_set():
            batchmax.softmax(large, out=out)
    except BaseException as error:
        failures.append(error)


threads = [threading.Thread(target=keep_busy) for _ in range(2)]
for thread in threads:
    thread.start()
for turn in range(6):
    time.sleep(0.003 * (turn + 1))
    in_child("while running", times=1)
stop.set()
for thread in threads:
    thread.join()
run(1)
print("parent", "wrong" if failures else "right", flush=True)
"""

HASH = """
import hashlib
digest = hashlib.sha256()
for n_rows, n_classes in ((1, 7), (201, 10), (99, 33), (7, 50_000)):
    for dtype in (np.float32, np.float64):
        logits = rng.standard_normal((n_rows, n_classes)).astype(dtype)
        for result in batchmax.softmax_cross_entropy(logits, np.arange(n_rows) % n_classes):
            digest.update(result.tobytes())
print(digest.hexdigest())
"""


def run_program(program: str, layer: str, *, n_threads: int = 4) -> list[str]:
    """Run a program under a threading layer; return the lines it prints."""
    environment = {
        **os.environ,
        "NUMBA_THREADING_LAYER": layer,
        "NUMBA_NUM_THREADS": str(n_threads),
        "OMP_NUM_THREADS": str(n_threads),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", COMMON + program],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"hangs under {layer}: {out}{err}")
    assert process.returncode == 0, f"exit {process.returncode} under {layer}: {out}{err}"
    return out.splitlines()


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> str:
    """Name each threading layer that this installation of Numba has."""
    if request.param == "omp":
        pytest.importorskip("numba.np.ufunc.omppool")
    return str(request.param)


def test_eight_threads_at_once(layer: str) -> None:
    """Eight Python threads get right results, also when the first calls compile at the same time."""
    assert run_program(TOGETHER, layer) == ["together right"] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("program", [AFTER_RUNNING, BEFORE_RUNNING, WHILE_RUNNING], ids=["after", "before", "while"])
def test_a_forked_child(layer: str, program: str) -> None:
    """A forked child is right or raises a Python error, whenever it was forked; the parent goes on."""
    *children, parent = run_program(program, layer)
    assert parent == "parent right"
    assert children
    for line in children:
        assert line.endswith((" right", " python error")), children


def test_every_number_of_threads_gives_the_same_bytes(layer: str) -> None:
    """One, two or five Numba threads: the same bytes under one threading layer."""
    assert len({run_program(HASH, layer, n_threads=n)[-1] for n in (1, 2, 5)}) == 1


INTERRUPTED = """
import signal, sys, threading, time
import numpy as np
import batchmax
batchmax.softmax(np.zeros((2, 3)))  # so that the threads run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background jobs ignore it
main = threading.get_ident()
threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
start = time.monotonic()
try:
    batchmax.softmax(np.zeros((2, 1024), np.float32))
except KeyboardInterrupt:
    compiling = [thread.name for thread in threading.enumerate() if thread.name.startswith("compile")]
    print(len(compiling), flush=True)
print(batchmax.softmax(np.zeros((2, 1024), np.float32)).sum())
"""


def test_an_interruption_does_not_disturb_compiling(tmp_path: Path) -> None:
    """Whoever waits for a kernel is interrupted at once; the kernel is compiled to its end, and can be used."""
    environment = {**os.environ, "BATCHMAX_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2.0\n", "")

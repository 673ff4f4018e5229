"""Calls batchmax from threads and forked children, and prints a line for each case: ``CASE right``, or what went wrong.

It runs as a separate process, because a process can choose a threading layer only once, and because an abort or a
hang would end the test run. The order of the cases in :func:`main` matters: what a child can do depends on what its
parent did before.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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

FOLDER = Path(tempfile.mkdtemp(dir=sys.argv[1]))
TABLE = pa.table({"logits": list(CASES[0][0]), "label": CASES[0][1]})
pq.write_table(TABLE, FOLDER / "logits.parquet")


def arrays(times: int = 2) -> None:
    """Check results of the NumPy API."""
    for _ in range(times):
        for logits, labels, probs, losses in CASES:
            found = batchmax.softmax_cross_entropy(logits, labels)
            np.testing.assert_allclose(found[0], probs, rtol=1e-6)
            np.testing.assert_allclose(found[1], losses, rtol=1e-5, atol=1e-7)


def everything() -> None:
    """Check the NumPy API, ``score_batch``, ``scan``, and ``score`` from file to file."""
    arrays()
    mean, out = CASES[0][3].mean(), FOLDER / f"{os.getpid()}.parquet"
    losses = [
        batchmax.score_batch(TABLE.to_batches()[0]).column("loss"),
        batchmax.scan(str(FOLDER / "logits.parquet")).read_all().column("loss"),
    ]
    summary = batchmax.score(str(FOLDER / "logits.parquet"), str(out), if_exists="overwrite")
    losses.append(pq.read_table(out).column("loss"))
    for column in losses:
        np.testing.assert_allclose(np.mean(column.to_numpy(zero_copy_only=False)), mean, rtol=1e-5)
    np.testing.assert_allclose(summary.mean_loss, mean, rtol=1e-5)


def say(case: str, outcome: str) -> None:
    """Print the outcome of a case."""
    print(case, outcome, flush=True)


def in_child(case: str, work: Callable[[], None] = everything) -> None:
    """Run a function in a forked child, wait for the child, and print how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not run the rest of the program after any exception
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    say(case, "right" if code == 0 else f"exit {code}")


def in_threads(work: Callable[[], None], count: int) -> Callable[[], bool]:
    """Start threads that all run a function; return a function that joins them and returns whether all succeeded."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def guarded() -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            traceback.print_exc()
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()

    def joined() -> bool:
        for thread in threads:
            thread.join()
        return not errors

    return joined


def after_torch() -> None:
    """Fork after PyTorch has used its threads and before this process loads a kernel."""
    import torch

    torch.randn(2000, 2000).exp().sum()
    assert "batchmax.kernels" not in sys.modules
    in_child("forked after PyTorch used its threads")


def while_running() -> None:
    """Fork while other threads run a kernel."""
    large = rng.standard_normal((2000, 2000)).astype(np.float32)
    stop = threading.Event()

    def keep_busy() -> None:
        out = np.empty_like(large)
        while not stop.is_set():
            batchmax.softmax(large, out=out)

    joined = in_threads(keep_busy, 2)
    for turn in range(4):
        time.sleep(0.003 * (turn + 1))
        in_child("forked while kernels run", arrays)
    stop.set()
    say("threads that ran kernels meanwhile", "right" if joined() else "wrong")


def while_compiling() -> None:
    """Fork while another thread compiles a kernel that isn't in the cache."""
    from numba.core.compiler_lock import global_compiler_lock

    os.environ["BATCHMAX_CACHE_DIR"] = str(FOLDER / "cache")

    def margins() -> None:
        batchmax.score_batch(TABLE.to_batches()[0], outputs="margin")

    joined = in_threads(margins, 1)
    while global_compiler_lock._lock.acquire(blocking=False):
        global_compiler_lock._lock.release()
        time.sleep(0.001)
    in_child("forked while a kernel compiles", margins)
    say("the thread that compiled it", "right" if joined() else "wrong")


def numbers_of_threads() -> None:
    """Check that results with one, two and four threads are bit-identical."""
    before = numba.get_num_threads()
    found = set()
    for threads in (1, 2, 4):
        numba.set_num_threads(threads)
        found.add(b"".join(part.tobytes() for z, y, *_ in CASES for part in batchmax.softmax_cross_entropy(z, y)))
    numba.set_num_threads(before)
    say("the bits with one, two and four threads", "right" if len(found) == 1 else "wrong")


def main() -> None:
    """Run all cases."""
    if "torch" in sys.argv[2:]:
        after_torch()
    else:
        in_child("forked before any kernel ran")
    in_threads_first = in_threads(lambda: arrays(15), 8)
    say("eight threads, the first calls of the process", "right" if in_threads_first() else "wrong")
    everything()
    in_child("forked after kernels ran")
    everything()
    in_child("forked again")
    while_running()
    if "compile" in sys.argv[2:]:
        while_compiling()
    numbers_of_threads()
    everything()
    say("the parent", "right")


if __name__ == "__main__":
    main()

"""Benchmark of the kernels in memory: run as a script in its own process, it prints one line of JSON.

::

    kernels.py THREADS ROUNDS BYTES K...

prints ``[{"n_classes", "who", "seconds": [one a round], "bytes"}, …]``, for about ``BYTES`` of float32 logits each. The
contenders take turns in every round. ``batchmax`` computes softmax and loss into reused buffers, ``torch-out`` only
softmax into a reused buffer, and ``torch`` softmax and cross-entropy as commonly written. Libraries that aren't
installed are left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

PAUSE = 0.02
"""Seconds between two contenders, so that the threads of the first stop spinning."""


def contenders(logits: Any, labels: Any, threads: int) -> dict[str, Callable[[], Any]]:
    """Return the calls to time, by name; ``logits`` is (n_rows, K) float32, ``labels`` (n_rows,) int64."""
    import numpy as np

    import batchmax

    probs, losses = np.empty_like(logits), np.empty(len(logits), np.float32)
    found: dict[str, Callable[[], Any]] = {
        "copy": lambda: np.copyto(probs, logits),
        "batchmax": lambda: batchmax.softmax_cross_entropy(logits, labels, out=(probs, losses)),
        "batchmax-softmax": lambda: batchmax.softmax(logits, out=probs),
    }
    try:
        import torch
    except ModuleNotFoundError:
        pass
    else:
        torch.set_num_threads(threads)
        z, y, out = torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(probs)
        found["torch-out"] = lambda: torch.softmax(z, -1, out=out)
        found["torch"] = lambda: (
            torch.softmax(z, -1),
            torch.nn.functional.cross_entropy(z, y, reduction="none"),
        )
    try:
        from scipy.special import softmax
    except ModuleNotFoundError:
        pass
    else:
        found["scipy"] = lambda: softmax(logits, axis=-1)
    return found


def measure(n_classes: int, threads: int, rounds: int, size: int) -> list[dict[str, Any]]:
    """Time every contender ``rounds`` times, after one warm-up call that isn't counted."""
    import numpy as np

    rng = np.random.default_rng(0)
    n_rows = max(1, size // (4 * n_classes))
    logits = 2 * rng.standard_normal((n_rows, n_classes), dtype=np.float32)
    labels = rng.integers(0, n_classes, n_rows)
    calls = contenders(logits, labels, threads)
    seconds: dict[str, list[float]] = {who: [] for who in calls}
    order = list(calls.items())
    for number in range(rounds + 1):
        # Rotate the order: each contender finds the caches as the one before it left them.
        order.append(order.pop(0))
        for who, call in order:
            time.sleep(PAUSE)
            start = time.perf_counter()
            call()
            if number:
                seconds[who].append(time.perf_counter() - start)
    return [
        {"n_classes": n_classes, "who": who, "seconds": times, "bytes": logits.nbytes} for who, times in seconds.items()
    ]


def main(arguments: list[str]) -> None:
    """Print the measurements that the arguments select."""
    threads, rounds, size, *widths = map(int, arguments)
    warnings.filterwarnings("ignore")
    # The libraries read these variables when they are imported, so they are set before.
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(threads)
    print(json.dumps([line for width in widths for line in measure(width, threads, rounds, size)]))


if __name__ == "__main__":
    main(sys.argv[1:])

"""How a job uses the CPU: the number of threads, and the standard floating-point mode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from batchmax.kernels.compiler.dispatch import limit_threads, standard_floats
from batchmax.options.input_options import RunOptions
from batchmax.runtime.cores import usable_cores


@contextlib.contextmanager
def use_threads(options: RunOptions) -> Iterator[None]:
    """Limit the threads of the kernels that this thread calls, to ``options.threads`` or to the usable cores.

    This thread and those that it starts meanwhile compute in the standard floating-point mode. Arrow's threads belong
    to the process: they are limited only if ``options.threads`` is given, until the last such job ends.
    """
    limit_threads(options.threads or usable_cores())
    try:
        with _arrow_threads(options.threads), standard_floats():
            yield
    finally:
        limit_threads(None)


@contextlib.contextmanager
def page_workers(options: RunOptions) -> Iterator[ThreadPoolExecutor]:
    """Limit the threads as :func:`use_threads` does, and yield an executor that decompresses and encodes pages."""
    with use_threads(options), ThreadPoolExecutor(options.threads or usable_cores(), "pages") as workers:
        yield workers


@contextlib.contextmanager
def _arrow_threads(threads: int | None) -> Iterator[None]:
    """Limit Arrow's threads; do nothing for None."""
    if threads is None:
        yield
        return
    with _LOCK:
        _COUNTS_BEFORE.append(pa.cpu_count())
        pa.set_cpu_count(threads)
    try:
        yield
    finally:
        with _LOCK:
            before = _COUNTS_BEFORE.pop()
            if not _COUNTS_BEFORE:
                pa.set_cpu_count(before)


_LOCK = threading.Lock()
_COUNTS_BEFORE: list[int] = []
"""Arrow's number of threads before each job that limits it; the first is restored after the last job."""

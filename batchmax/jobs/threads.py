"""How a job uses the CPU: the number of threads, and the standard floating-point mode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from batchmax import kernels
from batchmax.options.input_options import RunOptions
from batchmax.runtime.cores import usable_cores


@contextlib.contextmanager
def use_threads(options: RunOptions) -> Iterator[None]:
    """Limit the threads of the kernels that this thread calls, to ``options.threads`` or to the usable cores.

    This thread and those that it starts meanwhile compute in the standard floating-point mode. Arrow's threads belong
    to the process: they are limited only if ``options.threads`` is given, until the last such job ends.
    """
    kernels.limit_threads(options.threads or usable_cores())
    if options.threads is not None:
        _ARROW_THREADS.limit(options.threads)
    try:
        with kernels.standard_floats():
            yield
    finally:
        kernels.limit_threads(None)
        if options.threads is not None:
            _ARROW_THREADS.release()


@contextlib.contextmanager
def page_workers(options: RunOptions) -> Iterator[ThreadPoolExecutor]:
    """Limit the threads as :func:`use_threads` does, and yield an executor that decompresses and encodes pages."""
    with use_threads(options), ThreadPoolExecutor(options.threads or usable_cores(), "pages") as workers:
        yield workers


class _ArrowThreads:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs = 0
        self._before = 0

    def limit(self, threads: int) -> None:
        with self._lock:
            if not self._jobs:
                self._before = pa.cpu_count()
            self._jobs += 1
            pa.set_cpu_count(threads)

    def release(self) -> None:
        with self._lock:
            self._jobs -= 1
            if not self._jobs:
                pa.set_cpu_count(self._before)


_ARROW_THREADS = _ArrowThreads()

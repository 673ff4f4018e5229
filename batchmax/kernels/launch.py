"""How kernels are compiled, kept and started.

A kernel is compiled when it is first called. Numba's ``workqueue`` layer aborts the process when two threads enter a
parallel kernel, so one lock covers all kernels under every layer; each kernel uses all cores by itself, so nothing is
lost. GNU OpenMP kills a forked child that starts a parallel kernel; a child of a process that has started threads
therefore runs the same functions compiled without threads. They give the same bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numba
import numpy as np

from batchmax.kernels.cache import KernelCache


class _State:
    """What all kernels share. A forked child starts with a lock of its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.serial = False
        self.limits = threading.local()

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        try:
            numba.threading_layer()
        except ValueError:  # no parallel kernel has run, so there is nothing a fork could have broken
            return
        self.serial = True


_STATE = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_STATE.after_fork)


def limit_threads(threads: int | None) -> None:
    """Let kernels that this thread calls use at most this many threads; None for as many as Numba has."""
    _STATE.limits.threads = threads


class Kernel:
    """A function of arrays, compiled on first use, that may be called from any thread and after a fork.

    The first ``inputs`` arguments are handed on as read-only arrays, whatever they are: Numba compiles anew for an
    array that may be written to, and inputs come as both.
    """

    def __init__(self, function: Callable[..., Any], inputs: int, *, parallel: bool = True) -> None:
        self._function = function
        self._inputs = inputs
        self._threaded = parallel
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        """Run the kernel on these arrays; what it is to fill is filled in place."""
        arguments = (*map(_read_only, arguments[: self._inputs]), *arguments[self._inputs :])
        if not self._threaded:
            return self._serial(*arguments)
        with _STATE.lock:
            if _STATE.serial:
                return self._serial(*arguments)
            available = numba.config.NUMBA_NUM_THREADS
            before = numba.get_num_threads()
            limit = getattr(_STATE.limits, "threads", None)
            numba.set_num_threads(min(limit or before, available))
            try:
                return self._parallel(*arguments)
            finally:
                numba.set_num_threads(before)

    @cached_property
    def _parallel(self) -> Any:
        return _compile(self._function, parallel=True)

    @cached_property
    def _serial(self) -> Any:
        return _compile(self._function, parallel=False)


def _read_only(argument: Any) -> Any:
    if not isinstance(argument, np.ndarray) or not argument.flags.writeable:
        return argument
    view = argument.view()
    view.flags.writeable = False
    return view


def _compile(function: Callable[..., Any], *, parallel: bool) -> Any:
    dispatcher = numba.njit(function, parallel=parallel, nogil=True, error_model="numpy")
    dispatcher._cache = KernelCache(function, parallel=parallel)  # noqa: SLF001 - Numba offers no other way to name the folder
    dispatcher.compile = partial(_undisturbed, dispatcher.compile)
    return dispatcher


def _undisturbed(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do work in a thread of its own, which signals do not reach: an exception in the middle of LLVM ends the process.

    Whoever waits for it is interrupted at once, and the work goes on.
    """
    thread = ThreadPoolExecutor(1, "compile")
    done = thread.submit(work, *arguments)
    thread.shutdown(wait=False)
    return done.result()

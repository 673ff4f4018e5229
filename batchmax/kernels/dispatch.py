"""How kernels are compiled, kept and started.

A kernel is compiled when it is first called. Numba's ``workqueue`` layer aborts the process when two threads enter a
parallel kernel, so one lock covers all kernels under every layer; each kernel uses all cores by itself, so nothing is
lost.

Threads do not survive a fork, but an OpenMP runtime in the child believes that they did: GNU OpenMP waits for them for
ever, and it may be another library that used it, such as PyTorch, whose runtime Numba shares. In a forked child with an
OpenMP runtime, or whose parent ran kernels, kernels therefore run as the same functions compiled without threads,
which give the same bits.

Numba takes a lock between processes before it starts threads, which from Python 3.14 on needs a helper process, and
always shared memory. Each process has threads of its own, so the lock is left out; Numba has another one for threads.

A fork may come while another thread compiles or loads a kernel. The locks that Numba and LLVM hold then would never be
released in the child, so :func:`os.fork` waits until they are free.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import parallel as numba_threads

from batchmax.kernels.cache import KernelCache
from batchmax.kernels.float_mode import STANDARD, exchange
from batchmax.runtime.compilation import compiling


class _State:
    """What all kernels share: the lock, whether they run without threads, and each thread's limit of threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.serial = _is_forked() and _cannot_start_threads()
        self.limits = threading.local()

    def after_fork_in_child(self) -> None:
        _release_compilers()
        self.lock = threading.Lock()
        self.serial = self.serial or _cannot_start_threads()


FORKED_WITHOUT_EXEC = 0x40
"""The flag of a Linux process that was forked and has executed no other program since: ``PF_FORKNOEXEC``."""
OPENMP_RUNTIMES = ("libgomp", "libomp", "libiomp")


def _is_forked() -> bool:
    """Return whether this process is a forked copy of another, which may have imported this module or not."""
    try:
        # The name of the program, in parentheses, may contain anything.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return bool(int(fields[6]) & FORKED_WITHOUT_EXEC)
    except (OSError, ValueError, IndexError):
        return False


def _cannot_start_threads() -> bool:
    """Return whether a forked child may hang, or be killed, when it starts threads of Numba."""
    try:
        numba.threading_layer()
    except ValueError:  # no parallel kernel has run
        try:
            libraries = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return True
        return any(name in libraries for name in OPENMP_RUNTIMES)
    return True


def _hold_compilers() -> None:
    """Wait until no other thread compiles or loads a kernel, and keep it so."""
    global_compiler_lock.acquire()
    ffi.lib._lock.__enter__()  # noqa: SLF001 - LLVM's lock has no public name


def _release_compilers() -> None:
    ffi.lib._lock.__exit__(None, None, None)  # noqa: SLF001
    global_compiler_lock.release()


_STATE = _State()
numba_threads._backend_init_process_lock = nullcontext()  # noqa: SLF001 - Numba offers no other way to do without
os.register_at_fork(
    before=_hold_compilers, after_in_parent=_release_compilers, after_in_child=_STATE.after_fork_in_child
)


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
        self._dispatchers: dict[bool, Any] = {}
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

    @property
    def _parallel(self) -> Any:
        return self._dispatcher(parallel=True)

    @property
    def _serial(self) -> Any:
        return self._dispatcher(parallel=False)

    def _dispatcher(self, *, parallel: bool) -> Any:
        # Not a cached property: up to Python 3.11 these have a lock, which a fork may leave locked in the child.
        if parallel not in self._dispatchers:
            self._dispatchers.setdefault(parallel, _compile(self._function, parallel=parallel))
        return self._dispatchers[parallel]


_exchange = Kernel(exchange, 0, parallel=False)


@contextmanager
def standard_floats() -> Iterator[None]:
    """Let the calling thread compute in the standard floating-point mode: a context, or a decorator of a function.

    Threads that are started in the context compute in that mode, too. See :mod:`batchmax.kernels.float_mode`.
    """
    before = _exchange(STANDARD)
    try:
        yield
    finally:
        _exchange(before)


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
    # What the cache has is not compiled.
    dispatcher._compiler.compile = partial(_announced, dispatcher._compiler.compile)  # noqa: SLF001
    return dispatcher


def _announced(work: Callable[..., Any], *arguments: Any) -> Any:
    """Compile, and say so to those who wait."""
    with compiling():
        return work(*arguments)


def _undisturbed(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do work in a thread of its own, which signals do not reach: an exception in the middle of LLVM ends the process.

    Whoever waits for it is interrupted at once, and the work goes on.
    """
    thread = ThreadPoolExecutor(1, "compile")
    done = thread.submit(work, *arguments)
    thread.shutdown(wait=False)
    return done.result()

"""Compiling, caching and launching kernels.

A kernel is compiled when it is first called. Numba's ``workqueue`` layer aborts the process if two threads enter a
parallel kernel, so one lock covers all kernels, with every threading layer. Each kernel uses all cores, so the lock
costs nothing.

Threads don't survive a fork, but the OpenMP runtime in the child still expects them: GNU OpenMP waits for them forever.
The parent's OpenMP threads may come from another library, such as PyTorch, if Numba shares its runtime. In a forked
child that has loaded an OpenMP runtime, or whose parent ran kernels, the kernels are therefore the same functions
compiled without threads. Their results have the same bits.

Numba takes an interprocess lock before it starts threads. The lock needs shared memory, and from Python 3.14 on also a
helper process. It is replaced by a no-op: each process has its own threads, and Numba has another lock between threads.

If a process forks while another thread compiles or loads a kernel, the child would inherit locks of Numba and LLVM that
nobody releases. :func:`os.fork` therefore waits until these locks are free.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite.binding import ffi
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import parallel as numba_threads

from batchmax.kernels.compiler.cache import KernelCache
from batchmax.kernels.compiler.float_mode import STANDARD, exchange
from batchmax.kernels.compiler.machine_code import only_for_entry_points
from batchmax.runtime.compilation import compiling


class _State:
    """State shared by all kernels: a lock, whether they run without threads, and the thread limit of each thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.serial = _is_forked() and _cannot_start_threads()
        self.limits = threading.local()

    def after_fork_in_child(self) -> None:
        _release_compilers()
        self.lock = threading.Lock()
        self.serial = self.serial or _cannot_start_threads()


FORKED_WITHOUT_EXEC = 0x40
"""``PF_FORKNOEXEC``: the flag of a Linux process that was forked and has not called exec since."""
OPENMP_RUNTIMES = ("libgomp", "libomp", "libiomp")


def _is_forked() -> bool:
    """Return whether this process was forked and has not called exec since."""
    try:
        # The program's name, in parentheses, may contain anything.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return bool(int(fields[6]) & FORKED_WITHOUT_EXEC)
    except (OSError, ValueError, IndexError):
        return False


def _cannot_start_threads() -> bool:
    """Return whether a forked child may hang or be killed if Numba starts threads in it."""
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
    """Wait until no thread compiles or loads a kernel, and keep others from starting."""
    global_compiler_lock.acquire()
    ffi.lib._lock.__enter__()  # noqa: SLF001 - LLVM's lock has no public name


def _release_compilers() -> None:
    ffi.lib._lock.__exit__(None, None, None)  # noqa: SLF001
    global_compiler_lock.release()


_STATE = _State()
numba_threads._backend_init_process_lock = nullcontext()  # noqa: SLF001 - Numba has no public way to disable the lock
os.register_at_fork(
    before=_hold_compilers, after_in_parent=_release_compilers, after_in_child=_STATE.after_fork_in_child
)


def limit_threads(threads: int | None) -> None:
    """Limit the threads of kernels that are called from this thread; None uses all of Numba's threads."""
    _STATE.limits.threads = threads


REALS = (types.float32, types.float64)
KEYS = {types.float32: types.uint32, types.float64: types.uint64}
"""The types of logits that kernels are compiled for."""

Signature = tuple[types.Type, ...]


def signatures_of(arguments: str) -> list[Signature]:
    """Return the types of a kernel's arguments: for both types of logits if ``real`` or ``key`` occurs, otherwise one.

    Parameters
    ----------
    arguments
        For example ``"in real[:,:], float64, out float64[:]"``. ``in`` arrays are read, ``out`` arrays are filled or
        updated; all are C-contiguous. ``key`` is the unsigned integer of the size of ``real``.
    """
    reals = REALS if "real" in arguments or "key" in arguments else REALS[:1]
    return [tuple(_type_of(argument, real) for argument in arguments.split(", ")) for real in reals]


def _type_of(argument: str, real: types.Type) -> types.Type:
    name, _, axes = argument.removeprefix("in ").removeprefix("out ").partition("[")
    kind = {"real": real, "key": KEYS[real]}.get(name) or getattr(types, name)
    return types.Array(kind, axes.count(":"), "C", readonly=argument.startswith("in ")) if axes else kind


class Kernel:
    """A function of arrays that is compiled on first use and can be called from any thread and after a fork.

    Made by the decorator :func:`kernel`.
    """

    def __init__(
        self, function: Callable[..., Any], signatures: Sequence[Signature], *, parallel: bool, interpreted: int = 0
    ) -> None:
        self.function = function
        self.signatures = signatures
        self._arrays = [_arrays_of(signature) for signature in signatures]
        self._threaded = parallel
        self._interpreted_bytes = interpreted
        self._dispatchers: dict[bool, Any] = {}
        self._entries: dict[tuple[bool, int], Callable[..., Any]] = {}
        self.name = function.__name__
        self.__doc__ = function.__doc__

    def compile(self) -> None:
        """Compile for all signatures, or load what is in the cache."""
        for number in range(len(self.signatures)):
            self._entry(number, parallel=self._threaded and not _STATE.serial)

    def __call__(self, *arguments: Any) -> Any:
        """Run the kernel on these arrays; outputs are filled in place. Inputs that are strided or unaligned are copied.

        Raises
        ------
        TypeError
            The kernel isn't declared for arrays of these types.
        """
        number, arguments = self._matched(arguments)
        if self._interpreted_bytes > 0 and not self._entries:
            self._interpreted_bytes -= arguments[0].nbytes
            if self._interpreted_bytes >= 0:
                with np.errstate(over="ignore"):
                    return _plain(self.function(*arguments))
        if not self._threaded:
            return self._entry(number, parallel=False)(*arguments)
        with _STATE.lock:
            if _STATE.serial:
                return self._entry(number, parallel=False)(*arguments)
            available = numba.config.NUMBA_NUM_THREADS
            before = numba.get_num_threads()
            limit = getattr(_STATE.limits, "threads", None)
            numba.set_num_threads(min(limit or before, available))
            try:
                return self._entry(number, parallel=True)(*arguments)
            finally:
                numba.set_num_threads(before)

    def _matched(self, arguments: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        """Return the number of the signature whose arrays have the types of these, and the arguments to pass."""
        for number, arrays in enumerate(self._arrays):
            others = {}
            for place, dtype, axes, is_output in arrays:
                array = arguments[place]
                if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != axes:
                    break
                flags = array.flags
                if not (flags.c_contiguous and flags.aligned and (flags.writeable or not is_output)):
                    if is_output:
                        break
                    others[place] = np.require(array, requirements=["C", "A"])
            else:
                if others:
                    arguments = tuple(others.get(at, one) for at, one in enumerate(arguments))
                return number, arguments
        given = [f"{one.dtype}[{one.ndim}]" if isinstance(one, np.ndarray) else type(one).__name__ for one in arguments]
        raise TypeError(f"no kernel {self.name} for arguments of types {given}; there are {list(self.signatures)}")

    def _entry(self, number: int, *, parallel: bool) -> Callable[..., Any]:
        """Return the compiled function for a signature.

        It doesn't check the types of arrays. Numba's dispatcher would check them, and would import ``numpy.ma`` for it.
        """
        entry = self._entries.get((parallel, number))
        if entry is None:
            entry = self._dispatcher(parallel=parallel).compile(self.signatures[number])
            self._entries[parallel, number] = entry
        return entry

    @property
    def _parallel(self) -> Any:
        return self._dispatcher(parallel=True)

    @property
    def _serial(self) -> Any:
        return self._dispatcher(parallel=False)

    def _dispatcher(self, *, parallel: bool) -> Any:
        # Not a cached property: up to Python 3.11 it has a lock, which a fork could leave locked in the child.
        if parallel not in self._dispatchers:
            self._dispatchers.setdefault(parallel, _dispatcher(self.function, parallel=parallel))
        return self._dispatchers[parallel]


def _plain(result: Any) -> Any:
    """Return what compiled code returns: numbers and tuples of Python instead of NumPy's numbers."""
    if isinstance(result, tuple):
        return tuple(map(_plain, result))
    return result.item() if isinstance(result, np.generic) else result


def _arrays_of(signature: Signature) -> list[tuple[int, np.dtype[Any], int, bool]]:
    """Return place, type and number of axes of the arrays of a signature, and whether they are outputs."""
    return [
        (place, np.dtype(str(kind.dtype)), kind.ndim, kind.mutable)
        for place, kind in enumerate(signature)
        if isinstance(kind, types.Array)
    ]


KERNELS: list[Kernel] = []
"""All kernels of the modules that were imported."""


def kernel(arguments: str, *, parallel: bool = True, interpreted: int = 0) -> Callable[[Callable[..., Any]], Kernel]:
    """Return a decorator that makes a function a :class:`Kernel`; see :func:`signatures_of`.

    Input arrays may be read-only or writable. Arrays of other types than the declared ones are refused.

    A process that calls a kernel for a few small arrays only would take longer to load it, and far longer to compile
    it, than Python takes to run the function. The first calls therefore run it in Python: as many as have up to
    ``interpreted`` bytes in their first arrays, all together. The functions that it calls must be ``interpretable``.
    """

    def register(function: Callable[..., Any]) -> Kernel:
        made = Kernel(function, signatures_of(arguments), parallel=parallel, interpreted=interpreted)
        KERNELS.append(made)
        return made

    return register


_exchange = kernel("int64", parallel=False)(exchange)


@contextmanager
def standard_floats() -> Iterator[None]:
    """Return a context, also usable as a decorator, in which this thread uses the standard floating-point mode.

    Threads that are started in the context inherit the mode; see :mod:`batchmax.kernels.compiler.float_mode`.
    """
    before = _exchange(STANDARD)
    try:
        yield
    finally:
        _exchange(before)


def _dispatcher(function: Callable[..., Any], *, parallel: bool) -> Any:
    dispatcher = numba.njit(function, parallel=parallel, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
    dispatcher._cache = KernelCache(function, parallel=parallel)  # noqa: SLF001 - Numba has no public setter
    dispatcher.compile = partial(_undisturbed, dispatcher.compile)
    # Called only if the cache doesn't have the function.
    codegen = dispatcher.targetctx.codegen()
    dispatcher._compiler.compile = partial(_announced, dispatcher._compiler.compile, codegen)  # noqa: SLF001
    return dispatcher


def _announced(work: Callable[..., Any], codegen: Any, *arguments: Any) -> Any:
    """Compile, and notify listeners that a compilation runs."""
    with compiling(), only_for_entry_points(codegen):
        return work(*arguments)


def _undisturbed(work: Callable[..., Any], signature: Signature) -> Any:
    """Compile in a thread of its own, which signals don't interrupt.

    An exception inside LLVM would end the process. A signal interrupts the calling thread at once; the compilation runs
    to its end.
    """
    thread = ThreadPoolExecutor(1, "compile")
    done = thread.submit(work, signature)
    thread.shutdown(wait=False)
    return done.result()

"""The cache of compiled kernels on disk.

Numba's cache consists of pickles, which can run code when they are loaded, so nobody but the user may write to the
folder. The cache is keyed by the text of all kernel sources instead of one file's time stamp, because a kernel calls
functions from other files. A cache that can't be read or written costs a compilation and a warning, but never fails the
job.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite.binding import add_symbol, parse_assembly
from numba.core import serialize
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.runtime import _nrt_python


def cache_folder() -> Path:
    """Return the folder of compiled kernels: ``$BATCHMAX_CACHE_DIR``, or ``batchmax`` in the user's cache folder."""
    chosen = os.environ.get("BATCHMAX_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "batchmax"


@cache
def source_fingerprint() -> str:
    """Return a digest of all source files that compiled code depends on."""
    here = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in [*sorted(here.rglob("*.py")), here.parent / "statuses.py", here.parent / "activations.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Locator(_CacheLocator):  # type: ignore[misc]
    def __init__(self) -> None:
        self._folder = cache_folder() / source_fingerprint()[:16]

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_fingerprint()

    def get_disambiguator(self) -> str:
        return ""

    def ensure_cache_path(self) -> None:
        for folder in (cache_folder(), self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(cache_folder())

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls()


class _CacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)

    def reduce(self, cres: Any) -> tuple[bytes, bytes]:
        """Return the compiled function as bytes and their digest, so that a flipped bit in machine code is detected.

        Two things that Numba would keep are left out, because nothing uses them and loading them takes longer than
        loading the machine code: the LLVM bitcode, for inlining into callers that Numba compiles, and the Python
        objects of Numba's own functions, whose modules would be imported.
        """
        (name, kind, (machine_code, _)), function, *others, environments = super().reduce(cres)
        # Numba takes from the bitcode which symbols the machine code defines.
        symbols = (function.llvm_func_name, function.llvm_cpython_wrapper_name)
        symbol_table = parse_assembly("".join(f'@"{symbol}" = global i8 0\n' for symbol in symbols)).as_bitcode()
        own = tuple(one for one in environments if not one.globals["__name__"].startswith("numba."))
        payload = serialize.dumps(((name, kind, (machine_code, symbol_table)), function, *others, own))
        return hashlib.sha256(payload).digest(), payload

    def rebuild(self, target_context: Any, payload: tuple[bytes, bytes]) -> Any:
        """Return the compiled function.

        Raises
        ------
        ValueError
            If the bytes don't match the digest.
        """
        digest, kept = payload
        if hashlib.sha256(kept).digest() != digest:
            message = "the file is damaged"
            raise ValueError(message)
        return super().rebuild(target_context, pickle.loads(kept))  # noqa: S301 - the folder is private to the user


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's function cache in a private folder; a damaged cache is replaced."""

    _impl_class = _CacheImpl

    def __init__(self, function: Callable[..., None], *, parallel: bool) -> None:
        self._parallel = parallel
        super().__init__(function)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Numba's own key is the same for the compilations with and without threads.
        return (*super()._index_key(sig, codegen), self._parallel)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, or None if the cache has no usable one."""
        try:
            if Path(self.cache_path).exists():
                _require_private(cache_folder())
                _declare_runtime()
                # Numba's load_overload first imports all that a compilation needs, which takes a tenth of a second.
                return self._load_overload(sig, target_context)
        except PermissionError as error:
            self._warn("read", error)
        except Exception as error:  # noqa: BLE001 - unpickling damaged bytes can raise anything
            self._warn("read", error)
            with contextlib.suppress(OSError):
                # Numba can't add to an unreadable index either, so every run would warn again.
                self._cache_file.flush()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled function; warn if that fails."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001 - a full disk must not fail a job whose results are computed
            self._warn("written", error)

    def _warn(self, verb: str, error: Exception) -> None:
        warnings.warn(
            f"compiled kernels in {self.cache_path} cannot be {verb} ({type(error).__name__}: {error}); "
            "compiling again; delete that folder, or name another with BATCHMAX_CACHE_DIR",
            RuntimeWarning,
            stacklevel=2,
        )


@cache
def _declare_runtime() -> None:
    """Tell LLVM the addresses of the C functions that compiled kernels call.

    Numba does so in ``rtsys.initialize``, which also compiles functions that are needed only for compilations.
    """
    for name, address in _nrt_python.c_helpers.items():
        add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def _require_private(folder: Path) -> None:
    info = folder.stat()
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        message = "others can write to it"
        raise PermissionError(message)

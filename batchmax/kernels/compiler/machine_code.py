"""Generates the machine code of a kernel, and not that of the functions that it calls.

Numba generates machine code for each function that a kernel calls, and several times for the loop of a parallel kernel.
All of it is inlined in the kernel or linked to it, so the rest is never used, but takes a fifth of the compilation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.codegen import JITCodeLibrary

LOOP_WRAPPERS = ("_GufuncWrapper", "parallelgufuncwrapper")
"""In the names of what Numba puts between a parallel kernel and its loop."""


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """LLVM code whose machine code is generated when the address of a function that it defines is asked for."""

    _is_generated = False

    def _optimize_final_module(self) -> None:
        # Their only content is the loop, which was optimized, and will be once more in the kernel.
        if not any(name in self.name for name in LOOP_WRAPPERS):
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return the address of a function; 0 if the library doesn't define it."""
        self._ensure_finalized()
        if not self._is_generated:
            if all(function.name != name for function in self.get_defined_functions()):
                return 0
            self._is_generated = True
            super()._finalize_final_module()
        address: int = super().get_pointer_to_function(name)
        return address


@contextmanager
def only_for_entry_points(codegen: Any) -> Iterator[None]:
    """Return a context in which Numba generates machine code only for functions that Python can call.

    Only one thread at a time may compile, which Numba's compiler lock ensures.
    """
    set_environment = codegen.set_env

    def set_if_generated(name: str, environment: Any) -> None:
        if codegen._engine.is_symbol_defined(name):  # noqa: SLF001 - Numba has no public code generator
            set_environment(name, environment)

    codegen._library_class, codegen.set_env = _Library, set_if_generated  # noqa: SLF001
    try:
        yield
    finally:
        del codegen._library_class, codegen.set_env  # noqa: SLF001

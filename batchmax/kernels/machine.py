"""How Numba compiles, and five instructions that it has no name for.

Each is one LLVM instruction, so each vectorises with the loop around it. Numba's ``fastmath`` would apply to a whole
function; here the one operation whose order may be chosen freely says so itself, and everything else keeps IEEE
meaning: no contraction, no reordering, NaN and infinity intact.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import __version__, config, njit, types
from numba.extending import intrinsic


def compiled_by() -> str:
    """Return which compiler makes the machine code, and for which processor: what results depend on."""
    return f"Numba {__version__} for {config.CPU_NAME or get_host_cpu_name()}"


compiled = njit(error_model="numpy")
"""Compiles a function that kernels call. Numba's own default raises on a division by 0, a branch that stops any loop
around it from being vectorised; here 1 / 0 is infinity, as in NumPy."""


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), generate


@intrinsic
def add_any_order(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a + b, in a sum whose order the compiler may choose (and then keeps for every row)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc", "nsz"))

    return a(a, a), generate


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of a and b, NaN if either is NaN; of two zeros, either. In any order, as a sum."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, arguments, fastmath=("nsz", "reassoc"))

    return a(a, a), generate


@intrinsic
def bits_of(typing_context: Any, a: Any) -> Any:
    """Return the bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def float_of(typing_context: Any, a: Any) -> Any:
    """Return the float64 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate

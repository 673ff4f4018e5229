"""How Numba compiles kernels, and LLVM instructions that Numba has no name for.

Kernels give the same bits on every CPU. Numba's ``fastmath`` would let LLVM reorder sums, contract products and ignore
NaN in a whole function, so no function has it: every operation keeps its IEEE 754 meaning, and where a sum is to be
vectorised, its order is written out. IEEE 754 leaves some things open, and none of them reaches a result:

- The sign and payload of a NaN depend on the CPU and on the order of the operands. A result that is NaN is the constant
  ``numpy.nan``, never what an operation returned; see :func:`plain`.
- Which is the larger of 0.0 and -0.0 is open. No result is -0.0.
- A library may set the CPU to replace subnormal numbers by zero (``torch.set_flush_denormal``), for one thread and all
  threads that it starts. Kernels set the mode themselves, see :mod:`batchmax.kernels.float_mode`.
- The functions of the C library (exp, log) round differently from one system to the next. Kernels do not call them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import __version__, config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def compiled_by() -> str:
    """Return which compiler makes the machine code, and for which CPU."""
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
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of a and b, NaN if either is NaN; of two zeros, either.

    The result does not depend on the order of several such calls, but for which zero or NaN it is.
    """

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


@compiled
def plain(x):
    """Return a float64 with no choice left open: ``numpy.nan`` for any NaN, and 0.0 for -0.0."""
    return np.nan if x != x else x + 0.0


def call_llvm(builder: Any, name: str, result: ir.Type, operands: list[Any], flags: tuple[str, ...] = ()) -> Any:
    """Emit a call of one of LLVM's intrinsic functions, in the body of an ``@intrinsic``."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands, fastmath=flags)

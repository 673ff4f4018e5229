"""Compiler settings of kernels, and LLVM instructions that Numba doesn't expose.

Kernels give the same bits on every CPU. Numba's ``fastmath`` would let LLVM reorder sums, contract products and ignore
NaN in a whole function, so no function uses it: every operation keeps its IEEE 754 meaning, and sums that should
vectorize have an explicit order. IEEE 754 leaves some results open; none of them reaches an output:

- The sign and payload of a NaN depend on the CPU and on the order of the operands. A NaN result is always the constant
  ``numpy.nan``, never the result of an operation; see :func:`plain`.
- The larger of 0.0 and -0.0 is unspecified. No result is -0.0.
- A library may set the CPU to replace subnormal numbers by zero (``torch.set_flush_denormal``), for one thread and all
  threads that it starts. Kernels set the mode themselves; see :mod:`batchmax.kernels.compiler.float_mode`.
- The functions of the C library (exp, log) round differently on different systems. Kernels don't call them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import __version__, config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable


def compiled_by() -> str:
    """Return the version of the compiler and the CPU for which it compiles."""
    return f"Numba {__version__} for {config.CPU_NAME or get_host_cpu_name()}"


compiled = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator for functions that kernels call.

Numba's default error model raises on a division by 0, a branch that keeps the surrounding loop from vectorizing. With
this one, 1 / 0 is infinity, as in NumPy.
"""


interpretable = register_jitable(error_model="numpy")
"""Decorator like :data:`compiled` for functions that Python can call as well; for kernels that may be interpreted."""


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), generate


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of a and b; NaN if either is NaN; either zero if both are zeros.

    The result of several calls doesn't depend on their order, except for the sign of a zero and the bits of a NaN.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, arguments, fastmath=("nsz", "reassoc"))

    return a(a, a), generate


@intrinsic
def bits_of(typing_context: Any, a: Any) -> Any:
    """Return the bits of a float64 as an int64, or of a float32 as an int32."""
    bits = types.int32 if a == types.float32 else types.int64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(bits.bitwidth))

    return bits(types.float32 if a == types.float32 else types.float64), generate


@intrinsic
def float_of(typing_context: Any, a: Any) -> Any:
    """Return the float64 that has the bits of an int64, or the float32 that has those of an int32."""
    number, kind = (types.float32, ir.FloatType()) if a == types.int32 else (types.float64, ir.DoubleType())

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], kind)

    return number(types.int32 if a == types.int32 else types.int64), generate


@compiled
def plain(x):
    """Return a float64 in one representation: ``numpy.nan`` for any NaN, and 0.0 for -0.0."""
    return np.nan if x != x else x + 0.0


def call_llvm(builder: Any, name: str, result: ir.Type, operands: list[Any], flags: tuple[str, ...] = ()) -> Any:
    """Emit a call of one of LLVM's intrinsic functions in the body of an ``@intrinsic``."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands, fastmath=flags)

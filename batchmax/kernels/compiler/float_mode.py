"""The CPU's floating-point mode: the handling of subnormal numbers and the rounding of results.

The mode belongs to a thread. A library may let the CPU replace subnormal numbers by zero for speed
(``torch.set_flush_denormal(True)``, or a shared library linked with ``-ffast-math``), and a new thread inherits the
mode of the thread that starts it. Kernels therefore set the standard mode at the beginning of each block of rows and
restore the old mode at its end, which takes some nanoseconds.
:func:`batchmax.kernels.compiler.dispatch.standard_floats` does the same for NumPy code around kernels.

On CPUs other than x86-64 and ARM64 the mode isn't changed.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from batchmax.kernels.compiler.intrinsics import call_llvm

STANDARD = 0x1F80 if platform.machine() in {"x86_64", "AMD64"} else 0
"""The default mode of IEEE 754: round to nearest, keep subnormal numbers, no traps.

The value of the register MXCSR on x86-64, of FPCR on ARM64.
"""

INT8, INT32, MODE = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@intrinsic
def exchange_float_mode(typing_context: Any, mode: Any) -> Any:
    """Set the floating-point mode of this thread, and return the previous mode, both as uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (mode,) = arguments
        machine = str(builder.module.triple)
        if machine.startswith("x86_64"):
            place = cgutils.alloca_once(builder, INT32)
            address = builder.bitcast(place, INT8.as_pointer())
            call_llvm(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [address])
            before = builder.zext(builder.load(place), MODE)
            builder.store(builder.trunc(mode, INT32), place)
            call_llvm(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [address])
            return before
        if machine.startswith(("aarch64", "arm64")):
            before = call_llvm(builder, "llvm.aarch64.get.fpcr", MODE, [])
            call_llvm(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [mode])
            return before
        return MODE(0)

    return types.uint64(types.uint64), generate


def exchange(mode):
    """Do the same as :func:`exchange_float_mode`, as a function that can be compiled for Python to call."""
    return exchange_float_mode(mode)

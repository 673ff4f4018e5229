"""Compiles all kernels, with the time that it takes, for programs that don't import kernels."""

from __future__ import annotations

import time
from typing import Any

from batchmax.kernels.compiler.warmup import compile_kernels
from batchmax.runtime.progress import Progress


def warmup(progress: Progress | None = None) -> dict[str, Any]:
    """Compile the kernels that aren't cached; return the ``seconds`` it took and the path of the ``cache``."""
    started = time.perf_counter()
    folder = compile_kernels(progress)
    return {"seconds": time.perf_counter() - started, "cache": str(folder)}

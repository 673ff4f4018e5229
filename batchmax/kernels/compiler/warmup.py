"""Compiles all kernels into the cache."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from batchmax import kernels
from batchmax.kernels.compiler.cache import cache_folder
from batchmax.kernels.compiler.dispatch import KERNELS


def compile_kernels(progress: Any = None) -> Path:
    """Compile every kernel for all types of logits, and return the cache folder."""
    for module in walk_packages(kernels.__path__, f"{kernels.__name__}."):
        import_module(module.name)
    for number, kernel in enumerate(KERNELS, 1):
        if progress is not None:
            progress.note(f"compiling kernel {number} of {len(KERNELS)}: {kernel.name}")
        kernel.compile()
    return cache_folder()

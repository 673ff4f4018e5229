"""Tests that results have the same bits on every CPU, with any number of threads, and with compiled or cached kernels.

``result_hashes.json`` has the expected hashes, which are the same on every machine. After a change of the arithmetic:

    python -m tests.support.result_hashes > tests/support/result_hashes.json
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import result_hashes
from tests.support.paths import ROOT
from tests.support.processes import HANGS

KNOWN: dict[str, str] = json.loads((ROOT / "tests/support/result_hashes.json").read_text(encoding="utf-8"))

NUMPY_FEATURES: dict[str, bool] = np._core._multiarray_umath.__cpu_features__
CPUS = {
    "x86_64": {
        "generic": "SSE2",
        "haswell": "AVX2",
        "znver3": "AVX2",
        "icelake-server": "AVX512_ICL",
        "znver5": "AVX512_ICL",
    },
    "aarch64": {"generic": "NEON", "neoverse-n1": "ASIMDHP"},
    "arm64": {"generic": "NEON", "apple-m1": "ASIMDHP"},
}
"""CPUs that LLVM knows, each with a NumPy CPU feature that this machine needs to run code for it."""


def run(*options: str, **environment: str) -> Any:
    """Return the hashes that another process prints, with additional environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.result_hashes", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(found: dict[str, str], known: dict[str, str]) -> list[str]:
    """Return the names of results that differ."""
    return [name for name in {**known, **found} if found.get(name) != known.get(name)]


def test_results_are_those_of_every_machine() -> None:
    """The kernels that this machine compiles or has cached give the recorded bits."""
    assert differences(result_hashes.hashes(), KNOWN) == []


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_and_loaded_kernels(threads: str) -> None:
    """Another process, which loads cached kernels, gives the same bits with one thread and with two."""
    assert differences(run(NUMBA_NUM_THREADS=threads), KNOWN) == []


def test_a_library_that_flushes_subnormal_numbers() -> None:
    """Subnormal results are kept if a library has made the CPU flush subnormal numbers to zero."""
    assert differences(run("--flush"), KNOWN) == []


def test_the_vector_units_that_numpy_uses() -> None:
    """Results don't depend on the vector instructions that NumPy uses."""
    optional = set(np._core._multiarray_umath.__cpu_dispatch__)
    disabled = " ".join(name for name in optional if NUMPY_FEATURES.get(name))
    assert differences(run(NPY_DISABLE_CPU_FEATURES=disabled), KNOWN) == []


@pytest.mark.skipif(platform.machine() not in CPUS, reason="the names of CPUs of this architecture are not listed")
def test_compiled_and_loaded_kernels(tmp_path: Path) -> None:
    """Kernels for the simplest CPU of the architecture give the same bits, compiled and loaded from the cache.

    On x86-64, this CPU has the narrowest registers and no fused multiply-add.
    """
    expected = result_hashes.hashes(short=True)
    for _ in ("compiled", "loaded"):
        found = run("--short", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", BATCHMAX_CACHE_DIR=str(tmp_path))
        assert differences(found, expected) == []
    assert list(tmp_path.rglob("*.nbc"))


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS.get(platform.machine(), {}))
def test_other_cpus(cpu: str) -> None:
    """All kernels give the same bits if they are compiled for another CPU."""
    feature = CPUS[platform.machine()][cpu]
    if not NUMPY_FEATURES[feature]:
        pytest.skip(f"this machine cannot run code for {cpu}: it lacks {feature}")
    assert differences(run(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=""), KNOWN) == []

"""Measurements, in a file for each type of CPU: medians, all single figures, the machine, and the versions.

A run of some suites adds to the file, so a long benchmark can be run in parts. This module doesn't know how figures are
measured, shown or compared with targets.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.processes import Contender

LIBRARIES = ["batchmax", "numba", "numpy", "pyarrow", "polars", "duckdb", "torch", "scipy"]

STARTS = {
    "python": "`python -c pass`",
    "help": "`batchmax --help`",
    "import": "`import batchmax`",
    "digits-warm": "scoring `data/digits.parquet`, with compiled kernels",
    "digits-cold": "scoring `data/digits.parquet`, with an empty kernel cache",
}
"""Descriptions of the start-up measurements."""


def spread(values: list[float]) -> dict[str, Any]:
    """Return the median, minimum and maximum of the values, and all values."""
    digits = [float(f"{value:.5g}") for value in values]
    return {"median": statistics.median(digits), "min": min(digits), "max": max(digits), "all": digits}


def measurement(contender: Contender | None, **where: Any) -> dict[str, Any]:
    """Return an entry of the results: ``where``, the time, and the measurements or the failure of the runs."""
    entry = {**where, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    if contender is None:
        return entry
    entry["who"] = contender.name
    if contender.runs:
        entry["seconds"] = spread([run.seconds for run in contender.runs])
        entry["cpu"] = spread([run.cpu for run in contender.runs])
        entry["peak"] = spread([run.peak for run in contender.runs])
    if contender.failure:
        entry["failure"] = contender.failure
    if contender.output_bytes is not None:
        entry["output_bytes"] = contender.output_bytes
    return entry


def this_machine() -> dict[str, Any]:
    """Return the processor, LLVM's name of it, its vectors, the usable cores, the memory in GiB, and the system."""
    from llvmlite import binding as llvm

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "llvm": llvm.get_host_cpu_name(),
        "vectors": _vectors(llvm.get_host_cpu_features()),
        "cores": cores,
        # Rounded, because updates of the system change the last bytes.
        "memory": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _vectors(features: dict[str, bool]) -> str:
    """Return the name of the widest vector instructions."""
    known = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "neon": "NEON"}
    return next((name for feature, name in known.items() if features.get(feature)), "no vectors")


def file_name(machine: dict[str, Any]) -> str:
    """Return the name of the file for the results of a machine: ``znver5-amd-epyc.json``."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{machine['llvm']} {machine['cpu']}".lower()).strip("-")
    return f"{words}.json"


def read_all(folder: Path) -> list[Results]:
    """Return the results of all CPUs in a folder, those with the most measurements first."""
    found = [Results.read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda results: -len(results.measurements))


def these_versions() -> dict[str, str]:
    """Return the versions of Python and of every library in the benchmark."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class Results:
    """All measurements so far, by keys such as ``jobs/k1000/4/snappy/polars``."""

    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    measurements: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The CPU in a few words: ``AMD EPYC (znver5, AVX-512)``."""
        return "{cpu} ({llvm}, {vectors})".format(**self.machine) if self.machine else ""

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return the content of the file, or no results if there is none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Replace the file atomically, with one measurement per line."""
        self.measurements = dict(sorted(self.measurements.items()))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}")
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(one)}" for key, one in self.measurements.items())
        head = f'"machine": {json.dumps(self.machine)},\n"versions": {json.dumps(self.versions)}'
        text = f'{{{head},\n"measurements": {{\n{lines}\n}}}}\n'
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)

    def median(self, key: str, what: str = "seconds") -> float | None:
        """Return a median, or None if nothing was measured or a run failed."""
        entry = self.measurements.get(key, {})
        return None if "failure" in entry or what not in entry else float(entry[what]["median"])

    def of_suite(self, suite: str) -> list[dict[str, Any]]:
        """Return the measurements of one suite."""
        return [entry for entry in self.measurements.values() if entry["suite"] == suite]

    def speed(self, threads: int, n_classes: int, who: str) -> float | None:
        """Return the speed of a kernel in GB/s of logits."""
        key = f"kernels/{threads}/{n_classes}/{who}"
        seconds = self.median(key)
        return None if seconds is None else float(self.measurements[key]["bytes"]) / seconds / 1e9

"""Worker that runs command lines, one per line of JSON; the answers have exit code, output, CPU time and memory.

The first command line is a warm-up that must succeed, so that compilation and imports aren't measured later.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path

import pyarrow as pa

from batchmax.cli.app import main

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"


def run(words: list[str]) -> dict[str, object]:
    """Run a command line; ``peak`` is the peak resident memory in bytes, or 0 if it is unknown."""
    # Memory that the pool kept from the last command must not count here.
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError):
        CLEAR.write_text(FORGET_PEAK, encoding="ascii")
    out, err, start = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    cpu, peak = time.process_time() - start, 0
    with contextlib.suppress(OSError):
        lines = STATUS.read_text(encoding="ascii").splitlines()
        peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "cpu": cpu, "peak": peak}


for line in sys.stdin:
    sys.stdout.write(json.dumps(run(json.loads(line)["words"])) + "\n")
    sys.stdout.flush()

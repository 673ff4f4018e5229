"""Run ``batchmax score`` without some of its safety features, to measure their cost; never for real work.

``unsafe.py WHAT,… score …``, where WHAT is one of: ``syncs``, nothing is synced to disk; ``journal``, no journal is
written, so a run can't be resumed; ``checksums``, pages get no checksums; ``timed``, nothing is left out, and
``BENCH_SYNCS`` names a file for the seconds that syncs took. batchmax has no such switches: this script patches its
modules.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def leave_out(what: str) -> None:
    """Patch the functions of the feature ``what``."""
    from batchmax.jobs import score
    from batchmax.parquet.writing import list_writer
    from batchmax.storage import system_calls

    places: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
        "timed": [(system_calls, name, timed(getattr(system_calls, name))) for name in ("sync", "sync_data")],
        "syncs": [(system_calls, name, lambda _: None) for name in ("sync", "sync_data")],
        "journal": [(score, "job_identity", lambda *_: None)],
        "checksums": [(list_writer, "crc32", lambda _, value=0: value)],
    }
    for module, name, instead in places[what]:
        setattr(module, name, instead)


SYNCS: list[float] = []
LOCK = threading.Lock()


def timed(sync: Callable[[int], None]) -> Callable[[Any], None]:
    """Return a sync function that records its time."""

    def wrapped(descriptor: Any) -> None:
        start = time.perf_counter()
        sync(descriptor)
        with LOCK:
            SYNCS.append(time.perf_counter() - start)

    return wrapped


def main() -> int:
    """Run ``batchmax`` with the features in the first argument left out."""
    parts, *words = sys.argv[1:]
    from batchmax.cli import app

    app._configure_process()  # noqa: SLF001 - as the command does before it imports anything
    for part in parts.split(","):
        leave_out(part)
    sys.argv = ["batchmax", *words]
    code = app.main()
    if SYNCS:
        with Path(os.environ["BENCH_SYNCS"]).open("a", encoding="ascii") as seconds:
            print(sum(SYNCS), file=seconds)
    return code


if __name__ == "__main__":
    sys.exit(main())

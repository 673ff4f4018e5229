"""Damaged files, streams, tables and metadata: the right values or one line; no crash, no hang, bounded memory."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.watched import Watched
from tests.processes import HANGS

SEED = 16
FEW, MANY = 150, 6000
SECONDS = 10
"""CPU time of a case."""
MOST = 900 << 20
"""Resident memory: the limit that the commands are given, and what the program itself takes."""


@pytest.mark.faults(keep=lambda: True)
def test_damaged_inputs(everything, table):
    """Whatever is damaged, the result has the values that pyarrow reads, or one line says what is wrong."""
    watched = Watched("fuzzed.py")
    assert "failed" not in watched.ask({"seed": SEED, "number": 0}, seconds=HANGS)
    counts: Counter[str] = Counter()
    failures = []
    for number in range(1, MANY if everything else FEW):
        answer = watched.ask({"seed": SEED, "number": number}, SECONDS)
        if "failed" in answer or "died" in answer or answer["peak"] > MOST:
            failures.append((number, answer))
        else:
            counts[f"{answer['kind']}: {answer['end'].split(',')[0]}"] += 1
    watched.stop()
    assert not failures, failures[:5]
    table.damages[f"{sum(counts.values()):,} inputs damaged by their structure, seed {SEED}"] = counts

"""Damaged files, streams, tables and metadata give the right values or one line; no crash or hang, bounded memory."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.fuzzing import Cases

SEED = 16
FEW, MANY = 60, 6000


@pytest.mark.faults(keep=lambda: True)
def test_damaged_inputs(everything, table):
    """For any damage, the result has the values that pyarrow reads, or the command fails with one line."""
    counts: Counter[str] = Counter()
    failures = []
    with Cases(SEED) as cases:
        for number in range(MANY if everything else FEW):
            ended, failed = cases.run(number)
            counts[ended] += not failed
            if failed:
                failures.append(f"case {number}: {failed}")
    assert not failures, failures[:10]
    table.damages[f"{sum(counts.values()):,} structurally damaged inputs, seed {SEED}"] = counts

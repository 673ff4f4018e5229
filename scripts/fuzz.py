#!/usr/bin/env python3
"""Run damaged files, streams, tables and metadata, and print each that crashes, hangs, reports a bug or is wrong.

::

    .venv/bin/python scripts/fuzz.py --minutes 60
    .venv/bin/python scripts/fuzz.py --minutes 1 --seed 7 --first 2000

The cases come from ``tests/faults/damages.py``. A case is a function of the seed and its number, so a failure is
repeated with its seed and ``--first``. ``tests/faults/test_fuzz.py`` runs some thousands of cases of one seed. The exit
code is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Fuzz for the requested time."""
    parser = argparse.ArgumentParser(description="Try damaged inputs.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="of the cases; default: 0")
    parser.add_argument("--first", type=int, default=1, help="number of the first case; default: 1")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.faults.fuzzing import Cases

    counts: Counter[str] = Counter()
    n_failed = 0
    with Cases(given.seed) as cases:
        end = time.monotonic() + 60 * given.minutes
        for number in itertools.count(given.first):
            if time.monotonic() > end:
                break
            ended, failed = cases.run(number)
            if failed:
                n_failed += 1
                print(f"--seed {given.seed} --first {number}: {failed}", flush=True)
            else:
                counts[ended] += 1
    for ended, count in counts.most_common():
        print(f"{count:8,}  {ended}")
    print(f"{n_failed:8,}  failed")
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Damaged Parquet files, Arrow IPC streams, tables and metadata, made from valid ones by changing their structure.

A case is a function of a seed and a number. Footers, page headers and messages are parsed and written again with fields
that are changed, of another type, missing, duplicated or reordered. Page bodies are decompressed, changed and
compressed again. Checksums and sizes are right unless they are the damage. Nothing of batchmax is used, so its parsers
are tested against an independent one.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from tests.faults.arrow_damages import damaged_stream, damaged_table
from tests.faults.parquet_damages import damaged_bytes, damaged_footer, damaged_metadata, damaged_page


@dataclass(frozen=True)
class Case:
    """A damaged input: its kind, its bytes or table, and the table before the damage."""

    kind: str
    data: bytes | pa.Table
    original: pa.Table


def case(seed: int, number: int) -> Case:
    """Return one of the cases of a seed."""
    for attempt in itertools.count():
        choose = random.Random(f"{seed} {number} {attempt}")
        kind = choose.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        with contextlib.suppress(Exception):  # a second change may find nothing to parse
            return Case(kind, *KINDS[kind][1](choose))
    raise AssertionError


KINDS: dict[str, tuple[int, Callable[[random.Random], tuple[bytes | pa.Table, pa.Table]]]] = {
    "footer": (25, damaged_footer),
    "page": (25, damaged_page),
    "bytes": (10, damaged_bytes),
    "metadata": (10, damaged_metadata),
    "stream": (20, damaged_stream),
    "table": (10, damaged_table),
}
"""The kinds of damage, with their weights."""

"""Print the result of ``verify``: one line per check, with the largest errors."""

from __future__ import annotations

from typing import Any

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import duration, number, size
from batchmax.runtime.text import printable, quantity
from batchmax.verification.verify import Verification


def show(found: Verification) -> None:
    """Print the verification."""
    pairs = [
        ("file", printable(found.file)),
        (
            "rows",
            f"{number(found.n_rows)} of {number(found.n_classes)} classes, {quantity(found.row_groups, 'row group')}"
            + (f" in {quantity(len(found.files), 'part')}" if len(found.files) > 1 else ""),
        ),
        ("pages", _pages(found)),
    ]
    pairs += [(name, _output(found, name)) for name in found.outputs]
    pairs.append(("summary", f"agrees: {', '.join(found.summary)}" if found.summary else "none in the file"))
    if found.inputs is not None:
        pairs.append(("inputs", f"{quantity(found.inputs, 'file')}, unchanged (sizes, footers, rows)"))
        tokens = "" if found.sampled_tokens is None else f"{quantity(found.sampled_tokens, 'token')} of "
        sampled = f"{tokens}{quantity(found.sampled_rows, 'row')} (--seed {found.seed})"
        pairs.append(("recomputed", f"{sampled}, tolerance 3 ULP"))
        pairs += [
            (f"  {name}", f"at most {error['ulp']:.2f} ULP, in row {number(error['row'])}{_token(error)}")
            for name, error in found.largest_errors.items()
        ]
    rate = f"{size(found.bytes_read / found.seconds)}/s" if found.seconds else ""
    pairs.append(("time", f"{duration(found.seconds)}  ({rate})"))
    pairs += [("note", printable(note)) for note in found.notes]
    tables.show_pairs(pairs)


def _pages(found: Verification) -> str:
    checked = found.pages - found.unchecked_pages
    unchecked = quantity(found.unchecked_pages, "page of copied columns has", "pages of copied columns have")
    without = f", {unchecked} none" if found.unchecked_pages else ""
    return f"{quantity(checked, 'checksum')} correct{without}; all columns decoded"


def _output(found: Verification, name: str) -> str:
    parts = []
    if name in found.sums:
        off, bound = found.sums[name]["off"], found.sums[name]["bound"]
        total = "sums" if name == "probs" else "sums of exponentials"
        parts.append(f"{total} differ from 1 by at most {number(off)} (tolerance {number(bound)})")
    if found.compared[name]:
        parts.append(f"agrees with {', '.join(found.compared[name])}")
    return ", ".join(parts) or "values are in range"


def _token(error: dict[str, Any]) -> str:
    return f", token {number(error['token'])}" if "token" in error else ""

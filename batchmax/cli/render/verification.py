"""Print the result of ``verify``: one line per check, with the largest errors."""

from __future__ import annotations

from typing import Any

from batchmax.cli.render.formatting import duration, number, size
from batchmax.cli.render.summaries import show_pairs
from batchmax.runtime.text import printable, quantity
from batchmax.verification.verify import Verification


def show(result: Verification) -> None:
    """Print the verification."""
    pairs = [
        ("file", printable(result.file)),
        (
            "rows",
            f"{number(result.n_rows)} of {number(result.n_classes)} classes, {quantity(result.row_groups, 'row group')}"
            + (f" in {quantity(len(result.files), 'part')}" if len(result.files) > 1 else ""),
        ),
        ("pages", _pages(result)),
    ]
    pairs += [(name, _output(result, name)) for name in result.outputs]
    pairs.append(("summary", f"agrees: {', '.join(result.summary)}" if result.summary else "none in the file"))
    if result.inputs is not None:
        pairs.append(("inputs", f"{quantity(result.inputs, 'file')}, unchanged (sizes, footers, rows)"))
        tokens = "" if result.sampled_tokens is None else f"{quantity(result.sampled_tokens, 'token')} of "
        sampled = f"{tokens}{quantity(result.sampled_rows, 'row')} (--seed {result.seed})"
        pairs.append(("recomputed", f"{sampled}, tolerance 3 ULP"))
        pairs += [
            (f"  {name}", f"at most {error['ulp']:.2f} ULP, in row {number(error['row'])}{_token(error)}")
            for name, error in result.largest_errors.items()
        ]
    rate = f"{size(result.bytes_read / result.seconds)}/s" if result.seconds else ""
    pairs.append(("time", f"{duration(result.seconds)}  ({rate})"))
    pairs += [("note", printable(note)) for note in result.notes]
    show_pairs(pairs)


def _pages(result: Verification) -> str:
    checked = result.pages - result.unchecked_pages
    without = (
        f", {quantity(result.unchecked_pages, 'page')} of copied columns have none" if result.unchecked_pages else ""
    )
    return f"{quantity(checked, 'checksum')} correct{without}; all columns decoded"


def _output(result: Verification, name: str) -> str:
    parts = []
    if name in result.sums:
        off, bound = result.sums[name]["off"], result.sums[name]["bound"]
        total = "sums" if name == "probs" else "sums of exponentials"
        parts.append(f"{total} differ from 1 by at most {number(off)} (tolerance {number(bound)})")
    if result.compared[name]:
        parts.append(f"agrees with {', '.join(result.compared[name])}")
    return ", ".join(parts) or "values are in range"


def _token(error: dict[str, Any]) -> str:
    return f", token {number(error['token'])}" if "token" in error else ""

"""Format values: numbers, sizes, durations, and names without control characters.

Knows neither what values mean nor where they are printed, and imports nothing that is slow to import.
"""

from __future__ import annotations

import math

from batchmax.runtime import text

ABSENT = "–"
"""Placeholder for a missing value."""
NO_CLASS = "none"
"""The classes of a row that has no label, or for which no class is predicted."""


def number(value: float | str | None) -> str:
    """Return a number with six significant digits, a count with separators, or – for None."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return text.printable(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.6g}"


def change_of(before: float | None, after: float | None) -> str:
    """Return two values of a number with an arrow between them."""
    return f"{number(before)} → {number(after)}"


def shortened(value: object, longest: int) -> str:
    """Return a value as text without control characters, truncated to a number of characters."""
    shown = text.printable(value)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def size(n_bytes: float | None) -> str:
    """Return a number of bytes with a binary unit."""
    return ABSENT if n_bytes is None else text.size(n_bytes)


def duration(seconds: float | None) -> str:
    """Return a duration with about three significant digits, or in minutes and hours."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 99.95:
        return f"{seconds:.3g} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"

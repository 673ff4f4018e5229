"""Format values: numbers, sizes, durations, and names without control characters.

Knows neither what values mean nor where they are printed, and imports nothing that is slow to import.
"""

from __future__ import annotations

import math

from batchmax.runtime.text import printable

ABSENT = "–"
"""Placeholder for a missing value."""

_BINARY_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def number(value: float | str | None) -> str:
    """Return a number with six significant digits, a count with separators, or – for None."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.6g}"


def size(n_bytes: float | None) -> str:
    """Return a number of bytes with a binary unit."""
    if n_bytes is None:
        return ABSENT
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    value, power = float(n_bytes) / 1024, 0
    while value >= 1023.5 and power < len(_BINARY_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.3g} {_BINARY_UNITS[power]}" if value < 999.5 else f"{value:.0f} {_BINARY_UNITS[power]}"


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

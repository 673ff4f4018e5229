"""Format values for the page: numbers, shares, and text from the data, on one line and of bounded length."""

from __future__ import annotations

import math
import unicodedata
from contextvars import ContextVar
from typing import Any

from batchmax.runtime.text import printable as escaped

ABSENT = "–"
"""Placeholder for a missing value."""

LONGEST = 120
"""Most characters of a value from the data."""

UNIT: ContextVar[str] = ContextVar("unit")
"""The unit of counts on the page: ``row``, or ``token`` if rows are sequences."""

NARROW = frozenset("abcdefghijklnopqrstuvxyz0123456789 .,;:!|'()[]{}/-_\"It")
"""Characters that are at most as wide as a digit."""


def printable(text: object, longest: int = LONGEST) -> str:
    """Return text on one line, truncated, with non-printable and bidirectional control characters escaped."""
    whole = str(text)
    shown = escaped(whole[: longest + 1])
    return shown if len(whole) <= longest and len(shown) <= longest else f"{shown[: longest - 1]}…"


def label(text: object, room: float) -> str:
    """Return text for a chart, truncated to a width in units of a digit's width."""
    shown = printable(text)
    left = room
    for at, char in enumerate(shown):
        left -= _width(char)
        if left < 0:
            return f"{shown[: max(at - 1, 1)]}…"
    return shown


def _width(char: str) -> float:
    """Return an upper estimate of a character's width for an unknown font; a digit is 1."""
    if unicodedata.east_asian_width(char) in {"W", "F"}:
        return 2.1
    if not char.isascii():
        return 1.8
    if char in NARROW:
        return 1.0
    return 1.75 if char in "WMm@%" else 1.45


def positive_name(metrics: Any) -> str | None:
    """Return the name of the positive class of an evaluation; None if there are more than two classes."""
    if metrics.positive is None:
        return None
    return f"class {metrics.positive}" if metrics.classes is None else printable(metrics.positive, 40)


def number(value: Any, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits, a count with separators, or – for None and NaN."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return ABSENT
    if value == round(value) and 1000 <= abs(value) < 1e15:  # a sum of weights, or a count kept as a float
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.{digits}g}".replace("-", "−")


def unit() -> str:
    """Return the unit of counts, in the singular."""
    return UNIT.get()


def rows(count: Any) -> str:
    """Return a count with its unit, such as "3 rows"."""
    return f"{number(count)} {unit()}{'' if count == 1 else 's'}"


def share(value: float | None, digits: int = 1) -> str:
    """Return a share in percent; a share between 0 and 1 is never rounded to 0 % or 100 %."""
    if value is None:
        return ABSENT
    percent = 100 * value
    text = f"{percent:.{digits}f}"
    if text == f"{100:.{digits}f}" and percent < 100:
        return f"> {100 - 10**-digits:.{digits}f} %"
    if float(text) == 0 and percent > 0:
        return f"< {10**-digits:.{digits}f} %"
    return f"{text} %"


def short_count(value: float) -> str:
    """Return a count in short form, with at most three digits: 1500 is 1.5k."""
    value = float(f"{value:.3g}")
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"

"""Values as people read them on a page: numbers, shares, and text of others on one line and not too long."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

ABSENT = "–"
"""What stands for a value that does not exist."""

LONGEST = 120
"""Characters of a value from the data that are shown."""

_UNIT: ContextVar[str] = ContextVar("unit", default="row")

NARROW = frozenset("abcdefghijklnopqrstuvxyz0123456789 .,;:!|'()[]{}/-_\"It")
"""Letters that are no wider than a digit."""


def printable(text: object, longest: int = LONGEST) -> str:
    """Return text on one line, with what hides or turns the reading direction written as escapes, and cut."""
    whole = str(text)
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in whole[: longest + 1]
    )
    return shown if len(whole) <= longest and len(shown) <= longest else f"{shown[: longest - 1]}…"


def label(text: object, room: float) -> str:
    """Return text for a chart, cut where it is wider than so many letters of usual width."""
    shown = printable(text)
    left = room
    for at, char in enumerate(shown):
        left -= _width(char)
        if left < 0:
            return f"{shown[: max(at - 1, 1)]}…"
    return shown


def _width(char: str) -> float:
    """Return how wide a letter may be, rather too much, for fonts that nobody knows; a digit is 1."""
    if unicodedata.east_asian_width(char) in {"W", "F"}:
        return 2.1
    if not char.isascii():
        return 1.8
    if char in NARROW:
        return 1.0
    return 1.75 if char in "WMm@%" else 1.45


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many significant digits, a count with separators, – for none."""
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


@contextmanager
def counting(what: str) -> Iterator[None]:
    """Let :func:`unit` and :func:`rows` speak of something else than rows."""
    before = _UNIT.set(what)
    try:
        yield
    finally:
        _UNIT.reset(before)


def unit() -> str:
    """Return what is counted: ``row``, or ``token`` where rows are sequences."""
    return _UNIT.get()


def rows(count: Any) -> str:
    """Return a number of rows, or of what is counted instead, in words."""
    return f"{number(count)} {unit()}{'' if count == 1 else 's'}"


def share(value: float | None, digits: int = 1) -> str:
    """Return a share in percent; what is not quite nothing or all is not rounded to it."""
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
    """Return a count for an axis: 1500 is 1.5k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def size(n_bytes: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"

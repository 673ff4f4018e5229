"""Calibrations as files: what ``calibrate`` wrote and ``score --calibration`` takes."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmax.errors import UsageError
from batchmax.imports import allow_imports
from batchmax.installation import missing_package

SMALLEST_T, LARGEST_T = 1e-3, 1e3
"""The bounds of a temperature that is looked for."""
MOST_BYTES = 1 << 26
"""Of a file: ten thousand classes with their names take less."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration to be applied: a temperature, or a scale and a bias for each class."""

    n_classes: int
    classes: tuple[str, ...] | None
    temperature: float
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None


def read_calibration(path: str | os.PathLike[str]) -> Calibrated:
    """Read what ``calibrate`` wrote.

    Raises
    ------
    UsageError
        There is no such file, or it is something else, or damaged.
    """
    name = os.fspath(path)
    where = "--calibration"
    try:
        with Path(name).open(encoding="utf-8") as stream:
            return _checked(json.loads(stream.read(MOST_BYTES)))
    except FileNotFoundError:
        raise UsageError(
            f"there is no file {name}", where=where, remedy="make it: batchmax calibrate INPUT -o FILE"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise UsageError(
            f"{name} is no calibration: {text}", where=where, remedy="make one: batchmax calibrate INPUT -o FILE"
        ) from error


def scipy_optimize() -> Any:
    """Return SciPy's optimisers.

    Raises
    ------
    UsageError
        SciPy is not installed.
    """
    allow_imports()
    try:
        from scipy import optimize  # noqa: PLC0415 - it takes a while, and need not be installed
    except ImportError as error:
        raise missing_package("SciPy", "insight") from error
    return optimize


def _checked(said: Any) -> Calibrated:
    n_classes, temperature = said["n_classes"], said["temperature"]
    if type(n_classes) is not int or n_classes < 1:
        raise ValueError("n_classes is no count")
    if not _is_number(temperature) or temperature <= 0:
        raise ValueError("temperature is no number above 0")
    classes = said["classes"]
    if classes is not None and not (
        isinstance(classes, list) and len(classes) == n_classes and all(isinstance(name, str) for name in classes)
    ):
        raise ValueError("classes are not as many names")
    vectors = []
    for name in ("scale", "bias"):
        values = said[name]
        if values is not None and not (
            isinstance(values, list) and len(values) == n_classes and all(map(_is_number, values))
        ):
            raise ValueError(f"{name} is not one number for each class")
        vectors.append(None if values is None else tuple(map(float, values)))
    if (vectors[0] is None) != (vectors[1] is None) or min(vectors[0] or (1.0,)) <= 0:
        raise ValueError("scale and bias do not go together")
    return Calibrated(n_classes, None if classes is None else tuple(classes), float(temperature), *vectors)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Calibration files, written by ``calibrate`` and read by ``score --calibration``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchmax.errors import UsageError
from batchmax.runtime.installation import missing_package
from batchmax.runtime.lazy_imports import allow_imports
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.text_input import read_text

SMALLEST_T, LARGEST_T = 1e-3, 1e3
"""Bounds of the fitted temperature."""
MEMBERS = {
    "n_classes": int,
    "temperature": float | int,
    "classes": list | None,
    "scale": list | None,
    "bias": list | None,
}
"""Members of a calibration file that are read, with their types."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration: a temperature, or a scale and a bias for each class."""

    n_classes: int
    classes: tuple[str, ...] | None
    temperature: float
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None


def read_calibration(path: str | os.PathLike[str], storage: Sequence[str] = ()) -> Calibrated:
    """Read a calibration file at a path or a URI; ``storage`` has the options of its file system.

    Raises
    ------
    UsageError
        The file doesn't exist, is damaged, or isn't a calibration file.
    """
    name, where = os.fspath(path), "--calibration"
    remedy = "create it: batchmax calibrate INPUT -o FILE"
    text = read_text(path, where, storage)
    if text is None:
        raise UsageError(f"there is no file {name}", where=where, remedy=remedy)
    try:
        return _checked(json_object(parse_json(text), MEMBERS))
    except JsonError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{name} is not a calibration file: {reason}", where=where, remedy=remedy) from error


def scipy_optimize() -> Any:
    """Return SciPy's ``optimize`` module.

    Raises
    ------
    UsageError
        SciPy isn't installed.
    """
    allow_imports()
    try:
        from scipy import optimize  # noqa: PLC0415 - slow to import, and optional
    except ImportError as error:
        raise missing_package("SciPy", "insight") from error
    return optimize


def _checked(members: Mapping[str, Any]) -> Calibrated:
    n_classes, temperature = members["n_classes"], members["temperature"]
    if isinstance(n_classes, bool) or n_classes < 1:
        raise JsonError("n_classes is not a positive integer")
    if not _is_number(temperature) or temperature <= 0:
        raise JsonError("temperature is not a number above 0")
    classes = _per_class(members, "classes", lambda name: isinstance(name, str), "names")
    scale, bias = (_per_class(members, name, _is_number, "numbers") for name in ("scale", "bias"))
    if (scale is None) != (bias is None) or min(scale or (1.0,)) <= 0:
        raise JsonError("scale and bias are not both given, or a scale is not above 0")
    scale, bias = (None if values is None else tuple(map(float, values)) for values in (scale, bias))
    return Calibrated(n_classes, classes, float(temperature), scale, bias)


def _per_class(
    members: Mapping[str, Any], name: str, is_valid: Callable[[Any], bool], what: str
) -> tuple[Any, ...] | None:
    """Return a list of one value per class, if it is there."""
    values = members[name]
    if values is None:
        return None
    if len(values) != members["n_classes"] or not all(map(is_valid, values)):
        raise JsonError(f"{name} is not a list of n_classes {what}")
    return tuple(values)


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN, infinity, and integers outside the range of floats

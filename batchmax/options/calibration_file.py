"""Calibration files, written by ``calibrate`` and read by ``score --calibration``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from batchmax.activations import WITH_CALIBRATION
from batchmax.errors import UsageError
from batchmax.runtime.installation import missing_package
from batchmax.runtime.lazy_imports import allow_imports
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.text_input import read_text

SMALLEST_T, LARGEST_T = 1e-3, 1e3
"""Bounds of the fitted temperature."""
MEMBERS = {
    "n_classes": int,
    "activation": str | None,
    "temperature": float | int,
    "classes": list | None,
    "scale": list | None,
    "bias": list | None,
}
"""Members of a calibration file that are read, with their types."""


def read_calibration(path: str | os.PathLike[str], storage: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options that a calibration file sets: ``calibrated_classes``, ``calibrated_activation``, ``beta``, ...

    ``scale`` and ``bias`` are among them if it has them. ``storage`` has the options of the path's file system.

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
        members = parse_json(text)
        if isinstance(members, dict):
            members.setdefault("activation", None)  # which files of earlier versions don't have
        return _options(json_object(members, MEMBERS))
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


def _options(members: Mapping[str, Any]) -> dict[str, Any]:
    n_classes, temperature = members["n_classes"], members["temperature"]
    if isinstance(n_classes, bool) or n_classes < 1:
        raise JsonError("n_classes is not a positive integer")
    if not _is_number(temperature) or temperature <= 0:
        raise JsonError("temperature is not a number above 0")
    for name, is_valid in (("classes", _is_text), ("scale", _is_number), ("bias", _is_number)):
        values = members[name]
        if values is not None and (len(values) != n_classes or not all(map(is_valid, values))):
            raise JsonError(f"{name} is not a list of n_classes {'names' if name == 'classes' else 'numbers'}")
    scale, bias = members["scale"], members["bias"]
    if (scale is None) != (bias is None) or min(scale or (1.0,)) <= 0:
        raise JsonError("scale and bias are not both given, or a scale is not above 0")
    activation = members["activation"] or "softmax"
    if activation not in WITH_CALIBRATION:
        raise JsonError(f"activation is not {' or '.join(WITH_CALIBRATION)}")
    options = {
        "calibrated_classes": n_classes,
        "calibrated_activation": activation,
        "beta": 1.0 / float(temperature),
    }
    if scale is None:
        return options
    return options | {"scale": tuple(map(float, scale)), "bias": tuple(map(float, bias))}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN, infinity, and integers outside the range of floats

"""Calibration files, written by ``calibrate`` and read by ``score --calibration``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from batchmax.activations import WITH_CALIBRATION
from batchmax.options.parsing import read_json
from batchmax.runtime.installation import missing_package
from batchmax.runtime.lazy_imports import allow_imports
from batchmax.storage.json_fields import JsonError, is_number, json_object

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
    remedy = "create it: batchmax calibrate INPUT -o FILE"
    return read_json(path, "--calibration", storage, _parsed, kind="a calibration file", remedy=remedy)


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


def _parsed(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        value.setdefault("activation", None)  # which files of earlier versions don't have
    members = json_object(value, MEMBERS)
    n_classes, temperature = members["n_classes"], members["temperature"]
    if isinstance(n_classes, bool) or n_classes < 1:
        raise JsonError("n_classes is not a positive integer")
    if not is_number(temperature) or temperature <= 0:
        raise JsonError("temperature is not a number above 0")
    for name, is_valid in (("classes", _is_text), ("scale", is_number), ("bias", is_number)):
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

"""Signatures that name the options a function takes as ``**given``, for ``help`` and for editors of notebooks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

INTERNAL = {"calibrated_activation", "calibrated_classes", "scale", "bias", "rule"}
"""Options that ``calibration`` and ``decision`` set."""

Function = TypeVar("Function", bound=Callable[..., object])


def name_options(function: Function) -> Function:
    """Replace ``**given`` in the signature of a function with the fields of the options that it takes or returns.

    Returns the function, which isn't changed otherwise; one without ``**given`` keeps its signature.
    """
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(own) < len(signature.parameters):
        hints = get_type_hints(function)
        kind = hints.get("options", hints["return"])
        options = [one for one in _keywords(*(get_args(kind)[:1] or [kind])) if one.name not in signature.parameters]
        # The type of functions has no such attribute; inspect reads it.
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
    return function


def _keywords(kind: Any) -> list[inspect.Parameter]:
    """Return the keyword arguments for a class of options: its fields, and what they are also made from."""
    keywords = []
    for field in inspect.signature(kind).parameters.values():
        if field.name == "beta":
            temperature = inspect.Parameter("temperature", field.kind, default=None, annotation="float | None")
            keywords.append(temperature)
        if field.name not in INTERNAL:
            # Lists may also be comma-separated text or iterables, and sizes may have units.
            wider = re.sub(r"tuple\[(\w+), \.\.\.\]", r"str | Iterable[\1]", field.annotation)
            keywords.append(field.replace(annotation="int | str" if field.name == "memory_limit" else wider))
    return keywords

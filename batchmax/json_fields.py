"""JSON that was read back, with the types of its members checked before anything uses them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class JsonError(ValueError):
    """Text that is not JSON, or JSON that lacks a member or has one of another type."""


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    JsonError
        It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from error


def json_object(value: Any, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object that has at least these members, of these types.

    Parameters
    ----------
    value
        What should be the object.
    types
        A type, or a union of types, for each name.

    Raises
    ------
    JsonError
        It is not an object, a member is missing, or a member has another type.
    """
    if not isinstance(value, dict):
        raise JsonError("it is not an object")
    for name, kind in types.items():
        if name not in value:
            raise JsonError(f"{name} is missing")
        if not isinstance(value[name], kind):
            raise JsonError(f"{name} has another type")
    return value


def json_objects(values: list[Any], types: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a list of JSON objects that each have these members."""
    return [json_object(value, types) for value in values]


def json_list(values: list[Any], kind: type) -> list[Any]:
    """Return a list whose values all have this type.

    Raises
    ------
    JsonError
        One of them has another type.
    """
    if not all(isinstance(value, kind) for value in values):
        raise JsonError("a value of a list has another type")
    return values

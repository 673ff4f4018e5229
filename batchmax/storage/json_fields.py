"""Reads JSON from files: limits its nesting, and checks the types of members before they are used."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 64
"""Maximum depth of nested objects and arrays; more would exhaust the stack when values are compared or written."""
MAX_DIGITS = 20
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1
"""The range of signed and unsigned 64-bit integers."""


class JsonError(ValueError):
    """Text that is not JSON, or JSON that lacks a member or has one of another type."""


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    text
        The contents of a file; bytes are UTF-8.

    Raises
    ------
    JsonError
        The text isn't JSON, is nested too deeply, or has an integer of more than 64 bits or an unpaired surrogate.
    """
    try:
        # json.loads would guess UTF-16 and UTF-32, and accept unpaired surrogates.
        decoded = text if isinstance(text, str) else text.decode()
        value = json.loads(decoded, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from error
    may_have_surrogates = "\\u" in decoded
    level = [value]
    for _ in range(MAX_DEPTH):
        if may_have_surrogates:
            _check_texts(level)
        level = list(_members(level))
        if not level:
            return value
    raise JsonError(f"it is nested more than {MAX_DEPTH} times")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS or not SMALLEST <= (number := int(digits)) <= LARGEST:
        raise JsonError("an integer has more than 64 bits")
    return number


def _members(level: list[Any]) -> Iterator[Any]:
    """Yield the members of the objects and arrays of a level."""
    for value in level:
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, list):
            yield from value


def _check_texts(level: list[Any]) -> None:
    for value in level:
        for text in value if isinstance(value, dict) else (value,):
            if isinstance(text, str):
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise JsonError("a string has an unpaired surrogate") from error


def json_object(value: Any, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object, after checking that it has members of these types.

    Parameters
    ----------
    value
        The value to check.
    types
        The type, or union of types, of each required member.

    Raises
    ------
    JsonError
        The value isn't an object, or a member is missing or has another type.
    """
    if not isinstance(value, dict):
        raise JsonError("it is not an object")
    for name, kind in types.items():
        if name not in value:
            raise JsonError(f"{name} is missing")
        if not isinstance(value[name], kind):
            raise JsonError(f"{name} has the wrong type")
    return value


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that a float can hold, and not a boolean."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN, infinity, and integers outside the range of floats


def json_objects(values: list[Any], types: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a list, after checking that it contains JSON objects with these members."""
    return [json_object(value, types) for value in values]


def json_list(values: list[Any], kind: type) -> list[Any]:
    """Return a list, after checking that all its values have this type.

    Raises
    ------
    JsonError
        A value has another type.
    """
    if not all(isinstance(value, kind) for value in values):
        raise JsonError("a value of a list has the wrong type")
    return values

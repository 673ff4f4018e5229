"""Parses option values: names, class weights and sizes, from text, files or Python objects; and writes arguments.

Handles one value at a time; ``input_options`` and ``score_options`` know the options and how they combine.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args, get_origin

from batchmax.errors import UsageError
from batchmax.storage.json_fields import JsonError, json_object, parse_json
from batchmax.storage.paths import is_uri
from batchmax.storage.text_input import read_text

T = TypeVar("T")


def read_json(
    path: str | os.PathLike[str],
    option: str,
    storage: Sequence[str],
    parse: Callable[[Any], T],
    *,
    kind: str,
    remedy: str,
) -> T:
    """Return what ``parse`` makes of the value in a JSON file.

    Parameters
    ----------
    path, option, storage
        As for :func:`batchmax.storage.text_input.read_text`.
    parse
        Raises :class:`batchmax.storage.json_fields.JsonError` for other values.
    kind, remedy
        What the file should be, with an article, and how to get one.

    Raises
    ------
    UsageError
        The file doesn't exist, or isn't such a file.
    """
    name, text = os.fspath(path), read_text(path, option, storage)
    if text is None:
        raise UsageError(f"there is no file {name}", where=option, remedy=remedy)
    try:
        return parse(parse_json(text))
    except JsonError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{name} is not {kind}: {reason}", where=option, remedy=remedy) from error


def read_classes(given: str | os.PathLike[str] | Iterable[str], storage: Sequence[str] = ()) -> tuple[str, ...]:
    """Return class names from comma-separated text, a file with one name per line, or a Hugging Face ``config.json``.

    ``storage`` has the options of the file system if the file is at a URI.

    Raises
    ------
    UsageError
        A file without names, or a value that can only be a file and doesn't exist.
    """
    if not isinstance(given, str | os.PathLike):
        return tuple(str(name) for name in _items("classes", given))
    invalid = partial(UsageError, where="--classes")
    text = read_text(given, "--classes", storage)
    if text is None:
        if isinstance(given, os.PathLike) or re.fullmatch(r"[^,]*(/[^,]*|\.(txt|json|csv))", given) or is_uri(given):
            raise invalid(f"there is no file {given}", remedy="give a file, or names: A,B,C")
        return names_of("classes", given)
    if not text.lstrip().startswith("{"):
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    else:
        try:
            by_id = json_object(parse_json(text), {"id2label": dict})["id2label"]
            keys = [str(index) for index in range(len(by_id))]
            names = tuple(str(name) for name in map(json_object(by_id, dict.fromkeys(keys, object)).get, keys))
        except JsonError as error:
            remedy = "give a config.json of Hugging Face, or a file with one name per line"
            raise invalid(f"{given} has no id2label with the names of classes 0, 1, 2, …", remedy=remedy) from error
    if not names:
        raise invalid(f"{given} contains no names", remedy="write one name per line")
    return names


def read_class_weights(
    given: Any, storage: Sequence[str] = (), name: str = "class_weights"
) -> tuple[float, ...] | dict[str, float]:
    """Return class weights from numbers, a dictionary by name, or a file of lines ``number`` or ``name,number``.

    ``storage`` has the options of the file system if the file is at a URI, and ``name`` is the name of the option.

    Raises
    ------
    UsageError
        The file doesn't exist, a line is invalid, a name occurs twice, or weights aren't numbers.
    """
    if isinstance(given, Mapping):
        return {str(label): _weight(name, weight) for label, weight in given.items()}
    if not isinstance(given, str | os.PathLike):
        return tuple(_weight(name, weight) for weight in _items(name, given))
    option = f"--{name.replace('_', '-')}"
    invalid, remedy = partial(UsageError, where=option), "write one number per line, or name,number"
    text = read_text(given, option, storage)
    if text is None:
        raise invalid(f"there is no file {given}", remedy="give a file with one number per line")
    named: dict[str, float] = {}
    plain: list[float] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        label, comma, weight = map(str.strip, line.rpartition(","))
        try:
            value = float(weight)
        except ValueError:
            raise invalid(f"line {number} of {given} is {line.strip()!r}", remedy=remedy) from None
        if not comma:
            plain.append(value)
        elif label in named:
            raise invalid(f"{given} names {label!r} twice", remedy="name it once")
        else:
            named[label] = value
    if bool(named) == bool(plain):
        what = "mixes numbers with and without names" if named else "contains no numbers"
        raise invalid(f"{given} {what}", remedy=remedy)
    return named or tuple(plain)


def parse_bytes(text: str | int) -> int:
    """Parse a size such as ``1073741824``, ``"512MiB"`` or ``"2 GB"`` to bytes.

    Raises
    ------
    UsageError
        The text isn't a size.
    """
    if not isinstance(text, str):
        check_type("memory_limit", text, int)
        return text
    match = re.fullmatch(r"\s*([0-9.]{1,20})\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or match[1].count(".") > 1 or match[1] == ".":
        raise UsageError(f"{text!r} is not a size", where="--memory-limit", remedy="write it like 512MiB or 2GB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


def names_of(option: str, given: Any) -> tuple[str, ...]:
    """Return names from comma-separated text, or from an iterable of strings."""
    items = given.split(",") if isinstance(given, str) else _items(option, given)
    for item in items:
        check_type(option, item, str)
    return tuple(item.strip() for item in items if item.strip())


def _items(option: str, given: Any) -> list[Any]:
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise _wrong_type(option, given, "a list")
    return list(given)


def _weight(option: str, given: Any) -> float:
    # float() also accepts text, which is invalid here, and tensors with one number, which are valid.
    try:
        if not isinstance(given, str | bytes):
            return float(given)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _wrong_type(option, given, "numbers")


def check_type(option: str, value: Any, hint: Any) -> None:
    """Check that a value has the type of an annotation.

    Raises
    ------
    UsageError
        It doesn't; the error states the expected type.
    """
    if _is_of(value, hint):
        return
    choices = [name for part in (hint, *get_args(hint)) if get_origin(part) is Literal for name in get_args(part)]
    if choices and isinstance(value, str):
        what, remedy = f"{value!r} is not a valid choice", f"choose from {', '.join(choices)}"
        raise UsageError(what, where=flag_of(option), remedy=remedy)
    name = hint.__name__ if isinstance(hint, type) else str(hint).removesuffix(" | None")
    raise _wrong_type(option, value, " or ".join(choices) or name)


def refuse_if(is_invalid: bool, option: str, what: str, remedy: str) -> None:
    """Refuse a value of an option, or a combination with others; ``what`` and ``remedy`` are those of the error.

    Raises
    ------
    UsageError
        ``is_invalid`` is true.
    """
    if is_invalid:
        raise UsageError(what, where=option, remedy=remedy)


def check_at_least(option: str, value: int | None, smallest: int) -> None:
    """Check that a value isn't too small.

    Raises
    ------
    UsageError
        It is.
    """
    if value is not None and value < smallest:
        raise UsageError(f"{value} is less than {smallest}", where=option)


def check_unique(option: str, names: Iterable[str]) -> None:
    """Check that no name occurs twice.

    Raises
    ------
    UsageError
        One does.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{name!r} is named twice", where=option, remedy="name it once")
        seen.add(name)


def refuse(what: str, remedy: str, **given: Any) -> None:
    """Raise if one of these options is given.

    Raises
    ------
    UsageError
        An option isn't None, False or 0; the error names it.
    """
    for option, value in given.items():
        if value is not None and value != 0:
            raise UsageError(what, where=flag_of(option), remedy=remedy)


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a value has an annotated type; integers count as floats, booleans aren't numbers."""
    kind, arguments = get_origin(hint), get_args(hint)
    if hint is bool:
        return isinstance(value, bool)
    if kind is None:
        if hint is float and isinstance(value, int) and abs(value) > sys.float_info.max:
            return False
        return isinstance(value, {int: Integral, float: Real}.get(hint, hint)) and not isinstance(value, bool)
    if kind is Literal:
        return isinstance(value, str) and value in arguments
    if kind is tuple:
        return isinstance(value, tuple) and all(_is_of(item, arguments[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_is_of(item, arguments[1]) for item in value.values())
    return any(_is_of(value, part) for part in arguments)


def _wrong_type(option: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"invalid type {type(value).__name__}", where=flag_of(option), remedy=f"give {wanted}")


def flag_of(option: str) -> str:
    """Return the command-line option for the name of a field or a keyword argument."""
    return "--" + option.replace("_", "-")


def option_words(given: Mapping[str, Any]) -> list[str]:
    """Return options as command-line arguments, without those that are None, False or empty."""
    words = []
    for name, value in given.items():
        if value is True:
            words.append(flag_of(name))
        elif value is not None and value is not False and value != ():
            words += [flag_of(name), ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words

"""What was asked, checked once and frozen.

Every command line option and every keyword argument of the Python functions becomes a field of
:class:`ScoreOptions`; whatever is built from one is known to make sense. What depends on the data (whether a
column exists, how many classes there are) is not known here and is decided in ``columns``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from batchmax.errors import UsageError
from batchmax.outputs import OUTPUTS

InputKind = Literal["logits", "log_probs", "probs"]
Layout = Literal["list", "fixed", "wide"]
FloatName = Literal["float32", "float64", "float16"]
BinaryName = Literal["float32", "float16", "bfloat16"]
BadRowPolicy = Literal["error", "null", "drop"]
IfExists = Literal["error", "overwrite"]
Compression = Literal["snappy", "zstd", "lz4", "gzip", "brotli", "none"]

MAX_BETA = 1e300
MIN_MEMORY = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of a scoring job; the field names are the command line's long options.

    Raises
    ------
    UsageError
        A value outside its domain, or two options that contradict each other.
    """

    # What to read
    logits: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    n_classes: int | None = None
    ignore_index: int = -100
    logits_dtype: BinaryName | None = None
    input: InputKind = "logits"
    limit: int | None = None
    # What to compute
    beta: float = 1.0
    outputs: tuple[str, ...] | None = None
    top_k: int | None = None
    class_weights: tuple[float, ...] | dict[str, float] | None = None
    label_smoothing: float = 0.0
    # What to write
    layout: Layout | None = None
    dtype: FloatName | None = None
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    prefix: str = ""
    compression: Compression | None = None
    row_group_size: int | None = None
    if_exists: IfExists = "error"
    # When rows are bad
    on_bad_row: BadRowPolicy = "error"
    rejects: str | None = None
    fail_if: str | None = None
    # Running
    threads: int | None = None
    memory_limit: int = 2**30

    def __post_init__(self) -> None:
        """Check each value and each pair of values."""
        _check_choice("--input", self.input, InputKind)
        _check_choice("--logits-dtype", self.logits_dtype, BinaryName)
        _check_choice("--layout", self.layout, Layout)
        _check_choice("--dtype", self.dtype, FloatName)
        _check_choice("--compression", self.compression, Compression)
        _check_choice("--on-bad-row", self.on_bad_row, BadRowPolicy)
        _check_choice("--if-exists", self.if_exists, IfExists)
        _check_at_least("--n-classes", self.n_classes, 1)
        _check_at_least("--top-k", self.top_k, 1)
        _check_at_least("--limit", self.limit, 0)
        _check_at_least("--row-group-size", self.row_group_size, 1)
        _check_at_least("--threads", self.threads, 1)
        if not 1 / MAX_BETA <= self.beta <= MAX_BETA:
            raise UsageError(
                f"beta is {self.beta:g}",
                where="--beta",
                remedy=f"it must be above 0 and at most {MAX_BETA:g}, and so must the temperature, 1/beta",
            )
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise UsageError(
                f"{self.label_smoothing:g} is not between 0 and 1", where="--label-smoothing", remedy="try 0.1"
            )
        if self.memory_limit < MIN_MEMORY:
            raise UsageError(
                f"{self.memory_limit:,} bytes is too little to run in",
                where="--memory-limit",
                remedy=f"give at least {MIN_MEMORY // 2**20}MiB",
            )
        for name in self.outputs or ():
            if name not in OUTPUTS:
                raise UsageError(
                    f"no output is called {name!r}", where="--outputs", remedy=f"choose of {', '.join(OUTPUTS)}"
                )
            if OUTPUTS[name].needs_label and self.label == "none":
                raise UsageError(f"{name} needs a label", where="--outputs", remedy="name its column with --label")
        _check_unique("--outputs", self.outputs or ())
        _check_unique("--classes", self.classes or ())
        if self.rejects is not None and self.on_bad_row != "drop":
            raise UsageError(
                "rejected rows are kept only when bad rows are dropped",
                where="--rejects",
                remedy="add --on-bad-row drop",
            )
        weights = self.class_weights or ()
        for weight in weights.values() if isinstance(weights, dict) else weights:
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(
                    f"a weight is {weight:g}", where="--class-weights", remedy="weights are finite and not negative"
                )


def score_options(**given: Any) -> ScoreOptions:
    """Build :class:`ScoreOptions` from what people type or pass.

    Comma-separated text and iterables of text are both taken for lists; ``temperature`` stands for
    ``1 / beta``; ``memory_limit`` may be text such as ``"512MiB"``; ``None`` means the default.

    Raises
    ------
    UsageError
        An unknown name, or a value outside its domain.
    """
    known = {field.name for field in fields(ScoreOptions)}
    values = {name: value for name, value in given.items() if value is not None}
    temperature = values.pop("temperature", None)
    if temperature is not None:
        if "beta" in values:
            raise UsageError("both --temperature and --beta are given", remedy="give one: beta is 1/temperature")
        if not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(f"temperature is {temperature:g}", where="--temperature", remedy="give a number above 0")
        values["beta"] = 1.0 / float(temperature)
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"no option is called {unknown[0]!r}", remedy=f"choose of {', '.join(sorted(known))}")
    for name in ("outputs", "columns", "exclude"):
        if name in values:
            values[name] = _split(values[name])
    if "classes" in values:
        values["classes"] = read_classes(values["classes"])
    if "memory_limit" in values:
        values["memory_limit"] = parse_bytes(values["memory_limit"])
    if "class_weights" in values:
        values["class_weights"] = read_class_weights(values["class_weights"])
    if "outputs" in values and not values["outputs"] and "top_k" not in values:
        raise UsageError("nothing is asked for", where="--outputs", remedy="try probs,loss")
    return ScoreOptions(**values)


def read_classes(given: str | os.PathLike[str] | Iterable[str]) -> tuple[str, ...]:
    """Return class names from text with commas, a file with a name a line, or a Hugging Face ``config.json``.

    Raises
    ------
    UsageError
        A file that holds no names.
    """
    if not isinstance(given, str | os.PathLike):
        return tuple(str(name) for name in given)
    text = _file_text(given, "--classes")
    if text is None:
        return _split(os.fspath(given))
    if not text.lstrip().startswith("{"):
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    else:
        try:
            by_id = {int(key): str(name) for key, name in json.loads(text)["id2label"].items()}
            names = tuple(by_id[index] for index in range(len(by_id)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{given} has no id2label with the names of classes 0, 1, 2, …",
                where="--classes",
                remedy="give a config.json of Hugging Face, or a file with one name a line",
            ) from error
    if not names:
        raise UsageError(f"{given} holds no names", where="--classes", remedy="write one name a line")
    return names


def read_class_weights(given: Any) -> tuple[float, ...] | dict[str, float]:
    """Return class weights from numbers, a dictionary by name, or a file of lines ``number`` or ``name,number``.

    Raises
    ------
    UsageError
        A file that is not there, or a line that is neither.
    """
    if isinstance(given, Mapping):
        return {str(name): float(weight) for name, weight in given.items()}
    if not isinstance(given, str | os.PathLike):
        return tuple(float(weight) for weight in given)
    text = _file_text(given, "--class-weights")
    if text is None:
        raise UsageError(
            f"there is no file {given}", where="--class-weights", remedy="write one number a line into a file"
        )
    named: dict[str, float] = {}
    plain: list[float] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, comma, weight = line.rpartition(",")
        try:
            value = float(weight)
        except ValueError:
            raise UsageError(
                f"line {number} of {given} is {line.strip()!r}",
                where="--class-weights",
                remedy="write one number a line, or name,number",
            ) from None
        if comma and name.strip() in named:
            raise UsageError(f"{given} names {name.strip()!r} twice", where="--class-weights", remedy="name it once")
        if comma:
            named[name.strip()] = value
        else:
            plain.append(value)
    if bool(named) == bool(plain):
        what = "mixes numbers with and without names" if named else "holds no numbers"
        raise UsageError(f"{given} {what}", where="--class-weights", remedy="write one number a line, or name,number")
    return named or tuple(plain)


def parse_bytes(text: str | int) -> int:
    """Read a size: ``1073741824``, ``"512MiB"``, ``"2 GB"``.

    Raises
    ------
    UsageError
        Text that is not a size.
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([0-9.]{1,20})\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or match[1].count(".") > 1 or match[1] == ".":
        raise UsageError(f"{text!r} is not a size", where="--memory-limit", remedy="write it like 512MiB or 2GB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


def _file_text(path: str | os.PathLike[str], option: str) -> str | None:
    """Return the text of a file, or None if nothing has that name."""
    try:
        if not Path(path).is_file():
            return None
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as text", where=option, remedy="give a text file in UTF-8") from error


def _split(value: str | Iterable[str]) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(item.strip() for item in items if item.strip())


def _check_choice(option: str, value: str | None, choices: Any) -> None:
    if value is not None and value not in get_args(choices):
        raise UsageError(f"{value!r} is not a choice", where=option, remedy=f"choose of {', '.join(get_args(choices))}")


def _check_at_least(option: str, value: int | None, smallest: int) -> None:
    if value is not None and value < smallest:
        raise UsageError(f"{value} is less than {smallest}", where=option)


def _check_unique(option: str, names: tuple[str, ...]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise UsageError(f"{name!r} is named twice", where=option, remedy="name it once")

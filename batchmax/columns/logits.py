"""Finds the columns that hold the logits, from the schema alone.

:func:`find_logits` resolves the columns that the options name, or common names of logits, to a :class:`LogitsColumn`:
what to read, its layout, and the type to compute in. Module ``matrices`` reads the numbers, ``labels`` the labels and
class names. Doesn't know files or rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from batchmax.columns.arrow import column_types, is_binary, is_list, is_spark_vector, plain_type, type_text
from batchmax.columns.scored_input import KINDS, as_written, check_unasked
from batchmax.errors import UsageError
from batchmax.options.input_options import BinaryName, InputKind
from batchmax.options.score_options import ScoreOptions

LogitsLayout = Literal["list", "large_list", "fixed", "tensor", "wide", "binary", "uint16", "spark"]
OutputLayout = Literal["list", "large_list", "fixed", "wide"]

LABEL_NAMES = ("label", "labels", "target")
"""Names of label columns, used if ``--label`` isn't given."""

BITS_WIDTH: dict[BinaryName, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number in rows that are stored as binary."""

_MOST_CANDIDATES = 10


@dataclass(frozen=True)
class LogitsColumn:
    """The columns of logits, and how to read them.

    Attributes
    ----------
    names
        Columns to read, dotted if nested; for the layout ``wide``, one per class, in class order.
    layout
        How a row is stored.
    n_classes
        The number of classes, if the schema or ``--n-classes`` determines it; otherwise None.
    dtype
        Type to compute in: float32, or float64 for float64 and integers.
    why
        What was chosen and why, for the summary.
    class_names
        The class names, if the columns of a wide layout are named after them; numbers that don't start at 0 count as
        names. Otherwise empty.
    suffixes
        The parts in which the names of wide columns differ; otherwise empty.
    output_layout
        Default layout of the probabilities in the output.
    bits
        The type of the stored numbers, for the layouts ``binary`` and ``uint16``.
    nested
        Whether a row is a sequence: a list of rows in this layout, one per token.
    holds
        What the numbers are: as ``--input`` says, the metadata of an output of ``score``, or the column's name.
    """

    names: tuple[str, ...]
    layout: LogitsLayout
    n_classes: int | None
    dtype: np.dtype[Any]
    why: str = ""
    class_names: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    output_layout: OutputLayout = "list"
    bits: BinaryName | None = None
    nested: bool = False
    holds: InputKind = "logits"


def find_logits(schema: pa.Schema, options: ScoreOptions) -> LogitsColumn:
    """Find the logits: the columns that ``--logits`` names, or an unambiguous default.

    Without ``--logits``, these are, in this order: what the metadata of an output of ``score`` name; the column named
    as ``--input``, ``probs`` or ``log_probs``; a column named ``logits``; columns ``logit_*``; a column of numbers
    named ``logit``; the only list of floats. Columns named ``probs`` and ``log_probs`` are read as such.

    Raises
    ------
    UsageError
        No such column, several candidates, a column that can't hold logits, a gap in the numbers of the columns of a
        wide layout, or a number of classes other than ``--n-classes``.
    """
    types = column_types(schema)
    asked, options = options, as_written(schema, options)
    name = options.logits
    if name is None and options.input in KINDS and options.input in types:
        # --input also determines which of several columns is meant.
        name = options.input
    if name is not None:
        if name in types:
            reason = "named with --logits" if asked.logits else "which score wrote" if options.logits else "by its name"
            found = _one_column(schema, name, options, reason)
        elif any(wildcard in name for wildcard in "*?["):
            found = _by_pattern(schema, name, options)
        elif "," in name:
            found = _by_names(schema, [one.strip() for one in name.split(",")], options)
        else:
            raise _unknown(name, types, options)
    elif "logits" in types:
        found = _one_column(schema, "logits", options, "by its name")
    elif _matches("logit_*", types):
        found = _by_pattern(schema, "logit_*", options)
    elif "logit" in types and computed_in(plain_type(types["logit"])) is not None:
        found = _one_column(schema, "logit", options, "by its name")
    else:
        found = _only_list(schema, options)
    holds = options.input or _held_by_name(found, options)
    found = replace(found, holds=holds)
    if found.n_classes == 0:
        raise UsageError(f"the rows of column {found.names[0]!r} hold no classes", remedy=_NAME_ANOTHER)
    if options.n_classes is not None:
        if found.n_classes not in {None, options.n_classes}:
            raise UsageError(
                f"{found.n_classes:,} classes in {found.why}, {options.n_classes:,} asked for",
                where="--n-classes",
                remedy=f"leave it out, or give {found.n_classes}",
            )
        found = replace(found, n_classes=options.n_classes)
    return found


def one_logit(logits: LogitsColumn, schema: pa.Schema) -> UsageError:
    """Return the error for rows of one logit; its remedy is to make two logits of it."""
    name = logits.names[0]
    remedy = "for a binary classifier give two logits a row, 0 and z: class 1 then has the probability sigmoid(z)"
    if not logits.nested and logits.bits is None and "'" not in name and '"' not in name:
        value = ".".join(f'"{part}"' for part in ([name] if name in schema.names else name.split(".")))
        value += "" if logits.layout == "wide" else "[1]"
        # S608: it is printed, and the name in it has no quotes.
        query = f"COPY (SELECT *, [0, {value}] AS two_logits FROM 'FILE') TO 'two.parquet'"  # noqa: S608
        remedy += f"; in DuckDB: {query}; then: --logits two_logits"
    what = f"column {name!r} ({type_text(column_types(schema)[name])}) cannot hold logits of several classes"
    return UsageError(f"{what}: it has one number in a row, whose softmax is always 1", remedy=remedy)


def close_match(name: str, names: Iterable[str]) -> str:
    """Return a hint with the most similar name, or an empty string."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def list_form(name: str, arrow_type: pa.DataType, bits: BinaryName | None = None) -> LogitsColumn:
    """Return how a column of this type with one row of numbers per row is read.

    Raises
    ------
    UsageError
        The type can't hold a row of numbers.
    """
    plain = plain_type(arrow_type)
    what = f"column {name!r} ({type_text(arrow_type)})"
    if isinstance(arrow_type, pa.FixedShapeTensorType) and len(arrow_type.shape) != 1:
        raise _sequences(f"{what} holds tensors of shape {tuple(arrow_type.shape)}")
    if is_spark_vector(plain):
        return _without_bits(LogitsColumn((name,), "spark", None, np.dtype("f8")), what, bits)
    if is_binary(plain):
        if bits is None:
            raise UsageError(
                f"{what} holds bytes that could be anything",
                where="--logits",
                remedy="say what they are: --logits-dtype float32, float16 or bfloat16",
            )
        width = getattr(plain, "byte_width", 0) if pa.types.is_fixed_size_binary(plain) else 0
        if width % BITS_WIDTH[bits]:
            raise UsageError(
                f"{what} has rows of {width} bytes, which is no whole number of {bits}",
                where="--logits-dtype",
                remedy="name the type they were written in",
            )
        n_classes = width // BITS_WIDTH[bits] if pa.types.is_fixed_size_binary(plain) else None
        return LogitsColumn((name,), "binary", n_classes, np.dtype("f4"), bits=bits)
    if not is_list(plain):
        raise UsageError(f"{what} cannot hold logits", where="--logits", remedy=_NAME_ANOTHER)
    item = plain.value_type
    if is_list(plain_type(item)) or isinstance(item, pa.BaseExtensionType):
        raise _sequences(f"{what} holds lists of lists")
    dtype = computed_in(item)
    if dtype is None:
        raise UsageError(f"{what} does not hold numbers", where="--logits", remedy=_NAME_ANOTHER)
    layout, n_classes = _list_layout(arrow_type, plain)
    if bits is not None and pa.types.is_uint16(item):
        if BITS_WIDTH[bits] != 2:
            raise UsageError(
                f"{what} holds numbers of 2 bytes, {bits} has {BITS_WIDTH[bits]}",
                where="--logits-dtype",
                remedy="give float16 or bfloat16",
            )
        return LogitsColumn((name,), "uint16", n_classes, np.dtype("f4"), bits=bits)
    output: OutputLayout = "fixed" if layout == "tensor" else cast("OutputLayout", layout)
    return _without_bits(LogitsColumn((name,), layout, n_classes, dtype, output_layout=output), what, bits)


def computed_in(arrow_type: pa.DataType) -> np.dtype[Any] | None:
    """Return the type in which numbers of an Arrow type are computed; None if it isn't a supported numeric type."""
    if pa.types.is_float16(arrow_type) or pa.types.is_float32(arrow_type):
        return np.dtype("f4")
    if pa.types.is_float64(arrow_type) or pa.types.is_integer(arrow_type):
        return np.dtype("f8")
    return None


_NAME_ANOTHER = "name another column: --logits NAME"

WORDS = {"logits": "logits", "probs": "probabilities", "log_probs": "logarithms of probabilities"}
"""What columns hold, for messages."""


def _held_by_name(found: LogitsColumn, options: ScoreOptions) -> InputKind:
    """Return what columns hold by their names; logits unless the names say otherwise."""
    if found.layout == "wide":
        pattern = options.logits or ""
        return next((kind for name, kind in KINDS.items() if pattern.startswith(f"{name[:-1]}_")), "logits")
    return KINDS.get(found.names[0].rpartition(".")[2], "logits")


def _one_column(schema: pa.Schema, name: str, options: ScoreOptions, reason: str) -> LogitsColumn:
    _check_once(schema, name)
    arrow_type = column_types(schema)[name]
    if computed_in(plain_type(arrow_type)) is not None:
        # A single column of numbers is a wide layout with one class.
        found = _wide(schema, [name], ["0"], options)
        if options.logits is None:
            raise one_logit(found, schema)
        return found
    of_token = _of_token(arrow_type) if "." not in name or name in schema.names else None
    found = list_form(name, of_token or arrow_type, options.logits_dtype)
    what = f"column {name!r} ({type_text(arrow_type)})"
    plain = plain_type(of_token or arrow_type)
    if found.bits is None and is_list(plain) and pa.types.is_uint16(plain.value_type):
        raise UsageError(
            f"{what} holds numbers of 16 bits that are usually the bits of floats",
            where="--logits",
            remedy="say what they are: --logits-dtype bfloat16 or float16; if they are integers, cast them to int32",
        )
    if of_token is not None:
        reason += "; rows are sequences"
    return replace(found, why=f"{what}, {reason}", nested=of_token is not None)


def _of_token(arrow_type: pa.DataType) -> pa.DataType | None:
    """Return the type of a token's logits if a row is a list of tokens; otherwise None."""
    outer = plain_type(arrow_type)
    if isinstance(arrow_type, pa.BaseExtensionType) or not is_list(outer):
        return None
    inner = outer.value_type
    return inner if is_list(plain_type(inner)) or is_binary(plain_type(inner)) else None


def _only_list(schema: pa.Schema, options: ScoreOptions) -> LogitsColumn:
    labels = {*LABEL_NAMES, options.label}
    fit = [name for name, type_ in column_types(schema).items() if _fits(name, type_, options)]
    floats = [
        field.name for field in schema if field.name in fit and field.name not in labels and _is_float_list(field.type)
    ]
    if len(floats) == 1 or (floats and set(floats) <= KINDS.keys()):
        name = next((name for name in KINDS if name in floats), floats[0])
        if name in KINDS:
            return _one_column(schema, name, options, "by its name")
        if options.input is None:
            check_unasked(name)
        return _one_column(schema, name, options, "the only list of floats")
    if floats:
        raise UsageError(
            f"{len(floats)} columns could be the logits: {_listed(floats)}",
            remedy="choose one: --logits NAME",
        )
    if fit:
        raise UsageError(
            f"no column is called 'logits' and none is a list of floats; possible are {_listed(fit)}",
            remedy="name one: --logits NAME",
        )
    raise UsageError(
        f"no column can hold logits; the columns are {_listed(schema.names)}",
        remedy="name lists of numbers, or one column a class: --logits 'score_*'",
    )


def _by_pattern(schema: pa.Schema, pattern: str, options: ScoreOptions) -> LogitsColumn:
    types = column_types(schema)
    if not pattern.strip("*?"):
        raise UsageError(
            f"{pattern!r} matches every column, and so numbers that are no logits, such as ids and weights",
            where="--logits",
            remedy="give a pattern that only classes match: --logits 'logit_*'; or name them: --logits A,B,C",
        )
    others = {*_not_classes(types, options)}
    names = [name for name in _matches(pattern, types) if name not in others]
    if not names:
        raise UsageError(
            f"no column matches {pattern!r}; the columns are {_listed(types)}",
            where="--logits",
            remedy="quote the pattern, as in --logits 'logit_*'",
        )
    if len(names) == 1 and computed_in(plain_type(types[names[0]])) is None:
        return _one_column(schema, names[0], options, f"the only match of {pattern!r}")
    opening, closing = re.split(r"[*?\[]", pattern)[0], re.split(r"[*?\]]", pattern)[-1]
    suffixes = [name[len(opening) : len(name) - len(closing)] for name in names]
    _check_alike(names, suffixes, types)
    return _wide(schema, names, suffixes, options)


def _not_classes(types: dict[str, pa.DataType], options: ScoreOptions) -> Iterator[str]:
    """Yield the columns that can't be classes: those of labels and bytes."""
    if options.label not in {None, "none"}:
        yield str(options.label)
    yield from (name for name in LABEL_NAMES if name in types)
    if options.bytes is not None:
        yield options.bytes


def _check_alike(names: Sequence[str], suffixes: Sequence[str], types: dict[str, pa.DataType]) -> None:
    """Reject integer columns among float columns unless all are numbered: they are more often ids or counts."""
    if all(suffix.isascii() and suffix.isdigit() for suffix in suffixes):
        return
    whole = [name for name in names if pa.types.is_integer(plain_type(types[name]))]
    if whole and len(whole) < len(names):
        raise UsageError(
            f"{_listed(whole)} hold{'s' * (len(whole) == 1)} integers, and the other columns floats: are they classes?",
            where="--logits",
            remedy="give a narrower pattern, or name the classes: --logits A,B,C",
        )


def _by_names(schema: pa.Schema, names: Sequence[str], options: ScoreOptions) -> LogitsColumn:
    """Return columns that ``--logits`` lists by name, in the order of the classes."""
    types = column_types(schema)
    for name in names:
        if name not in types:
            raise _unknown(name, types, options)
    if len(set(names)) < len(names):
        raise UsageError("a column is named twice", where="--logits", remedy="name each once")
    numbers = [str(number) for number in range(len(names))]
    if list(names) == [names[0].removesuffix("0") + number for number in numbers]:
        return _wide(schema, names, numbers, options)
    return _wide(schema, names, names, options, are_classes=True)


def refuse_as_class(logits: LogitsColumn, option: str, names: Iterable[str]) -> None:
    """Check that columns that an option names aren't columns of classes.

    Raises
    ------
    UsageError
        One is; the error names it.
    """
    taken = next((name for name in names if logits.layout == "wide" and name in logits.names), None)
    if taken is not None:
        raise UsageError(
            f"column {taken!r} is also one of the logits ({logits.why})",
            where=option,
            remedy="give --logits a pattern that only classes match",
        )


def _wide(
    schema: pa.Schema,
    names: Sequence[str],
    suffixes: Sequence[str],
    options: ScoreOptions,
    *,
    are_classes: bool = False,
) -> LogitsColumn:
    """Return one column per class, in the order of their numbers, or as given if the names are class names."""
    types = column_types(schema)
    computed = []
    for name in names:
        _check_once(schema, name)
        dtype = computed_in(plain_type(types[name]))
        if dtype is None:
            raise UsageError(
                f"column {name!r} ({type_text(types[name])}) is no number, so it cannot hold a class",
                where="--logits",
                remedy="give a narrower pattern, as in --logits 'logit_[0-9]*'",
            )
        computed.append(dtype)
    numbered = [not are_classes and suffix.isascii() and suffix.isdigit() for suffix in suffixes]
    order = list(range(len(names)))
    if all(numbered):
        order.sort(key=lambda position: int(suffixes[position]))
    elif any(numbered):
        odd = [name for name, is_number in zip(names, numbered, strict=True) if not is_number]
        raise UsageError(
            f"some columns end in a number, {_listed(odd)} not: are they classes?",
            where="--logits",
            remedy="give a narrower pattern, as in --logits 'logit_[0-9]*'",
        )
    names = tuple(names[position] for position in order)
    suffixes = tuple(suffixes[position] for position in order)
    why = (
        f"{len(names)} column{'s' * (len(names) > 1)} {names[0]!r}"
        + (f" … {names[-1]!r}" if len(names) > 1 else "")
        + f" ({type_text(types[names[0]])}), one a class"
    )
    named = not all(numbered)
    if not named:
        numbers = [int(suffix) for suffix in suffixes]
        _check_no_gap(names, numbers)
        if numbers[0] != 0:
            # If these were indices, labels that count from the same number would be off by one, mostly without an
            # error.
            named = True
            why += f"; the numbers start at {numbers[0]}, so they are taken for class names"
    found = LogitsColumn(
        names,
        "wide",
        len(names),
        max(computed, key=lambda dtype: dtype.itemsize),
        why,
        suffixes if named else (),
        suffixes,
        "wide",
    )
    return _without_bits(found, found.why, options.logits_dtype)


def _check_no_gap(names: Sequence[str], numbers: Sequence[int]) -> None:
    for position in range(1, len(numbers)):
        before, after = numbers[position - 1], numbers[position]
        pair = f"{names[position - 1]!r} and {names[position]!r}"
        if after == before:
            raise UsageError(f"{pair} are both class {after}", where="--logits", remedy="rename or drop one")
        if after > before + 1:
            missing = f"{before + 1}" if after == before + 2 else f"{before + 1} to {after - 1}"
            raise UsageError(
                f"class {missing} is missing between {pair}",
                where="--logits",
                remedy="add what is missing, or give a pattern that leaves out the rest",
            )


def _check_once(schema: pa.Schema, name: str) -> None:
    if len(schema.get_all_field_indices(name)) > 1:
        raise UsageError(f"column {name!r} is there twice", where="--logits", remedy="rename one of the two")


def _matches(pattern: str, types: dict[str, pa.DataType]) -> list[str]:
    # Structs are matched by their fields: a pattern for fields often matches the struct as well.
    return [
        name
        for name, kind in types.items()
        if fnmatchcase(name, pattern) and (is_spark_vector(plain_type(kind)) or not pa.types.is_struct(kind))
    ]


def _fits(name: str, arrow_type: pa.DataType, options: ScoreOptions) -> bool:
    try:
        list_form(name, _of_token(arrow_type) or arrow_type, options.logits_dtype)
    except UsageError:
        return False
    return True


def _is_float_list(arrow_type: pa.DataType) -> bool:
    plain = plain_type(_of_token(arrow_type) or arrow_type)
    return is_list(plain) and bool(pa.types.is_floating(plain.value_type))


def _list_layout(arrow_type: pa.DataType, plain: pa.DataType) -> tuple[LogitsLayout, int | None]:
    if pa.types.is_fixed_size_list(plain):
        is_tensor = isinstance(arrow_type, pa.FixedShapeTensorType)
        return "tensor" if is_tensor else "fixed", int(plain.list_size)
    is_large = pa.types.is_large_list(plain) or pa.types.is_large_list_view(plain)
    return "large_list" if is_large else "list", None


def _without_bits(found: LogitsColumn, what: str, bits: BinaryName | None) -> LogitsColumn:
    if bits is not None:
        raise UsageError(
            f"{what} has a type of its own",
            where="--logits-dtype",
            remedy="leave it out: it is for binary and uint16 columns",
        )
    return found


def _sequences(what: str) -> UsageError:
    return UsageError(
        f"{what}, where one row of numbers should be",
        where="--logits",
        remedy="a row may be a list of lists of numbers, in a column of its own; flatten what is deeper",
    )


def _unknown(name: str, types: dict[str, pa.DataType], options: ScoreOptions) -> UsageError:
    fit = [column for column, type_ in types.items() if _fits(column, type_, options)]
    there = f"possible are {_listed(fit)}" if fit else f"the columns are {_listed(types)}"
    return UsageError(
        f"there is no column {name!r}; {there}",
        where="--logits",
        remedy=close_match(name, fit or types) + "batchmax inspect FILE shows the columns",
    )


def _listed(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - _MOST_CANDIDATES} more" if len(listed) > _MOST_CANDIDATES else ""
    return ", ".join(listed[:_MOST_CANDIDATES]) + more if listed else "none"

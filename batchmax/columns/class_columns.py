"""Finds logits that are stored in one column per class: by a pattern, or by a list of names. Knows schemas only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

import pyarrow as pa

from batchmax.columns.arrow import column_types, is_spark_vector, plain_type, type_text
from batchmax.columns.logits_layout import LogitsColumn, computed_in, refuse_bits
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.text import listed, quantity

LABEL_NAMES = ("label", "labels", "target")
"""Names of label columns, used if ``--label`` isn't given."""

NARROWER = "give a narrower pattern, as in --logits 'logit_[0-9]*'"


def is_pattern(name: str) -> bool:
    """Return whether a name is a pattern with ``*``, ``?`` or ``[…]``."""
    return any(wildcard in name for wildcard in "*?[")


def pattern_suffixes(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts in which the names that match a pattern differ."""
    opening, closing = re.split(r"[*?\[]", pattern)[0], re.split(r"[*?\]]", pattern)[-1]
    return tuple(name[len(opening) : len(name) - len(closing)] for name in names)


def matching_columns(pattern: str, types: dict[str, pa.DataType]) -> list[str]:
    """Return the columns whose names match a pattern."""
    # Structs are matched by their fields: a pattern for fields often matches the struct as well.
    return [
        name
        for name, kind in types.items()
        if fnmatchcase(name, pattern) and (is_spark_vector(plain_type(kind)) or not pa.types.is_struct(kind))
    ]


def class_names_of_pattern(types: dict[str, pa.DataType], pattern: str, options: ScoreOptions) -> list[str]:
    """Return the columns that match a pattern, except those of labels and bytes.

    Raises
    ------
    UsageError
        The pattern matches every column, or none.
    """
    if not pattern.strip("*?"):
        raise UsageError(
            f"{pattern!r} matches every column, including numbers that aren't logits, such as ids and weights",
            where="--logits",
            remedy="give a pattern that matches only the classes: --logits 'logit_*'; or list them: --logits A,B,C",
        )
    others = {*LABEL_NAMES, options.bytes, None if options.label == "none" else options.label}
    if options.label is not None and is_pattern(options.label):
        others |= set(matching_columns(options.label, types))
    names = [name for name in matching_columns(pattern, types) if name not in others]
    if not names:
        raise UsageError(
            f"no column matches {pattern!r}; the columns are {listed(types)}",
            where="--logits",
            remedy="quote the pattern, as in --logits 'logit_*'",
        )
    return names


def columns_by_pattern(schema: pa.Schema, pattern: str, names: Sequence[str], options: ScoreOptions) -> LogitsColumn:
    """Return one column per class, given the names that match a pattern.

    Raises
    ------
    UsageError
        The columns can't be the classes: their types or numbers don't fit together.
    """
    suffixes = pattern_suffixes(pattern, names)
    _check_alike(names, suffixes, column_types(schema))
    return class_columns(schema, names, suffixes, options)


def columns_by_names(schema: pa.Schema, names: Sequence[str], options: ScoreOptions) -> LogitsColumn:
    """Return columns that ``--logits`` lists by name, in the order of the classes."""
    if len(set(names)) < len(names):
        raise UsageError("a column is listed twice", where="--logits", remedy="list each column once")
    numbers = [str(number) for number in range(len(names))]
    if list(names) == [names[0].removesuffix("0") + number for number in numbers]:
        return class_columns(schema, names, numbers, options)
    return class_columns(schema, names, names, options, are_classes=True)


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
            remedy="give --logits a pattern that matches only the classes",
        )


def class_columns(
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
        check_unique(schema, name)
        dtype = computed_in(plain_type(types[name]))
        if dtype is None:
            raise UsageError(
                f"column {name!r} ({type_text(types[name])}) isn't numeric, so it can't hold the logits of a class",
                where="--logits",
                remedy=NARROWER,
            )
        computed.append(dtype)
    numbered = [not are_classes and suffix.isascii() and suffix.isdigit() for suffix in suffixes]
    pairs = list(zip(names, suffixes, strict=True))
    if all(numbered):
        pairs.sort(key=lambda pair: int(pair[1]))
    elif any(numbered):
        others = [name for name, is_number in zip(names, numbered, strict=True) if not is_number]
        raise UsageError(
            f"some of the columns are numbered, and these aren't: {listed(others)}",
            where="--logits",
            remedy=NARROWER,
        )
    names, suffixes = zip(*pairs, strict=True)
    why = (
        f"{quantity(len(names), 'column')} {names[0]!r}"
        + (f" … {names[-1]!r}" if len(names) > 1 else "")
        + f" ({type_text(types[names[0]])}), one per class"
    )
    named = not all(numbered)
    if not named:
        numbers = [int(suffix) for suffix in suffixes]
        _check_no_gap(names, numbers)
        if numbers[0] != 0:
            # If these were indices, labels that count from the same number would be off by one, mostly without an
            # error.
            named = True
            why += f"; the numbers start at {numbers[0]}, so they are used as class names"
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
    return refuse_bits(found, found.why, options.logits_dtype)


def check_unique(schema: pa.Schema, name: str, option: str = "--logits") -> None:
    """Raise a UsageError if the schema has several columns with this name, which an option refers to."""
    if len(schema.get_all_field_indices(name)) > 1:
        raise UsageError(f"there are two columns {name!r}", where=option, remedy="rename one of the two")


def _check_alike(names: Sequence[str], suffixes: Sequence[str], types: dict[str, pa.DataType]) -> None:
    """Reject integer columns among float columns unless all are numbered: they are more often ids or counts."""
    if all(suffix.isascii() and suffix.isdigit() for suffix in suffixes):
        return
    whole = [name for name in names if pa.types.is_integer(plain_type(types[name]))]
    if whole and len(whole) < len(names):
        raise UsageError(
            f"the pattern matches columns of floats, and of integers: {listed(whole)}",
            where="--logits",
            remedy="give a pattern that matches only the classes, or list them: --logits A,B,C",
        )


def _check_no_gap(names: Sequence[str], numbers: Sequence[int]) -> None:
    for (first, before), (second, after) in pairwise(zip(names, numbers, strict=True)):
        pair = f"{first!r} and {second!r}"
        if after == before:
            raise UsageError(f"{pair} are both class {after}", where="--logits", remedy="rename or drop one")
        if after > before + 1:
            missing = f"{before + 1}" if after == before + 2 else f"{before + 1} to {after - 1}"
            raise UsageError(
                f"class {missing} is missing between {pair}",
                where="--logits",
                remedy="add the missing columns, or give a pattern that matches only the classes",
            )

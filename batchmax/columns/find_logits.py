"""Finds the columns that hold the logits, from the schema alone.

:func:`find_logits` resolves the columns that the options name, or common names of logits, to a :class:`LogitsColumn`:
what to read, its layout, and the type to compute in. Module ``matrices`` reads the numbers, ``labels`` the labels and
class names. Doesn't know files or rows.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from batchmax.columns.arrow import column_types, is_list, plain_type, type_text
from batchmax.columns.class_columns import (
    LABEL_NAMES,
    check_unique,
    class_columns,
    class_names_of_pattern,
    columns_by_names,
    columns_by_pattern,
    is_pattern,
    matching_columns,
)
from batchmax.columns.logits_layout import NAME_ANOTHER, LogitsColumn, computed_in, list_column, token_type
from batchmax.columns.scored_input import KINDS, as_written, check_unasked
from batchmax.errors import UsageError
from batchmax.options.input_options import InputKind
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.text import close_match, listed, quantity

CHOOSE_ONE = "choose one: --logits NAME"


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
    given, options = options, as_written(schema, options)
    name = options.logits
    if name is None and options.input in KINDS and options.input in types:
        # --input also determines which of several columns is meant.
        name = options.input
    if name is not None:
        if name in types:
            reason = "named with --logits" if given.logits else "which score wrote" if options.logits else "by its name"
            found = _one_column(schema, name, options, reason)
        elif is_pattern(name):
            found = _by_pattern(schema, name, options)
        elif "," in name:
            names = [one.strip() for one in name.split(",")]
            for one in names:
                if one not in types:
                    raise _unknown(one, types, options)
            found = columns_by_names(schema, names, options)
        else:
            raise _unknown(name, types, options)
    elif "logits" in types:
        found = _one_column(schema, "logits", options, "by its name")
    elif matching_columns("logit_*", types):
        found = _by_pattern(schema, "logit_*", options)
    elif "logit" in types and computed_in(plain_type(types["logit"])) is not None:
        found = _one_column(schema, "logit", options, "by its name")
    else:
        found = _only_list(schema, options)
    holds = options.input or _held_by_name(found, options)
    found = replace(found, holds=holds)
    if found.n_classes == 0:
        raise UsageError(f"the lists of column {found.names[0]!r} have length 0", remedy=NAME_ANOTHER)
    if options.n_classes is not None:
        if found.n_classes not in {None, options.n_classes}:
            raise UsageError(
                f"{options.n_classes:,} given, but the logits have {quantity(found.n_classes, 'class')}: {found.why}",
                where="--n-classes",
                remedy=f"leave it out, or give {found.n_classes}",
            )
        found = replace(found, n_classes=options.n_classes)
    return found


def _held_by_name(found: LogitsColumn, options: ScoreOptions) -> InputKind:
    """Return what columns hold by their names; logits unless the names say otherwise."""
    if found.layout == "wide":
        pattern = options.logits or ""
        return next((kind for name, kind in KINDS.items() if f"{pattern}_".startswith(f"{name[:-1]}_")), "logits")
    return KINDS.get(found.names[0].rpartition(".")[2], "logits")


def _one_column(schema: pa.Schema, name: str, options: ScoreOptions, reason: str) -> LogitsColumn:
    check_unique(schema, name)
    arrow_type = column_types(schema)[name]
    if computed_in(plain_type(arrow_type)) is not None:
        found = class_columns(schema, [name], ["0"], options)
        what = f"column {name!r} ({type_text(arrow_type)})"
        return replace(found, why=f"{what}, {reason}")
    of_token = token_type(arrow_type) if "." not in name or name in schema.names else None
    found = list_column(name, of_token or arrow_type, options.logits_dtype)
    what = f"column {name!r} ({type_text(arrow_type)})"
    plain = plain_type(of_token or arrow_type)
    if found.bits is None and is_list(plain) and pa.types.is_uint16(plain.value_type):
        raise UsageError(
            f"{what} holds 16-bit integers, which usually are the bits of floats",
            where="--logits",
            remedy="give their type: --logits-dtype bfloat16 or float16; if these are integers, cast them to int32",
        )
    if of_token is not None:
        reason += "; rows are sequences"
    return replace(found, why=f"{what}, {reason}", nested=of_token is not None)


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
        return replace(_one_column(schema, name, options, "the only list of floats"), is_guess=options.input is None)
    if floats:
        raise UsageError(
            f"{len(floats)} columns could be the logits: {listed(floats)}",
            remedy=CHOOSE_ONE,
        )
    if fit:
        raise UsageError(
            f"no column is named 'logits', and none is a list of floats; candidates: {listed(fit)}",
            remedy=CHOOSE_ONE,
        )
    raise UsageError(
        f"no column can hold logits; the columns are {listed(schema.names)}",
        remedy="name a column of lists of numbers, or one column per class: --logits 'score_*'",
    )


def _by_pattern(schema: pa.Schema, pattern: str, options: ScoreOptions) -> LogitsColumn:
    types = column_types(schema)
    names = class_names_of_pattern(types, pattern, options)
    if len(names) == 1:
        return _one_column(schema, names[0], options, f"the only match of {pattern!r}")
    return columns_by_pattern(schema, pattern, names, options)


def _fits(name: str, arrow_type: pa.DataType, options: ScoreOptions) -> bool:
    try:
        list_column(name, token_type(arrow_type) or arrow_type, options.logits_dtype)
    except UsageError:
        return False
    return True


def _is_float_list(arrow_type: pa.DataType) -> bool:
    plain = plain_type(token_type(arrow_type) or arrow_type)
    return is_list(plain) and bool(pa.types.is_floating(plain.value_type))


def _unknown(name: str, types: dict[str, pa.DataType], options: ScoreOptions) -> UsageError:
    fit = [column for column, type_ in types.items() if _fits(column, type_, options)]
    there = f"candidates: {listed(fit)}" if fit else f"the columns are {listed(types)}"
    return UsageError(
        f"there is no column {name!r}; {there}",
        where="--logits",
        remedy=close_match(name, fit or types) + "batchmax inspect FILE shows the columns",
    )

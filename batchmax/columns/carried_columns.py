"""Chooses the columns of the input that are copied to the output. Knows schemas, not data."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from batchmax.columns.logits_layout import LogitsColumn
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.text import close_match


def carried_columns(schema: pa.Schema, options: ScoreOptions, logits: LogitsColumn) -> pa.Schema:
    """Return the columns that ``--columns`` and ``--exclude`` choose: by default all but the logits.

    Raises
    ------
    UsageError
        There is no such column, or two have the same name.
    """
    wanted = options.columns
    known = set(schema.names)
    for option, names in (("--columns", wanted or ()), ("--exclude", options.exclude)):
        for name in names:
            if name not in known and not (name == "*" and option == "--columns"):
                raise UsageError(
                    f"there is no column {name!r}",
                    where=option,
                    remedy=f"{close_match(name, schema.names)}the columns are {', '.join(schema.names[:20])}",
                )
    fields = []
    for field in schema:
        if field.name in options.exclude:
            continue
        if wanted is None:
            kept = _without(field, frozenset(logits.names))
            if kept is not None:
                fields.append(kept)
        elif "*" in wanted or field.name in wanted:
            fields.append(field)
    twice = next((name for name, count in Counter(field.name for field in fields).items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            f"there are two columns {twice!r}",
            where="--columns",
            remedy="rename one" + (f", or leave both out: --exclude {twice}" if wanted is None else ""),
        )
    return pa.schema(fields)


def _without(field: pa.Field, names: frozenset[str]) -> pa.Field | None:
    """Return a field without the columns of logits in it; None if nothing is left."""
    if field.name in names:
        return None
    if not pa.types.is_struct(field.type):
        return field
    inner = frozenset(name.removeprefix(f"{field.name}.") for name in names if name.startswith(f"{field.name}."))
    children = [kept for child in field.type if (kept := _without(child, inner)) is not None]
    if len(children) == field.type.num_fields:
        return field
    return field.with_type(pa.struct(children)) if children else None

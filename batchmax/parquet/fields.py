"""The known fields of Parquet's Thrift structs: their types, and which of them are required.

Structs are compared with these tables when they are read. After that, a required field is present, and every known
field has the type that the format gives it, so code that uses a struct doesn't have to expect damaged ones.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from batchmax.parquet.thrift import BINARY, FALSE, I16, I32, I64, LIST, STRUCT, TRUE, Struct, ThriftError, read_struct

INTEGERS: Final = frozenset({I16, I32, I64})
BOOLEANS: Final = frozenset({TRUE, FALSE})


@dataclass(frozen=True)
class Rule:
    """The allowed types of a field.

    Attributes
    ----------
    kinds
        The allowed Thrift types.
    required
        Whether the field must be present.
    fields
        The rules of a struct's fields, or of each struct of a list.
    items
        The allowed Thrift types of a list's values.
    """

    kinds: frozenset[int]
    required: bool = False
    fields: Rules | None = None
    items: frozenset[int] | None = None


Rules: TypeAlias = Mapping[int, Rule]


def integer(*, required: bool = False) -> Rule:
    """Return the rule of an integer field."""
    return Rule(INTEGERS, required)


def text(*, required: bool = False) -> Rule:
    """Return the rule of a binary field."""
    return Rule(frozenset({BINARY}), required)


def struct(fields: Rules | None, *, required: bool = False) -> Rule:
    """Return the rule of a struct field."""
    return Rule(frozenset({STRUCT}), required, fields)


def structs(fields: Rules | None, *, required: bool = False) -> Rule:
    """Return the rule of a field that is a list of structs."""
    return Rule(frozenset({LIST}), required, fields, frozenset({STRUCT}))


BOOLEAN: Final = Rule(BOOLEANS)

SCHEMA_ELEMENT: Final[Rules] = {
    **dict.fromkeys((1, 2, 3, 5, 6, 7, 8), integer()),
    4: text(required=True),
    10: struct(None),
}
FILE_METADATA: Final[Rules] = {
    2: structs(SCHEMA_ELEMENT, required=True),
    3: integer(required=True),
    4: Rule(frozenset({LIST}), required=True),  # row groups are read later, one by one
    5: structs({1: text(required=True), 2: text()}),
    7: structs(None),
}
ROW_GROUP: Final[Rules] = {
    1: Rule(frozenset({LIST}), required=True),  # column chunks too
    3: integer(required=True),
    4: structs({1: integer(required=True)}),
}
STATISTICS: Final[Rules] = {
    **dict.fromkeys((1, 2, 5, 6), text()),
    **dict.fromkeys((3, 4), integer()),
    **dict.fromkeys((7, 8), BOOLEAN),
}
COLUMN_METADATA: Final[Rules] = {
    **dict.fromkeys((1, 4, 5, 6, 7, 9), integer(required=True)),
    2: Rule(frozenset({LIST}), required=True, items=INTEGERS),
    3: Rule(frozenset({LIST}), required=True, items=frozenset({BINARY})),
    11: integer(),
    12: struct(STATISTICS),
    13: structs(dict.fromkeys((1, 2, 3), integer(required=True))),
}
COLUMN_CHUNK: Final[Rules] = {1: text(), 3: struct(COLUMN_METADATA), 4: integer()}
NEEDED_I32: Final = Rule(frozenset({I32}), required=True)
PAGE_STATISTICS: Final[Rules] = {**STATISTICS, **dict.fromkeys((3, 4), Rule(frozenset({I64})))}
PAGE_HEADER: Final[Rules] = {
    **dict.fromkeys((1, 2, 3), NEEDED_I32),
    4: Rule(frozenset({I32})),
    5: struct({**dict.fromkeys((1, 2, 3, 4), NEEDED_I32), 5: struct(PAGE_STATISTICS)}),
    7: struct({**dict.fromkeys((1, 2), NEEDED_I32), 3: BOOLEAN}),
    8: struct({**dict.fromkeys((1, 2, 3, 4, 5, 6), NEEDED_I32), 7: BOOLEAN, 8: struct(PAGE_STATISTICS)}),
}
"""Other programs ignore integers of another size, so a page with one can't be copied."""


def check_fields(found: Struct, rules: Rules, *, known_only: bool = False) -> None:
    """Compare a struct with its rules.

    Parameters
    ----------
    found, rules
        The struct, and its rules.
    known_only
        Whether fields without a rule are refused.

    Raises
    ------
    ThriftError
        If a required field is missing or a field has another type.
    """
    for number, rule in rules.items():
        field = found.get(number)
        if field is None:
            if rule.required:
                raise ThriftError(f"field {number} is missing")
        elif field.kind not in rule.kinds:
            raise ThriftError(f"field {number} has the wrong type")
        elif rule.items is not None:
            values = field.value.values
            if values and field.value.kind not in rule.items:
                raise ThriftError(f"field {number} is a list of the wrong type")
            for value in values if rule.fields is not None else ():
                check_fields(value, rule.fields or {}, known_only=known_only)
        elif rule.fields is not None:
            check_fields(field.value, rule.fields, known_only=known_only)
    if known_only and not found.keys() <= rules.keys():
        raise ThriftError(f"fields {sorted(found.keys() - rules.keys())} are unknown")


def read_page_header(data: Any, start: int = 0) -> tuple[Struct, int]:
    """Read a page header and return it with the position after it.

    Raises
    ------
    ThriftError
        If unexpected end of data or are not a page header.
    """
    header, end = read_struct(data, start)
    check_fields(header, PAGE_HEADER)
    return header, end

"""Checks the header of a page that will be copied without being decoded.

A decoder finds out if a page is wrong. A copied page is decoded later, by another program, so its header must not
surprise that program: every field is known and has its type. :mod:`batchmax.parquet.writing.chunk_copy` also compares
it with the footer.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: PageHeader and its structs)
"""

from __future__ import annotations

from typing import Any

from batchmax.parquet.fields import BOOLEAN, Rule, Rules, check_fields, struct
from batchmax.parquet.format import DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, RLE
from batchmax.parquet.thrift import BINARY, I32, I64, Struct, ThriftError


def _one(kind: int, *, required: bool = False) -> Rule:
    return Rule(frozenset({kind}), required)


STATISTICS: Rules = {
    **dict.fromkeys((1, 2, 5, 6), _one(BINARY)),
    **dict.fromkeys((3, 4), _one(I64)),
    **dict.fromkeys((7, 8), BOOLEAN),
}
HEADERS: dict[int, tuple[int, Rules]] = {
    DATA_PAGE: (5, {**dict.fromkeys((1, 2, 3, 4), _one(I32, required=True)), 5: struct(STATISTICS)}),
    DICTIONARY_PAGE: (7, {**dict.fromkeys((1, 2), _one(I32, required=True)), 3: BOOLEAN}),
    DATA_PAGE_V2: (
        8,
        {**dict.fromkeys((1, 2, 3, 4, 5, 6), _one(I32, required=True)), 7: BOOLEAN, 8: struct(STATISTICS)},
    ),
}
"""For each type of page, the field that holds its own header, and the rules of that header."""

COMMON: Rules = {**dict.fromkeys((1, 2, 3), _one(I32, required=True)), 4: _one(I32)}


def page_header(header: Struct) -> tuple[int, dict[int, Any]] | None:
    """Return the type of a page and the values of its own header; None if the header is invalid or has more fields."""
    kind: int = header[1].value
    if kind not in HEADERS:
        return None
    field, rules = HEADERS[kind]
    try:
        check_fields(header, {**COMMON, field: struct(rules, required=True)}, known_only=True)
    except ThriftError:
        return None
    own = {number: item.value for number, item in header[field].value.items()}
    if kind == DATA_PAGE and (own[3] != RLE or own[4] != RLE):
        return None
    return kind, own

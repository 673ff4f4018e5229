"""The order of a column's values, which gives minimum and maximum statistics their meaning.

The same bytes have different orders under different logical types: 0xFFFFFFFF is the largest unsigned number, and -1.
Minimum and maximum may therefore be kept only if the column's order is the one with which they were computed.

The format leaves NaN out of minimum and maximum, and doesn't say whether a chunk contains NaN. Readers that sort NaN
above all numbers, such as DuckDB, Spark and DataFusion, then miss rows or find too many when they filter by statistics.
A column chunk with a NaN therefore gets no minimum and maximum.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: ColumnOrder, LogicalType and Statistics)
"""

from __future__ import annotations

from typing import Final

from batchmax.parquet.footer import CONVERTED, FIXED_LEN_BYTE_ARRAY, LOGICAL, TYPE
from batchmax.parquet.thrift import Struct

INT32, INT64, FLOAT, DOUBLE, BYTE_ARRAY = 1, 2, 4, 5, 6
# Converted types.
DECIMAL, UNSIGNED, INTERVAL = 5, frozenset({11, 12, 13, 14}), 21
# Logical types.
DECIMAL_TYPE, INTEGER_TYPE, UNKNOWN_TYPE, FLOAT16_TYPE = 5, 10, 11, 15
UNORDERED_TYPES: Final = frozenset({UNKNOWN_TYPE, 16, 17, 18})
"""Nulls, variants, geometries and geographies."""
IS_SIGNED = 2
"""A field of IntType."""
FLOATS: Final = {"float": "<f4", "double": "<f8", "float16": "<f2"}
"""NumPy's types of the float orders."""


def value_order(element: Struct) -> str | None:
    """Return the name of the order of a leaf's values; None if the format defines no order."""
    kind = element[TYPE].value
    converted = element[CONVERTED].value if CONVERTED in element else None
    logical = element[LOGICAL].value if LOGICAL in element else {}
    if converted == INTERVAL or not UNORDERED_TYPES.isdisjoint(logical):
        return None
    if kind in {INT32, INT64}:
        integer = logical[INTEGER_TYPE].value if INTEGER_TYPE in logical else {}
        is_unsigned = converted in UNSIGNED or (IS_SIGNED in integer and not integer[IS_SIGNED].value)
        return "unsigned" if is_unsigned else "signed"
    if kind in {BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY}:
        if FLOAT16_TYPE in logical:
            return "float16"
        return "decimal" if converted == DECIMAL or DECIMAL_TYPE in logical else "bytes"
    return {0: "boolean", FLOAT: "float", DOUBLE: "double"}.get(kind)

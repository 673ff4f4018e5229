"""Find the computed columns in the schema of a scored output, and check their names, order and types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from batchmax.columns.arrow import is_list, plain_type
from batchmax.columns.job import output_type
from batchmax.columns.sequences import row_fields
from batchmax.errors import DataError
from batchmax.outputs import FLOAT_OUTPUTS, OUTPUTS, column_name, singular
from batchmax.verification.output_metadata import SCORE_AGAIN, OutputMetadata

IS_LIST = {"list": pa.types.is_list, "large_list": pa.types.is_large_list, "fixed": pa.types.is_fixed_size_list}
"""By layout: whether a type is the list of a matrix."""


def computed_columns(path: str, schema: pa.Schema, metadata: OutputMetadata) -> dict[str, tuple[str, ...]]:
    """Return the column names of each output. They are the last columns, in the order of the outputs.

    Raises
    ------
    DataError
        A column is missing, is at another place, or has another type.
    """
    names, prefix = schema.names, metadata.options.prefix
    widths = {name: metadata.n_values if metadata.is_split(name) else 1 for name in metadata.outputs}
    of_rows = [prefix + field.name for field in row_fields(metadata.outputs)] if metadata.nested else []
    end = len(names) - len(of_rows)
    if names[end:] != of_rows:
        raise _mismatch(path, names, f"the metadata list {', '.join(of_rows)} as the last columns, but they are not")
    columns: dict[str, tuple[str, ...]] = {}
    first = end - sum(widths.values())
    for output, width in widths.items():
        expected = prefix + column_name(output, nested=metadata.nested)
        for at in range(first, first + width):
            has_name = at >= 0 and _has_name(names[at], output, expected, metadata)
            if not (has_name and _has_type(schema.field(at).type, output, metadata)):
                what = f"the metadata list column {expected!r}, but it is missing, misplaced or of another type"
                raise _mismatch(path, names, what)
        columns[output] = tuple(names[first : first + width])
        first += width
    return columns


def _mismatch(path: str, names: list[str], what: str) -> DataError:
    if len(names) > 1 and names[-1].endswith("status") and names[-2].endswith("row"):
        what = "the file has rejected rows, not scored rows"
    return DataError(what, where=path, remedy=f"name an output of score, or {SCORE_AGAIN}")


def _has_name(name: str, output: str, expected: str, metadata: OutputMetadata) -> bool:
    if not metadata.is_split(output):
        return name == expected
    one = f"{metadata.options.prefix}{singular(output)}"
    return name == one if metadata.layout == "single" else name.startswith(f"{one}_")


def _has_type(kind: pa.DataType, output: str, metadata: OutputMetadata) -> bool:
    if metadata.nested:
        if not is_list(kind):
            return False
        kind = kind.value_type
    dtype = np.dtype(metadata.dtype)
    number = pa.from_numpy_dtype(metadata.loss_dtype if output in FLOAT_OUTPUTS else dtype)
    if metadata.is_split(output):
        return bool(kind == number)
    if output in OUTPUTS and OUTPUTS[output].kind == "matrix":
        return bool(IS_LIST[metadata.layout](kind) and kind.value_type == number)
    expected = output_type(output, dtype, metadata.rule, has_names=bool(metadata.options.classes))
    if pa.types.is_list(expected):
        return bool(pa.types.is_list(kind) and kind.value_type == expected.value_type)
    return bool(plain_type(kind) == plain_type(expected))

"""How a column of logits is stored: its layout, and the type that it is computed in. Knows types, not schemas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from batchmax.columns.arrow import is_binary, is_large, is_list, is_spark_vector, plain_type, type_text
from batchmax.errors import UsageError
from batchmax.options.input_options import BinaryName, InputKind
from batchmax.runtime.text import quantity

LogitsLayout = Literal["list", "large_list", "fixed", "tensor", "wide", "binary", "uint16", "spark"]
OutputLayout = Literal["list", "large_list", "fixed", "wide", "single"]
"""``single`` is one column for the probability of the second of two classes, the layout of one logit per row."""

BITS_WIDTH: dict[BinaryName, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number in rows that are stored as binary."""

INPUT_TEXTS = {"logits": "logits", "probs": "probabilities", "log_probs": "logarithms of probabilities"}
"""What columns hold, for messages."""

NAME_ANOTHER = "choose another column: --logits NAME"


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
    is_guess
        Whether the column was chosen only because no other column can hold logits.
    nested
        Whether a row is a sequence: a list of rows in this layout, one per token.
    holds
        What the numbers are: as ``--input`` says, the metadata of an output of ``score``, or the column's name.
    is_one_logit
        Whether a row is one number, the logit of the second of two classes. It is read as a row of two logits: 0 and
        this number.
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
    is_guess: bool = False
    nested: bool = False
    holds: InputKind = "logits"
    is_one_logit: bool = False

    def width(self, n_classes: int) -> int:
        """Return how many numbers a row has."""
        return 1 if self.is_one_logit else n_classes


def list_column(name: str, arrow_type: pa.DataType, bits: BinaryName | None = None) -> LogitsColumn:
    """Return how a column of this type with one row of numbers per row is read.

    Raises
    ------
    UsageError
        The type can't hold a row of numbers.
    """
    plain = plain_type(arrow_type)
    what = f"column {name!r} ({type_text(arrow_type)})"
    if isinstance(arrow_type, pa.FixedShapeTensorType) and len(arrow_type.shape) != 1:
        raise _too_deep(f"{what} holds tensors of shape {tuple(arrow_type.shape)}")
    if is_spark_vector(plain):
        return refuse_bits(LogitsColumn((name,), "spark", None, np.dtype("f8")), what, bits)
    if is_binary(plain):
        if bits is None:
            raise UsageError(
                f"{what} holds bytes of an unknown type",
                where="--logits",
                remedy="give the type of the numbers: --logits-dtype float32, float16 or bfloat16",
            )
        width = getattr(plain, "byte_width", 0) if pa.types.is_fixed_size_binary(plain) else 0
        if width % BITS_WIDTH[bits]:
            raise UsageError(
                f"{what} has rows of {quantity(width, 'byte')}, "
                f"not a multiple of the {BITS_WIDTH[bits]} bytes of {bits}",
                where="--logits-dtype",
                remedy="give the type that they were written in",
            )
        n_classes = width // BITS_WIDTH[bits] if pa.types.is_fixed_size_binary(plain) else None
        return LogitsColumn((name,), "binary", n_classes, np.dtype("f4"), bits=bits)
    if not is_list(plain):
        raise UsageError(f"{what} cannot hold logits", where="--logits", remedy=NAME_ANOTHER)
    item = plain.value_type
    if is_list(plain_type(item)) or isinstance(item, pa.BaseExtensionType):
        raise _too_deep(f"{what} holds lists of lists")
    dtype = computed_in(item)
    if dtype is None:
        raise UsageError(f"{what} does not hold numbers", where="--logits", remedy=NAME_ANOTHER)
    layout, n_classes = _list_layout(arrow_type, plain)
    if bits is not None and pa.types.is_uint16(item):
        if BITS_WIDTH[bits] != 2:
            raise UsageError(
                f"{what} holds numbers of 2 bytes, and {bits} has {BITS_WIDTH[bits]} bytes",
                where="--logits-dtype",
                remedy="give float16 or bfloat16",
            )
        return LogitsColumn((name,), "uint16", n_classes, np.dtype("f4"), bits=bits)
    output: OutputLayout = "fixed" if layout == "tensor" else cast("OutputLayout", layout)
    return refuse_bits(LogitsColumn((name,), layout, n_classes, dtype, output_layout=output), what, bits)


def computed_in(arrow_type: pa.DataType) -> np.dtype[Any] | None:
    """Return the type in which numbers of an Arrow type are computed; None if it isn't a supported numeric type."""
    if pa.types.is_float16(arrow_type) or pa.types.is_float32(arrow_type):
        return np.dtype("f4")
    if pa.types.is_float64(arrow_type) or pa.types.is_integer(arrow_type):
        return np.dtype("f8")
    return None


def token_type(arrow_type: pa.DataType) -> pa.DataType | None:
    """Return the type of a token's logits if a row is a list of tokens; otherwise None."""
    outer = plain_type(arrow_type)
    if isinstance(arrow_type, pa.BaseExtensionType) or not is_list(outer):
        return None
    inner = outer.value_type
    return inner if is_list(plain_type(inner)) or is_binary(plain_type(inner)) else None


def refuse_bits(found: LogitsColumn, what: str, bits: BinaryName | None) -> LogitsColumn:
    """Return the column; raise a UsageError if ``--logits-dtype`` is given, because the column has a numeric type."""
    if bits is not None:
        raise UsageError(
            f"{what} already has a numeric type",
            where="--logits-dtype",
            remedy="leave it out; it applies to binary and uint16 columns only",
        )
    return found


def one_logit(logits: LogitsColumn) -> LogitsColumn:
    """Return how rows of one number are read: as the logits of two classes.

    Raises
    ------
    UsageError
        Rows are sequences.
    """
    if logits.nested:
        raise UsageError(
            f"the tokens of column {logits.names[0]!r} have one number each, and the softmax of one number is always 1",
            remedy="give two logits per token, 0 and z; class 1 then has the probability sigmoid(z)",
        )
    why = f"{logits.why}, one logit per row, that of the second class"
    return replace(logits, n_classes=2, why=why, class_names=(), suffixes=(), output_layout="single", is_one_logit=True)


def _list_layout(arrow_type: pa.DataType, plain: pa.DataType) -> tuple[LogitsLayout, int | None]:
    if pa.types.is_fixed_size_list(plain):
        is_tensor = isinstance(arrow_type, pa.FixedShapeTensorType)
        return "tensor" if is_tensor else "fixed", int(plain.list_size)
    return "large_list" if is_large(plain) else "list", None


def _too_deep(what: str) -> UsageError:
    return UsageError(
        f"{what}, but a row must be one list of numbers",
        where="--logits",
        remedy="a top-level column can also have a list of lists of numbers per row; flatten deeper nesting",
    )

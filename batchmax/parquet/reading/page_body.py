"""Splits data pages into levels and values, and checks pages whose values aren't needed.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``: DataPageHeader and DataPageHeaderV2)
"""

from __future__ import annotations

from collections.abc import Sequence

from batchmax.kernels.parquet.rle import LENGTH_BYTES
from batchmax.parquet.format import DATA_PAGE, DATA_PAGE_V2, RLE
from batchmax.parquet.reading.compression import decompress, first_bytes
from batchmax.parquet.reading.raw_pages import NOTHING, Bytes, PageError, cut_levels, number
from batchmax.parquet.thrift import Struct


def split_body(
    kind: int, inner: Struct, body: Bytes, size: int, codec: int, *, repeated: bool = True, optional: bool = True
) -> tuple[Bytes, Bytes, Sequence[Bytes]]:
    """Return the repetition levels, the definition levels and the values of a data page.

    Parameters
    ----------
    kind, inner, body
        The page's type, the part of its header that belongs to the type, and its compressed body.
    size, codec
        The uncompressed size of the body, and the number of the codec.
    repeated, optional
        Whether the column has repetition and definition levels.

    Raises
    ------
    PageError
        If the body doesn't match the header, or the encoding of the levels or the codec isn't supported.
    """
    if kind == DATA_PAGE:
        check_level_encodings(inner)
        values = decompress(body, size, codec)
        repetition, values = cut_levels(values) if repeated else (NOTHING, values)
        definition, values = cut_levels(values) if optional else (NOTHING, values)
        return repetition, definition, values
    definition_bytes, repetition_bytes = level_sizes(inner, min(size, len(body)))
    levels = definition_bytes + repetition_bytes
    values = [body[levels:]]
    if is_compressed(inner):
        values = decompress(values[0], size - levels, codec)
    elif len(values[0]) != size - levels:
        raise PageError("the size of a page differs from its header")
    return body[:repetition_bytes], body[repetition_bytes:levels], values


def check_body(inner: Struct, body: Bytes, size: int, codec: int, *, optional: bool) -> None:
    """Check a data page of version 1 of a column that isn't repeated as :func:`split_body` does, for less time.

    Raises
    ------
    PageError
        As for :func:`split_body`.
    """
    check_level_encodings(inner)
    n_bytes = LENGTH_BYTES if optional else 0
    head = first_bytes(body, size, codec, n_bytes)
    if len(head) < n_bytes or n_bytes + int.from_bytes(head.tobytes(), "little") > size:
        raise PageError("levels exceed their page")


def check_level_encodings(inner: Struct) -> None:
    """Raise PageError if the levels of a data page of version 1 have an encoding that isn't supported."""
    if number(inner, 3) != RLE or number(inner, 4) != RLE:
        raise PageError("unsupported encoding of levels")


def level_sizes(inner: Struct, most: int) -> tuple[int, int]:
    """Return the sizes of the definition and the repetition levels of a data page of version 2.

    Raises
    ------
    PageError
        If together they are more than ``most``.
    """
    definition, repetition = number(inner, 5), number(inner, 6)
    if definition + repetition > most:
        raise PageError("levels exceed their page")
    return definition, repetition


def is_compressed(inner: Struct) -> bool:
    """Return whether the values of a data page of version 2 are compressed."""
    return 7 not in inner or bool(inner[7].value)


def value_encoding(kind: int, inner: Struct) -> int:
    """Return the number of the encoding of a page's values."""
    return number(inner, 4 if kind == DATA_PAGE_V2 else 2)

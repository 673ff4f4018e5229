"""Decompresses and checks pages. Bytes that Snappy stored uncompressed are not copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from batchmax.kernels.parquet.snappy import check_snappy, stored
from batchmax.parquet.format import CODECS
from batchmax.parquet.reading.raw_pages import MAX_PIECES, Bytes, PageError, joined

MOSTLY_STORED = 0.75
"""At this ratio of compressed to uncompressed size and above, a page is searched for literals that need no copy."""


MAX_HEAD = 1 << 16
"""The most uncompressed bytes before the first long literal: those of the page's levels."""


WORTH_CHECKING = 1 << 15
"""Uncompressed size from which checking Snappy data is faster than decompressing them, even if it loads a kernel."""


def decompress(body: Bytes, size: int, codec: int) -> Sequence[Bytes]:
    """Return the uncompressed bytes, in one or more pieces.

    Raises
    ------
    PageError
        If the codec isn't supported, or the uncompressed size is wrong.
    """
    if codec not in CODECS:
        raise PageError(f"unsupported codec {codec}")
    name = CODECS[codec]
    if name is None:
        if len(body) != size:
            raise PageError("the size of a page differs from its header")
        return [body]
    if not size:
        return [np.empty(0, np.uint8)]
    if name == "snappy" and len(body) >= MOSTLY_STORED * size and (pieces := _stored(body, size)):
        return pieces
    try:
        return [np.frombuffer(pa.Codec(name).decompress(pa.py_buffer(body), size), np.uint8)]
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PageError(f"a page cannot be decompressed: {error}") from error


def first_bytes(body: Bytes, size: int, codec: int, count: int) -> Bytes:
    """Return the first ``count`` uncompressed bytes, or all if there are fewer; the others are only checked.

    Raises
    ------
    PageError
        As for :func:`decompress`.
    """
    if CODECS.get(codec) != "snappy" or size < WORTH_CHECKING:
        return joined(decompress(body, size, codec))[:count]
    head = np.empty(count, np.uint8)
    if not check_snappy(body, size, head):
        raise PageError("a page cannot be decompressed: its Snappy data are damaged")
    return head


def _stored(body: Bytes, size: int) -> list[Bytes] | None:
    """Return the uncompressed bytes of Snappy data that is mostly long literals, in place; None for other data.

    Numbers such as logits, which Snappy can't compress, are stored like that: a literal for every 64 KiB. The levels
    before them are compressed.
    """
    head = np.empty(min(size, MAX_HEAD), np.uint8)
    places = np.empty((MAX_PIECES, 2), np.int64)
    filled, count = stored(body, size, head, places)
    return [head[:filled], *(body[start:end] for start, end in places[:count].tolist())] if count else None

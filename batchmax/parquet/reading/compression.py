"""Decompression of pages. What Snappy stored uncompressed is not copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from batchmax import kernels
from batchmax.parquet.format import CODECS
from batchmax.parquet.reading.raw_pages import MOST_PIECES, Bytes, NotAMatrix

MOSTLY_STORED = 0.75
"""Snappy hardly made smaller what is still this part of its size."""


MOST_HEAD = 1 << 16
"""Bytes of a page's levels that snappy made smaller."""


def unpack(body: Bytes, size: int, codec: int) -> Sequence[Bytes]:
    """Return what a codec packed, in one piece or several.

    Raises
    ------
    NotAMatrix
        The codec is not read here, or does not make it as long as it should be.
    """
    if codec not in CODECS:
        raise NotAMatrix(f"codec {codec}")
    name = CODECS[codec]
    if name is None:
        if len(body) != size:
            raise NotAMatrix("a page is not as long as it says")
        return [body]
    if not size:
        return [np.empty(0, np.uint8)]
    if name == "snappy" and len(body) >= MOSTLY_STORED * size and (pieces := _stored(body, size)):
        return pieces
    try:
        return [np.frombuffer(pa.Codec(name).decompress(pa.py_buffer(body), size), np.uint8)]
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise NotAMatrix(f"a page cannot be unpacked: {error}") from error


def _stored(body: Bytes, size: int) -> list[Bytes] | None:
    """Return the bytes that snappy packed, most of them where they lie, if it could not make those smaller; else None.

    So it is with numbers such as logits, which it puts behind a tag for every 64 KiB, and not with the levels before
    them.
    """
    head = np.empty(min(size, MOST_HEAD), np.uint8)
    places = np.empty((MOST_PIECES, 2), np.int64)
    filled, count = kernels.stored(body, size, head, places)
    return [head[:filled], *(body[start:end] for start, end in places[:count].tolist())] if count else None

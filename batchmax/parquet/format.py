"""Constants of the Parquet format: page types, codecs, encodings, physical types.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``)
"""

from __future__ import annotations

from typing import Any

import numpy as np

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 1, 2, 3
OWN_HEADERS = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}
"""For each type of page with values, the field of the page header that holds its own header."""

CODEC_NAMES = {0: "UNCOMPRESSED", 1: "SNAPPY", 2: "GZIP", 3: "LZO", 4: "BROTLI", 6: "ZSTD", 7: "LZ4"}
"""Names of codecs as pyarrow reports them, by number."""

CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
"""Names of the codecs that are read here, as ``pyarrow.Codec`` takes them, by number."""

CODEC_NUMBERS = {"NONE": 0, "SNAPPY": 1, "GZIP": 2, "BROTLI": 4, "ZSTD": 6, "LZ4": 7}
"""Numbers of codecs by their names in options."""

FIXED_WIDTHS = {1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Bytes of an encoded value, by physical type; other types have no width, or another one."""

PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 2, 3, 8, 9
DICTIONARY_ENCODINGS = frozenset({PLAIN_DICTIONARY, RLE_DICTIONARY})
"""Encodings of values as indices of the dictionary page."""

ENCODING_NAMES = {
    0: "PLAIN",
    2: "PLAIN_DICTIONARY",
    3: "RLE",
    4: "BIT_PACKED",
    5: "DELTA_BINARY_PACKED",
    6: "DELTA_LENGTH_BYTE_ARRAY",
    7: "DELTA_BYTE_ARRAY",
    8: "RLE_DICTIONARY",
    9: "BYTE_STREAM_SPLIT",
}
"""Names of encodings as pyarrow reports them, by number."""

FLOATS: dict[np.dtype[Any], int] = {np.dtype(np.float32): 4, np.dtype(np.float64): 5}
"""The physical types of the numbers of a matrix."""

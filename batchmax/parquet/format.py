"""Constants of the Parquet format: page types, codecs, encodings, physical types.

See Also
--------
https://github.com/apache/parquet-format (``parquet.thrift``)
"""

from __future__ import annotations

from typing import Any

import numpy as np

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 1, 2, 3


CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
"""Arrow's codec names by Parquet's codec numbers."""


PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 2, 3, 8, 9


FLOATS: dict[np.dtype[Any], int] = {np.dtype(np.float32): 4, np.dtype(np.float64): 5}
"""The physical types of the numbers of a matrix."""

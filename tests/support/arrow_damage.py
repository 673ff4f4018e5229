"""Damaged Arrow arrays and IPC streams, whose offsets, indices or values are invalid."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

N = 6
NUMBERS = pa.array(np.arange(N, dtype=np.float32))
TEXT = pa.py_buffer(b"text" * 16)


def ints(*values: int) -> pa.Buffer:
    """Return 32-bit integers as a buffer."""
    return pa.py_buffer(np.array(values, np.int32).tobytes())


def view(length: int, prefix: bytes, buffer: int, offset: int) -> pa.Buffer:
    """Return ``N`` equal string views as a buffer."""
    return pa.py_buffer(struct.pack("<i4sii", length, prefix, buffer, offset) * N)


def of(kind: pa.DataType, *buffers: pa.Buffer | None, children: list[pa.Array] | None = None) -> pa.Array:
    """Return an array of ``N`` rows made of buffers, without validation."""
    return pa.Array.from_buffers(kind, N, [None, *buffers], children=children)


def _dictionary(*indices: int) -> pa.Array:
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.DictionaryArray.from_buffers(kind, N, [None, ints(*indices)], pa.array(["a", "b"]))


def _inside_list(array: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(N + 1), pa.int32()), array)


UNION = [pa.field("a", pa.float32())]
TYPES = pa.py_buffer(bytes(N))
ARRAYS: dict[str, Callable[[], pa.Array]] = {
    "list, offset past the end": lambda: of(
        pa.list_(pa.float32()), ints(0, 2, 2_000_000_000, 2, 2, 2, 2), children=[NUMBERS]
    ),
    "list, decreasing offsets": lambda: of(pa.list_(pa.float32()), ints(0, 4, 1, 4, 4, 4, 4), children=[NUMBERS]),
    "list view, past the end": lambda: of(
        pa.list_view(pa.float32()), ints(0, 0, 0, 0, 0, 0), ints(1, 4000, 1, 1, 1, 1), children=[NUMBERS]
    ),
    "list view, before the start": lambda: of(
        pa.list_view(pa.float32()), ints(0, -4, 0, 0, 0, 0), ints(1, 1, 1, 1, 1, 1), children=[NUMBERS]
    ),
    "text view, length": lambda: of(pa.string_view(), view(4000, b"text", 0, 0), TEXT),
    "text view, buffer": lambda: of(pa.string_view(), view(40, b"text", 7, 0), TEXT),
    "text view, offset": lambda: of(pa.string_view(), view(40, b"text", 0, 2_000_000_000), TEXT),
    "bytes view": lambda: of(pa.binary_view(), view(4000, b"text", 0, 0), TEXT),
    "text, offset past the end": lambda: of(pa.string(), ints(0, 1, 2_000_000_000, 3, 4, 5, 6), TEXT),
    "text, not UTF-8": lambda: of(pa.string(), ints(0, 2, 2, 2, 2, 2, 2), pa.py_buffer(b"\xff\xff")),
    "dictionary, index past the end": lambda: _dictionary(0, 1, 0x7FFFFFF0, 0, 1, 0),
    "dictionary, negative index": lambda: _dictionary(0, 1, -1, 0, 1, 0),
    "sparse union, type": lambda: of(
        pa.sparse_union(UNION), pa.py_buffer(b"\0\5\0\0\0\0"), children=[NUMBERS]
    ),
    "dense union, offset": lambda: of(
        pa.dense_union(UNION), TYPES, ints(0, 1, 2, 4000, 4, 5), children=[NUMBERS]
    ),
    "runs, end before the start": lambda: of(
        pa.run_end_encoded(pa.int32(), pa.float32()),
        children=[pa.array([-5, N], pa.int32()), NUMBERS[:2]],
    ),
    "runs, decreasing": lambda: of(
        pa.run_end_encoded(pa.int32(), pa.float32()),
        children=[pa.array([5, 3, N], pa.int32()), NUMBERS[:3]],
    ),
    "decimal, too large": lambda: of(
        pa.decimal128(3, 0), pa.py_buffer(np.full(2 * N, 1 << 60, np.int64).tobytes())
    ),
    "list of dictionary": lambda: _inside_list(_dictionary(0, 1, 0x7FFFFFF0, 0, 1, 0)),
    "list of text views": lambda: _inside_list(of(pa.string_view(), view(4000, b"text", 0, 0), TEXT)),
    "struct of union": lambda: pa.StructArray.from_arrays(
        [of(pa.dense_union(UNION), TYPES, ints(0, 1, 2, 4000, 4, 5), children=[NUMBERS])], ["a"]
    ),
    "map, offset": lambda: pa.Array.from_buffers(
        pa.map_(pa.float32(), pa.float32()),
        N,
        [None, ints(0, 4, 1, 4, 4, 4, 4)],
        children=[pa.StructArray.from_arrays([NUMBERS, NUMBERS], ["key", "value"])],
    ),
    "extension over text": lambda: pa.ExtensionArray.from_storage(
        pa.json_(), of(pa.string(), ints(0, 2, 2, 2, 2, 2, 2), pa.py_buffer(b"\xff\xff"))
    ),
}  # fmt: skip
"""Functions that return invalid arrays, by the kind of damage. pyarrow makes these arrays without an error."""


def batch_with(array: pa.Array, name: str = "x") -> pa.RecordBatch:
    """Return a valid input batch with one more column."""
    columns: dict[str, Any] = {
        "logits": pa.array([[1.0, 2.0]] * N, pa.list_(pa.float32())),
        "label": pa.array([0, 1] * (N // 2), pa.int32()),
    }
    return pa.record_batch(columns | {name: array})


def stream_of(*batches: pa.RecordBatch, **options: Any) -> bytes:
    """Return batches as the bytes of an Arrow IPC stream."""
    out = io.BytesIO()
    with pa.ipc.new_stream(out, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return the data with a byte sequence, which must occur exactly once, replaced by another of the same length."""
    assert data.count(old) == 1, data.count(old)
    assert len(old) == len(new)
    return data.replace(old, new)


def int32s(*values: int) -> bytes:
    """Return integers as Arrow stores them: 32-bit, little-endian."""
    return np.array(values, "<i4").tobytes()

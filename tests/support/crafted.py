"""Invalid Parquet files that no writer makes, built from a small valid file.

The footer is edited as the generic structs that ``batchmax.parquet.thrift`` reads. A column chunk is replaced by
handmade pages with correct checksums, so that the intended defect is the only one in the file.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.parquet.thrift import BINARY, I32, I64, LIST, STRUCT, Field, List, Struct, read_struct, write_struct

TAIL = 8
SCHEMA, N_ROWS, GROUPS, KEY_VALUES = 2, 3, 4, 5
COLUMNS, GROUP_ROWS, CHUNK_METADATA = 1, 3, 3
CODEC, N_VALUES, UNPACKED, PACKED, DATA_AT, DICTIONARY_AT = 4, 5, 6, 7, 9, 11
CODECS = {"none": 0, "snappy": 1, "gzip": 2, "brotli": 4, "zstd": 6, "lz4_raw": 7}
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8


def table(rows: int = 24, classes: int = 6) -> pa.Table:
    """Return typical rows: an id, logits, a label, a text."""
    logits = np.random.default_rng(1).normal(size=(rows, classes)).astype(np.float32)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(classes))
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "logits": pa.ListArray.from_arrays(offsets, pa.array(logits.ravel())),
            "label": pa.array(np.arange(rows) % classes, pa.int32()),
            "text": pa.array([f"text {row % 3}" for row in range(rows)]),
        }
    )


def file_of(rows: pa.Table, **options: Any) -> bytes:
    """Return a table as the bytes of a file."""
    stream = io.BytesIO()
    pq.write_table(rows, stream, **options)
    return stream.getvalue()


def edited(data: bytes, edit: Callable[[Struct], object], more: bytes = b"") -> bytes:
    """Return a file with an edited footer, and with the bytes ``more`` before the footer."""
    size = int.from_bytes(data[-TAIL:-4], "little")
    fields, _ = read_struct(data[len(data) - TAIL - size : -TAIL])
    edit(fields)
    return with_footer(data[: len(data) - TAIL - size] + more, write_struct(fields))


def with_footer(body: bytes, footer: bytes) -> bytes:
    """Return a file with this body and footer."""
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def with_arrow_schema(data: bytes, schema: pa.Schema | bytes) -> bytes:
    """Return a file whose ``ARROW:schema`` is replaced by another schema or any bytes."""
    text = base64.b64encode(schema.serialize().to_pybytes()) if isinstance(schema, pa.Schema) else schema

    def edit(fields: Struct) -> None:
        # Edit the footer directly, because pyarrow leaves such a key out.
        pair = {1: Field(BINARY, b"ARROW:schema"), 2: Field(BINARY, text)}
        fields[KEY_VALUES] = Field(LIST, List(STRUCT, [pair]))

    return edited(data, edit)


def chunk(fields: Struct, leaf: int, group: int = 0) -> Struct:
    """Return the footer's struct of a column chunk."""
    found: Struct = fields[GROUPS].value.values[group][COLUMNS].value.values[leaf]
    return found


def set_chunk(leaf: int, group: int = 0, **numbers: int) -> Callable[[Struct], None]:
    """Return an edit that sets numbers in a column chunk's metadata: ``set_chunk(0, N_VALUES=3)``."""

    def edit(fields: Struct) -> None:
        metadata = chunk(fields, leaf, group)[CHUNK_METADATA].value
        for name, number in numbers.items():
            field = globals()[name]
            metadata[field] = Field(I32 if field == CODEC else I64, number)

    return edit


def with_pages(data: bytes, leaf: int, pages: bytes, n_values: int, *, codec: str, first: int = 0) -> bytes:
    """Return a file of one row group whose column chunk has these pages; ``first`` is the length of a dictionary."""
    at = len(data) - TAIL - int.from_bytes(data[-TAIL:-4], "little")

    def edit(fields: Struct) -> None:
        said = chunk(fields, leaf)
        for field in (4, 5, 6, 7):  # indexes, which describe other pages
            said.pop(field, None)
        metadata = said[CHUNK_METADATA].value
        for field in (DICTIONARY_AT, 10, 12, 13, 14, 15, 16, 17):
            metadata.pop(field, None)
        set_chunk(leaf, CODEC=CODECS[codec], N_VALUES=n_values, UNPACKED=len(pages), PACKED=len(pages))(fields)
        set_chunk(leaf, DATA_AT=at + first, **({"DICTIONARY_AT": at} if first else {}))(fields)

    return edited(data, edit, pages)


def page(body: bytes, unpacked: int, n_values: int, encoding: int = PLAIN, *, dictionary: bool = False) -> bytes:
    """Return a page of version 1, or a dictionary page, whose header has these numbers."""
    numbers = [n_values, encoding] if dictionary else [n_values, encoding, RLE, RLE]
    inner: Struct = {number: Field(I32, value) for number, value in enumerate(numbers, start=1)}
    crc = zlib.crc32(body)
    header: Struct = {
        1: Field(I32, 2 if dictionary else 0),
        2: Field(I32, unpacked),
        3: Field(I32, len(body)),
        4: Field(I32, crc - (1 << 32) if crc >> 31 else crc),
        (7 if dictionary else 5): Field(STRUCT, inner),
    }
    return write_struct(header) + body


def packed(codec: str, data: bytes, zeros: int = 0) -> bytes:
    """Compress ``data`` followed by ``zeros`` zero bytes."""
    if codec == "none":
        return data + bytes(zeros)
    if codec in {"snappy", "lz4_raw"}:
        return pa.compress(data + bytes(zeros), codec, asbytes=True)  # type: ignore[no-any-return]
    if codec == "brotli":
        return pa.Codec("brotli", 1).compress(data + bytes(zeros), asbytes=True)  # type: ignore[no-any-return]
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, codec) as out:
        out.write(data)
        for start in range(0, zeros, 1 << 22):
            out.write(bytes(min(1 << 22, zeros - start)))
    return stream.getvalue().to_pybytes()  # type: ignore[no-any-return]


def runs(*values: tuple[int, int]) -> bytes:
    """Return levels or indices of one byte as RLE runs of (count, value)."""
    out = b""
    for count, value in values:
        out += varint(count << 1) + bytes([value])
    return out


def levels(*values: tuple[int, int]) -> bytes:
    """Return levels as in a page of version 1: RLE runs after their length."""
    found = runs(*values)
    return len(found).to_bytes(4, "little") + found


def varint(value: int) -> bytes:
    """Return an integer as a varint, seven bits per byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

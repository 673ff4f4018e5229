"""Checks that the metadata of a Parquet file are correct: footer, page headers, statistics and page indexes.

Readers ignore parts of the metadata, so a file can be wrong although all readers return the same rows. Values are
read by pyarrow and the metadata by plain loops; only :func:`write_pages` uses code of batchmax. Numbers in brackets are
field ids of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchmax.parquet.thrift import read_struct, write_struct

DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
FLOAT, DOUBLE = 4, 5


@dataclass
class Page:
    """One page, as described by its header. ``n_rows`` and ``n_nulls`` are None if the header doesn't have them."""

    kind: int
    offset: int
    header_size: int
    packed: int
    unpacked: int
    has_checksum: bool
    n_values: int
    n_rows: int | None
    n_nulls: int | None
    encoding: int

    @property
    def size(self):
        return self.header_size + self.packed


@dataclass
class ColumnChunk:
    path: str
    group: int
    said: dict[int, Any]
    meta: dict[int, Any]
    pages: list[Page]

    @property
    def data_pages(self):
        return [page for page in self.pages if page.kind != DICTIONARY_PAGE]


def footer_of(whole):
    return _thrift(whole, len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"))[0]


def chunks_of(path):
    """Return the column chunks of a file, with the page headers of each, from its first byte to its last."""
    whole = Path(path).read_bytes()
    chunks = []
    for number, group in enumerate(footer_of(whole)[4]):
        for said in group[1]:
            meta = said[3]
            start = min(meta[9], meta.get(11) or meta[9])
            name = b".".join(meta[3]).decode()
            chunks.append(ColumnChunk(name, number, said, meta, list(_pages(whole, start, start + meta[7]))))
    return chunks


def check_file(path, checksums=()):
    """Check all metadata of a file and return its column chunks.

    Every page of the top-level columns named in ``checksums`` must have a checksum.
    """
    whole = Path(path).read_bytes()
    assert whole[:4] == whole[-4:] == b"PAR1"
    footer = footer_of(whole)
    chunks = chunks_of(path)
    file = pq.ParquetFile(path)
    leaves = [file.schema.column(index) for index in range(len(file.schema))]
    assert footer[3] == sum(group[3] for group in footer[4])
    assert len(chunks) == len(leaves) * len(footer[4])
    if 7 in footer:
        assert len(footer[7]) == len(leaves), "one order a column"

    spans = sorted((chunk.pages[0].offset, chunk.pages[0].offset + chunk.meta[7]) for chunk in chunks)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "column chunks overlap"
    assert all(start >= 4 and end <= len(whole) - 8 for start, end in spans)

    for number, group in enumerate(footer[4]):
        mine = [chunk for chunk in chunks if chunk.group == number]
        assert [chunk.path for chunk in mine] == [leaf.path for leaf in leaves]
        assert group[2] == sum(chunk.meta[6] for chunk in mine), "total_byte_size"
        if 6 in group:
            assert group[6] == sum(chunk.meta[7] for chunk in mine), "total_compressed_size"
        if 5 in group:
            assert group[5] == min(chunk.pages[0].offset for chunk in mine), "file_offset"
        if 7 in group:
            assert group[7] == number, "ordinal"
        table = file.read_row_group(number)
        assert table.num_rows == group[3]
        _check_sorting(group, table, leaves)
        for chunk, leaf in zip(mine, leaves, strict=True):
            _check_pages(chunk, leaf, group[3], must_have_checksums=chunk.path.split(".")[0] in checksums)
            _check_indexes(whole, chunk, group[3])
            _check_statistics(file.metadata.row_group(number), table, chunk)
    return chunks


def write_pages(path, table, sizes):
    """Write a table whose last column has lists of equal length, with that column in pages of given numbers of values.

    The column is plain-encoded and uncompressed, in one row group. A page can end in the middle of a row.
    """
    pq.write_table(table, path, compression="NONE", use_dictionary=False, write_statistics=False)
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    footer, _ = read_struct(whole[start : len(whole) - 8])
    (group,) = footer[4].value.values
    chunk = group[1].value.values[-1][3].value
    values = table.column(table.num_columns - 1).combine_chunks()
    first = np.zeros(len(values.flatten()), np.uint8)
    first[values.offsets.to_numpy()[:-1]] = 1
    body = b""
    at = 0
    for size in sizes:
        some = values.flatten()[at : at + size]
        if not len(some):
            break
        begins = first[at : at + size]
        at += len(some)
        packed = np.packbits(1 - begins, bitorder="little").tobytes()
        repetition = _unsigned_bytes(len(packed) << 1 | 1) + packed
        definition = _unsigned_bytes(len(some) << 1) + bytes([3])
        page = b"".join(len(levels).to_bytes(4, "little") + levels for levels in (repetition, definition))
        page += np.asarray(some).tobytes()
        inner = b"".join(b"\x15" + _unsigned_bytes(2 * number) for number in (len(some), 0, 3, 3))
        header = b"".join(b"\x15" + _unsigned_bytes(2 * number) for number in (0, len(page), len(page)))
        body += header + b"\x2c" + inner + b"\0\0" + page
    offset = chunk[9].value
    group[2].value += len(body) - chunk[6].value
    group[6].value += len(body) - chunk[7].value
    chunk[6].value = chunk[7].value = len(body)
    footer = write_struct(footer)
    path.write_bytes(whole[:offset] + body + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _check_pages(chunk, leaf, n_rows, *, must_have_checksums):
    meta, pages = chunk.meta, chunk.data_pages
    where = (chunk.path, chunk.group)
    assert meta[9] == pages[0].offset, where
    assert sum(page.n_values for page in pages) == meta[5], where
    assert sum(page.header_size + page.unpacked for page in chunk.pages) == meta[6], where
    assert {page.encoding for page in pages} <= set(meta[2]), where
    if not leaf.max_repetition_level:
        assert meta[5] == n_rows, where
    rows = [page.n_rows for page in pages if page.n_rows is not None]
    if rows:
        assert sum(rows) == n_rows, where
    if must_have_checksums:
        assert all(page.has_checksum for page in chunk.pages), where


def _check_indexes(whole, chunk, n_rows):
    """Check that the offset index has the place of each page, and that the column index has one entry per page."""
    if chunk.said.get(4):
        index, end = _thrift(whole, chunk.said[4])
        assert end - chunk.said[4] == chunk.said[5]
        assert [place[1] for place in index[1]] == [page.offset for page in chunk.data_pages]
        assert [place[2] for place in index[1]] == [page.size for page in chunk.data_pages]
        first_rows = [place.get(3, 0) for place in index[1]]
        assert first_rows[0] == 0
        assert all(a < b for a, b in itertools.pairwise([*first_rows, n_rows]))
    if chunk.said.get(6):
        index, end = _thrift(whole, chunk.said[6])
        assert end - chunk.said[6] == chunk.said[7]
        assert {len(index[field]) for field in (1, 2, 3)} == {len(chunk.data_pages)}


def _check_statistics(group, table, chunk):
    """Check the minimum, maximum and null count of a column chunk against its values, where they are given."""
    said = chunk.meta.get(12, {})
    for old, new in ((1, 5), (2, 6)):
        assert said.get(old, said.get(new)) == said.get(new), "a bound as old readers want it that is another"
    index = next(i for i in range(group.num_columns) if group.column(i).path_in_schema == chunk.path)
    column = group.column(index)
    statistics = column.statistics if column.is_stats_set else None
    name = chunk.path.split(".")[0]
    if statistics is None or name not in table.column_names:
        return
    values = table[name].combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    is_list = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    if pa.types.is_fixed_size_list(values.type) or is_list:
        if pa.types.is_nested(values.type.value_type):
            return
        missing = sum(not row for row in values.to_pylist()) if statistics.has_null_count else 0
        values = values.flatten()
        nulls = missing + values.null_count
    elif pa.types.is_nested(values.type):
        return
    else:
        nulls = values.null_count
    if statistics.has_null_count:
        assert statistics.null_count == nulls, (chunk.path, chunk.group)
    if statistics.has_min_max and len(values) > values.null_count:
        if pa.types.is_decimal(values.type):  # pyarrow has no min_max for 32-bit and 64-bit decimals
            values = values.cast(pa.decimal256(values.type.precision, values.type.scale))
        elif pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        elif pa.types.is_duration(values.type):
            values = values.cast(pa.int64())
        elif isinstance(statistics.min, bytes) and not pa.types.is_fixed_size_binary(values.type):
            values = values.cast(pa.large_binary())
        bounds = pc.min_max(values)
        assert statistics.min <= bounds["min"].as_py(), (chunk.path, chunk.group)
        assert statistics.max >= bounds["max"].as_py(), (chunk.path, chunk.group)


def _check_sorting(group, table, leaves):
    """Check that a row group is sorted by its sorting columns."""
    keys = []
    for sorting in group.get(4) or []:
        path = leaves[sorting.get(1, 0)].path
        assert path in table.column_names, "sorted by a column that is no plain one"
        keys.append((path, "descending" if sorting.get(2) else "ascending"))
    if keys:
        order = pc.sort_indices(table.select([name for name, _ in keys]), sort_keys=keys).to_pylist()
        assert order == list(range(table.num_rows)), keys


def _pages(whole, at, end):
    while at < end:
        header, body = _thrift(whole, at)
        packed = header[3]
        assert body + packed <= end, "a page exceeds its column chunk"
        checksum = header.get(4)
        if checksum is not None:
            assert zlib.crc32(whole[body : body + packed]) == checksum & 0xFFFFFFFF
        kind = header.get(1, 0)
        inner = header[{DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}[kind]]
        is_v2 = kind == DATA_PAGE_V2
        yield Page(
            kind=kind,
            offset=at,
            header_size=body - at,
            packed=packed,
            unpacked=header[2],
            has_checksum=checksum is not None,
            n_values=inner[1],
            n_rows=inner.get(3, 0) if is_v2 else None,
            n_nulls=inner.get(2, 0) if is_v2 else None,
            encoding=inner.get(4 if is_v2 else 2, 0),
        )
        at = body + packed
    assert at == end, "pages do not fill their column"


def _thrift(whole, at):
    """Return a struct in Thrift's compact protocol as a dictionary by field id, and the offset of its end."""
    fields = {}
    field = 0
    while whole[at]:
        step, kind = whole[at] >> 4, whole[at] & 15
        at += 1
        if step:
            field += step
        else:
            field, at = _zigzag(whole, at)
        fields[field], at = _value(whole, at, kind)
    return fields, at + 1


def _value(whole, at, kind):
    if kind in {1, 2}:
        return kind == 1, at
    if kind == 3:
        return int.from_bytes(whole[at : at + 1], "little", signed=True), at + 1
    if kind in {4, 5, 6}:
        return _zigzag(whole, at)
    if kind == 7:
        return struct.unpack_from("<d", whole, at)[0], at + 8
    if kind == 8:
        size, at = _unsigned(whole, at)
        return whole[at : at + size], at + size
    if kind == 12:
        return _thrift(whole, at)
    assert kind in {9, 10}, f"Thrift type {kind}"
    size, inner = whole[at] >> 4, whole[at] & 15
    at += 1
    if size == 15:
        size, at = _unsigned(whole, at)
    values = []
    for _ in range(size):
        # A boolean field is encoded in the field's header, but a boolean in a list takes a byte.
        value, at = (whole[at] == 1, at + 1) if inner in {1, 2} else _value(whole, at, inner)
        values.append(value)
    return values, at


def _unsigned(whole, at):
    value = shift = 0
    while True:
        value |= (whole[at] & 0x7F) << shift
        shift += 7
        at += 1
        if whole[at - 1] < 0x80:
            return value, at


def _unsigned_bytes(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _zigzag(whole, at):
    value, at = _unsigned(whole, at)
    return (value >> 1) ^ -(value & 1), at

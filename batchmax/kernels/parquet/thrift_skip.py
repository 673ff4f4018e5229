"""Skips Thrift structs: finds where each item of a long list begins without parsing the items.

A footer has one struct for each column of each row group, tens of thousands in a wide file. Few of them are needed.

See Also
--------
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import numpy as np

from batchmax.kernels.intrinsics import compiled
from batchmax.kernels.parquet.rle import varint

BYTE, DOUBLE, BINARY, LIST, MAP, STRUCT = 3, 7, 8, 9, 11, 12
IN_STRUCT = -1
"""The stack entry of a struct. The entry of a list is the type of its items, the entry of a map both types."""
CHUNK_METADATA, CODEC, N_VALUES, COMPRESSED_BYTES, DATA_PAGE_AT, DICTIONARY_AT = 3, 4, 5, 7, 9, 11
"""Fields of ColumnChunk and ColumnMetaData."""
DICTIONARY_PAGE, PAGE_TYPES = 2, (0, 2, 3)
HEADER_FIELDS = (5, 7, 8)
"""The fields of a page header with the headers of data pages (version 1), dictionary pages, data pages (version 2)."""
MAX_DEPTH = 64
MAX_SHIFT = 63
"""The largest shift of a byte in an integer: at most ten bytes."""


def find_structs(data, at, starts):
    """Find where consecutive structs begin.

    Parameters
    ----------
    data : (n_bytes,) uint8
    at
        The position of the first struct.
    starts : (n_structs + 1,) int64
        Filled with the start of each struct, and the end of the last.

    Returns
    -------
    whether all structs were found.
    """
    kinds = np.empty(MAX_DEPTH, np.int64)
    left = np.empty(MAX_DEPTH, np.int64)
    for i in range(starts.shape[0] - 1):
        starts[i] = at
        at = _skip_struct(data, at, kinds, left)
        if at < 0:
            return False
    starts[-1] = at
    return True


@compiled
def _skip_struct(data, at, kinds, left):
    """Return the position after a struct; -1 if it is incomplete or invalid. ``kinds`` and ``left`` hold the stack."""
    end = data.shape[0]
    depth = 0
    kinds[0] = IN_STRUCT
    while depth >= 0:
        in_list = kinds[depth] != IN_STRUCT
        if in_list:
            # Count down the items of a list. A map's key and value types alternate.
            if left[depth] == 0:
                depth -= 1
                continue
            left[depth] -= 1
            kind = kinds[depth] & 15
            if kinds[depth] >> 4:
                kinds[depth] = (kinds[depth] >> 4) | (kind << 4)
        else:
            if at >= end:
                return -1
            head = np.int64(data[at])
            at += 1
            if head == 0:
                depth -= 1
                continue
            kind = head & 15
            if head >> 4 == 0:
                _, at = varint(data, at, MAX_SHIFT)
                if at < 0:
                    return -1
        size = np.int64(0)
        if 1 <= kind <= 2:  # a boolean: its value is in the type within a struct, and a byte within a list
            size = np.int64(in_list)
        elif kind == BYTE:
            size = np.int64(1)
        elif kind == DOUBLE:
            size = np.int64(8)
        elif kind == BINARY:
            size, at = varint(data, at, MAX_SHIFT)
        elif LIST <= kind <= STRUCT:
            depth += 1
            if depth >= MAX_DEPTH:
                return -1
            kinds[depth] = IN_STRUCT
            left[depth] = 0
            if kind == MAP:
                pairs, at = varint(data, at, MAX_SHIFT)
                left[depth] = 2 * pairs
                kinds[depth] = 0
                if at >= 0 and pairs:
                    if at >= end:
                        return -1
                    types = np.int64(data[at])
                    at += 1
                    if types >> 4 == 0 or types & 15 == 0:
                        return -1
                    kinds[depth] = (types >> 4) | ((types & 15) << 4)
            elif kind != STRUCT:
                if at >= end:
                    return -1
                head = np.int64(data[at])
                at += 1
                left[depth] = head >> 4
                kinds[depth] = head & 15
                if head >> 4 == 15:
                    left[depth], at = varint(data, at, MAX_SHIFT)
            if at < 0 or left[depth] < 0 or left[depth] > 2 * (end - at):
                return -1
        elif 4 <= kind <= 6:
            _, at = varint(data, at, MAX_SHIFT)
        else:
            return -1
        if at < 0 or size < 0 or size > end - at:
            return -1
        at += size
    return at


def chunk_sizes(data, starts, sizes):
    """Read sizes and positions of column chunks.

    A wide row group has thousands of chunks, too many to parse each of them completely.

    Parameters
    ----------
    data : (n_bytes,) uint8
    starts : (n_chunks,) int64
        The position of each ColumnChunk struct.
    sizes : (n_chunks, 5) int64
        Filled with the codec, the compressed size, the number of values, the position of the first data page, and the
        position of the dictionary page, 0 without one. -1 for values that weren't found because the struct has an
        unusual form.
    """
    kinds = np.empty(MAX_DEPTH, np.int64)
    left = np.empty(MAX_DEPTH, np.int64)
    for i in range(starts.shape[0]):
        sizes[i] = -1
        at = starts[i]
        number = np.int64(0)
        is_metadata = False
        while 0 <= at < data.shape[0]:
            head = np.int64(data[at])
            at += 1
            kind = head & 15
            number += head >> 4
            if is_metadata and (head == 0 or number > DICTIONARY_AT):
                if sizes[i, 3] >= 0 and sizes[i, 4] < 0:
                    sizes[i, 4] = 0
                break
            if head >> 4 == 0:
                break
            if kind == STRUCT and not is_metadata and number == CHUNK_METADATA:
                is_metadata, number = True, np.int64(0)
            elif 4 <= kind <= 6:
                value, at = varint(data, at, MAX_SHIFT)
                value = value >> 1 if value & 1 == 0 and value >= 0 and at >= 0 else np.int64(-1)
                if is_metadata and number == CODEC:
                    sizes[i, 0] = value
                elif is_metadata and number == N_VALUES:
                    sizes[i, 2] = value
                elif is_metadata and number == COMPRESSED_BYTES:
                    sizes[i, 1] = value
                elif is_metadata and number == DATA_PAGE_AT:
                    sizes[i, 3] = value
                elif is_metadata and number == DICTIONARY_AT:
                    sizes[i, 4] = value
            elif kind == LIST and at < data.shape[0] and (data[at] >> 4) < 15:
                count, kind = np.int64(data[at] >> 4), np.int64(data[at] & 15)
                at += 1
                for _ in range(count):
                    if at < 0:
                        break
                    if kind == STRUCT:
                        at = _skip_struct(data, at, kinds, left)
                    elif 4 <= kind <= 6 or kind == BINARY:
                        value, at = varint(data, at, MAX_SHIFT)
                        if kind == BINARY and at >= 0:
                            at = at + value if 0 <= value <= data.shape[0] - at else -1
                    else:
                        at = -1
            else:
                break


def page_heads(data, heads):
    """Read the headers of pages.

    Parameters
    ----------
    data : (n_pages, n_bytes) uint8
        The first bytes of each page.
    heads : (n_pages, 3) int64
        Filled with the size of each page including its header, its number of values (0 for a dictionary), and whether
        it is a dictionary. -1 if the bytes are no page header, or not all of it.
    """
    kinds = np.empty(MAX_DEPTH, np.int64)
    left = np.empty(MAX_DEPTH, np.int64)
    for i in range(data.shape[0]):
        heads[i] = -1
        page = data[i]
        end = _skip_struct(page, 0, kinds, left)
        if end < 0:
            continue
        at = np.int64(0)
        number = np.int64(0)
        kind_of_page = packed = n_values = np.int64(-1)
        while at < end - 1:
            head = np.int64(page[at])
            at += 1
            kind = head & 15
            number += head >> 4
            if head >> 4 == 0:
                break
            if kind == STRUCT:
                # The first field of each type's own header is the number of values.
                if number in HEADER_FIELDS and page[at] >> 4 == 1 and 4 <= page[at] & 15 <= 6:
                    value, _ = varint(page, at + 1, MAX_SHIFT)
                    n_values = value >> 1 if value & 1 == 0 else np.int64(-1)
                break
            if kind < 4 or kind > 6:
                break
            value, at = varint(page, at, MAX_SHIFT)
            value = value >> 1 if value & 1 == 0 else np.int64(-1)
            if number == 1:
                kind_of_page = value
            elif number == 3:
                packed = value
        if packed >= 0 and n_values >= 0 and kind_of_page in PAGE_TYPES:
            heads[i, 0] = end + packed
            heads[i, 1] = 0 if kind_of_page == DICTIONARY_PAGE else n_values
            heads[i, 2] = kind_of_page == DICTIONARY_PAGE

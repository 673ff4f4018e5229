"""Checks the messages of an Arrow IPC stream before Arrow decodes them.

Arrow verifies the structure of a message, but allocates the sizes that the message states, and aborts the process if
map keys are null. So stated sizes are compared with the available bytes and with a limit, and nulls are rejected where
Arrow requires values. Message.fbs and Schema.fbs of Arrow specify the format. Contents of buffers, such as offsets,
are checked after decoding (:mod:`batchmax.sources.streams.arrow_batches`).
"""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from batchmax.parquet.footer import MAGIC
from batchmax.runtime.buffers import MIB
from batchmax.runtime.text import quantity

CONTINUATION = b"\xff\xff\xff\xff"
SCHEMA, DICTIONARY_BATCH, RECORD_BATCH = 1, 2, 3
"""Message types."""
MAP, RUN_END_ENCODED = 17, 22
"""Field types."""
MAX_DEPTH = 64
"""Maximum nesting depth of types that Arrow reads."""
ALIGNMENT = 8
"""Buffers of a message start at a multiple of this many bytes."""


Node = tuple[str, bool]
"""A node of a record batch or of a dictionary: the column that it belongs to, and whether nulls are forbidden."""


class MessageError(ValueError):
    """A damaged message, or one that exceeds the memory limit.

    ``where`` names the batch and the column as far as known; ``needed`` is the size of the message in bytes if it
    exceeds the limit.
    """

    def __init__(self, what: str, *, where: str = "", needed: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.needed = needed


class MessageStream(io.RawIOBase):
    """A byte stream that passes on messages one by one, each after it was checked.

    Parameters
    ----------
    stream
        Stream of bytes; never seeked.
    limit
        Maximum bytes of a message, as stored and decompressed; also of the dictionaries of all fields together.

    Attributes
    ----------
    is_empty
        Whether nothing has been read.
    is_parquet
        Whether the first bytes are those of a Parquet file.
    has_ended
        Whether the end-of-stream marker was read.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._nodes: dict[int | None, list[Node]] = {None: []}
        self._dictionary_bytes: dict[int, int] = {}
        self._n_batches = 0
        self.is_empty = True
        self.is_parquet = False
        self.has_ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes of one message; Arrow reads the parts of a message one after the other.

        Raises
        ------
        MessageError
            The next message is damaged or too large.
        """
        if not self._pieces and not self.has_ended:
            self._read_message()
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        if 0 <= size < len(piece):
            self._pieces.appendleft(piece[size:])
            piece = piece[:size]
        elif size > len(piece) and self._pieces:
            return piece + self.read(size - len(piece))
        return piece

    def _read_message(self) -> None:
        prefix = self._stream.read(len(CONTINUATION))
        if not prefix:
            return
        self.is_parquet = self.is_empty and prefix == MAGIC
        self.is_empty = False
        if prefix == CONTINUATION:  # before Arrow 0.15, messages had no such prefix
            prefix += self._stream.read(4)
        self._pieces.append(prefix)
        size = int.from_bytes(prefix[-4:], "little", signed=True)
        if len(prefix) not in {4, 8} or prefix == CONTINUATION or size < 0:
            raise MessageError("incomplete or damaged message")
        self.has_ended = size == 0
        if self.has_ended:
            return
        where = f"batch {self._n_batches}" if self._n_batches else ""
        metadata = self._take(size, where)
        message = Table(metadata, _unpack("<I", metadata, 0))
        kind, n_bytes = message.number(1, "<B"), message.number(3, "<q")
        header = message.table(2)
        where = f"batch {self._n_batches}" if kind in {RECORD_BATCH, DICTIONARY_BATCH} else ""
        if n_bytes < 0:
            raise MessageError(f"a message has {n_bytes:,} bytes", where=where)
        body = self._take(n_bytes, where)
        if header is None:
            return
        if kind == SCHEMA:
            self._nodes = _nodes_of(header)
        elif kind == RECORD_BATCH:
            self._check_size(_decoded_bytes(header, body, self._nodes[None], where), where)
            self._n_batches += 1
        elif kind == DICTIONARY_BATCH:
            self._check_dictionary(header, body, where)

    def _check_dictionary(self, header: Table, body: bytes, where: str) -> None:
        number, batch = header.number(0, "<q"), header.table(1)
        if batch is None or number not in self._nodes:
            raise MessageError(f"there is no column for dictionary {number}", where=where)
        is_delta = bool(header.number(2, "<B"))
        have = self._dictionary_bytes.get(number, 0) if is_delta else 0
        self._dictionary_bytes[number] = have + _decoded_bytes(batch, body, self._nodes[number], where)
        self._check_size(sum(self._dictionary_bytes.values()), where, "its dictionaries take")

    def _take(self, size: int, where: str) -> bytes:
        """Read a part of a message, and keep it for Arrow."""
        self._check_size(size, where)
        data = self._stream.read(size)
        if len(data) < size:
            raise MessageError("incomplete message", where=where)
        if data:
            self._pieces.append(data)
        return data

    def _check_size(self, n_bytes: int, where: str, what: str = "it takes") -> None:
        if n_bytes > self._limit:
            mib = f"{n_bytes / MIB:,.0f} MiB, and the limit is {self._limit / MIB:,.0f} MiB"
            raise MessageError(f"{what} {mib}", where=where, needed=n_bytes)


def _nodes_of(schema: Table) -> dict[int | None, list[Node]]:
    """Return the nodes of record batches (None) and of each dictionary, from a ``Schema`` table."""
    found: dict[int | None, list[Node]] = {None: []}

    def add(field: Table, nodes: list[Node], name: str, *, required: bool, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise MessageError(f"types are nested more than {MAX_DEPTH} times", where=f"column {name!r}")
        nodes.append((name, required))
        encoding = field.table(4)
        if encoding is not None:
            # The nodes of the values are those of the dictionary; the field itself has only the indices.
            nodes = found[encoding.number(0, "<q")] = [(name, False)]
        kind = field.number(2, "<B")
        for place, child in enumerate(field.tables(5)):
            is_ends = kind == RUN_END_ENCODED and place == 0
            before = len(nodes)
            add(child, nodes, name, required=is_ends or kind == MAP, depth=depth + 1)
            if kind == MAP and before + 1 < len(nodes):
                nodes[before + 1] = name, True  # the keys: the first child of a map's struct

    for field in schema.tables(1):
        add(field, found[None], field.text(0), required=False, depth=0)
    return found


class Table:
    """A table in a flatbuffer; fields are identified by number.

    Raises
    ------
    MessageError
        From every method: an offset points outside of the data.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - _unpack("<i", data, at)
        self._size = _unpack("<H", data, self._vtable)

    def number(self, field: int, kind: str) -> int:
        """Return a number; 0 if the field is absent."""
        at = self._place(field)
        return 0 if at is None else _unpack(kind, self._data, at)

    def table(self, field: int) -> Table | None:
        """Return a table; None if the field is absent."""
        at = self._place(field)
        return None if at is None else Table(self._data, at + _unpack("<I", self._data, at))

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        at, count = self._vector(field, 4)
        for place in range(at, at + 4 * count, 4):
            yield Table(self._data, place + _unpack("<I", self._data, place))

    def pairs(self, field: int) -> np.ndarray[Any, Any]:
        """Return a vector of structs of two 64-bit integers, shape (count, 2)."""
        at, count = self._vector(field, 16)
        return np.frombuffer(self._data, "<i8", 2 * count, at).reshape(count, 2)

    def text(self, field: int) -> str:
        """Return a string; empty if the field is absent."""
        at, count = self._vector(field, 1)
        return self._data[at : at + count].decode(errors="replace")

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        offset = _unpack("<H", self._data, self._vtable + entry)
        return self._at + offset if offset else None

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """Return the offset of the first value of a vector, and the number of values."""
        at = self._place(field)
        if at is None:
            return 0, 0
        at += _unpack("<I", self._data, at)
        count = _unpack("<I", self._data, at)
        if at + 4 + count * width > len(self._data):
            raise MessageError("damaged metadata")
        return at + 4, count


def _decoded_bytes(batch: Table, body: bytes, nodes: list[Node], where: str) -> int:
    """Check the nodes and buffers of a ``RecordBatch``; return the bytes of all of its buffers, decompressed."""
    found = batch.pairs(1)
    if len(found) != len(nodes):
        raise MessageError(f"{quantity(len(found), 'array')} instead of {len(nodes):,}", where=where)
    for (length, nulls), (name, required) in zip(found.tolist(), nodes, strict=True):
        column = f"{where}, column {name!r}"
        if not 0 <= nulls <= length:
            raise MessageError(f"{nulls:,} of {quantity(length, 'value is', 'values are')} null", where=column)
        if required and nulls:
            raise MessageError(
                f"{quantity(nulls, 'map key or run end is', 'map keys or run ends are')} null", where=column
            )
    is_compressed = batch.table(3) is not None
    total = 0
    for offset, size in batch.pairs(2).tolist():
        if offset < 0 or size < 0 or offset + size > len(body) or offset % ALIGNMENT:
            raise MessageError(
                f"a buffer of {quantity(size, 'byte')} at {offset:,} exceeds the message body", where=where
            )
        stored = is_compressed and size and _unpack("<q", body, offset)
        if stored and stored < -1:
            raise MessageError(f"a buffer states a decompressed size of {stored:,} bytes", where=where)
        # -1: the buffer isn't compressed.
        total += stored if stored and stored > 0 else size
    return total


def _unpack(kind: str, data: bytes, at: int) -> int:
    """Return a number from the data; raise :class:`MessageError` if it isn't inside."""
    if not 0 <= at <= len(data) - struct.calcsize(kind):
        raise MessageError("damaged metadata")
    return int(struct.unpack_from(kind, data, at)[0])

"""Reads Arrow IPC streams from pipes.

Arrow's readers don't detect a stream that was cut off between two batches. A stream must therefore end with the
end-of-stream marker. Messages are checked before Arrow decodes them
(:mod:`batchmax.sources.streams.ipc_messages`).
"""

from __future__ import annotations

import contextlib
import math
import select
import sys
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.runtime.arrow_errors import is_damage
from batchmax.runtime.buffers import MIB
from batchmax.sources.streams.ipc_messages import MessageError, MessageStream
from batchmax.storage.paths import STREAM

MAX_MESSAGE = 1 << 30
"""Maximum bytes of a message if no limit is given."""

_REMEDY = "write one with Arrow: pyarrow.ipc.new_stream, Polars' write_ipc_stream, DuckDB's COPY … (FORMAT arrows)"


_CHECK_WRITER = "check the messages of the program that wrote it"


def read_stdin(memory_limit: int) -> pa.RecordBatchReader:
    """Return a reader of the Arrow IPC stream on stdin, whose messages take at most ``memory_limit`` bytes.

    Raises
    ------
    UsageError
        Stdin is a terminal, is closed, or is a Parquet file.
    DataError
        Stdin is empty, or isn't an Arrow stream.
    """
    if sys.stdin is None or sys.stdin.buffer.isatty():
        what = "stdin is closed" if sys.stdin is None else "stdin is a terminal"
        raise UsageError(what, where=STREAM, remedy="pipe an Arrow IPC stream to it, or name a file")
    incoming = IncomingStream(sys.stdin.buffer, STREAM, memory_limit)
    return pa.RecordBatchReader.from_batches(incoming.schema, incoming)


class IncomingStream:
    """A stream of record batches, read once.

    Parameters
    ----------
    stream
        Stream of bytes; never seeked.
    name
        Name of the stream in errors.
    limit
        Maximum bytes of a message, as stored and decompressed.

    Raises
    ------
    UsageError
        It is a Parquet file.
    DataError
        It isn't an Arrow stream, is damaged or cut off, has data after its end, or a message exceeds the limit.
    """

    def __init__(self, stream: BinaryIO, name: str, limit: int = MAX_MESSAGE) -> None:
        self._name = name
        self._has_schema = False
        self._stream = stream
        self._messages = MessageStream(stream, limit)
        with self._reading():
            self._reader = pa.ipc.open_stream(self._messages)
        self.schema: pa.Schema = self._reader.schema
        self._has_schema = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches."""
        while True:
            with self._reading():
                try:
                    batch = self._reader.read_next_batch()
                except StopIteration:
                    break
            yield batch
        if not self._messages.has_ended:
            raise DataError(
                "the stream is incomplete: it has no end-of-stream marker", where=self._name, remedy=_CHECK_WRITER
            )
        if _has_more(self._stream):
            raise DataError(
                "there are bytes after the end of the stream",
                where=self._name,
                remedy="write all batches as one stream, or run the command once for each stream",
            )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except MessageError as error:
            raise self._damage(error.what, error) from error
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise self._damage(" ".join(str(error).split()), error) from error

    def _damage(self, what: str, error: Exception) -> BatchmaxError:
        if self._messages.is_empty:
            remedy = "check the program that writes to it"
            return DataError("stdin is empty", where=self._name, remedy=remedy)
        if self._messages.is_parquet:
            remedy = "name the file instead of -"
            return UsageError("stdin is a Parquet file, not an Arrow IPC stream", where=self._name, remedy=remedy)
        if not self._has_schema:
            return DataError(f"not an Arrow IPC stream: {what}", where=self._name, remedy=_REMEDY)
        where, needed = (error.where, error.needed) if isinstance(error, MessageError) else ("", 0)
        where = f"{self._name}: {where}" if where else self._name
        if needed:
            remedy = f"write smaller batches, or allow more memory: --memory-limit {math.ceil(needed / MIB)}MiB"
            return DataError(what, where=where, remedy=remedy)
        return DataError(f"the stream is damaged or incomplete: {what}", where=where, remedy=_CHECK_WRITER)


def _has_more(stream: BinaryIO) -> bool:
    """Return whether more bytes can be read now, without waiting: the pipe may stay open."""
    try:
        ready = select.select([stream], [], [], 0)[0]
    except (OSError, ValueError):
        return bool(stream.read(1))  # not a file that select supports
    return bool(ready and stream.read(1))

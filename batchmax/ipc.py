"""Arrow IPC streams through pipes: one comes in, one goes out.

A stream that was cut off looks whole to Arrow's readers if it was cut between two batches. So what comes in must end
with the marker that ends a stream, and what goes out has it only when everything was written.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from batchmax.arrow_errors import is_damage
from batchmax.errors import DataError

END = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends a stream."""

_REMEDY = "write one with Arrow: pyarrow.ipc.new_stream, Polars' write_ipc_stream, DuckDB's COPY … (FORMAT arrows)"


_LOOK = "look at what the command before this one said"


class IncomingStream:
    """A stream that is read as it comes, once.

    Parameters
    ----------
    stream
        Of bytes; only ever read on.
    name
        What errors call it.

    Raises
    ------
    DataError
        It is no Arrow stream, damaged, or ends before its end.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._name = name
        self._has_begun = False
        self._bytes = _Remembering(stream)
        with self._reading():
            self._reader = pa.ipc.open_stream(self._bytes)
        self.schema: pa.Schema = self._reader.schema
        self._has_begun = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches."""
        while True:
            with self._reading():
                try:
                    batch = self._reader.read_next_batch()
                except StopIteration:
                    break
            yield batch
        if self._bytes.last != END:
            raise DataError(
                "the stream ends in the middle: whoever wrote it did not finish",
                where=self._name,
                remedy=_LOOK,
            )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            if not self._bytes.last:
                raise DataError("nothing came", where=self._name, remedy=_REMEDY) from error
            text = " ".join(str(error).split())
            what = f"the stream is damaged, or ends in the middle: {text}"
            if not self._has_begun:
                raise DataError(f"is no Arrow IPC stream: {text}", where=self._name, remedy=_REMEDY) from error
            raise DataError(what, where=self._name, remedy=_LOOK) from error


class OutgoingStream:
    """A stream that is written as it is made.

    Parameters
    ----------
    stream
        Of bytes, which need not be able to seek.
    schema
        Of the batches.

    Raises
    ------
    BrokenPipeError
        From every method: whoever read it has seen enough.
    OSError
        As above: it cannot be written for another reason.
    """

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._bytes = _Counting(stream)
        self._writer = pa.ipc.new_stream(self._bytes, schema)

    @property
    def size(self) -> int:
        """How many bytes were written."""
        return self._bytes.size

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write batches; empty ones are left out."""
        for batch in batches:
            if batch.num_rows:
                self._writer.write_batch(batch)

    def close(self) -> None:
        """End the stream. Without this its readers know that it is not whole."""
        self._writer.close()


class _Remembering(io.RawIOBase):
    """Reads on, and remembers the last bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.last = (self.last + data[-len(END) :])[-len(END) :]
        return data


class _Counting(io.RawIOBase):
    """Writes everything, and counts it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest):
            rest = rest[self._stream.write(rest) or 0 :]
        self.size += size
        return size

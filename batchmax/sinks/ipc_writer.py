"""Writes Arrow IPC streams."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa


class OutgoingStream:
    """An Arrow IPC stream that is written batch by batch.

    Parameters
    ----------
    stream
        A binary stream; it need not be seekable.
    schema
        The schema of the batches.

    Raises
    ------
    BrokenPipeError
        From every method: the reader has closed the stream.
    OSError
        From every method: the stream can't be written for another reason.
    """

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._bytes = _Counting(stream)
        self._writer = pa.ipc.new_stream(self._bytes, schema)

    @property
    def size(self) -> int:
        """The number of bytes written."""
        return self._bytes.size

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write batches, except empty ones."""
        for batch in batches:
            if batch.num_rows:
                self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the end-of-stream marker. A stream without it is incomplete."""
        self._writer.close()


class _Counting(io.RawIOBase):
    """A raw stream that writes all bytes and counts them."""

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

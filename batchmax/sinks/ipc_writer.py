"""Arrow IPC streams as outputs, written as they are computed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa


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

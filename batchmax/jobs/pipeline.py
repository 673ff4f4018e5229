"""The one loop: read, compute, write, each of the three at the same time as the others.

Chunks are read ahead by one thread while the kernels (which use every core) work on the one before, and a third thread
encodes and writes the row groups before that. A few :class:`Buffers` go round, so memory is as large as the chunks in
flight and never grows. What the work on a chunk is, the loop does not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from batchmax.parquet import CopiedColumns
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_assembler import Ended
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import Part
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.sources.token_chunks import TokenChunk

READ_AHEAD = 2
"""Chunks that are read ahead: enough that a slow moment of the disk is not waited for."""


def tell_of(source: ParquetSource | StreamSource, progress: Progress) -> None:
    """Say what was chosen of a source, and what looks wrong with how it was named."""
    for text in source.job.notes:
        progress.note(text)
    if source.job.assumed:
        progress.assumed(source.job.assumed)
    for text in source.warnings:
        progress.warn(text)


@dataclass(frozen=True, eq=False)
class Result:
    """What a chunk became: rows, and those that were rejected.

    Of sequences, the rows that end with the chunk; ``ended`` is then what is to be written before the group ends.
    """

    batch: pa.RecordBatch
    rejects: pa.RecordBatch | None = None
    ended: Ended | None = None


class Work(Protocol):
    """What is done with chunks, and what it counts."""

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Do it to the next chunk."""

    def begin(self, part: Part) -> None:
        """Count a part by itself."""

    def state(self) -> dict[str, Any]:
        """Return what was counted until now, or of the part, as JSON has it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Count everything: what was counted of all parts, in their order."""


Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Group:
    """What the chunks of a row group became: ``position`` rows are done with it, and ``state`` was counted.

    Of sequences, what one chunk became; the row group ``ends`` with it or not.
    """

    results: Sequence[Result]
    copied: CopiedColumns | None
    position: int
    state: Mapping[str, Any]
    ends: bool = True


def overlap(
    chunks: Iterator[Chunk],
    work: Work,
    write: Callable[[Group], None],
    progress: Progress,
    row_bytes: int,
    position: int = 0,
) -> int:
    """Read, work and write at the same time, from a position on; return where that ended."""
    free: list[Buffers] = []
    group: list[tuple[Result, Buffers]] = []

    def written(used: list[Buffers], done: Group) -> list[Buffers]:
        write(done)
        return used

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead = deque(reader.submit(next, chunks, None) for _ in range(READ_AHEAD))
        writing: Future[list[Buffers]] = Future()
        writing.set_result([])
        while (chunk := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, chunks, None))
            buffers = free.pop() if free else Buffers()
            buffers.reset()
            group.append((work(chunk, buffers), buffers))
            position += chunk.rows_done
            progress.advance(chunk.rows_done, chunk.batch.num_rows * row_bytes)
            if chunk.ends_group or isinstance(chunk, TokenChunk):
                free += writing.result()
                state = work.state() if chunk.ends_group else {}
                done = Group([result for result, _ in group], chunk.copied, position, state, chunk.ends_group)
                writing = writer.submit(written, [buffers for _, buffers in group], done)
                group = []
        writing.result()
    return position

"""The loop of a job: reads, computes and writes at the same time.

One thread reads chunks ahead while the kernels, which use every core, compute the chunk before; a third thread encodes
and writes the row groups before that. A few :class:`Buffers` are reused, so memory is bounded by the chunks in flight.
The loop doesn't know what is computed.
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
"""Chunks that are read ahead: enough that a short delay of the disk doesn't stall the kernels."""


def tell_of(source: ParquetSource | StreamSource, progress: Progress) -> None:
    """Report the choices and assumptions that were made about a source, and its warnings."""
    for text in source.job.notes:
        progress.note(text)
    if source.job.assumed:
        progress.assumed(source.job.assumed)
    for text in source.warnings:
        progress.warn(text)


@dataclass(frozen=True, eq=False)
class Result:
    """The results of a chunk: the rows to write, and the rejected rows.

    For sequences, these are the rows that end with the chunk; ``ended`` then has the tokens of matrices, which are
    written before the row group ends.
    """

    batch: pa.RecordBatch
    rejects: pa.RecordBatch | None = None
    ended: Ended | None = None


class Work(Protocol):
    """The computation on chunks, and its counts."""

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Compute the next chunk."""

    def begin(self, part: Part) -> None:
        """Start counting the rows of a part."""

    def state(self) -> dict[str, Any]:
        """Return the counts so far, or of the current part, as JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a state."""

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Set the counts to the sum over all parts, added in their order."""


Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Group:
    """The results of the chunks of a row group; for sequences, of one chunk.

    Attributes
    ----------
    position
        The number of input rows that are done after this group.
    state
        The counts at this position; empty unless the row group ends here.
    ends
        Whether the row group ends here; always true for rows.
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
    """Read, compute and write at the same time, starting at a position; return the position at the end."""
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

"""The loop of a job: reads, computes and writes at the same time.

One thread reads chunks ahead, or gets them from several threads that read, while the kernels, which use every core,
compute the chunk before; another thread encodes and writes the row groups before that. A few :class:`Buffers` are
reused, so memory is bounded by the chunks in flight. The loop doesn't know what is computed.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from batchmax.jobs.stage import Result, Stage
from batchmax.parquet import CopiedColumns
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import Source
from batchmax.sources.token_chunks import TokenChunk

READ_AHEAD = 2
"""Chunks that are read ahead: enough that a short delay of the disk doesn't stall the kernels."""


def report_source(source: Source, progress: Progress, name: str = "") -> None:
    """Report the choices and assumptions that were made about a source, and its warnings.

    ``name`` tells one source from another in the texts.
    """
    prefix = name and f"{name}: "
    for text in source.job.notes:
        progress.note(prefix + text)
    if source.job.assumed:
        progress.assumed(prefix + source.job.assumed)
    for text in source.warnings:
        progress.warn(prefix + text)


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


def read_ahead(chunks: Generator[Chunk, None, None]) -> Generator[Chunk, None, None]:
    """Yield chunks that a thread reads ahead. ``chunks`` is closed at the end, or when the caller closes this one."""
    with contextlib.closing(chunks), ThreadPoolExecutor(1, "read") as reader:
        ahead = deque(reader.submit(next, chunks, None) for _ in range(READ_AHEAD))
        while (chunk := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, chunks, None))
            yield chunk


def run_pipeline(
    chunks: Generator[Chunk, None, None],
    stage: Stage,
    write: Callable[[Group], None],
    progress: Progress,
    row_bytes: int,
    position: int = 0,
) -> int:
    """Read, compute and write at the same time, starting at a position; return the position at the end."""
    # Oldest first: row groups are divided alike, so each chunk gets the buffers of one of its size.
    free: deque[Buffers] = deque()
    group: list[tuple[Result, Buffers]] = []

    def written(used: list[Buffers], done: Group) -> list[Buffers]:
        write(done)
        return used

    with contextlib.closing(read_ahead(chunks)) as ahead, ThreadPoolExecutor(1, "write") as writer:
        writing: Future[list[Buffers]] = Future()
        writing.set_result([])
        for chunk in ahead:
            buffers = free.popleft() if free else Buffers()
            buffers.reset()
            group.append((stage(chunk, buffers), buffers))
            position += chunk.rows_done
            progress.advance(chunk.rows_done, chunk.batch.num_rows * row_bytes)
            if chunk.ends_group or isinstance(chunk, TokenChunk):
                free += writing.result()
                state = stage.state() if chunk.ends_group else {}
                done = Group([result for result, _ in group], chunk.copied, position, state, chunk.ends_group)
                writing = writer.submit(written, [buffers for _, buffers in group], done)
                group = []
        writing.result()
    return position

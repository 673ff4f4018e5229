"""One pass over every row, for commands that aggregate: reads ahead, computes, writes nothing.

Inputs are logits, or files that ``score`` wrote. Of the latter, the probabilities are read, and labels and classes are
those of the metadata.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batchmax.activations import ACTIVATIONS
from batchmax.columns.scored_input import columns_computed
from batchmax.errors import UsageError
from batchmax.jobs.bad_row_policy import BadRowHandler
from batchmax.jobs.pipeline import read_ahead
from batchmax.jobs.row_batch import RowBatch, score_chunk
from batchmax.jobs.threads import page_workers
from batchmax.options.input_options import InputOptions
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import OUTPUTS
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import input_warnings
from batchmax.sources.chunks import limited
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_file import open_file
from batchmax.sources.parquet_source import Source, open_source
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.streams.ipc_reader import read_stdin
from batchmax.statuses import LAST_WITHOUT_PROBS
from batchmax.storage.input_files import find_files, paths_of
from batchmax.storage.paths import STREAM


def open_rows(
    src: Any,
    options: InputOptions,
    outputs: tuple[str, ...],
    columns: Mapping[str, str] | None = None,
) -> Source:
    """Open logits, or files that ``score`` wrote, for :func:`row_batches`.

    Parameters
    ----------
    src
        One or several paths, or an object with ``__arrow_c_stream__``.
    options
        How rows are read.
    outputs
        The outputs to compute, if they are defined for the activation.
    columns
        The columns to keep, with the option that names each, such as ``--by``. None: those that the options name, by
        default all but the logits and the columns that ``score`` computed.

    Raises
    ------
    DataError
        No input was found, a file isn't Parquet, or the files' schemas are incompatible.
    UsageError
        Invalid column, an activation other than softmax and sigmoid, a loss other than their cross-entropy, or a job
        that doesn't fit in the memory limit.
    """
    src = read_if_stdin(src, options)
    activation = ACTIVATIONS[options.activation_name]
    is_supported = activation.is_log_linear or not activation.is_distribution
    if not is_supported or options.loss_name != activation.likelihood:
        raise UsageError(
            "only softmax and sigmoid, and their cross-entropy, are supported here",
            where="--loss" if is_supported else "--activation",
            remedy="leave it out, or give an output of score --activation",
        )
    if columns is not None:
        options = replace(options, columns=tuple(columns), exclude=())
    elif options.columns is None:
        computed = columns_computed(schema_of(src, options))
        options = replace(options, exclude=tuple(dict.fromkeys((*options.exclude, *computed))))
    # The labels may determine the activation, and only then is it known which of the other outputs are defined.
    of_any = tuple(name for name in outputs if OUTPUTS[name].of == "any")
    try:
        source = open_source(src, ScoreOptions(**vars(options), outputs=of_any), writes=False)
    except UsageError as error:
        if error.where.endswith("--columns"):
            named_by = (option for name, option in (columns or {}).items() if repr(name) in error.what)
            error.where = error.where.removesuffix("--columns") + next(named_by, "--columns")
        raise
    supports = ACTIVATIONS[source.job.options.activation_name].supports
    source.job = replace(source.job, outputs=tuple(name for name in outputs if supports(OUTPUTS[name].of)))
    check_memory(source)
    return source


def refuse_multi_label(source: Source, what: str) -> None:
    """Raise if classes are independent; ``what`` says what isn't possible then.

    Raises
    ------
    UsageError
        The activation has no distribution.
    """
    if not ACTIVATIONS[source.job.options.activation_name].is_distribution:
        raise UsageError(
            f"multi-label rows {what}",
            where="--label",
            remedy="name a column with one class per row: --label NAME; or: batchmax evaluate, for several",
        )


def refuse_bytes(options: InputOptions) -> None:
    """Raise if ``bytes`` is given, which only some commands use.

    Raises
    ------
    UsageError
        ``bytes`` is given.
    """
    if options.bytes is not None:
        raise UsageError(
            "only score and evaluate compute bits per byte",
            where="--bytes",
            remedy="leave it out; or: batchmax evaluate FILE --bytes NAME",
        )


def refuse_single_pass(src: Any, why: str) -> None:
    """Raise if an input is an Arrow stream that can be read only once, such as a reader of record batches.

    Tables, data frames and query results can be read again. They have a length, which readers don't have.

    Raises
    ------
    UsageError
        The input can be read only once; ``why`` that isn't enough.
    """
    if hasattr(src, "__arrow_c_stream__") and not hasattr(src, "__len__"):
        raise UsageError(
            f"a stream can be read only once, and {why}",
            remedy="give paths, or a table or data frame (pyarrow, pandas, Polars, DuckDB)",
        )


def row_batches(
    source: Source,
    progress: Progress | None = None,
    warnings: list[str] | None = None,
    *,
    readers: int | None = None,
) -> Generator[RowBatch, None, None]:
    """Yield the results of every row, in order, with two chunks read ahead.

    The arrays of a batch are overwritten by the batch after the next; copy them to keep them. Warnings about the first
    rows are added to ``warnings``, or passed to ``progress`` if it is None. ``readers`` is the number of threads that
    read; None for as many as the source allows. A caller that stops before the end and keeps the generator must close
    it; otherwise the threads wait until the process ends.

    Raises
    ------
    DataError
        Unreadable input.
    BadRowError
        A bad row with the policy ``error``. With the other policies, bad rows are yielded with their status.
    """
    job, options = source.job, source.job.options
    progress, is_checked = progress or Progress(), False
    bad_rows = BadRowHandler(job)
    total = rows_in(source)
    progress.start(total, None if total is None else total * source.row_bytes)
    parts = plan_parts(source.group_rows(), source.row_bytes, limit=options.limit)
    with page_workers(options) as workers:
        plan = ReadPlan(job.columns_read, workers, readers=readers or source.readers)
        chunks = limited(source.chunks(parts, plan), options.limit)
        with contextlib.closing(read_ahead(chunks)) as ahead:
            for chunk, buffers in zip(ahead, itertools.cycle((Buffers(), Buffers())), strict=False):
                buffers.reset()
                batch = score_chunk(chunk, job, buffers)
                bad_rows.refuse(chunk, batch.scores.status)
                if not is_checked and len(batch.matrix):
                    is_checked = True
                    for text in input_warnings(batch.matrix[batch.scores.status > LAST_WITHOUT_PROBS], job):
                        (progress.warn if warnings is None else warnings.append)(text)
                yield batch
                progress.advance(chunk.rows_done, chunk.batch.num_rows * job.row_bytes)


def rows_in(source: Source) -> int | None:
    """Return how many rows of an input are read; None if unknown."""
    limit = source.job.options.limit
    return source.n_rows if limit is None or source.n_rows is None else min(limit, source.n_rows)


def read_if_stdin(src: Any, options: InputOptions) -> Any:
    """Return a reader of stdin if the only path is ``-``; any other input unchanged, but iterators of paths as a list.

    Raises
    ------
    UsageError, DataError
        Stdin has no Arrow IPC stream.
    """
    if hasattr(src, "__arrow_c_stream__"):
        return src
    paths = paths_of(src)
    return read_stdin(options.memory_limit) if paths == [STREAM] else paths


def schema_of(src: Any, options: InputOptions) -> pa.Schema:
    """Return the schema of a table or of the first file, without opening the source; of other streams an empty one."""
    if hasattr(src, "__arrow_c_stream__"):
        schema = getattr(src, "schema", None)
        return schema if isinstance(schema, pa.Schema) else pa.schema([])
    first = find_files(paths_of(src), options.storage_options)[0]
    return open_file(first, options.storage_options).schema

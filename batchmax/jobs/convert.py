"""Converts logits to another layout and copies everything else. Uses the same loop as scoring."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from batchmax import __version__
from batchmax.columns.arrow import column_types, is_list, plain_type
from batchmax.columns.job import Job
from batchmax.columns.logits_column import LogitsColumn, OutputLayout
from batchmax.columns.matrices import read_matrix
from batchmax.columns.result_arrays import matrix_columns, matrix_fields
from batchmax.errors import DataError, UsageError
from batchmax.jobs.bad_row_policy import BadRows
from batchmax.jobs.part_writer import Recipe
from batchmax.jobs.pipeline import Result, tell_of
from batchmax.jobs.run import Run, open_outputs
from batchmax.options.parsing import check_type
from batchmax.options.score_options import Layout, ScoreOptions, resolve_options
from batchmax.outputs import LAST_BAD, Status
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import carried_columns
from batchmax.scoring.summary import ScoreSummary
from batchmax.scoring.tally import Tally
from batchmax.sinks.metadata import job_identity, output_codecs, output_schema, output_split
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import ParquetSource, open_source
from batchmax.sources.parts import Part
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.storage.output_paths import is_file_path
from batchmax.storage.paths import local_path

Array = np.ndarray[Any, Any]
LARGEST_EXACT = 2.0**53


def convert(
    src: Any,
    out: str | os.PathLike[str],
    layout: Layout,
    options: ScoreOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> ScoreSummary:
    """Write the inputs again with the logits in another layout.

    Parameters
    ----------
    src, out, options, given, progress
        See :func:`batchmax.score`. Only options for reading, for the output file and for bad rows have an effect.
    layout
        ``list``, ``fixed``, or ``wide``: one column per class, named ``logit_0`` and so on.

    Raises
    ------
    UsageError, DataError, OutputError
        See :func:`batchmax.score`.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow.parquet as pq
    >>> summary = batchmax.convert("data/digits.parquet", "wide.parquet", "wide")
    >>> pq.read_schema("wide.parquet").names
    ['id', 'label', 'logit_0', ...]
    """
    started = time.monotonic()
    options = resolve_options(options, given)
    check_type("layout", layout, Layout)
    # Values are copied, whether they are logits or probabilities.
    options = replace(options, outputs=(), label="none", input=options.input or "logits")
    out = local_path(os.fspath(out))
    source = open_source(src, options, mirrors=not is_file_path(out))
    if source.job.nesting is not None:
        raise UsageError(
            "the rows are sequences, and there is one way to lay these out", remedy="score takes them as they are"
        )
    commit = open_outputs(source, out, options)
    name = source.job.logits.names[0].split(".")[-1] if len(source.job.logits.names) == 1 else "logits"
    if layout == "wide":
        name = "logits"
    dtype = _stored_type(source.schema, source.job.logits)
    fields = matrix_fields(name, source.job.n_classes, layout, dtype, source.job.logits.suffixes)
    taken = sorted({field.name for field in fields} & set(source.job.carried.names))
    if taken:
        raise UsageError(
            f"the input has a column {taken[0]!r} already", where="--layout", remedy=f"--exclude {taken[0]}"
        )
    job = replace(source.job, computed=pa.schema(fields), dtype=dtype, layout=cast("OutputLayout", layout))
    work = _Conversion(source, job, name)
    progress = progress or Progress()
    tell_of(source, progress)
    schema = output_schema(job, source, "convert")
    commit.set_job(job_identity(source, schema, options))
    if options.if_exists == "resume":
        if not commit.main.job:
            raise UsageError(
                "a run over a stream can't be resumed", where="--if-exists", remedy="write it into a file first"
            )
        stored = commit.finished_summary(max(file.stat.modified_ns for file in source.files))
        if stored is not None:
            return ScoreSummary.stored(stored, [file.path for file in source.files])
    recipe = Recipe(
        source=source,
        schema=schema,
        codecs=output_codecs(job, source),
        split=output_split(job, source),
        plain=job.computed.names,
        columns=None if commit.rejects is not None else job.columns_read,
        progress=progress,
    )
    run = Run(recipe, commit)

    def summary() -> ScoreSummary:
        found = ScoreSummary(
            n_classes=job.n_classes,
            files=[file.path for file in source.files],
            bytes_read=source.size or 0,
            bytes_written=run.written,
            seconds=round(time.monotonic() - started, 3),
            unified=list(source.unified),
            notes=list(job.notes),
            version=__version__,
        )
        found.count(work.tally, has_hits=False)
        return found

    with run.building() as completed:
        if completed.decision is None:
            run.stream(work, lambda: {SUMMARY_KEY: summary().lasting()})
            result = summary()
            result.warnings[:0] = source.warnings  # not in the output: they name paths
        else:
            result = ScoreSummary.stored(completed.decision["summary"], [file.path for file in source.files])
        run.publish(result)
    return result


class _Conversion:
    """Converts a chunk: the same numbers in another layout."""

    def __init__(self, source: ParquetSource | StreamSource, job: Job, name: str) -> None:
        self.tally = Tally()
        self._job = job
        self._name = name
        self._bad_rows = BadRows(source, job)

    def __call__(self, chunk: Chunk, buffers: Buffers) -> Result:
        job = self._job
        matrix, known = chunk.logits, None
        if matrix is None:
            matrix, known = read_matrix(chunk.batch, job.logits, job.n_classes, buffers.take)
        status = np.full(len(matrix), Status.OK, np.uint8) if known is None else known
        self._bad_rows.refuse(chunk, status)
        self.tally.add(status)
        bad = status <= LAST_BAD
        columns = carried_columns(chunk.batch, job)
        columns += matrix_columns(
            self._name,
            _as_stored(matrix, job.dtype, chunk),
            job.layout,
            missing=bad if bad.any() else None,
            suffixes=job.logits.suffixes,
        )
        present = pa.schema([field for field, _ in columns])
        batch = pa.RecordBatch.from_arrays([array for _, array in columns], schema=present)
        return self._bad_rows.settle(chunk, batch, status)

    def begin(self, part: Part) -> None:
        """Start counting the rows of a part."""
        del part
        self.tally = Tally()

    def gather(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Set the counts to the sum over all parts."""
        self.tally = Tally.merged(map(Tally.restored, states))

    def state(self) -> dict[str, Any]:
        """Return the counts so far, or of the current part, as JSON values."""
        return self.tally.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a state."""
        self.tally = Tally.restored(state)


def _stored_type(schema: pa.Schema, logits: LogitsColumn) -> np.dtype[Any]:
    """Return the type of the numbers in the input; for raw bits and several types, the type that they are read as."""
    types = {_innermost(column_types(schema)[name]) for name in logits.names}
    if logits.bits is not None or len(types) > 1:
        return logits.dtype
    kind = types.pop()
    return np.dtype(kind.to_pandas_dtype()) if pa.types.is_integer(kind) or pa.types.is_float16(kind) else logits.dtype


def _innermost(kind: pa.DataType) -> pa.DataType:
    kind = plain_type(kind)
    return _innermost(kind.value_type) if is_list(kind) else kind


def _as_stored(matrix: Array, dtype: np.dtype[Any], chunk: Chunk) -> Array:
    if matrix.dtype == dtype:
        return matrix
    if dtype.kind in "iu" and dtype.itemsize == 8 and (np.abs(matrix) >= LARGEST_EXACT).any():
        raise DataError(
            "integers above 2**53 cannot be carried over", where=chunk.place(0), remedy="cast them to float64"
        )
    return matrix.astype(dtype)

"""Converts logits to another layout and copies everything else. The job is that of scoring, with another stage."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from batchmax.columns.arrow import column_types, is_list, plain_type
from batchmax.columns.logits_layout import LogitsColumn, OutputLayout
from batchmax.columns.matrices import read_matrix, without_first_class
from batchmax.columns.result_arrays import matrix_columns, matrix_fields
from batchmax.columns.scored_input import written_by_score
from batchmax.errors import DataError, UsageError
from batchmax.jobs.bad_row_policy import BadRowHandler
from batchmax.jobs.output_job import FileJob
from batchmax.jobs.stage import Result, Stage
from batchmax.options.parsing import check_type
from batchmax.options.score_options import ConvertOptions, Layout, ScoreOptions, resolve_options
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import carried_columns
from batchmax.scoring.summary import ScoreSummary
from batchmax.sources.chunks import Chunk
from batchmax.sources.parquet_source import Source
from batchmax.statuses import LAST_BAD, Status
from batchmax.storage.paths import local_path

Array = np.ndarray[Any, Any]
LARGEST_EXACT = 2.0**53


def convert(
    src: Any,
    out: str | os.PathLike[str],
    layout: Layout,
    options: ConvertOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> ScoreSummary:
    """Write the inputs again with the logits in another layout.

    Parameters
    ----------
    src, out, progress
        See :func:`batchmax.score`.
    layout
        ``list``, ``fixed``, or ``wide``: one column per class, named ``logit_0`` and so on.
    options, given
        Options for reading, for the output file and for bad rows: the attributes of
        :class:`batchmax.options.score_options.ConvertOptions`. Made by :func:`batchmax.score_options`, or passed
        directly.

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
    options = resolve_options(ConvertOptions, options, given)
    check_type("layout", layout, Layout)
    # Values are copied, whether they are logits or probabilities.
    fixed: dict[str, Any] = {"outputs": (), "label": "none", "input": options.input or "logits"}
    make_stage = functools.partial(ConvertStage, layout=layout)
    out = local_path(os.fspath(out))
    return FileJob(src, out, ScoreOptions(**(vars(options) | fixed)), progress or Progress(), make_stage).run()


class ConvertStage(Stage):
    """Converts chunks: the same numbers in another layout. Sets the output columns of the source's job."""

    command = "convert"

    def __init__(self, source: Source, progress: Progress, out: str, layout: Layout) -> None:
        job = source.job
        if job.nesting is not None:
            raise UsageError("sequences have only one layout", remedy="batchmax score reads them as they are")
        names = job.logits.names
        written = written_by_score(source.schema)
        if written is not None and written.output_of(names[0]) is not None:
            raise UsageError(
                f"column {names[0]!r} has probabilities that score computed; convert takes logits",
                remedy=f"score the logits with --layout {layout}",
            )
        self._name = "logits" if layout == "wide" or len(names) > 1 else names[0].split(".")[-1]
        dtype = _stored_type(source.schema, job.logits)
        fields = matrix_fields(self._name, job.n_logits, layout, dtype, job.logits.suffixes)
        taken = sorted({field.name for field in fields} & set(job.carried.names))
        if taken:
            raise UsageError(
                f"the input already has a column {taken[0]!r}", where="--layout", remedy=f"--exclude {taken[0]}"
            )
        source.job = replace(job, computed=pa.schema(fields), dtype=dtype, layout=cast("OutputLayout", layout))
        super().__init__(source, progress, out)
        self._bad_rows = BadRowHandler(job, source.schema)

    def compute(self, chunk: Chunk, buffers: Buffers) -> Result:
        """Convert a chunk, handle its bad rows, and count its rows."""
        job = self._source.job
        matrix, known = chunk.logits, None
        if matrix is None:
            matrix, known = read_matrix(chunk.batch, job.logits, job.n_classes, buffers.take)
        if job.logits.is_one_logit:
            matrix = without_first_class(matrix)
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
        return self._bad_rows.apply(chunk, Result(batch), status)


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
            "integers above 2**53 can't be converted exactly", where=chunk.place(0), remedy="cast them to float64"
        )
    return matrix.astype(dtype)

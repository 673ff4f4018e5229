"""The functions ``score``, ``scan`` and ``dry_run``.

Their keyword arguments have the names of the command-line options. :mod:`batchmax.jobs.output_job` runs the jobs, and
:mod:`batchmax.jobs.score_stage` scores their chunks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from batchmax.columns.job import Job
from batchmax.jobs.open_outputs import open_outputs
from batchmax.jobs.output_job import FileJob, score_to_stream
from batchmax.jobs.plan import Plan
from batchmax.jobs.score_stage import ScoreStage
from batchmax.jobs.threads import use_threads
from batchmax.options.parsing import refuse
from batchmax.options.score_options import ScoreOptions, resolve_options
from batchmax.runtime.buffers import PROGRAM_BYTES, Buffers
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.progress import Progress
from batchmax.scoring.summary import ScoreSummary
from batchmax.sinks.commit.resume import EarlierRun
from batchmax.sinks.metadata import job_identity, output_schema
from batchmax.sources.chunks import limited
from batchmax.sources.parquet_source import open_source
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.storage.output_paths import is_file_path
from batchmax.storage.paths import STREAM, local_path


def score(
    src: Any,
    out: str | os.PathLike[str],
    options: ScoreOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> ScoreSummary:
    """Score logits and write the rows with their probabilities and losses.

    Parameters
    ----------
    src
        One or several paths or URIs of files, folders and globs; ``-`` for an Arrow IPC stream on stdin; or an object
        with ``__arrow_c_stream__``.
    out
        The path or URI of a file, which ends in ``.parquet``, ``.pq`` or ``.parq``; that of a folder, which has another
        ending; or ``-`` for an Arrow IPC stream on stdout.
    options
        Made by :func:`batchmax.score_options`. Alternatively, pass its keyword arguments directly.
    progress
        Progress callbacks.

    Returns
    -------
    ScoreSummary
        The counts, the mean loss and other results of the job.

    Raises
    ------
    UsageError
        An option or a column is invalid.
    DataError
        An input can't be read, or a row is bad under the policy ``error``.
    OutputError
        The output exists, or can't be written.
    GateError
        The condition ``fail_if`` is true. The finished output is at ``OUT.held``; nothing is written if a count decided
        the condition before the last row. A stream lacks its end-of-stream marker.

    Examples
    --------
    >>> import batchmax
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet", outputs="probs,loss,pred")
    >>> summary.n_rows, round(summary.mean_loss, 3), round(summary.accuracy, 3)
    (899, 0.108, 0.966)
    """
    options, out = resolve_options(ScoreOptions, options, given), local_path(os.fspath(out))
    if out == STREAM:
        return score_to_stream(src, options, progress or Progress())
    return FileJob(src, out, options, progress or Progress()).run()


def scan(src: Any, options: ScoreOptions | None = None, **given: Any) -> pa.RecordBatchReader:
    """Return a reader that scores the rows as they are read.

    Parameters
    ----------
    src, options
        As for :func:`score`. ``rejects`` and ``fail_if`` are refused, because a reader has no place for rejected rows
        and no end at which a condition is checked.

    Returns
    -------
    pyarrow.RecordBatchReader
        A reader of record batches with the columns that ``score`` writes.

    Raises
    ------
    UsageError
        An option or a column is invalid.
    DataError
        An input can't be read, or a row is bad under the policy ``error``; errors about rows are raised when the rows
        are read.

    Examples
    --------
    >>> import batchmax
    >>> reader = batchmax.scan("data/digits.parquet", outputs="pred,loss")
    >>> reader.schema.names[-2:]
    ['pred', 'loss']
    >>> sum(batch.num_rows for batch in reader)
    899
    """
    options = resolve_options(ScoreOptions, options, given)
    refuse("scan doesn't support this", "leave it out, or use score", rejects=options.rejects, fail_if=options.fail_if)
    source = open_source(src, options)
    parts = plan_parts(source.group_rows(), source.row_bytes)
    stage = ScoreStage(source, Progress())

    def batches() -> Iterator[pa.RecordBatch]:
        # Each batch has its own memory, because the caller may keep it for any time.
        for chunk in limited(source.chunks(parts, ReadPlan(source.job.columns_read)), options.limit):
            with use_threads(options):
                result = stage(chunk, Buffers())
            yield result.batch

    return pa.RecordBatchReader.from_batches(output_schema(source.job, source), batches())


def dry_run(src: Any, out: str | os.PathLike[str], options: ScoreOptions) -> dict[str, Any]:
    """Return what :func:`score` would do: the parts, the columns, memory, the output's size and the free disk space."""
    out = local_path(os.fspath(out))
    source = open_source(src, options, mirrors=not is_file_path(out))
    job = source.job
    commit = open_outputs(source, out, options, can_stream=True)
    parts = plan_parts(source.group_rows(), source.row_bytes)
    plan = Plan.of(source).as_dict() if source.files else None
    rows = source.n_rows if options.limit is None or source.n_rows is None else min(source.n_rows, options.limit)
    commit.set_job(job_identity(source, output_schema(job, source), options))
    folder = next(path for path in commit.main.staging.path.absolute().parents if path.is_dir())
    can_resume = commit.main.job and options.if_exists == "resume"
    new_bytes = sum(_value_bytes(field.type, job) for field in job.computed)
    return {
        "inputs": [file.path for file in source.files],
        "unified": list(source.unified),
        "output": out,
        "n_rows": rows,
        "rows_done": EarlierRun(commit.main).rows_completed(rows or 0) if can_resume else 0,
        "n_classes": job.n_classes,
        "notes": list(job.notes),
        "warnings": list(source.warnings),
        "parts": [{"name": part.name, "rows": part.rows} for part in parts] if not commit.main.is_file else [],
        "schema": {field.name: str(field.type) for field in job.schema},
        "bytes_read": source.size,
        "bytes_written": None if rows is None else rows * new_bytes,
        "bytes_free": shutil.disk_usage(folder).free,
        "memory_needed": PROGRAM_BYTES + source.memory_needed(),
        "memory_limit": options.memory_limit,
        "threads": options.threads or usable_cores(),
        "plan": plan,
    }


def _value_bytes(kind: Any, job: Job) -> int:
    """Return the approximate number of bytes of a value of a computed column."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size * kind.value_type.bit_width // 8)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        count = job.options.top_k if kind.value_type in {pa.int32(), pa.string()} else job.n_classes
        return (count or job.n_classes) * _value_bytes(kind.value_type, job)
    if pa.types.is_dictionary(kind) or pa.types.is_boolean(kind):
        return 1
    return 4 if pa.types.is_string(kind) else int(kind.bit_width) // 8

"""Scores Ray datasets in Ray tasks: ``batchmax.ray.score(dataset)``. Experimental: any release may change it.

Each task gets a block as an Arrow table (``map_batches``) and returns it with the output columns. The driver plans the
job from the schema and the first row. This module handles Ray's tensors and resources;
``batchmax.jobs.engine_task`` scores the rows of a task. batchmax must be installed where the tasks run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import plan_scoring
from batchmax.columns.label_lists import FORMAT_ROWS
from batchmax.columns.matrices import first_row_length
from batchmax.errors import DataError, UsageError
from batchmax.jobs.engine_task import check_options, plan_tasks, score_batches
from batchmax.jobs.ray_executor import check_cpus
from batchmax.options.score_options import ScoreOptions, resolve_options
from batchmax.options.signatures import name_options
from batchmax.runtime.installation import missing_package

FIRST_ROWS = 10_000
"""Rows that are searched for the number of classes, if the first row doesn't show it."""


@name_options
def score(
    dataset: Any,
    options: ScoreOptions | None = None,
    *,
    num_cpus: float = 1,
    batch_size: int | None = None,
    concurrency: int | None = None,
    **given: Any,
) -> Any:
    """Return the dataset with the output columns added. Like all of Ray Data, the result is lazy.

    Experimental: any release may change it.

    The values are bit for bit those of :func:`batchmax.score`. Ray doesn't keep the order of rows unless
    ``DataContext.get_current().execution_options.preserve_order`` is set.

    Parameters
    ----------
    dataset
        A ``ray.data.Dataset``. Logits may also be one-dimensional Ray tensors, such as those of
        ``ray.data.from_numpy``; their probabilities are lists. Planning takes the first row, so Ray computes this row
        when the function is called; and the first 1,000 rows if labels are lists of integers and ``label_format`` isn't
        given.
    options
        Made by :func:`batchmax.score_options`. Alternatively, pass its keyword arguments directly. Options that need
        all rows or their numbers are refused: ``rejects``, ``fail_if``, ``limit`` and the output ``sample``.
    num_cpus
        The cores that each task reserves. Unless ``threads`` is given, it is also the number of its threads.
    batch_size
        The number of rows that a task gets at a time; None for a block. Either way, they are computed in small slices.
    concurrency
        The maximum number of concurrent tasks; None for as many as there are cores.

    Raises
    ------
    UsageError
        Ray isn't installed, an option or a column is invalid, or no node has or can have ``num_cpus`` CPUs.
    DataError
        The number of classes is unknown: ``n_classes`` isn't given, and none of the first 10,000 rows has logits.
    BadRowError
        A bad row, under the policy ``error``. It is raised when the dataset is used; the exception that Ray raises is
        also an instance of ``BadRowError``.

    Examples
    --------
    >>> import batchmax
    >>> import ray.data
    >>> dataset = ray.data.read_parquet("data/digits.parquet")
    >>> batchmax.ray.score(dataset, outputs="pred,loss").mean("loss")
    0.10844...
    """
    options = resolve_options(ScoreOptions, options, given)
    _check_installed()
    if not hasattr(dataset, "map_batches"):
        raise UsageError(
            f"batchmax.ray.score takes a ray.data.Dataset, not a {type(dataset).__name__}",
            remedy="make one with ray.data.read_parquet or ray.data.from_arrow",
        )
    if not num_cpus > 0:
        raise UsageError(f"num_cpus is {num_cpus:g}", remedy="give at least a part of a core")
    check_options(options)
    check_cpus(num_cpus, where="num_cpus")
    first = _first_rows(dataset, options)
    job = plan_tasks(first.schema, options, first)
    if job.is_undecided:
        job = job.with_label_format(_first_labels(dataset, first.schema, options))
    return dataset.map_batches(
        score_block,
        fn_kwargs={
            "schema": first.schema,
            "options": job.options,
            "threads": options.threads or math.ceil(num_cpus),
        },
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        num_cpus=num_cpus,
        concurrency=concurrency,
        udf_modifying_row_count=options.on_bad_row == "drop",
    )


def score_block(block: pa.Table, schema: pa.Schema, options: ScoreOptions, threads: int) -> Iterator[pa.Table]:
    """Yield a block with the output columns added, in slices: the function that Ray tasks call.

    ``schema`` is the one that the driver saw. The task plans the job again from its block, so that carried columns are
    returned with the types of the block.
    """
    batches = _batches(block, schema, options)
    job = plan_scoring(batches[0].schema, options)
    for scored in score_batches(batches, job, threads):
        yield pa.Table.from_batches([scored])


def _check_installed() -> None:
    try:
        import ray.data  # noqa: F401 - the module can be imported without Ray
    except ImportError as error:
        raise missing_package("Ray", "ray") from error


def _first_rows(dataset: Any, options: ScoreOptions) -> pa.RecordBatch:
    """Return the first row, or more rows if it doesn't determine the column types and the number of classes."""
    table = None
    for n_rows in (1, FIRST_ROWS):
        batches = dataset.limit(n_rows).iter_batches(batch_size=n_rows, batch_format="pyarrow", prefetch_batches=0)
        table = next(iter(batches), None)
        if table is None or _is_sufficient(table, options):
            break
    if table is not None:
        return _batches(table.combine_chunks(), table.schema, options)[0]
    schema = getattr(dataset.schema(), "base_schema", None)
    if not isinstance(schema, pa.Schema):
        raise DataError("the dataset has no rows, and its columns are not known", remedy="give it rows")
    return _batches(schema.empty_table(), schema, options)[0]


def _first_labels(dataset: Any, schema: pa.Schema, options: ScoreOptions) -> pa.RecordBatch | None:
    """Return the first rows, which decide what lists of integers contain; None if there are none."""
    batches = dataset.limit(FORMAT_ROWS).iter_batches(batch_size=FORMAT_ROWS, batch_format="pyarrow")
    table = next(iter(batches), None)
    return None if table is None else _batches(table.combine_chunks(), schema, options)[0]


def _is_sufficient(table: pa.Table, options: ScoreOptions) -> bool:
    """Return whether the rows determine the column types and the number of classes."""
    if any(pa.types.is_null(field.type) for field in table.schema):
        return False
    batch = _batches(table.combine_chunks(), table.schema, options)[0]
    return bool(options.n_classes or first_row_length(batch, find_logits(batch.schema, options)))


def _batches(block: pa.Table, schema: pa.Schema, options: ScoreOptions) -> list[pa.RecordBatch]:
    """Return a block as one or more batches whose logits are lists."""
    for position, field in enumerate(block.schema):
        # A block with only nulls in a column doesn't know the type that the column has in other blocks.
        if pa.types.is_null(field.type) and field.name in schema.names:
            known = schema.field(field.name)
            block = block.set_column(position, known, block.column(position).cast(known.type))
    name = find_logits(block.schema, options).names[0]
    position = block.schema.get_field_index(name)
    if position >= 0 and _is_tensor(block.schema.field(position).type):
        kind = _list_type(block.schema, name)
        lists = pa.chunked_array([_lists(chunk, kind) for chunk in block.column(position).chunks], kind)
        block = block.set_column(position, name, lists)
    empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in block.schema], schema=block.schema)
    return block.to_batches() or [empty]


def _is_tensor(kind: pa.DataType) -> bool:
    """Return whether a type is one of Ray's tensors; :mod:`batchmax.columns` handles Arrow's own tensors."""
    return isinstance(kind, pa.BaseExtensionType) and str(kind.extension_name).startswith("ray.data.")


def _list_type(schema: pa.Schema, name: str) -> pa.DataType:
    """Return the list type for a column of one-dimensional tensors.

    It isn't a fixed-size list: the type of a block has the length of its rows, which differs in blocks of bad rows.
    """
    kind: Any = schema.field(name).type
    is_ragged = pa.types.is_struct(kind.storage_type)
    n_dimensions = kind.ndim if is_ragged else len(kind.shape)
    if n_dimensions != 1:
        raise UsageError(
            f"column {name!r} holds tensors of {n_dimensions} dimensions, several rows of numbers in one",
            where="--logits",
            remedy="make each of them rows of the dataset, with dataset.flat_map",
        )
    return pa.list_((kind.storage_type.field("data").type if is_ragged else kind.storage_type).value_type)


def _lists(tensors: Any, kind: pa.DataType) -> pa.Array:
    storage = tensors.storage
    return (pc.struct_field(storage, "data") if pa.types.is_struct(storage.type) else storage).cast(kind)

"""Scores Spark data frames in Spark tasks: ``batchmax.spark.score(df)``. Experimental: any release may change it.

Each task gets its rows as Arrow batches (``mapInArrow``) and returns them with the output columns. The driver plans the
job from the schema, so that the columns of the result are known before anything runs. This module handles Spark's types
and settings; ``batchmax.jobs.engine_task`` scores the batches of a task. batchmax must be installed where the tasks
run.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from batchmax.columns.arrow import column_path
from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import Job, plan_scoring
from batchmax.columns.label_lists import FORMAT_ROWS, first_rows_of
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.errors import UsageError
from batchmax.jobs.engine_task import check_options, plan_tasks, score_batches
from batchmax.options.score_options import ScoreOptions, resolve_options
from batchmax.options.signatures import name_options
from batchmax.runtime.installation import missing_package

MOST_BATCH_BYTES = 256 << 20
"""Arrow batches with more logits cause a warning: the JVM and Python each hold one per core."""

BYTES_SETTING = "spark.sql.execution.arrow.maxBytesPerBatch"
ROWS_SETTING = "spark.sql.execution.arrow.maxRecordsPerBatch"


@name_options
def score(df: Any, options: ScoreOptions | None = None, **given: Any) -> Any:
    """Return the data frame with the output columns added. Like all of Spark, the result is lazy.

    Experimental: any release may change it.

    The values are bit for bit those of :func:`batchmax.score`, and rows and partitions keep their order. Each task uses
    as many threads as it has cores (``spark.task.cpus``), unless ``threads`` is given. Compiled kernels are cached on
    each machine in ``$BATCHMAX_CACHE_DIR`` and loaded once for each Python process. Set
    ``spark.executorEnv.BATCHMAX_CACHE_DIR`` to a folder that the executors can write to.

    Parameters
    ----------
    df
        A ``pyspark.sql.DataFrame``. Logits are an array, vectors of Spark ML (dense or sparse, converted to arrays of
        doubles), binary, or one column per class. For all but the last, unless ``n_classes`` is given, a Spark action
        finds the first row that has logits. Another takes the first 1,000 labels if they are lists of integers and
        ``label_format`` isn't given.
    options
        Made by :func:`batchmax.score_options`. Alternatively, pass its keyword arguments directly. Options that need
        all rows or their numbers are refused: ``rejects``, ``fail_if``, ``limit`` and the output ``sample``. The layout
        ``fixed`` and the type ``float16`` are refused because Spark has no such types.

    Raises
    ------
    UsageError
        pyspark isn't installed, or an option or a column is invalid.
    DataError
        No row has logits, and ``n_classes`` isn't given. (Under the policy ``error``, a bad row raises ``BadRowError``
        in the task when the data frame is used. Spark wraps it in a ``PythonException`` with its message.)

    Warns
    -----
    UserWarning
        Spark's settings allow Arrow batches of more than 256 MiB of logits.

    Examples
    --------
    >>> import batchmax
    >>> from pyspark.sql import SparkSession
    >>> spark = SparkSession.builder.getOrCreate()
    >>> df = spark.read.parquet("data/digits.parquet")
    >>> batchmax.spark.score(df, outputs="pred,loss").agg({"loss": "avg"}).first()[0]
    0.10844...
    """
    options = resolve_options(ScoreOptions, options, given)
    _check_installed()
    if not hasattr(df, "mapInArrow"):
        raise UsageError(
            f"batchmax.spark.score takes a pyspark.sql.DataFrame, not a {type(df).__name__}",
            remedy="make one with spark.read.parquet or spark.createDataFrame",
        )
    check_options(options)
    _check_types(options)
    df = _without_vectors(df, options)
    schema = _arrow_schema(df.schema)
    found = find_logits(schema, options)
    job = plan_tasks(schema, options, None if found.n_classes else _first_rows(df, found))
    if job.is_undecided:
        job = job.with_label_format(_first_labels(df, job.label_columns))
    _warn_of_large_batches(df, job)
    names, output = df.columns, _spark_schema(df.schema, job)
    if any(character in name for name in names for character in ".`"):
        # mapInArrow can't handle such column names; the tasks restore them.
        df = df.toDF(*(f"column_{number}" for number in range(len(names))))
    return df.mapInArrow(_task(job.options, names), output)


def _check_installed() -> None:
    try:
        import pyspark  # noqa: F401 - the module can be imported without Spark
    except ImportError as error:
        raise missing_package("pyspark", "spark") from error


def _check_types(options: ScoreOptions) -> None:
    if options.layout == "fixed":
        raise UsageError("Spark has no lists of fixed size", where="--layout", remedy="give list or wide")
    if options.dtype == "float16":
        raise UsageError("Spark has no float16", where="--dtype", remedy="give float32")


def _task(options: ScoreOptions, names: list[str]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that Spark sends to the executors and calls with the batches of a task.

    ``names`` are the column names that the batches get.
    """

    def score_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        named = (batch.rename_columns(names) for batch in batches)
        first = next(named, None)
        if first is None:
            return
        task: Any = TaskContext.get()
        # The job is planned from the types that Spark sends, so that carried columns are returned unchanged.
        job = plan_scoring(first.schema, options)
        threads = options.threads or task.cpus()
        for scored in score_batches(chain([first], named), job, threads, f"partition {task.partitionId()}"):
            yield _without_dictionaries(scored)

    return score_partition


def _without_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with plain strings in place of dictionaries, which Spark can't read."""
    return batch.cast(pa.schema([field.with_type(_decoded(field.type)) for field in batch.schema]))


def _without_vectors(df: Any, options: ScoreOptions) -> Any:
    """Return the data frame with Spark ML vectors of logits, dense or sparse, converted to arrays."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql.functions import when

    found = find_logits(_arrow_schema(df.schema), options)
    name = found.names[0]
    if found.layout != "spark" or name not in df.columns:
        return df
    vectors = _column(df.schema, name)
    # vector_to_array doesn't accept null.
    return df.withColumn(name, when(vectors.isNotNull(), vector_to_array(vectors)))


def _first_rows(df: Any, found: LogitsColumn) -> pa.RecordBatch | None:
    """Return the first row that has logits, with the column names of the data frame; None if there is no such row."""
    from pyspark.sql.functions import length, size

    if df.isStreaming:
        raise UsageError(
            "the rows of a stream aren't known before it runs, so the number of classes is unknown",
            remedy="give n_classes",
        )
    name = found.names[0]
    rows = _column(df.schema, name)
    measure = length if found.layout == "binary" else size
    top = next(field for field in df.columns if name == field or name.startswith(f"{field}."))
    batches = df.where(measure(rows) > 0).select(_quoted(top)).limit(1).toArrow().to_batches()
    return batches[0] if batches else None


def _first_labels(df: Any, names: Sequence[str]) -> pa.RecordBatch | None:
    """Return the labels of the first rows, which decide what lists of integers contain; None if there are none."""
    if df.isStreaming:
        raise UsageError(
            "the rows of a stream aren't known before it runs, so the lists of labels can be K-hot or class indices",
            where="--label-format",
            remedy="give label_format",
        )
    tops = [field for field in df.columns if any(name == field or name.startswith(f"{field}.") for name in names)]
    return first_rows_of(df.select(*map(_quoted, tops)).limit(FORMAT_ROWS).toArrow().to_batches(), names)


def _column(schema: Any, name: str) -> Any:
    """Return a column by its name, dotted if nested; the name may have any characters."""
    from pyspark.sql.functions import col

    first, *inner = column_path(_arrow_schema(schema), name)
    field = schema[first]
    column = col(_quoted(field.name))
    for position in inner:
        field = field.dataType[position]
        column = column.getField(field.name)
    return column


def _decoded(kind: pa.DataType) -> pa.DataType:
    """Return a type without a dictionary, because Spark doesn't accept them."""
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_decoded(kind.value_type)))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _arrow_schema(schema: Any) -> pa.Schema:
    """Return the Arrow schema that the tasks get for a Spark schema, converted by pyspark."""
    from pyspark.sql.pandas.types import to_arrow_schema

    # Only later releases of pyspark have this parameter. Any time zone will do here.
    has_zone = "timezone" in inspect.signature(to_arrow_schema).parameters
    return to_arrow_schema(schema, timezone="UTC") if has_zone else to_arrow_schema(schema)


def _spark_schema(schema: Any, job: Job) -> Any:
    """Return the output schema: the carried fields unchanged, then the computed ones."""
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import StructField, StructType

    carried = [_kept(schema[field.name], field.type) for field in job.carried]
    computed = (StructField(field.name, from_arrow_type(field.type), True) for field in job.computed)
    return StructType([*carried, *computed])


def _kept(field: Any, kind: pa.DataType) -> Any:
    """Return a Spark field without the children that its Arrow type lacks: logits in a struct."""
    from pyspark.sql.types import StructField, StructType

    if not isinstance(field.dataType, StructType):
        return field
    inner = StructType([_kept(field.dataType[child.name], child.type) for child in kind])
    return StructField(field.name, inner, field.nullable, field.metadata)


def _warn_of_large_batches(df: Any, job: Job) -> None:
    """Warn if Spark will make very large Arrow batches. Its settings belong to the user, so they aren't changed."""
    expected = min(_setting(df, BYTES_SETTING), _setting(df, ROWS_SETTING) * job.row_bytes)
    if expected > MOST_BATCH_BYTES:
        warnings.warn(
            f"Spark will send up to {expected / 2**20:,.0f} MiB of logits at once to each task; smaller: "
            f'spark.conf.set("{BYTES_SETTING}", {MOST_BATCH_BYTES // 4})',
            UserWarning,
            stacklevel=3,
        )


def _setting(df: Any, name: str) -> float:
    """Return a count or a size from Spark's settings; infinity if it is unlimited or unknown to the Spark release."""
    from pyspark.errors import PySparkException

    try:
        found = re.fullmatch(r"([0-9]+)([kmgtp]?)b?", df.sparkSession.conf.get(name).lower())
    except PySparkException:
        return math.inf
    # A negative number means no limit as well, and doesn't match.
    return math.inf if found is None else int(found[1]) * 1024 ** " kmgtp".index(found[2] or " ") or math.inf

"""Several files as one: whether they have the same columns and classes."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import pyarrow as pa

from batchmax.columns import LogitsColumn, find_logits
from batchmax.errors import DataError
from batchmax.job import Job
from batchmax.labels import find_classes
from batchmax.options import ScoreOptions
from batchmax.parquet_files import InputFile, about, arrow_schema


def check_agreement(
    files: Sequence[InputFile],
    schema: pa.Schema,
    job: Job,
    options: ScoreOptions,
    own: Collection[str],
    first_length: Callable[[InputFile, LogitsColumn], int | None],
) -> None:
    """Check that the files after the first have its columns, and as many classes.

    Parameters
    ----------
    files, schema
        All files, and the columns that they are read with.
    job, options
        What is computed of them, and as it was asked for.
    own
        Columns that are not in the files.
    first_length
        Returns the length of the first row of logits of a file.

    Raises
    ------
    DataError
        Naming the file.
    """
    read = schema.names if options.rejects is not None else job.columns_read
    first = {field.name: field.type for field in schema}
    needed = dict.fromkeys(name if name in first else name.split(".")[0] for name in read)
    for name in own:
        needed.pop(name, None)
    for file in files[1:]:
        here_schema = arrow_schema(file)
        counts = Counter(here_schema.names)
        types = {field.name: field.type for field in here_schema}
        for name in needed:
            if counts[name] > 1:
                raise DataError(f"there are two columns {name!r}", where=file.path, remedy="rename one of the two")
            here, there = types.get(name), first.get(name)
            if here is not None and there is not None and _reads_as(here, there):
                continue
            what = f"column {name!r} is {here}" if here is not None else f"there is no column {name!r}"
            raise DataError(
                f"{what}, but it is {there} in {files[0].path}",
                where=file.path,
                remedy=f"leave the column out: --exclude {shlex.quote(name)}, or name those to carry: --columns A,B"
                if name in job.carried.names and (job.label is None or name != job.label.name)
                else "score the files one by one",
            )
        _check_classes(file, here_schema, files[0].path, job, options, first_length)


def _check_classes(
    file: InputFile,
    schema: pa.Schema,
    first: str,
    job: Job,
    options: ScoreOptions,
    first_length: Callable[[InputFile, LogitsColumn], int | None],
) -> None:
    """Check that a file after the first has as many classes, under the same names."""
    with about(file.path):
        column = find_logits(schema, options)
        classes, _ = find_classes(schema, options, column)
    if column.names != job.logits.names:
        raise DataError(
            f"the logits are {column.why}, but {job.logits.why} in {first}",
            where=file.path,
            remedy="score the files one by one",
        )
    length = column.n_classes or first_length(file, column)
    if length not in {None, job.n_classes}:
        raise DataError(
            f"{length:,} classes, but {job.n_classes:,} in {first}",
            where=file.path,
            remedy="score the files one by one",
        )
    if classes is not None and classes != job.classes:
        raise DataError(
            f"the classes have other names than in {first}",
            where=file.path,
            remedy="score the files one by one, or give the names with --classes",
        )


def with_nulls(schema: pa.Schema, others: Iterable[pa.Schema]) -> pa.Schema:
    """Return a schema in which a column that may have nulls in one of the others may have them."""
    nullable = {field.name for other in others for field in other if field.nullable}
    for number, field in enumerate(schema):
        if not field.nullable and field.name in nullable:
            schema = schema.set(number, field.with_nullable(True))
    return schema


def _reads_as(here: pa.DataType, there: pa.DataType) -> bool:
    """Return whether two types differ in nothing but what their children are called, or whether those may be null."""
    return _plain_text(here) == _plain_text(there)


def _plain_text(kind: pa.DataType) -> str:
    return re.sub(r"<(?:element|item|array_element|array): ", "<", str(kind).replace(" not null", ""))

"""Checks that several files can be read as one, and describes in which columns they differ.

Every file must have the logits and labels, and the same number of classes. Carried columns may be missing or have
different types, as :mod:`batchmax.sources.schemas.file_columns` allows.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batchmax.columns.arrow import column_types, type_text
from batchmax.columns.class_names import find_classes
from batchmax.columns.find_logits import find_logits
from batchmax.columns.job import Job
from batchmax.columns.label_column import LABEL_SETS
from batchmax.columns.logits_layout import INPUT_TEXTS, LogitsColumn
from batchmax.columns.scored_input import as_written
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions, binary_options
from batchmax.runtime.text import quantity
from batchmax.sources.parquet_file import InputFile
from batchmax.sources.read_errors import schema_errors
from batchmax.sources.schemas.file_columns import MergedSchema

ONE_BY_ONE = "score the files one by one"
MAX_LISTED = 10
"""Maximum number of differing columns with a line of their own in the notes."""

FirstLength = Callable[[InputFile, LogitsColumn], int | None]
"""A function that returns the length of the first row of logits of a file."""


def logits_in_file(schema: pa.Schema, column: LogitsColumn, options: ScoreOptions) -> LogitsColumn | None:
    """Return the column of logits as one file has it; None if the file lacks some or all of its columns."""
    types = column_types(schema)
    if any(name not in types for name in column.names):
        return None
    if column.layout == "wide":
        return column
    return find_logits(schema, replace(options, logits=column.names[0]))


def check_agreement(
    files: Sequence[InputFile],
    schemas: Sequence[pa.Schema],
    union: MergedSchema,
    job: Job,
    options: ScoreOptions,
    folder_columns: Collection[str],
    first: FirstLength,
) -> None:
    """Check that all files agree in the columns that are read.

    Parameters
    ----------
    files, schemas, union
        All files, the schema of each with its metadata, and the merged columns.
    job, options
        The job, and the options that it was planned from.
    folder_columns
        Names of columns that aren't stored in the files.
    first
        Returns the length of the first row of logits of a file.

    Raises
    ------
    UsageError
        Files disagree, or a file lacks a column; the error names the file, and the one that it differs from.
    """
    needed = [name for name in _needed(union.schema, job, options) if name not in folder_columns]
    for name in needed:
        if name in union.conflicts:
            conflict = union.conflicts[name]
            kinds = type_text(conflict.other_kind), type_text(conflict.kind)
            raise UsageError(
                f"column {name!r} is {kinds[0]}, but {kinds[1]} in {conflict.file}, and the types have no common type",
                where=conflict.other_file,
                remedy=_remedy(name, job),
            )
    _check_presence(files, job)
    # Files with the same columns and the same relevant metadata are checked once: there may be thousands.
    columns: dict[tuple[int, bytes | None, bytes | None], LogitsColumn] = {}
    for file, schema in zip(files, schemas, strict=True):
        metadata = schema.metadata or {}
        key = id(file.schema), metadata.get(b"huggingface"), metadata.get(b"batchmax")
        if key not in columns:
            columns[key] = _check_columns(file, schema, files[0].path, job, options, needed)
        column = columns[key]
        known = None if column.n_classes is None else column.width(column.n_classes)
        length = job.n_logits if file is files[0] else known or first(file, column)
        if length not in {None, job.n_logits}:
            what = f"{quantity(length, 'class')}, but {job.n_logits:,} in {files[0].path}"
            raise UsageError(what, where=file.path, remedy=ONE_BY_ONE)


def describe_differences(differences: Sequence[Mapping[str, Any]], n_files: int) -> list[str]:
    """Return lines of text that describe columns that differ between files."""
    lines = []
    for one in differences[:MAX_LISTED]:
        types, missing = one["types"], one["missing"]
        kinds = ", ".join(f"{name} in {count:,}" for name, count in types.items())
        text = f"column {one['column']!r}: read as {one['type']}" + (
            f" ({kinds})" if set(types) != {one["type"]} else ""
        )
        lines.append(text + (f", null in the {missing:,} of {n_files:,} files without it" if missing else ""))
    if len(differences) > MAX_LISTED:
        lines.append(
            f"and {quantity(len(differences) - MAX_LISTED, 'more column that differs', 'more columns that differ')} "
            "between files; --json lists all"
        )
    return lines


def _needed(schema: pa.Schema, job: Job, options: ScoreOptions) -> list[str]:
    """Return the names of the columns that are read; of nested ones, the name of the top-level column."""
    read = schema.names if options.rejects is not None else job.columns_read
    names = set(schema.names)
    return list(dict.fromkeys(name if name in names else name.split(".")[0] for name in read))


def _check_presence(files: Sequence[InputFile], job: Job) -> None:
    """Check that every file has the columns of logits, labels and ``--bytes``."""
    wanted = dict.fromkeys(job.logits.names, "logits")
    if job.label is not None:
        wanted |= dict.fromkeys(job.label.names, "label")
    if job.options.bytes is not None:
        wanted[job.options.bytes] = "bytes"
    types = {id(file.schema): column_types(file.schema) for file in files}
    for name, role in wanted.items():
        having = next((file.path for file in files if name in types[id(file.schema)]), "")
        for file in files:
            if name not in types[id(file.schema)]:
                without = ", or use no labels: --label none" if role == "label" else ""
                raise UsageError(
                    f"there is no column {name!r}, the {role} column of {having}",
                    where=file.path,
                    remedy=f"leave the file out, add the column, or choose another: --{role}{without}",
                )


def _check_columns(
    file: InputFile, schema: pa.Schema, first_path: str, job: Job, options: ScoreOptions, needed: Collection[str]
) -> LogitsColumn:
    """Check that a file's columns mean the same as those of the first file, and return its logits."""
    counts = Counter(schema.names)
    for name in needed:
        if counts[name] > 1:
            raise UsageError(f"there are two columns {name!r}", where=file.path, remedy="rename one of the two")
    with schema_errors(file.path):
        column = logits_in_file(file.schema, job.logits, options)
        assert column is not None  # noqa: S101 - _check_presence was called
        classes, _ = find_classes(schema, options, job.logits)
        # Raises if the probabilities aren't a distribution.
        written = as_written(schema, options)
        activation = (binary_options(written) if job.logits.is_one_logit else written).activation_name
        holds = find_logits(schema, replace(options, logits=job.logits.names[0], n_classes=None)).holds
    by_labels = job.label is not None and job.label.kind in LABEL_SETS
    if activation != job.options.activation_name and not by_labels:
        raise UsageError(
            f"the activation is {activation}, but {job.options.activation_name} in {first_path}",
            where=file.path,
            remedy=f"{ONE_BY_ONE}, or state the content: --logits NAME --input logits",
        )
    if holds != job.logits.holds:
        raise UsageError(
            f"the logits column holds {INPUT_TEXTS[holds]}, but {INPUT_TEXTS[job.logits.holds]} in {first_path}",
            where=file.path,
            remedy=f"{ONE_BY_ONE}, or state the content: --input probs, log_probs or logits",
        )
    if file.path != first_path and classes is not None and classes != job.classes:
        what = "the class names differ from those in" if job.classes else "the classes have names, but not in"
        raise UsageError(
            f"{what} {first_path}", where=file.path, remedy=f"{ONE_BY_ONE}, or give the names: --classes A,B,C"
        )
    return column


def _remedy(name: str, job: Job) -> str:
    if job.can_exclude(name):
        return f"leave the column out: --exclude {shlex.quote(name)}, or write it with one type"
    return f"write it with one type, or {ONE_BY_ONE}"

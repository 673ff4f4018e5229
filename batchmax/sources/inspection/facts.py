"""Facts that ``inspect`` reports about Parquet files: sizes, columns, encodings, the columns of logits and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.columns.arrow import type_text
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.errors import BatchmaxError, DataError
from batchmax.options.score_options import score_options
from batchmax.parquet import FooterError, ThriftError
from batchmax.parquet.format import CODEC_NAMES, ENCODING_NAMES
from batchmax.parquet.thrift import Struct
from batchmax.parquet.writing.column_chunk import (
    CODEC,
    COMPRESSED_BYTES,
    DICTIONARY_AT,
    ENCODINGS,
    METADATA,
    NULL_COUNT,
    OFFSET_INDEX,
    STATISTICS,
    UNCOMPRESSED_BYTES,
)
from batchmax.runtime.arrow_errors import PARSING
from batchmax.sources.inspection.suggested_command import suggest
from batchmax.sources.parquet_file import open_file
from batchmax.sources.read_errors import DAMAGED
from batchmax.storage.input_files import find_files

Facts = dict[str, Any]
"""Facts about a file by name, serializable as JSON."""


class _Leaf(NamedTuple):
    """A leaf column of a file. ``is_field`` is whether it is in a struct, and not a column with a dot in its name."""

    name: str
    path: str
    is_field: bool
    type: str
    levels: str
    chunks: list[Struct]


def inspect_files(inputs: Sequence[str], given: dict[str, Any]) -> Facts:
    """Return the facts about one or more files together, serializable as JSON.

    Raises
    ------
    DataError
        No file is found, or a file can't be read.
    UsageError
        No input is given, or an option is invalid.
    """
    options = score_options(**given)
    paths = find_files(inputs, options.storage_options)
    # Storage options may contain secrets.
    typed = {name: value for name, value in given.items() if name != "storage_options"}
    suggestion = suggest(list(inputs), options, typed)
    job, problem = suggestion.job, suggestion.problem
    logits, label = (None, None) if job is None else (job.logits, job.label)
    files = [_facts_of(path, options.storage_options, problem) for path in paths]
    groups = [group for file in files for group in file["row_groups"]]
    columns = _columns([leaf for file in files for leaf in file["leaves"]])
    return {
        "file": ", ".join(inputs),
        "files": paths,
        "bytes": sum(column["bytes"] for column in columns),
        "n_rows": sum(file["n_rows"] for file in files),
        "created_by": ", ".join(_each_once(file["created_by"] for file in files)) or None,
        "format_version": ", ".join(_each_once(file["format_version"] for file in files)),
        "row_groups": _row_groups(groups),
        "columns": columns,
        "metadata_keys": _each_once(key for file in files for key in file["metadata_keys"]),
        "unified": list(suggestion.unified),
        "logits": None if logits is None else _logits(logits),
        "n_classes": None if job is None else job.n_classes,
        "label": None if label is None else {"column": label.name, "why": label.why},
        "classes": None if job is None or job.classes is None else list(job.classes),
        "problem": None if problem is None else str(problem),
        "task": suggestion.task or None,
        "command": suggestion.command or None,
    }


def _logits(logits: LogitsColumn) -> Facts:
    return {"columns": list(logits.names), "layout": logits.layout, "why": logits.why, "holds": logits.holds}


def _facts_of(path: str, storage: Sequence[str], problem: BatchmaxError | None) -> Facts:
    """Return the facts about one file; ``problem`` is an error found earlier, raised in place of this file's own."""
    try:
        file = open_file(path, storage)
        footer, stored = file.metadata, file.footer
    except DataError as error:
        raise problem or error from error
    try:
        # pyarrow's metadata of row groups and columns abort the process if a damaged footer is inconsistent.
        groups = map(stored.row_group, range(stored.n_row_groups))
        chunks = [[group.chunk(leaf) for leaf in range(group.n_columns)] for group in groups]
        fields = footer.schema.to_arrow_schema()
        if len(fields) != len(stored.columns) or any(footer.num_columns != len(group) for group in chunks):
            raise problem or _unreadable(path)
        tops = [field for field, column in zip(fields, stored.columns, strict=True) for _ in column.leaves]
        leaves = _leaves(footer, tops, chunks)
    except (*PARSING, FooterError, ThriftError, UnicodeDecodeError) as error:  # the last: a name isn't UTF-8
        raise problem or _unreadable(path) from error
    return {
        "n_rows": footer.num_rows,
        "created_by": _created_by(footer),
        "format_version": footer.format_version,
        "row_groups": [footer.row_group(position) for position in range(footer.num_row_groups)],
        "leaves": leaves,
        "metadata_keys": [key.decode("utf-8", "backslashreplace") for key in footer.metadata or {}],
    }


def _each_once(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _created_by(footer: pq.FileMetaData) -> str | None:
    try:
        return str(footer.created_by)
    except UnicodeDecodeError:
        return None


def _unreadable(file: str) -> DataError:
    return DataError("the footer cannot be read", where=file, remedy=DAMAGED)


def _row_groups(groups: Sequence[pq.RowGroupMetaData]) -> Facts:
    rows = [group.num_rows for group in groups]
    sizes = [group.total_byte_size for group in groups]
    return {
        "count": len(groups),
        "rows": {"smallest": min(rows, default=None), "largest": max(rows, default=None)},
        "uncompressed_bytes": {"smallest": min(sizes, default=None), "largest": max(sizes, default=None)},
    }


def _leaves(footer: pq.FileMetaData, tops: list[pa.Field], groups: list[list[Struct]]) -> list[_Leaf]:
    """Return the leaf columns of a file; ``tops`` has the column that each leaf is in."""
    leaves = []
    for position, own in enumerate(tops):
        leaf = footer.schema.column(position)
        # The path up to a dot isn't the name of the column: names may contain dots.
        is_field = pa.types.is_struct(own.type)
        leaves.append(
            _Leaf(
                name=leaf.path if is_field else own.name,
                path=leaf.path,
                is_field=is_field,
                type=type_text(own.type),
                levels=f"{leaf.max_definition_level}/{leaf.max_repetition_level}",
                chunks=[group[position] for group in groups],
            )
        )
    return leaves


def _columns(leaves: Sequence[_Leaf]) -> list[Facts]:
    """Return the facts about the leaf columns of all files, over their chunks, in the order of first occurrence."""
    found: dict[tuple[str, str, bool], list[_Leaf]] = {}
    for leaf in leaves:
        found.setdefault((leaf.name, leaf.path, leaf.is_field), []).append(leaf)
    columns = []
    for (name, path, _), same in found.items():
        chunks = [chunk for leaf in same for chunk in leaf.chunks]
        # Encrypted columns have no metadata.
        known: list[Struct] = [chunk[METADATA].value for chunk in chunks if METADATA in chunk]
        encodings = {number for chunk in known for number in chunk[ENCODINGS].value.values}
        compressed = sum(chunk[COMPRESSED_BYTES].value for chunk in known)
        uncompressed = sum(chunk[UNCOMPRESSED_BYTES].value for chunk in known)
        columns.append(
            {
                "name": name,
                "path": path,
                "type": ", ".join(_each_once(leaf.type for leaf in same)),
                "bytes": compressed,
                "unpacked_bytes": uncompressed,
                "ratio": uncompressed / compressed if compressed else None,
                "codecs": sorted({CODEC_NAMES.get(chunk[CODEC].value, "UNKNOWN") for chunk in known}),
                "encodings": sorted({ENCODING_NAMES.get(number, "UNKNOWN") for number in encodings}),
                "has_dictionary": any(DICTIONARY_AT in chunk for chunk in known),
                "has_page_index": any(OFFSET_INDEX in chunk for chunk in chunks),
                "levels": ", ".join(_each_once(leaf.levels for leaf in same)),
                "nulls": _nulls(known),
            }
        )
    return columns


def _nulls(chunks: list[Struct]) -> int | None:
    """Return the number of nulls; None if the writer didn't count them."""
    statistics = [chunk[STATISTICS].value if STATISTICS in chunk else {} for chunk in chunks]
    counts: list[Any] = [found[NULL_COUNT].value if NULL_COUNT in found else None for found in statistics]
    return None if None in counts else sum(counts)

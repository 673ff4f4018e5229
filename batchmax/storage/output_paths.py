"""Checks the paths of outputs, and creates their folders."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from batchmax.errors import OutputError, UsageError
from batchmax.storage.paths import file_identity, is_uri, refuse_other_encodings

PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
"""Suffixes of the path of a single output file; any other path is a folder."""

OTHER_FORMATS = frozenset(
    (
        *("csv", "tsv", "txt", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "html", "htm", "md", "pdf"),
        *("arrow", "arrows", "ipc", "feather", "orc", "avro", "xls", "xlsx", "ods", "npy", "npz", "pt", "pth", "pkl"),
        *("pickle", "joblib", "h5", "hdf5", "hdf", "nc", "mat", "safetensors", "tfrecord", "msgpack", "bson", "db"),
        *("sqlite", "sqlite3", "duckdb", "zarr", "lance", "delta", "iceberg", "gz", "bz2", "xz", "zst", "lz4"),
        *("snappy", "zip", "7z", "tar", "tgz", "bin", "dat", "log"),
    )
)
"""Suffixes of files in other formats. An output with such a name would be a folder, which users don't expect."""


def is_file_path(out: str) -> bool:
    """Return whether an output path is that of a file, as opposed to a folder."""
    return out.lower().endswith(PARQUET_SUFFIXES)


def refuse_other_formats(out: str, *, can_stream: bool = False) -> None:
    """Refuse an output with the suffix of a file in another format.

    Other names, such as ``run.2`` or ``out.v2``, are those of folders. With a slash at its end, any name is a folder.

    Parameters
    ----------
    out
        The path or the URI.
    can_stream
        Whether the output may also be a stream on stdout, for the message.

    Raises
    ------
    UsageError
        The message says which formats can be written.
    """
    refuse_other_encodings(out)
    stem, _, ending = out.rpartition("/")[2].rpartition(".")
    if stem and not is_file_path(out) and _is_format(ending):
        raise UsageError(
            f"outputs are Parquet files{' or Arrow streams' * can_stream}, not .{ending} files",
            where=out,
            remedy=f"name a file: {with_suffix(out, '.parquet')}; or a folder: {out}/"
            + "; or an Arrow stream on stdout: -" * can_stream,
        )


def with_suffix(out: str, suffix: str) -> str:
    """Return an output path with another suffix: in place of the last one, and of those of formats before it."""
    folder, slash, name = out.rpartition("/")
    stem, _, ending = name.rpartition(".")
    while stem:
        name = stem
        stem, _, ending = name.rpartition(".")
        if not _is_format(ending):
            break
    return f"{folder}{slash}{name}{suffix}"


def _is_format(ending: str) -> bool:
    """Return whether a suffix, without its dot, is that of another format or, perhaps misspelled, of Parquet."""
    ending = ending.lower()
    is_parquet = f".{ending}" in PARQUET_SUFFIXES or difflib.get_close_matches(ending, ["parquet"], cutoff=0.75)
    return ending in OTHER_FORMATS or bool(is_parquet)


def refuse_file_as_folder(path: Path) -> None:
    """Refuse an output whose parent folder can't be created because one of its parents is a file.

    Raises
    ------
    OutputError
        It names the file.
    """
    for parent in path.parents:
        if parent.is_dir():
            return
        if os.path.lexists(parent):
            what = f"{parent} is not a folder, so nothing can be written below it"
            raise OutputError(what, where=str(path), remedy="name another output")


def refuse_uris_as_output(inputs: Sequence[str], out: str) -> None:
    """Refuse an output at a URI that is one of the inputs, or a folder that contains one.

    Raises
    ------
    OutputError
        It names the input.
    """
    for text in inputs:
        if text == out or text.startswith(f"{out.rstrip('/')}/"):
            raise _is_input(text, out)


def refuse_inputs_as_output(inputs: Sequence[str], *outputs: Path) -> None:
    """Refuse an output that is one of the inputs, under any name or link, or a folder that contains one.

    Raises
    ------
    OutputError
        It names the input.
    """
    numbers = cache(file_identity)  # many inputs are in the same folders
    there = [(out, number) for out in outputs if (number := numbers(out)) is not None]
    for text in inputs if there else ():
        if is_uri(text):
            continue
        path = Path(text).resolve()
        around = {numbers(one) for one in (path, *path.parents)}
        for out, number in there:
            if number in around:
                raise _is_input(text, str(out))


def _is_input(text: str, out: str) -> OutputError:
    return OutputError(f"the output is also an input ({text})", where=out, remedy="name another output")


def make_parents(path: Path) -> list[Path]:
    """Create the missing parent folders of an output, and return those that were created, innermost first."""
    missing = list(itertools.takewhile(lambda parent: not parent.is_dir(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders in this order, if they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()

"""Turns exceptions raised while reading a Parquet file into errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import shlex
from collections.abc import Iterator

import pyarrow as pa

from batchmax.errors import BatchmaxError, DataError
from batchmax.parquet import FooterError, PageError, ThriftError
from batchmax.parquet.footer import MAGIC
from batchmax.runtime.arrow_errors import is_damage
from batchmax.runtime.text import quantity

ENCRYPTED_MAGIC = b"PARE"
"""The first and last four bytes of a file with an encrypted footer."""

PARSER_ERRORS = FooterError, PageError, ThriftError
"""What batchmax's own Parquet code raises if the bytes of a file are invalid."""

DAMAGED = "the file is damaged: write it again"

_REMEDIES = {
    errno.EIO: "check the disk, then run the command again",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
}
"""Remedies for system errors, by error number."""


@contextlib.contextmanager
def read_errors(path: str) -> Iterator[None]:
    """Turn exceptions raised while reading a file into errors that name it.

    Only an exception of a parser, pyarrow's or batchmax's, means that the file is damaged, and only one with an error
    number means that the system can't read it. All other exceptions are bugs and pass unchanged.
    """
    try:
        yield
    except Exception as error:
        found = _read_error(path, error)
        if found is None:
            raise
        raise found from error


def _read_error(path: str, error: Exception) -> DataError | None:
    see = f"see: ls -l {shlex.quote(path)}"
    if isinstance(error, FileNotFoundError):
        return DataError("the file no longer exists", where=path, remedy=see)
    if isinstance(error, PermissionError):
        return DataError("permission denied", where=path, remedy=see)
    if isinstance(error, OSError) and error.errno is not None:
        what = f"cannot be read: {error.strerror or error}"
        return DataError(what, where=path, remedy=_REMEDIES.get(error.errno, see))
    if not is_damage(error) and not isinstance(error, PARSER_ERRORS):
        return None
    text = "".join(char if char.isprintable() else "?" for char in " ".join(str(error).split()))
    if any(words in text for words in ("magic bytes", "file size is", "encrypted metadata")):
        return _without_footer(path)
    cause = "the file is damaged, or uses a feature that pyarrow does not support"
    remedy = f"{cause if isinstance(error, pa.ArrowNotImplementedError) else DAMAGED}; see: {inspect_command(path)}"
    return DataError(f"cannot be read: {text}", where=path, remedy=remedy)


@contextlib.contextmanager
def schema_errors(path: str) -> Iterator[None]:
    """Name the file in errors about its schema, which are raised by code that doesn't know the file."""
    try:
        yield
    except BatchmaxError as error:
        if not error.where.startswith(path):
            error.where = f"{path}: {error.where}" if error.where else path
        error.remedy = error.remedy.replace("batchmax inspect FILE", inspect_command(path))
        if "'" not in path:
            error.remedy = error.remedy.replace("FROM 'FILE'", f"FROM '{path}'")
        raise


def inspect_command(path: str) -> str:
    """Return the command that shows the contents of a file."""
    return f"batchmax inspect {shlex.quote(path)}"


def wrong_row_count(path: str, group: int, found: int, expected: int) -> DataError:
    """Return the error for a row group with another number of rows than the footer says."""
    what = f"row group {group} holds {quantity(found, 'row')}, not {expected:,} as the footer says"
    return DataError(what, where=path, remedy=DAMAGED)


def encrypted(path: str, column: str | None = None) -> DataError:
    """Return the error for an encrypted column, or an encrypted footer."""
    what = "the footer" if column is None else f"column {column!r}"
    return DataError(
        f"{what} is encrypted, and encrypted Parquet files are not supported",
        where=path,
        remedy="decrypt the file first, with a program that has its keys",
        column=column or "",
    )


def _without_footer(path: str) -> DataError:
    """Return the error for a file that doesn't end with a Parquet footer."""
    with open(path, "rb") as stream:  # noqa: PTH123 - the path as it was given
        head = stream.read(len(MAGIC))
    if head == ENCRYPTED_MAGIC:
        return encrypted(path)
    if head == MAGIC:
        what = "the file is incomplete: it begins as a Parquet file, but has no footer"
        return DataError(what, where=path, remedy="copy or write it again")
    remedy = "choose other files with a quoted glob: '*.parquet'"
    if not head:
        return DataError("the file is empty", where=path, remedy=remedy)
    return DataError("not a Parquet file", where=path, remedy=f"convert it first, or {remedy}")

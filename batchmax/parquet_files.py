"""Parquet files through pyarrow: how they are opened, and what is said when they cannot be read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.arrow import schema_without_views
from batchmax.errors import BatchmaxError, DataError
from batchmax.parquet import Footer, FooterError

READ_BUFFER = 1 << 20
FOOTER_TAIL = 8
MAGIC = b"PAR1"


Stamp = tuple[int, int, int, int]
"""What changes when a file is replaced or written to: its device, number, size, and when it was written last."""


@dataclass(frozen=True)
class InputFile:
    """One Parquet file of an input."""

    path: str
    metadata: pq.FileMetaData
    size: int
    stamp: Stamp

    @cached_property
    def footer(self) -> Footer | None:
        """The footer as it is stored; None if it is not understood, and then the file is left to pyarrow alone."""
        with open(self.path, "rb") as stream:  # noqa: PTH123 - a URI one day
            try:
                return Footer.read(stream.fileno())
            except FooterError:
                return None

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file for positioned reads."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            self.check_unchanged(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def check_unchanged(self, descriptor: int) -> None:
        """Refuse to go on with a file that is not what it was when its footer was read.

        Raises
        ------
        DataError
            It was replaced, or written to.
        """
        if not _stamp(os.fstat(descriptor)) == _stamp(os.stat(self.path)) == self.stamp:  # noqa: PTH116 - a URI one day
            raise DataError(
                "the file has changed while it was read",
                where=self.path,
                remedy="let whoever writes it finish, then run the command again",
            )

    def footer_digest(self) -> str:
        """Return a digest of the footer, which changes whenever the data do."""
        with open(self.path, "rb") as stream:  # noqa: PTH123 - a URI one day
            stream.seek(-FOOTER_TAIL, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(-FOOTER_TAIL - length, os.SEEK_END)
            return hashlib.sha256(stream.read(length)).hexdigest()


def open_file(path: str) -> InputFile:
    """Read the footer of a file.

    Raises
    ------
    DataError
        It is not there, no regular file, or no Parquet file.
    """
    with reading(path):
        info = os.stat(path)  # noqa: PTH116 - a URI one day
        if not stat.S_ISREG(info.st_mode):
            # Opening a pipe that nobody writes to would wait for ever.
            raise DataError("not a regular file", where=path, remedy="write it into a file first: cat INPUT > FILE")
        metadata = pq.read_metadata(path)
        rows = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        if rows != metadata.num_rows:
            raise DataError(
                f"the row groups have {rows:,} rows, not {metadata.num_rows:,} as the footer says",
                where=path,
                remedy="the file is damaged: make it again",
            )
        return InputFile(path, metadata, info.st_size, _stamp(info))


def _stamp(info: os.stat_result) -> Stamp:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def arrow_schema(file: InputFile) -> pa.Schema:
    """Return the columns of a file as they are read."""
    with reading(file.path):
        return schema_without_views(file.metadata.schema.to_arrow_schema())


def parquet_file(file: InputFile) -> pq.ParquetFile:
    """Open a file for reading in bounded memory, its page checksums checked."""
    # A small buffer without read-ahead is what keeps a row group of gigabytes out of memory; a map is never used,
    # because a file cut short under a map is a signal, not an error.
    return pq.ParquetFile(
        file.path,
        metadata=file.metadata,
        memory_map=False,
        pre_buffer=False,
        buffer_size=READ_BUFFER,
        page_checksum_verification=True,
    )


def pyarrow_only() -> bool:
    """Return whether pyarrow is to read and write everything, for doubt and for bug reports."""
    return os.environ.get("BATCHMAX_PARQUET") == "pyarrow"


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Name the file in errors about its schema, which know columns and options only."""
    try:
        yield
    except BatchmaxError as error:
        if not error.where.startswith(path):
            error.where = f"{path}: {error.where}" if error.where else path
        error.remedy = error.remedy.replace("batchmax inspect FILE", f"batchmax inspect {shlex.quote(path)}")
        raise


class reading:  # noqa: N801 - reads as a phrase
    """Turn what goes wrong while a file is read into errors that name it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        passing = BatchmaxError | GeneratorExit | MemoryError
        if error is None or isinstance(error, passing) or not isinstance(error, Exception):
            return
        name = shlex.quote(self._path)
        if isinstance(error, FileNotFoundError):
            raise DataError("the file is gone", where=self._path, remedy=f"look: ls -l {name}") from error
        if isinstance(error, PermissionError):
            raise DataError("may not be read", where=self._path, remedy=f"look: ls -l {name}") from error
        text = "".join(char if char.isprintable() else "?" for char in " ".join(str(error).split()))
        what, remedy = f"cannot be read: {text}", f"the file is damaged: make it again; look: batchmax inspect {name}"
        if "magic bytes" in text or "file size is" in text:
            what, remedy = _unlike_parquet(self._path)
        raise DataError(what, where=self._path, remedy=remedy) from error


def _unlike_parquet(path: str) -> tuple[str, str]:
    """Return what a file is that does not end as Parquet does, and what to do about it."""
    with open(path, "rb") as stream:  # noqa: PTH123 - a URI one day
        head = stream.read(len(MAGIC))
    if head == MAGIC:
        return "the file is cut short: it begins as Parquet but does not end as such", "copy it, or make it, again"
    what = "no Parquet file" if head else "the file is empty"
    return what, f"look: file {shlex.quote(path)}; among other files, choose with a quoted glob: '*.parquet'"

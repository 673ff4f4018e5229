"""Writes record batches to a Parquet file, one row group at a time.

Knows where bytes go and how they are encoded, but not what they mean or when the file is published.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from batchmax import __version__
from batchmax.errors import OutputError
from batchmax.parquet import CopiedColumns, FileWriter, Footer, FooterError, ThriftError
from batchmax.parquet.format import BYTE_STREAM_SPLIT, CODEC_NUMBERS
from batchmax.parquet.writing.column_chunk import CODEC, ENCODINGS, METADATA
from batchmax.scoring.sequence_assembler import Piece
from batchmax.sinks.row_group_encoder import RowGroupEncoder
from batchmax.sinks.spilled_columns import SpilledColumns
from batchmax.sources.parquet_file import read_footer
from batchmax.storage import system_calls
from batchmax.storage.files import open_again, open_exclusively

SUMMARY_KEY = "batchmax.summary"
"""The metadata key of the summary, as JSON."""

STALE_KEYS = (b"pandas", b"huggingface", b"ARROW:schema", b"batchmax", SUMMARY_KEY.encode())
"""Metadata keys that describe the input's columns and would be wrong for the output's."""

STALE_PREFIX = b"org.apache.spark."
"""Prefix of Spark's metadata: Spark prefers this schema to the file's, and would not show new columns."""

CREATED_BY = f"batchmax version {__version__}"

CODEC_OPTIONS = {number: name for name, number in CODEC_NUMBERS.items()}


class ParquetSink:
    """A Parquet file that is being written; a context manager that closes it.

    Parameters
    ----------
    path
        The path to write to; nothing may exist there, unless ``done`` says that a part of the file is written.
    encoder
        Encodes row groups; has the schema of the file.
    done
        How much of the file an earlier run has completed.
    durable
        Whether the file is synced; otherwise the system writes it to the disk when it wants to.
    """

    def __init__(
        self, path: Path, encoder: RowGroupEncoder, done: FileState | None = None, *, durable: bool = True
    ) -> None:
        done = done or FileState()
        self.path = path
        self._durable = durable
        self.rows = done.rows
        self._encoder = encoder
        self._streams: SpilledColumns | None = None
        with write_errors(self.path):
            descriptor = open_again(path) if done.size else open_exclusively(path)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            self._writer = FileWriter(descriptor, encoder.schema, CREATED_BY, (done.groups, done.size), durable=durable)

    def stream(self, pieces: Sequence[Piece], dtype: np.dtype[Any], n_classes: int, *, drops_last_row: bool) -> None:
        """Append tokens of matrices to the row group that :meth:`write` completes.

        ``drops_last_row`` says whether the row that was started last is removed first.
        """
        with write_errors(self.path):
            if self._streams is None:
                self._streams = SpilledColumns(self._encoder, self._writer, self.path.parent, dtype, n_classes)
            if drops_last_row:
                self._streams.drop_last_row()
            self._streams.add(pieces)

    def write(self, batches: Sequence[pa.RecordBatch], copied: CopiedColumns | None = None) -> None:
        """Append a row group of some batches and of what was streamed; do nothing if there are no rows.

        ``copied`` are columns that the batches need not have. They are used if they have as many rows.
        """
        rows = sum(batch.num_rows for batch in batches)
        if not rows:
            return
        streamed = {} if self._streams is None else self._streams.end()
        with write_errors(self.path):
            whole = copied if copied is not None and copied.n_rows == rows else None
            columns = self._encoder.encode(batches, whole, streamed)
            self._writer.append(rows, columns, copied.sorting if copied is not None else ())
        self.rows += rows

    @property
    def size(self) -> int:
        """The number of bytes handed over."""
        return self._writer.size

    @property
    def written(self) -> int:
        """The number of bytes handed to the operating system."""
        return self._writer.written

    @property
    def synced(self) -> int:
        """The number of bytes that are durable."""
        return self._writer.synced

    def new_groups(self) -> list[bytes]:
        """Return the row groups since the last call, as they will be in the footer."""
        return self._writer.new_groups()

    def sync(self) -> None:
        """Make everything written so far durable."""
        with write_errors(self.path):
            self._writer.sync()

    def flush(self) -> None:
        """Write buffered bytes; for small files."""
        with write_errors(self.path):
            self._writer.flush()

    def pause(self) -> None:
        """Write buffered bytes, and leave the file unfinished."""
        with write_errors(self.path):
            self._writer.write_rest()

    def close(self, metadata: Mapping[str, str] = MappingProxyType({})) -> int:
        """Finish the file, make it durable if it should be, check its footer, and return its size.

        ``metadata`` are added to the footer, together with those of the schema.

        Raises
        ------
        OutputError
            The file can't be written, or doesn't contain what was written.
        """
        with write_errors(self.path):
            self._writer.finish(metadata)
            self._writer.close()
            if self._durable:
                system_calls.sync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            self._file.close()
            written = read_footer(self.path)
        if written.num_rows != self.rows or written.num_columns != len(self._encoder.schema.footer.leaves):
            raise OutputError("the written file is incomplete", where=str(self.path), remedy="check the disk")
        return size

    def abandon(self) -> None:
        """Close the file, finished or not."""
        self._writer.close()
        if self._streams is not None:
            self._streams.close()
        self._file.close()

    def __enter__(self) -> Self:
        """Return the sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, finished or not; after an error, write buffered bytes first, so that a run can resume it."""
        try:
            if error is not None and not self._file.closed:
                with contextlib.suppress(OSError, OutputError):
                    self.pause()
        finally:
            self.abandon()


def input_codecs(footer: Footer | None) -> dict[str, str]:
    """Return the codec of each column of a file in its first row group, by name."""
    codecs: dict[str, str] = {}
    if footer is None or not footer.n_row_groups:
        return codecs
    # pyarrow's metadata aren't used: if a damaged footer has other levels than the schema, pyarrow ends the process.
    with contextlib.suppress(FooterError, ThriftError):
        group = footer.row_group(0)
        for column in footer.columns:
            chunk = group.chunk(column.first_leaf)
            if METADATA in chunk:
                codecs[column.name] = CODEC_OPTIONS.get(chunk[METADATA].value[CODEC].value, "SNAPPY")
    return codecs


def splits_bytes(footer: Footer | None, name: str) -> bool:
    """Return whether a file has a column that is encoded with BYTE_STREAM_SPLIT."""
    column = None if footer is None or not footer.n_row_groups else footer.column(name)
    if footer is None or column is None:
        return False
    with contextlib.suppress(FooterError, ThriftError):
        chunk = footer.row_group(0).chunk(column.first_leaf)
        return METADATA in chunk and BYTE_STREAM_SPLIT in chunk[METADATA].value[ENCODINGS].value.values
    return False


def kept_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes]:
    """Return the metadata of an input that also apply to an output."""
    return {
        key: value
        for key, value in (metadata or {}).items()
        if key not in STALE_KEYS and not key.startswith(STALE_PREFIX)
    }


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Convert errors of writing a file into an :class:`OutputError` that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        what = f"cannot be written: {reason}"
        raise OutputError(what, where=str(path), remedy="free space there, or choose another path: -o") from error


@dataclass
class FileState:
    """How much of a file is complete: its bytes, its rows, and its row groups as they will be in the footer."""

    size: int = 0
    rows: int = 0
    groups: list[bytes] = field(default_factory=list)
